"""Strangers' families, one file each: its surface in its docstring, its ways to be read in ``readings``."""

from export.families import yolox_grid
from export.reading import Family

FAMILIES: tuple[Family, ...] = (yolox_grid,)
