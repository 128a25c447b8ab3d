"""Whether an exported file is better than the one it is to replace, on pictures that it did not learn from.

Both are measured as files, by onnxruntime on the CPU: AP at IoU 0.5, the mean over the classes that both have and
that have a box there. Knows nothing of the live app.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export.accuracy import Annotated, Truth, ap50_by_class
from export.artifact import ModelSpec, load, read_spec
from models.errors import LookoutError

Say = Callable[[str], None]


class GateError(LookoutError):
    """An exported file that is no better than the current one, or where that cannot be told."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What a new file has to beat.

    Args:
        current: a contract file.
        truth: what to measure on.
        names: the classes of ``truth``.
        margin: how much higher AP50 has to be, 0 to 1; with 0 it has to be higher, no matter how little.
    """

    current: Path
    truth: Truth
    names: tuple[str, ...]
    margin: float = 0.0


def gate_on(current: Path, annotated: Annotated, margin: float) -> Gate:
    """A gate on pictures that were annotated for it.

    Raises:
        DataError: the annotations are wrong, or have no class of ``current``.
    """
    names = read_spec(load(current), str(current)).names
    return Gate(current, Truth.read(annotated, names), names, margin)


def gate_on_held_out(current: Path, checkpoint: Path, margin: float) -> Gate:
    """A gate on what the training of ``checkpoint`` was measured by, as the recipe beside it has it.

    Raises:
        GateError: there is no recipe, or it held out nothing.
        RecipeError, DataError: the recipe is wrong, or its data is no longer as it was.
    """
    from models.recipe import load_recipe
    from models.training_data import training_data  # needs the train extra

    remedy = "name annotated pictures: --on ANNOTATIONS --images DIR"
    path = checkpoint.parent / "recipe.yaml"
    if not path.is_file():
        raise GateError(f"{checkpoint}: has no recipe.yaml beside it, which says what was held out; {remedy}")
    recipe = load_recipe(path)
    _, held = training_data(recipe)
    if held is None:
        raise GateError(f"{path}: has neither data.hold_out nor data.validation; {remedy}")
    return Gate(current, Truth(held.examples, held.truth), recipe.names, margin)


def pass_gate(path: Path, spec: ModelSpec, gate: Gate, out: Path, say: Say) -> dict[str, float]:
    """The figures of an exported file that is better than the current one.

    Args:
        path: the file as it is written so far.
        spec: of that file.
        gate: what it has to beat.
        out: what it is to be called.
        say: told the figures.

    Raises:
        GateError: it is not, or they have no class in common that is in the pictures.
    """
    current = read_spec(load(gate.current), str(gate.current))
    new = ap50_by_class(path, spec, gate.truth, gate.names, out.name)
    old = ap50_by_class(gate.current, current, gate.truth, gate.names, gate.current.name)
    common = [name for name in new if name in spec.names and name in current.names]
    if not common:
        raise GateError(
            f"{out}: has no class in common with {gate.current} of which there is a box in the pictures "
            f"({', '.join(new)}); measure on others with --on ANNOTATIONS --images DIR"
        )
    ap50, before = (sum(each[name] for name in common) / len(common) for each in (new, old))
    pictures = len(gate.truth.examples)
    said = f"AP50 {ap50:.3f}, {gate.current.name} {before:.3f}, on {pictures} pictures ({', '.join(common)})"
    if not ap50 > before or ap50 < before + gate.margin:
        least = f"at least {gate.margin:g} higher" if gate.margin else "higher"
        raise GateError(f"{out}: not written: {said}; expected {least}. Label more pictures, or train longer")
    say(f"better      {said}")
    return {"AP50": ap50, "current_AP50": before, "pictures": pictures}
