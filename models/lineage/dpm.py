"""Deformable part models (Felzenszwalb, Girshick, McAllester and Ramanan, PAMI 2010).

An object is a coarse root filter and some part filters at twice the resolution, each of which may move
from its anchor at a cost that is quadratic in the displacement; a class is the best of a few such
components. All of them look at HOG. What an object scores at a place is the root's response plus, of
each part, the best of response less cost: a distance transform. Roots are tried at every half of their
cells, which is every cell of the parts: at whole ones, as in the original, the best box overlaps a fifth of
the people in street scenes by less than 0.7, at halves a fortieth.

``classical_scores`` computes that as the paper does; ``decode`` computes it as a network
(:mod:`models.lineage.dpm_cnn`), which is equal as long as no part wants farther than ``reach``.
How it learns is in :mod:`models.lineage.dpm_fitting`.

Shapes: C classes of M components of P parts; G = C * M. Knows nothing of files; suppression of
overlapping boxes is not part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from models.lineage.distance_transform import transform
from models.lineage.dpm_cnn import assemble, maxout, pool_by_distance
from models.lineage.hog import CELL, CHANNELS
from models.lineage.pyramid import BORDER, Pyramid, Windows, levels_of
from models.lineage.sliding import SlidingDetector

ROOTS_STEP = CELL // 2
"""Pixels, in their own level, between neighbouring windows of a root: a cell of the parts' level."""

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
    cost: float = 0.003
    """Of an example that is on the wrong side by one, in the SVM."""
    pictures: int = 300
    """At most so many training pictures are searched for negatives; they are kept in memory."""
    negatives: int = 20
    """At most so many windows a picture and search become negatives."""
    rounds: int = 3
    """Of placing the parts of all objects anew, mining and fitting."""

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
    """What the filters say on one level, before the parts move. The window of row r and column c begins at
    (r, c) of all maps."""

    coarse: Tensor
    """float32 (B, 36, h + 2 rows - 2, w + 2 columns - 2): a root looks at every second of these blocks."""
    roots: Tensor
    """float32 (B, G, h, w): a window each."""
    fine: Tensor
    """float32 (B, 36, h + fine_rows - 1, w + fine_columns - 1): the parts' blocks."""
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
        octave = config.scales_per_octave  # roots see the levels from here on; parts see an octave above
        levels[octave:] = [replace(level, step=ROOTS_STEP) for level in levels[octave:]]
        if not levels[octave:]:
            raise ValueError(
                f"window of {window} does not fit into half of largest_scale {config.largest_scale}"
            )
        span = (config.fine_rows - config.part_side + 1, config.fine_columns - config.part_side + 1)
        if min(span) < 1:
            raise ValueError(f"part_side {config.part_side} is larger than the window at twice its size")
        super().__init__(config, Windows.over(levels[octave:], *window, config.margin))
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
        octave = self.config.scales_per_octave
        return [
            self.on_level(coarse, blocks if level < octave else blocks[:, :, ::2, ::2])
            for level, (blocks, coarse) in enumerate(zip(maps, maps[octave:], strict=False))
        ]

    def on_level(self, coarse: Tensor, blocks: Tensor) -> Responses:
        """What the filters say of one level.

        Args:
            coarse: float32 (B, 36, ...), its blocks, ``ROOTS_STEP`` apart.
            blocks: float32 (B, 36, ...), those of the level an octave above, a cell apart. Both have a border.
        """
        roots = functional.conv2d(coarse, self.roots, dilation=CELL // ROOTS_STEP)
        height, width = roots.shape[2:]
        below = height + self.config.fine_rows - 1 - _MARGIN - blocks.shape[2]
        right = width + self.config.fine_columns - 1 - _MARGIN - blocks.shape[3]
        fine = functional.pad(blocks, (_MARGIN, right, _MARGIN, below))
        return Responses(coarse, roots, fine, functional.conv2d(fine, self.parts))

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
                placed = values[part, y : y + height, x : x + width]
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
