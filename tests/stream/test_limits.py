"""What one client may do: rates, sizes, slowness; and that nothing outside ``web`` is served. Over real sockets."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from stream import guard, limits
from stream.app import Server, listen
from stream.config import AppConfig, CameraConfig, ServerConfig
from stream.detector import Detector
from stream.guard import ATTEMPTS_AT_ONCE, MOST_UNDER_WAY
from stream.limits import MAX_BODY_BYTES, Buckets, client_of
from stream.pipeline import Pipeline
from stream.server import create_app

SDP = {"Content-Type": "application/sdp"}
TOKEN = "hunter2hunter2"


@pytest.fixture(scope="module")
def pipeline(detector: Detector) -> Pipeline:
    """Never started: no request here needs a picture."""
    return Pipeline(AppConfig(cameras={"door": CameraConfig(source="demo")}), detector)


@pytest.fixture
def client(pipeline: Pipeline) -> Iterator[TestClient]:
    with TestClient(create_app(pipeline, ServerConfig()), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def frugal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One request a client."""
    monkeypatch.setattr(guard, "REQUESTS_AT_ONCE", 1)
    monkeypatch.setattr(guard, "REQUESTS_PER_S", 0.01)


@pytest.fixture
def port(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a real server as ``lookout watch`` makes it, impatient."""
    monkeypatch.setattr(limits, "HEADERS_TIMEOUT_S", 0.5)
    monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.5)
    config = ServerConfig(port=0)
    listener, server = listen(config), Server(create_app(pipeline, config), config)
    thread = threading.Thread(target=server.run, args=([listener],))
    number = listener.getsockname()[1]
    thread.start()
    yield number
    server.should_exit = True
    thread.join()


def say(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send bytes as they are, part by part, and read until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:  # closed while we were still sending
            pass
    return received


def ask(port: int, target: str) -> tuple[int, bytes]:
    answer = say(
        port, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode("latin-1")
    )
    return int(answer.split(b" ", 2)[1]), answer


def test_a_body_is_bounded_announced_or_not(client: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(80):
            yield b"a=x\r\n" * 200

    for method, path in (("POST", "/whep/door"), ("POST", "/whip/door"), ("PATCH", "/whep/door/none")):
        announced = client.request(method, path, content=b"y" * (MAX_BODY_BYTES + 1), headers=SDP)
        assert (announced.status_code, "65536 bytes" in announced.json()["error"]) == (413, True)
    hidden = client.post("/whep/door", content=chunks(), headers=SDP)
    assert (hidden.status_code, "65536 bytes" in hidden.json()["error"]) == (413, True)
    fits = client.post("/whep/door", content=b"v=0\r\n" + b"a=x\r\n" * 8000, headers=SDP)
    assert fits.status_code == 400


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 30, "65537"])
def test_a_length_that_makes_no_sense_is_refused(port: int, length: str) -> None:
    head = f"POST /whep/door HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"
    assert say(port, head.encode())[9:12] in (b"400", b"413")


def test_who_asks_too_often_has_to_wait_and_others_do_not(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "REQUESTS_AT_ONCE", 20)
    monkeypatch.setattr(guard, "REQUESTS_PER_S", 0.1)
    api = create_app(pipeline, ServerConfig())
    with TestClient(api, base_url="http://127.0.0.1", client=("192.0.2.7", 1)) as eager:
        assert [eager.get("/web/icon.svg").status_code for _ in range(20)] == [200] * 20
        refused = [eager.get("/web/icon.svg") for _ in range(5)][-1]
        assert (refused.status_code, 1 <= int(refused.headers["retry-after"]) <= 10) == (429, True)
        assert eager.get("/healthz").status_code == 200, "or the container would be restarted"
        other = TestClient(api, base_url="http://127.0.0.1", client=("192.0.2.8", 1))
        assert other.get("/web/icon.svg").status_code == 200


def test_a_token_cannot_be_guessed_by_trying(pipeline: Pipeline) -> None:
    api = create_app(pipeline, ServerConfig(host="0.0.0.0", token=SecretStr(TOKEN)))

    def ask(address: str, **headers: str) -> int:
        with_address = TestClient(api, base_url="http://x", client=(address, 1), follow_redirects=False)
        return with_address.get("/api/app", headers=headers).status_code

    for _ in range(3 * ATTEMPTS_AT_ONCE):
        assert ask("192.0.2.1") == 401, "who shows no token has not tried one"
        assert ask("192.0.2.1", Authorization=f"Bearer {TOKEN}") == 200
    ways = [{"Authorization": "Bearer wrong"}, {"Cookie": "lookout_token=wrong"}]
    codes = [ask("192.0.2.1", **ways[number % 2]) for number in range(2 * ATTEMPTS_AT_ONCE)]
    assert codes[:ATTEMPTS_AT_ONCE] == [401] * ATTEMPTS_AT_ONCE
    assert codes[-1] == 429
    assert ask("192.0.2.1", Authorization=f"Bearer {TOKEN}") == 429, "or the right one would be told"
    assert ask("192.0.2.1") == 401
    assert ask("192.0.2.2", Authorization=f"Bearer {TOKEN}") == 200
    late = TestClient(api, base_url="http://x", client=("192.0.2.1", 1)).get(f"/?token={TOKEN}")
    assert (late.status_code, 1 <= int(late.headers["retry-after"]) <= 5) == (429, True)


def test_behind_a_proxy_each_client_is_itself(frugal: None, port: int) -> None:
    def seen(forwarded: str) -> bytes:
        head = f"GET /api/none HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {forwarded}\r\nConnection: close\r\n\r\n"
        return say(port, head.encode())[9:12]

    codes = {address: [seen(address) for _ in range(2)] for address in ("192.0.2.1", "192.0.2.2")}
    assert codes == {"192.0.2.1": [b"404", b"429"], "192.0.2.2": [b"404", b"429"]}


def test_a_bucket_fills_again_and_the_table_is_bounded() -> None:
    now = 0.0
    buckets = Buckets(burst=2, per_s=0.5, clock=lambda: now)
    assert [buckets.take("a") for _ in range(4)] == [True, True, False, False]
    assert buckets.wait_s("a") == pytest.approx(2)
    now = 2.0
    assert buckets.wait_s("a") == 0
    assert [buckets.take("a"), buckets.take("a"), buckets.take("b")] == [True, False, True]
    now = 100.0
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    for number in range(2 * limits.MOST_CLIENTS):
        buckets.take(str(number))
    assert len(buckets._left) == limits.MOST_CLIENTS


def test_one_machine_is_one_client() -> None:
    def client(host: str) -> str:
        return client_of({"client": (host, 1)})

    assert client("192.0.2.1") != client("192.0.2.2")
    assert client("2001:db8::1") == client("2001:db8::ffff:1") != client("2001:db8:0:1::1")
    assert client("::ffff:192.0.2.1") == client("192.0.2.1")
    assert client_of({"client": None}) == client_of({})
    assert len(client("x" * 10_000)) == 80


def test_who_is_slow_is_cut_off_and_who_is_not_stays(port: int) -> None:
    began = time.monotonic()
    assert say(port) == b"", "says nothing"
    assert say(port, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ", pause_s=0.1) == b""
    drip = [b"GET /healthz HTTP/1.1\r\n", *(b"X-%d: y\r\n" % number for number in range(40))]
    assert say(port, *drip, pause_s=0.05) == b"", "each byte in time, all of them late"
    started = b"POST /whep/door HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/sdp\r\nContent-Length: 9\r\n"
    late = say(port, started + b"Connection: close\r\n\r\nv=0")
    assert late.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 20
    patient = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(4):  # in all, twice as long as headers may take
        patient.request("GET", "/healthz")
        assert patient.getresponse().read() == b'{"status":"ok"}'
        time.sleep(0.25)
    patient.close()


def drip(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(b"y")
        time.sleep(0.05)


def test_a_body_that_nobody_reads_is_not_waited_for(port: int) -> None:
    head = b"POST /api/cameras/none HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 405 ")
        with pytest.raises(ConnectionError):  # reset, as more comes than it wants
            drip(connection)


def test_who_takes_no_answers_in_does_not_take_every_connection(pipeline: Pipeline) -> None:
    config = ServerConfig(port=0)
    listener, server = listen(config), Server(create_app(pipeline, config), config)
    thread = threading.Thread(target=server.run, args=([listener],))
    number = listener.getsockname()[1]
    thread.start()
    large = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    held = []
    try:
        for _ in range(MOST_UNDER_WAY):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", number))
            connection.sendall(large * 8)
            held.append(connection)
        deadline = time.monotonic() + 20
        while ask(number, "/api/app")[0] != 429:
            assert time.monotonic() < deadline
        assert ask(number, "/healthz")[0] == 200
        while held:
            held.pop().close()
        while ask(number, "/api/app")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        for connection in held:
            connection.close()
        server.should_exit = True
        thread.join()


def test_headers_are_bounded(port: int) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"y" * (1 << 20)
    assert b" 200 " not in say(port, head, b"\r\n\r\n")


@pytest.mark.parametrize(
    "step",
    ["..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "..%2f..", "..%5c..", "..;", "....//", "%c0%ae%c0%ae", "..%00"],
)  # fmt: skip
def test_no_path_leads_out_of_the_pages_folder(port: int, step: str) -> None:
    for root in ("/web/", "/static-offline-docs/", "/web//", "/"):
        for depth in (1, 2, 8):
            for target in ("server.py", "etc/passwd", "pyproject.toml"):
                status, answer = ask(port, root + f"{step}/" * depth + target)
                assert status in (400, 404, 405), answer
                assert b"root:" not in answer
                assert b"import" not in answer
    assert ask(port, "/web/app.js")[0] == 200
    assert ask(port, "/web//etc/passwd")[0] == 404
    assert ask(port, "/web/")[0] == 404


def test_browsers_are_told_what_the_answers_may_do(client: TestClient) -> None:
    for path in ("/", "/web/app.js", "/docs", "/api/app", "/api/none", "/metrics", "/healthz"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert ("unsafe-inline" in policy) == (path == "/docs")
        assert "server" not in headers
    assert "default-src 'none'" in client.get("/api/app").headers["content-security-policy"]
