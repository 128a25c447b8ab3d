"""How a deformable part model learns: a latent SVM (Felzenszwalb et al., PAMI 2010, section 4).

Where the parts of an object are is not annotated; which component it is, its shape says. Roots are fitted first,
each to the objects of one shape; parts begin where the roots have the most weight. Then, in turns, every
object is given the best placement that its box allows, windows without objects that score high are
mined with theirs, and an SVM over all filters and costs is fitted to those. Moving a part far has to cost
something, which bounds some of the SVM's weights. Figures are the paper's where nothing else is said.

Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.coco import Example
from models.errors import DataError
from models.lineage.dpm import Dpm, Responses
from models.lineage.dpm_objects import MIDDLE, Objects, objects_of
from models.lineage.mining import Cache, Scene, chosen, negatives
from models.lineage.sliding import CALIBRATED
from models.lineage.svm import Svm

_DISPLACEMENT = 0.1
"""Features of a displacement are this part of it: no larger than others, or the SVM would take for ever."""
_LEAST_COST = 0.1
"""Of a squared displacement: what it begins with in the paper, whose bound is a tenth of it. With that,
and no more objects than here, every cost ends there, and parts that go anywhere find people anywhere."""
_VIOLATED = -1.0
_MININGS = 2
"""Searches for negatives, each with an SVM after it, while positives stay."""
_TOLERANCE = 0.01
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is kept while the model changes, as its blocks do not."""

    scene: Scene
    maps: list[Tensor]
    """float16 (1, 36, ...) of every level of the pyramid."""

    @classmethod
    def of(cls, model: Dpm, example: Example) -> Picture:
        """A training picture, read from its file.

        Raises:
            DataError: it cannot be read.
        """
        scene = model.scene(example)
        return cls(scene, [blocks.half() for blocks in model.pyramid(model.picture(scene))])


@dataclass(frozen=True, slots=True)
class View:
    """All that the model computes of one picture."""

    scene: Scene
    responses: list[Responses]
    scores: list[Tensor]
    """float32 (G, h, w) of every level."""

    @classmethod
    def of(cls, model: Dpm, picture: Picture) -> View:
        """With the filters that the model has now."""
        responses = model.responses([blocks.float() for blocks in picture.maps])
        return cls(picture.scene, responses, [model.scores(each)[0] for each in responses])

    def of_component(self, group: int) -> Tensor:
        """Its score in every window: float32 (N,)."""
        return torch.cat([scores[group].flatten() for scores in self.scores]).cpu()


@dataclass(frozen=True, slots=True)
class Placement:
    """What one component sees in a window, its parts where they score best."""

    features: Tensor
    """float32 (D,): for each component the root's blocks, each part's, each part's displacement, and a 1;
    all are 0 but those of the one that looks."""
    name: tuple[int, ...]
    """The component, and how far its parts moved."""


@torch.no_grad()
def fit_dpm(model: Dpm, examples: list[Example], seed: int, say: Callable[[str], None]) -> None:
    """See :class:`models.detector.Fit`."""
    config = model.config
    objects = objects_of(model, examples)
    chosen_ones = chosen(examples, config.pictures, seed)
    pictures = [Picture.of(model, example) for example in chosen_ones]
    fit_roots(model, objects, pictures, seed, say)
    for group in range(config.groups):
        place_parts(model, group)
    caches = [Cache(torch.zeros(0)) for _ in config.names]
    for turn in range(config.rounds):
        for class_, cache in enumerate(caches):
            cache.positives = placed_objects(model, objects[class_], class_)
        for mining in range(_MININGS):
            for number, picture in enumerate(pictures):
                view = View.of(model, picture)
                for class_, cache in enumerate(caches):
                    # What the first parts mistake is not all that there is.
                    at_random = seed + number if turn == mining == 0 else None
                    for row, group in mined(model, view, class_, at_random):
                        level, top, left = model.windows.place(row)
                        seen = placement(model, view.responses[level], 0, top, left, group)
                        # A window is another example whenever parts go elsewhere in it.
                        cache.add((number, row, *seen.name), seen.features)
            for class_, cache in enumerate(caches):
                svm = _fitted(model, cache, class_, seed, least_weights(model))
                take(model, class_, svm)
                said = f"{len(cache.positives)} positives, {len(cache.negatives)} negatives"
                name = f"{config.names[class_]}, placing {turn + 1}, mining {mining + 1}"
                say(f"{name}: {said}, loss {svm.loss:.3f} (gap {svm.gap:.3f})")
    model.calibrate([model.scene(example) for example in chosen_ones[:CALIBRATED]], say)


