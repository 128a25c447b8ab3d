"""Every architecture by the name of its family: how a checkpoint or a recipe becomes a network.

Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.detector import Config, Detector
from models.lineage.dpm import Dpm, DpmConfig
from models.lineage.hog_detector import HogConfig, HogDetector
from models.yolox import Yolox, YoloxConfig


@dataclass(frozen=True, slots=True)
class Family:
    """A configuration's type, and the network that is built from it."""

    config: type[Any]
    detector: type[Any]

    def build(self, values: dict[str, Any]) -> Detector:
        """The network of a configuration that was written as a dict.

        Raises:
            TypeError, ValueError: not this family's configuration.
        """
        config: Config = self.config(**{**values, "names": tuple(values["names"])})
        detector: Detector = self.detector(config)
        return detector


FAMILIES: dict[str, Family] = {
    Yolox.family: Family(YoloxConfig, Yolox),
    Dpm.family: Family(DpmConfig, Dpm),
    HogDetector.family: Family(HogConfig, HogDetector),
}
