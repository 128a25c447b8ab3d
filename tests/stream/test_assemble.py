"""Packets in any order, some twice, some never -> pictures that can be decoded, in order."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import NothingPublished
from stream.sources.clock import Ending
from stream.sources.inlet import NO_PICTURES, QUEUE_PICTURES, Inlet
from stream.webrtc import assemble
from stream.webrtc.assemble import MOST_AHEAD, MOST_PACKETS, PATIENCE_S, RESTART_BEHIND, Assembler

KEY, INTER = b"\0\0\0\1\x67sps\0\0\0\1\x65", b"\0\0\0\1\x41"


@dataclass(frozen=True)
class Packet:
    sequence: int
    timestamp: int
    marker: bool
    data: bytes


class Receiver:
    """An assembler with a clock of its own, and what it delivered."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pictures: list[tuple[bytes, int, bool]] = []
        self.asked = 0
        self.assembler = Assembler("h264", lambda *picture: self.pictures.append(picture), lambda: self.now_s)

    def take(self, *packets: Packet, every_s: float = 0.001) -> None:
        for packet in packets:
            self.now_s += every_s
            self.asked += self.assembler.add(packet.sequence, packet.timestamp, packet.marker, packet.data)

    @property
    def timestamps(self) -> list[int]:
        return [timestamp for _, timestamp, _ in self.pictures]


def stream(
    pictures: int, *, first: int = 65_530, size: int = 3, keyframes: tuple[int, ...] = (0,)
) -> list[Packet]:
    """``pictures`` of ``size`` packets each, timestamps 0, 1, 2, …"""
    return [
        Packet(
            (first + picture * size + part) & 0xFFFF,
            picture,
            part == size - 1,
            ((KEY if picture in keyframes else INTER) if part == 0 else b"") + bytes((picture, part)),
        )
        for picture in range(pictures)
        for part in range(size)
    ]


def test_pictures_come_out_whole_as_soon_as_their_last_packet_is_in() -> None:
    receiver = Receiver()
    for packet in stream(5):
        receiver.take(packet)
        assert len(receiver.pictures) == packet.timestamp + packet.marker
    assert receiver.pictures[0] == (KEY + bytes((0, 0, 0, 1, 0, 2)), 0, True)
    assert [keyframe for _, _, keyframe in receiver.pictures] == [True, False, False, False, False]
    assert receiver.asked == 0


def test_padding_is_no_picture_and_no_hole() -> None:
    packets = stream(6)
    padded = [
        Packet(packet.sequence, packet.timestamp - 1, False, b"") if packet.timestamp == 3 else packet
        for packet in packets
    ]
    receiver = Receiver()
    receiver.take(*padded)
    assert receiver.timestamps == [0, 1, 2, 4, 5]


def test_a_sender_without_markers_is_one_picture_late() -> None:
    receiver = Receiver()
    receiver.take(*(Packet(p.sequence, p.timestamp, False, p.data) for p in stream(5)))
    assert receiver.timestamps == [0, 1, 2, 3]


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_disorder_and_repetition_change_nothing(data: st.DataObject) -> None:
    packets = stream(20)
    first, rest = packets[0], packets[1:]
    delays = [data.draw(st.integers(0, 30)) for _ in rest]
    shuffled = [p for _, p in sorted(zip(delays, range(len(rest)), strict=True), key=lambda d: d[0] + d[1])]
    again = data.draw(st.lists(st.sampled_from(rest), max_size=10))
    receiver = Receiver()
    receiver.take(first, *(rest[number] for number in shuffled), *again)
    assert receiver.timestamps == list(range(20))


@settings(deadline=None, max_examples=100)
@given(lost=st.sets(st.integers(1, 119), max_size=12))
def test_what_is_delivered_can_be_decoded_whatever_is_lost(lost: set[int]) -> None:
    packets = stream(40, keyframes=(0, 15, 30))
    receiver = Receiver()
    receiver.take(*(p for number, p in enumerate(packets) if number not in lost), every_s=0.1)
    damaged = {packets[number].timestamp for number in lost}
    for data, timestamp, keyframe in receiver.pictures:
        assert timestamp not in damaged
        assert data.endswith(bytes((timestamp, 0, timestamp, 1, timestamp, 2)))
        assert keyframe or timestamp - 1 in receiver.timestamps, "a picture without the one before it"
    if not lost:
        assert receiver.timestamps == list(range(40))


