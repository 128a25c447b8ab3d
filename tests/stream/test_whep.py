"""WHEP's signalling: what offers, candidates and requests are taken, and what the others are told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.errors import SignallingError
from stream.webrtc.ice import IceServer
from stream.webrtc.rendition import Rendition
from stream.webrtc.sdp import MAX_CANDIDATES, parse_fragment, without_unreachable_candidates
from stream.webrtc.whep import WhepService
from tests.stream.whep_app import FRAGMENT, OFFER, SDP, App, running


async def test_the_answer_says_what_will_be_sent() -> None:
    async with running() as (_, http):
        response = await http.post("/whep/door", content=OFFER, headers=SDP)
        assert response.status_code == 201
        assert response.headers["content-type"] == "application/sdp"
        assert response.headers["location"].startswith("/whep/door/")
        assert response.headers["etag"]
        lines = response.text.splitlines()
        assert next(line for line in lines if line.startswith("m=")).split()[3] == "108", (
            "constrained baseline first"
        )
        assert "a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay" in lines
        assert "a=sendonly" in lines
        assert any(" 127.0.0.1 " in line for line in lines if line.startswith("a=candidate"))
        assert not any(".local" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (lambda sdp: "", 400, "one video section"),
        (lambda sdp: "hello", 400, ""),
        (lambda sdp: "\0" * 5000, 400, ""),
        (lambda sdp: sdp.replace("m=video 9", "m=video nine"), 400, ""),
        (lambda sdp: sdp.replace("a=ice-pwd:nSrAqIbXVlJ3Bws2Sa9ZDRba\n", ""), 400, "password"),
        (lambda sdp: sdp.replace("a=rtcp-mux\n", ""), 400, "RTCP mux"),
        (lambda sdp: "\n".join(x for x in sdp.split("\n") if "fingerprint" not in x), 400, "fingerprint"),
        (lambda sdp: sdp.replace("a=recvonly", "a=sendonly"), 400, "to receive, got sendonly"),
        (lambda sdp: sdp.replace("m=video", "m=audio"), 400, "one video section"),
        (
            lambda sdp: sdp + sdp[sdp.index("m=video") :].replace("a=mid:0", "a=mid:1"),
            400,
            "one video section",
        ),
        (lambda sdp: sdp + "m=audio 9 UDP/TLS/RTP/SAVPF 0\n" * 400, 400, "one video section"),
        (lambda sdp: sdp.replace("H264", "H265").replace("VP8", "VP9"), 406, "H.264 baseline"),
        (
            lambda sdp: sdp.replace("packetization-mode=1", "packetization-mode=0").replace("VP8", "VP9"),
            406,
            "H.264",
        ),
        (lambda sdp: sdp.replace("a=mid:0", "a=mid"), 400, "such as a=mid:0"),
    ],
)
async def test_offers_that_cannot_be_used_are_refused(
    change: Callable[[str], str], status: int, says: str
) -> None:
    async with running() as (app, http):
        response = await http.post("/whep/door", content=change(OFFER), headers=SDP)
        print(response.status_code, response.text)
        assert response.status_code == status
        assert says in response.json()["error"]
        assert "\n" not in response.json()["error"]
        assert app.sessions == 0


async def test_a_turn_server_that_is_down_holds_nobody_up_for_long() -> None:
    ice = IceServer(("turn:192.0.2.1:3478",), "user", "password")
    async with running(ice=[ice]) as (_, http):
        began = time.monotonic()
        response = await http.post("/whep/door", content=OFFER, headers=SDP)
        assert time.monotonic() - began < 4.0
        assert response.status_code == 201
        assert " 127.0.0.1 " in response.text
        assert response.headers["link"] == (
            '<turn:192.0.2.1:3478>; rel="ice-server"; username="user"; credential="password"; '
            'credential-type="password"'
        )


async def test_boxes_as_data_share_an_encoder_of_their_own() -> None:
    async with running() as (app, http):
        for boxes in ("drawn", "data", "data"):
            response = await http.post(f"/whep/door?boxes={boxes}", content=OFFER, headers=SDP)
            assert response.status_code == 201
            assert "H264/90000" in response.text
        assert set(app.hubs) == {Rendition("h264"), Rendition("h264", "data")}


async def test_a_smaller_picture_is_made_for_who_shows_a_smaller_one() -> None:
    async with running() as (app, http):
        for height in ("60", "90", "91", "4000"):
            response = await http.post(f"/whep/door?height={height}", content=OFFER, headers=SDP)
            assert response.status_code == 201
        assert set(app.hubs) == {Rendition("h264", height=90), Rendition("h264")}
        for height in ("0", "-1", "1e3", "123456", "", "%C2%B2"):
            response = await http.post(f"/whep/door?height={height}", content=OFFER, headers=SDP)
            assert response.status_code == 400
            assert "expected a number of pixels, such as 720" in response.json()["error"]


async def test_boxes_as_data_go_beside_pictures_that_cannot_carry_them() -> None:
    async with running() as (app, http):
        no_h264 = OFFER.replace("H264", "H265")
        drawn = await http.post("/whep/door", content=no_h264, headers=SDP)
        assert (drawn.status_code, "link" in drawn.headers) == (201, False)
        for offer in (OFFER, no_h264):
            data = await http.post("/whep/door?boxes=data", content=offer, headers=SDP)
            assert data.status_code == 201
            assert data.headers["link"] == f'<{data.headers["location"]}/boxes>; rel="urn:lookout:boxes"'
        assert set(app.hubs) == {Rendition("vp8"), Rendition("h264", "data"), Rendition("vp8", "data")}
        response = await http.post("/whep/door?boxes=somewhere", content=OFFER, headers=SDP)
        assert (response.status_code, response.json()["error"]) == (
            400,
            "boxes=somewhere: expected drawn or data",
        )


async def test_requests_of_the_wrong_kind_are_refused() -> None:
    async with running(max_viewers=1) as (_, http):
        assert (await http.post("/whep/door", content=OFFER)).status_code == 415
        assert (await http.post("/whep/door", content=b"\xff\xfe", headers=SDP)).status_code == 400
        unknown = await http.post("/whep/window", content=OFFER, headers=SDP)
        assert (unknown.status_code, unknown.json()["error"]) == (404, "no camera 'window'; there are: door")
        assert (await http.delete("/whep/door/none")).status_code == 404
        assert (await http.patch("/whep/door/none", content="", headers=FRAGMENT)).status_code == 404
        assert (await http.get("/whep/door")).status_code == 405
        options = await http.options("/whep/door")
        assert (options.status_code, options.headers["accept-post"]) == (204, "application/sdp")
        taken = await http.post("/whep/door", content=OFFER, headers=SDP)
        full = await http.post("/whep/door", content=OFFER, headers=SDP)
        assert (full.status_code, full.headers["retry-after"]) == (503, "5")
        assert (await http.delete(taken.headers["location"])).status_code == 200
        assert (await http.delete(taken.headers["location"])).status_code == 404
        assert (await http.post("/whep/door", content=OFFER, headers=SDP)).status_code == 201


async def test_trickled_candidates() -> None:
    async with running() as (_, http):
        joined = await http.post("/whep/door", content=OFFER, headers=SDP)
        path, etag = joined.headers["location"], joined.headers["etag"]
        good = TRICKLE + "a=candidate:1 1 udp 2113937151 192.0.2.7 51000 typ host\r\na=end-of-candidates\r\n"
        headers = {**FRAGMENT, "If-Match": etag}
        assert (await http.patch(path, content=good, headers=headers)).status_code == 204
        assert (await http.patch(path, content=good, headers=FRAGMENT)).status_code == 204
        hidden = TRICKLE + "a=candidate:2 1 udp 1 0a1b.local 51000 typ host\r\n"
        assert (await http.patch(path, content=hidden, headers=headers)).status_code == 204
        malformed = TRICKLE + "a=candidate:1 1 udp\r\n"
        assert (await http.patch(path, content=malformed, headers=headers)).status_code == 400
        restart = good.replace("LIdv", "Othr")
        assert (await http.patch(path, content=restart, headers=headers)).status_code == 422
        stale = {**FRAGMENT, "If-Match": '"another"'}
        assert (await http.patch(path, content=good, headers=stale)).status_code == 412
        assert (await http.patch(path, content=good, headers=SDP)).status_code == 415


TRICKLE = "a=ice-ufrag:LIdv\r\na=ice-pwd:nSrAqIbXVlJ3Bws2Sa9ZDRba\r\nm=video 9 RTP/AVP 0\r\na=mid:0\r\n"


def candidates(first: int, count: int) -> str:
    """Candidate lines of addresses for documentation (RFC 5737): nobody is there."""
    return "".join(
        f"a=candidate:{n} 1 udp {n} 192.0.2.{n} 5000 typ host\r\n" for n in range(first, first + count)
    )


async def test_a_session_takes_a_bounded_number_of_candidates() -> None:
    async with running() as (app, http):
        fitting, more = OFFER + candidates(1, MAX_CANDIDATES - 2), OFFER + candidates(1, MAX_CANDIDATES + 1)
        assert (await http.post("/whep/door", content=more, headers=SDP)).status_code == 413
        # What another reader of SDP takes for a line of its own counts as one.
        hidden = OFFER + "a=x:\x0b" + candidates(1, MAX_CANDIDATES + 1).replace("\r\n", "\x0b")
        assert (await http.post("/whep/door", content=hidden, headers=SDP)).status_code == 413
        joined = await http.post("/whep/door", content=fitting, headers=SDP)
        assert joined.status_code == 201
        path = joined.headers["location"]
        (session,) = app.service._sessions.values()
        ice = session.peer._connection.getTransceivers()[0].receiver.transport.transport

        async def trickle(first: int, count: int) -> tuple[int, int]:
            content = TRICKLE + candidates(first, count)
            status = (await http.patch(path, content=content, headers=FRAGMENT)).status_code
            return status, len(ice.getRemoteCandidates())

        assert await trickle(100, 3) == (413, MAX_CANDIDATES - 2), "none of them is taken"
        assert await trickle(100, 2) == (204, MAX_CANDIDATES)
        assert await trickle(100, 2) == (204, MAX_CANDIDATES), "who repeats himself says nothing new"
        assert await trickle(102, 1) == (413, MAX_CANDIDATES)
        refused = await http.patch(path, content=TRICKLE + candidates(1, 200), headers=FRAGMENT)
        assert (refused.status_code, "at most 32 ICE candidates" in refused.json()["error"]) == (413, True)


@pytest.mark.parametrize(
    ("address", "port", "kind"),
    [
        ("example.org", 5000, "host"),
        ("localhost", 5000, "host"),
        ("192.0.2", 5000, "host"),
        ("fe80::1%eth0", 5000, "host"),
        ("192.0.2.7", 0, "host"),
        ("192.0.2.7", 65536, "host"),
        ("192.0.2.7", -1, "host"),
        ("192.0.2.7", "ssh", "host"),
        ("192.0.2.7", 5000, "guest"),
    ],
)
async def test_a_candidate_is_an_address_a_port_and_a_known_type(
    address: str, port: int | str, kind: str
) -> None:
    async with running() as (_, http):
        line = f"a=candidate:1 1 udp 1 {address} {port} typ {kind}\r\n"
        offered = await http.post("/whep/door", content=OFFER + line, headers=SDP)
        joined = await http.post("/whep/door", content=OFFER, headers=SDP)
        trickled = await http.patch(joined.headers["location"], content=TRICKLE + line, headers=FRAGMENT)
        for response in (offered, trickled):
            assert response.status_code == 400
            assert "expected an IP address, a port from 1 to 65535" in response.json()["error"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_offer_is_our_fault(data: st.DataObject) -> None:
    """Whatever is done to an offer: it is answered or refused, never an exception of another kind."""
    lines = OFFER.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(lines) - 1))
        line = lines[where]
        cut = data.draw(st.integers(0, len(line)))
        junk = data.draw(
            st.sampled_from(["", " ", ":", "-1", "99999999999999999999", "\u00e9", "a=", "m=video"])
        )
        lines[where] = line[:cut] + junk + data.draw(st.sampled_from(["", line[cut:]]))

    async def attempt() -> None:
        service = WhepService(lambda camera_id: App(), 4, True)
        with contextlib.suppress(SignallingError):
            await service.join("door", "\n".join(lines))
        await service.close()

    asyncio.run(attempt())


def test_unreachable_candidates_are_taken_out_of_an_offer() -> None:
    cleaned = without_unreachable_candidates(OFFER + "a=candidate:2 1 udp 1 192.0.2.9 5000 typ host\n")
    assert ".local" not in cleaned
    assert "end-of-candidates" not in cleaned
    assert "192.0.2.9" in cleaned
    assert cleaned.count("\r\n") == OFFER.count("\n") - 1
    assert parse_fragment("a=candidate:1 1 udp 1 x.LOCAL 1 typ host\n").candidates == ()
    browser = "1 1 tcp 1 2001:db8::7 9 typ srflx raddr 0.0.0.0 rport 0 tcptype active generation 0"
    assert [c.candidate for c in parse_fragment(f"a=candidate:{browser}\n").candidates] == [browser]
