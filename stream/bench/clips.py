"""The clip that benchmarks run on: real people on bicycles at 1280x720, from an installed package."""

from __future__ import annotations

from pathlib import Path

import av
from av.video.reformatter import Interpolation

from stream.sources import demo_clip

WIDTH, HEIGHT, FRAME_RATE = 1280, 720, 25
BITRATE = 3_000_000


def clip_720p(folder: Path) -> Path:
    """Write the demo clip, enlarged to 1280x720, as H.264 without B-frames (as cameras send it)."""
    path = folder / "bikes-720p.mp4"
    with av.open(str(demo_clip())) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BITRATE
        stream.options = {"preset": "veryfast", "bf": "0", "g": "50"}
        for picture in source.decode(video=0):
            target.mux(
                stream.encode(picture.reformat(WIDTH, HEIGHT, "yuv420p", interpolation=Interpolation.BICUBIC))
            )
        target.mux(stream.encode(None))
    return path
