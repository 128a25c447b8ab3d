"""Packets sent in batches arrive one by one, whole and in order; where batches fail nothing is lost."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.webrtc.udp import Batches

SIZES = [*[1214] * 6, 700, 90, 90, 91, 1214, *[1214] * 70, 3]


def packets_of(sizes: list[int]) -> list[bytes]:
    return [bytes([number % 251]) * size for number, size in enumerate(sizes)]


async def carried(batches: Batches, packets: list[bytes], hide_socket: bool = False) -> list[bytes]:
    """What a receiver on loopback gets of ``packets``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        through = Bare(transport) if hide_socket else transport
        batches.send(through, packets, receiver.getsockname())
        got = [await asyncio.wait_for(loop.sock_recv(receiver, 2000), 2) for _ in packets]
        transport.sendto(b"still open", receiver.getsockname())
        assert await loop.sock_recv(receiver, 2000) == b"still open"
        transport.close()
        return got


class Bare:
    """A transport that is no socket, as a TURN connection is."""

    def __init__(self, transport: Any) -> None:
        self.sendto = transport.sendto


async def test_sizes_of_all_sorts_arrive_whole_and_in_order() -> None:
    batches = Batches()
    packets = packets_of(SIZES)
    assert await carried(batches, packets) == packets
    assert await carried(batches, packets, hide_socket=True) == packets


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([1, 60, 61, 1199, 1214]), max_size=30))
def test_any_sizes_do(sizes: list[int]) -> None:
    packets = packets_of(sizes)
    assert asyncio.run(carried(Batches(), packets)) == packets


async def test_a_kernel_without_batches_gets_packets_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.webrtc.udp._UDP_SEGMENT", 9999)  # as an older kernel sees it
    batches, packets = Batches(), packets_of(SIZES)
    assert await carried(batches, packets) == packets
    assert not batches.works
    assert await carried(batches, packets) == packets
