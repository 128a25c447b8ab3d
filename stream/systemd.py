"""What a supervisor is told (sd_notify(3)): ready, still alive, ending. Nothing where nobody asked.

One datagram to the socket that ``NOTIFY_SOCKET`` names; no library is needed for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from stream.health import Health

_POLL_S = 0.1


def notify(state: str) -> None:
    """Send one state, such as ``READY=1``. Never waits; a supervisor that is gone is no fault of ours."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto(state.encode(), address)


def watchdog_s() -> float | None:
    """Seconds within which ``WATCHDOG=1`` is expected from this process (sd_watchdog_enabled(3)); None: it is not."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()) or not microseconds.isdecimal():
        return None
    return int(microseconds) / 1e6 or None


async def keep_told(health: Health) -> None:
    """Say when it is ready, and from then on, if somebody wants to know, that it is alive. Runs until cancelled.

    It runs on the event loop, so a loop that hangs says nothing either.
    """
    while not health.ready:
        await asyncio.sleep(_POLL_S)
    notify("READY=1\nSTATUS=watching")
    expected_s = watchdog_s()
    while expected_s is not None:
        if health.alive:
            notify("WATCHDOG=1")
        await asyncio.sleep(expected_s / 3)
