"""A real llama-server passes what every model must, through each of the two APIs that OpenAI's SDK speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agentbudget.models.base import Message, Meter, Request
from agentbudget.models.openai import Api, OpenAIModel
from agentbudget.models.servers import LLAMA_SERVER
from tests.models.conformance import Case, ModelConformance
from tests.models.conformance.requests import SHORT, ask, with_tools
from tests.models.conformance.suite import streamed
from tests.models.llama_server import NAME, LlamaServer
from tests.models.remote_fixtures import PRICE


async def real_case(server: LlamaServer, api: Api) -> AsyncIterator[Case]:
    model = OpenAIModel(NAME, api=api, base_url=f"{server.url}/v1", profile=LLAMA_SERVER, price=PRICE, images=False)
    await model.count_input(ask())  # which is when it learns of its window
    # A prompt that is in the server's cache is computed in other batches, which rounds differently: not seeded.
    yield Case(model, images=False)
    await model.aclose()


def begun(request: Request) -> Request:
    """The same, with the first word of a call put into the model's mouth: it is too small to choose one by itself."""
    return replace(request, messages=(*request.messages, Message("assistant", "<tool_call>\n")))


class RealServer(ModelConformance):
    """What is asked of so small a model in another way."""

    async def test_a_stop_sequence_ends_the_answer_and_is_left_out(self, case: Case) -> None:
        whole = await case.model.complete(ask(SHORT), Meter())
        stop = whole.text.split()[2]
        answer = await case.model.complete(ask(SHORT, stop=("never said", stop)), Meter())
        assert answer.finish == "stop"
        assert answer.text == whole.text[: whole.text.index(stop)]

    async def test_a_tool_is_called_and_its_result_taken(self, case: Case) -> None:
        request = with_tools(ask("What is the weather in Lyon?", cap=60))
        asked = await case.model.complete(replace(begun(request), tool_choice="required"), Meter())
        await self._answers_with_the_result(case.model, request, asked)

    async def test_a_tool_is_called_in_a_stream(self, case: Case) -> None:
        request = with_tools(ask("What is the weather in Lyon?", cap=60))
        _, asked = await streamed(case.model, replace(begun(request), tool_choice="required"), Meter())
        await self._answers_with_the_result(case.model, request, asked)


class TestChat(RealServer):
    @pytest.fixture
    async def case(self, llama_server: LlamaServer) -> AsyncIterator[Case]:
        async for case in real_case(llama_server, "chat"):
            yield case


class TestResponses(RealServer):
    @pytest.fixture
    async def case(self, llama_server: LlamaServer) -> AsyncIterator[Case]:
        async for case in real_case(llama_server, "responses"):
            yield case
