"""A bad network between a browser and a TURN server: a UDP relay that loses, delays, limits or cuts off.

It needs no rights and no kernel module, unlike ``tc netem``, and harms one viewer and no other.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

QUEUE_S = 0.3  # what a limited link buffers before it drops


class BadNetwork:
    """Datagrams between whoever sends to ``port`` and the server, made worse in both directions."""

    def __init__(self, server_port: int) -> None:
        self.loss = 0.0  # share
        self.delay_s = 0.0  # one way
        self.kbps: float | None = None
        self.cut = False
        self.lost = self.passed = 0
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self._server = ("127.0.0.1", server_port)
        self._random = random.Random(0)
        self._upstream: dict[Any, asyncio.DatagramTransport] = {}
        self._free_at: dict[bool, float] = {
            True: 0.0,
            False: 0.0,
        }  # by direction: when the link is free again

    async def open(self) -> None:
        transport, _ = await self.loop.create_datagram_endpoint(lambda: _End(self._up), ("127.0.0.1", 0))
        self._downstream = transport
        self.port = transport.get_extra_info("sockname")[1]

    def close(self) -> None:
        for transport in (self._downstream, *self._upstream.values()):
            transport.close()

    def _up(self, data: bytes, client: Any) -> None:
        if client not in self._upstream:
            self.loop.create_task(self._connect(data, client))
            return
        self._carry(True, data, lambda: self._upstream[client].sendto(data))

    async def _connect(self, data: bytes, client: Any) -> None:
        def down(data: bytes, _: Any) -> None:
            self._carry(False, data, lambda: self._downstream.sendto(data, client))

        transport, _ = await self.loop.create_datagram_endpoint(lambda: _End(down), remote_addr=self._server)
        first = self._upstream.setdefault(client, transport)
        if first is not transport:  # another packet of the same client was as quick
            transport.close()
        first.sendto(data)

    def _carry(self, is_up: bool, data: bytes, send: Any) -> None:
        if self.cut or self._random.random() < self.loss:
            self.lost += 1
            return
        wait_s = self.delay_s
        if self.kbps is not None:
            now = self.loop.time()
            begin = max(now, self._free_at[is_up])
            if begin - now > QUEUE_S:
                self.lost += 1
                return
            self._free_at[is_up] = begin + len(data) * 8 / 1000 / self.kbps
            wait_s += self._free_at[is_up] - now
        self.passed += 1
        if wait_s > 0:
            self.loop.call_later(wait_s, send)
        else:
            send()


class _End(asyncio.DatagramProtocol):
    def __init__(self, receive: Any) -> None:
        self.datagram_received = receive


@contextmanager
def bad_network(server_port: int) -> Iterator[BadNetwork]:
    """One that is still good, on an event loop in a thread of its own."""
    network = BadNetwork(server_port)
    thread = threading.Thread(target=network.loop.run_forever, name="network")
    thread.start()
    asyncio.run_coroutine_threadsafe(network.open(), network.loop).result(5)
    try:
        yield network
    finally:
        network.loop.call_soon_threadsafe(network.close)
        network.loop.call_soon_threadsafe(network.loop.call_later, 0.1, network.loop.stop)
        thread.join()
        network.loop.close()
