"""What a source is: the Protocol, what it says of itself, and how it is to be opened.

It knows no backend; ``stream/sources/__init__.py`` chooses one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from stream.frames import AccessUnit, Frame
from stream.h264 import Profile
from stream.sources.inlet import Inlet

Listener = Callable[[AccessUnit], None]


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known once a source is open. Pictures may later change size: trust each frame's own."""

    width: int
    height: int
    codec: str
    frame_rate: float | None  # frames a second as the container says, None where it says nothing
    live: bool  # it goes on for ever by itself; what is not taken in time is lost
    backend: str
    reason: str = ""  # why that backend, where there was a choice

    def __str__(self) -> str:
        """One line: backend and why that one, codec, size, rate."""
        rate = f" @ {self.frame_rate:.3g} fps" if self.frame_rate else ""
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.backend}{why}, {self.codec} {self.width}x{self.height}{rate}"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to open and play a source.

    Args:
        backend: what fetches and decodes; ``auto`` takes what works, and says in ``SourceInfo`` why.
        hwaccel: what PyAV decodes with; ``cuda`` is NVIDIA's NVDEC.
        transport: carries RTSP media.
        latency_ms: of the buffer that puts RTP packets back in order, where the backend has one; None
            chooses by the transport.
        loop: start a file again at its end, from ``start_s`` on; time and index keep growing.
        start_s: begin a file with the picture that is shown so many seconds after its first one; time and
            index still count from 0.
        pace: ``realtime`` plays a file by its own timestamps and hands over only the newest picture
            of a live source; ``fastest`` plays it as fast as it can be decoded, ``lossless`` as fast as its
            pictures are taken, none left out.
        stall_s: without a picture for so long, reading raises ``SourceTimeout``.
        open_timeout_s: opening takes no longer than this, then raises ``SourceTimeout``.
        inlet: where a publisher's pictures come in, for a source that is published to.
        watched: whoever reads notices by itself when that takes too long (``stream/connection.py``), so it is
            read in their own thread, whatever it is.
    """

    backend: Literal["auto", "pyav", "gstreamer"] = "auto"
    hwaccel: Literal["none", "cuda"] = "none"
    transport: Literal["tcp", "udp"] = "tcp"
    latency_ms: int | None = None
    loop: bool = False
    start_s: float = 0.0
    pace: Literal["realtime", "lossless", "fastest"] = "realtime"
    stall_s: float = 5.0
    open_timeout_s: float = 5.0
    inlet: Inlet | None = None
    watched: bool = False


class Source(Protocol):
    """A stream of pictures. Used by one thread, except ``close``, which any thread may call.

    ``bad_packets`` counts what could not be decoded and was skipped.

    ``listener``, while there is one, is called with every access unit of a stream whose pictures come in the
    order in which they are sent, none left out, from some thread; it must return soon. ``forwards`` is the
    profile of those, or says in words why there are none.
    """

    info: SourceInfo
    listener: Listener | None

    @property
    def forwards(self) -> Profile | str: ...

    @property
    def bad_packets(self) -> int: ...

    def read(self) -> Frame | None:
        """Wait for the next picture. None at the end of a file, or once closed.

        Raises:
            SourceError: a subclass that says what is wrong; the source must then be closed.
        """
        ...

    def close(self) -> None:
        """Give everything back and let a waiting ``read`` return soon. May be called twice."""
        ...
