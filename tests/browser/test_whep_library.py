"""A WHEP player that others wrote plays from lookout, in a page of another site.

It is ``whip-whep`` (MIT, https://github.com/medooze/whip-whep-js). It offers sound as well, trickles its
candidates with PATCH and leaves with DELETE, none of which lookout's own page does unless it must.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from stream.bench.chromium import wait_for
from tests import npm

pytestmark = pytest.mark.slow

PACKAGE = ("whip-whep", "1.2.0")
SHA512 = "CP+Tht3O/N6QLebW5LxsNKgzFN5KX6WinLr1SLs74feagYu+Gqy+0dw48p5RQuE+FlrM4xyOlOdW2UOQwljImA=="
TOKEN = "a-token-for-the-library"

PAGE = """<!doctype html><title>a wall</title><link rel="icon" href="data:,"><script type="module">
import { WHEPClient } from "./whep.js";
const video = document.createElement("video");
video.muted = video.autoplay = true;
const frame = document.createElement("p");
frame.append(video);
document.body.append(frame);
const peer = (window.peer = new RTCPeerConnection());
peer.addTransceiver("audio", { direction: "recvonly" });
peer.addTransceiver("video", { direction: "recvonly" });
peer.ontrack = ({ track, streams }) => {
  if (track.kind === "video") video.srcObject = streams[0] ?? new MediaStream([track]);
};
window.client = new WHEPClient();
client.view(peer, "WHEP", "TOKEN").catch((error) => (window.refused = String(error)));
</script>"""


@pytest.fixture(scope="module")
def library(pytestconfig: pytest.Config) -> bytes:
    cache = pytestconfig.cache
    assert cache is not None
    try:
        return npm.file_of(*PACKAGE, SHA512, "whep.js", cache.mkdir("npm"))
    except OSError as error:
        pytest.skip(f"needs {' '.join(PACKAGE)} from an npm registry (npm_config_registry): {error}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Another site: its origin, and the folder that it serves."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        serving.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing of interest."""


def test_a_library_plays_from_another_site(
    watch: Callable[..., Any], page: Page, library: bytes, site: tuple[str, Path], tmp_path: Path
) -> None:
    origin, folder = site
    config = tmp_path / "wall.yaml"
    config.write_text(
        f"server:\n  token: {TOKEN}\n  allow_origins: ['{origin}']\n"
        "cameras:\n  door: {source: 'synthetic:640x360@30'}\n"
    )
    with watch("--config", str(config)) as app:
        (folder / "whep.js").write_bytes(library)
        (folder / "index.html").write_text(
            PAGE.replace('WHEP"', f'{app.url}/whep/door"').replace("TOKEN", TOKEN)
        )
        answers: list[tuple[str, int]] = []
        page.on("response", lambda response: answers.append((response.request.method, response.status)))
        page.goto(origin)
        wait_for(page, "lookout.shown.length > 60 || window.refused")
        indices = [entry[0] for entry in page.evaluate("lookout.shown") if entry[0] is not None]
        assert page.evaluate("window.refused ?? null") is None
        assert len(indices) >= 50
        assert all(later >= earlier for earlier, later in pairwise(indices))
        assert indices[-1] - indices[0] >= 45, "pictures must move on"
        page.evaluate("client.stop()")
        page.wait_for_timeout(100)
        assert ("POST", 201) in answers
        assert ("PATCH", 204) in answers
        # It closes the connection first; the session may be over before it is told to end.
        ends = {status for method, status in answers if method == "DELETE"}
        assert ends in ({200}, {404})
        assert all(status < 400 for method, status in answers if method != "DELETE"), answers
