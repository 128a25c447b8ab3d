"""A real person who walks along a known path, in a clip whose frames carry their number.

Everything is gray but for what the app or the page draws, so one picture in a browser tells both which
frame it is and where its box lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from stream import barcode

WIDTH, HEIGHT, RATE = 1280, 720, 10
LEG, STEP_PX, LEFT_PX, TOP_PX = 42, 18, 40, 150  # frames from side to side, pixels a frame
PERSON_FRAME, PERSON_COLUMNS, PERSON_SCALE = 37, slice(280, 500), 2.0  # a man in a suit, in bikes.mp4
SETTLED = 15  # frames after a turn until a tracker has understood it

# One entry a picture presented: [frame number, left, right, bottom] of what is coloured, or null.
MEASURE = r"""
() => {
  window.measured = [];
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const video = document.querySelector("video");
  const look = () => {
    video.requestVideoFrameCallback(look);
    const width = (canvas.width = video.videoWidth), height = (canvas.height = video.videoHeight);
    context.drawImage(video, 0, 0);
    const over = document.querySelector(".stage canvas");
    if (over.width && !over.hidden) context.drawImage(over, 0, 0);
    const index = lookout.read(canvas, width, height);
    const top = Math.ceil(height / 9) + 4;
    const pixels = context.getImageData(0, top, width, height - top).data;
    const columns = new Uint16Array(width), rows = new Uint16Array(height);
    for (let y = top, at = 0; y < height; y++)
      for (let x = 0; x < width; x++, at += 4) {
        const least = Math.min(pixels[at], pixels[at + 1], pixels[at + 2]);
        const most = Math.max(pixels[at], pixels[at + 1], pixels[at + 2]);
        if (most - least > 90) { columns[x]++; rows[y]++; }
      }
    const drawn = (count) => count > 60;
    const left = columns.findIndex(drawn), right = columns.findLastIndex(drawn);
    window.measured.push(left < 0 ? [index, null] : [index, [left, right + 1, rows.findLastIndex(drawn) + 1]]);
  };
  video.requestVideoFrameCallback(look);
}
"""


def person_left_px(index: int) -> int:
    """Where the person's left side is in a frame: from side to side and back."""
    phase = index % (2 * LEG)
    return LEFT_PX + STEP_PX * min(phase, 2 * LEG - phase)


def direction(index: int) -> int:
    return 1 if index % (2 * LEG) < LEG else -1


def cut_out(bikes: Path) -> np.ndarray:
    """The person, in gray."""
    with av.open(str(bikes)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == PERSON_FRAME:
                gray = np.ascontiguousarray(frame.to_ndarray(format="gray")[:, PERSON_COLUMNS])
                return cv2.resize(gray, None, fx=PERSON_SCALE, fy=PERSON_SCALE)
    raise AssertionError("the clip is shorter than expected")


def film(person: np.ndarray, path: Path) -> Path:
    """One period of the path as a clip; played in a loop it goes on for ever."""
    rows, columns = person.shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(2 * LEG):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            luma, left = planes[:HEIGHT], person_left_px(index)
            luma[TOP_PX : TOP_PX + rows, left : left + columns] = person
            barcode.draw(luma, index)
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def boxed_pictures(measured: Sequence[Any], at_least: float = 0.9) -> list[Any]:
    """Those of ``window.measured`` that have a box, where the tracker has had time to understand the last turn.

    Fails if less than this share of them has one.
    """
    legible = [(index, box) for index, box in measured if index is not None]
    settled = [(index, box) for index, box in legible if index % LEG >= SETTLED]
    boxed = [(index, box) for index, box in settled if box is not None]
    assert len(settled) >= 20, f"only {len(settled)} of {len(measured)} pictures are of use"
    assert len(boxed) >= at_least * len(settled), "the person is not boxed"
    return boxed


def check_on_own_frame(boxed: Sequence[Any], person_width_px: int, what: str) -> None:
    """Fail if boxes are drawn on other frames than their own; needs pictures of both directions."""
    assert {direction(index) for index, _ in boxed} == {-1, 1}
    middles = np.array([(left + right) / 2 for _, (left, right, _) in boxed])
    errors_px = middles - [person_left_px(index) + person_width_px / 2 for index, _ in boxed]
    ways = np.array([direction(index) for index, _ in boxed])
    # A constant offset is the detector's; what changes its sign with the direction is a wrong frame.
    bias_px = (np.median(errors_px[ways > 0]) + np.median(errors_px[ways < 0])) / 2
    behind_frames = -(errors_px - bias_px) * ways / STEP_PX
    print(
        f"{what}: {len(boxed)} pictures, detector's bias {bias_px:.1f} px, boxes behind their frame by "
        f"{behind_frames.mean():+.2f} frames (mean), {np.abs(behind_frames).max():.2f} (largest)"
    )
    assert abs(bias_px) < 20
    assert abs(behind_frames.mean()) < 0.25
    assert np.percentile(np.abs(behind_frames), 90) < 0.5, "boxes are drawn on other frames"
