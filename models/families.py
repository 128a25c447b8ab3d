"""Every architecture by the name of its family: how a checkpoint or a recipe becomes a network.

Knows nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from models.detector import Config, Detector, Fit
from models.lineage.dpm import Dpm, DpmConfig
from models.lineage.dpm_fitting import fit_dpm
from models.lineage.fast_rcnn import FastRcnn, FastRcnnConfig
from models.lineage.faster_rcnn import FasterRcnn, FasterRcnnConfig
from models.lineage.faster_rcnn_fpn import FasterRcnnFpn, FasterRcnnFpnConfig
from models.lineage.hog_detector import HogConfig, HogDetector
from models.lineage.localization import Localization, LocalizationConfig
from models.lineage.overfeat import Overfeat, OverfeatConfig
from models.lineage.pose import Pose, PoseConfig
from models.lineage.rcnn import Rcnn, RcnnConfig
from models.lineage.rcnn_fitting import fit_rcnn
from models.lineage.yolo_v1 import YoloV1, YoloV1Config
from models.megvii_yolox import MegviiYolox, MegviiYoloxConfig
from models.yolox import Yolox, YoloxConfig


@dataclass(frozen=True, slots=True)
class Family:
    """A configuration's type, and the network that is built from it."""

    config: type[Any]
    detector: type[Any]
    fit: Fit | None = None
    """How it learns, where that is not batch by batch."""

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
    MegviiYolox.family: Family(MegviiYoloxConfig, MegviiYolox),
    YoloV1.family: Family(YoloV1Config, YoloV1),
    FasterRcnn.family: Family(FasterRcnnConfig, FasterRcnn),
    FasterRcnnFpn.family: Family(FasterRcnnFpnConfig, FasterRcnnFpn),
    Dpm.family: Family(DpmConfig, Dpm, fit_dpm),
    Rcnn.family: Family(RcnnConfig, Rcnn, fit_rcnn),
    HogDetector.family: Family(HogConfig, HogDetector, HogDetector.fit),
    FastRcnn.family: Family(FastRcnnConfig, FastRcnn),
    Localization.family: Family(LocalizationConfig, Localization),
    Pose.family: Family(PoseConfig, Pose),
    Overfeat.family: Family(OverfeatConfig, Overfeat),
}
