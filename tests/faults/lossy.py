"""Between an RTSP camera and who watches it over UDP: loses media packets, passes on everything else."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Lossy:
    """``loss`` is the share of packets that get lost, ``port`` where the camera seems to be."""

    def __init__(self, camera_port: int) -> None:
        self.loss = 0.0
        self.lost = self.passed = 0
        self._random = random.Random(1)
        self._camera_port = camera_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._sockets = [self._listening]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for each in self._sockets:
            each.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                camera = socket.create_connection(("127.0.0.1", self._camera_port))
                self._sockets += [client, camera]
                self._start(self._talk, client, camera, self._between)
                self._start(self._talk, camera, client, lambda ports: ports[0])

    def _talk(
        self, from_: socket.socket, to: socket.socket, rewrite: Callable[[re.Match[bytes]], bytes]
    ) -> None:
        with suppress(OSError):
            while data := from_.recv(65536):
                to.sendall(re.sub(rb"client_port=(\d+)-(\d+)", rewrite, data))
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)

    def _between(self, ports: re.Match[bytes]) -> bytes:
        """The camera sends to us what is for the client."""
        mine = [self._relay(int(port)) for port in ports.groups()]
        return b"client_port=%d-%d" % (mine[0], mine[1])

    def _relay(self, to_port: int) -> int:
        relay = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        relay.bind(("127.0.0.1", 0))
        self._sockets.append(relay)
        self._start(self._carry, relay, to_port)
        return int(relay.getsockname()[1])

    def _carry(self, relay: socket.socket, to_port: int) -> None:
        with suppress(OSError):
            while data := relay.recv(65536):
                if self._random.random() < self.loss:
                    self.lost += 1
                else:
                    self.passed += 1
                    relay.sendto(data, ("127.0.0.1", to_port))


@contextmanager
def lossy(camera_port: int) -> Iterator[Lossy]:
    relay = Lossy(camera_port)
    try:
        yield relay
    finally:
        relay.close()
