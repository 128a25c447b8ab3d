"""What the benchmarks of viewers show: a drifting texture, 1280x720@30, as a camera of about 2 Mbit/s."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
from av import VideoFrame

from stream.frames import Frame, Tracks
from stream.webrtc.hub import Hub

WIDTH, HEIGHT, RATE = 1280, 720, 30
BITRATE = 2_400_000  # the rate buffer keeps x264 below its target: about 2 Mbit/s come out


def play(hub: Hub, stop: threading.Event) -> None:
    """Show the clip there and back."""
    clip = pictures()
    started_at, index = time.monotonic(), 0
    while not stop.wait(max(0.0, started_at + index / RATE - time.monotonic())):
        there_and_back = index % 126
        picture = clip[min(there_and_back, 126 - there_and_back)]
        hub.show(Frame(picture, index, index / RATE, time.monotonic()), Tracks.empty())
        index += 1


def pictures() -> list[VideoFrame]:
    """A textured picture that drifts: enough detail to use the whole bit rate."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT + 128, WIDTH + 128), np.uint8), (0, 0), 1.2)
    clip = []
    for step in range(64):
        picture = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        planes = [np.frombuffer(memoryview(plane), np.uint8) for plane in picture.planes]
        planes[0].reshape(HEIGHT, -1)[:, :WIDTH] = texture[step : step + HEIGHT, 2 * step : 2 * step + WIDTH]
        for plane in planes[1:]:
            plane[:] = 128
        clip.append(picture)
    return clip
