"""VOC's XML as its annotation tools write it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

Object = tuple[str, tuple[int, int, int, int], int]
"""Name, xmin, ymin, xmax, ymax (from 1, inclusive), difficult."""


def write_voc(path: Path, filename: str, width: int, height: int, objects: Iterable[Object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        f"""<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>{difficult}</difficult>
        <bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
        <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
        """
        for name, box, difficult in objects
    ]
    path.write_text(
        f"<annotation><folder>VOC2007</folder><filename>{filename}</filename>\n"
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n{''.join(parts)}</annotation>"
    )
    return path
