"""The hand-off between threads: the newest wins, what is lost is counted, lossless loses nothing."""

from __future__ import annotations

import threading
import time

from stream.latest import Latest


def test_the_newest_wins_and_what_it_overwrote_is_counted() -> None:
    slot = Latest[int]()
    assert all(slot.put(item) for item in range(5))
    assert slot.get() == 4
    assert slot.overwritten == 4
    assert slot.get(timeout_s=0) is None


def test_get_waits_no_longer_than_asked() -> None:
    started = time.monotonic()
    assert Latest[int]().get(timeout_s=0.1) is None
    assert 0.1 <= time.monotonic() - started < 1


def test_get_wakes_for_an_item_from_another_thread() -> None:
    slot = Latest[str]()
    timer = threading.Timer(0.05, slot.put, ["late"])
    timer.start()
    assert slot.get(timeout_s=5) == "late"
    timer.join()


def test_lossless_hands_over_everything_in_order() -> None:
    slot = Latest[int](lossless=True)

    def produce() -> None:
        for item in range(1000):
            slot.put(item)
        slot.close()

    producer = threading.Thread(target=produce)
    producer.start()
    taken = list(iter(slot.get, None))
    producer.join()
    assert taken == list(range(1000))
    assert slot.overwritten == 0
    assert slot.closed


def test_a_slow_taker_of_a_fast_producer_always_gets_something_newer() -> None:
    slot = Latest[int]()

    def produce() -> None:
        for item in range(2000):
            slot.put(item)
        slot.close()

    producer = threading.Thread(target=produce)
    producer.start()
    taken = []
    while (item := slot.get()) is not None:
        taken.append(item)
        time.sleep(0.001)
    producer.join()
    assert taken == sorted(set(taken))
    assert taken[-1] == 1999
    assert len(taken) + slot.overwritten == 2000


def test_close_keeps_the_last_item_and_refuses_more() -> None:
    slot = Latest[int]()
    slot.put(1)
    slot.close()
    assert not slot.put(2)
    assert not slot.closed
    assert slot.get() == 1
    assert slot.closed
    assert slot.get() is None


def test_close_wakes_both_sides() -> None:
    empty, full = Latest[int](), Latest[int](lossless=True)
    full.put(1)
    results: list[object] = []
    waiting = [
        threading.Thread(target=lambda: results.append(empty.get())),
        threading.Thread(target=lambda: results.append(full.put(2))),
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.05)
    empty.close()
    full.close()
    for thread in waiting:
        thread.join(5)
        assert not thread.is_alive()
    assert sorted(map(str, results)) == ["False", "None"]


def test_on_put_is_called_for_each_item_and_for_close() -> None:
    calls: list[int] = []
    slot = Latest[int](on_put=lambda: calls.append(1))
    slot.put(1)
    slot.put(2)
    slot.close()
    assert len(calls) == 3
