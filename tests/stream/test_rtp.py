"""RTP packets as another implementation reads them, and the contract with aiortc."""

from __future__ import annotations

import inspect
from typing import Any

import aioice
import aiortc
import pytest
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket, unpack_header_extensions

from stream.encode import EncodedUnit
from stream.errors import DeviceUnavailable
from stream.webrtc import aiortc_adapter
from stream.webrtc.rtp import (
    HISTORY_PACKETS,
    MOST_RESEND_CREDIT,
    RESEND_GAP_S,
    RtpFormat,
    RtpStream,
    ntp_time,
)


def _stream(**negotiated: Any) -> RtpStream:
    return RtpStream(RtpFormat(ssrc=7, payload_type=108, mid="0", rtx_ssrc=8, **negotiated))


@pytest.mark.parametrize(
    "negotiated",
    [
        {},
        {"mid_id": 9},
        {"mid_id": 9, "abs_send_time_id": 2, "playout_delay_id": 5},
        {"mid_id": 9, "abs_send_time_id": 2, "playout_delay_id": 5, "abs_capture_time_id": 7},
        {"abs_capture_time_id": 1},
        {"abs_send_time_id": 14},
    ],
)
def test_packets_parse_with_another_implementation(negotiated: dict[str, int]) -> None:
    stream = _stream(**negotiated)
    unit = EncodedUnit((b"one", b"two", b"three"), (1 << 32) + 5, True, 0.0, 11)
    raw = list(stream.packetised(unit, lambda: 1.0e9, 0.9e9))
    packets = [RtpPacket.parse(data) for data in raw]
    assert [packet.payload for packet in packets] == [b"one", b"two", b"three"]
    assert [packet.marker for packet in packets] == [0, 0, 1]
    assert {(packet.ssrc, packet.payload_type, packet.timestamp) for packet in packets} == {(7, 108, 5)}
    assert [(p.sequence_number - packets[0].sequence_number) & 0xFFFF for p in packets] == [0, 1, 2]
    if negotiated:
        words = int.from_bytes(raw[0][14:16], "big")
        extensions = dict(unpack_header_extensions(0xBEDE, raw[0][16 : 16 + 4 * words]))
        send_time = (ntp_time(1.0e9) >> 14 & 0xFFFFFF).to_bytes(3, "big")
        expected = {
            "mid_id": b"0",
            "abs_send_time_id": send_time,
            "playout_delay_id": b"\0\0\0",
            "abs_capture_time_id": ntp_time(0.9e9).to_bytes(8, "big"),
        }
        assert extensions == {number: expected[name] for name, number in negotiated.items()}


@pytest.mark.parametrize("rtx_payload_type", [None, 109])
def test_history_is_long_and_bounded(rtx_payload_type: int | None) -> None:
    stream = _stream(rtx_payload_type=rtx_payload_type)
    sent = []
    for number in range(HISTORY_PACKETS + 10):
        unit = EncodedUnit((number.to_bytes(4, "big"),), number, False, 0.0, 4)
        sent += [RtpPacket.parse(data) for data in stream.packetised(unit, lambda: 0.0, 0.0)]
    assert stream.retransmission(sent[9].sequence_number, 0.0) is None
    again = stream.retransmission(sent[10].sequence_number, 0.0)
    assert again is not None
    packet = RtpPacket.parse(again)
    assert (packet.timestamp, packet.marker) == (10, 1)
    if rtx_payload_type is None:
        assert (packet.ssrc, packet.payload) == (7, sent[10].payload)
    else:
        number = sent[10].sequence_number.to_bytes(2, "big")
        assert (packet.ssrc, packet.payload_type, packet.payload) == (8, 109, number + sent[10].payload)


# The contract with aiortc


