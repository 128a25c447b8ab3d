"""Networks of Darknet, as their authors published them: YOLOv2, YOLOv3, and the tiny ones of both.

A ``.cfg`` file says what the network is (``darknet_cfg``), a ``.weights`` file holds its numbers
(``darknet_weights``). They are read, run and exported here, not trained.

Knows nothing of ONNX; suppression of overlapping boxes is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.detector import Detector
from models.lineage.darknet_cfg import DarknetError, Section, read_sections
from models.lineage.darknet_layers import (
    ACTIVATIONS,
    Convolutional,
    Head,
    MaxPool,
    Reorg,
    Route,
    Shortcut,
    Upsample,
)
from models.lineage.darknet_weights import load_weights


class Shape(NamedTuple):
    """Of one picture's features."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class DarknetConfig:
    """All that is needed to build the network again."""

    names: tuple[str, ...]
    """Of the C classes; numbered where nobody has named them."""
    input_height: int
    input_width: int
    cfg: str
    """The text of the ``.cfg`` file, which holds the input size, too."""


class Darknet(Detector):
    """The whole detector."""

    family = "darknet"
    config: DarknetConfig

    def __init__(self, config: DarknetConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(_Builder(read_sections(config.cfg)).layers)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) to float32 (B, 3, H, W), 0 to 1."""
        return images.permute(0, 3, 1, 2).float() * (1 / 255)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The raw (B, K (5 + C), h, w) that reaches each head, in the order of the heads."""
        x, earlier, found = images, list[Tensor](), list[Tensor]()
        for layer in self.layers:
            x = layer(earlier) if isinstance(layer, Route | Shortcut) else layer(x)
            earlier.append(x)
            if isinstance(layer, Head):
                found.append(x)
        return found

    def decode(self, images: Tensor, proposals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Candidates, K a cell of each head; a score is objectness times class probability."""
        heads = [layer for layer in self.layers if isinstance(layer, Head)]
        size = (images.shape[2], images.shape[3])
        parts = [head.decode(raw, *size) for head, raw in zip(heads, self(images), strict=True)]
        return torch.cat([boxes for boxes, _ in parts], 1), torch.cat([scores for _, scores in parts], 1)


def read_darknet(cfg: Path, weights: Path, names: tuple[str, ...] | None = None) -> Darknet:
    """The detector of a pair of files, in evaluation mode.

    Args:
        names: of its classes; None numbers them.

    Raises:
        DarknetError: a file is missing, is something else, or the two do not fit each other.
    """
    try:
        text = cfg.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise DarknetError(f"{cfg}: cannot be read ({reason}); expected a Darknet .cfg file") from error
    try:
        sections = read_sections(text)
        count = sections[-1].whole("classes") if sections[-1].kind in ("region", "yolo") else 0
        net = sections[0]
        names = names if names is not None else tuple(map(str, range(count)))
        model = Darknet(DarknetConfig(names, net.whole("height"), net.whole("width"), text))
    except DarknetError as error:
        raise DarknetError(f"{cfg}: {error}") from error
    load_weights([layer for layer in model.layers if isinstance(layer, Convolutional)], weights)
    return model.eval()


class _Builder:
    """Layers from sections, with the shapes that go from one to the next."""

    def __init__(self, sections: list[Section]) -> None:
        net = sections[0]
        if net.whole("channels", 3) != 3:
            raise net.fail(f"channels is {net.values['channels']}, expected 3: pictures are RGB")
        self.input = Shape(3, net.whole("height"), net.whole("width"))
        self.shapes: list[Shape] = []
        self.layers: list[nn.Module] = []
        make: dict[str, Callable[[Section, Shape], tuple[nn.Module, Shape]]] = {
            "convolutional": self._convolutional,
            "maxpool": self._maxpool,
            "route": self._route,
            "reorg": self._reorg,
            "upsample": self._upsample,
            "shortcut": self._shortcut,
            "region": self._region,
            "yolo": self._yolo,
            "detection": lambda section, shape: (nn.Identity(), shape),
        }
        for section in sections[1:]:
            layer, shape = make[section.kind](section, self.shapes[-1] if self.shapes else self.input)
            if min(shape) < 1:
                raise section.fail(
                    "leaves nothing of the picture; expected a larger width and height in [net]"
                )
            self.layers.append(layer)
            self.shapes.append(shape)
        self._check_heads(sections[-1])

    def _check_heads(self, last: Section) -> None:
        counts = {layer.classes for layer in self.layers if isinstance(layer, Head)}
        if not counts:
            raise DarknetError("has no [region] and no [yolo]: it is no detector that this reader knows")
        if len(counts) > 1:
            raise last.fail(f"classes differ between heads ({', '.join(map(str, sorted(counts)))})")

    def _convolutional(self, section: Section, shape: Shape) -> tuple[nn.Module, Shape]:
        size, stride = section.whole("size", 1), section.whole("stride", 1)
        filters, groups = section.whole("filters"), section.whole("groups", 1)
        # As Darknet has it: pad=1 is half of the size, whatever padding says.
        padding = size // 2 if section.switch("pad") else section.whole("padding", 0, 0)
        if shape.channels % groups or filters % groups:
            raise section.fail(
                f"groups={groups} do not divide {shape.channels} channels into {filters} filters"
            )
        layer = Convolutional(
            shape.channels,
            filters,
            size,
            stride,
            padding,
            groups,
            section.switch("batch_normalize"),
            _activation(section, "logistic"),
        )
        height, width = ((side + 2 * padding - size) // stride + 1 for side in shape[1:])
        return layer, Shape(filters, height, width)

    def _maxpool(self, section: Section, shape: Shape) -> tuple[nn.Module, Shape]:
        stride = section.whole("stride", 1)
        size = section.whole("size", stride)
        padding = section.whole("padding", size - 1, 0)
        if padding >= 2 * size:
            raise section.fail(f"padding is {padding}, expected less than twice the size {size}")
        height, width = ((side + padding - size) // stride + 1 for side in shape[1:])
        return MaxPool(size, stride, padding), Shape(shape.channels, height, width)

    def _earlier(self, section: Section, key: str) -> list[int]:
        """Layer numbers, of which negative ones count back from here."""
        here = len(self.shapes)
        found = [number + here if number < 0 else number for number in section.wholes(key)]
        if any(not 0 <= number < here for number in found):
            raise section.fail(
                f"{key} is {section.values[key]!r:.80}, expected layers before this one, {here}"
            )
        return found

    def _route(self, section: Section, shape: Shape) -> tuple[nn.Module, Shape]:
        sources = self._earlier(section, "layers")
        shapes = [self.shapes[source] for source in sources]
        if len({each[1:] for each in shapes}) > 1:
            sizes = ", ".join(f"{each.width}x{each.height}" for each in shapes)
            raise section.fail(f"joins layers of different sizes ({sizes})")
        return Route(sources), Shape(sum(each.channels for each in shapes), *shapes[0][1:])

    def _shortcut(self, section: Section, shape: Shape) -> tuple[nn.Module, Shape]:
        (source,) = self._earlier(section, "from")[:1]
        if self.shapes[source] != shape:
            raise section.fail(f"adds layers of different shapes ({self.shapes[source]} and {shape})")
        return Shortcut(source, _activation(section, "linear")), shape

    def _reorg(self, section: Section, shape: Shape) -> tuple[nn.Module, Shape]:
        stride = section.whole("stride", 1)
        if shape.height % stride or shape.width % stride or shape.channels % stride**2:
            raise section.fail(f"stride={stride} does not divide {shape}")
        return Reorg(stride), Shape(shape.channels * stride**2, shape.height // stride, shape.width // stride)

    def _upsample(self, section: Section, shape: Shape) -> tuple[nn.Module, Shape]:
        stride = section.whole("stride", 2)
        return Upsample(stride), Shape(shape.channels, shape.height * stride, shape.width * stride)

    def _region(self, section: Section, shape: Shape) -> tuple[nn.Module, Shape]:
        """Anchors in cells, classes that exclude each other."""
        if section.whole("coords", 4) != 4 or not section.switch("softmax"):
            raise section.fail("expected coords=4 and softmax=1, as YOLOv2 has them")
        anchors = section.pairs("anchors")
        if len(anchors) != section.whole("num", 1):
            raise section.fail(f"num is {section.text('num', '1')}, but there are {len(anchors)} anchors")
        cell_width, cell_height = self.input.width / shape.width, self.input.height / shape.height
        pixels = [(width * cell_width, height * cell_height) for width, height in anchors]
        return self._head(section, shape, pixels, True)

    def _yolo(self, section: Section, shape: Shape) -> tuple[nn.Module, Shape]:
        """Anchors in input pixels, of which each head takes those of its ``mask``."""
        anchors, mask = section.pairs("anchors"), section.wholes("mask")
        if any(not 0 <= index < len(anchors) for index in mask):
            raise section.fail(f"mask is {section.values['mask']!r:.80}, expected 0 to {len(anchors) - 1}")
        return self._head(section, shape, [anchors[index] for index in mask], False)

    def _head(
        self, section: Section, shape: Shape, anchors: list[tuple[float, float]], exclusive: bool
    ) -> tuple[nn.Module, Shape]:
        classes = section.whole("classes")
        wanted = len(anchors) * (5 + classes)
        if shape.channels != wanted:
            raise section.fail(
                f"gets {shape.channels} channels, expected {wanted}: {len(anchors)} anchors with 5 + {classes} each"
            )
        return Head(anchors, classes, exclusive), shape


def _activation(section: Section, default: str) -> nn.Module:
    name = section.text("activation", default)
    if name not in ACTIVATIONS:
        raise section.fail(f"activation {name} is not known; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
