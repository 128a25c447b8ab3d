"""One model loaded in onnxruntime, on the CPU or through OpenVINO. Knows nothing of pictures or detections."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Tensors = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]

OUTPUTS = ("boxes", "scores", "classes")


class Session:
    """A warm session for one thread at a time; ``twin`` gives another thread its own.

    Attributes:
        onnx: onnxruntime's session, shared by twins.
        device: what it really runs on.
        reason: why that was chosen.
        threads: CPU threads of one run.
        most_pictures: that are worth running at once. On a CPU a batch is no faster than its pictures one by one.
    """

    most_pictures = 1

    def __init__(self, onnx: Any, device: str, reason: str, threads: int) -> None:
        self.onnx, self.device, self.reason, self.threads = onnx, device, reason, threads

    def twin(self) -> Session:
        """The same session with buffers of its own."""
        return Session(self.onnx, self.device, self.reason, self.threads)

    def run(self, images: npt.NDArray[np.uint8], proposals: npt.NDArray[np.float32] | None = None) -> Tensors:
        """One run of the model.

        Args:
            images: uint8 (B, H, W, 3).
            proposals: float32 (B, P, 4) in input pixels, for a model that judges them.

        Returns:
            boxes float32 (B, Q, 4), scores float32 (B, Q), classes int64 (B, Q).
        """
        given = {"images": images} if proposals is None else {"images": images, "proposals": proposals}
        boxes, scores, classes = self.onnx.run(OUTPUTS, given)
        return boxes, scores, classes
