"""Download of one file over http(s), which goes on where it broke off: by Range requests, into a ``.part`` file."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

BLOCK: Final = 1 << 20
TIMEOUT_S: Final = 30.0
TRIES: Final = 5
"""Connections in a row that bring no byte before a download is given up. One that brings some starts the count anew."""

PAUSE_S: Final = 0.2
"""Before the second connection; twice as long before each next one."""

GONE_WRONG: Final = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


class NotServed(Exception):
    """This address does not give the file; another source may. The message says why."""


def download(url: str, part: Path, size_bytes: int, on_bytes: Callable[[int], None]) -> None:
    """Bring `part` to `size_bytes` of what `url` serves; what it holds already is not fetched again.

    A server that ignores Range makes it start over. `on_bytes` gets the size of `part` as it grows. Raises `NotServed`
    if the server has another size or no such file, or stays away; `part` then keeps what came. An ``OSError`` of the
    disk is the caller's.
    """
    idle = 0
    while (before := _size(part, size_bytes)) < size_bytes:
        try:
            _continue(url, part, before, size_bytes, on_bytes)
            reason = f"the connection was closed after {_size(part, size_bytes):,} of {size_bytes:,} bytes"
        except GONE_WRONG as error:
            _check_final(url, error)
            reason = str(error)
        except ValueError as error:  # no address, or headers that make no sense
            raise NotServed(f"{url}: {error}") from error
        idle = 0 if _size(part, size_bytes) > before else idle + 1
        if idle == TRIES:
            raise NotServed(f"{url}: {reason}; tried {TRIES} times")
        if idle:
            time.sleep(PAUSE_S * 2 ** (idle - 1))


def _size(part: Path, most: int) -> int:
    """Bytes that `part` holds. More than there can be are worth nothing: it starts over."""
    size = part.stat().st_size if part.exists() else 0
    if size > most:
        part.unlink()
        return 0
    return size


def _check_final(url: str, error: Exception) -> None:
    """Raise where asking again would change nothing: the server knows the request and refuses it."""
    if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 429):
        raise NotServed(f"{url}: the server answers {error.code} {error.reason}") from error


def _continue(url: str, part: Path, before: int, size_bytes: int, on_bytes: Callable[[int], None]) -> None:
    """One connection: append to `part` what it brings, or start over where the server sends all from the beginning."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={before}-"} if before else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        start, total = _promised(response, before)
        if total is not None and total != size_bytes:
            raise NotServed(f"{url}: the server has {total:,} bytes, the catalog states {size_bytes:,}")
        with part.open("ab" if start else "wb") as out:
            done = start
            while block := response.read(min(BLOCK, size_bytes - done)) if done < size_bytes else b"":
                out.write(block)
                done += len(block)
                on_bytes(done)


def _promised(response: http.client.HTTPResponse, before: int) -> tuple[int, int | None]:
    """The byte from which on a server sends, and the size of the whole if it says so."""
    said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status == 206 and said and int(said[1]) == before:
        return before, None if said[2] == "*" else int(said[2])
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None
