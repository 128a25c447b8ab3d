"""Strangers' families, one file each: its surface in its docstring, its ways to be read in ``readings``."""

from export.families import (
    darknet,
    detr,
    detr_sized,
    face,
    gfl,
    numbered_rows,
    paddle,
    single_map,
    ssd_decoded,
    ssd_raw,
    tensorflow_od,
    top_rows,
    torchvision_lists,
    yolo_columns,
    yolo_rows,
    yolov4,
    yolox_grid,
)
from export.reading import Family

FAMILIES: tuple[Family, ...] = (
    yolox_grid,
    gfl,
    single_map,
    ssd_decoded,
    ssd_raw,
    face,
    yolo_columns,
    yolo_rows,
    detr,
    detr_sized,
    torchvision_lists,
    tensorflow_od,
    top_rows,
    darknet,
    yolov4,
    numbered_rows,
    paddle,
)
