"""One model tried in a process of its own, before an app that runs takes it: ``python -m stream.trial JSON``.

It is found, adapted, checked, loaded and run on a picture, at a low priority. One line of JSON says what the app has to
know to load it, or what is wrong. So what a file brings about, be it a crash of onnxruntime, want of memory or long
work in Python, is not the app's. ``try_out`` is the app's side. A composition root, as ``stream/app.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.artifact import ArtifactError, LookoutError, ModelSpec
from stream.config import DetectorConfig

TIMEOUT_S = 900.0
"""TensorRT builds its engine for minutes."""
NOISE_HEIGHT, NOISE_WIDTH = 270, 480


@dataclass(frozen=True, slots=True)
class Tried:
    """A contract file that was loaded and run; ``signature`` is its time of change, size and inode."""

    path: Path
    spec: ModelSpec
    signature: tuple[int, int, int]


async def try_out(config: DetectorConfig, *, by_name: bool) -> Tried:
    """Try the model of a detector in another process, which ends with the task that waits here.

    Args:
        config: what it would run with.
        by_name: its model is a name, and no file of that name will do.

    Raises:
        LookoutError: it cannot be had, is no detector, or does not run; one line.
    """
    asked = json.dumps({"config": config.model_dump(mode="json"), "by_name": by_name})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "stream.trial", asked,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            said, _ = await process.communicate()
    except TimeoutError:
        raise ArtifactError(f"{config.model}: did not run within {TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _read(said, process.returncode, config.model)


def _read(said: bytes, code: int | None, model: str) -> Tried:
    try:
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        ended = f"exit code {code}"
        if code is not None and code < 0:
            with suppress(ValueError):
                ended = signal.Signals(-code).name
        raise ArtifactError(
            f"{model}: the process that tried it died ({ended}): it needs too much memory, or makes onnxruntime crash"
        ) from None
    if "error" in answer:
        raise LookoutError(answer["error"])
    path = answer["path"]
    mtime_ns, size, inode = answer["signature"]
    return Tried(Path(path), ModelSpec.from_metadata(answer["metadata"], path), (mtime_ns, size, inode))


def _tried(config: DetectorConfig, by_name: bool) -> dict[str, Any]:
    from export.catalogue import named_model, resolve_model

    found = named_model(config.model) if by_name else resolve_model(config.model)
    # What takes a second to import, only now that there is a file.
    import numpy as np

    from export.convert import ensure_contract
    from stream.config_edit import signature
    from stream.detector import Detector

    path = ensure_contract(found, lambda line: None).resolve()
    as_read = signature(path)
    detector = Detector(path, config.device, config.threads)
    noise = np.random.default_rng(0).integers(0, 256, (NOISE_HEIGHT, NOISE_WIDTH, 3), np.uint8)
    try:
        for count in {1, config.max_batch or detector.session.most_pictures}:
            detector.detect_images([noise] * count, config.score_threshold)
    except Exception as error:  # onnxruntime's errors share no base class
        raise ArtifactError(f"{config.model}: cannot run it on a picture: {error}") from error
    return {"path": str(path), "metadata": detector.spec.to_metadata(), "signature": as_read}


def main() -> None:
    if hasattr(os, "nice"):
        os.nice(5)
    with suppress(OSError):  # where memory runs out, this is to end and not the app
        Path("/proc/self/oom_score_adj").write_text("1000")
    asked = json.loads(sys.argv[1])
    try:
        answer = _tried(DetectorConfig.model_validate(asked["config"]), asked["by_name"])
    except LookoutError as error:
        answer = {"error": " ".join(str(error).split())[:600]}
    except Exception as error:  # onnx, numpy and OS errors share no base class
        answer = {
            "error": f"{asked['config']['model']}: {type(error).__name__}: {error}".splitlines()[0][:600]
        }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
