"""What the API clients share: one guarded request, plain or streamed, and the provider's failures in our own words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from agentbudget.errors import (
    AuthenticationFailed,
    Mistake,
    ModelError,
    ModelUnavailable,
    OutcomeUnknown,
    RateLimited,
    RequestRejected,
)
from agentbudget.models.base import Completion, Delta, Meter
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from httpx2 import Timeout

T = TypeVar("T")
E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)
E_contra = TypeVar("E_contra", contravariant=True)

CONNECT_S: Final = 10.0
"""Longest wait for a connection to open; a provider that is up answers within it."""

MAX_DETAIL: Final = 400
"""Characters of a provider's message that are worth repeating."""

CLOSE_AFTERWARDS: Final = {"connection": "close"}
"""Headers of a request that is the last on its connection: each stream's from a server of one's own.

llama-server hangs up behind a stream without announcing it. A request that is on its way there meanwhile gets no
answer, and nobody knows whether it was read.
"""

UNANSWERED: Final = frozenset({408, 499, 504})
"""Statuses of a gateway that gave up on an answer: the model may have been at work, and billed."""

DECLINED: Final = frozenset({503, 529})
"""Statuses of a provider that had no capacity to begin with: nothing was done, nothing is billed."""


class StatusError(Protocol):
    """What both SDKs' errors of a refused request carry."""

    status_code: int
    message: str

    @property
    def response(self) -> HttpResponse: ...


class HttpResponse(Protocol):
    """The part of a response that says how long to wait."""

    @property
    def headers(self) -> Mapping[str, str]: ...


class Events(Protocol[E_co]):
    """A stream of events, as both SDKs have it."""

    def __aiter__(self) -> AsyncIterator[E_co]: ...

    async def close(self) -> None:
        """Hang up."""
        ...


class Heard(Protocol[E_contra]):
    """What a stream has brought so far, in the words of one API."""

    def take(self, event: E_contra) -> str:
        """The piece of text that `event` brings, perhaps none. Raises `ValueError` if it makes no sense."""
        ...

    @property
    def usage(self) -> Usage | None:
        """What the whole answer used, once the provider has said so."""
        ...

    def so_far(self) -> Usage | None:
        """The most that can have been used for what has arrived (and what may be on its way, if that is known)."""
        ...

    def presumed(self) -> Usage | None:
        """The most that may be charged if the stream ends here; None if not even the input is known."""
        ...

    def completion(self, usage: Usage, *, cut: bool) -> Completion:
        """The answer, whole or cut. Raises `InvalidOutput` if it is none."""
        ...


@dataclass(frozen=True, slots=True)
class SdkErrors:
    """The exception classes of one SDK, most of them generated from the same template."""

    status: type[Exception]
    connection: type[Exception]
    any: type[Exception]


