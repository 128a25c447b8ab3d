"""``LiveConfig``: the configuration in force, and changes of its cameras while they run.

Changes come from callers of the API and from the file, which is watched. Cameras and what detectors run
(``stream/live_detectors.py``) change; what else is edited in the file takes effect at the next start, and that is
said. A change touches no camera but its own. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stream.config import AppConfig, CameraConfig
from stream.config_edit import Signature, save_camera, signature
from stream.config_file import camera_of, load_config
from stream.errors import ConfigError, LookoutError, SignallingError, redact
from stream.live_detectors import LiveDetectors, refuse_unsaveable
from stream.pipeline import Pipeline
from stream.sources import source_kind
from stream.sources.allowed import check_source

log = logging.getLogger(__name__)

POLL_S = 0.5  # an edit is taken once the file has stayed as it is for so long
MOST_CAMERAS = 256

Document = Mapping[str, Any]
"""A camera's keys and values, as in the file."""


class LiveConfig:
    """For the event loop's thread alone.

    Args:
        config: in force at the start.
        pipeline: whose cameras are changed.
        path: the file that ``config`` came from, but for what the command line said besides; None: there is none.

    ``detectors`` takes the changes of what they run. ``fault`` says why the newest edit of the file was refused; None
    once it is in force.
    """

    def __init__(self, config: AppConfig, pipeline: Pipeline, path: Path | None = None) -> None:
        self.fault: str | None = None
        self._config = config
        self._pipeline = pipeline
        self._path = path
        self._filed = (
            config if path is None else _as_filed(path, config)
        )  # what it said when it was last right
        self._seen: Signature | None = (
            None  # read again once: it may have been edited while models were loaded
        )
        self._changing = asyncio.Lock()
        self.detectors = LiveDetectors(config, self._filed, pipeline, path, self._changing)

    async def add(self, camera_id: str, camera: Document, *, save: bool) -> None:
        """Add a camera.

        Raises:
            SignallingError: as ``put``; 409, there is one of that name.
        """
        async with self._changing:
            if camera_id in self._pipeline.cameras:
                raise SignallingError(f"there is a camera {camera_id!r}; PUT or PATCH changes it", 409)
            await self._put(camera_id, camera, save)

    async def put(self, camera_id: str, camera: Document, *, save: bool) -> bool:
        """Add a camera, or give one that is there another configuration; True: it was added.

        Raises:
            SignallingError: 403, its source is not allowed; 409, it cannot be saved; 422, a value is wrong.
        """
        async with self._changing:
            return await self._put(camera_id, camera, save)

    async def change(self, camera_id: str, changes: Document, *, save: bool) -> None:
        """Give a camera other values of some keys; null gives one its default.

        Raises:
            SignallingError: as ``put``; 404, there is no such camera.
        """
        async with self._changing:  # what it has is read in here, or of two changes at once one would be lost
            given = self._pipeline.camera(camera_id).config.model_dump(mode="json", exclude_defaults=True)
            camera = {key: value for key, value in {**given, **changes}.items() if value is not None}
            await self._put(camera_id, camera, save)

    async def remove(self, camera_id: str, *, save: bool) -> None:
        """End a camera and forget it.

        Raises:
            SignallingError: 404, there is no such camera; 409, the file cannot be changed.
        """
        async with self._changing:
            self._pipeline.camera(camera_id)
            refuse_unsaveable(self._path, save)
            await asyncio.to_thread(self._pipeline.remove, camera_id)
            log.info("camera %s: removed through the API", camera_id)
            if save:
                await self._save(camera_id, None)

    async def watch(self) -> None:
        """Take edits of the file, for ever."""
        before: Signature | None = None
        while self._path is not None:
            await asyncio.sleep(POLL_S)
            now = await asyncio.to_thread(signature, self._path)
            if now == before != self._seen:
                self._seen = now
                try:
                    await self._reload(self._path)
                except Exception:  # a fault of ours must not end the watching
                    log.exception("%s: unexpected", self._path)
            before = now

    async def _put(self, camera_id: str, camera: Document, save: bool) -> bool:
        added = camera_id not in self._pipeline.cameras
        if added and len(self._pipeline.cameras) >= MOST_CAMERAS:
            raise SignallingError(f"there are {MOST_CAMERAS} cameras, the most there may be", 409)
        # In a thread: it looks for files, and a disk of the network may not answer.
        config = await asyncio.to_thread(self._checked, camera_id, camera)
        refuse_unsaveable(self._path, save)
        before = None if added else self._pipeline.camera(camera_id).config
        if config != before:
            await asyncio.to_thread(self._pipeline.put, camera_id, config)
            log.info("camera %s: %s through the API", camera_id, "added" if added else "changed")
        if save:
            await self._save(camera_id, camera, before)
        return added

    def _checked(self, camera_id: str, camera: Document) -> CameraConfig:
        try:
            config = camera_of(camera_id, camera, self._config)
            current = self._pipeline.cameras.get(camera_id)
            if current is None or current.config.source != config.source:
                check_source(config.source, self._config.server.allow_sources)
            source_kind(config.source)
        except SignallingError:
            raise
        except LookoutError as error:
            raise SignallingError(str(error), 422) from None
        return config

    async def _save(
        self, camera_id: str, camera: Document | None, before: CameraConfig | None = None
    ) -> None:
        assert self._path is not None
        try:
            await asyncio.to_thread(save_camera, self._path, camera_id, camera, before)
        except ConfigError as error:
            raise SignallingError(f"the change is in force, but not saved: {error}", 409) from None
        # Of this camera alone, as it is in force: what else was written meanwhile is still to be taken.
        cameras = {name: each for name, each in self._filed.cameras.items() if name != camera_id}
        if camera is not None:
            cameras[camera_id] = self._pipeline.camera(camera_id).config
        self._filed = self._filed.model_copy(update={"cameras": cameras})

    async def _reload(self, path: Path) -> None:
        async with self._changing:
            try:
                config = await asyncio.to_thread(_load, path)
            except LookoutError as error:
                self.fault = redact(str(error))
                log.error("the edited configuration is refused, what was in force stays: %s", self.fault)
                return
            self.fault = None
            filed, self._filed = self._filed, config
            for name in dict.fromkeys([*filed.cameras, *config.cameras]):
                if filed.cameras.get(name) != config.cameras.get(name):
                    await self._follow(name, config.cameras.get(name))
            self._tell_what_waits(filed, config)
        if faults := await self.detectors.follow(
            config
        ):  # which may take long: cameras can be changed meanwhile
            self.fault = redact("; ".join(faults))

    async def _follow(self, name: str, camera: CameraConfig | None) -> None:
        """Bring one camera in line with the file."""
        current = self._pipeline.cameras.get(name)
        if camera is None:
            if current is not None:
                await asyncio.to_thread(self._pipeline.remove, name)
                log.info("camera %s: removed from %s", name, self._path)
        elif camera.detector not in self._pipeline.batchers:
            log.warning("camera %s: its detector %s is there after the next start", name, camera.detector)
        elif current is None or current.config != camera:
            await asyncio.to_thread(self._pipeline.put, name, camera)
            log.info("camera %s: %s in %s", name, "added" if current is None else "changed", self._path)

    def _tell_what_waits(self, before: AppConfig, now: AppConfig) -> None:
        sections = set(AppConfig.model_fields) - {"cameras", "detector", "detectors"}
        waiting = [name for name in sections if getattr(now, name) != getattr(before, name)]
        if set(now.detectors) != set(before.detectors):
            waiting.append("detectors")
        if waiting:
            log.warning(
                "%s: edits of %s take effect at the next start", self._path, ", ".join(sorted(waiting))
            )


def _load(path: Path) -> AppConfig:
    """A file whose cameras' sources are sources, if perhaps not there now.

    Raises:
        UsageError: it is none.
    """
    config = load_config(path)
    for camera in config.cameras.values():
        source_kind(camera.source)
    return config


def _as_filed(path: Path, config: AppConfig) -> AppConfig:
    """``config`` without what the command line said, which is never of cameras."""
    try:
        return load_config(path).model_copy(update={"cameras": config.cameras})
    except ConfigError:  # edited since; that is said as soon as it is read again
        return config
