"""``lookout watch``: build everything, say what was chosen, serve until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from export.catalogue import resolve_model
from export.convert import ensure_contract
from stream.config import DEFAULT_DETECTOR, AppConfig, DetectorConfig, ServerConfig
from stream.detector import Detector
from stream.encode import check_h264
from stream.errors import UsageError, redact
from stream.pipeline import Pipeline
from stream.server import create_app
from stream.sources import PUBLISHED, source_kind

log = logging.getLogger(__name__)

Say = Callable[[str], None]

MOST_RECEIVED_BYTES = 1024
"""In one WebSocket message: clients have nothing to say there."""


def watch(config: AppConfig, say: Say) -> None:
    """Run the live app until Ctrl-C or SIGTERM.

    Raises:
        LookoutError: the port, the model or the device cannot be had; cameras never raise.
    """
    for camera in config.cameras.values():
        source_kind(camera.source)  # a misspelt source is said now; one that is down may come up later
    if config.encoder.h264 != "libx264":
        check_h264(config.encoder.h264)
        say(f"encoder {config.encoder.h264} (as asked)")
    listener = listen(config.server)
    try:
        detector = open_detector(config.detector, say)
        others = {name: open_detector(each, say, name) for name, each in config.detectors.items()}
        pipeline = Pipeline(config, detector, others)
        for name, camera in config.cameras.items():
            where = f" (publish to /whip/{name})" if camera.source == PUBLISHED else ""
            say(f"camera {name}: {redact(camera.source)}{where}, overlay {camera.overlay}")
        say(f"open    {address(config.server, listener)}")
        asyncio.run(serve(pipeline, config.server, listener))
    finally:
        listener.close()


def open_detector(config: DetectorConfig, say: Say, name: str = DEFAULT_DETECTOR) -> Detector:
    """Load a configured model on its configured device, and say both."""
    path = ensure_contract(resolve_model(config.model), say)
    detector = Detector(path, config.device, config.threads, say)
    spec = detector.spec
    whose = "" if name == DEFAULT_DETECTOR else f"{name}: "
    say(
        f"model   {whose}{Path(path).stem}: {spec.family}, {spec.input_width}x{spec.input_height}, "
        f"{len(spec.names)} classes"
    )
    say(f"device  {whose}{detector.device} ({detector.reason})")
    return detector


def listen(config: ServerConfig) -> socket.socket:
    """A listening socket, taken before anything slow is started.

    Raises:
        UsageError: the address cannot be had; says which and what to do.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # The protocol is named, or asyncio would not turn Nagle's algorithm off, which holds each answer up for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {config.host}:{config.port} ({error.strerror or error}); "
            "choose another with --port (0 takes a free one) or --host"
        ) from error
    return listener


async def serve(pipeline: Pipeline, config: ServerConfig, listener: socket.socket) -> None:
    """Serve until a signal; then viewers, cameras and threads end within about two seconds."""
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(pipeline, config),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=5,
            ws="websockets-sansio",
            ws_max_size=MOST_RECEIVED_BYTES,
            ws_per_message_deflate=False,  # boxes are small, and soon old
        )
    )
    # uvicorn raises SIGTERM again once it has ended; by then the cameras must be let go, not the process.
    signal.signal(signal.SIGTERM, lambda *_: None)
    pipeline.start()
    stopping = asyncio.create_task(_stop_with(server, pipeline))
    try:
        await server.serve(sockets=[listener])
    finally:
        server.should_exit = True
        await stopping


async def _stop_with(server: uvicorn.Server, pipeline: Pipeline) -> None:
    """Stop the cameras as soon as the server is told to end, while it says goodbye to its clients."""
    while not server.should_exit:
        await asyncio.sleep(0.05)
    await asyncio.to_thread(pipeline.stop)


def address(config: ServerConfig, listener: socket.socket) -> str:
    """The address to open in a browser."""
    host = config.host if config.host not in ("0.0.0.0", "::") else socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    token = "/?token=…" if config.token else ""
    return f"http://{host}:{listener.getsockname()[1]}{token}"
