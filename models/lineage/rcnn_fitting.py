"""How an R-CNN learns (arXiv 1311.2524, section 2.3 and appendices B and C), stage by stage.

1. Fine-tuning: the backbone learns to tell proposals of the classes from background.
2. What it makes of objects and proposals near them is computed once for all pictures and kept.
3. For each class a ridge regression from the maps of what is near an object to the way to it.
4. The first proposals of some pictures are described too, to be searched for hard negatives.
5. For each class an SVM: objects' own boxes against proposals that overlap none by 0.3, mined in rounds.
6. For each class Platt's sigmoid, from what is found in the pictures that were searched.

Knows nothing of checkpoints or measuring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.augment import letterboxed
from models.boxes import pairwise_iou
from models.coco import Example
from models.errors import DataError
from models.lineage.box_coding import clip, encode
from models.lineage.calibration import curve_of, judge
from models.lineage.mining import Cache, Scene, chosen, negatives
from models.lineage.rcnn import Features, Rcnn
from models.lineage.regions import match_regions, sample
from models.target import Target

FEATURE_NORM = 20.0
"""To which features are scaled on average, so that costs mean the same for every backbone (the published code)."""
NEAR_IOU = 0.6
"""A proposal must overlap an object by as much for the regression to learn the way (appendix C)."""

_PICTURES_A_STEP = 8
_REGIONS_A_PICTURE = 16
_OBJECT_SHARE = 0.25  # 32 of 128
_MOMENTUM, _DECAY = 0.9, 0.0005
_VIOLATED = -1.0
"""A negative that scores above this costs the SVM something."""
_NEGATIVES = 20
"""At most so many a picture and round."""
_TOLERANCE = 0.01
_AT_ONCE = 64

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Near:
    """A picture of which its objects, and proposals near one, went through the network."""

    scene: Scene
    """Without its image."""
    boxes: Tensor
    """float32 (R, 4): the proposals, then the objects, in input pixels."""
    features: Features
    """Of R."""

    @property
    def objects(self) -> Tensor:
        """The objects' top features, float32 (M, channels)."""
        return self.features.top[len(self.boxes) - len(self.scene.boxes) :]


@dataclass(frozen=True, slots=True)
class Searched:
    """A picture of which the first proposals went through the network."""

    scene: Scene
    """Without its image."""
    boxes: Tensor
    """float32 (R, 4): the proposals, in input pixels."""
    better: Tensor
    """float32 (R, C, 4): as the regressions of each class would have them."""
    top: Tensor
    """float32 (R, channels)."""


def fit_rcnn(model: Rcnn, examples: list[Example], seed: int, say: Say) -> None:
    """Fit a model that starts from ImageNet weights to pictures with proposals.

    Raises:
        DataError: a picture cannot be read, or there is too little to learn a class from.
    """
    torch.manual_seed(seed)
    config = model.config
    with_objects = [example for example in chosen(examples, len(examples), seed) if len(example.boxes)]
    if not with_objects:
        raise DataError("no picture has an object; there is nothing to learn")
    if config.steps:
        say(f"fine-tuned: loss {fine_tune(model.train(), with_objects, seed, say):.3f} at the end")
    model.eval()
    with torch.no_grad():
        near = [_near(model, each) for each in _counted(with_objects, "described near objects", say)]
        say(
            f"described near objects: {sum(len(each.boxes) for each in near)} regions of {len(near)} pictures"
        )
        for class_, name in enumerate(config.names):
            _fit_ridge(model, near, class_, name, say)
        some = chosen(with_objects, config.pictures, seed)
        searched = [_searched(model, each) for each in _counted(some, "searched", say)]
        say(f"searched: {sum(len(each.boxes) for each in searched)} regions of {len(searched)} pictures")
        for class_, name in enumerate(config.names):
            _fit_svm(model, near, searched, class_, name, seed, say)
            _calibrate(model, searched, class_, name, say)


