"""The HTTP surface: page, WHEP, WHIP, camera list, snapshots, metrics, health.

Every request but ``/healthz`` needs the token where one is set (Bearer, or the cookie that
``/?token=...`` leaves), and so does every WebSocket. Knows nothing of how frames are made.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from time import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from stream.annotate import class_colour
from stream.batching import Batcher
from stream.config import ServerConfig, is_loopback
from stream.errors import LookoutError, SignallingError, redact
from stream.metrics import exposition
from stream.pipeline import Pipeline
from stream.webrtc.ice import ice_servers
from stream.webrtc.whep import WhepService
from stream.webrtc.whip import WhipService

WEB = Path(__file__).parent / "web"
COOKIE = "lookout_token"
# The page is all our own files: nothing inline, nothing from elsewhere.
PAGE_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob: mediastream:",
        "frame-ancestors 'none'",
    )
)


def create_app(pipeline: Pipeline, config: ServerConfig) -> FastAPI:
    """The ASGI application. It owns the viewers' and publishers' sessions, not the pipeline."""
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
    app = FastAPIOffline(title="lookout", version=version("lookout"), lifespan=lifespan, redoc_url=None)
    app.include_router(whep.router)
    app.include_router(whip.router)
    token = None if config.token is None else config.token.get_secret_value().encode()
    app.add_middleware(_Guard, token=token, allow_origins=config.allow_origins)
    if config.allow_origins:  # after the guard, so around it: a browser asks first, without a token
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allow_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match"],
            expose_headers=["Location", "ETag", "Link", "Accept-Patch", "Retry-After"],
        )
    _add_api(app, pipeline)
    app.mount("/web", StaticFiles(directory=WEB), name="web")

    @app.exception_handler(LookoutError)
    async def refuse(request: Request, error: LookoutError) -> JSONResponse:
        status, headers = 500, {}
        if isinstance(error, SignallingError):
            status = error.status
            if error.retry_after_s is not None:
                headers["Retry-After"] = str(error.retry_after_s)
        return JSONResponse({"error": redact(str(error))}, status, headers)

    return app


class _Guard:
    """Lets requests and WebSockets through that may come; the others it answers itself."""

    def __init__(self, app: ASGIApp, token: bytes | None, allow_origins: Collection[str]) -> None:
        self._app = app
        self._token = token
        self._allow_origins = frozenset(origin.lower() for origin in allow_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = None if scope["type"] == "lifespan" else self._answer(HTTPConnection(scope))
        await (answer or self._app)(scope, receive, send)

    def _answer(self, asked: HTTPConnection) -> Response | None:
        """What is said instead of going on, or None."""
        if asked.scope["type"] == "websocket" and not self._is_welcome(asked.headers):
            reason = (
                f"expected a page of this site ({asked.headers.get('host')}), or one of server.allow_origins, "
                f"got one of {asked.headers['origin'][:80]}; a proxy in front must leave Host as it is"
            )
            return JSONResponse({"error": reason}, 403)
        if self._token is None:
            # Another site's page, whose name was made to resolve to this machine, is not a local client.
            if is_loopback(asked.url.hostname or ""):
                return None
            return JSONResponse({"error": "open this by the address it listens on, such as 127.0.0.1"}, 403)
        if asked.url.path == "/healthz":
            return None
        offered = asked.query_params.get("token") if asked.url.path == "/" else None
        if offered is not None and self._is_token(offered):
            response = RedirectResponse("/", status_code=303)
            is_secure = asked.url.scheme == "https"
            response.set_cookie(COOKIE, offered, httponly=True, samesite="strict", secure=is_secure)
            return response
        scheme, _, bearer = asked.headers.get("authorization", "").partition(" ")
        if self._is_token(bearer if scheme.lower() == "bearer" else asked.cookies.get(COOKIE, "")):
            return None
        reason = "a token is required: send 'Authorization: Bearer TOKEN', or open /?token=TOKEN once"
        return JSONResponse({"error": reason}, 401, {"WWW-Authenticate": "Bearer"})

    def _is_token(self, given: str) -> bool:
        return self._token is not None and hmac.compare_digest(given.encode(), self._token)

    def _is_welcome(self, headers: Headers) -> bool:
        """Whether a WebSocket may come from there: a browser sends cookies with those of any page (RFC 6455, 10.2)."""
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._allow_origins:  # None: no browser
            return True
        return origin.lower().partition("://")[2] == headers.get("host", "").lower()


def _about(batcher: Batcher) -> dict[str, Any]:
    spec, detector = batcher.detector.spec, batcher.detector
    colours = [class_colour(index) for index in range(len(spec.names))]
    return {
        "model": detector.path.stem,
        "family": spec.family,
        "input": [spec.input_width, spec.input_height],
        "device": detector.device,
        "names": list(spec.names),
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours],
        "fault": batcher.fault,
    }


def _add_api(app: FastAPI, pipeline: Pipeline) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/api/app")
    async def about() -> dict[str, Any]:
        """What runs: the version, and each detector by name with its model, device and classes."""
        detectors = {name: _about(batcher) for name, batcher in pipeline.batchers.items()}
        return {"version": app.version, "detectors": detectors, "fault": pipeline.fault}

    @app.get("/api/cameras")
    async def cameras() -> list[dict[str, Any]]:
        """Every camera with its state, rates and counters."""
        return [asdict(camera.status()) for camera in pipeline.cameras.values()]

    @app.get("/api/cameras/{camera_id}")
    async def camera(camera_id: str) -> dict[str, Any]:
        return asdict(pipeline.camera(camera_id).status())

    @app.get("/api/cameras/{camera_id}/snapshot.jpg", response_class=Response)
    async def snapshot(camera_id: str) -> Response:
        """The newest detected picture with its boxes."""
        jpeg = await run_in_threadpool(pipeline.camera(camera_id).snapshot)
        if jpeg is None:
            raise SignallingError(f"camera {camera_id!r} has not shown a picture yet; try again", 503, 1)
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(exposition(pipeline), media_type="text/plain; version=0.0.4")

    @app.get("/healthz")
    async def health() -> JSONResponse:
        """200 while the detector works, whatever the cameras do; 503 with the reason otherwise."""
        body = {"status": "ok" if pipeline.fault is None else "failing", "detector": pipeline.fault}
        return JSONResponse(body, 200 if pipeline.fault is None else 503)
