"""The HTTP surface: page, WHEP, WHIP, camera list, snapshots, metrics, health.

Every request meets ``stream/guard.py`` first. What goes out passes ``redact``. Knows nothing of how frames are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from time import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from stream.cameras_api import cameras_router
from stream.config import AppConfig, ServerConfig
from stream.detectors_api import about, detectors_router
from stream.errors import LookoutError, SignallingError, redact
from stream.guard import Guard
from stream.health import Health
from stream.live_config import LiveConfig
from stream.metrics import exposition
from stream.pipeline import Pipeline
from stream.webrtc.ice import ice_servers
from stream.webrtc.whep import WhepService
from stream.webrtc.whip import WhipService

WEB = Path(__file__).parent / "web"


def create_app(pipeline: Pipeline, config: ServerConfig, live: LiveConfig | None = None) -> FastAPI:
    """The ASGI application. It owns the viewers' and publishers' sessions, not the pipeline.

    ``live`` takes changes of cameras and detectors; None: those that no file holds.
    """
    live = live or LiveConfig(AppConfig(server=config, cameras={}), pipeline)
    whep = WhepService(
        camera_for=pipeline.camera,
        max_viewers=config.max_viewers,
        loopback_only=config.is_loopback,
        ice_servers=lambda: ice_servers(config.ice_servers, time()),
    )

    whip = WhipService(
        inlet_for=pipeline.inlet,
        loopback_only=config.is_loopback,
        ice_servers=lambda: ice_servers(config.ice_servers, time()),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.gather(whep.close(), whip.close())

    # The viewer of /docs is served from here: cameras often live on networks without the internet.
    app = FastAPIOffline(
        title="lookout",
        version=version("lookout"),
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # it would repeat the request's address
    )
    app.state.health = Health(pipeline)
    app.include_router(whep.router)
    app.include_router(whip.router)
    app.include_router(cameras_router(pipeline, live))
    app.include_router(detectors_router(pipeline, live.detectors))
    token = None if config.token is None else config.token.get_secret_value().encode()
    app.add_middleware(Guard, token=token, allow_origins=config.allow_origins)
    if config.allow_origins:  # after the guard, so around it: a browser asks first, without a token
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allow_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match"],
            expose_headers=["Location", "ETag", "Link", "Accept-Patch", "Retry-After"],
        )
    _add_api(app, pipeline, live)
    app.mount("/web", StaticFiles(directory=WEB), name="web")

    _add_refusals(app)
    return app


def _add_refusals(app: FastAPI) -> None:
    """Every refusal has one form, and no echo of a secret."""

    @app.exception_handler(LookoutError)
    async def refuse(request: Request, error: LookoutError) -> JSONResponse:
        status, headers = 500, {}
        if isinstance(error, SignallingError):
            status = error.status
            if error.retry_after_s is not None:
                headers["Retry-After"] = str(error.retry_after_s)
        return JSONResponse({"error": redact(str(error))}, status, headers)

    @app.exception_handler(HTTPException)
    async def refuse_plainly(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": redact(str(error.detail))}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_values(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return JSONResponse({"error": redact("; ".join(faults))}, 422)


def _add_api(app: FastAPI, pipeline: Pipeline, live: LiveConfig) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    @app.get("/api/app")
    async def app_now() -> dict[str, Any]:
        """What runs: the version, and each detector by name with its model, device and classes."""
        detectors = {name: about(batcher) for name, batcher in pipeline.batchers.items()}
        return {
            "version": app.version,
            "detectors": detectors,
            "fault": pipeline.fault and redact(pipeline.fault),
            "config_fault": live.fault,
        }

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(exposition(pipeline), media_type="text/plain; version=0.0.4")

    @app.get("/healthz")
    async def health() -> JSONResponse:
        """200 while it runs, whatever the cameras do; 503: it has to be restarted. Needs no token."""
        alive = app.state.health.alive
        return JSONResponse({"status": "ok" if alive else "failing"}, 200 if alive else 503)

    @app.get("/readyz")
    async def readiness() -> JSONResponse:
        """200 once there is something to see, or every camera was tried; 503 before, and when it ends. No token."""
        is_ready = app.state.health.ready
        return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)
