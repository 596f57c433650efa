"""Claude: what its streams tell, and what is known of one that is cut."""

from __future__ import annotations

import pytest

from agentbudget.errors import InvalidOutput, OutcomeUnknown
from agentbudget.models.anthropic import AnthropicModel
from agentbudget.models.anthropic.model import STREAM_ABOVE_TOKENS
from agentbudget.models.base import Completion, JsonSchema, Meter, Request, ToolCall
from agentbudget.usage import Usage
from tests.models.conformance.requests import WEATHER
from tests.models.played.messages import MESSAGES, error, events
from tests.models.played.talker import NUMBERS, Said
from tests.models.provider_server import Json, ProviderServer, Reply, frame
from tests.models.remote_fixtures import KEY, PRICE, ask

LONG = STREAM_ABOVE_TOKENS + 1


def claude(url: str, *, model_id: str = "claude-haiku-4-5", lead: int | None = None) -> AnthropicModel:
    return AnthropicModel(
        model_id, base_url=url, api_key=KEY, price=PRICE, context_window=200_000, stream_lead_tokens=lead
    )


async def streamed(
    request: Request,
    reply: Reply,
    meter: Meter | None = None,
    *,
    model_id: str = "claude-haiku-4-5",
    lead: int | None = None,
) -> tuple[list[str], Completion]:
    async with ProviderServer(reply) as server:
        model = claude(server.url, model_id=model_id, lead=lead)
        try:
            deltas = [delta async for delta in model.stream(request, meter or Meter())]
        finally:
            await model.aclose()
    completion = deltas[-1].completion
    assert completion is not None
    return [delta.text for delta in deltas[:-1]], completion


async def test_the_input_is_counted_at_the_start_and_the_output_at_the_end() -> None:
    said = Said(
        "Hello",
        thinking="hm",
        input_tokens=500,
        cached_tokens=100,
        cache_write_tokens=300,
        cache_write_1h_tokens=200,
        output_tokens=90,
        reasoning_tokens=80,
    )
    meter = Meter()
    _, completion = await streamed(ask(), MESSAGES.stream(said), meter)
    expected = Usage(500, 90, cached_tokens=100, cache_write_tokens=300, cache_write_1h_tokens=200, reasoning_tokens=80)
    assert completion.usage == meter.usage == expected
    assert completion.text == "Hello"  # without what was thought


async def test_counts_of_the_end_replace_those_of_the_start() -> None:
    told = events(Said("Hello", input_tokens=10))
    told[-2]["usage"] = {"input_tokens": 12, "cache_read_input_tokens": 3, "output_tokens": 7}
    _, completion = await streamed(ask(), Reply.events(*told))
    assert completion.usage == Usage(15, 7, cached_tokens=3)


async def test_the_end_may_come_in_several_events() -> None:
    told = events(Said("Hello", input_tokens=10))
    told.insert(-1, {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 7}})
    _, completion = await streamed(ask(), Reply.events(*told))
    assert (completion.text, completion.finish, completion.usage) == ("Hello", "stop", Usage(10, 7))


async def test_an_answer_whose_length_nobody_states_is_presumed_spent_and_not_one_token_long() -> None:
    told, meter = events(Said("Hello", input_tokens=10)), Meter()
    del told[-2]["usage"]
    with pytest.raises(OutcomeUnknown):
        await streamed(ask(cap=50), Reply.events(*told), meter)
    assert (meter.usage, meter.presumed) == (None, Usage(10, 50))


async def test_text_that_a_block_begins_with_is_told_too() -> None:
    told = events(Said("llo"))
    (begins,) = (event for event in told if event["type"] == "content_block_start")
    begins["content_block"]["text"] = "He"
    pieces, completion = await streamed(ask(), Reply.events(*told))
    assert "".join(pieces) == completion.text == "Hello"


async def test_a_tool_is_called_with_arguments_that_came_in_pieces() -> None:
    call = ToolCall("toolu_1", "weather", '{"city": "Lyon"}')
    said = Said("I look.", calls=(call,), thinking="Which city?", finish="tools")
    pieces, completion = await streamed(ask(tools=(WEATHER,)), MESSAGES.stream(said))
    assert (pieces, completion.calls, completion.finish) == (["I", " look."], (call,), "tools")
    assert '"signature": "c2lnbmVk"' in completion.echo


async def test_a_call_that_begins_without_arguments_is_read_all_the_same() -> None:
    """As llama-server begins one."""
    told = events(Said(calls=(ToolCall("toolu_1", "weather", '{"city": "Lyon"}'),), finish="tools"))
    del told[2]["content_block"]["input"]
    _, completion = await streamed(ask(tools=(WEATHER,)), Reply.events(*told))
    assert completion.calls == (ToolCall("toolu_1", "weather", '{"city": "Lyon"}'),)


async def test_arguments_that_are_no_json_come_as_the_model_wrote_them() -> None:
    told = events(Said(calls=(ToolCall("toolu_1", "weather", "{}"),), finish="tools"))
    pieces = [event for event in told if event["type"] == "content_block_delta"]
    pieces[-1]["delta"]["partial_json"] = ' "city": oops'
    _, completion = await streamed(ask(tools=(WEATHER,)), Reply.events(*told))
    assert completion.calls == (ToolCall("toolu_1", "weather", '{ "city": oops'),)


async def test_a_refusal_in_mid_stream_keeps_what_was_said_and_used() -> None:
    _, completion = await streamed(ask(), MESSAGES.stream(Said("I had", finish="refused", output_tokens=2)))
    assert (completion.finish, completion.text, completion.usage) == ("refused", "I had", Usage(12, 2))


