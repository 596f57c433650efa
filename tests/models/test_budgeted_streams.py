"""Streams of every provider, over real sockets or from real weights, on holds that grow: none of them overruns."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from agentbudget.cache import Answers
from agentbudget.errors import BudgetExceeded, OutcomeUnknown
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.anthropic import AnthropicModel
from agentbudget.models.base import Delta, Meter, Model, Request
from agentbudget.models.ladder import Ladder
from agentbudget.models.llamacpp import LlamaCppModel
from agentbudget.models.openai import OpenAIModel
from agentbudget.models.servers import COMPATIBLE
from agentbudget.money import ZERO, Amount, Budget
from agentbudget.prices import ComputePrice, TokenPrice
from agentbudget.skills import skill
from agentbudget.step import Context, Engine, Reply, Scope
from tests.models.conformance.requests import ENDLESS, ask
from tests.models.conformance.suite import streamed
from tests.models.played import KEY, WINDOW, Dialect, played
from tests.models.played.chat import CHAT
from tests.models.played.messages import MESSAGES
from tests.models.played.responses import RESPONSES
from tests.models.played.talker import NUMBERS
from tests.models.provider_server import ProviderServer
from tests.models.provider_server import Reply as Played

PRICE = TokenPrice.custom(input_usd_per_mtok=1, output_usd_per_mtok=5)
LEAD = 16
Provider = Literal["chat", "responses", "anthropic"]
PROVIDERS: tuple[Provider, ...] = ("chat", "responses", "anthropic")
DIALECTS: dict[Provider, Dialect] = {"chat": CHAT, "responses": RESPONSES, "anthropic": MESSAGES}


def model_of(provider: Provider, url: str, lead: int | None) -> Model:
    if provider == "anthropic":
        return AnthropicModel(
            "claude-haiku-4-5",
            base_url=url,
            api_key=KEY,
            price=PRICE,
            context_window=WINDOW,
            stream_lead_tokens=lead,
        )
    return OpenAIModel(
        "gpt-4.1-mini",
        api=provider,
        base_url=f"{url}/v1",
        api_key=KEY,
        price=PRICE,
        context_window=WINDOW,
        counted=False,
        profile=replace(COMPATIBLE, lead_tokens=lead),
    )


@asynccontextmanager
async def provider(
    name: Provider, spoil: Callable[[Played], Played] = lambda played: played, *, lead: int | None = LEAD
) -> AsyncGenerator[tuple[Model, ProviderServer]]:
    """A model of `name` and the server behind it, which says two hundred words, a word every millisecond."""
    play = played(DIALECTS[name])
    async with ProviderServer(play=lambda received: spoil(play(received).slowly(0.001))) as server:
        model = model_of(name, server.url, lead)
        yield model, server
        await model.aclose()


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        yield opened


@dataclass
class Seen:
    pieces: list[str] = field(default_factory=list[str])
    reply: Reply[str] | None = None


async def read(ledger: Ledger, model: Model, *, budget: Budget, leave_after: int | None = None) -> Seen:
    """Have a skill read a stream of `model` on a run of `budget`."""
    seen = Seen()

    @skill(hold="grow", max_output_tokens=1500, max_input_tokens=20)
    async def tell(ctx: Context, what: str) -> str:
        """Tell."""
        async with ctx.stream(what) as stream:
            async for piece in stream:
                seen.pieces.append(piece)
                if len(seen.pieces) == leave_after:
                    break
        seen.reply = stream.reply
        return stream.reply.text

    ledger.account("run/r", limit=budget)
    engine = Engine(ledger, Ladder((model,)), Answers(), ComputePrice("0.10", 100, 10))  # pyright: ignore[reportArgumentType]
    await tell(Context(engine, Scope("r")), what="Count: number 1, number 2 and so on.")
    return seen


def call(ledger: Ledger) -> HoldRecord:
    (found,) = (record for record in ledger.holds(prefix="r/") if record.meta.get("kind") == "call")
    return found


def grown(ledger: Ledger) -> int:
    return sum(entry.kind == "extend" for entry in ledger.entries(subject=call(ledger).id))


def assert_sound(ledger: Ledger, *, limit: int) -> None:
    """Nothing is held any more, nothing overran, the books are whole."""
    balance = ledger.balance("run/r")
    assert balance.held == ZERO
    assert balance.posted.tokens <= limit
    assert call(ledger).overrun == ZERO
    assert ledger.verify().ok


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_stream_from_a_server_of_ones_own_is_the_last_on_its_connection(name: Provider) -> None:
    """Some hang up behind it without a word: what was sent there would be lost, and presumed spent."""
    async with provider(name) as (model, server):
        await model.complete(ask(cap=16), Meter())
        await streamed(model, ask(cap=16), Meter())
        await model.complete(ask(cap=16), Meter())
    assert [received.headers["connection"] for received in server.received] == ["keep-alive", "close", "keep-alive"]


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_whole_stream_grows_its_hold_and_is_settled_at_the_providers_word(
    ledger: Ledger, name: Provider
) -> None:
    async with provider(name) as (model, _):
        seen = await read(ledger, model, budget=Budget(tokens=3000))
    assert seen.reply is not None
    assert (seen.reply.finish, seen.reply.text) == ("stop", NUMBERS)
    assert grown(ledger) > 0
    assert not call(ledger).presumed
    assert call(ledger).detail["usage"]["output_tokens"] == 200
    assert_sound(ledger, limit=3000)


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_refused_extension_closes_the_providers_stream(ledger: Ledger, name: Provider) -> None:
    async with provider(name) as (model, server):
        seen = await read(ledger, model, budget=Budget(tokens=700))
        await server.dropped.wait()
    assert seen.reply is not None
    assert seen.reply.finish == "cut"
    assert isinstance(seen.reply.refusal, BudgetExceeded)
    assert 0 < len(seen.reply.text) < len(NUMBERS)
    assert NUMBERS.startswith(seen.reply.text)
    assert ledger.balance("run/r").posted.tokens >= len(seen.pieces)
    assert_sound(ledger, limit=700)


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("end", ["drop", "whole"])
async def test_a_stream_that_ends_too_soon_is_presumed_at_what_arrived(
    ledger: Ledger, name: Provider, end: Literal["drop", "whole"]
) -> None:
    async with provider(name, lambda reply: reply.first(30, end=end)) as (model, _):
        with pytest.raises(OutcomeUnknown):
            await read(ledger, model, budget=Budget(tokens=3000))
    assert call(ledger).presumed
    settled = call(ledger).settled
    assert settled is not None
    assert settled.tokens >= 20
    assert_sound(ledger, limit=800)


@pytest.mark.parametrize("name", PROVIDERS)
async def test_leaving_closes_the_providers_stream_and_books_what_it_may_have_made(
    ledger: Ledger, name: Provider
) -> None:
    async with provider(name) as (model, server):
        seen = await read(ledger, model, budget=Budget(tokens=3000), leave_after=5)
        await server.dropped.wait()
    assert seen.reply is not None
    assert len(seen.pieces) == 5
    settled = call(ledger).settled
    assert settled is not None
    assert 5 + LEAD <= settled.tokens < 1500
    assert_sound(ledger, limit=3000)


@pytest.mark.parametrize("name", PROVIDERS)
async def test_where_leaving_may_not_end_the_bill_the_worst_case_is_held_and_presumed(
    ledger: Ledger, name: Provider
) -> None:
    async with provider(name, lead=None) as (model, _):
        await read(ledger, model, budget=Budget(tokens=3000), leave_after=5)
    assert call(ledger).presumed
    assert call(ledger).settled == call(ledger).amount
    assert call(ledger).amount.tokens > 1500
    assert grown(ledger) == 0


class Talkative(LlamaCppModel):
    """Goes on until it is cut: how much a model says of itself differs between processors."""

    def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        return super().stream(replace(request, schema=ENDLESS), meter)


@pytest.fixture
async def small(smollm2: Path) -> AsyncIterator[LlamaCppModel]:
    """Real weights in this process, paid for by the second."""
    price = ComputePrice("3.60", 100, 10)  # pyright: ignore[reportArgumentType]
    model = Talkative("llamacpp:smollm2-135m", smollm2, price=price, fingerprint="smollm2")
    yield model
    await model.aclose()


async def test_a_local_stream_is_cut_where_its_run_has_no_more(ledger: Ledger, small: LlamaCppModel) -> None:
    seen = await read(ledger, small, budget=Budget(tokens=150))
    assert seen.reply is not None
    assert seen.reply.finish == "cut"
    assert isinstance(seen.reply.refusal, BudgetExceeded)
    assert not call(ledger).presumed
    assert_sound(ledger, limit=150)


async def test_leaving_a_local_stream_stops_it_and_books_its_seconds(ledger: Ledger, small: LlamaCppModel) -> None:
    seen = await read(ledger, small, budget=Budget(usd="1"), leave_after=3)
    assert len(seen.pieces) == 3
    record = call(ledger)
    assert not record.presumed
    assert record.settled is not None
    assert Amount() != record.settled
    assert record.settled.tokens < 200
    assert record.overrun == ZERO
