"""Deformable part models (Felzenszwalb, Girshick, McAllester and Ramanan, PAMI 2010).

An object is a coarse root filter and some part filters at twice the resolution, each of which may move
from its anchor at a cost that is quadratic in the displacement; a class is the best of a few such
components. All of them look at HOG. What an object scores at a place is the root's response plus, of
each part, the best of response less cost: a distance transform.

``classical_scores`` computes that as the paper does; ``decode`` computes it as a network
(:mod:`models.lineage.dpm_cnn`), which is equal as long as no part wants farther than ``reach``.
How it learns is in :mod:`models.lineage.dpm_fitting`.

Shapes: C classes of M components of P parts; G = C * M. Knows nothing of files; suppression of
overlapping boxes is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.coco import Example
from models.lineage.distance_transform import transform
from models.lineage.dpm_cnn import assemble, maxout, pool_by_distance
from models.lineage.dpm_fitting import fit_dpm
from models.lineage.hog import CELL, CHANNELS
from models.lineage.pyramid import BORDER, Pyramid, Windows, levels_of
from models.lineage.sliding import SlidingDetector

_MARGIN = BORDER // CELL
"""By so many blocks a map begins later, in the parts' blocks, than a root's window does."""


@dataclass(frozen=True, slots=True)
class DpmConfig:
    """All that is needed to build the detector again, and how it is fitted."""

    names: tuple[str, ...]
    input_height: int = 320
    input_width: int = 416
    window_height: int = 64
    """The root's window, in pixels of its level; the parts see it twice as large."""
    window_width: int = 32
    margin: int = 8
    """Pixels in the root's window above and below its object."""
    components: int = 2
    """By the objects' shape, narrow to wide."""
    parts: int = 6
    part_side: int = 4
    """Blocks of a part, which is square."""
    reach: int = 4
    """Blocks that a part may move on either side: Girshick's pooling window."""
    largest_scale: float = 2.0
    """The picture is enlarged by this for the parts; the roots see half of it."""
    scales_per_octave: int = 4
    cost: float = 0.01
    """Of an example that is on the wrong side by one, in the SVM."""
    pictures: int = 200
    """At most so many training pictures are looked at in each round."""
    negatives: int = 10
    """At most so many windows a picture and round become negatives."""
    rounds: int = 4
    """Of placing the parts anew, mining and fitting."""

    @property
    def groups(self) -> int:
        """All components of all classes."""
        return len(self.names) * self.components

    @property
    def rows(self) -> int:
        """Of blocks in the root."""
        return self.window_height // CELL - 1

    @property
    def columns(self) -> int:
        return self.window_width // CELL - 1

    @property
    def fine_rows(self) -> int:
        """Of blocks in the same window at twice the resolution."""
        return 2 * self.rows + 1

    @property
    def fine_columns(self) -> int:
        return 2 * self.columns + 1


@dataclass(frozen=True, slots=True)
class Responses:
    """What the filters say on one level, before the parts move."""

    roots: Tensor
    """float32 (B, G, h, w): a window each."""
    fine: Tensor
    """float32 (B, 36, 2h + fine_rows - 2, 2w + fine_columns - 2): the parts' blocks; the window of row r and
    column c begins at (2r, 2c)."""
    parts: Tensor
    """float32 (B, G * P, ...): the parts' responses on ``fine``."""


class Dpm(SlidingDetector):
    """The whole detector."""

    family = "dpm"
    roots: Tensor
    parts: Tensor
    costs: Tensor
    geometry: Tensor
    biases: Tensor
    config: DpmConfig

    def __init__(self, config: DpmConfig) -> None:
        window = (config.window_height, config.window_width)
        size = (config.input_height, config.input_width)
        levels = levels_of(*size, config.largest_scale, config.scales_per_octave, *window)
        seen = levels[config.scales_per_octave :]  # by the roots; the parts see an octave above
        if not seen:
            raise ValueError(
                f"window of {window} does not fit into half of largest_scale {config.largest_scale}"
            )
        span = (config.fine_rows - config.part_side + 1, config.fine_columns - config.part_side + 1)
        if min(span) < 1:
            raise ValueError(f"part_side {config.part_side} is larger than the window at twice its size")
        super().__init__(config, Windows.over(seen, *window, config.margin))
        self.pyramid = Pyramid(levels, *size)
        groups, parts = config.groups, config.parts
        self.register_buffer("roots", torch.zeros(groups, CHANNELS, config.rows, config.columns))
        side = (config.part_side, config.part_side)
        self.register_buffer("parts", torch.zeros(groups * parts, CHANNELS, *side))
        self.register_buffer("costs", torch.tensor([[0.0, 0.0, 0.1, 0.1]]).repeat(groups * parts, 1))
        geometry = torch.zeros(groups, parts, *span)
        geometry[:, :, 0, 0] = 1
        self.register_buffer("geometry", geometry)
        self.register_buffer("biases", torch.zeros(groups))

    def window_scores(self, images: Tensor) -> Tensor:
        return self.margins(self.responses(self.pyramid(images)))

    def responses(self, maps: list[Tensor]) -> list[Responses]:
        """What the filters say of the maps of a pyramid, on every level of the roots."""
        config, found = self.config, []
        for level, (height, width) in enumerate(self.windows.places):
            coarse, blocks = maps[level + config.scales_per_octave], maps[level]
            below = 2 * height + config.fine_rows - 2 - _MARGIN - blocks.shape[2]
            right = 2 * width + config.fine_columns - 2 - _MARGIN - blocks.shape[3]
            fine = functional.pad(blocks, (_MARGIN, right, _MARGIN, below))
            roots, parts = functional.conv2d(coarse, self.roots), functional.conv2d(fine, self.parts)
            found.append(Responses(roots, fine, parts))
        return found

    def scores(self, responses: Responses) -> Tensor:
        """The score of every component in every window of a level, as a network: float32 (B, G, h, w)."""
        pooled = pool_by_distance(responses.parts, self.costs, self.config.reach)
        return assemble(responses.roots, pooled, self.geometry, self.biases)

    def classical_scores(self, responses: Responses) -> Tensor:
        """As :meth:`scores`, by the paper's distance transform, which lets parts move any distance."""
        costs, anchors = self.costs.double().cpu().numpy(), self.anchors()
        height, width = responses.roots.shape[2:]
        scores = responses.roots.double() + self.biases[:, None, None]
        for picture, parts in enumerate(responses.parts.double().cpu().numpy()):
            values = torch.from_numpy(transform(parts, costs)[0]).to(scores.device)
            for part, (y, x) in enumerate(anchors.tolist()):
                placed = values[part, y : y + 2 * height : 2, x : x + 2 * width : 2]
                scores[picture, part // self.config.parts] += placed
        return scores.float()

    def anchors(self) -> Tensor:
        """Row and column of every part's place in the window, int64 (G * P, 2)."""
        places = self.geometry.flatten(0, 1).flatten(1).argmax(1)
        return torch.stack([places // self.geometry.shape[3], places % self.geometry.shape[3]], 1)

    def margins(self, responses: list[Responses]) -> Tensor:
        """The score of every window for every class, its best component's: float32 (B, N, C)."""
        best = [maxout(self.scores(each), self.config.components).flatten(2) for each in responses]
        return torch.cat(best, 2).transpose(1, 2)

    @torch.no_grad()
    def fit(self, examples: list[Example], seed: int, say: Callable[[str], None]) -> None:
        fit_dpm(self, examples, seed, say)
