"""Drawing on planes against a slow reference that draws in RGB and converts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av import VideoFrame

from stream.annotate import Annotator, class_colour, rgb_to_yuv, text_colour
from stream.frames import Tracks

NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "dog", "cat")
LIMITED, FULL = 1, 2
BT709, BT601 = 1, 6
RNG = np.random.default_rng(3)


def picture_of(width: int, height: int, format: str = "yuv420p") -> VideoFrame:
    picture = VideoFrame(width, height, format)
    for plane in picture.planes:
        plane.update(RNG.integers(20, 220, plane.buffer_size, dtype=np.uint8).tobytes())
    return picture


def planes_of(picture: VideoFrame) -> list[np.ndarray]:
    return [
        np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in picture.planes
    ]


def tracks_of(
    boxes: list[tuple[float, float, float, float]],
    classes: list[int] | None = None,
    coasting: bool = False,
    score: float = 0.83,
) -> Tracks:
    count = len(boxes)
    return Tracks(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, score, np.float32),
        np.array(classes if classes is not None else [0] * count, np.int64),
        np.arange(1, count + 1),
        np.ones(count, np.float32),
        np.full(count, coasting),
        NAMES,
    )


def outline_mask(picture: VideoFrame, box: tuple[float, float, float, float]) -> np.ndarray:
    """The slow way: which 2x2 cells belong to the outline, pixel by pixel. Bool, in cells."""
    columns, rows = -(-picture.width // 2), -(-picture.height // 2)
    thickness = max(1, round(min(picture.width, picture.height) / 480))
    x1, y1, x2, y2 = (round(value / 2) for value in box)
    mask = np.zeros((rows, columns), bool)
    for row in range(rows):
        for column in range(columns):
            inside = x1 <= column < x2 and y1 <= row < y2
            core = x1 + thickness <= column < x2 - thickness and y1 + thickness <= row < y2 - thickness
            mask[row, column] = inside and not core
    return mask


def doubled(cells: np.ndarray, picture: VideoFrame) -> np.ndarray:
    return cells.repeat(2, axis=0).repeat(2, axis=1)[: picture.height, : picture.width]


def changed(before: VideoFrame, after: VideoFrame) -> list[np.ndarray]:
    return [a != b for a, b in zip(planes_of(before), planes_of(after), strict=True)]


def label_area(picture: VideoFrame, annotated: VideoFrame, cells: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns, in cells, of what changed outside ``cells``."""
    other = changed(picture, annotated)[1] & ~cells
    rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def converted(rgb: np.ndarray, matrix: int) -> list[np.ndarray]:
    """The slow way to limited-range yuv420p: every pixel by the matrix, chroma as means of 2x2 pixels."""
    red_share, blue_share = (0.2126, 0.0722) if matrix == BT709 else (0.299, 0.114)
    red, green, blue = (rgb[..., channel] / 255 for channel in range(3))
    luma = red_share * red + (1 - red_share - blue_share) * green + blue_share * blue
    planes = [np.rint(16 + 219 * luma)]
    for colour, share in ((blue, blue_share), (red, red_share)):
        chroma = 128 + 224 * (colour - luma) / (2 * (1 - share))
        height, width = chroma.shape
        chroma = np.pad(chroma, ((0, height % 2), (0, width % 2)), mode="edge")
        planes.append(np.rint(chroma.reshape(-(-height // 2), 2, -(-width // 2), 2).mean(axis=(1, 3))))
    return planes


@pytest.mark.parametrize("size", [(640, 360), (853, 481), (427, 241), (1280, 720)])
@pytest.mark.parametrize("matrix", [BT601, BT709])
def test_outline_equals_drawing_in_rgb(size: tuple[int, int], matrix: int) -> None:
    """Draw the outline on an RGB picture, convert that, compare inside; outside nothing changed."""
    picture = picture_of(*size)
    picture.colorspace, picture.color_range = matrix, LIMITED
    box = (size[0] * 0.3, size[1] * 0.35, size[0] * 0.7, size[1] * 0.9)
    annotated = Annotator().draw(picture, tracks_of([box], [1]))
    cells = outline_mask(picture, box)
    pixels = doubled(cells, picture)

    rgb = picture.to_ndarray(format="rgb24")
    rgb[pixels] = class_colour(1)
    slow = converted(rgb, matrix)
    fast = planes_of(annotated)
    inner = cells & ~label_cells(picture, box, cells.shape)
    for name, a, b, mask in zip("YUV", fast, slow, (doubled(inner, picture), inner, inner), strict=True):
        difference = np.abs(a[mask].astype(int) - b[mask].astype(int))
        print(f"{size} {name}: max {difference.max()}, mean {difference.mean():.3f}, of {mask.sum()}")
        assert difference.max() <= 1

    outside = ~(cells | label_cells(picture, box, cells.shape))
    for before, after, mask in zip(
        planes_of(picture), fast, (doubled(outside, picture), outside, outside), strict=True
    ):
        np.testing.assert_array_equal(before[mask], after[mask])
        assert (before[~mask] != after[~mask]).mean() > 0.9


def label_cells(
    picture: VideoFrame, box: tuple[float, float, float, float], shape: tuple[int, ...]
) -> np.ndarray:
    """Where the label lies: found on an empty picture, and checked to be a filled rectangle by the box."""
    blank = VideoFrame(picture.width, picture.height, "yuv420p")
    for plane in blank.planes:
        plane.update(bytes([7]) * plane.buffer_size)
    drawn = Annotator().draw(blank, tracks_of([box], [1]))
    cells = outline_mask(picture, box)
    rows, columns = label_area(blank, drawn, cells)
    assert changed(blank, drawn)[1][rows, columns].all()
    assert rows.stop == round(box[1] / 2)
    assert columns.start == round(box[0] / 2)
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


@pytest.mark.parametrize("size", [(640, 360), (853, 481), (3840, 2160), (320, 180)])
def test_label_is_legible_at_any_size(size: tuple[int, int]) -> None:
    """At least 12 pixels or a fiftieth of the picture high, ink and ground clearly apart, inside it."""
    picture = picture_of(*size)
    box = (size[0] * 0.4, size[1] * 0.4, size[0] * 0.6, size[1] * 0.8)
    cells = label_cells(picture, box, (-(-size[1] // 2), -(-size[0] // 2)))
    luma = planes_of(Annotator().draw(picture, tracks_of([box], [1])))[0]
    rows = np.flatnonzero(cells.any(axis=1))
    columns = np.flatnonzero(cells.any(axis=0))
    label = luma[2 * rows[0] : 2 * rows[-1], 2 * columns[0] : 2 * columns[-1]].astype(int)
    assert 2 * len(rows) >= max(12, size[1] / 50)
    ground, ink = rgb_to_yuv(class_colour(1), bt709=False, full_range=False)[0], 16
    assert abs(ground - ink) >= 75
    assert (np.abs(label - ground) <= 1).mean() > 0.5
    assert 0.03 < (np.abs(label - ink) < 40).mean() < 0.5


def test_the_label_says_who_and_how_sure() -> None:
    """Another id, another class name and another score change it; where the box is does not."""
    picture = picture_of(640, 360)
    box = (200.0, 100.0, 300.0, 300.0)

    def drawn(names: tuple[str, ...], track_id: int, score: float) -> bytes:
        tracks = Tracks(
            np.array([box], np.float32),
            np.array([score], np.float32),
            np.zeros(1, np.int64),
            np.array([track_id]),
            np.ones(1, np.float32),
            np.zeros(1, bool),
            names,
        )
        return Annotator().draw(picture, tracks).to_ndarray().tobytes()

    pictures = {drawn(("person",), 7, 0.83), drawn(("person",), 8, 0.83), drawn(("person",), 7, 0.84)}
    assert len(pictures | {drawn(("cyclist",), 7, 0.83)}) == 4
    assert drawn(("person",), 7, 0.83) == drawn(("person",), 7, 0.831)


def test_a_coasting_track_is_dashed_and_has_no_score() -> None:
    picture = VideoFrame(640, 360, "yuv420p")
    for plane in picture.planes:
        plane.update(bytes(plane.buffer_size))
    box = (100.0, 100.0, 500.0, 300.0)
    cells = outline_mask(picture, box)
    solid = Annotator().draw(picture, tracks_of([box]))
    dashed = Annotator().draw(picture, tracks_of([box], coasting=True))
    assert changed(picture, solid)[1][cells].all()
    assert 0.4 < changed(picture, dashed)[1][cells].mean() < 0.6
    wide, narrow = (label_area(picture, drawn, cells)[1] for drawn in (solid, dashed))
    assert wide.stop - wide.start > narrow.stop - narrow.start


def test_nothing_to_draw_is_a_copy() -> None:
    picture = picture_of(853, 481)
    copy = Annotator().draw(picture, Tracks.empty())
    assert copy is not picture
    assert not any(plane.any() for plane in changed(picture, copy))


def test_the_input_is_not_written_and_the_output_is_its_own() -> None:
    picture = picture_of(640, 360)
    before = [plane.copy() for plane in planes_of(picture)]
    annotator = Annotator()
    first = annotator.draw(picture, tracks_of([(10, 10, 200, 200)]))
    kept = first.to_ndarray().copy()
    annotator.draw(picture, tracks_of([(300, 100, 600, 300)], [2]))
    for old, new in zip(before, planes_of(picture), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(kept, first.to_ndarray())


def test_time_and_colour_stay() -> None:
    picture = picture_of(640, 360)
    picture.pts, picture.time_base = 1234, Fraction(1, 90_000)
    picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc = BT709, FULL, 1, 1
    drawn = Annotator().draw(picture, tracks_of([(10, 40, 200, 200)]))
    assert (drawn.pts, drawn.time_base, drawn.format.name) == (1234, Fraction(1, 90_000), "yuv420p")
    assert (drawn.colorspace, drawn.color_range) == (BT709, FULL)
    assert (drawn.color_primaries, drawn.color_trc) == (1, 1)
    ink = rgb_to_yuv(class_colour(0), bt709=True, full_range=True)
    y, u, v = planes_of(drawn)
    assert (y[100, 10], u[50, 5], v[50, 5]) == ink


def test_a_full_range_jpeg_picture_stays_full_range() -> None:
    picture = picture_of(640, 360, "yuvj420p")
    drawn = Annotator().draw(picture, tracks_of([(100, 100, 200, 200)]))
    assert (drawn.format.name, drawn.color_range) == ("yuv420p", FULL)
    assert not changed(picture, drawn)[0][250:].any()


@pytest.mark.parametrize("format", ["yuv422p", "yuvj422p", "nv12", "rgb24", "gray", "yuv444p"])
def test_other_formats_are_converted(format: str) -> None:
    colour = (180, 60, 90)
    flat = VideoFrame.from_ndarray(np.full((240, 320, 3), colour, np.uint8), format="rgb24")
    picture = flat if format == "rgb24" else flat.reformat(format=format)
    before = bytes(picture.planes[0])
    drawn = Annotator().draw(picture, tracks_of([(60, 60, 200, 200)], [4]))
    assert drawn.format.name == "yuv420p"
    assert bytes(picture.planes[0]) == before
    rgb = drawn.to_ndarray(format="rgb24").astype(int)
    expected = picture.to_ndarray(format="rgb24")[230, 310].astype(int)
    assert np.abs(rgb[230, 310] - expected).max() <= 6
    assert np.abs(rgb[150, 60] - np.array(class_colour(4))).max() <= 6


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (17, 9), (64, 48), (853, 481)])
def test_boxes_anywhere_on_any_size(size: tuple[int, int]) -> None:
    picture = picture_of(*size)
    boxes = [
        (-50.0, -50.0, -10.0, -10.0),
        (5000.0, 5000.0, 6000.0, 6000.0),
        (-1e9, -1e9, 1e9, 1e9),
        (0.0, 0.0, 0.5, 0.5),
        (size[0] - 1.0, size[1] - 1.0, size[0] + 30.0, size[1] + 30.0),
        (float("nan"), 0.0, float("inf"), 10.0),
        (10.0, 10.0, 5.0, 5.0),
    ]
    for coasting in (False, True):
        drawn = Annotator().draw(picture, tracks_of(boxes, [0, 1, 2, 3, 4, 99, -1], coasting))
        assert (drawn.width, drawn.height) == size
    outside = Annotator().draw(picture, tracks_of(boxes[:2]))
    assert not any(plane.any() for plane in changed(picture, outside))


def test_hundreds_of_boxes_and_a_bounded_cache() -> None:
    annotator = Annotator()
    picture = picture_of(320, 180)
    for start in range(0, 3000, 300):
        corners = RNG.uniform(-50, 300, (300, 2))
        tracks = Tracks(
            np.concatenate((corners, corners + 60), axis=1).astype(np.float32),
            RNG.uniform(0, 1, 300).astype(np.float32),
            RNG.integers(0, 80, 300),
            np.arange(start, start + 300),
            np.ones(300, np.float32),
            RNG.uniform(size=300) < 0.5,
            NAMES,
        )
        annotator.draw(picture, tracks)
    assert len(annotator._pieces) <= 1024


def test_a_change_of_size_midway_changes_the_letters() -> None:
    annotator = Annotator()
    small, large = picture_of(320, 180), picture_of(1920, 1080)
    annotator.draw(small, tracks_of([(50, 90, 200, 170)]))
    after = annotator.draw(large, tracks_of([(500, 500, 900, 900)]))
    fresh = Annotator().draw(large, tracks_of([(500, 500, 900, 900)]))
    assert not any(plane.any() for plane in changed(after, fresh))


def test_colours_are_distinct_stable_and_readable() -> None:
    colours = [class_colour(index) for index in range(21)]
    assert len(set(colours)) == 21
    assert class_colour(0) == (230, 159, 0)
    for one in range(7):
        for other in range(one):
            assert np.abs(np.subtract(colours[one], colours[other])).sum() > 60
    for colour in colours:
        ground, ink = (rgb_to_yuv(c, bt709=False, full_range=True)[0] for c in (colour, text_colour(colour)))
        assert abs(ground - ink) > 75, colour


def test_a_real_picture(bikes: Path) -> None:
    """A decoder's own frame, with its padding and metadata."""
    with av.open(str(bikes)) as container:
        picture = next(container.decode(video=0))
        drawn = Annotator().draw(picture, tracks_of([(100, 60, 220, 240)], [1]))
        assert (drawn.pts, drawn.time_base) == (picture.pts, picture.time_base)
        same = ~changed(picture, drawn)[0]
        assert same.mean() > 0.9
        assert not same[100:200, 100:102].any()
