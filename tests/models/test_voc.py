from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.annotations import load_annotations, read_annotations
from models.coco import load_coco
from models.errors import DataError
from tests.models.conftest import SHAPES
from tests.models.voc_files import write_voc

NOWHERE = Path("pictures are not looked at")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC's own layout: two pictures, a list of one; returns the folder of the XML files."""
    for name in ("000005", "000007"):
        path = tmp_path / "JPEGImages" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.zeros((80, 100, 3), np.uint8))
    folder = tmp_path / "Annotations"
    objects = [("person", (1, 1, 1, 1), 0), ("car", (11, 21, 60, 80), 0), ("person", (2, 3, 100, 80), 1)]
    write_voc(folder / "000005.xml", "000005.jpg", 100, 80, objects)
    write_voc(folder / "000007.xml", "000007.jpg", 100, 80, [("zebra", (1, 1, 9, 9), 0)])
    sets = tmp_path / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "val.txt").write_text("000007\n")
    (sets / "car_val.txt").write_text("000005  1\n000007 -1\n")
    return folder


def test_corners_from_1_inclusive_become_edges_from_0(voc: Path) -> None:
    first, second = load_annotations(voc, voc.parent / "JPEGImages", ("car", "person"))
    assert first.path.name == "000005.jpg"
    assert first.read().shape == (80, 100, 3)
    assert first.boxes.tolist() == [[0, 0, 1, 1], [10, 20, 60, 80]]
    assert first.classes.tolist() == [1, 0]
    assert first.crowds.tolist() == [[1, 2, 100, 80]]  # difficult
    assert len(second.boxes) == 0
    assert (first.image_id, second.image_id) == (1, 2)


def test_the_same_annotations_as_coco_give_the_same_examples(shapes: Path, tmp_path: Path) -> None:
    expected = load_coco(shapes, shapes.parent, SHAPES)
    for example in expected:
        (left, top, right, bottom) = map(int, example.boxes[0])
        write_voc(
            tmp_path / "xml" / f"{example.path.stem}.xml",
            example.path.name,
            example.width,
            example.height,
            [(SHAPES[example.classes[0]], (left + 1, top + 1, right, bottom), 0)],
        )
    found = load_annotations(tmp_path / "xml", shapes.parent, SHAPES)
    assert len(found) == len(expected) == 8
    for one, other in zip(found, expected, strict=True):
        assert one.path == other.path
        assert one.boxes.tolist() == other.boxes.tolist()
        assert one.classes.tolist() == other.classes.tolist()


def test_a_list_names_the_files(voc: Path) -> None:
    sets = voc.parent / "ImageSets" / "Main"
    assert [p.file_name for p in read_annotations(sets / "val.txt", NOWHERE, ("zebra",)).pictures] == [
        "000007.jpg"
    ]
    file = read_annotations(sets / "car_val.txt", NOWHERE, ("car",))
    assert len(file.pictures) == 2
    assert (len(file.annotations), file.foreign) == (1, 3)
    assert file.categories == ("person", "car", "zebra")


def test_imagenets_layout_and_words(tmp_path: Path) -> None:
    """Synset folders, files without a suffix, names in words where the mapping lies above."""
    folder = tmp_path / "ILSVRC" / "Annotations" / "CLS-LOC" / "train"
    for synset in ("n01440764", "n03126707"):
        box = (0, 5, 50, 40)  # ImageNet also counts from 0
        write_voc(folder / synset / f"{synset}_1.xml", "%s", 50, 40, [(synset, box, 0)])
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\n"
    )
    file = read_annotations(folder, NOWHERE, ("n03126707", "tench"))
    assert [picture.file_name for picture in file.pictures] == [
        "n01440764/n01440764_1.JPEG",
        "n03126707/n03126707_1.JPEG",
    ]
    assert [annotation.class_ for annotation in file.annotations] == [1, 0]
    assert file.annotations[0].box == (0, 4, 50, 40)
    assert set(file.categories) == {"n03126707", "tench"}
    assert read_annotations(folder, NOWHERE, ("tench, Tinca tinca",)).foreign == 1
    with pytest.raises(DataError, match="crane is n02012849 and n03126707; name the class by"):
        read_annotations(folder, NOWHERE, ("crane",))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "<xmin>11</xmin>",
            "<xmin>left</xmin>",
            r"000005\.xml: object 2: bndbox/xmin is 'left', expected a num",
        ),
        (
            "<xmin>11</xmin>",
            "<xmin>nan</xmin>",
            r"object 2: bndbox/xmin is 'nan', expected a number of pixels",
        ),
        ("<xmin>11</xmin>", "", r"object 2: bndbox/xmin is missing or empty"),
        ("<xmin>11</xmin>", "<xmin>61</xmin>", r"object 2: bndbox 61, 21, 60, 80 ends before it begins"),
        (
            "<xmax>60</xmax>",
            "<xmax>160</xmax>",
            r"object 2: bndbox .* leaves its picture of 100x80 by 60 pixels",
        ),
        ("<name>car</name>", "<name> </name>", r"object 2: name is missing or empty"),
        ("<difficult>1<", "<difficult>yes<", r"object 3: difficult is 'yes', expected 0 or 1"),
        ("<truncated>0<", "<truncated>2<", r"object 1: truncated is '2', expected 0 or 1"),
        ("<width>100<", "<width>0<", r"000005\.xml: size/width and size/height are 0 and 80, expected whole"),
        ("<filename>000005.jpg</filename>", "", r"000005\.xml: filename is missing or empty"),
        ("</size>", "", r"000005\.xml: line \d+: not XML \(mismatched tag"),
        ("annotation>", "annotations>", r"its root is <annotations>, expected <annotation>"),
    ],
)
def test_bad_files_are_named(voc: Path, before: str, after: str, message: str) -> None:
    path = voc / "000005.xml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(DataError, match=message) as caught:
        read_annotations(voc, NOWHERE, ("car", "person"))
    assert str(path) in str(caught.value)


def test_what_is_no_annotation(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of its categories \(person, car, zebra\) is among bus"):
        read_annotations(voc, NOWHERE, ("bus",))
    with pytest.raises(DataError, match=r"has no \.xml file in it; expected a folder of VOC's XML"):
        read_annotations(voc.parent / "JPEGImages", NOWHERE, ("car",))
    with pytest.raises(DataError, match=r"none\.txt: cannot be read"):
        read_annotations(tmp_path / "none.txt", NOWHERE, ("car",))
    empty = voc.parent / "ImageSets" / "Main" / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(DataError, match="lists nothing"):
        read_annotations(empty, NOWHERE, ("car",))
    empty.write_text("999999\n")
    with pytest.raises(DataError, match=r"999999\.xml: cannot be read"):
        read_annotations(empty, NOWHERE, ("car",))
    (voc.parent / "LOC_synset_mapping.txt").write_text("n01440764\n")
    with pytest.raises(
        DataError, match=r"LOC_synset_mapping\.txt: line 1: 'n01440764', expected a synset's id"
    ):
        read_annotations(voc, NOWHERE, ("car",))
