"""The suite. Each test states one thing that a step relies on, whoever serves the model."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

import pytest
from pydantic import Field, TypeAdapter

from agentbudget.errors import (
    AgentBudgetError,
    AuthenticationFailed,
    ContextTooLong,
    Mistake,
    RequestRejected,
)
from agentbudget.estimate import Estimator
from agentbudget.ledger import Ledger
from agentbudget.models.base import Completion, Delta, Message, Meter, Model, Request
from agentbudget.usage import Usage
from tests.models.conformance.case import Case
from tests.models.conformance.requests import LONG, SHORT, TEXTS, WEATHER, Place, ask, png, with_image, with_tools

ANSWERS: Final[dict[str, Any]] = {
    "an object": Place,
    "an enum": Literal["billing", "bug", "question"],
    "a bool": bool,
    "an integer": Annotated[int, Field(ge=1, le=9)],
    "a list": Annotated[list[Literal["red", "green"]], Field(min_length=1, max_length=3)],
}


@dataclass
class Gate:
    """Lets a stream go on until it may have used so many output tokens, and keeps what was asked."""

    most: float = float("inf")
    asked: list[Usage] = field(default_factory=list[Usage])

    def __call__(self, so_far: Usage) -> bool:
        self.asked.append(so_far)
        return so_far.output_tokens <= self.most


async def streamed(model: Model, request: Request, meter: Meter) -> tuple[list[str], Completion]:
    """The pieces of a stream and its completion, which must be the last thing that it brings."""
    deltas: list[Delta] = [delta async for delta in model.stream(request, meter)]
    assert [delta.completion is None for delta in deltas] == [True] * (len(deltas) - 1) + [False]
    assert deltas[-1].text == ""
    completion = deltas[-1].completion
    assert completion is not None
    return [delta.text for delta in deltas[:-1]], completion


def known(meter: Meter) -> Usage | None:
    """What a step would settle by."""
    return meter.usage or meter.presumed


class ModelConformance:
    """What every model must do. Subclasses are named ``Test…`` and supply the fixture `case`."""

    # --- the model itself

    async def test_it_is_a_model_and_says_what_it_is(self, case: Case) -> None:
        model = case.model
        assert isinstance(model, Model)
        provider, _, rest = model.name.partition(":")
        assert provider
        assert rest
        assert model.provider
        assert model.context_window > 0
        assert model.place in ("local", "remote")
        assert model.price.terms["source"] == model.price.source

    async def test_no_secret_is_shown(self, case: Case) -> None:
        shown = f"{case.model!r} {case.model} {case.model.name} {case.model.fingerprint}"
        assert case.model.fingerprint
        if case.secret is None:
            pytest.skip("this model has no secret")
        assert case.secret not in shown

    async def test_it_can_be_closed_and_used_again(self, case: Case) -> None:
        await case.model.complete(ask(), Meter())
        await case.model.aclose()
        again = await case.model.complete(ask(), Meter())
        assert again.text

    # --- a complete answer

    async def test_an_answer_comes_with_its_usage(self, case: Case) -> None:
        left: list[str] = []
        meter = Meter(on_leaving=lambda: left.append("left"))
        answer = await case.model.complete(ask(), meter)
        assert left == ["left"]
        assert answer.text.strip()
        assert answer.finish in ("stop", "length")
        assert answer.served_by
        assert answer.confidence is None or 0 <= answer.confidence <= 1
        assert (meter.sent, meter.usage) == (True, answer.usage)
        assert answer.usage.input_tokens > 0
        assert answer.usage.output_tokens > 0

    async def test_the_output_cap_cuts_and_says_so(self, case: Case) -> None:
        answer = await case.model.complete(replace(case.long, max_output_tokens=9), Meter())
        assert answer.finish == "length"
        assert 0 < answer.usage.output_tokens <= 9

    async def test_a_call_costs_no_more_than_was_bounded(self, case: Case) -> None:
        request = ask()
        counted = await case.model.count_input(request)
        answer = await case.model.complete(request, Meter())
        if answer.usage.compute_ns:
            pytest.skip("paid for by the second: its bound depends on what else this machine does")
        price = answer.price or case.model.price
        bound = case.model.price.bound(input_tokens=counted.tokens, output_tokens=request.max_output_tokens)
        assert 0 < price.cost(answer.usage) <= bound

    async def test_a_stop_sequence_ends_the_answer_and_is_left_out(self, case: Case) -> None:
        if not case.stops:
            pytest.skip("this model has no stop sequences")
        whole = await case.model.complete(case.long, Meter())
        words = whole.text.split()
        stop = words[len(words) // 2]
        answer = await case.model.complete(replace(case.long, stop=("never said", stop)), Meter())
        assert answer.finish == "stop"
        assert answer.text == whole.text[: whole.text.index(stop)]

    @pytest.mark.parametrize("kind", ANSWERS)
    async def test_an_answer_fits_its_schema(self, case: Case, kind: str) -> None:
        if not case.schemas:
            pytest.skip("this model has no structured output")
        expected: TypeAdapter[object] = TypeAdapter(ANSWERS[kind])
        request = ask("Answer for Lyon, which is green.", cap=120, schema=expected.json_schema())
        answer = await case.model.complete(request, Meter())
        assert answer.finish == "stop"
        expected.validate_json(answer.text)

    async def test_the_same_seed_gives_the_same_answer(self, case: Case) -> None:
        if not case.seeded:
            pytest.skip("nobody promises that this model answers the same twice")
        request = replace(case.long, max_output_tokens=16, temperature=1.0, seed=11)
        first = await case.model.complete(request, Meter())
        second = await case.model.complete(request, Meter())
        assert first.text == second.text

    async def test_calls_beside_each_other_are_counted_apart(self, case: Case) -> None:
        requests = [ask(" ".join([SHORT] * times)) for times in (1, 2, 3)]
        meters = [Meter() for _ in requests]
        answers = await asyncio.gather(*map(case.model.complete, requests, meters))
        assert [meter.usage for meter in meters] == [answer.usage for answer in answers]
        inputs = [answer.usage.input_tokens for answer in answers]
        assert inputs == sorted(set(inputs))

    async def test_a_cancelled_call_is_cancelled_and_known_to_have_left(self, case: Case) -> None:
        def cancel() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

        meter = Meter(on_leaving=cancel)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(case.model.complete(ask(LONG), meter))
        assert meter.sent
        counted = await case.model.count_input(ask(LONG))
        assert meter.usage is None or meter.usage.input_tokens <= counted.tokens
        assert (await case.model.complete(ask(), Meter())).text  # and it goes on working

    # --- what it will use, before it runs

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    async def test_the_count_is_never_less_than_the_input(self, case: Case, text: str) -> None:
        await _counted_right(case.model, ask(text, cap=4))

    async def test_every_turn_is_counted(self, case: Case) -> None:
        turns = (Message("user", SHORT), Message("assistant", "Hello!"), Message("user", "Again.")) * 4
        await _counted_right(case.model, Request((Message("system", "Be kind."), *turns), 4))

    async def test_a_schema_is_counted(self, case: Case) -> None:
        if not case.schemas:
            pytest.skip("this model has no structured output")
        await _counted_right(case.model, ask(cap=60, schema=Place.model_json_schema()))

    async def test_what_does_not_fit_is_refused_before_anything_is_sent(self, case: Case) -> None:
        window = case.model.context_window
        estimator = Estimator(Ledger.open("memory:"))
        with pytest.raises(ContextTooLong) as refused:
            await estimator.call("conformance", case.model, ask("one more word " * window, cap=16))
        assert refused.value.window == window
        assert refused.value.input_tokens + refused.value.output_tokens > window

    # --- streams

    async def test_the_pieces_of_a_stream_are_its_answer(self, case: Case) -> None:
        meter = Meter()
        pieces, answer = await streamed(case.model, ask(), meter)
        assert "".join(pieces) == answer.text
        assert answer.text.strip()
        assert answer.finish in ("stop", "length")
        assert (meter.sent, meter.usage) == (True, answer.usage)
        assert answer.usage.output_tokens > 0

    async def test_a_stream_is_cut_by_the_output_cap(self, case: Case) -> None:
        _, answer = await streamed(case.model, replace(case.long, max_output_tokens=9), Meter())
        assert answer.finish == "length"
        assert 0 < answer.usage.output_tokens <= 9

    async def test_a_streamed_answer_fits_its_schema(self, case: Case) -> None:
        if not case.schemas:
            pytest.skip("this model has no structured output")
        expected = TypeAdapter(Literal["billing", "bug"])
        pieces, answer = await streamed(case.model, ask(cap=60, schema=expected.json_schema()), Meter())
        assert "".join(pieces) == answer.text
        assert expected.validate_json(answer.text)

    async def test_a_stream_asks_before_it_goes_on(self, case: Case) -> None:
        gate = Gate()
        _, answer = await streamed(case.model, replace(case.long, max_output_tokens=24), Meter(gate=gate))
        assert gate.asked
        outputs = [so_far.output_tokens for so_far in gate.asked]
        assert outputs == sorted(outputs)
        if case.model.stream_lead_tokens is None:
            pytest.skip("what a closed stream is charged is not known, so that its hold covers the worst case")
        assert answer.usage.output_tokens <= outputs[-1]
        assert answer.usage.input_tokens <= gate.asked[-1].input_tokens

    async def test_a_stream_that_may_not_go_on_is_cut_and_keeps_what_arrived(self, case: Case) -> None:
        most = 8 + (case.model.stream_lead_tokens or 0)
        gate = Gate(most)
        meter = Meter(gate=gate)
        pieces, answer = await streamed(case.model, replace(case.long, max_output_tokens=most + 40), meter)
        assert answer.finish == "cut"
        assert "".join(pieces) == answer.text
        assert [so_far.output_tokens > most for so_far in gate.asked] == [False] * (len(gate.asked) - 1) + [True]
        if case.model.stream_lead_tokens is not None:
            assert answer.text.strip()
        _settled_right(case, meter, answer.usage, cap=most + 40)

    async def test_a_stream_that_is_closed_early_is_known_to_have_left(self, case: Case) -> None:
        meter = Meter()
        async with aclosing(case.model.stream(replace(case.long, max_output_tokens=40), meter)) as stream:
            first = await anext(stream)
        assert first.text
        assert meter.sent
        _settled_right(case, meter, known(meter), cap=40)
        assert (await case.model.complete(ask(), Meter())).text

    async def test_a_cancelled_stream_is_cancelled_and_known_to_have_left(self, case: Case) -> None:
        meter, arrived = Meter(), asyncio.Event()

        async def read() -> None:
            async with aclosing(case.model.stream(replace(case.long, max_output_tokens=40), meter)) as stream:
                async for _ in stream:
                    arrived.set()
                    await asyncio.Event().wait()

        reading = asyncio.create_task(read())
        await arrived.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert meter.sent
        _settled_right(case, meter, known(meter), cap=40)

    # --- tools

    async def test_a_tool_is_called_and_its_result_taken(self, case: Case) -> None:
        request = with_tools(ask("What is the weather in Lyon? Ask the tool.", cap=80))
        if not case.tools:
            await _refuses(case.model, request)
            return
        asked = await case.model.complete(replace(request, tool_choice=case.tool_choice), Meter())
        await self._answers_with_the_result(case.model, request, asked)

    async def test_a_tool_is_called_in_a_stream(self, case: Case) -> None:
        request = with_tools(ask("What is the weather in Lyon? Ask the tool.", cap=80))
        if not case.tools:
            pytest.skip("this model has no tools")
        _, asked = await streamed(case.model, replace(request, tool_choice=case.tool_choice), Meter())
        await self._answers_with_the_result(case.model, request, asked)

    async def test_a_model_that_may_use_no_tool_answers(self, case: Case) -> None:
        if not case.tools:
            pytest.skip("this model has no tools")
        answer = await case.model.complete(replace(with_tools(ask()), tool_choice="none"), Meter())
        assert answer.finish in ("stop", "length")
        assert answer.text.strip()
        assert answer.calls == ()

    async def test_tools_are_counted(self, case: Case) -> None:
        if not case.tools:
            pytest.skip("this model has no tools")
        plain = ask(cap=4)
        request = replace(with_tools(plain), tool_choice="none")
        await _counted_right(case.model, request)
        assert (await case.model.count_input(request)).tokens > (await case.model.count_input(plain)).tokens + 10

    async def _answers_with_the_result(self, model: Model, request: Request, asked: Completion) -> None:
        assert asked.finish == "tools"
        call = asked.calls[0]
        assert call.id
        assert call.name == WEATHER.name
        assert isinstance(json.loads(call.arguments)["city"], str)
        turn = Message("assistant", asked.text, calls=asked.calls)
        results = tuple(Message("tool", "It rains.", answers=call.id) for call in asked.calls)
        after = replace(request, messages=(*request.messages, turn, *results), tool_choice="auto")
        answer = await model.complete(after, Meter())
        assert answer.finish in ("stop", "length", "tools")
        assert answer.usage.input_tokens > asked.usage.input_tokens
        assert answer.usage.input_tokens <= (await model.count_input(after)).tokens

    # --- pictures

    async def test_a_picture_is_read_and_counted(self, case: Case) -> None:
        request = with_image(ask("What is this?", cap=8), png(64, 64))
        if case.images is None:
            pytest.skip("only the server knows whether this model can see")
        if not case.images:
            await _refuses(case.model, request)
            return
        await _counted_right(case.model, request)
        plain = await case.model.count_input(ask("What is this?", cap=8))
        assert (await case.model.count_input(request)).tokens > plain.tokens

    # --- what goes wrong

    async def test_a_wrong_key_is_named_and_costs_nothing(self, case: Case) -> None:
        if case.refused is None:
            pytest.skip("this model needs no key")
        for refused in (case.refused.complete(ask(), Meter()), streamed(case.refused, ask(), Meter())):
            with pytest.raises(AuthenticationFailed) as raised:
                await refused
            assert raised.value.usage == Usage()

    async def test_an_unknown_model_is_named_and_costs_nothing(self, case: Case) -> None:
        if case.unknown is None:
            pytest.skip("where this model comes from, there are no others")
        for unknown in (case.unknown.complete(ask(), Meter()), streamed(case.unknown, ask(), Meter())):
            with pytest.raises(RequestRejected, match=case.unknown.name) as raised:
                await unknown
            assert raised.value.usage == Usage()


async def _counted_right(model: Model, request: Request) -> None:
    """The count bounds what the provider says that the input was, and is just that where it claims to be exact."""
    counted = await model.count_input(request)
    answer = await model.complete(request, Meter())
    assert 0 < answer.usage.input_tokens <= counted.tokens
    if counted.exact:
        assert answer.usage.input_tokens == counted.tokens


async def _refuses(model: Model, request: Request) -> None:
    """What a model cannot do, it says before anything is sent, whichever way it is asked."""

    async def count(request: Request, _: Meter) -> object:
        return await model.count_input(request)

    async def stream(request: Request, meter: Meter) -> object:
        return await streamed(model, request, meter)

    for ask_it in (model.complete, stream, count):
        meter = Meter()
        with pytest.raises((Mistake, RequestRejected)) as raised:
            await ask_it(request, meter)
        assert isinstance(raised.value, AgentBudgetError)
        assert not meter.sent
        assert model.name in str(raised.value)


def _settled_right(case: Case, meter: Meter, usage: Usage | None, *, cap: int) -> None:
    """What a broken-off stream is settled by is known, within its cap, and no less than the provider charges."""
    if usage is None:
        pytest.fail("neither usage nor a bound of it is known: the whole hold would be taken for spent")
    assert usage.input_tokens > 0
    assert usage.output_tokens <= cap
    assert known(meter) is not None
    if meter.usage is None and case.model.stream_lead_tokens is None:
        assert meter.presumed is not None
        assert meter.presumed.output_tokens == cap
    if case.billed is not None:
        billed, booked = case.billed(), known(meter)
        assert booked is not None
        assert booked.input_tokens >= billed.input_tokens
        assert booked.output_tokens >= billed.output_tokens
