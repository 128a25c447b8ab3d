"""WHIP end to end: what others publish becomes a camera; who may, who may not, and what it says meanwhile."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import aioice
import pytest

from stream.detector import Detector
from stream.frames import Frame
from stream.webrtc import sessions
from tests.aiortc_peer import AiortcPeer
from tests.stream.watching import until
from tests.stream.whep_app import FRAGMENT, OFFER
from tests.stream.whip_app import SDP, Publisher, ffmpeg, listening, running

SENDS = OFFER.replace("a=recvonly", "a=sendonly")


def check(seen: list[tuple[int | None, Frame]], at_least: int) -> None:
    """Every picture is whole, in order, none twice, and each at its own time."""
    numbers = [number for number, _ in seen]
    assert len(numbers) >= at_least
    assert None not in numbers
    for (earlier, before), (later, after) in pairwise(seen):
        assert earlier is not None
        assert later is not None
        assert later > earlier
        assert after.time_s - before.time_s == pytest.approx((later - earlier) / 30, abs=0.002)
        assert after.captured_at > before.captured_at


@pytest.mark.parametrize("codec", ["h264", "vp8"])
async def test_what_is_published_becomes_a_camera(detector: Detector, codec: str) -> None:
    async with running(detector) as (app, http):
        await until(lambda: app.said("phone") == "waiting: nobody publishes yet; publish to /whip/phone")
        publisher = Publisher(http, "phone", codec=codec, sound=True)
        response = await publisher.publish()
        assert response.status_code == 201, response.text
        answer = response.text.splitlines()
        assert [line.split()[0] for line in answer if line.startswith("m=")] == ["m=audio", "m=video"]
        assert [line for line in answer if line in ("a=recvonly", "a=inactive")] == [
            "a=inactive",
            "a=recvonly",
        ]
        await until(lambda: len(app.seen) >= 40, 10)
        check(app.seen, 40)
        (status,) = [each for each in (await http.get("/api/cameras")).json() if each["id"] == "phone"]
        assert (status["state"], status["backend"], status["codec"]) == ("live", "whip", codec)
        assert (status["width"], status["height"], status["reconnects"]) == (320, 180, 0)
        assert status["detected"] > 0
        await publisher.leave()
        assert not [thread for thread in threading.enumerate() if thread.name == "video-decoder"]
        await until(lambda: app.said("phone") == "waiting: the publisher left; publish to /whip/phone")
        count = len(app.seen)
        again = Publisher(http, "phone", codec=codec)
        assert (await again.publish()).status_code == 201
        await until(lambda: len(app.seen) >= count + 5, 10)
        assert app.seen[-1][1].index > app.seen[count - 1][1].index
        assert app.seen[-1][1].time_s > app.seen[count - 1][1].time_s
        assert app.pipeline.cameras["phone"].status().reconnects == 1
        await again.connection.close()


async def test_ffmpeg_publishes(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It answers no checks of consent, which end a connection after half a minute; here after a second.
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 2)
    async with running(detector) as (app, _), listening(app) as url:
        async with ffmpeg(f"{url}/whip/phone", "high", tmp_path) as process:
            await until(lambda: len(app.seen) >= 60 or process.returncode is not None, 15)
            check(app.seen, 60)
            status = app.pipeline.cameras["phone"].status()
            assert (status.codec, status.bad_packets, status.missed) == ("h264", 0, 0)
            assert process.stdin is not None
            process.stdin.close()  # it ends by DELETE
            await until(lambda: "the publisher left" in app.said("phone"), 5)


async def test_a_publisher_who_cannot_connect_is_let_go_and_the_camera_says_so(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "CONNECT_TIMEOUT_S", 0.3)
    async with running(detector) as (app, http):
        assert (await http.post("/whip/phone", content=SENDS, headers=SDP)).status_code == 201
        says = "waiting: a publisher could not connect: no connection within 0.3 s"
        await until(lambda: app.said("phone") == f"{says}; publish to /whip/phone")
        assert (await http.post("/whip/phone", content=SENDS, headers=SDP)).status_code == 201


async def test_lost_packets_are_sent_again_or_repaired_by_a_keyframe(detector: Detector) -> None:
    async with running(detector) as (app, http):
        publisher = Publisher(http, "phone", codec="h264")
        await publisher.publish()
        await until(lambda: len(app.seen) >= 5, 10)
        lost = publisher.lose(lambda number, again: number % 10 == 0 and not again)
        await until(lambda: len(app.seen) >= 30, 10)
        numbers = [number for number, _ in app.seen]
        assert len(lost) >= 2
        assert numbers == list(range(numbers[0] or 0, (numbers[0] or 0) + len(numbers))), "none is missing"
        publisher.lose(lambda number, again: number % 10 == 0 or again)
        await until(lambda: len(app.seen) >= 45, 10)
        publisher.lose(lambda number, again: False)
        check(app.seen, 45)
        assert len(app.seen) < (app.seen[-1][0] or 0) - (numbers[0] or 0), (
            "some are lost for good, and no others"
        )
        assert app.said("phone") == "live: None"
        await publisher.leave()


async def test_a_killed_publisher_makes_room_and_disturbs_nobody(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "SILENCE_TIMEOUT_S", 1.5)
    async with running(detector, stall_s=0.5) as (app, http):
        killed, other, successor = (Publisher(http, camera) for camera in ("phone", "yard", "phone"))
        await killed.publish()
        await other.publish()
        yard, door = (app.pipeline.cameras[name] for name in ("yard", "door"))
        await until(lambda: app.said("phone") == app.said("yard") == "live: None", 10)
        refused = await successor.publish()
        assert (refused.status_code, refused.headers["retry-after"]) == (409, "5")
        assert refused.json()["error"] == (
            "somebody else publishes to camera 'phone'; try again once they have stopped"
        )
        await successor.connection.close()
        await killed.kill()
        await until(lambda: "the publisher sends no pictures" in app.said("phone"), 8)
        decoded = yard.status().decoded, door.status().decoded
        await until(lambda: "the publisher is gone (silent for 1.5 s)" in app.said("phone"), 8)
        for camera, before in zip((yard, door), decoded, strict=True):
            assert camera.status().decoded > before + 10
            assert (camera.status().state, camera.status().reconnects) == ("live", 0)
        heir = Publisher(http, "phone")
        assert (await heir.publish()).status_code == 201
        await until(lambda: app.said("phone") == "live: None", 10)
        assert app.said("yard") == "live: None"
        for publisher in (other, heir):
            await publisher.leave()


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda sdp: re.sub("42..1f", "4d001f", sdp.replace("VP8", "VP9")), 201, ""),
        (lambda sdp: "", 400, "one video section"),
        (lambda sdp: sdp.replace("a=sendonly", "a=recvonly"), 400, "to send, got recvonly"),
        (lambda sdp: sdp.replace("a=sendonly", "a=inactive"), 400, "to send, got inactive"),
        (lambda sdp: sdp.replace("m=video 9", "m=video nine"), 400, ""),
        (lambda sdp: sdp.replace("H264", "H265").replace("VP8", "VP9"), 406, "H.264 baseline"),
    ],
)
async def test_offers_of_any_profile_are_taken_and_those_that_cannot_be_used_refused(
    detector: Detector, change: Callable[[str], str], status: int, says: str
) -> None:
    async with running(detector) as (_, http):
        response = await http.post("/whip/phone", content=change(SENDS), headers=SDP)
        assert response.status_code == status
        if status == 201:
            assert "H264/90000" in response.text
            return
        assert says in response.json()["error"]
        assert "\n" not in response.json()["error"]
        assert (await http.post("/whip/phone", content=SENDS, headers=SDP)).status_code == 201, "it is free"


async def test_requests_are_taken_or_refused_as_the_rfc_says(detector: Detector) -> None:
    async with running(detector) as (_, http):
        assert (await http.post("/whip/phone", content=SENDS)).status_code == 415
        assert (await http.post("/whip/phone", content=b"\xff\xfe", headers=SDP)).status_code == 400
        unknown = await http.post("/whip/window", content=SENDS, headers=SDP)
        assert (unknown.status_code, unknown.json()["error"]) == (
            404,
            "no camera 'window'; there are: phone, yard, door",
        )
        fetches = await http.post("/whip/door", content=SENDS, headers=SDP)
        assert (fetches.status_code, fetches.json()["error"]) == (
            409,
            "camera 'door' cannot be published to; expected one of: phone, yard",
        )
        options = await http.options("/whip/phone")
        assert (options.status_code, options.headers["accept-post"]) == (204, "application/sdp")
        assert (await http.get("/whip/phone")).status_code == 405
        joined = await http.post("/whip/phone", content=SENDS, headers=SDP)
        assert joined.status_code == 201
        assert joined.headers["accept-patch"] == FRAGMENT["Content-Type"]
        path, etag = joined.headers["location"], joined.headers["etag"]
        assert path.startswith("/whip/phone/")
        candidate = "a=ice-ufrag:LIdv\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.7 51000 typ host\r\n"
        headers = {**FRAGMENT, "If-Match": etag}
        assert (await http.patch(path, content=candidate, headers=headers)).status_code == 204
        restart = candidate.replace("LIdv", "Othr")
        assert (await http.patch(path, content=restart, headers=headers)).status_code == 422
        stale = {**FRAGMENT, "If-Match": '"another"'}
        assert (await http.patch(path, content=candidate, headers=stale)).status_code == 412
        assert (await http.post("/whip/phone", content=SENDS, headers=SDP)).status_code == 409
        assert (await http.delete(path.replace("phone", "yard"))).status_code == 404
        assert (await http.delete(path)).status_code == 200
        assert (await http.delete(path)).status_code == 404
        assert (await http.post("/whip/phone", content=SENDS, headers=SDP)).status_code == 201


async def test_a_camera_that_is_changed_lets_everybody_go_and_takes_them_again(detector: Detector) -> None:
    async with running(detector) as (app, http):
        for stall_s in (4, 6):
            publisher, viewer = Publisher(http, "phone"), AiortcPeer(http, "phone", decode=False)
            assert (await publisher.publish()).status_code == 201
            await until(lambda: app.said("phone").startswith("live"), 10)
            await viewer.join()
            await viewer.wait_for(lambda peer: peer.packet_count > 5)
            assert (await http.patch("/api/cameras/phone", json={"stall_s": stall_s})).status_code == 200
            for peer in (publisher, viewer):
                await until(lambda peer=peer: peer.connection.connectionState == "closed", 10)
            await until(lambda: app.said("phone").startswith("waiting: nobody publishes yet"))
            names = [thread.name for thread in threading.enumerate()]
            assert not {"decode-phone", "encode-phone"} & set(names)
