"""Secrets by reference: what they stand for, where they are encoded, and that a fault names no value."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config_file import config_of, load_config, override, read_document
from stream.errors import ConfigError, redact
from stream.references import Unresolved, has_reference, literal, resolve
from stream.sources import SourceOptions, open_source
from tests.rtsp_server import RtspServer, missing

SECRET = "s3cr3t@/:%é"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing here", "nothing here"),
        ("${CAM}", SECRET),
        ("a ${CAM} b ${CAM}", f"a {SECRET} b {SECRET}"),
        ("$${CAM} and $${", "${CAM} and ${"),
        ("$CAM $$CAM {CAM}", "$CAM $$CAM {CAM}"),
        ("rtsp://admin:${CAM}@192.0.2.1/a", "rtsp://admin:s3cr3t%40%2F%3A%25%C3%A9@192.0.2.1/a"),
        ("rtsp://${CAM}:${CAM}@[::1]/a", "rtsp://{0}:{0}@[::1]/a".format("s3cr3t%40%2F%3A%25%C3%A9")),
        ("rtsp://192.0.2.1/${CAM}", f"rtsp://192.0.2.1/{SECRET}"),
        ("rtsp://192.0.2.1/a?password=${CAM}&x=@b", f"rtsp://192.0.2.1/a?password={SECRET}&x=@b"),
        ("rtsp://${HOST}/a", "rtsp://192.0.2.9:554/a"),
    ],
)
def test_references_stand_for_their_values(text: str, expected: str) -> None:
    assert resolve(text, {"CAM": SECRET, "HOST": "192.0.2.9:554"})[0] == expected


@given(st.text())
def test_what_is_literal_stands_for_itself(text: str) -> None:
    assert resolve(literal(text), {})[0] == text
    assert not has_reference(literal(text))


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1))
def test_any_password_comes_through_a_url(password: str) -> None:
    resolved, _ = resolve("rtsp://admin:${CAM}@192.0.2.1:554/a", {"CAM": password})
    userinfo, _, rest = resolved.removeprefix("rtsp://").rpartition("@")
    assert rest == "192.0.2.1:554/a"
    assert "/" not in userinfo
    assert unquote(userinfo.removeprefix("admin:")) == password


def test_a_file_loses_its_last_line_break_only(tmp_path: Path) -> None:
    secret = tmp_path / "cam"
    for written, read in {"ab/c\n": "ab/c", "abcd\r\n": "abcd", "ab cd": "ab cd"}.items():
        secret.write_bytes(written.encode())
        assert resolve(f"${{file:{secret}}}")[0] == read
    url, values = resolve(f"rtsp://u:${{file:{secret}}}@192.0.2.1/")
    assert (url, values) == ("rtsp://u:ab%20cd@192.0.2.1/", ["ab cd"])


def test_each_fault_is_one_line_without_a_value(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"hunter2" * 5000)
    (tmp_path / "lines").write_text("hunter2\nhunter2\n")
    (tmp_path / "binary").write_bytes(b"hunter2\xff")
    (tmp_path / "empty").write_text("\n")
    faults = {
        "${NOT_THERE}": "the environment variable NOT_THERE is not set",
        "${EMPTY}": "the environment variable EMPTY is empty",
        "${LINES}": "the environment variable LINES holds line breaks",
        "${}": "a reference is malformed; expected ${NAME}",
        "${not a name}": "a reference is malformed",
        "${unclosed": "a reference is malformed",
        "${file:cam}": "relative path",
        "${file:/dev/zero}": "there is no file /dev/zero",
        f"${{file:{tmp_path}/none}}": f"there is no file {tmp_path}/none"[:60],
        f"${{file:{tmp_path}/large}}": "is larger than 16384 bytes",
        f"${{file:{tmp_path}/lines}}": "holds line breaks",
        f"${{file:{tmp_path}/binary}}": "is not text",
        f"${{file:{tmp_path}/empty}}": "is empty",
    }
    for text, expected in faults.items():
        with pytest.raises(Unresolved) as caught:
            resolve(text, {"EMPTY": "", "LINES": "hunter2\nhunter2"})
        said = str(caught.value)
        assert expected in said
        assert "hunter2" not in said
        assert "\n" not in said


def test_a_configuration_names_line_and_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAM_PASSWORD", raising=False)
    path = tmp_path / "lookout.yaml"
    path.write_text("cameras:\n  a:\n    source: rtsp://admin:${CAM_PASSWORD}@192.0.2.1/\n    overlay: ${}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{path}:3: cameras.a.source: the environment variable CAM_PASSWORD is not set")
    assert second.startswith(f"{path}:4: cameras.a.overlay: a reference is malformed")


def test_a_document_keeps_its_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_PASSWORD", "p${HOME}@x")
    monkeypatch.setenv("LOOKOUT_TEST_PORT", "9000")
    monkeypatch.setenv("TURN_SECRET", "shared-secret-of-turn")
    path = tmp_path / "lookout.yaml"
    text = (
        "server:\n  port: ${LOOKOUT_TEST_PORT}\n"
        "  ice_servers: [{urls: ['turn:t.example.net'], secret: '${TURN_SECRET}'}]\n"
        "cameras:\n  a: &a {source: 'rtsp://admin:${CAM_PASSWORD}@192.0.2.1/'}\n  b: *a\n"
    )
    path.write_text(text)
    document = read_document(path)
    config = config_of(document, str(path))
    assert config.server.port == 9000
    assert config.server.ice_servers[0].secret is not None
    assert config.server.ice_servers[0].secret.get_secret_value() == "shared-secret-of-turn"
    expected = "rtsp://admin:p%24%7BHOME%7D%40x@192.0.2.1/"
    assert [camera.source for camera in config.cameras.values()] == [expected, expected]
    assert override(config, {"server": {"port": 1}}).cameras["a"].source == expected, "resolved once"
    assert document["cameras"]["a"]["source"] == "rtsp://admin:${CAM_PASSWORD}@192.0.2.1/"
    for said in ("it was p${HOME}@x", "p%24%7bhome%7d%40x or p%24%7BHOME%7D%40x", "shared-secret-of-turn!"):
        assert "HOME" not in redact(said)
        assert "shared-secret" not in redact(said)


def test_yaml_that_names_itself_is_an_error_and_no_loop(tmp_path: Path) -> None:
    path = tmp_path / "lookout.yaml"
    path.write_text("cameras: &a\n  a: {source: demo}\n  b: *a\n")
    with pytest.raises(ConfigError):
        load_config(path)


def test_a_wrong_value_by_reference_is_shown_as_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERLAY", "abc")
    path = tmp_path / "lookout.yaml"
    path.write_text("cameras:\n  a: {source: demo, overlay: '${OVERLAY}'}\n")
    with pytest.raises(ConfigError, match=r"\(got '\$\{OVERLAY\}'\)") as caught:
        load_config(path)
    assert "abc" not in str(caught.value)


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_password_that_looks_like_an_address_opens_a_camera(ready_bikes: Path, tmp_path: Path) -> None:
    """Digest authentication of a real camera: the value arrives there as it is in the file."""
    (tmp_path / "cam").write_text("p@ss/w:rd%41#?\n")
    with RtspServer(ready_bikes, as_is=True, user="viewer", password="p@ss/w:rd%41#?") as server:
        written = f"rtsp://viewer:${{file:{tmp_path}/cam}}@127.0.0.1:{server.port}/camera"
        source = open_source(resolve(written)[0], SourceOptions(pace="lossless"))
        frame = source.read()
        source.close()
    assert frame is not None
    assert frame.picture.width == 640
