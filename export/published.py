"""Detectors that others publish as ONNX under permissive licences: where, how large, and their sha256.

Only what can be checked is listed: an entry's digest and size come from its publisher's own git-lfs pointer
or, for release files, agree in several projects that pin them; its address holds a release tag or a commit.
Licences are those that the publisher states for the weights. Knows nothing of networks or of what is here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """One file that ``lookout models pull`` can fetch.

    Attributes:
        name: what it is called in ``--model``.
        family: the detector's lineage.
        surface: its inputs and outputs, in words.
        publisher: who serves the file and, where that is another, whose weights they are.
        address: https.
        sha256: of the file, in lower-case hex.
        size_bytes: of the file.
        licence: SPDX identifier.
        input_height, input_width: pixels; None where the file takes any.
        ap: COCO AP on val2017 at IoU 0.5 to 0.95, 0 to 1, as published; None where none was.
    """

    name: str
    family: str
    surface: str
    publisher: str
    address: str
    sha256: str
    size_bytes: int
    licence: str
    input_height: int | None
    input_width: int | None
    ap: float | None


def _yolox(size: str, side: int, ap: float, size_bytes: int, sha256: str) -> Published:
    return Published(
        name=f"yolox-{size}",
        family="yolox",
        surface="raw grid (1, N, 85), BGR 0-255",
        publisher="Megvii",
        address=f"https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/yolox_{size}.onnx",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        input_height=side,
        input_width=side,
        ap=ap,
    )


def _dfine(size: str, commit: str, ap: float, size_bytes: int, sha256: str) -> Published:
    return Published(
        name=f"dfine-{size}",
        family="d-fine",
        surface="logits (B, 300, 80), pred_boxes (B, 300, 4) as centre and size 0-1; RGB 0-1, stretched",
        publisher="onnx-community, of ustc-community's weights",
        address=f"https://huggingface.co/onnx-community/dfine_{size}_coco-ONNX/resolve/{commit}/onnx/model.onnx",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        input_height=640,
        input_width=640,
        ap=ap,
    )


def _rfdetr(size: str, commit: str, side: int, ap: float, size_bytes: int, sha256: str) -> Published:
    return Published(
        name=f"rfdetr-{size}",
        family="rf-detr",
        surface="logits (B, 300, 91), pred_boxes (B, 300, 4) as centre and size 0-1; RGB, stretched",
        publisher="onnx-community, of Roboflow's weights",
        address=f"https://huggingface.co/onnx-community/rfdetr_{size}-ONNX/resolve/{commit}/onnx/model.onnx",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="Apache-2.0",
        input_height=side,
        input_width=side,
        ap=ap,
    )


def _ultraface(height: int, width: int, commit: str, size_bytes: int, sha256: str) -> Published:
    file = f"version-RFB-{width}"
    return Published(
        name=f"ultraface-{width}",
        family="ultraface",
        surface="scores (1, N, 2), boxes (1, N, 4) as corners 0-1; faces only; (RGB - 127) / 128, stretched",
        publisher="ONNX model zoo, of Linzaer's weights",
        address=f"https://huggingface.co/onnxmodelzoo/{file}/resolve/{commit}/{file}.onnx",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="MIT",
        input_height=height,
        input_width=width,
        ap=None,
    )


# AP: the README of Megvii-BaseDetection/YOLOX, column "mAP val 0.5:0.95"; its docs/model_zoo.md has 47.7 for
# -l, a slip. Digests: -s is the git-lfs pointer of opencv/opencv_zoo's object_detection_yolox_2022nov.onnx,
# the same file; all six are pinned alike, with the release's address, by three or more projects each.
_YOLOX = (
    _yolox("nano", 416, 0.258, 3_659_407, "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d"),
    _yolox(
        "tiny", 416, 0.328, 20_219_662, "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7"
    ),
    _yolox("s", 640, 0.405, 35_858_002, "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063"),
    _yolox("m", 640, 0.469, 101_259_744, "21ff6cfdeb53b013bac2249599e55f00bff3cfdfdab37ed7a4620818c1d15b3f"),
    _yolox("l", 640, 0.497, 216_746_733, "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411"),
    _yolox("x", 640, 0.511, 396_142_663, "c892d7aaf1c4746d8a4d675bec669a4db4f434b4ee1efb654bc9b353379c7c55"),
)

# AP: README of models/object_detection_nanodet in opencv/opencv_zoo ("all, 0.50:0.95"), as its licence.
# Digest and size: git-lfs pointer of object_detection_nanodet-plus-m-1.5x-416.onnx in opencv/opencv_zoo at
# f298f846, renamed since; projects that pin this address have the same two.
_NANODET = Published(
    name="nanodet-plus-m",
    family="nanodet",
    surface="class scores and box distributions, three tensors each; BGR, normalised",
    publisher="OpenCV model zoo, of RangiLyu's weights",
    address=(
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/510899a2a0adb8c25957915fd030d66dbd553919/"
        "models/object_detection_nanodet/object_detection_nanodet_2022nov.onnx"
    ),
    sha256="4b82da9944b88577175ee23a459dce2e26e6e4be573def65b1055dc2d9720186",
    size_bytes=3_800_954,
    licence="Apache-2.0",
    input_height=416,
    input_width=416,
    ap=0.304,
)

# onnx/models ended its git-lfs downloads on 1 July 2025 and names huggingface.co/onnxmodelzoo as their new
# place; digests and sizes are its git-lfs pointers' still (ssd_mobilenet_v1_12.onnx, version-RFB-320.onnx,
# version-RFB-640.onnx), and those that projects pin for the new addresses. AP and licences: its READMEs; the
# new place's metadata say Apache-2.0 for each of the three.
_SSD = Published(
    name="ssd-mobilenet-v1",
    family="ssd",
    surface="detection_boxes, _classes, _scores, num_detections, NMS done; uint8 (1, H, W, 3) RGB",
    publisher="ONNX model zoo, of TensorFlow's weights",
    address=(
        "https://huggingface.co/onnxmodelzoo/ssd_mobilenet_v1_12/resolve/"
        "019281f3fcb151a90e491f3b2f0273f9f31bd6be/ssd_mobilenet_v1_12.onnx"
    ),
    sha256="b8fba5e404077d4048d27fcd1667e85e27e192eb9bf51e696c46a3acd7d21058",
    size_bytes=29_461_455,
    licence="MIT",
    input_height=None,
    input_width=None,
    ap=0.2303,
)
_ULTRAFACE = (
    _ultraface(
        240,
        320,
        "6fd293d22b523ec88959f104b8eef5395e3adfbc",
        1_270_727,
        "34cd7e60aeff28744c657de7a3dc64e872d506741de66987f3426f2b79f88017",
    ),
    _ultraface(
        480,
        640,
        "c39647011b1d0eb48037ce3051438e51b19e2b11",
        1_588_012,
        "8f4c659275977e7a3bfbfa339a9c769ad793df50f9c0baa8c14b11baa1646430",
    ),
)

# AP: README of Peterande/D-FINE ("AP val", COCO). Its authors publish no ONNX; these are the conversions of
# their weights that Hugging Face's own onnx-community serves, each pinned alike by two or more projects.
_DFINE = (
    _dfine(
        "n",
        "380d2839c327efaf65dd0fe0c2c10ab7fadd5473",
        0.428,
        15_258_358,
        "0f684f409618ee8a822410e754a29caa817d1aa16283ce89cad936d0a48e2f35",
    ),
    _dfine(
        "s",
        "a3cf03147a9b86c78475139115c8ac142577352d",
        0.485,
        41_535_197,
        "cd8a49a945feda6d28c6304ae8ae85c2759ba1d78a5a83a22c5ce8db82ef7238",
    ),
    _dfine(
        "m",
        "489756db2825cb068a588fe930af239a656d1fe1",
        0.523,
        78_624_257,
        "70aaa837978a06ba44ad17398c7079ae5a1a7b1a9032b5d7053981e1ada02d6b",
    ),
    _dfine(
        "l",
        "e09b218185400510b68d067bbd0c9379d905ffcd",
        0.540,
        125_348_332,
        "d678f3baebfb909d3a20f21d1d807544d0172ed47fa1ab88e7fcdec7e365b236",
    ),
)

# AP: README of roboflow/rf-detr ("COCO AP 50:95", nano to large under Apache-2.0). Conversions of
# onnx-community as above; nano's digest is also its git-lfs object id there, small's is pinned by two projects.
_RFDETR = (
    _rfdetr(
        "nano",
        "eae21cee0687a91bcf9fa071605c48d7705d2d91",
        384,
        0.484,
        108_074_865,
        "9cbac6b11ce34a03034e4d5a24cfac5f18632fd6761d1311dd640232088d7fee",
    ),
    _rfdetr(
        "small",
        "63463b68b200177d1fea7015f11f3cebb0ba4eeb",
        512,
        0.530,
        114_680_416,
        "121cc1476a7b69d865ca4bdc2bca59a3239020d227e4c3f35a811bef81aeb7f1",
    ),
)

PUBLISHED: tuple[Published, ...] = (*_YOLOX, _NANODET, _SSD, *_DFINE, *_RFDETR, *_ULTRAFACE)