@dataclass(frozen=True, slots=True)
class Caller:
    """One model at one provider: sends one request and says in our words how it failed."""

    model: str
    key_variable: str
    address: str
    errors: SdkErrors
    secret: str = field(repr=False)

    async def send(self, request: Callable[[], Awaitable[T]], meter: Meter, *, timeout_s: float) -> T:
        """Await one request within `timeout_s`, whole; raises the `ModelError` tree, `meter` brought up to date."""
        import httpx2

        meter.leaving()
        failure: ModelError
        try:
            async with asyncio.timeout(timeout_s):
                return await request()
        except (self.errors.any, httpx2.RequestError, TimeoutError, ValueError) as error:
            failure = self._failure(error, timeout_s)
        # Raised out here so that no SDK error, whose text may hold the key, stays chained to ours.
        if not failure.sent:
            meter.sent = False
        if failure.usage is not None:
            meter.used(failure.usage)
        raise failure

    async def send_stream(
        self, request: Callable[[], Awaitable[Events[E]]], heard: Heard[E], meter: Meter, *, timeout_s: float
    ) -> AsyncGenerator[Delta, None]:
        """Answer piece by piece: what `request` streams, as `heard` understands it; see `Model.stream`.

        Events are read as they arrive, however slowly the pieces are taken: a provider does not wait for whoever
        reads, so that the hold is asked, and the stream left, at once. However this ends, `meter` has the provider's
        word for what was used, or a bound.
        """
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        listening = asyncio.create_task(self._listen(request, heard, meter, pieces, timeout_s=timeout_s))
        told = False
        try:
            while (piece := await pieces.get()) is not None:
                told = True
                yield Delta(piece)
            completion = self._heard_out(heard, meter, cut=await _outcome(listening, heard))
            if completion.text and not told:
                yield Delta(completion.text)
            yield Delta(completion=completion)
        finally:
            try:
                await _ended(listening)
            finally:
                if meter.sent and meter.usage is None:
                    meter.usage = heard.usage
                    meter.presumed = heard.presumed() if heard.usage is None else None

    async def _listen(
        self,
        request: Callable[[], Awaitable[Events[E]]],
        heard: Heard[E],
        meter: Meter,
        pieces: asyncio.Queue[str | None],
        *,
        timeout_s: float,
    ) -> bool:
        """Read a stream to its end, or until it may not go on: whether it was cut."""

        async def listen() -> bool:
            events = await request()
            asked: Usage | None = None
            try:
                async for event in events:
                    if piece := heard.take(event):
                        pieces.put_nowait(piece)
                    so_far = None if heard.usage is not None else heard.so_far()
                    if so_far is not None and so_far != asked:
                        asked = so_far
                        if not meter.may_go_on(so_far):
                            return True
                return False
            finally:
                await events.close()

        try:
            return await self.send(listen, meter, timeout_s=timeout_s)
        finally:
            pieces.put_nowait(None)

    def _heard_out(self, heard: Heard[E], meter: Meter, *, cut: bool) -> Completion:
        if heard.usage is not None:
            meter.used(heard.usage)
            return heard.completion(heard.usage, cut=cut)
        presumed = heard.presumed()
        if cut and presumed is not None:
            return heard.completion(presumed, cut=True)
        raise self.unknown("the stream broke off before its end")

    def unknown(self, what: str) -> OutcomeUnknown:
        """The request left and its outcome is not known: presumed spent."""
        return OutcomeUnknown(f"{self.model}: {what}; the call is presumed spent", model=self.model)

    def failed(self, kind: type[ModelError], detail: str, usage: Usage | None) -> ModelError:
        """An error that the provider reports inside an answer."""
        return kind(f"{self.model}: {self.clean(detail)}", model=self.model, usage=usage)

    def clean(self, text: str) -> str:
        """A provider's words, without the key, on one line, not too long."""
        line = " ".join((text.replace(self.secret, "***") if self.secret else text).split())
        return line if len(line) <= MAX_DETAIL else line[:MAX_DETAIL] + "…"

    def _failure(self, error: Exception, timeout_s: float) -> ModelError:
        if isinstance(error, self.errors.status):
            return self._refused(cast("StatusError", error))
        if isinstance(error, self.errors.connection):
            return self._disconnected(error.__cause__ or error)
        if isinstance(error, TimeoutError):
            return self.unknown(f"no complete answer came within {timeout_s:g} s")
        # What a provider says in the middle of a stream is an error of the SDK's; other texts may hold the answer.
        said = getattr(error, "message", "") if isinstance(error, self.errors.any) else ""
        detail = f": {self.clean(str(said))}" if said else ""
        return self.unknown(f"the answer broke off or made no sense ({_name(error)}{detail})")

    def _refused(self, error: StatusError) -> ModelError:
        status, headers = error.status_code, error.response.headers
        if 300 <= status < 400:
            return self.failed(RequestRejected, self._elsewhere(status, headers.get("location", "nowhere")), Usage())
        if status < 400 or status in UNANSWERED:
            return self.unknown(f"the answer broke off ({status}: {self.clean(error.message)})")
        kind = _kind(status, error.message)
        usage = None if status >= 500 and status not in DECLINED else Usage()
        message = self._words(kind, status, error.message)
        return kind(message, model=self.model, usage=usage, status=status, retry_after_s=retry_after_s(headers))

    def _elsewhere(self, status: int, location: str) -> str:
        """Why a redirect is not followed: classes of data, prices and keys are those of the address that was given."""
        return (
            f"{self.address} answered {status}, a redirect to {location}, which is not followed: what may be sent to "
            "one address may not be sent to another. Give the address itself as base_url"
        )

    def _words(self, kind: type[ModelError], status: int, detail: str) -> str:
        if kind is AuthenticationFailed and status == 401:
            # The provider's own message is left out: it repeats a part of the key.
            return f"{self.model}: {self.address} refused the key ({status}); check {self.key_variable}"
        advice = f"; check what the key in {self.key_variable} may use" if kind is AuthenticationFailed else ""
        return f"{self.model}: {self.address} answered {status}: {self.clean(detail)}{advice}"

    def _disconnected(self, cause: BaseException) -> ModelError:
        import httpx2

        if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout):
            message = (
                f"{self.model}: no connection to {self.address} ({_name(cause)}); is it up, and the address right?"
            )
            return ModelUnavailable(message, model=self.model, sent=False)
        if isinstance(cause, httpx2.TimeoutException):
            return self.unknown(f"{self.address} did not answer in time")
        return self.unknown(f"{self.address} dropped the connection ({_name(cause)})")


