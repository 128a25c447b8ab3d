"""``lookout watch``: build everything, say what was chosen, serve until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from export.catalogue import resolve_model
from export.convert import ensure_contract
from stream.config import DEFAULT_DETECTOR, AppConfig, DetectorConfig, ServerConfig
from stream.detector import Detector
from stream.encode import check_h264
from stream.errors import UsageError, redact
from stream.health import Health
from stream.limits import PatientProtocol
from stream.live_config import LiveConfig
from stream.memory import limit_heaps
from stream.pipeline import Pipeline
from stream.server import create_app
from stream.sources import PUBLISHED, source_kind
from stream.systemd import keep_told, notify

log = logging.getLogger(__name__)

Say = Callable[[str], None]

MOST_RECEIVED_BYTES = 1024
"""In one WebSocket message: clients have nothing to say there."""

MOST_HEADER_BYTES = 16 << 10
"""Of one request, its line included."""

MOST_OTHER_CONNECTIONS = 256
"""Besides one a viewer; whoever comes then gets 503."""


def watch(config: AppConfig, say: Say, path: Path | None = None) -> None:
    """Run the live app until Ctrl-C or SIGTERM; ``path`` is the file that ``config`` came from.

    Raises:
        LookoutError: the port, the model or the device cannot be had; cameras never raise.
    """
    limit_heaps()
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
        asyncio.run(serve(pipeline, config, listener, path))
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


class Server(uvicorn.Server):
    """uvicorn that ends in order at the first signal and at once at the second."""

    def __init__(self, api: FastAPI, config: ServerConfig) -> None:
        super().__init__(
            uvicorn.Config(
                api,
                http=PatientProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                timeout_keep_alive=5,
                limit_concurrency=config.max_viewers + MOST_OTHER_CONNECTIONS,
                h11_max_incomplete_event_size=MOST_HEADER_BYTES,
                ws="websockets-sansio",
                ws_max_size=MOST_RECEIVED_BYTES,
                ws_per_message_deflate=False,  # boxes are small, and soon old
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not as uvicorn's, which raises the signal anew at its end: there is more to end than uvicorn."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.should_exit = True


async def serve(
    pipeline: Pipeline, config: AppConfig, listener: socket.socket, path: Path | None = None
) -> None:
    """Serve until a signal; then viewers, cameras and threads end within about two seconds."""
    live = LiveConfig(config, pipeline, path)
    api = create_app(pipeline, config.server, live)
    server = Server(api, config.server)
    pipeline.start()
    telling = asyncio.create_task(keep_told(api.state.health))
    watching = asyncio.create_task(live.watch())
    stopping = asyncio.create_task(_stop_with(server, pipeline, api.state.health))
    try:
        await server.serve(sockets=[listener])
    finally:
        server.should_exit = True
        await stopping
        telling.cancel()
        watching.cancel()
        await asyncio.gather(telling, watching, return_exceptions=True)


async def _stop_with(server: Server, pipeline: Pipeline, health: Health) -> None:
    """Stop the cameras as soon as the server is told to end, while it says goodbye to its clients."""
    while not server.should_exit:
        await asyncio.sleep(0.05)
    health.draining = True
    notify("STOPPING=1")
    await asyncio.to_thread(pipeline.stop)


def address(config: ServerConfig, listener: socket.socket) -> str:
    """The address to open in a browser."""
    host = config.host if config.host not in ("0.0.0.0", "::") else socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    token = "/?token=…" if config.token else ""
    return f"http://{host}:{listener.getsockname()[1]}{token}"
