"""Cameras that come back as another, talk nonsense, or lose half of what they send."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise

import pytest

from tests.faults.connected import connected, is_live, until, wait_for
from tests.faults.lossy import lossy
from tests.faults.scripted_camera import Line, coded, scripted
from tests.faults.test_real_cameras import grows, number, numbers
from tests.rtsp_server import RtspServer, missing

needs_gstreamer = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@needs_gstreamer
def test_a_camera_comes_back_with_another_size() -> None:
    with RtspServer("synthetic:320x180@30") as before:
        with connected(before.url, stall_s=2) as (_, kept):
            wait_for(lambda: len(kept.frames) >= 5, "pictures")
            before.stop()
            with RtspServer("synthetic:640x360@25", port=before.port):
                wait_for(lambda: (640, 360) in kept.sizes, "the new size")
                count = len(kept.frames)
                wait_for(lambda: len(kept.frames) >= count + 5, "more of it")
            assert sorted(set(kept.sizes)) == [(320, 180), (640, 360)]
            assert all(later.time_s > earlier.time_s for earlier, later in pairwise(kept.frames))
            assert all(later.index > earlier.index for earlier, later in pairwise(kept.frames))


@pytest.fixture
def nonsense() -> Iterator[int]:
    """The port of a server that answers whatever is said with random bytes."""
    chance, served = random.Random(2), []

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            while client.recv(4096):
                client.sendall(chance.randbytes(chance.choice((1, 100, 5000))))
                if chance.random() < 0.5:
                    return

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                served.append(client)
                threading.Thread(target=serve, args=(client,)).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, args=(server,))
        thread.start()
        yield server.getsockname()[1]
        for each in (server, *served):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_nonsense_is_a_fault_in_words_and_tried_again(nonsense: int) -> None:
    with ExitStack() as running:
        doors = [
            running.enter_context(connected(f"{scheme}://127.0.0.1:{nonsense}/x", max_backoff_s=0.5))
            for scheme in ("rtsp", "http", "rtmp")
        ]
        wait_for(lambda: all(door.reconnects >= 2 for door, _ in doors), "a second try of each", 40)
        for door, kept in doors:
            reason = door.condition.reason or ""
            assert ":" in reason
            assert "failed: " not in reason, "it has a better word than that, and no fault of ours is in it"
            assert not kept.frames


def test_a_camera_whose_packets_turn_into_nonsense_is_opened_anew() -> None:
    pictures, chance = coded(60), random.Random(4)

    def play(line: Line) -> None:
        line.play(pictures[:30])
        if line.number == 0:
            line.raw(
                b"".join(b"$\0\1\0" + chance.randbytes(256) for _ in range(50))
            )  # framed as it should be
            line.raw(chance.randbytes(100_000))  # and not
            line.silence(0.2)
        else:
            line.play(pictures[30:])
            line.silence(10)

    with scripted(play) as url, connected(url, stall_s=1) as (door, kept):
        wait_for(lambda: kept.frames and number(kept.frames[-1]) == 55, "the pictures of the second try")
        assert door.reconnects >= 1
        assert door.condition.state == "live"
    grows(kept.frames, 10)


@needs_gstreamer
def test_a_network_that_loses_packets_costs_pictures_and_nothing_else() -> None:
    with RtspServer("synthetic:640x360@30") as server, lossy(server.port) as network:
        with connected(f"rtsp://127.0.0.1:{network.port}/camera", transport="udp", stall_s=1.5) as (
            door,
            kept,
        ):
            until(door, is_live, "pictures")
            network.loss = 0.03
            wait_for(lambda: network.lost >= 10, "losses")
            network.loss = 0.0
            count = len(kept.frames)
            wait_for(lambda: len(kept.frames) >= count + 45, "more than a second without loss")
            healed = numbers(kept.frames[-10:])
            assert None not in healed
            assert (door.reconnects, door.stalls) == (0, 0)
            grows(kept.frames, 1.5)
            network.loss = 1.0
            until(door, lambda now: now.state == "stalled", "that nothing comes")
            network.loss = 0.0
            until(door, is_live, "that it comes again")


def test_three_cameras_that_flap_cost_the_five_others_nothing() -> None:
    pictures = coded(150)

    def steady(line: Line) -> None:
        line.play(pictures)
        line.silence(60)

    with (
        ExitStack() as running,
        scripted(steady) as good,
        scripted(lambda line: line.play(pictures[:20])) as bad,
    ):
        flapping = [running.enter_context(connected(bad)) for _ in range(3)]
        others = [running.enter_context(connected(good, stall_s=30)) for _ in range(5)]
        wait_for(lambda: all(len(kept.frames) >= 145 for _, kept in others), "their pictures", 40)
        wait_for(lambda: all(door.reconnects >= 2 for door, _ in flapping), "some flapping", 40)
        for door, kept in others:
            assert (door.reconnects, door.missed, door.bad_packets) == (0, 0, 0)
            assert numbers(kept.frames[:145]) == list(range(145))
