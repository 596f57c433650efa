"""Compatible servers by their profiles: each server's ways, played on loopback from the exchanges in ``exchanges/``.

Every file says where its exchanges come from: recorded from a server, or written after its sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from agentbudget import errors
from agentbudget.errors import UnknownModel, UnknownPrice
from agentbudget.models import make_model
from agentbudget.models.base import Completion, Image, Message, Meter, Request, Tool
from agentbudget.models.openai import OpenAIModel
from agentbudget.models.servers import PROFILES, Profile, root_of
from agentbudget.prices import ComputePrice
from agentbudget.settings import Settings
from tests.models.provider_server import Json, ProviderServer, Reply
from tests.models.remote_fixtures import PRICE, ask

EXCHANGES: Final = Path(__file__).parent / "exchanges"
BASE: Final = {"docker-model-runner": "/engines/v1"}


def exchanges() -> Iterator[Any]:
    for path in sorted(EXCHANGES.glob("*.json")):
        kept: Json = json.loads(path.read_text(encoding="utf-8"))
        for exchange in kept["exchanges"]:
            yield pytest.param(kept, exchange, id=f"{kept['server']}: {exchange['about']}")


def reply(answer: Json) -> Reply:
    if "events" in answer:
        return Reply.events(*answer["events"], done=True)
    status: int = answer.get("status", 200)
    return Reply(answer["text"].encode(), status) if "text" in answer else Reply.json(answer["body"], status)


def request(wanted: Json) -> Request:
    asked = ask(schema=wanted.get("schema"), stop=tuple(wanted.get("stop", ())))
    tools = tuple(Tool(**tool) for tool in wanted.get("tools", ()))
    asked = replace(asked, tools=tools, tool_choice=wanted.get("tool_choice", "auto"))
    if "image" in wanted:
        picture = Image(b"GIF89a\x01\x00\x01\x00", wanted["image"])
        asked = replace(asked, messages=(Message("user", "?", images=(picture,)),))
    return asked


async def carry_out(model: OpenAIModel, exchange: Json) -> Json:
    asked = request(exchange.get("request", {}))
    match exchange["ask"]:
        case "ready":
            return {"ready": await model.ready()}
        case "count":
            counted = await model.count_input(asked)
            return {"tokens": counted.tokens, "exact": counted.exact, "window": model.context_window}
        case "complete":
            return said(await model.complete(asked, Meter()))
        case _:
            return said(await last(model, asked))


async def last(model: OpenAIModel, asked: Request) -> Completion:
    async with aclosing(model.stream(asked, Meter())) as stream:
        async for delta in stream:
            if delta.completion is not None:
                return delta.completion
    raise AssertionError("a stream without an answer")


def said(answer: Completion) -> Json:
    return {
        "text": answer.text,
        "finish": answer.finish,
        "input_tokens": answer.usage.input_tokens,
        "output_tokens": answer.usage.output_tokens,
        "cached_tokens": answer.usage.cached_tokens,
        "calls": [[call.id, call.name, call.arguments] for call in answer.calls],
    }


@pytest.mark.parametrize(("kept", "exchange"), list(exchanges()))
async def test_an_exchange_goes_as_the_server_has_it(kept: Json, exchange: Json) -> None:
    profile = PROFILES[kept["server"]]
    window = exchange.get("window") or (None if exchange["ask"] == "count" else 4096)
    replies = [reply(part["answer"]) for part in (exchange.get("first"), exchange) if part and "answer" in part]
    async with ProviderServer(*replies) as server:
        base = server.url + BASE.get(kept["server"], "/v1")
        model = OpenAIModel(kept["model"], base_url=base, profile=profile, price=PRICE, context_window=window)
        try:
            if "error" in exchange:
                with pytest.raises(getattr(errors, exchange["error"])):
                    await carry_out(model, exchange)
            else:
                got = await carry_out(model, exchange)
                assert {name: got[name] for name in exchange["result"]} == exchange["result"]
        finally:
            await model.aclose()
    wanted = [part["path"] for part in (exchange.get("first"), exchange) if part and "path" in part]
    assert [received.path for received in server.received] == wanted
    if "answer" in exchange and exchange["ask"] != "ready":
        body = server.received[-1].body
        assert body == {**body, **exchange.get("sent", {})}
        assert not body.keys() & set(exchange.get("not_sent", ()))
        assert body.keys() <= set(exchange.get("only", body))


def test_every_profile_has_its_exchanges_and_says_where_they_come_from() -> None:
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in EXCHANGES.glob("*.json")]
    assert {one["server"] for one in kept} == set(PROFILES)
    for one in kept:
        assert one["origin"]
        assert all(source.startswith("https://") for source in one["sources"])


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_a_named_server_on_this_machine_is_paid_for_by_the_second(profile: Profile, tmp_path: Path) -> None:
    settings = Settings.from_env().at(tmp_path)
    here = make_model(f"{profile.name}:some/model@http://127.0.0.1:9/v1", settings) if profile.window else None
    if here is not None:
        assert (here.name, here.provider) == (f"{profile.name}:some/model@http://127.0.0.1:9/v1", profile.name)
        assert here.place == "local"
        assert isinstance(here.price, ComputePrice)
    with pytest.raises(UnknownPrice, match=f"{profile.name}:some/model"):
        make_model(f"{profile.name}:some/model@https://far.invalid/v1", settings)


def test_a_price_sheet_goes_before_this_machines_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = tmp_path / "prices.toml"
    sheet.write_text('["vllm:m"]\ninput = 1\noutput = 2\ncontext_window = 4096\n')
    monkeypatch.setenv("AGENTBUDGET_PRICES", str(sheet))
    settings = Settings.from_env()
    assert make_model("vllm:m", settings).price.bound(input_tokens=10**6, output_tokens=0) == 10**9
    assert make_model("vllm:m@https://far.invalid/v1", settings).context_window == 4096


def test_a_server_whose_window_nobody_states_needs_one(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="context_window"):
        make_model("docker-model-runner:ai/smollm2", Settings.from_env().at(tmp_path))
    with pytest.raises(UnknownModel, match="lm-studio"):
        make_model("lmstudio:m", Settings.from_env().at(tmp_path))


def test_a_window_that_was_not_asked_for_yet_says_how_to_get_it() -> None:
    model = OpenAIModel("m", profile=PROFILES["vllm"], price=PRICE)
    with pytest.raises(UnknownModel, match="count a request first"):
        _ = model.context_window


def test_a_servers_own_endpoints_stand_beside_its_protocol() -> None:
    assert root_of("http://h:1/v1") == root_of("http://h:1/engines/v1") == root_of("http://h:1") == "http://h:1"
