"""Flips bits in the packets of a real clip and reads it as a camera is read, again and again.

    python -m tests.faults.fuzz CLIP SECONDS [FIRST_SEED]

A process of its own, as a decoder that is hit fatally takes its process along. What happened is one line of JSON; a
seed is printed before it is tried, so the last one printed is the one that did it.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path

import av

from stream.errors import SourceError
from stream.sources import SourceOptions, open_source

PICTURES = 40
CONTAINERS = ("ts", "mp4", "mkv", "h264")


def cut(clip: Path, path: Path) -> list[tuple[int, int]]:
    """Copy the first packets into another container; place and size of each in it."""
    with av.open(str(clip)) as film, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(film.streams.video[0])
        for number, packet in enumerate(film.demux(video=0)):
            if number < PICTURES and packet.size:
                packet.stream = stream
                out.mux(packet)
    with av.open(str(path)) as container:
        return [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]


def flip(data: bytearray, places: list[tuple[int, int]], chance: random.Random) -> None:
    """One bit to some hundred in one packet to all."""
    for at, size in chance.sample(places, chance.randint(1, len(places))):
        for _ in range(chance.choice((1, 1, 3, 30, 300))):
            place = min(at + chance.randrange(size), len(data) - 1)
            data[place] ^= 1 << chance.randrange(8)


def read(path: Path) -> tuple[int, int, str]:
    """Pictures, bad packets, and the error that ended it."""
    pictures = bad = 0
    source = None
    try:
        source = open_source(str(path), SourceOptions(pace="lossless"))
        for _ in iter(source.read, None):
            pictures += 1
    except SourceError as error:
        return pictures, bad, type(error).__name__
    finally:
        if source is not None:
            bad = source.bad_packets
            source.close()
    return pictures, bad, ""


def main(clip: Path, seconds: float, first_seed: int) -> None:
    until, said = time.monotonic() + seconds, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        cuts = {kind: (path := Path(folder) / f"cut.{kind}", cut(clip, path)) for kind in CONTAINERS}
        fuzzed = Path(folder) / "fuzzed"
        for seed in count(first_seed):
            if time.monotonic() > until:
                break
            chance = random.Random(seed)
            path, places = cuts[chance.choice(CONTAINERS)]
            print(seed, path.suffix, flush=True)
            data = bytearray(path.read_bytes())
            flip(data, places, chance)
            fuzzed.with_suffix(path.suffix).write_bytes(data)
            pictures, bad, error = read(fuzzed.with_suffix(path.suffix))
            said.update({"clips": 1, "pictures": pictures, "bad packets": bad, error or "no error": 1})
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
