"""Pictures by address: fetched from public hosts, and from nothing else, however the address is written."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.server
import io
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from prometheus_client import CollectorRegistry
from service_rig import signed_in

from shelver import addresses
from shelver.addresses import AddressError, checked_url, is_public, may_connect
from shelver.service.answers import fetching
from shelver.service.answers.decoding import MAX_PICTURE_BYTES, Source, Unfetched
from shelver.service.answers.fetching import FETCH_CODES, N_OF_CALLER, Fetching
from shelver.service.problems import ServiceError
from shelver.service.state import Service

CANARY = "127.0.0.1"
STAND_IN = "127.0.0.2"
"""In place of a public host: the only address that most tests allow."""
ALLOWED = (IPv4Network(f"{STAND_IN}/32"),)


def png() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 55, (40, 30, 3))
    Image.fromarray((noise + np.array((200, 20, 20))).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


PICTURE = png()


class Host(http.server.ThreadingHTTPServer):
    """A server that counts connections and requests, and answers as its path says."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int = 0) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Answers)
        self.n_connections = 0
        self.n_open = self.most_open = 0
        self.seen: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.over = threading.Event()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.n_connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Those who fetch leave early."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


class Answers(http.server.BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *arguments: Any) -> None:
        pass

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        host = self.server
        with host.lock:
            host.seen.append({name.lower(): value for name, value in self.headers.items()})
            host.n_open += 1
            host.most_open = max(host.most_open, host.n_open)
        try:
            self.answer(urlsplit(self.path))
        finally:
            with host.lock:
                host.n_open -= 1

    def answer(self, asked: Any) -> None:
        query = parse_qs(asked.query)
        what = asked.path.strip("/")
        if what == "picture":
            self.send(200, PICTURE, Content_Type="text/html", Set_Cookie="a=b")
        elif what == "to":
            location = query["url"][0].encode().decode("latin-1")  # so that it goes out as UTF-8
            self.send(int(query.get("status", ["302"])[0]), Location=location)
        elif what == "nowhere":
            self.send(302)
        elif what == "status":
            self.send(int(query["status"][0]), PICTURE)
        elif what == "gzip":
            self.send(200, gzip.compress(bytes(60_000_000)), Content_Encoding="gzip")
        elif what == "slow":
            self.server.over.wait(5)
            self.send(200, PICTURE)
        elif what == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                if self.server.over.wait(0.05):
                    break
        elif what == "endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(200):
                self.wfile.write(bytes(100_000))
        elif what == "large":
            self.send_response(200)
            self.send_header("Content-Length", str(MAX_PICTURE_BYTES + 1))
            self.end_headers()
        elif what == "garbage":
            self.wfile.write(b"\x00\xff no HTTP at all\r\n\r\n" * 10)
        elif what == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURE) + 10))
            self.end_headers()
            self.wfile.write(PICTURE)
        else:
            self.send(404)


@contextmanager
def running(host: Host) -> Iterator[Host]:
    thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.over.set()
        host.shutdown()
        host.server_close()
        thread.join()


@pytest.fixture
def canary() -> Iterator[Host]:
    """What must not be reached."""
    with running(Host(CANARY)) as host:
        yield host


@pytest.fixture
def stand_in() -> Iterator[Host]:
    """A host that stands for all public ones."""
    with running(Host(STAND_IN)) as host:
        yield host


NAMES: dict[str, list[str]] = {}
LOOKED_UP: list[str] = []
_really = socket.getaddrinfo
WATCHING: list[bool] = []
_CONNECTED: list[str] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCHING and event == "socket.connect" and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
        _CONNECTED.append(host)
        if not host.startswith("127.") and host != "::1":
            raise RuntimeError(f"a test would have connected to {host}")


