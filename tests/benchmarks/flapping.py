"""Eight cameras of which three die, freeze and come back all the time: what do the five others lose?

    python -m tests.benchmarks.flapping [--seconds 300] [--out FOLDER] [--json FILE] [--seed 1]

Real RTSP servers, one process each, and a real ``lookout watch``. First all cameras are up for ``--seconds``, then
three flap for as long. What a server sent is counted by itself, what became of it by the app; before each count
sending is held until nothing is under way any more, so that both are exact. States are read every 20 ms from
``/api/cameras``, so times are up to that much too long, and by what the answer takes.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from statistics import median

import httpx2 as httpx

from stream.sources import demo_clip
from tests.benchmarks.running import (
    Figures,
    arguments,
    asking,
    cameras,
    end_as_with_ctrl_c,
    ending,
    told,
    until,
    watching,
)
from tests.benchmarks.states import States
from tests.rtsp_server import RtspServer, missing, record

SECONDS = 300.0
GOOD, FLAPPING = 5, 3
WIDTH, HEIGHT, RATE = 640, 360, 15
STALL_S = 2.0
DETECT_FPS = 4
SETTLED_S = 0.5  # nothing more is under way; below the stall by far
UP_S, DOWN_S, FROZEN_S = (1.0, 5.0), (0.5, 5.0), (0.0, 3.0)
LATE_S = 2.0  # within which a camera that is back is to be live again
GIVEN_UP_S = 60.0

Servers = Mapping[str, RtspServer]


@dataclass(frozen=True, slots=True)
class Count:
    """Of the cameras that do not flap, or of one of them. ``missed`` were decoded and not taken in time."""

    sent: int
    decoded: int
    missed: int
    detected: int
    reconnects: int

    def since(self, before: Count) -> Count:
        return Count(*(getattr(self, field.name) - getattr(before, field.name) for field in fields(self)))

    def figures(self) -> Figures:
        return {**asdict(self), "lost": self.sent - self.decoded}


def run(seconds: float, out: Path, *, good: int = GOOD, flapping: int = FLAPPING, seed: int = 1) -> Figures:
    """``good`` cameras beside ``flapping`` ones; figures of both phases, each ``seconds`` long."""
    clip = record(demo_clip(), out / "clip.avi", width=WIDTH, height=HEIGHT, rate=RATE)
    with ExitStack() as stack:
        steady = _servers(stack, clip, [f"good{number}" for number in range(good)])
        flappy = _servers(stack, clip, [f"flapping{number}" for number in range(flapping)])
        app = stack.enter_context(watching(_config({**steady, **flappy}), out))
        http = stack.enter_context(asking(app))
        _await_live(http, GIVEN_UP_S)
        states = stack.enter_context(States(app.url))  # in both phases, as it costs the app something, too
        counts = [_count(steady, http)]
        states.sleep(seconds)
        counts.append(_count(steady, http))
        flaps = _flap_all(flappy, states, seconds, seed)
        counts.append(_count(steady, http))
    baseline, while_flapping = (_between(*each) for each in pairwise(counts))
    return {
        "seconds": seconds,
        "stall_s": STALL_S,
        "baseline": baseline,
        "flapping": while_flapping,
        "lost_beyond_baseline": while_flapping["all"]["lost"] - baseline["all"]["lost"],
        **_of_flaps(flaps),
        "polls": states.polls,
        "polls_refused": dict(states.refused),
        "ending": ending(app),
    }


def _servers(stack: ExitStack, clip: Path, names: Sequence[str]) -> Servers:
    with ThreadPoolExecutor() as starting:
        servers = list(starting.map(lambda _: RtspServer(clip, as_is=True), names))
    return {name: stack.enter_context(server) for name, server in zip(names, servers, strict=True)}


def _config(servers: Servers) -> Figures:
    common = {"stall_s": STALL_S, "detect_fps": DETECT_FPS}
    return {"cameras": {name: {"source": server.url, **common} for name, server in servers.items()}}


def _await_live(http: httpx.Client, timeout_s: float) -> None:
    """Raises TimeoutError."""
    if not until(lambda: all(each["state"] == "live" for each in cameras(http).values()), timeout_s):
        raise TimeoutError(f"not every camera was live after {timeout_s:g} s, before any of them flapped")


def _count(servers: Servers, http: httpx.Client) -> dict[str, Count]:
    """What was sent and taken, while nothing is under way."""
    for server in servers.values():
        server.hold()
    statuses, since = cameras(http), time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        time.sleep(0.05)
        newer = cameras(http)
        if any(newer[name]["decoded"] != statuses[name]["decoded"] for name in servers):
            since = time.monotonic()
        statuses = newer
    sent = {name: server.sent() for name, server in servers.items()}
    for server in servers.values():
        server.go()
    names = ("decoded", "missed", "detected", "reconnects")
    return {name: Count(sent[name], *(statuses[name][what] for what in names)) for name in servers}


def _between(before: Mapping[str, Count], after: Mapping[str, Count]) -> Figures:
    each = {name: after[name].since(before[name]) for name in after}
    total = Count(*(sum(getattr(count, field.name) for count in each.values()) for field in fields(Count)))
    return {"all": total.figures(), **{name: count.figures() for name, count in each.items()}}


# ---- the cameras that flap ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flap:
    """What was done to a camera, and the seconds until it was noticed, and live again; None: it never was."""

    how: str
    noticed_s: float | None  # from the kill, or the freeze, to another state than live
    live_s: float | None  # from when its port answers again


def _flap_all(servers: Servers, states: States, seconds: float, seed: int) -> list[Flap]:
    """Each in a thread of its own; Ctrl-C ends it with what there is."""
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(len(servers) or 1) as threads:
        running = [
            threads.submit(_flap, name, server, states, deadline, random.Random(f"{seed}/{name}"))
            for name, server in servers.items()
        ]
        try:
            wait(running)
        except KeyboardInterrupt:
            states.close()  # which ends all that wait for them
        return [flap for flapping in running for flap in flapping.result()]


def _flap(
    name: str, server: RtspServer, states: States, deadline: float, chance: random.Random
) -> list[Flap]:
    """At least once, then until the deadline; each time until it is live again, and for a while."""
    flaps: list[Flap] = []
    while not flaps or time.monotonic() < deadline:
        states.sleep(chance.uniform(*UP_S))
        how, began = chance.choice(("killed", "frozen", "restarted")), time.monotonic()
        back_at = _away(how, name, server, states, chance)
        noticed_at = states.left_live(name, began, 1.0)
        live_at = None if noticed_at is None else states.live_again(name, noticed_at, GIVEN_UP_S)
        if states.closed:
            break
        noticed_s = None if noticed_at is None else noticed_at - began
        flaps.append(Flap(how, noticed_s, None if live_at is None else max(0.0, live_at - back_at)))
    return flaps


def _away(how: str, name: str, server: RtspServer, states: States, chance: random.Random) -> float:
    """Have it go and come back; when its port answered again."""
    if how == "frozen":
        server.freeze()
        states.left_live(name, time.monotonic(), STALL_S + GIVEN_UP_S)
        states.sleep(chance.uniform(*FROZEN_S))
        answers_at = time.monotonic()
        server.thaw()
        return answers_at
    server.stop()
    if how == "killed":
        states.sleep(chance.uniform(*DOWN_S))
    server.restart()
    return time.monotonic()


def _of_flaps(flaps: Sequence[Flap]) -> Figures:
    frozen = [flap for flap in flaps if flap.how == "frozen"]
    return {
        "flaps": dict(Counter(flap.how for flap in flaps)),
        "live_again_s": _spread([flap.live_s for flap in flaps if flap.how != "frozen"]),
        "live_after_thaw_s": _spread([flap.live_s for flap in frozen]),
        "stall_noticed_beyond_stall_s": _spread(
            [None if flap.noticed_s is None else flap.noticed_s - STALL_S for flap in frozen]
        ),
        "break_noticed_s": _spread([flap.noticed_s for flap in flaps if flap.how != "frozen"]),
    }


def _spread(values: Sequence[float | None]) -> Figures | None:
    """Median and maximum, and how many are above ``LATE_S``; ``never``: how often it did not happen."""
    known = [value for value in values if value is not None]
    if not known:
        return {"never": len(values)} if values else None
    return {
        "median": round(median(known), 3),
        "max": round(max(known), 3),
        "late": sum(value > LATE_S for value in known),
        "of": len(values),
        "never": len(values) - len(known),
    }


def main() -> int:
    given = arguments(str(__doc__).partition("\n")[0], SECONDS)
    if lacks := missing():
        print(lacks, file=sys.stderr)
        return 2
    end_as_with_ctrl_c()
    with suppress(KeyboardInterrupt):
        return told(run(given.seconds, given.out, seed=given.seed), given)
    print("stopped before there was anything to tell", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
