"""What Ultralytics' exporter, and YOLOv5's before it, writes into a file: task, names, stride.

Not a family: several families ask here. ``task`` is there since YOLOv8, ``names`` and ``stride``
since YOLOv5 6.0.
"""

from __future__ import annotations

from export.names import names_in
from export.signature import AdaptError, Signature

_PROTOTYPES = 32
"""Mask prototypes of a segmentation model: an output (1, 32, H / 4, W / 4)."""


def is_ultralytics(signature: Signature) -> bool:
    """Whether that exporter's keys are there."""
    return "stride" in signature.metadata and names_in(signature.metadata) is not None


def refuse_other_tasks(signature: Signature) -> None:
    """Raises AdaptError for a model of masks, keypoints, rotated boxes or whole pictures' classes."""
    task = signature.metadata.get("task", "detect") if is_ultralytics(signature) else "detect"
    if task != "detect":
        raise AdaptError(
            f"{signature.path}: its metadata says task {task}; lookout reads models of task detect: "
            "export the detection model of the same family"
        )


def refuse_masks(signature: Signature) -> None:
    """Raises AdaptError where an output beside the boxes is that of mask prototypes."""
    prototypes = (1, _PROTOTYPES, signature.height // 4, signature.width // 4)
    for output in signature.outputs:
        if output.shape == prototypes:
            raise AdaptError(
                f"{signature.path}: is a segmentation model (output {output.name} {prototypes} holds mask "
                "prototypes); lookout reads detectors: export the detection model of the same family"
            )


def refuse_other_columns(signature: Signature, output: str) -> None:
    """Raises AdaptError: decoded boxes, but what follows them are no scores."""
    raise AdaptError(
        f"{signature.path}: output {output} has decoded boxes, but columns after them are not within 0-1, as "
        "keypoints, angles or scores before their sigmoid; lookout reads detectors with scores 0-1: export the "
        "detection model with its sigmoid"
    )


def names_for(signature: Signature, classes: int) -> tuple[tuple[str, ...] | None, str]:
    """The file's names for so many classes, and what is doubtful where it has another number of names."""
    names = names_in(signature.metadata)
    if names is None or len(names) == classes:
        return names, ""
    return None, f"the file names {len(names)} classes, but has {classes} columns of class scores"