async def _outcome(listening: asyncio.Task[bool], heard: Heard[E]) -> bool:
    """Whether a stream was cut. One that failed after its answer was whole has not failed."""
    try:
        return await listening
    except OutcomeUnknown:
        if heard.usage is None:
            raise
        return False


async def _ended(task: asyncio.Task[bool]) -> None:
    """Wait until `task` has ended, which it is told to; what it raised has been seen, or is of no interest."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


def timeouts(timeout_s: float) -> Timeout:
    """Per-phase limits for the HTTP client; the whole call is bounded by `Caller.send`."""
    import httpx2

    return httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks to wait: ``retry-after-ms``, or ``retry-after`` as seconds or a date."""
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    given = headers.get("retry-after")
    seconds = _number(given)
    return seconds if given is None or seconds is not None else _seconds_until(given)


def checked_address(url: str) -> str:
    """A base URL without what may be secret in it (user, password, query); raises `Mistake` if it is not HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Mistake(f"base_url must be an address such as http://127.0.0.1:8080/v1, not {parts.scheme or url!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def connected_to(address: str) -> dict[str, Any]:
    """How an HTTP client is made that sends what it is given to `address`, and nowhere else.

    It follows no redirect; and on its way to a server on this machine nothing passes the proxy of the environment,
    which would read it, for few think of ``NO_PROXY``.
    """
    here: dict[str, Any] = {"trust_env": False, "mounts": dict.fromkeys(("http://", "https://", "all://"))}
    return {"follow_redirects": False} | (here if is_loopback(address) else {})


def is_proxied(address: str) -> bool:
    """Whether a client that heeds the environment, as most do, sends what goes to `address` to a proxy instead."""
    parts, proxies = urlsplit(address), getproxies()
    return not proxies.keys().isdisjoint((parts.scheme, "all")) and not proxy_bypass(parts.hostname or "")


def is_loopback(address: str) -> bool:
    """Whether what is sent to this address stays on this machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_from(given: str | None, variable: str, *, address: str, model: str) -> str:
    """The key to send: the one given, else the environment's; a server on this machine may need none.

    Raises `AuthenticationFailed`, with nothing sent, if there is no key.
    """
    if found := given or os.environ.get(variable):
        return found
    if is_loopback(address):
        return "none-needed"
    raise AuthenticationFailed(f"{model}: no key for {address}; set {variable}", model=model, sent=False)


def _kind(status: int, message: str) -> type[ModelError]:
    if status in (401, 403):
        return AuthenticationFailed
    if status == 429:
        # An account without credit is refused with 429 as well; no waiting mends that.
        return RequestRejected if "quota" in message and "billing" in message else RateLimited
    return ModelUnavailable if status >= 500 else RequestRejected


def _seconds_until(date: str) -> float | None:
    """Seconds until an HTTP date (always GMT); None if it is not one."""
    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def _name(error: BaseException) -> str:
    return type(error).__name__
