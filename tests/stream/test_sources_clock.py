"""Timestamps that only grow, whatever the stream says; and a pacer that never lets lateness add up."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.sources.clock import Ending, Pacer, StreamClock


def seconds(stamps: list[float | None], frame_rate: float | None = 25) -> list[float]:
    clock = StreamClock(frame_rate)
    return [clock.seconds(stamp) for stamp in stamps]


@pytest.mark.parametrize("start", [0.0, 0.08, 1234.5, -3.0])
def test_time_starts_at_zero_and_keeps_the_streams_own_steps(start: float) -> None:
    steps = np.cumsum([0, 0.04, 0.04, 0.1, 0.02, 2.0])
    np.testing.assert_allclose(seconds([start + step for step in steps]), steps, atol=1e-9)


def test_missing_timestamps_are_filled_in() -> None:
    np.testing.assert_allclose(seconds([None, None, None], 50), [0, 0.02, 0.04])
    np.testing.assert_allclose(seconds([None, 0.0, 0.04, None, 0.12]), [0, 0.04, 0.08, 0.12, 0.16])


def test_pictures_out_of_order_are_flattened_without_drift() -> None:
    times = seconds([0.0, 0.08, 0.04, 0.12, 0.16, 0.16, 0.20])
    assert np.all(np.diff(times) > 0)
    assert times[3] == pytest.approx(0.12)
    assert times[-1] == pytest.approx(0.20)


@pytest.mark.parametrize("jump_s", [-1000.0, -5.0, 3600.0])
def test_a_clock_that_was_set_leaves_no_gap(jump_s: float) -> None:
    times = seconds([0.0, 0.04, 0.08, 0.12 + jump_s, 0.16 + jump_s])
    np.testing.assert_allclose(times, [0, 0.04, 0.08, 0.12, 0.16], atol=1e-9)


def test_a_real_pause_stays_a_pause() -> None:
    np.testing.assert_allclose(seconds([0.0, 0.04, 6.0, 6.04]), [0, 0.04, 6.0, 6.04], atol=1e-9)


def test_one_picture_a_minute_is_no_jump() -> None:
    np.testing.assert_allclose(seconds([0.0, 60.0, 120.0], 1 / 60), [0, 60, 120])


def test_a_restart_continues_one_step_later() -> None:
    clock = StreamClock(25)
    first = [clock.seconds(stamp) for stamp in (0.5, 0.54)]
    clock.restart()
    second = [clock.seconds(stamp) for stamp in (0.5, 0.54)]
    np.testing.assert_allclose(first + second, [0, 0.04, 0.08, 0.12], atol=1e-9)


@given(
    stamps=st.lists(st.one_of(st.none(), st.floats(-1e7, 1e7)), min_size=2, max_size=60),
    rate=st.one_of(st.none(), st.floats(0.5, 240)),
)
def test_whatever_a_camera_says_time_grows_and_no_gap_is_longer_than_a_real_pause(
    stamps: list[float | None], rate: float | None
) -> None:
    steps = np.diff(seconds(stamps, rate))
    step_s = 1 / rate if rate else 0.04
    assert np.all(steps > 0)
    assert np.all(steps <= step_s + max(10, 4 * step_s) + 1e-6)


@given(
    start=st.floats(-1e6, 1e6),
    jumps=st.lists(
        st.tuples(st.integers(1, 20), st.one_of(st.floats(-1e6, -2), st.floats(15, 1e6))),
        min_size=1,
        max_size=5,
    ),
)
def test_between_jumps_a_cameras_own_steps_are_kept(start: float, jumps: list[tuple[int, float]]) -> None:
    stamps, now = [], start
    for pictures, jump in jumps:
        for _ in range(pictures):
            stamps.append(now)
            now += 0.04
        now += jump
    np.testing.assert_allclose(np.diff(seconds(stamps)), 0.04, atol=1e-6)


def test_the_pacer_makes_up_for_short_delays() -> None:
    pacer = Pacer(Ending())
    started = time.monotonic()
    for step in range(6):
        assert pacer.wait(0.1 * step)
        time.sleep(0.05)
    assert 0.55 <= time.monotonic() - started < 0.75, "6 delays of 0.05 s would add up to 0.8 s"


def test_the_pacer_moves_its_clock_after_a_long_delay() -> None:
    pacer = Pacer(Ending())
    assert pacer.wait(0.0)
    time.sleep(0.6)
    late = time.monotonic()
    assert pacer.wait(0.2)
    assert time.monotonic() - late < 0.15, "it is late already"
    assert pacer.wait(0.5)
    assert time.monotonic() - late >= 0.3, "the next keeps its distance, so there is no burst"


def test_the_end_wakes_the_pacer_whichever_way_it_comes() -> None:
    stop = threading.Event()
    for ending, end in ((Ending(stop), stop.set), ((closed := Ending()), closed.set)):
        pacer = Pacer(ending)
        assert pacer.wait(0.0)
        timer = threading.Timer(0.1, end)
        timer.start()
        started = time.monotonic()
        assert not pacer.wait(60.0)
        assert time.monotonic() - started < 1
        timer.join()