async def test_an_end_that_is_no_answer_is_settled_and_named() -> None:
    told = events(Said("Hello"))
    told[-2]["delta"]["stop_reason"] = "pause_turn"
    meter = Meter()
    with pytest.raises(InvalidOutput, match="pause_turn") as raised:
        await streamed(ask(), Reply.events(*told), meter)
    assert raised.value.usage == meter.usage == Usage(12, 3)


# --- structured output


WORD: JsonSchema = {"type": "string"}
OBJECT: JsonSchema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


async def test_json_that_is_an_object_comes_in_pieces() -> None:
    pieces, completion = await streamed(ask(schema=OBJECT), MESSAGES.stream(Said('{"n": 1}')))
    assert (pieces, completion.text) == (['{"n":', " 1}"], '{"n": 1}')


async def test_other_json_comes_in_one_piece_when_it_is_whole() -> None:
    pieces, completion = await streamed(ask(schema=WORD), MESSAGES.stream(Said('{"result": "a word"}')))
    assert (pieces, completion.text) == (['"a word"'], '"a word"')


async def test_json_that_does_not_fit_is_invalid_but_settled() -> None:
    meter = Meter()
    with pytest.raises(InvalidOutput, match="did not keep to the schema") as raised:
        await streamed(ask(schema=WORD), MESSAGES.stream(Said("a word", output_tokens=2)), meter)
    assert raised.value.usage == meter.usage == Usage(12, 2)


async def test_an_answer_cut_by_its_cap_keeps_the_text_so_far() -> None:
    said = Said('{"result": "half of', finish="length")
    pieces, completion = await streamed(ask(schema=WORD), MESSAGES.stream(said))
    assert (completion.finish, completion.text) == ("length", '{"result": "half of')
    assert "".join(pieces) == completion.text


# --- cut


def at_most(output_tokens: int) -> Meter:
    return Meter(gate=lambda so_far: so_far.output_tokens <= output_tokens)


async def test_a_cut_stream_may_have_cost_its_cap_since_nobody_says_that_it_stops() -> None:
    meter = at_most(60)
    _, completion = await streamed(ask(cap=200), MESSAGES.stream(Said(NUMBERS, input_tokens=77)).slowly(0.001), meter)
    assert completion.finish == "cut"
    assert NUMBERS.startswith(completion.text)
    assert meter.usage is None
    assert meter.presumed == completion.usage == Usage(77, 200)


async def test_a_cut_stream_of_a_server_that_stops_cost_what_arrived_and_its_lead() -> None:
    meter = at_most(60)
    said = Said(NUMBERS, input_tokens=77, cached_tokens=7)
    pieces, completion = await streamed(ask(cap=2000), MESSAGES.stream(said), meter, lead=4)
    assert completion.finish == "cut"
    presumed = completion.usage
    assert meter.presumed == presumed
    assert (presumed.input_tokens, presumed.cached_tokens) == (77, 7)
    assert len(pieces) + 4 <= presumed.output_tokens < 100


async def test_what_is_thought_in_secret_is_taken_to_be_all_it_may() -> None:
    asked: list[Usage] = []

    def gate(so_far: Usage) -> bool:
        asked.append(so_far)
        return True

    said = Said("Hello", thinking="hm", input_tokens=50)
    await streamed(ask(cap=5000), MESSAGES.stream(said), Meter(gate=gate), model_id="claude-opus-5-5")
    assert asked == [Usage(50, 5000)]  # and it is not asked again, for that cannot grow


# --- broken


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([], id="empty"),
        pytest.param(events(Said("Hello"))[-2:], id="an end without a start"),
        pytest.param(events(Said("Hello"))[3:], id="a piece of no block"),
    ],
)
async def test_a_stream_without_its_start_is_unknown(told: list[Json]) -> None:
    meter = Meter()
    with pytest.raises(OutcomeUnknown):
        await streamed(ask(), Reply.events(*told), meter)
    assert (meter.sent, meter.usage, meter.presumed) == (True, None, None)


@pytest.mark.parametrize("kind", ["overloaded_error", "api_error", "timeout_error"])
async def test_an_error_event_names_its_kind(kind: str) -> None:
    reply = MESSAGES.stream(Said(NUMBERS, input_tokens=77)).first(20, then=frame(error(kind)))
    meter = Meter()
    with pytest.raises(OutcomeUnknown, match=kind):
        await streamed(ask(cap=300), reply, meter)
    assert meter.presumed == Usage(77, 300)


# --- long answers


async def test_a_long_answer_is_gathered_from_a_stream() -> None:
    meter = Meter()
    async with ProviderServer(MESSAGES.stream(Said("Hello, world", output_tokens=20_000))) as server:
        model = claude(server.url)
        completion = await model.complete(ask(cap=LONG), meter)
        await model.aclose()
    assert server.body["stream"] is True
    assert (completion.text, completion.finish) == ("Hello, world", "stop")
    assert completion.usage == meter.usage == Usage(12, 20_000)


async def test_a_long_answer_that_breaks_off_is_presumed_at_what_it_may_have_cost() -> None:
    meter = Meter()
    async with ProviderServer(MESSAGES.stream(Said(NUMBERS)).first(9)) as server:
        model = claude(server.url)
        with pytest.raises(OutcomeUnknown, match="broke off"):
            await model.complete(ask(cap=LONG), meter)
        await model.aclose()
    assert (meter.usage, meter.presumed) == (None, Usage(12, LONG))
