"""What a prompt is made of, in tokens and money that add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import AgentBudgetError
from agentbudget.history.parts import Breakdown, InputParts, Part, SystemCounts, breakdown, input_parts, total
from agentbudget.models.base import InputCount, Message, Model, Request, Tool
from agentbudget.prices import ComputePrice
from agentbudget.prices.tokens import TokenPrice
from agentbudget.testing import ScriptedModel
from agentbudget.usage import Usage
from tests.history.talk import says, system, user

PASSAGE = "[1] Refunds take a week."
REQUEST = Request(
    (
        system("Be brief."),
        user("Hello there."),
        says("Hi."),
        user(f"How long does it take?\n\n{PASSAGE}"),
    ),
    20,
    tools=(Tool("search", "Find things", {"type": "object"}),),
)
API = TokenPrice.custom(input_usd_per_mtok="2", output_usd_per_mtok="8", cached_usd_per_mtok="1")


async def divided(model: ScriptedModel, request: Request = REQUEST) -> InputParts:
    return await input_parts(model, request, await model.count_input(request), retrieved=[PASSAGE])


async def test_a_local_counter_counts_each_part() -> None:
    parts = await divided(ScriptedModel([]))  # a word is a token, and one a message
    assert dict(parts.tokens) == {"system": 4, "task": 5, "history": 5, "tools": 5, "retrieved": 5}
    assert parts.exact


async def test_the_parts_add_up_to_the_count() -> None:
    model = ScriptedModel([])
    parts = await divided(model)
    assert sum(parts.tokens.values()) == (await model.count_input(REQUEST)).tokens


async def test_where_counting_would_cost_requests_bytes_divide() -> None:
    parts = await divided(ScriptedModel([], place="remote"))
    assert not parts.exact
    assert set(parts.tokens) == {"task", "system", "history", "tools", "retrieved"}
    assert sum(parts.tokens.values()) == (await ScriptedModel([]).count_input(REQUEST)).tokens


async def test_a_prompt_of_one_part_is_exact_and_counted_once() -> None:
    parts = await input_parts(ScriptedModel([]), Request((user("Hello"),), 5), InputCount(2, exact=False))
    assert parts == InputParts({"task": 2}, exact=True)


class Counting(ScriptedModel):
    """Notes what it counts."""

    async def count_input(self, request: Request) -> InputCount:
        self.requests.append(request)
        return await super().count_input(request)


async def test_a_system_prompt_is_counted_once_for_all_calls_that_share_it() -> None:
    model, known = Counting([]), SystemCounts()
    for question in ("What of it?", "And why is that?"):
        request = Request((system("Be brief."), user(question)), 5)
        parts = await input_parts(model, request, InputCount(20, exact=True), known=known)
        assert dict(parts.tokens) == {"system": 4, "task": 16}
    assert len(model.requests) == 1


async def test_a_system_prompt_is_counted_again_under_another_schema() -> None:
    model, known = Counting([]), SystemCounts()
    for schema in (None, {"type": "string"}):
        request = Request((system("Be brief."), user("What of it?")), 5, schema=schema)
        await input_parts(model, request, InputCount(20, exact=True), known=known)
    assert [request.schema for request in model.requests] == [None, {"type": "string"}]


async def test_results_of_tools_are_history() -> None:
    request = Request((user("What of it?"), *(Message("tool", "It is 5.", answers="x"),)), 5)
    parts = await input_parts(ScriptedModel([]), request, InputCount(8, exact=True))
    assert dict(parts.tokens) == {"task": 4, "history": 4}


def test_cached_tokens_are_the_first_of_the_prompt_and_cheaper() -> None:
    parts = InputParts({"task": 100, "system": 100}, exact=True)
    usage = Usage(200, 10, cached_tokens=100)
    found = breakdown(parts, usage, API, API.cost(usage))
    assert [(part.name, part.usd_nano) for part in found.parts] == [
        ("system", 100 * 1000),
        ("task", 100 * 2000),
        ("output", 10 * 8000),
    ]


def test_a_local_models_money_goes_by_its_speeds() -> None:
    local = ComputePrice("0.36", 100, 10)  # pyright: ignore[reportArgumentType]
    usage = Usage(100, 10, compute_ns=2 * 10**9)
    found = breakdown(InputParts({"task": 50, "system": 50}, exact=True), usage, local, local.cost(usage))
    assert [part.name for part in found.parts] == ["system", "task", "output"]
    assert sum(part.usd_nano for part in found.parts) == local.cost(usage)
    assert found.parts[2].usd_nano == pytest.approx(local.cost(usage) / 2, rel=0.01)


def test_what_the_provider_counted_is_the_truth() -> None:
    usage = Usage(300, 0)
    found = breakdown(InputParts({"task": 100, "system": 100}, exact=True), usage, API, API.cost(usage))
    assert sum(part.tokens for part in found.parts) == 300
    assert not found.exact


names = st.sampled_from(["task", "system", "history", "tools", "retrieved"])


@given(st.dictionaries(names, st.integers(0, 5000), min_size=1), st.integers(0, 9000), st.integers(0, 500), st.data())
def test_tokens_and_money_always_add_up(tokens: dict[str, int], used: int, output: int, data: st.DataObject) -> None:
    cached = data.draw(st.integers(0, used))
    usage = Usage(used, output, cached_tokens=cached)
    found = breakdown(InputParts(tokens, exact=True), usage, API, API.cost(usage))  # pyright: ignore[reportArgumentType]
    if any(tokens.values()):
        assert sum(part.tokens for part in found.parts) == used + output
        assert sum(part.usd_nano for part in found.parts) == API.cost(usage)
    assert Breakdown.from_dict(found.to_dict()) == found


def test_several_calls_add_up_part_by_part() -> None:
    one = Breakdown((Part("system", 10, 100), Part("output", 5, 50)))
    other = Breakdown((Part("system", 1, 10), Part("task", 2, 20)), exact=False)
    assert total([one, other]) == Breakdown(
        (Part("system", 11, 110), Part("task", 2, 20), Part("output", 5, 50)), exact=False
    )


async def test_a_template_that_puts_in_a_system_prompt_of_its_own_counts_exactly() -> None:
    model = await _smallest()
    request = Request((system("Greet the person in one short sentence."), user("Mia")), 8)
    count = await model.count_input(request)
    parts = await input_parts(model, request, count)
    assert parts.exact
    assert sum(parts.tokens.values()) == count.tokens
    assert 0 < parts.tokens["task"] < parts.tokens["system"]


async def _smallest() -> Model:
    from agentbudget.models import catalog, make_ladder
    from agentbudget.settings import Settings

    try:
        catalog.ensure("smollm2-135m")
    except AgentBudgetError as error:
        pytest.skip(f"no weights: {error}")
    return make_ladder(["llamacpp:smollm2-135m"], Settings.from_env()).at("local")