def _counted(things: Sequence[T], what: str, say: Say) -> Iterator[T]:
    """The things, with a word after every tenth of them: it may be the only one for half an hour."""
    for number, thing in enumerate(things, start=1):
        yield thing
        if number * 10 // len(things) > (number - 1) * 10 // len(things):
            say(f"{what}: {number} of {len(things)}")


def fine_tune(model: Rcnn, examples: list[Example], seed: int, say: Say) -> float:
    """Train the backbone as a classifier of C classes and background; the mean loss of the last steps."""
    config, device = model.config, model.filters.device
    head = nn.Linear(model.backbone.top_channels, len(config.names) + 1).to(device)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    weights = [*model.backbone.parameters(), *head.parameters()]
    optimiser = torch.optim.SGD(weights, config.learning_rate, _MOMENTUM, weight_decay=_DECAY)
    losses: list[float] = []
    for part in _counted(list(_steps(examples, config.steps, seed)), "fine-tuning", say):
        features, classes = zip(*(_sampled(model, example) for example in part), strict=True)
        logits = head(torch.cat(features))
        loss = functional.cross_entropy(logits, torch.cat(classes).to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses[-10:]))


def _steps(examples: list[Example], steps: int, seed: int) -> Iterator[list[Example]]:
    """The pictures of each step, every one as often as the others."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < _PICTURES_A_STEP:
            order += rng.permutation(len(examples)).tolist()
        yield [examples[index] for index in order[:_PICTURES_A_STEP]]
        del order[:_PICTURES_A_STEP]


def _sampled(model: Rcnn, example: Example) -> tuple[Tensor, Tensor]:
    """Features of some regions of a picture, and their classes: 0 is background, c + 1 is class c."""
    config = model.config
    placed = letterboxed(example, config.input_height, config.input_width)
    parts = (placed.boxes, placed.classes, placed.ignored, placed.partial, placed.proposals)
    target = Target(*map(torch.from_numpy, parts))
    boxes = torch.cat([target.boxes, target.proposals])
    these = sample(match_regions(boxes, target), _REGIONS_A_PICTURE, _OBJECT_SHARE)
    classes = torch.zeros(len(these.rows), dtype=torch.int64)
    classes[: len(these.objects)] = target.classes[these.matched] + 1
    image = model.normalise(torch.from_numpy(placed.image)[None].to(model.filters.device))
    return model.features(image, boxes[these.rows][None].to(image.device)).top, classes


def _near(model: Rcnn, example: Example) -> Near:
    image, scene, proposals = _placed(model, example)
    proposals = proposals[(pairwise_iou(proposals, scene.boxes) > NEAR_IOU).any(1)]
    boxes = torch.cat([proposals, scene.boxes])
    parts = [model.features(image, part[None].to(image.device)) for part in torch.split(boxes, _AT_ONCE)]
    top, maps = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
    return Near(scene, boxes, Features(top, maps))


def _searched(model: Rcnn, example: Example) -> Searched:
    image, scene, proposals = _placed(model, example)
    boxes = proposals[: model.config.regions]
    top, better = [], []
    for part in torch.split(boxes.to(image.device), _AT_ONCE):
        features = model.features(image, part[None])
        top.append(features.top.cpu())
        better.append(model.bettered(features.map, part).cpu())
    return Searched(scene, boxes, torch.cat(better), torch.cat(top))


def _placed(model: Rcnn, example: Example) -> tuple[Tensor, Scene, Tensor]:
    """A picture, normalised, on the model's device; what is known of it; and its proposals."""
    placed = letterboxed(example, model.config.input_height, model.config.input_width)
    image = torch.from_numpy(placed.image)
    known = map(torch.from_numpy, (placed.boxes, placed.classes, placed.ignored))
    normalised = model.normalise(image[None].to(model.filters.device))
    return normalised, Scene(image.new_empty(0), *known), torch.from_numpy(placed.proposals)