@pytest.fixture(scope="module", autouse=True)
def _watched() -> None:
    sys.addaudithook(_on_event)  # every connection of this process, whatever makes it; there is no way back


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """Names that the test knows; a name with several answers gives the first one first, then the next, and so on.
    No other is looked up, but the system's own reading of numbers is used."""

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        LOOKED_UP.append(str(host))
        known = NAMES.get(str(host).lower())
        if known is not None:
            host = known.pop(0) if len(known) > 1 else known[0]
        named["flags"] = named.get("flags", 0) | socket.AI_NUMERICHOST
        return _really(host, port, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    NAMES.clear()
    LOOKED_UP.clear()
    _CONNECTED.clear()
    WATCHING.append(True)
    yield NAMES
    WATCHING.clear()
    NAMES.clear()


@pytest.fixture
def seller(make_app: Callable[..., TestClient], trained: Callable[[str, str], Path]) -> Callable[..., TestClient]:
    def make(**settings: Any) -> TestClient:
        return signed_in(make_app(model=trained("ngram", "lite0"), **settings), "seller")

    return make


def service_of(client: TestClient) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


def forms(port: int) -> list[str]:
    """The canary's address, and other inner addresses, as people have written them to get past a check."""
    hosts = [
        *("127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "127.00.0.1", "127.000.000.001", "127.0.0.01"),
        *("2130706433", "02130706433", "017700000001", "0x7f000001", "0x7F000001", "0x7f.1", "0x7f.0.0.1"),
        *("0x7f.0x0.0x0.0x1", "0177.0.0.1", "0177.1", "0177.0.0.01", "00000177.0.0.1", "0x7f.0.1", "127.0x1"),
        *("6425673729", "127.0.0.257", "127.0.65537", "127.16777217", "4294967296", "1.1.1.1.1", "127..0.0.1"),
        *("0", "0.0.0.0", "0.0", "0x0", "00", "0.0.0.0.", "[::]", "[::0]", "[0:0:0:0:0:0:0:0]", "[0000::]"),
        *("[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::0001]", "[0::1]", "[::1.]", "[:::1]", "[::1%25lo]"),
        *("[::1%lo]", "[fe80::1]", "[fe80::1%25eth0]", "[fe80::1%1]", "[FE80::1]", "[fec0::1]", "[fc00::1]"),
        *("[fd00::1]", "[fd00:ec2::254]", "[ff02::1]", "[ff00::]", "[100::1]", "[5f00::1]"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:127.0.0.1]", "[0:0:0:0:0:ffff:127.0.0.1]"),
        *("[::127.0.0.1]", "[::7f00:1]", "[::ffff:0:127.0.0.1]", "[::ffff:169.254.169.254]"),
        *("[::ffff:10.0.0.1]", "[::ffff:0.0.0.0]", "[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]"),
        *("[64:ff9b::a00:1]", "[64:ff9b:1::127.0.0.1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:7f00:1::1]"),
        *("[2002:a9fe:a9fe::]", "[2001::1]", "[2001:0:7f00:1::]", "[2001:0:0:0:0:0:80ff:fffe]", "[2001:10::1]"),
        *("[2001:db8::1]", "[3fff::1]", "[2001:2::1]", "[1::1]", "[4000::1]"),
        *("10.0.0.1", "10.255.255.254", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.1.1"),
        *("100.64.0.1", "100.100.100.200", "100.127.255.255", "169.254.169.254", "169.254.0.1", "2852039166"),
        *("0xa9fea9fe", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "169.16689662", "168.63.129.16"),
        *("192.0.0.1", "192.0.0.8", "192.0.0.170", "192.0.0.192", "192.0.2.1", "198.51.100.1", "203.0.113.1"),
        *("192.88.99.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1"),
        *("255.255.255.255", "255.255.255.254", "0.0.0.1", "0.1.2.3"),
        *("localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "ip6-localhost", "foo.localhost"),
        *("inner.test", "inner.test.", "INNER.TEST", "mapped.test", "six.test", "metadata.google.internal"),
        *(
            "unknown.test",
            "xn--inner-.test",
            "xn--mgbh0fb.test",
            "ｉｎｎｅｒ．ｔｅｓｔ",
            "inner。test",
            "inner｡test",
        ),
        *(
            "①②⑦.⓪.⓪.①",
            "１２７.０.０.１",
            "127。0。0。1",
            "127｡0｡0｡1",
            "127．0．0．1",
            "١٢٧.0.0.1",
            "ⓛocalhost",
            "loca\u00adlhost",
        ),
        *("[１::1]", "[::①]", "127.0.0.1%00.test", "127.0.0.1%2f", "%31%32%37.0.0.1", "127%2e0%2e0%2e1"),
        *(
            "user@127.0.0.1",
            "public.test@127.0.0.1",
            "user:word@127.0.0.1",
            "127.0.0.1:80@127.0.0.1",
            "@127.0.0.1",
        ),
        *("public.test%40127.0.0.1", "public.test:80@127.0.0.1", "public.test%00@127.0.0.1", "a b@127.0.0.1"),
    ]
    whole = [
        *(f"http://{host}:{port}/picture" for host in hosts),
        f"http:\\\\127.0.0.1:{port}\\picture",
        f"http:/\\127.0.0.1:{port}/picture",
        f"http:///127.0.0.1:{port}/picture",
        f"http:127.0.0.1:{port}/picture",
        f"http:/127.0.0.1:{port}/picture",
        f"//127.0.0.1:{port}/picture",
        f"127.0.0.1:{port}/picture",
        f"http://public.test\\@127.0.0.1:{port}/picture",
        f"http://127.0.0.1:{port}\\@public.test/picture",
        f"http://public.test#@127.0.0.1:{port}/picture",
        f"http://127.0.0.1:{port}#@public.test/",
        f"http://127.0.0.1:{port}?@public.test/",
        f"http://public.test&@127.0.0.1:{port}#@public.test/",
        f"http://127.0.0.1:{port}:80/picture",
        f"http://127.0.0.1:0{port}/picture",
        f"http://127.0.0.1:{port + 65536}/picture",
        f"http://127.0.0.1:-{port}/picture",
        f"http://127.0.0.1: {port}/picture",
        f"http://127.0.0.1\t:{port}/picture",
        f"http://127.0.0.1\n:{port}/picture",
        f"ht\ntp://127.0.0.1:{port}/picture",
        f"\x00http://127.0.0.1:{port}/picture",
        f" http://127.0.0.1:{port}/picture",
        f"HTTP://127.0.0.1:{port}/picture",
        f"hTTps://127.0.0.1:{port}/picture",
        f"http://127.0.0.1:{port}/picture\r\nHost: public.test",
        f"url:http://127.0.0.1:{port}/picture",
        f"ftp://127.0.0.1:{port}/picture",
        f"gopher://127.0.0.1:{port}/_GET%20/",
        f"dict://127.0.0.1:{port}/",
        f"ws://127.0.0.1:{port}/picture",
        f"unix://127.0.0.1:{port}/picture",
        f"http+unix://%2ftmp%2fsocket/{port}",
        f"jar:http://127.0.0.1:{port}/picture!/",
        f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}",
        "file:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "javascript:alert(1)",
        "",
        "http://",
        "http://[",
        "http://]:80/",
        "x" * 4096,
    ]
    return list(dict.fromkeys(whole))


INNER = {
    "localhost": [CANARY],
    "localhost.": [CANARY],
    "localhost.localdomain": [CANARY],
    "ip6-localhost": ["::1"],
    "foo.localhost": [CANARY],
    "inner.test": [CANARY],
    "inner.test.": [CANARY],
    "mapped.test": ["::ffff:127.0.0.1"],
    "six.test": ["::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "xn--inner-.test": [CANARY],
    "xn--mgbh0fb.test": [CANARY],
}


def test_no_form_of_an_inner_address_is_connected_to(
    seller: Callable[..., TestClient],
    canary: Host,
    stand_in: Host,
    names: dict[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Else the port alone would keep the canary safe.
    monkeypatch.setattr(addresses, "PUBLIC_PORTS", (80, 443, canary.port))
    client = seller(picture_networks=ALLOWED)
    direct = forms(canary.port)
    assert len(direct) >= 150
    ports = [f"http://{STAND_IN}:{stand_in.port}/to?status={status}&url=" for status in (301, 302, 303, 307, 308)]
    redirected = [f"{ports[i % 5]}{quote(form, safe='')}" for i, form in enumerate(direct) if form.isprintable()]
    names.update({name: list(found) for name, found in INNER.items()})
    with socket.socket(socket.AF_INET6) as six:  # who listens at ::1, at the same port
        with suppress(OSError):
            six.bind(("::1", canary.port))
            six.listen()
        six.setblocking(False)
        refusals = {"address_unusable", "address_not_public"}
        for asked in (direct, redirected):
            for start in range(0, len(asked), 100):
                products = [{"title": "bar stool", "image_url": url[:4096]} for url in asked[start : start + 100]]
                answer = client.post("/v1/predict/batch", json={"products": products})
                assert answer.status_code == 200, answer.text
                assert answer.json()["n_problems"] == 0
                for product, item in zip(products, answer.json()["answers"], strict=True):
                    said = item["answer"]
                    assert said["picture_error"] in refusals, (product, said)
                    assert (said["outcome"], said["modality"]) == ("decided", "text")
            # Beside an address that it stands in, text may be a path of the stand-in.
            refusals = set(FETCH_CODES)
        with pytest.raises(OSError, match=r".*"):
            six.accept()
    assert canary.n_connections == 0
    assert stand_in.n_connections >= len(redirected)
    assert set(_CONNECTED) <= {STAND_IN}, "no socket of this process was connected to anything else"


def test_a_name_that_is_public_first_and_inner_later_is_not_followed(
    seller: Callable[..., TestClient], canary: Host, stand_in: Host, names: dict[str, list[str]], monkeypatch: Any
) -> None:
    monkeypatch.setattr(addresses, "PUBLIC_PORTS", (80, 443, canary.port, stand_in.port))
    client = seller(picture_networks=ALLOWED)
    names["rebind.test"] = [STAND_IN, CANARY]
    url = f"http://rebind.test:{stand_in.port}/picture"
    first = client.post("/v1/predict", json={"image_url": url}).json()
    assert (first["picture_error"], first["modality"]) == (None, "image")
    port = canary.port
    for again in (url, f"http://rebind.test:{port}/picture"):
        later = client.post("/v1/predict", json={"image_url": again}).json()
        assert later["picture_error"] == "address_not_public", "the address is looked up again for each connection"
    # Within one fetch: the redirect leads to the same name, which has moved by then.
    names["rebind.test"] = [STAND_IN, CANARY]
    to_itself = f"http://rebind.test:{stand_in.port}/to?url={quote(f'http://rebind.test:{port}/picture', safe='')}"
    assert (
        client.post("/v1/predict", json={"image_url": to_itself}).json()["picture_error"] == "address_not_public"
    )
    assert LOOKED_UP.count("rebind.test") == 5
    assert canary.n_connections == 0
    assert set(_CONNECTED) == {STAND_IN}


def test_with_the_network_in_the_settings_the_same_server_is_reached(
    seller: Callable[..., TestClient], canary: Host, names: dict[str, list[str]]
) -> None:
    client = seller(picture_networks=(IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")))
    service = service_of(client)
    names["inner.test"] = [CANARY]
    as_bytes = base64.b64encode(PICTURE).decode()
    sent = client.post("/v1/predict", json={"title": "bar stool", "image_base64": as_bytes}).json()
    urls = [f"{canary.url}/picture", f"http://inner.test:{canary.port}/to?url=/picture"]
    urls.append(f"{canary.url}/to?url={quote(f'//inner.test:{canary.port}/picture#top')}")
    for url in urls:
        fetched = client.post("/v1/predict", json={"title": "bar stool", "image_url": url})
        assert fetched.status_code == 200, fetched.text
        found = fetched.json()
        own = ("prediction_id", "request_id")
        assert {k: v for k, v in found.items() if k not in own} == {k: v for k, v in sent.items() if k not in own}
        assert found["modality"] == "both"
    form = client.post("/v1/predict", data={"image_url": urls[0]}, files={"ignored": (None, "")})
    assert form.status_code == 422, "a field that nobody knows"
    form = client.post("/v1/predict", files={"image_url": (None, urls[0]), "title": (None, "bar stool")})
    assert form.json()["modality"] == "both"
    # The stages fetch as well.
    images = [as_bytes, urls[0], None, "http://10.0.0.1/a"]
    embedded = client.post("/v1/embed/image", json={"images": images}).json()
    assert embedded["embeddings"][0] == embedded["embeddings"][1]
    assert embedded["errors"] == [None, None, None, "address_not_public"]
    products = [{"image_url": urls[0]}, {"image_url": "nothing"}, {"title": "bar stool"}]
    probs = client.post("/v1/probabilities", json={"products": products, "top_n": 1}).json()
    assert probs["picture_errors"] == [None, "address_unusable", None]
    proposed = client.post("/v1/products/propose", json={"image_url": urls[0]})
    assert proposed.json()["modality"] == "image"
    # What was asked is what was fetched, not where from.
    assert service.log.safe()
    from sqlalchemy import select

    from shelver.service.tables.records import PredictionRow

    with service.database.reading() as session:
        hashes = {row.id: row.input_hash for row in session.scalars(select(PredictionRow))}
    assert hashes[found["prediction_id"]] == hashes[sent["prediction_id"]]
    # Nothing is told to a host but what it needs, and nothing is kept of it.
    for seen in canary.seen:
        assert set(seen) == {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert seen["accept-encoding"] == "identity"


def fetched(url: str, **settings: Any) -> str | bytes:
    """What comes of fetching: the bytes, or the reason."""

    async def fetch() -> Source:
        fetches = Fetching(CollectorRegistry(), networks=ALLOWED, **settings)
        try:
            return await fetches.fetch(url, "ann")
        finally:
            fetches.close()

    found = asyncio.run(fetch())
    return found.code if isinstance(found, Unfetched) else found


def test_what_cannot_be_fetched_has_a_reason(stand_in: Host, names: dict[str, list[str]]) -> None:
    with socket.socket() as closed:
        closed.bind((STAND_IN, 0))
        nobody = closed.getsockname()[1]
    for what, reason in {
        "picture": PICTURE,
        "to?url=to%3Furl%3Dto%253Furl%253Dpicture": PICTURE,
        "to?url=/to%3Furl%3D/to%253Furl%253D/to%25253Furl%25253D/picture": "fetch_redirects",
        "to?url=/to": "fetch_failed",
        "nowhere": "fetch_redirects",
        "status?status=404": "fetch_status",
        "status?status=206": "fetch_status",
        "status?status=401": "fetch_status",
        "status?status=500": "fetch_status",
        "large": "fetch_too_large",
        "endless": "fetch_too_large",
        "garbage": "fetch_failed",
        "cut": "fetch_failed",
    }.items():
        assert fetched(f"{stand_in.url}/{what}") == reason, what
    assert fetched(f"http://{STAND_IN}:{nobody}/") == "fetch_failed"
    assert fetched(f"https://{STAND_IN}:{stand_in.port}/picture") == "fetch_failed"
    for what in ("slow", "drip"):
        assert fetched(f"{stand_in.url}/{what}", limit_s=0.3) == "fetch_timeout"
    packed = fetched(f"{stand_in.url}/gzip")
    assert isinstance(packed, bytes)
    assert len(packed) < 100_000, "nothing is unpacked"


def test_it_cannot_be_told_whether_an_inner_host_is_there(
    canary: Host, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind((CANARY, 0))
        nobody = closed.getsockname()[1]
    monkeypatch.setattr(addresses, "PUBLIC_PORTS", (80, canary.port, nobody))
    names["inner.test"] = [CANARY]
    urls = [f"http://{CANARY}:{canary.port}/", f"http://{CANARY}:{nobody}/", f"http://inner.test:{canary.port}/"]
    urls += [f"http://unknown.test:{canary.port}/", f"http://inner.test:{nobody}/", "http://10.1.2.3/"]
    assert {fetched(url) for url in urls} == {"address_not_public"}
    assert canary.n_connections == 0


def test_no_proxy_of_the_environment_is_used(
    stand_in: Host, canary: Host, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, canary.url)
    assert fetched(f"{stand_in.url}/picture") == PICTURE
    assert canary.n_connections == 0


def test_a_caller_fetches_so_many_at_a_time_and_more_are_told_to_come_again(
    stand_in: Host, names: dict[str, list[str]]
) -> None:
    async def many() -> tuple[list[Source | BaseException], float]:
        fetches = Fetching(CollectorRegistry(), networks=ALLOWED, limit_s=1.0)
        began = time.monotonic()
        asked = (fetches.fetch(f"{stand_in.url}/slow", "ann") for _ in range(40))
        results = await asyncio.gather(*asked, return_exceptions=True)
        took_s = time.monotonic() - began
        stand_in.over.set()
        assert await fetches.fetch(f"{stand_in.url}/picture", "ann") == PICTURE, "all turns were given back"
        fetches.close()
        assert not fetches._callers._turns, "nor is anything kept of a caller"
        return results, took_s

    results, took_s = asyncio.run(many())
    busy = [result for result in results if isinstance(result, ServiceError)]
    assert [error.code for error in busy] == ["busy"] * (40 - N_OF_CALLER)
    assert busy[0].retry_after_s == 1
    assert results.count(Unfetched("fetch_timeout")) == N_OF_CALLER
    assert stand_in.most_open <= N_OF_CALLER
    assert took_s < 4


def test_a_turn_lasts_until_the_name_server_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def silent(*arguments: Any, **named: Any) -> Any:
        answered.wait(20)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", silent)

    async def ask() -> None:
        fetches = Fetching(CollectorRegistry(), limit_s=0.2)
        asked = (fetches.fetch("http://slow.test/", "ann") for _ in range(N_OF_CALLER))
        assert set(await asyncio.gather(*asked)) == {Unfetched("fetch_timeout")}
        # No thread can be stopped: he gets no more of them, others do.
        many = [asyncio.create_task(fetches.fetch("http://slow.test/", "ann")) for _ in range(60)]
        at_once, _ = await asyncio.wait(many, timeout=0.1)
        assert len(at_once) == 60 - 3 * N_OF_CALLER, "those that would have to line up for long"
        assert await fetches.fetch("http://slow.test/", "bob") == Unfetched("fetch_timeout")
        for refused in await asyncio.gather(*many, return_exceptions=True):
            assert isinstance(refused, ServiceError)
            assert refused.code == "busy"
        answered.set()
        until = time.monotonic() + 10
        while fetches._callers._turns and time.monotonic() < until:
            await asyncio.sleep(0.01)
        assert await fetches.fetch("http://slow.test/", "ann") == Unfetched("address_not_public")
        fetches.close()

    asyncio.run(ask())


def test_who_waits_for_a_host_holds_no_place(
    seller: Callable[..., TestClient], stand_in: Host, names: dict[str, list[str]]
) -> None:
    client = seller(picture_networks=ALLOWED)
    batcher = service_of(client).answering.batcher
    slow = {"title": "bar stool", "image_url": f"{stand_in.url}/slow"}
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(client.post, "/v1/predict", json=slow)
        many = threads.submit(client.post, "/v1/predict/batch", json={"products": [slow] * 30})
        until = time.monotonic() + 10
        while stand_in.n_open < N_OF_CALLER and time.monotonic() < until:
            time.sleep(0.01)
        assert stand_in.n_open == N_OF_CALLER
        assert batcher.n_held == 0
        assert client.post("/v1/predict", json={"title": "bar stool"}).status_code == 200
        stand_in.over.set()
        assert one.result().status_code in (200, 503), "he shares his turns with his own batch"
        assert many.result().json()["n_problems"] <= 1
    assert batcher.n_held == 0


def test_where_the_settings_say_so_nothing_is_fetched(
    seller: Callable[..., TestClient], stand_in: Host, names: dict[str, list[str]]
) -> None:
    client = seller(picture_networks=ALLOWED, picture_fetches=0)
    refused = client.post("/v1/predict", json={"title": "a", "image_url": f"{stand_in.url}/picture"})
    assert (refused.status_code, refused.json()["code"]) == (422, "picture_not_fetched")
    assert stand_in.n_connections == 0


def test_a_model_without_pictures_fetches_none(
    make_app: Callable[..., TestClient], stand_in: Host, names: dict[str, list[str]]
) -> None:
    client = signed_in(make_app(picture_networks=ALLOWED), "seller")
    answer = client.post("/v1/predict", json={"title": "bar stool", "image_url": f"{stand_in.url}/picture"})
    assert (answer.json()["outcome"], answer.json()["picture_error"]) == ("decided", None)
    assert stand_in.n_connections == 0


def test_fetches_are_counted_and_every_reason_is_explained(
    seller: Callable[..., TestClient], stand_in: Host, names: dict[str, list[str]]
) -> None:
    client = seller(picture_networks=ALLOWED)
    for what in ("picture", "status?status=404"):
        client.post("/v1/predict", json={"image_url": f"{stand_in.url}/{what}"})
    metrics = service_of(client).metrics
    for outcome in ("fetched", "fetch_status"):
        assert metrics.get_sample_value("shelver_fetches_total", {"outcome": outcome}) == 1
    source = Path(fetching.__file__).read_text(encoding="utf-8")
    assert all(source.count(f'"{code}"') >= 2 for code in FETCH_CODES)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("8.8.8.8", True),
        ("192.0.1.1", True),
        ("100.128.0.1", True),
        ("172.32.0.1", True),
        ("2606:4700::1111", True),
        ("2a00:1450::1", True),
        ("64:ff9b::808:808", True),
        ("64:ff9b::a00:1", False),
        ("64:ff9b:1::808:808", False),
        ("::ffff:8.8.8.8", False),
        ("192.0.0.9", False),
        ("168.63.129.16", False),
        ("2001:4:112::1", False),
        ("2606:4700::1111%eth0", False),
    ],
)
def test_an_address_is_public_or_not(text: str, public: bool) -> None:
    assert is_public(ip_address(text)) is public


def test_what_is_public_is_global_to_the_standard_library_too() -> None:
    numbers = np.random.default_rng(5)
    for _ in range(20_000):
        four = ip_address(int(numbers.integers(2**32)))
        start = int(numbers.choice((0x2001, 0x2002, 0x3FFF, 0x64, 0, int(numbers.integers(2**16))))) << 112
        six = ip_address(start | int.from_bytes(numbers.bytes(14), "big"))
        for address in (four, six):
            assert address.is_global or not is_public(address), address


def test_sockets_connect_to_public_ports_and_to_extra_networks() -> None:
    assert may_connect("8.8.8.8", 443)
    assert not may_connect("8.8.8.8", 22)
    assert not may_connect("example.org", 443), "a name is no address"
    assert not may_connect("134744072", 443), "nor is a number"
    assert may_connect("10.0.0.9", 9000, (IPv4Network("10.0.0.0/24"),))
    assert not may_connect("10.0.1.9", 9000, (IPv4Network("10.0.0.0/24"), IPv6Network("::1/128")))


def test_addresses_of_pictures_are_read_strictly_but_not_pedantically() -> None:
    assert checked_url(" https://cdn.example.org/a b.jpg?x=1&y=[2]#top\n") == (
        "https://cdn.example.org/a%20b.jpg?x=1&y=[2]"
    )
    assert checked_url("HTTP://пример.рф:8080/ü.png") == "HTTP://пример.рф:8080/ü.png"
    assert checked_url("../b.png", "https://example.org/x/y/a") == "https://example.org/x/b.png"
    for text in (
        "http://a@b/",
        "http://a\\b/",
        "//a/",
        "http://[::1%25lo]/",
        "http://a/\x7f",
        "http://" + "a" * 254,
    ):
        with pytest.raises(AddressError):
            checked_url(text)
