"""``/api/cameras``: what the cameras do, and their changes at run time. Knows nothing of how frames are made."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from stream.errors import SignallingError
from stream.live_config import LiveConfig
from stream.pipeline import Pipeline

Save = Annotated[bool, Query(description="write it into the YAML file as well, whose comments stay")]
Keys = Annotated[dict[str, Any], Body(description="a camera's keys and values, as in the YAML file")]


def cameras_router(pipeline: Pipeline, live: LiveConfig) -> APIRouter:
    """The routes under ``/api/cameras``."""
    router = APIRouter(prefix="/api/cameras")
    _add_reading(router, pipeline)
    _add_changing(router, pipeline, live)
    return router


def _add_reading(router: APIRouter, pipeline: Pipeline) -> None:
    @router.get("")
    async def cameras() -> list[dict[str, Any]]:
        """Every camera with its state, rates and counters."""
        return [asdict(camera.status()) for camera in pipeline.cameras.values()]

    @router.get("/{camera_id}")
    async def camera(camera_id: str) -> dict[str, Any]:
        return asdict(pipeline.camera(camera_id).status())

    @router.get("/{camera_id}/snapshot.jpg", response_class=Response)
    async def snapshot(camera_id: str) -> Response:
        """The newest detected picture with its boxes."""
        jpeg = await run_in_threadpool(pipeline.camera(camera_id).snapshot)
        if jpeg is None:
            raise SignallingError(f"camera {camera_id!r} has not shown a picture yet; try again", 503, 1)
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    @router.websocket("/{camera_id}/tracks")
    async def tracks(websocket: WebSocket, camera_id: str) -> None:
        """A JSON message a detected frame: every track with its state, and who entered and left."""
        try:
            await pipeline.camera(camera_id).track_feed.serve(websocket)
        except SignallingError as error:
            await websocket.send_denial_response(JSONResponse({"error": str(error)}, error.status))


def _add_changing(router: APIRouter, pipeline: Pipeline, live: LiveConfig) -> None:
    def told(request: Request, camera_id: str, status: int) -> JSONResponse:
        location = request.app.url_path_for("camera", camera_id=camera_id)
        return JSONResponse(asdict(pipeline.camera(camera_id).status()), status, {"Location": str(location)})

    @router.post("", status_code=201)
    async def add(request: Request, camera: Keys, save: Save = False) -> JSONResponse:
        """Add a camera: its ``id``, and its keys and values."""
        camera_id = str(camera.pop("id", ""))
        await live.add(camera_id, camera, save=save)
        return told(request, camera_id, 201)

    @router.put("/{camera_id}")
    async def put(request: Request, camera_id: str, camera: Keys, save: Save = False) -> JSONResponse:
        """Add a camera, or give one another configuration: what is left out gets its default."""
        added = await live.put(camera_id, camera, save=save)
        return told(request, camera_id, 201 if added else 200)

    @router.patch("/{camera_id}")
    async def change(request: Request, camera_id: str, camera: Keys, save: Save = False) -> JSONResponse:
        """Change some of a camera's values (RFC 7396): null gives one its default."""
        await live.change(camera_id, camera, save=save)
        return told(request, camera_id, 200)

    @router.delete("/{camera_id}", status_code=204)
    async def remove(camera_id: str, save: Save = False) -> None:
        """End a camera and forget it."""
        await live.remove(camera_id, save=save)
