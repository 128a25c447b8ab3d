"""Viewers that come and go over WHEP, in a process of their own, until standard input ends: then all leave.

    python -m tests.benchmarks.viewers URL --cameras a,b --visits FILE [--most 4] [--seed 1]

Each takes a camera, a codec and a height at random, some read boxes from the WebSocket, too; pictures are not
decoded. They stay for a while, then say goodbye or vanish without a word. Each visit is a line of JSON in
FILE; a viewer's fault ends its visit alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any, TextIO

import httpx2 as httpx
from websockets.asyncio.client import connect

from tests.aiortc_peer import AiortcPeer

ROOT = Path(__file__).resolve().parents[2]
STAY_S = (2.0, 45.0)
PAUSE_S = (0.2, 3.0)
JOIN_TIMEOUT_S = 10.0


class Viewers:
    """That process, as who starts it sees it."""

    def __init__(self, url: str, cameras: list[str], visits: Path, seed: int, most: int = 4) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.viewers", url, "--cameras", ",".join(cameras)]
        command += ["--visits", str(visits.resolve()), "--seed", str(seed), "--most", str(most)]
        self._process = Popen(command, stdin=PIPE, cwd=ROOT, process_group=0)

    def leave(self) -> None:
        """Have all of them say goodbye."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """All of them are gone without a word."""
        self._process.kill()
        self._process.wait(10)


def summary(visits: Path) -> dict[str, Any]:
    """How the visits in a file ended, and how long it took to join (ms)."""
    if not visits.exists():
        return {"visits": 0}
    with visits.open() as lines:
        told = [json.loads(line) for line in lines if line.endswith("\n")]
    joins = [visit["first_packet_ms"] for visit in told if visit["first_packet_ms"] is not None]
    return {
        "visits": len(told),
        "ended": dict(Counter(visit["ended"] for visit in told)),
        "with_boxes": sum(visit["boxes"] is not None for visit in told),
        "first_packet_ms": {"median": median(joins), "max": max(joins)} if joins else None,
    }


# ---- below: the viewers' own process -----------------------------------------------------------


class _Crowd:
    def __init__(self, url: str, cameras: list[str], visits: TextIO, seed: int) -> None:
        self._url = url
        self._cameras = cameras
        self._visits = visits
        self._chance = random.Random(seed)
        self._leaving = asyncio.Event()

    def end(self) -> None:
        self._leaving.set()

    async def visit_for_ever(self, http: httpx.AsyncClient) -> None:
        while not await self._leaves_within(self._chance.uniform(*PAUSE_S)):
            visit = await self._visit(http)
            self._visits.write(f"{json.dumps(visit)}\n")
            self._visits.flush()

    async def _leaves_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)
        return self._leaving.is_set()

    async def _visit(self, http: httpx.AsyncClient) -> dict[str, Any]:
        camera, codec = self._chance.choice(self._cameras), self._chance.choice(("h264", "h264", "vp8"))
        height, boxes = self._chance.choice((None, 180, 360)), self._chance.random() < 0.25
        asked = [f"height={height}"] * (height is not None) + ["boxes=data"] * boxes
        peer = AiortcPeer(http, f"{camera}?{'&'.join(asked)}", codec=codec, decode=False, loopback=True)
        visit = {"camera": camera, "codec": codec, "height": height, "boxes": None, "first_packet_ms": None}
        began = time.monotonic()
        try:
            await peer.join()
            await peer.wait_for(lambda peer: peer.joined_s is not None, JOIN_TIMEOUT_S)
            visit["first_packet_ms"] = round(1000 * (peer.joined_s or 0.0), 1)
            visit["boxes"] = await self._stay(peer, boxes)
            vanishes = self._chance.random() < 0.5
            await (peer.kill() if vanishes else peer.leave())
            visit["ended"] = "vanished" if vanishes else "left"
        except Exception as error:  # whatever it is, it is this visit's alone
            visit["ended"] = f"{type(error).__name__} at {camera}"
            first_line = str(error).partition("\n")[0]
            print(f"{camera}, {codec}: {type(error).__name__}: {first_line}", file=sys.stderr, flush=True)
        finally:
            await peer.close()
        return visit | {"stayed_s": round(time.monotonic() - began, 1), "packets": peer.packet_count}

    async def _stay(self, peer: AiortcPeer, boxes: bool) -> int | None:
        """For a while; how many messages came on the WebSocket, None: it was not opened."""
        seconds = self._chance.uniform(*STAY_S)
        if not boxes:
            await self._leaves_within(seconds)
            return None
        messages = 0
        address = f"{self._url.replace('http', 'ws', 1)}{peer.location.partition('?')[0]}/boxes"
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), connect(address, proxy=None) as socket:
                while not self._leaving.is_set():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(socket.recv(), 1)
                        messages += 1
        return messages


async def _run(given: argparse.Namespace) -> None:
    with given.visits.open("a") as visits:
        crowd = _Crowd(given.url, given.cameras.split(","), visits, given.seed)
        async with httpx.AsyncClient(base_url=given.url, timeout=10, trust_env=False) as http:
            coming = [asyncio.create_task(crowd.visit_for_ever(http)) for _ in range(given.most)]
            await asyncio.to_thread(sys.stdin.read)
            crowd.end()
            await asyncio.gather(*coming)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--cameras", required=True, help="their names, with commas between")
    parser.add_argument("--visits", type=Path, required=True)
    parser.add_argument("--most", type=int, default=4, help="at once")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