async def test_aiortc_still_has_what_the_adapter_reaches_into() -> None:
    """Fails on a version whose inside changed, naming what is missing."""
    connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    transceiver = connection.addTransceiver("video", direction="sendonly")
    transport = transceiver.receiver.transport
    ice = transport.transport._connection
    expected = [
        (connection, aiortc_adapter.CERTIFICATES_SLOT),
        (aiortc.RTCCertificate, "_create_ssl_context"),
        (transceiver, aiortc_adapter.SENDER_SLOT),
        (transceiver, "_headerExtensions"),
        *(
            (transceiver.sender, name)
            for name in ("_ssrc", "_rtx_ssrc", "_stream_id", "_track_id", "_enabled")
        ),
        *(
            (transport, name)
            for name in ("_register_rtp_sender", "_unregister_rtp_sender", "_tx_srtp", "state")
        ),
        *(
            (ice, name)
            for name in ("_nominated", "get_component_candidates", "check_incoming", "query_consent")
        ),
        (aioice.ice.StunProtocol, "datagram_received"),
        (transceiver.receiver, aiortc_adapter.JITTER_SLOT),
        (transceiver.receiver, "_handle_rtcp_packet"),
    ]
    missing = [f"{type(owner).__name__}.{name}" for owner, name in expected if not hasattr(owner, name)]
    await connection.close()
    assert not missing
    assert isinstance(ice, aioice.Connection)
    # What takes the place of the jitter buffer is given a packet, with what aiortc made of its payload.
    assert list(inspect.signature(JitterBuffer.add).parameters) == ["self", "packet"]
    assert "packet._data" in inspect.getsource(aiortc.RTCRtpReceiver._handle_rtp_packet)
    ours, theirs = aiortc_adapter._Sender, aiortc.RTCRtpSender
    for name in ("send", "stop", "setTransport", "transport", "getStats", "_handle_rtcp_packet", "kind"):
        assert hasattr(theirs, name), name
        assert hasattr(ours, name), name


def test_another_aiortc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiortc, "__version__", "1.17.0")
    with pytest.raises(
        DeviceUnavailable, match=r"aiortc 1\.17\.0 is installed, but lookout works with 1\.16\."
    ):
        aiortc_adapter.check_version()


def test_what_is_sent_again_is_bounded() -> None:
    stream = _stream()
    unit = EncodedUnit((bytes(1000),) * 100, 0, False, 0.0, 100_000)
    numbers = [RtpPacket.parse(data).sequence_number for data in stream.packetised(unit, lambda: 0.0, 0.0)]
    assert stream.retransmission(numbers[0], 1.0)
    assert stream.retransmission(numbers[0], 1.0 + RESEND_GAP_S / 2) == b"", "it is still on its way"
    again, now = 0, 2.0
    for _ in range(50):
        now += 1
        again += sum(len(stream.retransmission(number, now) or b"") for number in numbers)
    assert MOST_RESEND_CREDIT * 0.9 < again < MOST_RESEND_CREDIT * 1.2, (
        "a path that carries nothing gets no more"
    )
    list(stream.packetised(unit, lambda: 0.0, 0.0))
    assert 40 <= sum(stream.retransmission(number, now + 1) != b"" for number in numbers) <= 60


def test_what_a_keyframe_has_made_useless_leaves_room_for_what_it_has_not() -> None:
    stream = _stream()
    old = EncodedUnit((bytes(1000),) * 400, 0, False, 0.0, 400_000)
    keyframe = EncodedUnit((bytes(1000),) * 100, 3000, True, 0.0, 100_000)
    before, after = (
        [RtpPacket.parse(data).sequence_number for data in stream.packetised(unit, lambda: 0.0, 0.0)]
        for unit in (old, keyframe)
    )
    again = [stream.retransmission(number, 1.0) for number in before]
    assert 250 < sum(map(bool, again)) < 350
    assert all(stream.retransmission(number, 1.0) for number in after)
    assert stream.retransmission((before[0] - 1000) & 0xFFFF, 1.0) == b"", "forgotten, and not missed"