def fit_roots(
    model: Dpm, objects: list[Objects], pictures: list[Picture], seed: int, say: Callable[[str], None]
) -> None:
    """Fit each component's root to the objects of its shape, first against random windows."""
    config = model.config
    model.parts.zero_()
    caches = []
    for its in objects:
        features = _root_blocks(model, its.coarse, MIDDLE, MIDDLE)
        caches += [Cache(features[its.components == component]) for component in range(config.components)]
    boxes, generator = model.boxes().cpu(), torch.Generator().manual_seed(seed)
    for mining in range(1 + _MININGS):
        for number, picture in enumerate(pictures):
            view = View.of(model, picture)
            for group, cache in enumerate(caches):
                scores = view.of_component(group) if mining else torch.rand(len(boxes), generator=generator)
                class_ = group // config.components
                rows = negatives(view.scene, class_, boxes, scores, _VIOLATED, config.negatives)
                for row in rows.tolist():
                    level, top, left = model.windows.place(row)
                    blocks = _root_blocks(model, view.responses[level].coarse, top, left)
                    cache.add((number, row), blocks[0].cpu())
        for group, cache in enumerate(caches):
            svm = _fitted(model, cache, group // config.components, seed)
            model.roots[group], model.biases[group] = svm.weights.view(model.roots.shape[1:]), svm.bias
            name = f"{config.names[group // config.components]}, root {group % config.components + 1}"
            said = f"{len(cache.positives)} positives, {len(cache.negatives)} negatives"
            say(f"{name}, mining {mining}: {said}, loss {svm.loss:.3f} (gap {svm.gap:.3f})")


def _fitted(model: Dpm, cache: Cache, class_: int, seed: int, least: Tensor | None = None) -> Svm:
    if not cache.negatives:
        raise DataError(
            f"{model.config.names[class_]}: no picture has a window without it; give more pictures"
        )
    return cache.fit(model.config.cost, _TOLERANCE, seed, least)


def place_parts(model: Dpm, group: int) -> None:
    """Put a component's parts where its root, enlarged, has the most weight in favour (section 5.2)."""
    config, side = model.config, model.config.part_side
    size = (2 * config.rows - 1, 2 * config.columns - 1)
    inner = functional.interpolate(model.roots[group][None], size, mode="bilinear", align_corners=True)
    enlarged = functional.pad(inner, (1, 1, 1, 1), mode="replicate")[0]  # (36, fine_rows, fine_columns)
    energy = enlarged.clamp(min=0).square().sum(0)
    model.geometry[group] = 0
    for part in range(config.parts):
        sums = functional.avg_pool2d(energy[None], side, stride=1)[0]
        y, x = divmod(int(sums.argmax()), sums.shape[1])
        energy[y : y + side, x : x + side] = 0
        model.geometry[group, part, y, x] = 1
        # There are four of its blocks for each of the root's.
        model.parts[group * config.parts + part] = enlarged[:, y : y + side, x : x + side] / 4


def placed_objects(model: Dpm, objects: Objects, class_: int) -> Tensor:
    """Each object as the component of its shape sees it where it scores best: float32 (P, D).

    The paper lets every object choose its component in later rounds; with as few objects as here one
    component would soon have them all.
    """
    placed = []
    groups = class_ * model.config.components + objects.components
    for rows in torch.split(torch.arange(len(groups)), _BATCH):
        device = model.axes.device
        seen = model.on_level(objects.coarse[rows].to(device), objects.blocks[rows].to(device))
        scores = model.scores(seen).cpu()[torch.arange(len(rows)), groups[rows]]  # (B, h, w)
        scores[~objects.near[rows]] = -torch.inf
        best = scores.flatten(1).argmax(1).tolist()
        for number, (place, group) in enumerate(zip(best, groups[rows].tolist(), strict=True)):
            top, left = divmod(place, scores.shape[2])
            placed.append(placement(model, seen, number, top, left, group).features)
    return torch.stack(placed)


def mined(model: Dpm, view: View, class_: int, seed: int | None = None) -> list[tuple[int, int]]:
    """Windows that are nearest to being mistaken for objects: each one's row, and the component that does.

    With a seed, some at random as well, and both for every component.
    """
    components, most, boxes = model.config.components, model.config.negatives, model.boxes().cpu()
    groups = range(class_ * components, (class_ + 1) * components)
    scores = torch.stack([view.of_component(group) for group in groups])  # (M, N)
    if seed is None:
        best, component = scores.max(0)
        rows = negatives(view.scene, class_, boxes, best, _VIOLATED, most)
        return [(row, groups[int(component[row])]) for row in rows.tolist()]
    chance = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed))
    most = max(1, most // components)
    return [
        (row, group)
        for group, *both in zip(groups, scores, chance, strict=True)
        for each in both
        for row in negatives(view.scene, class_, boxes, each, _VIOLATED, most).tolist()
    ]


def placement(model: Dpm, seen: Responses, picture: int, top: int, left: int, group: int) -> Placement:
    """What a component sees in the window at a row and column of a level of a picture."""
    config, anchors = model.config, model.anchors().tolist()
    blocks, moves = [_root_blocks(model, seen.coarse[picture, None], top, left)[0]], list[int]()
    for part in range(group * config.parts, (group + 1) * config.parts):
        y, x = top + anchors[part][0], left + anchors[part][1]
        dy, dx = _displacement(model, seen.parts[picture, part], part, y, x)
        its = seen.fine[picture, :, y + dy :, x + dx :][:, : config.part_side, : config.part_side]
        blocks.append(its.flatten())
        moves += [dx, dy]
    costs = [[dx, dy, dx * dx, dy * dy] for dx, dy in zip(moves[::2], moves[1::2], strict=True)]
    cost = -_DISPLACEMENT * torch.tensor(costs).flatten().float()
    features = torch.cat([torch.cat(blocks).cpu(), cost, torch.ones(1)])
    component = group % config.components
    every = torch.zeros(config.components, len(features))
    every[component] = features
    return Placement(every.flatten(), (component, *moves))


def _displacement(model: Dpm, responses: Tensor, part: int, y: int, x: int) -> tuple[int, int]:
    """Where a part (its responses (h, w)) moves from (y, x): rows and columns."""
    reach, cost = model.config.reach, model.costs[part]
    ys = torch.arange(max(0, y - reach), min(responses.shape[0], y + reach + 1), device=cost.device)
    xs = torch.arange(max(0, x - reach), min(responses.shape[1], x + reach + 1), device=cost.device)
    dy, dx = (ys - y)[:, None], (xs - x)[None]
    score = responses[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] - (
        cost[0] * dx + cost[1] * dy + cost[2] * dx * dx + cost[3] * dy * dy
    )
    row, column = divmod(int(score.argmax()), len(xs))
    return int(ys[row]) - y, int(xs[column]) - x


def least_weights(model: Dpm) -> Tensor:
    """What the weights of :func:`placement`'s features are at least: float32 (D,)."""
    squares = [-torch.inf, -torch.inf, _LEAST_COST / _DISPLACEMENT, _LEAST_COST / _DISPLACEMENT]
    root, parts, moves, bias = _sizes(model)
    free = torch.full((root + parts,), -torch.inf)
    its = torch.cat([free, torch.tensor(squares).repeat(moves // 4), free[:bias]])
    return its.repeat(model.config.components)


def _sizes(model: Dpm) -> list[int]:
    """How many of a component's features are the root's, the parts', the displacements', and the 1."""
    config = model.config
    return [model.roots[0].numel(), config.parts * model.parts[0].numel(), 4 * config.parts, 1]


def take(model: Dpm, class_: int, svm: Svm) -> None:
    """Set a class's filters, costs and biases from the weights of :func:`placement`'s features."""
    config, sizes = model.config, _sizes(model)
    for component, weights in enumerate(svm.weights.view(config.components, -1)):
        group = class_ * config.components + component
        root, parts, moves, bias = weights.to(model.roots.device).split(sizes)
        its_parts = slice(group * config.parts, (group + 1) * config.parts)
        model.roots[group] = root.view(model.roots.shape[1:])
        model.parts[its_parts] = parts.view(config.parts, *model.parts.shape[1:])
        model.costs[its_parts] = _DISPLACEMENT * moves.view(config.parts, 4)
        model.biases[group] = bias[0] + svm.bias


def _root_blocks(model: Dpm, coarse: Tensor, top: int, left: int) -> Tensor:
    """What a root sees in a window of a level float32 (B, 36, ...): float32 (B, D)."""
    blocks = coarse[:, :, top::2, left::2]
    return blocks[:, :, : model.config.rows, : model.config.columns].flatten(1)
