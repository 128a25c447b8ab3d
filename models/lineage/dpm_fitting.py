"""How a deformable part model learns: a latent SVM (Felzenszwalb et al., PAMI 2010, section 4).

Where the parts of an object are is not annotated; which component it is, its shape says. Roots are fitted first,
each to the objects of one shape; parts begin where the roots have the most weight. Then, in turns, every
object is given the best placement that its box allows, windows without objects that score high are
mined with theirs, and an SVM over all filters and costs is fitted to those. The figures are the paper's.

Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.boxes import pairwise_iou
from models.coco import Example
from models.errors import DataError
from models.lineage.cutting import CONTEXT, Cutouts, cut_objects
from models.lineage.hog import CELL
from models.lineage.mining import Cache, Scene, chosen, negatives
from models.lineage.sliding import CALIBRATED
from models.lineage.svm import Svm

if TYPE_CHECKING:
    from models.lineage.dpm import Dpm, Responses

_PLACED = 0.5
"""A positive's window overlaps its object by so much."""
_DISPLACEMENT = 0.1
"""Features of a displacement are this part of it: no larger than others, or the SVM would take for ever."""
_LEAST_COST = 0.01
"""Of a squared displacement, so that a part's best place is where it can be found."""
_VIOLATED = -1.0
_TOLERANCE = 0.01
_SMALLEST = 2 / 3
"""Objects below this part of the smallest that is found are too blurred to learn from."""
_BATCH = 64


@dataclass(frozen=True, slots=True)
class View:
    """All that the model computes of one picture."""

    scene: Scene
    maps: list[Tensor]
    responses: list[Responses]
    scores: list[Tensor]
    """float32 (G, h, w) of every level."""

    @classmethod
    def of(cls, model: Dpm, scene: Scene) -> View:
        maps: list[Tensor] = model.pyramid(model.picture(scene))
        responses = model.responses(maps)
        return cls(scene, maps, responses, [model.scores(each)[0] for each in responses])

    def of_component(self, group: int) -> Tensor:
        """Its score in every window: float32 (N,)."""
        return torch.cat([scores[group].flatten() for scores in self.scores]).cpu()

    def of_class(self, class_: int, components: int) -> Tensor:
        """The best component's score in every window: float32 (N,)."""
        its = slice(class_ * components, (class_ + 1) * components)
        return torch.cat([scores[its].amax(0).flatten() for scores in self.scores]).cpu()


def fit_dpm(model: Dpm, examples: list[Example], seed: int, say: Callable[[str], None]) -> None:
    """See :meth:`models.detector.Fitted.fit`."""
    config = model.config
    pictures = chosen(examples, config.pictures, seed)
    limits = fit_roots(model, examples, pictures, seed, say)
    for group in range(config.groups):
        place_parts(model, group)
    caches = [Cache(torch.zeros(0)) for _ in config.names]
    for turn in range(1, config.rounds + 1):
        positives: list[list[Tensor]] = [[] for _ in config.names]
        flips = np.random.default_rng((seed, turn)).random(len(pictures)) < 0.5
        for number, (example, flip) in enumerate(zip(pictures, flips.tolist(), strict=True)):
            scene = model.scene(example)
            view = View.of(model, scene.mirrored() if flip else scene)
            for class_, cache in enumerate(caches):
                positives[class_] += placed_objects(model, view, class_, limits[class_])
                if turn == 1:  # what the first parts mistake is not all that there is
                    rows = first_background(model, view, class_, seed + number)
                else:
                    rows = [(row, None) for row in mined(model, view, class_)]
                for row, component in rows:
                    # A window is another example for each component that is made to look at it.
                    key = row * (config.components + 1) + (0 if component is None else component + 1)
                    cache.add(2 * number + flip, key, placement(model, view, class_, row, component))
        for class_, (name, cache) in enumerate(zip(config.names, caches, strict=True)):
            if not positives[class_] or not cache.negatives:
                raise DataError(
                    f"{name}: too few objects, or windows without them, in {len(pictures)} pictures"
                )
            cache.positives = torch.stack(positives[class_])
            svm = cache.fit(config.cost, _TOLERANCE, seed)
            take(model, class_, svm)
            said = f"{len(cache.positives)} positives, {len(cache.negatives)} negatives"
            say(f"{name}, placing round {turn}: {said}, loss {svm.loss:.3f} (gap {svm.gap:.3f})")
    model.calibrate([model.scene(example) for example in pictures[:CALIBRATED]], say)


