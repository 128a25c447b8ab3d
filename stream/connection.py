"""One source that is opened again for ever: state, reasons, pauses, and threads that do not come back.

A supervising thread, which never waits for a library, has a second one open and read the source. That one
may hang in C, where nothing can wake it: then it is left behind and another takes its place. It can no
longer deliver anything, and ends by itself if it ever comes back.

    connecting -> live -> stalled -> reconnecting -> live        and waiting, ended, stopped

Knows nothing of tracking, viewers or HTTP; pictures go to a ``Receiver``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from time import monotonic
from typing import Literal, Protocol

from stream.backoff import Backoff
from stream.config import CameraConfig
from stream.errors import (
    LookoutError,
    NothingPublished,
    SourceBroken,
    SourceError,
    SourceNotFound,
    SourceTimeout,
    SourceUnreachable,
    redact,
)
from stream.frames import AccessUnit, Frame
from stream.h264 import Profile
from stream.sources import Source, SourceInfo, SourceOptions, open_source
from stream.sources.clock import CameraClock, Ending
from stream.sources.inlet import Inlet
from stream.sources.probe import PERIOD_S, Probe, asks

log = logging.getLogger(__name__)

State = Literal["connecting", "live", "stalled", "reconnecting", "waiting", "ended", "stopped"]
OPEN_TIMEOUT_S = 5.0
MOST_LEFT_BEHIND = 3  # threads of one source
_GRACE_S = 0.25  # a source's own word comes first where it has one: it knows more
_LEAVE_S = 0.5  # for a thread to end that was told to
_LOOK_S = 0.2
# What a source that comes back may be noticed by. Never asked for after a refused login.
_MAY_RETURN = (SourceUnreachable, SourceTimeout, SourceBroken, SourceNotFound)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a source is doing, why, since when, and when it is tried again (monotonic seconds)."""

    state: State
    reason: str | None
    since: float
    retry_at: float | None = None

    @property
    def retry_in_s(self) -> float | None:
        return None if self.retry_at is None else max(0.0, self.retry_at - monotonic())


class Receiver(Protocol):
    """Who gets what comes. Called from one thread at a time, never by one that was left behind."""

    def take(self, frame: Frame) -> None:
        """A picture, on the camera's clock."""
        ...

    def supply(self, forwards: Profile | str | None) -> bool:
        """What the source's own packets are now (``Source.forwards``), None: it has none. True: they are wanted."""
        ...

    def forward(self, unit: AccessUnit) -> None:
        """One of those, on the camera's clock."""
        ...