def test_a_lost_packet_is_waited_for_then_a_keyframe_is_asked_for() -> None:
    packets = stream(60, keyframes=(0, 50))
    receiver = Receiver()
    missing = packets.pop(4)
    receiver.take(*packets[:20], every_s=PATIENCE_S / 40)
    assert receiver.timestamps == [0], "it may still come"
    late = Receiver()
    late.take(*packets[:20], missing, every_s=PATIENCE_S / 40)
    assert late.timestamps == [0, 1, 2, 3, 4, 5, 6]
    receiver.take(*packets[20:140], every_s=0.02)
    assert receiver.timestamps == [0]
    assert receiver.asked == 5, "repeated, but not with every packet"
    receiver.take(*packets[140:])
    assert receiver.timestamps == [0, *range(50, 60)]


def test_a_burst_of_loss_is_given_up_by_number_and_memory_stays_bounded() -> None:
    receiver = Receiver()
    packets = stream(250, keyframes=(0, 230))
    receiver.take(*packets[:3], *packets[4:], every_s=0)
    assert receiver.timestamps == [0, *range(230, 250)]
    endless = Receiver()
    endless.take(*(Packet(n & 0xFFFF, 7, False, b"x") for n in range(3 * MOST_PACKETS)))
    held = endless.assembler
    assert len(held._picture) <= MOST_PACKETS + 1
    assert len(held._ahead) <= MOST_AHEAD + 1


def test_a_sender_that_begins_anew_is_followed() -> None:
    receiver = Receiver()
    receiver.take(*stream(10, first=9000), *stream(10, first=9000 - 2 * RESTART_BEHIND))
    assert receiver.timestamps == [*range(10), *range(10)]


def test_nothing_is_delivered_before_a_keyframe_and_one_is_asked_for() -> None:
    receiver = Receiver()
    receiver.take(*stream(20, keyframes=(12,)), every_s=0.02)
    assert receiver.timestamps == list(range(12, 20))
    assert receiver.asked == 1
    receiver.assembler.ask()
    receiver.take(*stream(1, first=65_590, keyframes=()), every_s=assemble.ASK_EVERY_S + 0.1)
    assert receiver.asked == 2


@pytest.mark.parametrize(
    ("data", "keyframe"),
    [
        (b"", False),
        (b"\0\0\1", False),
        (b"\0\0\1\x65", True),
        (b"\0\0\0\1\x09\xf0" + KEY, True),
        (INTER + b"\0\0\1\x65", False),
        (b"\x65\0\0", False),
    ],
)
def test_an_h264_keyframe_is_told_by_its_first_slice(data: bytes, keyframe: bool) -> None:
    assert assemble._is_h264_keyframe(data) is keyframe


# The queue behind it


def test_a_decoder_that_falls_behind_starts_again_with_a_keyframe() -> None:
    inlet, ending, resyncs = Inlet(), Ending(), []
    publication = inlet.prepare("h264")
    publication.resync = lambda: resyncs.append(1)
    inlet.connect(publication)
    with pytest.raises(NothingPublished, match="sends no pictures"):
        inlet.current()
    for number in range(QUEUE_PICTURES + 1):
        publication.put(b"", number, number == 0)
    assert (resyncs, publication.waiting) == ([1], False)
    publication.put(b"", 99, True)
    picture = inlet.current().take(1.0, ending)
    assert picture is not None
    assert (picture.timestamp, picture.index) == (99, QUEUE_PICTURES + 1), "the gap in its index is the drops"
    assert publication.take(0.01, ending) is None
    publication.end("the publisher left")
    with pytest.raises(NothingPublished, match="the publisher left"):
        publication.take(1.0, ending)


def test_waiting_for_a_publisher_ends_with_its_first_picture() -> None:
    inlet, stop = Inlet(), threading.Event()
    waiter = threading.Thread(target=inlet.wait, args=("nobody publishes yet", stop))
    waiter.start()
    publication = inlet.prepare("vp8")
    waiter.join(0.2)
    assert waiter.is_alive()
    inlet.connect(publication)  # which is another reason to wait
    waiter.join(5)
    assert not waiter.is_alive()
    waiter = threading.Thread(target=inlet.wait, args=(NO_PICTURES, stop))
    waiter.start()
    waiter.join(0.2)
    assert waiter.is_alive()
    publication.put(b"", 0, True)
    waiter.join(5)
    assert not waiter.is_alive()
    other = threading.Thread(target=Inlet().wait, args=("nobody publishes yet", stop))
    other.start()
    stop.set()
    other.join(5)
    assert not other.is_alive()
