"""What a connection does about sources that hang, go and come back: real pipes, real sockets, real RTSP."""

from __future__ import annotations

import gc
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from stream import backoff, connection
from stream.backoff import Backoff
from stream.camera import Camera
from stream.config import CameraConfig, EncoderConfig
from stream.errors import SourceUnauthorised, SourceUnreachable
from stream.sources.probe import Probe, asks
from tests.faults.connected import connected, decoders, is_live, until, wait_for
from tests.rtsp_server import RtspServer, missing
from tests.stream.clips import clip

needs_gstreamer = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe: who opens it, or reads from it, hangs in the kernel until somebody writes."""
    path = tmp_path / "pipe.ts"
    os.mkfifo(path)
    return path


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clip(tmp_path_factory.mktemp("film") / "film.ts", frames=60).read_bytes()


@pytest.fixture
def short_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OPEN_TIMEOUT_S", 0.3)


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is back before a minute has passed was noticed."""
    monkeypatch.setattr(backoff, "FIRST_S", 60.0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def release(pipe: Path) -> None:
    """Let whoever hangs at its opening go."""
    with suppress(OSError):  # nobody does
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


# ---- what is given back ----


@needs_gstreamer
def test_a_source_that_failed_is_given_back_while_the_next_attempt_waits(
    ready_bikes: Path, long_pause: None
) -> None:
    """With its decoder and that one's threads; no collection of garbage is needed."""
    with RtspServer(ready_bikes, as_is=True) as camera, connected(camera.url) as (door, _):
        until(door, is_live, "it plays")
        assert door._reader is not None
        source = weakref.ref(door._reader._source)
        gc.disable()
        try:
            camera.stop()
            until(door, lambda now: now.state == "reconnecting", "it is away")
            wait_for(lambda: source() is None, "it is given back")
        finally:
            gc.enable()


# ---- what hangs ---------------------------------------------------------------------------------


def test_openings_that_hang_are_left_behind_three_at_most_until_one_comes_back(
    pipe: Path, film: bytes, short_opening: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.05)
    with connected(pipe, loop=False, pace="lossless") as (door, kept):
        hung = until(door, lambda now: (now.reason or "").startswith("hung"), "three hang")
        assert (hung.state, hung.retry_in_s, door.reconnects) == ("reconnecting", None, 3)
        hanging = set(decoders())
        assert len(hanging) == 3
        time.sleep(0.5)
        assert set(decoders()) == hanging, "no fourth"
        monkeypatch.setattr(connection, "OPEN_TIMEOUT_S", 5.0)
        release(pipe)
        wait_for(lambda: (now := set(decoders())) and not now & hanging, "another try")
        with pipe.open("wb") as writer:
            writer.write(film)
        until(door, lambda now: now.state == "ended", "all of its pictures")
    assert len(kept.frames) == 60
    assert not decoders()


def test_a_read_that_hangs_is_a_stall_and_what_it_brings_too_late_goes_nowhere(
    pipe: Path, film: bytes
) -> None:
    with connected(pipe, loop=False, stall_s=0.5) as (door, kept):
        with pipe.open("wb", buffering=0) as writer:
            writer.write(film[: len(film) // 2])
            until(door, is_live, "pictures")
            stalled = until(door, lambda now: now.state == "stalled", "a stall")
            assert stalled.reason is not None
            assert stalled.reason.startswith("timed out")
            assert "no picture for 0.5 s" in stalled.reason
            assert stalled.retry_in_s is not None
            assert (door.stalls, door.reconnects) == (1, 1)
            noticed_s = stalled.since - kept.frames[-1].captured_at
            assert 0.5 <= noticed_s <= 0.5 + 0.5
            (left_behind,) = decoders()
            count = len(kept.frames)
            writer.write(film[len(film) // 2 :])
            left_behind.join(5)
            assert not left_behind.is_alive(), "it ends by itself once it is awake"
            assert len(kept.frames) == count
        until(door, lambda now: now.state == "reconnecting", "the next try")
        with pipe.open("wb") as writer:
            writer.write(film)
            until(door, is_live, "pictures again")
        wait_for(lambda: len(kept.frames) > count + 10, "more of them")
        release(pipe)
    assert all(later.time_s > earlier.time_s for earlier, later in pairwise(kept.frames))
    assert all(later.index > earlier.index for earlier, later in pairwise(kept.frames))


def test_a_slow_film_waits_of_its_own_accord_and_is_no_stall() -> None:
    with connected("synthetic:320x180@0.8", stall_s=0.5) as (door, kept):
        wait_for(lambda: len(kept.frames) == 3, "pictures more than a second apart")
        assert (door.condition.state, door.reconnects, door.stalls) == ("live", 0, 0)


def test_a_camera_may_go_at_any_moment_and_takes_everything_along(
    pipe: Path, bikes: Path, short_opening: None
) -> None:
    def before() -> tuple[int, int]:
        return threading.active_count(), psutil.Process().num_fds()

    chance = random.Random(5)
    nobody = f"rtsp://127.0.0.1:{free_port()}/x"
    first = None
    for source in ("synthetic:320x180@30", str(bikes), nobody, "whip", str(pipe)) * 4:
        config = CameraConfig(source=source)
        camera = Camera("door", config, EncoderConfig(), lambda: None)
        first = first or before()
        if chance.random() < 0.9:
            camera.start()
        time.sleep(chance.choice((0, 0, 0.02, 0.1, 0.4)))
        camera.request_stop()
        release(pipe)
        camera.join(1)
        assert camera.status().state in ("stopped", "connecting")
        assert not camera.pending.put(None)  # type: ignore[arg-type]
    wait_for(lambda: release(pipe) or not decoders(), "the end of those that hung later")
    assert before() == first


# ---- who comes back -----------------------------------------------------------------------------


@needs_gstreamer
def test_a_server_that_is_back_is_noticed_long_before_the_next_try(
    ready_bikes: Path, long_pause: None
) -> None:
    with RtspServer(ready_bikes, as_is=True) as server:
        server.stop()
        with connected(server.url, max_backoff_s=600) as (door, _):
            away = until(door, lambda now: now.retry_at is not None, "the pause")
            assert (away.reason or "").startswith("unreachable")
            assert away.retry_in_s is not None
            assert away.retry_in_s > 40
            server.restart()
            back_at = time.monotonic()
            live = until(door, is_live, "that it is back")
            print(f"live {live.since - back_at:.2f} s after the server said that it listens")


@needs_gstreamer
def test_a_server_is_watched_for_though_who_watched_before_is_still_ending(
    ready_bikes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(url: str) -> Callable[[], bool]:
        ask = asks(url)
        assert ask is not None

        def answers() -> bool:
            there = ask()
            time.sleep(0.8)
            return there

        return answers

    monkeypatch.setattr(connection, "asks", slow)
    monkeypatch.setattr(random, "uniform", lambda low, high: (low + high) / 2)
    monkeypatch.setattr(backoff, "FIRST_S", 2.2)  # ends while the second question is being asked
    with RtspServer(ready_bikes, as_is=True) as server:
        server.stop()
        with connected(server.url, max_backoff_s=600) as (door, _):
            refused = until(door, lambda now: (now.retry_in_s or 0) > 3, "the second refusal")
            assert refused.retry_at is not None
            time.sleep(0.7)
            server.restart()
            assert until(door, is_live, "that it is back").since < refused.retry_at


@needs_gstreamer
@pytest.mark.parametrize("longer_s", [0.3, 1.5], ids=["while it is first asked", "later"])
def test_a_frozen_server_is_a_stall_and_noticed_once_it_is_thawed(
    ready_bikes: Path, long_pause: None, longer_s: float
) -> None:
    with RtspServer(ready_bikes, as_is=True) as server:
        with connected(server.url, stall_s=1, max_backoff_s=600) as (door, kept):
            until(door, is_live, "pictures")
            server.freeze()
            stalled = until(door, lambda now: now.state == "stalled", "the stall")
            assert stalled.since - kept.frames[-1].captured_at <= 1 + 0.5
            time.sleep(longer_s)  # its system still takes connections
            assert door.condition.state == "stalled"
            server.thaw()
            until(door, is_live, "that it goes on")
            assert (door.stalls, door.reconnects) == (1, 1)


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server that says the same to each request; its port, and what was asked of it."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client, suppress(ConnectionResetError):
                    while request := client.recv(4096):
                        asked.append(request)
                        sequence = request.split(b"CSeq: ")[1].split(b"\r\n")[0]
                        client.sendall(answer.replace(b"SEQUENCE", sequence))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


REFUSED = b'RTSP/1.0 401 Unauthorized\r\nCSeq: SEQUENCE\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'


def test_a_refused_login_is_not_tried_again_soon_nor_the_camera_asked_in_between() -> None:
    with answering(REFUSED) as (port, asked):
        with connected(f"rtsp://user:wrong@127.0.0.1:{port}/x") as (door, _):
            refused = until(door, lambda now: now.retry_at is not None, "the refusal")
            assert (refused.reason or "").startswith("unauthorised")
            assert refused.retry_in_s is not None
            assert refused.retry_in_s > 7
            count = len(asked)
            time.sleep(1.5)
            assert len(asked) == count


def test_who_answers_all_along_is_not_back_and_who_was_away_is() -> None:
    ok = b"RTSP/1.0 200 OK\r\nCSeq: SEQUENCE\r\n\r\n"
    with answering(ok) as (port, asked):
        ask = asks(f"rtsp://user:pass@word@127.0.0.1:{port}/x")
        assert ask is not None
        steady = Probe(ask)
        steady.start()
        assert not steady.back.wait(2.5)
        steady.stop()
        assert len(asked) >= 2
        was_gone = Probe(ask, gone=True)
        was_gone.start()
        assert was_gone.back.wait(2)
        assert all(request.startswith(b"OPTIONS rtsp://127.0.0.1:") for request in asked)
        assert not any(b"pass" in request for request in asked)
    gone = Probe(ask)
    gone.start()
    assert not gone.back.wait(0.2)
    with socket.create_server(("127.0.0.1", port)) as mute:  # takes connections and says nothing
        assert not gone.back.wait(1.5)
        http = asks(f"http://127.0.0.1:{mute.getsockname()[1]}/x.ts")
        assert http is not None
        assert http(), "for other protocols a connection is all that is asked for"
    gone.stop()
    gone.join(5)


def test_what_cannot_be_asked_is_not(tmp_path: Path) -> None:
    assert asks("synthetic:320x180@30") is None
    assert asks("srt://127.0.0.1:9000") is None
    assert asks("rtsp://127.0.0.1:port/x") is None
    no_name = asks("rtsp://camera..example/x")
    assert no_name is not None
    assert not no_name()
    path = tmp_path / "later.mp4"
    ask = asks(str(path))
    assert ask is not None
    assert not ask()
    path.touch()
    assert ask()


def test_pauses_double_up_to_their_cap_and_begin_anew_once_it_played() -> None:
    away, settled_s = SourceUnreachable("x"), backoff.SETTLED_S + 1
    pauses = Backoff(4)
    waits = [pauses.pause_s(away, 0) for _ in range(6)]
    for waited, expected in zip(waits, (0.5, 1, 2, 4, 4, 4), strict=True):
        assert 0.8 * expected <= waited <= 1.2 * expected
    assert pauses.pause_s(away, settled_s) <= 0.6
    pauses = Backoff(30)
    logins = [pauses.pause_s(SourceUnauthorised("x"), 0) for _ in range(7)]
    for waited, expected in zip(logins, (10, 20, 40, 80, 160, 300, 300), strict=True):
        assert 0.8 * expected <= waited <= 1.2 * expected
    pauses.reset()
    assert pauses.pause_s(away, 0) <= 0.6