class Connection:
    """Reads ``config.source`` until it ends or ``request_stop``, whatever happens to it.

    Args:
        name: the camera, for thread names and log lines.
        receiver: gets the pictures.
        inlet: where they come in, for a source that is published to.
        on_end: called once, when nothing will come any more.

    Attributes:
        info: of the source as last opened.
        last: the newest picture, None before the first.
        decoded, missed, reconnects, stalls: counts since the start.
    """

    def __init__(
        self,
        name: str,
        config: CameraConfig,
        receiver: Receiver,
        inlet: Inlet | None,
        on_end: Callable[[], None],
    ) -> None:
        self.name = name
        self.config = config
        self.receiver = receiver
        self.inlet = inlet
        self.clock = CameraClock()
        self.condition = Condition("connecting", None, monotonic())
        self.info: SourceInfo | None = None
        self.last: Frame | None = None
        self.decoded = self.missed = self.reconnects = self.stalls = 0
        self._bad_packets = 0
        self._on_end = on_end
        self._stop = threading.Event()
        self._backoff = Backoff(config.max_backoff_s)
        self._reader: _Reader | None = None
        self._probe: Probe | None = None
        self._left_behind: list[_Reader] = []
        self._thread = threading.Thread(target=self._supervise, name=f"camera-{name}", daemon=True)

    @property
    def bad_packets(self) -> int:
        """Packets that could not be decoded since the start."""
        reader = self._reader
        return self._bad_packets + (0 if reader is None else reader.bad_packets)

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """End soon; returns at once."""
        self._stop.set()
        for waiting in (self._reader, self._probe):
            if waiting is not None:
                waiting.stop()

    def join(self, timeout_s: float) -> None:
        """Wait until its threads have ended. One that hangs in C is left behind (it is a daemon)."""
        deadline = monotonic() + timeout_s
        if not self._thread.is_alive() and not self._left_behind:
            return
        self._thread.join(timeout_s)
        threads = [self._thread, *self._left_behind, *([self._probe] if self._probe else [])]
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))
        if any(thread.is_alive() for thread in threads):
            log.warning("camera %s: its decoder does not end and is left behind", self.name)

    def take(self, frame: Frame) -> None:
        """A picture came (called by the thread that reads)."""
        frame = self.clock.align(frame)
        self.decoded += 1
        self.missed += 0 if self.last is None else frame.index - self.last.index - 1
        self.last = frame
        if self.condition.state != "live":
            self._become("live")
        self.receiver.take(frame)

    # The supervising thread

    def _supervise(self) -> None:
        try:
            while not self._stop.is_set() and self.condition.state != "ended":
                try:
                    if self._may_open():
                        self._read_once()
                except Exception:  # a fault of ours must not end the camera for good
                    log.exception("camera %s: unexpected", self.name)
                    self._stop.wait(OPEN_TIMEOUT_S)
        finally:
            if self.condition.state != "ended":
                self._become("stopped", self.condition.reason)
            self._on_end()

    def _may_open(self) -> bool:
        """Whether another thread may be had; one that is left behind ends if its library ever comes back."""
        self._left_behind = [reader for reader in self._left_behind if reader.is_alive()]
        if len(self._left_behind) < MOST_LEFT_BEHIND:
            return True
        hung = f"hung: {MOST_LEFT_BEHIND} attempts hang; waiting for one of them to come back"
        if self.condition.reason != hung:
            log.warning("camera %s: %s", self.name, hung)
        self._become("reconnecting", hung)
        self._stop.wait(_LOOK_S)
        return False

    def _read_once(self) -> None:
        state: State = "reconnecting" if self.condition.state == "stalled" else self.condition.state
        self._become(state, self.condition.reason)
        self._reader = reader = _Reader(self, self._stop)
        reader.start()
        fault = self._outcome(reader)
        self._reader = None
        self._bad_packets += reader.bad_packets
        self.receiver.supply(None)
        if self._stop.is_set():
            return  # whatever it says, it was we who ended it
        if fault is None:
            self._become("ended")
        elif isinstance(fault, NothingPublished):
            self._await_publisher(str(fault))
        else:
            self._await_retry(fault, reader)

    def _outcome(self, reader: _Reader) -> Exception | None:
        """What ended the reading: a fault, or None. Waits for it no longer than it may take."""
        while not self._stop.is_set():
            # Once it is opened it may take less: look again in time for that.
            if reader.over.wait(min(reader.patience_s(), self.config.stall_s)):
                if not self._stop.is_set():
                    return reader.fault
            elif reader.leave():
                self._left_behind.append(reader)
                return SourceTimeout(f"{redact(self.config.source)}: {reader.complaint}")
        reader.join(_LEAVE_S)
        if reader.is_alive():
            self._left_behind.append(reader)
        return None

    def _await_publisher(self, why: str) -> None:
        """Until somebody publishes, or there is more to say. It is no fault: nobody is warned."""
        assert self.inlet is not None
        if self.condition.state == "live":
            self.reconnects += 1
        self._become("waiting", f"{why}; publish to /whip/{self.name}")
        log.info("camera %s: waiting: %s", self.name, self.condition.reason)
        self.inlet.wait(why, self._stop)

    def _await_retry(self, fault: Exception, reader: _Reader) -> None:
        stalled = isinstance(fault, SourceTimeout) and reader.opened
        self.reconnects += 1
        self.stalls += stalled
        pause_s = self._backoff.pause_s(fault, reader.played_s)
        self._become("stalled" if stalled else "reconnecting", self._reason(fault), monotonic() + pause_s)
        _forget_frames(fault)
        if pause_s > PERIOD_S and isinstance(fault, _MAY_RETURN) and (answers := asks(self.config.source)):
            # What showed pictures and then stopped was away, even if it answers by the time that it is asked.
            self._watch_out(Probe(answers, gone=stalled and reader.played_s > 0), pause_s)
        else:
            self._stop.wait(pause_s)

    def _watch_out(self, probe: Probe, pause_s: float) -> None:
        """Wait for ``pause_s``, or until what was away is back."""
        if self._probe is not None:
            self._probe.join(_LEAVE_S)  # it was told to end
            if self._probe.is_alive():  # it hangs, and one of its kind is enough
                self._stop.wait(pause_s)
                return
        self._probe = probe
        probe.start()
        if not self._stop.is_set() and probe.back.wait(pause_s):
            self._backoff.reset()
        probe.stop()

    def _reason(self, fault: Exception) -> str:
        if isinstance(fault, LookoutError):
            word = fault.reason if isinstance(fault, SourceError) else "failed"
            reason = f"{word}: {redact(str(fault))}"
            log.warning("camera %s: %s", self.name, reason)
            return reason
        log.error("camera %s: unexpected %s", self.name, type(fault).__name__, exc_info=fault)
        return f"failed: {type(fault).__name__}"

    def _become(self, state: State, reason: str | None = None, retry_at: float | None = None) -> None:
        before = self.condition
        since = before.since if state == before.state else monotonic()
        self.condition = Condition(state, reason, since, retry_at)


def _forget_frames(fault: BaseException | None) -> None:
    """Where it was raised is told by now, and would keep the source, its decoder and that one's threads alive."""
    while fault is not None:
        fault.__traceback__, fault = None, fault.__context__


class _Reader(threading.Thread):
    """Opens the source once and reads it to its end, in a thread of its own.

    It is in turn in the source's hands and in ours (``_turn``). Only in the former can it be left behind, and
    what it then comes back with goes nowhere.
    """

    def __init__(self, connection: Connection, stop: threading.Event) -> None:
        super().__init__(name=f"decode-{connection.name}", daemon=True)
        self.over = threading.Event()  # it has ended, or is told to
        self.fault: Exception | None = None
        self.opened = False
        self._connection = connection
        self._options = _options(connection.config, connection.inlet)
        self._ending = Ending(stop)
        self._source: Source | None = None
        self._bad_packets = 0
        self._played_from: float | None = None
        self._waits_from: float | None = monotonic()  # in the source's hands since then
        self._lock = threading.Lock()

    @property
    def bad_packets(self) -> int:
        source = self._source
        return self._bad_packets if source is None else source.bad_packets

    @property
    def played_s(self) -> float:
        """Seconds since its first picture."""
        return 0.0 if self._played_from is None else monotonic() - self._played_from

    @property
    def complaint(self) -> str:
        """Why it was left behind."""
        if self.opened:
            return f"no picture for {self._options.stall_s:g} s; check the camera"
        return f"no video within {self._options.open_timeout_s:g} s; check the address and the network"

    def stop(self) -> None:
        """End soon; whoever waits for it goes on at once."""
        self._ending.set()
        self.over.set()

    def patience_s(self) -> float:
        """How long to wait from now, should nothing come, before it has to be left behind."""
        limit_s = (self._options.stall_s if self.opened else self._options.open_timeout_s) + _GRACE_S
        waits_from = self._waits_from
        if waits_from is None:
            return limit_s
        return max(0.0, max(waits_from, self._ending.rested_at) + limit_s - monotonic())

    def leave(self) -> bool:
        """Leave it behind if it has been in the source's hands for too long. False: it has not."""
        with self._lock:
            if self.patience_s() > 0:
                return False
            self._ending.set()
            return True

    def run(self) -> None:
        try:
            self._read()
        except Exception as fault:  # for the supervising thread
            self.fault = fault
        if self._source is not None:
            self._bad_packets, self._source = self._source.bad_packets, None
        self.over.set()

    def _read(self) -> None:
        connection = self._connection
        with closing(open_source(connection.config.source, self._options, self._ending)) as source:
            if not self._turn(waits=False):
                return
            self._source, self.opened = source, True
            connection.clock.restart()
            connection.info = source.info
            log.info("camera %s: %s", connection.name, source.info)
            while self._turn(waits=True):
                frame = source.read()
                if not self._turn(waits=False):
                    return
                if frame is None:
                    break
                self._deliver(source, frame)
        if source.info.live and not self._ending.is_set():
            raise SourceBroken(f"{redact(connection.config.source)}: the stream ended; expected it to go on")

    def _turn(self, waits: bool) -> bool:
        """It goes to the source, or comes back from it. False: it was told to end, or left behind."""
        with self._lock:
            self._waits_from = monotonic() if waits else None
            return not self._ending.is_set()

    def _deliver(self, source: Source, frame: Frame) -> None:
        if self._played_from is None:
            self._played_from = monotonic()
        wanted = self._connection.receiver.supply(source.forwards)
        source.listener = self._forward if wanted else None
        self._connection.take(frame)

    def _forward(self, unit: AccessUnit) -> None:
        """One access unit, while the source is being read."""
        if not self._ending.is_set():
            time_s = self._connection.clock.aligned_s(unit.time_s, unit.captured_at)
            self._connection.receiver.forward(replace(unit, time_s=time_s))


def _options(config: CameraConfig, inlet: Inlet | None) -> SourceOptions:
    return SourceOptions(
        backend=config.backend,
        hwaccel=config.hwaccel,
        transport=config.transport,
        latency_ms=config.latency_ms,
        loop=config.loop,
        start_s=config.start_s,
        pace=config.pace,
        stall_s=config.stall_s,
        open_timeout_s=OPEN_TIMEOUT_S,
        inlet=inlet,
        watched=True,
    )
