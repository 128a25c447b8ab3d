"""``LiveDetectors``: another model for a detector while its cameras run, and the one before again.

A model is tried in a process of its own (``stream/trial.py``), then loaded beside the one that runs, and takes over
between two batches (``stream/batching.py``); what fails before that touches nothing. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stream.batching import Batcher, Loaded
from stream.config import DEFAULT_DETECTOR, AppConfig, DetectorConfig
from stream.config_edit import save_detector, signature
from stream.config_file import detector_of
from stream.detector import Detector
from stream.errors import ArtifactError, ConfigError, LookoutError, SignallingError, redact
from stream.memory import give_back
from stream.pipeline import Pipeline
from stream.sources.allowed import allowed_model
from stream.trial import Tried, try_out

log = logging.getLogger(__name__)

Document = Mapping[str, Any]
"""A detector's keys and values, as in the file."""

_OF_SESSION = ("model", "device", "threads")  # what only another session can follow


class LiveDetectors:
    """For the event loop's thread alone. One model is loaded at a time.

    Args:
        config: in force at the start.
        filed: what the file said then, without what the command line said besides.
        pipeline: whose detectors are changed.
        path: the file; None: there is none.
        saving: held while the file is written.

    ``loading`` is the detector for which a model is being loaded now, and that model.
    """

    def __init__(
        self,
        config: AppConfig,
        filed: AppConfig,
        pipeline: Pipeline,
        path: Path | None,
        saving: asyncio.Lock,
    ) -> None:
        self.loading: tuple[str, str] | None = None
        self._folders = config.server.allow_models
        self._filed = dict(_by_name(filed))
        self._pipeline = pipeline
        self._path = path
        self._saving = saving
        self._loading = asyncio.Lock()

    def batcher(self, name: str) -> Batcher:
        """The detector of that name.

        Raises:
            SignallingError: 404, with the names there are.
        """
        batchers = self._pipeline.batchers
        if name not in batchers:
            raise SignallingError(f"no detector {name[:40]!r}; there are: {', '.join(batchers)}", 404)
        return batchers[name]

    async def put(self, name: str, detector: Document, *, save: bool) -> None:
        """Load a model, also one of the same name anew, and have it take over; or go back to the one before, with
        ``previous: true`` and nothing else.

        Raises:
            SignallingError: 403, its file is not allowed; 404, there is no such detector; 409, another model is
                being loaded, there is none before, or it cannot be saved; 422, a value is wrong, or it does not run.
        """
        batcher = self.batcher(name)
        if "previous" not in detector:
            await self._swap(batcher, await self._checked(batcher, detector), loads=True, save=save)
        elif detector["previous"] is True and len(detector) == 1:
            await self._go_back(batcher, save)
        else:
            raise SignallingError('expected {"previous": true} alone, or the values of a detector', 422)

    async def change(self, name: str, changes: Document, *, save: bool) -> None:
        """Give a detector other values of some keys; null gives one its default. Others than those of its session
        need no loading.

        Raises:
            SignallingError: as ``put``.
        """
        batcher = self.batcher(name)
        given = batcher.model.config.model_dump(mode="json", exclude_defaults=True)
        detector = {key: value for key, value in {**given, **changes}.items() if value is not None}
        config = await self._checked(batcher, detector)
        await self._swap(batcher, config, loads=bool(set(changes) & set(_OF_SESSION)), save=save)

    async def follow(self, config: AppConfig) -> list[str]:
        """Bring the detectors in line with an edit of the file; what cannot be is said, and tried again at the next."""
        faults = []
        for name, now in _by_name(config).items():
            before = self._filed.get(name)
            if before is None or before == now:
                continue
            batcher = self.batcher(name)
            edited = {key: value for key, value in now if value != getattr(before, key)}
            wanted = batcher.model.config.model_copy(update=edited)
            try:
                async with self._loading:
                    if wanted != batcher.model.config:
                        await self._take_over(batcher, wanted, loads=bool(set(edited) & set(_OF_SESSION)))
            except LookoutError as error:
                faults.append(f"detector {name}: {error}")
                log.error("detector %s: stays as it is: %s", name, redact(str(error)))
            else:
                self._filed[name] = now
        return faults

    async def _checked(self, batcher: Batcher, detector: Document) -> DetectorConfig:
        try:
            config = detector_of(batcher.name, detector)
        except ConfigError as error:
            raise SignallingError(str(error), 422) from None
        if config.model != batcher.model.config.model:
            # In a thread: it looks for files, and a disk of the network may not answer.
            allowed = await asyncio.to_thread(allowed_model, config.model, self._folders)
            config = config.model_copy(update={"model": allowed})
        return config

    async def _swap(self, batcher: Batcher, config: DetectorConfig, *, loads: bool, save: bool) -> None:
        refuse_unsaveable(self._path, save)
        self._refuse_two()
        before = batcher.model.config
        async with self._loading:
            try:
                await self._take_over(batcher, config, loads=loads, from_api=True)
            except SignallingError:
                raise
            except LookoutError as error:
                raise SignallingError(f"{error}; the model before stays", 422) from None
        await self._save_if(save, batcher, before)

    async def _go_back(self, batcher: Batcher, save: bool) -> None:
        refuse_unsaveable(self._path, save)
        self._refuse_two()
        before, previous = batcher.model.config, batcher.previous
        if previous is None:
            raise SignallingError(f"detector {batcher.name!r} has run no other model before this one", 409)
        async with self._loading:
            await asyncio.to_thread(batcher.exchange, previous)
        log.info("detector %s: back to %s", batcher.name, previous.config.model)
        await self._save_if(save, batcher, before)

    async def _take_over(
        self, batcher: Batcher, config: DetectorConfig, *, loads: bool, from_api: bool = False
    ) -> None:
        if not loads:
            await asyncio.to_thread(batcher.exchange, Loaded(config, batcher.detector))
            log.info("detector %s: changed", batcher.name)
            return
        by_name = from_api and "/" not in config.model and config.model != batcher.model.config.model
        self.loading = batcher.name, config.model
        try:
            tried = await try_out(config, by_name=by_name)
            detector = await asyncio.to_thread(_opened, config, tried)
            await asyncio.to_thread(batcher.exchange, Loaded(config, detector))
        finally:
            self.loading = None
            await asyncio.to_thread(give_back)
        where = f"{detector.device} ({detector.reason})"
        log.info("detector %s: %s took over, on %s", batcher.name, config.model, where)

    def _refuse_two(self) -> None:
        if self._loading.locked():
            what = f": {self.loading[1]} for {self.loading[0]}" if self.loading else ""
            raise SignallingError(
                redact(f"a model is being loaded already{what}; try again when it is there"), 409
            )

    async def _save_if(self, save: bool, batcher: Batcher, before: DetectorConfig) -> None:
        if not save or self._path is None:
            return
        config = batcher.model.config
        values = {"model": config.model, **config.model_dump(mode="json", exclude_defaults=True)}
        async with self._saving:
            try:
                saved = await asyncio.to_thread(save_detector, self._path, batcher.name, values, before)
            except ConfigError as error:
                raise SignallingError(f"the change is in force, but not saved: {error}", 409) from None
        self._filed[batcher.name] = _by_name(saved)[batcher.name]


def refuse_unsaveable(path: Path | None, save: bool) -> None:
    """Raises SignallingError: 409, there is no file to save to."""
    if save and path is None:
        raise SignallingError("there is no file to save to: lookout was started without --config", 409)


def _opened(config: DetectorConfig, tried: Tried) -> Detector:
    """Load what was tried. At the usual priority: a thread of a lower one would make all that wait for Python's
    lock wait as long as itself, and the session's own threads would keep it.
    """
    detector = Detector(tried.path, config.device, config.threads, spec=tried.spec)
    if signature(tried.path) != tried.signature:
        raise ArtifactError(f"{tried.path}: was written to while it was loaded; try again")
    return detector


def _by_name(config: AppConfig) -> dict[str, DetectorConfig]:
    return {DEFAULT_DETECTOR: config.detector, **config.detectors}
