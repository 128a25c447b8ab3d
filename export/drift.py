"""Where a graph of lower precision first leaves its float32 graph: tensor by tensor, on one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx

from export.batch import loop_body
from export.network import activations, channel_error, float_tensors, network_of, prepared
from export.reference import Pixels

DRIFTED: dict[Literal["fp16", "int8"], float] = {"fp16": 0.02, "int8": 0.2}
"""What one node adds to the ``channel_error`` of what it is given, from which it drifts.

Errors add up gently in sound files, to 0.01 and 0.4 at the end, by less than a quarter of this at once.
"""


@dataclass(frozen=True, slots=True)
class Drift:
    """A tensor that differs."""

    tensor: str
    made_by: str
    error: float
    added: float
    """By its node alone."""
    is_first: bool
    """The first of several to exceed ``DRIFTED``; False for the largest of those that all stay below."""

    def __str__(self) -> str:
        which = "the first tensor to drift is" if self.is_first else "no tensor drifts by itself, most"
        return (
            f"{which} {self.tensor} ({self.made_by}), relative error {self.error:.2g}, of which its node adds "
            f"{self.added:.2g}"
        )


def find_drift(
    fp32: onnx.ModelProto, lowered: onnx.ModelProto, image: Pixels, precision: Literal["fp16", "int8"]
) -> Drift | None:
    """Compare float tensors inside two graphs in topological order; None where no name is in both.

    Args:
        fp32: contract graph.
        lowered: the contract graph made of it.
        image: uint8 (H, W, 3), letterboxed.
        precision: of ``lowered``.
    """
    exact = prepared(loop_body(fp32))
    other = loop_body(lowered)
    made = {output: node for node in exact.graph.node for output in node.output}
    theirs = {output for node in other.graph.node for output in node.output}
    network = network_of(exact.graph)
    inside = set(network.nodes)
    names = [
        name
        for name in float_tensors(exact.graph, network.nodes)
        if name in made and made[name].name in inside
    ]
    # A quantizer leaves the name to what goes in; what comes out of its rounding is what others see.
    rounded = {name: f"{name}_DequantizeLinear_Output" for name in names}
    pairs = {name: rounded[name] if rounded[name] in theirs else name for name in names}
    pairs = {name: there for name, there in pairs.items() if there in theirs}
    if not pairs:
        return None
    (expected,) = activations(exact, list(pairs), [image])
    (got,) = activations(other, list(pairs.values()), [image])
    errors = {name: channel_error(expected[name], got[there]) for name, there in pairs.items()}
    added = _added(exact.graph, errors)
    first = next((name for name, more in added.items() if more > DRIFTED[precision]), None)
    name = first or max(added, key=lambda tensor: added[tensor])
    node = made[name]
    return Drift(name, f"{node.op_type} {node.name}", errors[name], added[name], first is not None)


def _added(graph: onnx.GraphProto, errors: dict[str, float]) -> dict[str, float]:
    """By how much each tensor's error exceeds those that its node was given; where one is unknown, what led to it."""
    known: dict[str, float] = {}
    added: dict[str, float] = {}
    for node in graph.node:
        given = max((known.get(name, 0.0) for name in node.input), default=0.0)
        for name in node.output:
            known[name] = errors.get(name, given)
            if name in errors:
                added[name] = errors[name] - given
    return added
