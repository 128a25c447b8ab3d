"""No credential survives ``redact``, however cameras and people write them."""

from __future__ import annotations

import pytest

from stream.errors import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://admin:hunter2@h:554/x", "rtsp://***@h:554/x"),
        ("rtsp://admin:P@ss/w0rd@h/x", "rtsp://***@h/x"),
        ("open rtsp://a:b@h/x failed, http://c:d@i/", "open rtsp://***@h/x failed, http://***@i/"),
        ("rtsp://h/x?user=admin&password=hunter2&channel=1", "rtsp://h/x?user=admin&password=***&channel=1"),
        ("rtsp://h/x?usr=admin&pwd=hunter2", "rtsp://h/x?usr=admin&pwd=***"),
        ("rtsp://h/user=admin_password=hunter2_channel=1", "rtsp://h/user=admin_password=***_channel=1"),
        ("admin:hunter2@192.0.2.1/stream", "***@192.0.2.1/stream"),
        ("rtsp://h/stream1", "rtsp://h/stream1"),
        ("camera demo: 10:30 o'clock", "camera demo: 10:30 o'clock"),
        ("synthetic:640x360@30", "synthetic:640x360@30"),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected
