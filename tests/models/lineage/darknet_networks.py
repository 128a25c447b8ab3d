"""``.cfg`` files in Darknet's words, and ``.weights`` files of random numbers for them.

The architectures of the tiny networks are the published ones; no published weights are here.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.lineage.darknet import Darknet, DarknetConfig
from models.lineage.darknet_layers import Convolutional

Floats = npt.NDArray[np.float32]


def net(width: int, height: int) -> str:
    return f"[net]\n# a comment\nbatch=1\nwidth={width}\nheight={height}\nchannels=3\nlearning_rate=0.001\n"


def conv(filters: int, size: int = 3, stride: int = 1, normalised: bool = True, act: str = "leaky") -> str:
    norm = "batch_normalize=1\n" if normalised else ""
    return (
        f"[convolutional]\n{norm}filters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation={act}\n"
    )


def pool(size: int = 2, stride: int = 2) -> str:
    return f"[maxpool]\nsize={size}\nstride={stride}\n"


def region(anchors: str, classes: int) -> str:
    count = len(anchors.split(",")) // 2
    return (
        f"[region]\nanchors={anchors}\nbias_match=1\nclasses={classes}\ncoords=4\nnum={count}\nsoftmax=1\n"
        "jitter=.2\nrescore=1\nobject_scale=5\nabsolute=1\nthresh=.6\nrandom=1\n"
    )


TINY_ANCHORS = "10,14,  23,27,  37,58,  81,82,  135,169,  344,319"


def yolo(mask: str, anchors: str, classes: int) -> str:
    count = len(anchors.split(",")) // 2
    return f"[yolo]\nmask={mask}\nanchors={anchors}\nclasses={classes}\nnum={count}\njitter=.3\nignore_thresh=.7\n"


def yolov2_tiny(width: int, height: int) -> str:
    """yolov2-tiny-voc.cfg."""
    first = "".join(conv(filters) + pool() for filters in (16, 32, 64, 128, 256))
    anchors = "1.08,1.19,  3.42,4.41,  6.63,11.38,  9.42,5.11,  16.62,10.52"
    last = conv(512) + pool(2, 1) + conv(1024) + conv(1024) + conv(125, 1, 1, False, "linear")
    return net(width, height) + first + last + region(anchors, 20)


def yolov3_tiny(width: int, height: int, classes: int, channels: int) -> str:
    """yolov3-tiny.cfg, which has 16 channels first and 80 classes."""
    c, last = channels, 3 * (5 + classes)
    first = "".join(conv(filters) + pool() for filters in (c, 2 * c, 4 * c, 8 * c, 16 * c))
    coarse = conv(32 * c) + pool(2, 1) + conv(64 * c) + conv(16 * c, 1) + conv(32 * c)
    coarse += conv(last, 1, 1, False, "linear") + yolo("3,4,5", TINY_ANCHORS, classes)
    fine = "[route]\nlayers = -4\n" + conv(8 * c, 1) + "[upsample]\nstride=2\n[route]\nlayers = -1, 8\n"
    fine += conv(16 * c) + conv(last, 1, 1, False, "linear") + yolo("0,1,2", TINY_ANCHORS, classes)
    return net(width, height) + first + coarse + fine


def small_yolov3_tiny(width: int, height: int) -> str:
    """YOLOv3-tiny with an eighth of its channels and two classes."""
    return yolov3_tiny(width, height, 2, 2)


def small_v2() -> str:
    """YOLOv2's passthrough: a route around, reorg, and a route that joins."""
    first = conv(8, 3, 2) + conv(16) + pool() + conv(12) + pool()
    around = "[route]\nlayers=-3\n" + conv(8, 1) + "[reorg]\nstride=2\n[route]\nlayers=-1,-4\n"
    return net(96, 64) + first + around + conv(21, 1, 1, False, "linear") + region("1,2, 2,1.5, 3,3", 2)


def small_v3() -> str:
    """YOLOv3's residuals, and pools of odd size and of a side that they do not divide."""
    first = conv(8, 3, 2, act="relu") + conv(4, 1) + conv(8) + "[shortcut]\nfrom=-3\nactivation=linear\n"
    pools = pool(3, 1) + pool(2, 2) + pool(2, 2) + pool(5, 1)
    return net(80, 48) + first + pools + conv(16, 1, 1, False, "linear") + yolo("1,0", "8,9, 20,30, 5,6", 3)


def write_random_weights(path: Path, cfg: str, seed: int = 0) -> int:
    """A ``.weights`` file for a network, version 0.2; returns how many numbers it has.

    Kernels are scaled so that features neither vanish nor explode.
    """
    rng = np.random.default_rng(seed)
    parts: list[Floats] = []
    for layer in Darknet(DarknetConfig((), 0, 0, cfg)).layers:
        if not isinstance(layer, Convolutional):
            continue
        kernel = layer.convolution.weight
        filters, spread = kernel.shape[0], (2 / kernel[0].numel()) ** 0.5
        spread *= 0.3 if layer.norm is None else 1.0  # sizes are exponentials of what comes out last
        parts.append(rng.normal(0, 0.2, filters).astype(np.float32))
        if layer.norm is not None:
            parts.append(rng.uniform(0.7, 1.3, filters).astype(np.float32))
            parts.append(rng.normal(0, 0.1, filters).astype(np.float32))
            parts.append(rng.uniform(0.5, 1.5, filters).astype(np.float32))
        parts.append(rng.normal(0, spread, kernel.numel()).astype(np.float32))
    numbers = np.concatenate(parts)
    path.write_bytes(struct.pack("<iiiq", 0, 2, 0, 32013312) + numbers.astype("<f4").tobytes())
    return len(numbers)
