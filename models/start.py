"""Starting a network from the weights of another: of a checkpoint, or of a file that ``lookout export`` made of one.

Classes that both have keep what they know, by their names; others start anew. In an exported file batch norms are gone
into the convolutions before them. They come back with the statistics of pictures at hand, so that the network computes
the same in evaluation, and nearly the same in training. Knows nothing of recipes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from models.augment import letterboxed
from models.checkpoint import is_checkpoint, load_checkpoint
from models.coco import Example
from models.coco_names import COCO_NAMES
from models.detector import Detector
from models.errors import RecipeError
from models.families import FAMILIES
from models.lineage.faster_rcnn_fpn import FasterRcnnFpn
from models.megvii_onnx import folded_norm, is_megvii_onnx
from models.megvii_weights import detector_of, read_megvii
from models.megvii_weights import start_from as start_from_megvii
from models.megvii_yolox import MegviiYolox

_WEIGHTS = Path(__file__).parent / "weights"
_PICTURES, _BATCH = 32, 8
"""From how many training pictures statistics are taken, and how many go through at once."""

State = dict[str, Tensor]


def start_from(model: Detector, start: str, examples: Sequence[Example]) -> str:
    """Give ``model`` the weights of ``start``; returns what was done, in words.

    Args:
        model: is changed.
        start: a checkpoint, an exported file, the name of an embedded model, one of Megvii's files, or, for a Faster
            R-CNN on a pyramid, torchvision's.
        examples: training pictures, for the statistics that an exported file lacks.

    Raises:
        RecipeError: it is of another family or shape, is not float32, or is no such file.
        CheckpointError: it is no checkpoint.
        DataError: a picture cannot be read, or a file of Megvii's or torchvision's is of another network.
    """
    embedded = _WEIGHTS / f"{start}.onnx"
    path = embedded if "/" not in start and embedded.is_file() else Path(start)
    if not path.is_file():
        raise RecipeError(
            f"model.start: {start}: no such file; expected a checkpoint (.pt), an .onnx file that lookout export made "
            f"of one, or one of {', '.join(each.stem for each in _WEIGHTS.glob('*.onnx'))}"
        )
    if model.family == FasterRcnnFpn.family and path.suffix == ".pth" and not is_checkpoint(path):
        return _said(start, model, cast(FasterRcnnFpn, model).start_from_torchvision(path))
    if is_megvii(path) and (path.suffix == ".pth" or model.family == MegviiYolox.family):
        _check_family(model, MegviiYolox.family, start)
        said = start_from_megvii(cast(MegviiYolox, model), path)
        restore_statistics(model, _chosen(examples))
        return said
    if path.suffix != ".onnx":
        other, meta = load_checkpoint(path)
        _check_family(model, meta.family, start)
        taken = adopt(model, other.state_dict(), meta.names, start)
    else:
        state, names = weights_of_onnx(path, model)
        taken = adopt(model, state, names, start)
        restore_statistics(model, _chosen(examples))
    return _said(start, model, taken)


def _said(start: str, model: Detector, taken: set[str]) -> str:
    anew = [name for name in model.config.names if name not in taken]
    return f"starting from {start}" + (f"; anew: {', '.join(anew)}" if anew else "")


def _chosen(examples: Sequence[Example]) -> list[Example]:
    """Those that statistics are taken from: every so many, the first and the last among them."""
    places = np.unique(np.linspace(0, len(examples) - 1, min(_PICTURES, len(examples))).astype(int))
    return [examples[index] for index in places.tolist()]


def load_detector(path: Path, input_height: int, input_width: int) -> Detector:
    """The detector of a checkpoint, or of one of Megvii's files for that input, in evaluation mode on the CPU.

    Raises:
        CheckpointError: it is no checkpoint.
        DataError: it is called ``.pth`` or ``.onnx`` and is not a YOLOX of one of Megvii's sizes.
    """
    if not is_megvii(path):
        return load_checkpoint(path)[0]
    file = read_megvii(path)
    names = COCO_NAMES if file.classes == len(COCO_NAMES) else tuple(map(str, range(file.classes)))
    return detector_of(file, names, range(file.classes), input_height, input_width)


def is_megvii(path: Path) -> bool:
    """Whether a file is to be read as Megvii's: theirs are called ``.pth`` or ``.onnx``, and are not lookout's."""
    return is_megvii_onnx(path) or (path.suffix == ".pth" and not is_checkpoint(path))


def weights_of_onnx(path: Path, model: Detector) -> tuple[State, tuple[str, ...]]:
    """The weights in an exported file, by the names that they have in ``model``, and the file's classes.

    A batch norm that was folded away adds the convolution's new bias and does nothing else: its mean is 0, its
    deviation and weight are 1.

    Raises:
        RecipeError: not a file that ``lookout export`` made of a checkpoint of this family, in float32.
    """
    try:
        file = onnx.load(str(path))
    except Exception as error:  # protobuf, onnx and OS errors share no base class
        raise RecipeError(
            f"model.start: {path}: cannot be read ({type(error).__name__}); expected an .onnx file that lookout export "
            "made of a checkpoint"
        ) from error
    said = {entry.key.removeprefix("lookout."): entry.value for entry in file.metadata_props}
    _check_family(model, said.get("family", "stranger's"), str(path))
    if said.get("precision", "fp32") != "fp32":
        raise RecipeError(
            f"model.start: {path}: is in {said['precision']}; give the fp32 file or the checkpoint"
        )
    kept = {
        tensor.name.partition("model.")[2]: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in file.graph.initializer
    }
    own = model.state_dict()
    state = {name: tensor for name, tensor in kept.items() if name in own or name.endswith(".weight")}
    for convolution, norm in _norms_after(model).items():
        bias = kept.get(f"{convolution}.weight_bias", kept.get(f"{convolution}.bias"))
        if f"{norm}.running_var" not in state and bias is not None:
            state |= folded_norm(norm, bias, model.get_submodule(norm))
    return state, tuple(json.loads(said["names"]))


def adopt(model: Detector, state: Mapping[str, Tensor], names: tuple[str, ...], start: str) -> set[str]:
    """Load the weights of a network with the classes ``names``; returns the classes that came with them.

    Raises:
        RecipeError: they do not fit.
    """
    own, wanted = model.state_dict(), model.config.names
    if missing := [name for name in (*own, *state) if name not in state or name not in own]:
        raise RecipeError(
            f"model.start: {start}: {missing[0]} is in one of the networks alone; write the other keys under model as "
            "that one was trained with"
        )
    rows = [(to, names.index(name)) for to, name in enumerate(wanted) if name in names]
    by_class = set() if wanted == names else _by_class(model)
    for name, tensor in own.items():
        given = state[name]
        if name in by_class and (len(tensor), len(given)) == (len(wanted), len(names)):
            for to, where in rows:
                tensor[to] = given[where]
        elif tensor.shape == given.shape and name not in by_class:
            tensor.copy_(given)
        else:
            raise RecipeError(
                f"model.start: {start}: {name} is {tuple(given.shape)} there and {tuple(tensor.shape)} here; write the "
                "other keys under model, and where that is not enough names too, as that one was trained with"
            )
    return {wanted[to] for to, _ in rows}


@torch.no_grad()
def restore_statistics(model: Detector, examples: Sequence[Example]) -> None:
    """Give batch norms the mean and variance of what they see in pictures, without a change to what they compute.

    Only those are changed that :func:`weights_of_onnx` made.
    """
    norms = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d) and _is_identity(each)]
    sums = {norm: torch.zeros(2, norm.num_features, dtype=torch.float64) for norm in norms}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        sums[norm] += torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]).double().cpu() * len(x)  # type: ignore[index]

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    with _evaluating(model):
        device = next(model.parameters()).device
        for first in range(0, len(examples), _BATCH):
            samples = [
                letterboxed(example, model.config.input_height, model.config.input_width)
                for example in examples[first : first + _BATCH]
            ]
            images = torch.stack([torch.from_numpy(sample.image) for sample in samples])
            model.decode(model.normalise(images.to(device)), _no_proposals(model, len(samples), device))
    for hook in hooks:
        hook.remove()
    for norm, total in sums.items():
        mean, square = total / len(examples)
        variance = (square - mean.square()).clamp(min=0)
        norm.bias.add_(mean)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]


def _check_family(model: Detector, family: str, start: str) -> None:
    if family != model.family:
        raise RecipeError(
            f"model.start: {start}: is a {family} model, the recipe's is a {model.family}; "
            "give one of that family, or change model.family where it has the file's"
        )


def _is_identity(norm: nn.BatchNorm2d) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    return bool((mean == 0).all() and (variance == 1 - norm.eps).all() and (norm.weight == 1).all())


@torch.no_grad()
def _norms_after(model: Detector) -> dict[str, str]:
    """The batch norm that takes what a convolution gives, by the convolution's name: seen in a run."""
    given: list[tuple[Tensor, str]] = []
    pairs: dict[str, str] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):

            def gave(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                given.append((output, name))

            hooks.append(module.register_forward_hook(gave))
        elif isinstance(module, nn.BatchNorm2d):

            def took(_module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                pairs.update({convolution: name for output, convolution in given if output is inputs[0]})

            hooks.append(module.register_forward_pre_hook(took))
    device = next(model.parameters()).device
    image = torch.zeros((1, 3, model.config.input_height, model.config.input_width), device=device)
    with _evaluating(model):
        model.decode(image, _no_proposals(model, 1, device))
    for hook in hooks:
        hook.remove()
    return pairs


def _no_proposals(model: Detector, pictures: int, device: torch.device) -> Tensor | None:
    return torch.zeros((pictures, 1, 4), device=device) if model.takes_proposals else None


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def _by_class(model: Detector) -> set[str]:
    """The weights whose shape depends on the number of classes."""
    config = dataclasses.asdict(model.config)  # type: ignore[call-overload]
    with torch.random.fork_rng(devices=[]):
        other = FAMILIES[model.family].build({**config, "names": (*config["names"], "\0")})
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    return {name for name, tensor in model.state_dict().items() if shapes[name] != tensor.shape}
