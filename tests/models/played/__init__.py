"""Providers that are played on loopback: one small talker, in the words of each API, over real sockets.

    async with ProviderServer(play=played(MESSAGES)) as server:
        model = AnthropicModel("claude-haiku-4-5", base_url=server.url, api_key=KEY, …)

`Said` is what the talker answers, whichever API carries it; a test may play a talker of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from tests.models.played.talker import Asked, Said, input_tokens, talk
from tests.models.provider_server import Json, Received, Reply

KEY: Final = "sk-very-secret-0123456789"
UNKNOWN_MODEL: Final = "no-such-model"
WINDOW: Final = 4096
"""Tokens of context that a played provider takes."""

Talker = Callable[[Asked], Said]


class Dialect(Protocol):
    """One API: how it asks, how it answers in one body or in events, and how it counts, if it does."""

    @property
    def path(self) -> str: ...

    @property
    def counting(self) -> str | None: ...

    def read(self, body: Json) -> Asked: ...

    def whole(self, said: Said) -> Reply: ...

    def stream(self, said: Said) -> Reply: ...

    def counted(self, tokens: int) -> Reply: ...

    def failure(self, status: int, kind: str, message: str) -> Reply: ...


@dataclass(frozen=True, slots=True)
class Played:
    """Answers requests in one API's words. Refuses a wrong key, an unknown model and a context that is too long."""

    dialect: Dialect
    talker: Talker
    window: int

    def __call__(self, received: Received) -> Reply:
        given = received.headers.get("x-api-key") or received.headers.get("authorization", "").removeprefix("Bearer ")
        if given != KEY:
            return self.dialect.failure(401, "authentication_error", f"invalid key: {given}")
        if received.body.get("model") == UNKNOWN_MODEL:
            return self.dialect.failure(404, "not_found_error", f"model: {UNKNOWN_MODEL}")
        asked = self.dialect.read(received.body)
        if received.path == self.dialect.counting:
            return self.dialect.counted(input_tokens(asked))
        if received.path != self.dialect.path:
            return self.dialect.failure(404, "not_found_error", f"no such path: {received.path}")
        if input_tokens(asked) + asked.cap > self.window:
            return self.dialect.failure(400, "invalid_request_error", "prompt is too long")
        said = self.talker(asked)
        return self.dialect.stream(said) if asked.stream else self.dialect.whole(said)


def played(dialect: Dialect, talker: Talker = talk, *, window: int = WINDOW) -> Played:
    """What a `ProviderServer` plays: `dialect` spoken by `talker`."""
    return Played(dialect, talker, window)
