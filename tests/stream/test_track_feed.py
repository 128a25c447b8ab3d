"""Tracks as JSON on a WebSocket of the real app, and at its bounds."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx2 as httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from stream.errors import SignallingError
from stream.track_feed import MOST_LISTENERS, TrackFeed
from tests.stream.test_cli import watching


def listening(address: str, camera: str) -> Any:
    return connect(f"{address.replace('http', 'ws')}/api/cameras/{camera}/tracks", proxy=None)


async def told(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 20))
    return message


async def test_who_enters_is_told_and_a_camera_that_is_removed_lets_its_listeners_go() -> None:
    shown: dict[int, str] = {}
    entered: set[int] = set()
    with watching("demo") as (_, address, _):
        async with listening(address, "demo") as socket:
            first = await told(socket)
            assert (first["width"], first["height"]) == (640, 272)
            frame, time_s = first["frame"], first["time_s"]
            before = {track["id"] for track in first["tracks"] if track["state"] != "tentative"}
            for count in range(500):  # the clip has 250 frames, and people in few of them
                if count >= 60 and "confirmed" in shown.values():
                    break
                message = await told(socket)
                assert message["frame"] > frame
                assert message["time_s"] > time_s or message["time_s"] < 1, (
                    "onwards, but where the clip begins anew"
                )
                frame, time_s = message["frame"], message["time_s"]
                entered |= {event["id"] for event in message["events"] if event["event"] == "entered"}
                for track in message["tracks"]:
                    shown[track["id"]] = track["state"]
                    assert track["state"] in ("tentative", "confirmed", "coasting", "lost")
                    assert track["state"] == "tentative" or track["id"] in before | entered
                    assert len(track["box"]) == 4
                    assert 0 <= track["score"] <= 1
            assert "confirmed" in shown.values()
            async with httpx.AsyncClient(base_url=address) as http:
                assert (await http.delete("/api/cameras/demo")).status_code == 204
            with suppress(ConnectionClosed):
                while True:
                    await told(socket)
            assert (socket.close_code, socket.close_reason) == (
                1001,
                "camera 'demo' is being changed or removed",
            )
        with pytest.raises(InvalidStatus) as refused:
            await listening(address, "demo")
        assert refused.value.response.status_code == 404


async def test_listeners_are_bounded() -> None:
    feed = TrackFeed()
    listeners = [feed.subscribe() for _ in range(MOST_LISTENERS)]
    with pytest.raises(SignallingError, match="32 listen"):
        feed.subscribe()
    feed.leave(listeners.pop())
    feed.subscribe()
    feed.close("the camera is gone")
    with pytest.raises(SignallingError, match="the camera is gone"):
        feed.subscribe()