def _fit_ridge(model: Rcnn, near: list[Near], class_: int, name: str, say: Say) -> None:
    maps, ways = [], []
    for each in near:
        objects = each.scene.of_class(class_)
        if len(objects):
            overlaps, nearest = pairwise_iou(each.boxes, objects).max(1)
            rows = (overlaps > NEAR_IOU).nonzero()[:, 0]
            maps.append(each.features.map[rows])
            ways.append(encode(objects[nearest[rows]], each.boxes[rows]))
    if not maps:
        raise DataError(f"{name}: none of the {len(near)} pictures has one")
    scale = _scale(each.features.map for each in near)
    weights, offsets = ridge(torch.cat(maps) * scale, torch.cat(ways), model.config.ridge)
    model.ways[class_] = weights * scale
    model.offsets[class_] = offsets
    say(f"{name}: boxes bettered as {len(torch.cat(ways))} regions near one should have been")


def ridge(features: Tensor, wanted: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Linear least squares whose weights, but not offsets, are held small.

    Args:
        features: float (M, D).
        wanted: float (M, K).
        strength: what the sum of squared weights costs, beside the sum of squared errors.

    Returns:
        weights float32 (K, D) and offsets float32 (K,).
    """
    x, y = features.double(), wanted.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    if len(x) < x.shape[1]:  # the weights are a sum of examples: as many unknowns as there are of those
        square = x @ x.T + strength * torch.eye(len(x), dtype=x.dtype)
        weights = torch.linalg.solve(square, y).T @ x
    else:
        square = x.T @ x + strength * torch.eye(x.shape[1], dtype=x.dtype)
        weights = torch.linalg.solve(square, x.T @ y).T
    return weights.float(), (mean_y - weights @ mean_x).float()


def _fit_svm(
    model: Rcnn,
    near: list[Near],
    searched: list[Searched],
    class_: int,
    name: str,
    seed: int,
    say: Say,
) -> None:
    """Objects of all pictures against background of those that are searched."""
    scale = _scale(each.features.top for each in near)
    cache = Cache(torch.cat([each.objects[each.scene.classes == class_] for each in near]) * scale)
    generator = torch.Generator().manual_seed(seed)
    for mining in range(model.config.rounds + 1):
        for number, each in enumerate(searched):
            margins = model.margins(each.top.to(model.filters.device))[:, class_].cpu()
            if mining == 0:
                margins = torch.rand(len(each.boxes), generator=generator)
            for row in negatives(each.scene, class_, each.boxes, margins, _VIOLATED, _NEGATIVES).tolist():
                cache.add((number, row), each.top[row] * scale)
        if not cache.negatives:
            raise DataError(f"{name}: no proposal is without it; give more pictures")
        svm = cache.fit(model.config.cost, _TOLERANCE, seed)
        model.filters[class_] = svm.weights * scale
        model.biases[class_] = svm.bias
        say(
            f"{name}, {f'mining round {mining}' if mining else 'random negatives'}: {len(cache.positives)} "
            f"positives, {len(cache.negatives)} negatives, loss {svm.loss:.4f} (gap {svm.gap:.4f})"
        )


def _scale(features: Iterable[Tensor]) -> float:
    """What brings features (R, D) to the norm that costs are meant for, on average."""
    return FEATURE_NORM / torch.cat([each.norm(dim=1) for each in features]).mean().item()


def _calibrate(model: Rcnn, searched: list[Searched], class_: int, name: str, say: Say) -> None:
    """From proposals alone: the objects' own boxes are not there when it counts."""
    height, width = model.config.input_height, model.config.input_width
    judged = []
    for each in searched:
        margins = model.margins(each.top.to(model.filters.device))[:, class_].cpu()
        boxes = clip(each.better[:, class_], height, width)
        judged.append(judge(each.scene, class_, boxes, margins, model.nms_threshold))
    curve = curve_of(judged)
    model.curves[class_] = torch.tensor([curve.slope, curve.offset])
    say(f"{name}, calibrated: {curve.right} right and {curve.wrong} wrong detections")
