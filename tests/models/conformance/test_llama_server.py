"""A real llama-server passes what every model must, through each of the two APIs that OpenAI's SDK speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import pytest

from agentbudget.models.base import Message, Meter, Request, ToolCall
from agentbudget.models.openai import Api, OpenAIModel
from agentbudget.models.servers import LLAMA_SERVER
from tests.models.conformance import Case, ModelConformance
from tests.models.conformance.requests import SHORT, WEATHER, ask
from tests.models.conformance.suite import streamed
from tests.models.llama_server import NAME, LlamaServer
from tests.models.remote_fixtures import PRICE


async def real_case(server: LlamaServer, api: Api) -> AsyncIterator[Case]:
    model = OpenAIModel(NAME, api=api, base_url=f"{server.url}/v1", profile=LLAMA_SERVER, price=PRICE, images=False)
    await model.count_input(ask())  # which is when it learns of its window
    # A prompt that is in the server's cache is computed in other batches, which rounds differently: not seeded.
    yield Case(model, images=False)
    await model.aclose()


CALL: Final = ToolCall("call_0", WEATHER.name, '{"city": "Paris"}')
SHOWN: Final = Request(
    (
        Message("system", "You are a helpful assistant."),
        Message("user", "What is the weather in Paris?"),
        Message("assistant", "", calls=(CALL,)),
        Message("tool", "It snows.", answers=CALL.id),
        Message("assistant", "It snows."),
        Message("user", "What is the weather in Lyon?"),
    ),
    60,
    tools=(WEATHER,),
)
"""So small a model calls a tool only if it is shown how, and the first word of the call put into its mouth."""


def begun(request: Request) -> Request:
    """The same with that word."""
    turns = (*request.messages, Message("assistant", "<tool_call>\n"))
    return replace(request, messages=turns, tool_choice="required")


class RealServer(ModelConformance):
    """What is asked of so small a model in another way."""

    async def test_a_stop_sequence_ends_the_answer_and_is_left_out(self, case: Case) -> None:
        # Asked again, it may say something else: its prompt is in the server's cache.
        answer = await case.model.complete(ask(SHORT, stop=("never said", " ")), Meter())
        assert answer.finish == "stop"
        assert " " not in answer.text

    async def test_a_tool_is_called_and_its_result_taken(self, case: Case) -> None:
        asked = await case.model.complete(begun(SHOWN), Meter())
        await self._answers_with_the_result(case.model, SHOWN, asked)

    async def test_a_tool_is_called_in_a_stream(self, case: Case) -> None:
        _, asked = await streamed(case.model, begun(SHOWN), Meter())
        await self._answers_with_the_result(case.model, SHOWN, asked)


class TestChat(RealServer):
    @pytest.fixture
    async def case(self, llama_server: LlamaServer) -> AsyncIterator[Case]:
        async for case in real_case(llama_server, "chat"):
            yield case


class TestResponses:
    """What differs with the Responses API, which the server turns into chat requests."""

    @pytest.fixture
    async def case(self, llama_server: LlamaServer) -> AsyncIterator[Case]:
        async for case in real_case(llama_server, "responses"):
            yield case

    test_an_answer_comes_with_its_usage = RealServer.test_an_answer_comes_with_its_usage
    test_the_output_cap_cuts_and_says_so = RealServer.test_the_output_cap_cuts_and_says_so
    test_every_turn_is_counted = RealServer.test_every_turn_is_counted
    test_the_pieces_of_a_stream_are_its_answer = RealServer.test_the_pieces_of_a_stream_are_its_answer
    test_a_stream_is_cut_by_the_output_cap = RealServer.test_a_stream_is_cut_by_the_output_cap
    test_a_streamed_answer_fits_its_schema = RealServer.test_a_streamed_answer_fits_its_schema
    test_a_tool_is_called_in_a_stream = RealServer.test_a_tool_is_called_in_a_stream
    _answers_with_the_result = RealServer._answers_with_the_result  # pyright: ignore[reportPrivateUsage] - of those
