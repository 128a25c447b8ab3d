"""How a family reads a model: what is done to its pixels, and how its outputs become detections.

A family is a module of ``export.families`` with one function, ``readings``: every way in which the
family's models could have this signature, none where it does not fit. One model with several readings
is ambiguous, and the user is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx

from export.pixels import Array, PixelRule
from export.signature import Signature

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes float32 (N, 4) xyxy in input pixels, and what each may be: scores float32 (N, C), 0-1."""

    boxes: Floats
    class_scores: Floats


@dataclass(frozen=True, slots=True)
class Finished:
    """Boxes float32 (N, 4) xyxy in input pixels, one score (N,) 0-1 and one class (N,) each."""

    boxes: Floats
    scores: Floats
    classes: Ints


Outputs = Mapping[str, Array]
"""A model's own outputs for one picture by name, as they come: floats are float32, integers as declared."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a model.

    Attributes:
        family: the name that ``--family`` takes.
        said: what was recognised, for the user; with what was taken for granted.
        classes: C; 0 where the file does not say, and names must be given.
        pixels: the family's own rule, unless the user gives another.
        wires: the model's output -> the decoder's input.
        decoder: opset -> a graph (batch B, or 1 for a model without batch) from the model's outputs
            (float32 or int64) to ``boxes`` and ``class_scores``, or to ``boxes``, ``scores`` and
            ``classes``, as in ``export.contract``.
        decode: the same in NumPy for one picture, written apart from the graph: the reference.
        nms: whether suppression is still to be done.
        names: of the classes, where the family or the file says them.
        background_first: whether class 0 is no object, so that names may leave it out.
        naming: how names are given, where their number needs a word.
        constants: values for inputs besides the picture, where they differ from ``side_values``.
        anchored: whether it uses anchors that the user gives.
        doubt: what speaks against this reading; such a one is taken only where ``--family`` names it.
    """

    family: str
    said: str
    classes: int
    pixels: PixelRule
    wires: Mapping[str, str]
    decoder: Callable[[int], onnx.ModelProto]
    decode: Callable[[Outputs], Candidates | Finished]
    nms: bool
    names: tuple[str, ...] | None = None
    background_first: bool = False
    naming: str = ""
    constants: Mapping[str, Array] = field(default_factory=dict)
    anchored: bool = False
    doubt: str = ""


class Family(Protocol):
    """A module of ``export.families``. ``NEEDED`` describes its surface for whoever has no such file."""

    NEEDED: str

    def readings(self, signature: Signature) -> list[Reading]: ...
