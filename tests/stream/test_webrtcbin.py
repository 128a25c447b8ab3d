"""GStreamer's webrtcbin as a WHEP viewer: another WebRTC stack, with an RSA certificate."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from stream.webrtc.rendition import Rendition
from tests.gstreamer_peer import missing, watch
from tests.stream.whep_app import listening, running

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


async def test_webrtcbin_shows_every_frame_in_order() -> None:
    async with running() as (app, _), listening(app) as url:
        said = await asyncio.to_thread(watch, f"{url}/whep/door", 60)
        print(f"first picture {said['seconds']:.3f} s after the offer: {said['indices']}")
        assert list(app.hubs) == [Rendition("h264")]
    indices = said["indices"]
    assert None not in indices, "every picture is whole"
    assert all(later >= earlier for earlier, later in pairwise(indices))
    assert indices[-1] - indices[0] >= 50
