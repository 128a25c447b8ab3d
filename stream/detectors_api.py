"""``/api/detector`` and ``/api/detectors``: what detects, and another model for it while cameras run.

``detector`` is that of the cameras that name none, as in the YAML file; under ``detectors`` it is ``default``.
"""

from __future__ import annotations

from pathlib import PurePath
from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Body

from stream.annotate import class_colour
from stream.batching import Batcher, Loaded
from stream.cameras_api import Save
from stream.config import DEFAULT_DETECTOR
from stream.errors import redact
from stream.frames import names_key
from stream.live_detectors import LiveDetectors
from stream.pipeline import Pipeline

Keys = Annotated[
    dict[str, Any],
    Body(description='a detector\'s keys and values, as in the YAML file, or {"previous": true}'),
]


def detectors_router(pipeline: Pipeline, live: LiveDetectors) -> APIRouter:
    """The routes under ``/api/detector`` and ``/api/detectors``."""
    router = APIRouter(prefix="/api")
    _add_named(router, pipeline, live)

    @router.get("/detector")
    async def detector() -> dict[str, Any]:
        """Model, classes, input, device and settings, since when, and the model before."""
        return _told(live, DEFAULT_DETECTOR)

    @router.put("/detector")
    async def put(detector: Keys, save: Save = False) -> dict[str, Any]:
        """Run another model: what is left out gets its default. ``{"previous": true}`` takes the one before."""
        await live.put(DEFAULT_DETECTOR, detector, save=save)
        return _told(live, DEFAULT_DETECTOR)

    @router.patch("/detector")
    async def change(detector: Keys, save: Save = False) -> dict[str, Any]:
        """Change some of its values (RFC 7396): null gives one its default."""
        await live.change(DEFAULT_DETECTOR, detector, save=save)
        return _told(live, DEFAULT_DETECTOR)

    return router


def _add_named(router: APIRouter, pipeline: Pipeline, live: LiveDetectors) -> None:
    @router.get("/detectors")
    async def detectors() -> list[dict[str, Any]]:
        """Every detector, as ``/api/detector`` tells of one."""
        return [_told(live, name) for name in pipeline.batchers]

    @router.get("/detectors/{name}")
    async def detector_named(name: str) -> dict[str, Any]:
        return _told(live, name)

    @router.put("/detectors/{name}")
    async def put_named(name: str, detector: Keys, save: Save = False) -> dict[str, Any]:
        """As ``/api/detector``, for the detector of that name."""
        await live.put(name, detector, save=save)
        return _told(live, name)

    @router.patch("/detectors/{name}")
    async def change_named(name: str, detector: Keys, save: Save = False) -> dict[str, Any]:
        """As ``/api/detector``, for the detector of that name."""
        await live.change(name, detector, save=save)
        return _told(live, name)


def about(batcher: Batcher) -> dict[str, Any]:
    """What the page has to know of a detector; ``classes_key`` is how boxes as data name its classes."""
    model = batcher.model
    spec, detector = model.detector.spec, model.detector
    colours = [class_colour(index) for index in range(len(spec.names))]
    return {
        "model": _name(model),
        "family": spec.family,
        "input": [spec.input_width, spec.input_height],
        "device": detector.device,
        "names": list(spec.names),
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours],
        "classes_key": names_key(spec.names),
        "fault": batcher.fault and redact(batcher.fault),
    }


def _told(live: LiveDetectors, name: str) -> dict[str, Any]:
    batcher = live.batcher(name)
    before, loading, config = batcher.previous, live.loading, batcher.model.config
    return {
        "id": name,
        **about(batcher),
        "device_reason": batcher.detector.reason,
        "settings": {**config.model_dump(mode="json"), "model": redact(config.model)},
        "since_s": round(monotonic() - batcher.since, 1),
        "loading": redact(loading[1]) if loading and loading[0] == name else None,
        "previous": before and {"model": _name(before), "names": list(before.detector.spec.names)},
    }


def _name(model: Loaded) -> str:
    """A model's name, or its file's without folder and ending."""
    return redact(PurePath(model.config.model).name.removesuffix(".onnx"))