def fit_roots(
    model: Dpm, examples: list[Example], pictures: list[Example], seed: int, say: Callable[[str], None]
) -> list[Tensor]:
    """Fit each component's root to the objects of its shape, against random windows; sets ``aspect``.

    Returns:
        the shapes (width by height) at which the next component begins, float32 (M - 1,) of each class.
    """
    config = model.config
    cutouts = cut_objects(
        map(model.scene, chosen(examples, len(examples), 0)),
        config.names,
        config.window_height,
        config.window_width,
        config.margin,
        _SMALLEST * model.axes[:, 3].min().item(),
    )
    model.aspect.copy_(torch.cat([each.aspects for each in cutouts]).log().mean().exp())
    caches = [Cache(part) for each in cutouts for part in _by_shape(model, each)]  # G
    boxes, generator = model.boxes().cpu(), torch.Generator().manual_seed(seed)
    for number, example in enumerate(pictures):
        scene = model.scene(example)
        maps: list[Tensor] = model.pyramid(model.picture(scene))
        for group, cache in enumerate(caches):
            chance = torch.rand(len(boxes), generator=generator)
            for row in negatives(
                scene, group // config.components, boxes, chance, 0, config.negatives
            ).tolist():
                cache.add(number, row, _root_blocks(model, maps, row).flatten().cpu())
    for group, cache in enumerate(caches):
        name = config.names[group // config.components]
        if not cache.negatives:
            raise DataError(f"{name}: no picture has a window without it; give more pictures")
        svm = cache.fit(config.cost, _TOLERANCE, seed)
        model.roots[group], model.biases[group] = svm.weights.view(model.roots.shape[1:]), svm.bias
        say(
            f"{name}, root {group % config.components + 1}: {len(cache.positives)} positives, "
            f"{len(cache.negatives)} negatives, loss {svm.loss:.3f} (gap {svm.gap:.3f})"
        )
    return [
        torch.stack([part[0] for part in each.aspects.sort().values.tensor_split(config.components)][1:])
        if config.components > 1
        else each.aspects[:0]
        for each in cutouts
    ]


def _by_shape(model: Dpm, cutouts: Cutouts) -> list[Tensor]:
    """The features of objects and their mirror images, narrow to wide, a part for each component."""
    order = cutouts.aspects.argsort()
    parts = []
    for rows in order.tensor_split(model.config.components):
        if not len(rows):
            raise DataError(f"{len(order)} objects are too few for {model.config.components} components")
        windows = cutouts.windows[rows]
        blocks = []
        for some in torch.split(torch.cat([windows, windows.flip(2)]), _BATCH):
            skipped = CONTEXT // CELL
            seen = model.pyramid.hog(model.normalise(some.to(model.axes.device)))[:, :, skipped:, skipped:]
            blocks.append(seen[:, :, : model.config.rows, : model.config.columns].flatten(1).cpu())
        parts.append(torch.cat(blocks))
    return parts


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


def placed_objects(model: Dpm, view: View, class_: int, limits: Tensor) -> list[Tensor]:
    """Each object as the component of its shape sees it where it scores best, float32 (D,) each.

    The paper lets every object choose its component in later rounds; with as few objects as here one
    component would soon have them all.
    """
    placed = []
    for box in view.scene.of_class(class_):
        component = int(((box[2] - box[0]) / (box[3] - box[1]) >= limits).sum())
        row = best_on(model, box, view.of_component(class_ * model.config.components + component))
        if row is not None:
            placed.append(placement(model, view, class_, row, component))
    return placed


def best_on(model: Dpm, box: Tensor, scores: Tensor) -> int | None:
    """The row of the best window among those that overlap an object (4,), if there is any."""
    on = torch.where(pairwise_iou(model.boxes().cpu(), box[None])[:, 0] >= _PLACED, scores, -torch.inf)
    row = int(on.argmax())
    return row if on[row].isfinite() else None


def mined(model: Dpm, view: View, class_: int) -> list[int]:
    """The rows of the windows that are nearest to being mistaken for objects."""
    scores, most = view.of_class(class_, model.config.components), model.config.negatives
    return negatives(view.scene, class_, model.boxes().cpu(), scores, _VIOLATED, most).tolist()


def first_background(model: Dpm, view: View, class_: int, seed: int) -> list[tuple[int, int | None]]:
    """Windows without objects, each with a component: what its parts mistake, and some at random."""
    boxes, config, rows = model.boxes().cpu(), model.config, list[tuple[int, int | None]]()
    most = max(1, config.negatives // config.components)
    for component in range(config.components):
        scores = view.of_component(class_ * config.components + component)
        chance = torch.rand(len(boxes), generator=torch.Generator().manual_seed(seed + component))
        for each, above in ((scores, _VIOLATED), (chance, 0.0)):
            found = negatives(view.scene, class_, boxes, each, above, most)
            rows += [(row, component) for row in found.tolist()]
    return rows


def placement(model: Dpm, view: View, class_: int, row: int, component: int | None = None) -> Tensor:
    """What a window's component, by default its best, sees, its parts where they score best: float32 (D,).

    For each component: the root's blocks, each part's, each part's displacement, and a 1; all are 0 but
    those of the one that looks.
    """
    config = model.config
    level, top, left = model.windows.place(row)
    first = class_ * config.components
    if component is None:
        component = int(view.scores[level][first : first + config.components, top, left].argmax())
    group = first + component
    pieces, moves = [_root_blocks(model, view.maps, row).flatten()], []
    for part in range(group * config.parts, (group + 1) * config.parts):
        y, x = (2 * torch.tensor([top, left]) + model.anchors()[part].cpu()).tolist()
        dy, dx = _displacement(model, view.responses[level].parts[0, part], part, y, x)
        blocks = view.responses[level].fine[0, :, y + dy :, x + dx :]
        pieces.append(blocks[:, : config.part_side, : config.part_side].flatten())
        moves += [dx, dy, dx * dx, dy * dy]
    pieces.append(-_DISPLACEMENT * torch.tensor(moves, device=pieces[0].device).float())
    pieces.append(pieces[0].new_ones(1))
    seen = torch.cat(pieces).cpu()
    features = torch.zeros(config.components, len(seen))
    features[component] = seen
    return features.flatten()


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


def take(model: Dpm, class_: int, svm: Svm) -> None:
    """Set a class's filters, costs and biases from the weights of :func:`placement`'s features."""
    config = model.config
    sizes = [model.roots[0].numel(), config.parts * model.parts[0].numel(), 4 * config.parts, 1]
    for component, weights in enumerate(svm.weights.view(config.components, -1)):
        group = class_ * config.components + component
        root, parts, moves, bias = weights.to(model.roots.device).split(sizes)
        its_parts = slice(group * config.parts, (group + 1) * config.parts)
        model.roots[group] = root.view(model.roots.shape[1:])
        model.parts[its_parts] = parts.view(config.parts, *model.parts.shape[1:])
        costs = _DISPLACEMENT * moves.view(config.parts, 4)
        costs[:, 2:] = costs[:, 2:].clamp(min=_LEAST_COST)
        model.costs[its_parts] = costs
        model.biases[group] = bias[0] + svm.bias


def _root_blocks(model: Dpm, maps: list[Tensor], row: int) -> Tensor:
    level, top, left = model.windows.place(row)
    blocks = maps[level + model.config.scales_per_octave][0, :, top:, left:]
    return blocks[:, : model.config.rows, : model.config.columns]
