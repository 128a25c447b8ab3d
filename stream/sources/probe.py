"""Is a source that was away there again? Asked often and cheaply, without credentials, without opening it.

A server is asked by a TCP connection; one for RTSP must also answer ``OPTIONS``, since the system of a frozen
camera still takes connections. A file or device is there once its path is. It knows nothing of what was wrong.
"""

from __future__ import annotations

import os
import random
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from stream.sources import local_path, source_kind

PERIOD_S = 1.0
_ANSWER_S = 1.0
_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443}
_OPTIONS = "OPTIONS rtsp://{host}:{port}/ RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: lookout\r\n\r\n"


def asks(url: str) -> Callable[[], bool] | None:
    """What tells, within two seconds plus looking up a name, whether ``url`` is there. None: nothing can."""
    kind = source_kind(url)
    path = local_path(url) if kind == "file" else None
    if kind == "device":
        path = Path(f"/dev/video{url}" if url.isdecimal() else url)
    if path is not None:
        return lambda: os.path.exists(path)
    address = _address(url) if kind == "network" else None
    return None if address is None else lambda: _answers(*address)


class Probe(threading.Thread):
    """Asks about once a second, in a thread of its own, as looking up a name may block.

    ``back`` is set once something answers that did not before. What answers all along is not back: it was
    reached and still failed, and asking it to play again at once would only harass it.

    Args:
        answers: as of ``asks``.
        gone: it is known to have been away, so that the first answer is news already. It may come as late as
            the source comes back.
    """

    def __init__(self, answers: Callable[[], bool], gone: bool = False) -> None:
        super().__init__(name="probe", daemon=True)
        self.back = threading.Event()
        self._answers = answers
        self._was_there = not gone
        self._over = threading.Event()

    def run(self) -> None:
        while True:
            there = self._answers()
            if there and not self._was_there:
                self.back.set()
                return
            self._was_there = there
            if self._over.wait(PERIOD_S * random.uniform(0.8, 1.2)):
                return

    def stop(self) -> None:
        """Ask no more; returns at once. Whoever waits for ``back`` goes on."""
        self._over.set()
        self.back.set()


def _address(url: str) -> tuple[str, int, bool] | None:
    """Host, port, and whether it speaks plain RTSP. FFmpeg takes what is before the last @ as credentials."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    try:
        parts = urlsplit(f"//{authority}")
        host, port = parts.hostname, parts.port or _PORTS.get(scheme)
    except ValueError:
        return None
    return (host, port, scheme == "rtsp") if host and port and scheme in _PORTS else None


def _answers(host: str, port: int, is_rtsp: bool) -> bool:
    # UnicodeError: what stands there is no host's name.
    with suppress(OSError, UnicodeError), socket.create_connection((host, port), _ANSWER_S) as connection:
        if not is_rtsp:
            return True
        name = f"[{host}]" if ":" in host else host
        connection.sendall(_OPTIONS.format(host=name, port=port).encode())
        return bool(connection.recv(1))
    return False
