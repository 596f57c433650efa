"""A budgeted chat model: refused before, booked after, whoever calls it and however the call ends."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeListChatModel, GenericFakeChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from pydantic import BaseModel, Field

from agentbudget.errors import BudgetExceeded, HoldConflict, Mistake, OutcomeUnknown, UnknownAccount, UnknownPrice
from agentbudget.langchain import BudgetedChatModel, ChatModel, budgeted
from agentbudget.ledger import HoldRecord, Ledger
from agentbudget.models.base import Request
from agentbudget.money import Amount, Budget
from agentbudget.prices import ComputePrice, TokenPrice
from agentbudget.statement import Statement
from agentbudget.testing import ScriptedModel, ScriptedReply
from agentbudget.usage import Usage

PRICE = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="10")
USER: RunnableConfig = {"configurable": {"user_id": "42"}}
WORDS = "one two three four"


class Refused(Exception):
    """As SDKs refuse: a status, and a response with headers."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__(f"refused with {status}")
        self.status_code = status
        self.response = type("Response", (), {"headers": headers})()


class Foreign(BaseChatModel):
    """An integration that is not ours: it answers, or fails, as it is told, and records what it was asked."""

    steps: list[Any]
    max_tokens: int = 100
    seen: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])

    @property
    def _llm_type(self) -> str:
        return "foreign"

    def _next(self, kwargs: dict[str, Any]) -> AIMessage:
        self.seen.append(kwargs)
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(kwargs))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        message = self._next(kwargs)
        for word in message.text.split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))
        if message.response_metadata.get("breaks"):
            raise ConnectionError("the line went dead")
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content="", usage_metadata=message.usage_metadata, response_metadata={"finish_reason": "stop"}
            )
        )


def said(text: str = WORDS, tokens: int = 4, **told: Any) -> AIMessage:
    usage = {"input_tokens": 7, "output_tokens": tokens, "total_tokens": 7 + tokens}
    return AIMessage(text, usage_metadata=usage, response_metadata=told)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger.open("memory:")


def by_heart(_: Request) -> str:
    return WORDS


def ours(ledger: Ledger, script: Any = by_heart, *, usd: str = "1", **options: Any) -> BudgetedChatModel:
    accounts = {"user/{user_id}": Budget(usd=usd)}
    return budgeted(ChatModel(model=ScriptedModel(script)), ledger=ledger, accounts=accounts, **options)


def foreign(ledger: Ledger, *steps: AIMessage | BaseException, **options: Any) -> BudgetedChatModel:
    options = {"accounts": {"user/42": Budget(usd="1")}, **options}
    return budgeted(Foreign(steps=list(steps)), ledger=ledger, price=PRICE, **options)


def only(ledger: Ledger) -> HoldRecord:
    (hold,) = ledger.holds()
    return hold


async def by_invoke(model: BudgetedChatModel) -> str:
    return model.invoke("hi", USER).text


async def by_ainvoke(model: BudgetedChatModel) -> str:
    return (await model.ainvoke("hi", USER)).text


async def by_stream(model: BudgetedChatModel) -> str:
    return "".join(chunk.text for chunk in model.stream("hi", USER))


async def by_astream(model: BudgetedChatModel) -> str:
    return "".join([chunk.text async for chunk in model.astream("hi", USER)])


async def by_batch(model: BudgetedChatModel) -> str:
    return model.batch(["hi"], USER)[0].text


async def by_events(model: BudgetedChatModel) -> str:
    stream: Any = model.stream_events("hi", USER, version="v3")
    return stream.output.text


WAYS = [by_invoke, by_ainvoke, by_stream, by_astream, by_batch, by_events]


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_of_calling_is_booked_at_what_it_used(way: Callable[..., Any], ledger: Ledger) -> None:
    assert (await way(ours(ledger))).split() == WORDS.split()
    assert ledger.balance("user/42").posted == Amount(2_000 + 40_000, 6, 1)
    assert only(ledger).meta["skill"] == "langchain"


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_of_calling_is_refused_before_anything_is_sent(way: Callable[..., Any], ledger: Ledger) -> None:
    scripted = ScriptedModel(lambda _: WORDS, stream_lead_tokens=None)
    model = budgeted(ChatModel(model=scripted), ledger=ledger, accounts={"user/42": Budget(usd="0.0001")})
    with pytest.raises(BudgetExceeded):
        await way(model)
    assert scripted.requests == []
    assert ledger.holds() == []


def test_the_cap_that_was_paid_for_is_in_the_request(ledger: Ledger) -> None:
    model = foreign(ledger, said(), said())
    model.invoke("hi", max_tokens=33)
    model.invoke("hi")
    inner = model.inner
    assert isinstance(inner, Foreign)
    assert [asked["max_tokens"] for asked in inner.seen] == [33, 100]
    assert [hold.amount.tokens for hold in ledger.holds()] == [83 + 33, 83 + 100]


def test_a_call_is_held_by_its_own_model_where_it_asks_for_another(ledger: Ledger) -> None:
    with pytest.raises(UnknownPrice):
        foreign(ledger, said()).invoke("hi", model="another")
    assert ledger.holds() == []


def test_an_answer_without_usage_is_presumed_spent(ledger: Ledger) -> None:
    foreign(ledger, AIMessage("no word of tokens")).invoke("hi")
    assert only(ledger).presumed
    assert only(ledger).settled == only(ledger).amount


def test_more_than_was_held_is_booked_in_full(ledger: Ledger) -> None:
    foreign(ledger, said(tokens=5_000)).invoke("hi")
    assert only(ledger).settled == Amount(7_000 + 50_000_000, 5_007, 1)
    assert only(ledger).overrun.tokens > 0


@pytest.mark.parametrize(
    ("error", "cost", "presumed"),
    [
        (Refused(400), Amount(0, 0, 1), False),
        (Refused(401), Amount(0, 0, 1), False),
        (Refused(500), None, True),
        (TimeoutError("no answer"), None, True),
        (ValueError("an answer that makes no sense"), None, True),
    ],
)
def test_a_failed_call_is_booked_as_far_as_it_is_known(
    error: Exception, cost: Amount | None, presumed: bool, ledger: Ledger
) -> None:
    with pytest.raises(type(error)):
        foreign(ledger, error).invoke("hi")
    hold = only(ledger)
    assert (hold.settled, hold.presumed) == (cost or hold.amount, presumed)


def test_a_call_that_never_left_costs_nothing(ledger: Ledger) -> None:
    with pytest.raises(NotImplementedError):
        foreign(ledger, NotImplementedError("no such thing")).invoke("hi")
    assert ledger.balance("user/42").posted == Amount()


def test_every_attempt_has_its_own_hold(ledger: Ledger) -> None:
    refusal = {"retry-after-ms": "1"}
    model = foreign(ledger, Refused(529, **refusal), Refused(500, **refusal), said(), attempts=3)
    assert model.invoke("hi").text == WORDS
    first, second, third = ledger.holds()
    assert (first.settled, second.presumed, third.settled) == (Amount(0, 0, 1), True, Amount(47_000, 11, 1))
    assert [second.id, third.id] == [f"{first.id}~2", f"{first.id}~3"]


def test_a_refusal_until_tomorrow_is_not_waited_for(ledger: Ledger) -> None:
    with pytest.raises(Refused):
        foreign(ledger, Refused(429, **{"retry-after": "86400"}), said(), attempts=2).invoke("hi")
    assert len(ledger.holds()) == 1


async def test_async_attempts_are_tried_again_too(ledger: Ledger) -> None:
    model = foreign(ledger, Refused(429, **{"retry-after-ms": "1"}), said(), attempts=2)
    assert (await model.ainvoke("hi")).text == WORDS
    assert [hold.presumed for hold in ledger.holds()] == [False, False]


def test_what_waiting_does_not_mend_is_not_tried_again(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        foreign(ledger, ValueError("nonsense"), said(), attempts=3).invoke("hi")
    assert len(ledger.holds()) == 1


# --- streams


def test_a_stream_begins_on_a_small_hold_and_grows(ledger: Ledger) -> None:
    text = " ".join(["word"] * 300)
    model = budgeted(
        ChatModel(model=ScriptedModel(lambda _: text)), ledger=ledger, accounts={"user/42": Budget(usd="1")}
    )
    assert len("".join(chunk.text for chunk in model.stream("hi")).split()) == 300
    kinds = [entry.kind for entry in ledger.entries() if entry.subject == only(ledger).id]
    assert kinds.count("extend") >= 2
    assert only(ledger).settled == Amount(2_000 + 3_000_000, 302, 1)


def test_a_stream_is_cut_where_its_hold_can_grow_no_more(ledger: Ledger) -> None:
    text = " ".join(["word"] * 300)
    model = budgeted(
        ChatModel(model=ScriptedModel(lambda _: text)), ledger=ledger, accounts={"user/42": Budget(usd="0.001")}
    )
    whole: Any = None
    for chunk in model.stream("hi"):
        whole = chunk if whole is None else whole + chunk
    assert whole.response_metadata["finish_reason"] == "cut"
    assert 0 < len(whole.text.split()) < 300
    balance = ledger.balance("user/42")
    assert balance.posted.usd_nano <= 1_000_000
    assert balance.held == Amount()


def test_a_foreign_stream_is_cut_where_its_provider_is_known_to_stop(ledger: Ledger) -> None:
    model = foreign(
        ledger, said(" ".join(["word"] * 90), 90), accounts={"user/42": Budget(usd="0.0008")}, stream_lead_tokens=1
    )
    chunks = list(model.stream("hi"))
    assert chunks[-1].response_metadata["finish_reason"] == "cut"
    assert "left of" in chunks[-1].response_metadata["cut"]
    assert only(ledger).presumed
    assert ledger.balance("user/42").posted.usd_nano <= 800_000


THOUGHT: tuple[tuple[Any, dict[str, Any]], ...] = (
    ([{"type": "thinking", "thinking": "let me see ", "index": 0}], {}),
    ([{"type": "reasoning", "reasoning": "let me see ", "index": 0}], {}),
    ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "let me see "}], "index": 0}], {}),
    ("", {"reasoning_content": "let me see "}),
)


class Thinks(Foreign):
    """Thinks a hundred times before it says anything; says at its end what it made, but not of what."""

    content: Any
    beside: dict[str, Any]

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for _ in range(100):
            message = AIMessageChunk(content=self.content, additional_kwargs=self.beside)
            yield ChatGenerationChunk(message=message)
        usage: Any = {"input_tokens": 0, "output_tokens": 1500, "total_tokens": 1500}
        told = {"stop_reason": "end_turn"}
        yield ChatGenerationChunk(message=AIMessageChunk(content="four", usage_metadata=usage, response_metadata=told))


def thinking(ledger: Ledger, content: Any, beside: dict[str, Any]) -> BudgetedChatModel:
    chat = Thinks(steps=[], content=content, beside=beside, max_tokens=2000)
    return budgeted(chat, ledger=ledger, price=PRICE, accounts={"user/42": Budget(usd="1")}, stream_lead_tokens=4)


@pytest.mark.parametrize(("content", "beside"), THOUGHT)
def test_what_a_model_thinks_counts_where_its_stream_is_left(
    ledger: Ledger, content: Any, beside: dict[str, Any]
) -> None:
    stream = thinking(ledger, content, beside).stream("hi")
    for _ in range(50):
        next(stream)
    stream.close()  # type: ignore[attr-defined] # it is a generator
    assert only(ledger).detail["usage"]["output_tokens"] >= 50 * 3  # "let me see" has three tokens


def test_an_answer_whose_length_alone_is_told_is_presumed_at_no_less(ledger: Ledger) -> None:
    list(thinking(ledger, [{"type": "thinking", "thinking": "hm", "index": 0}], {}).stream("hi"))
    assert only(ledger).presumed
    assert (only(ledger).settled or Amount()).usd_nano >= 1500 * 10_000


@pytest.mark.parametrize("lead", [None, 4])
def test_where_time_is_paid_for_a_foreign_call_is_booked_at_its_time(ledger: Ledger, lead: int | None) -> None:
    price = ComputePrice(Decimal("0.10"), prefill_tokens_per_s=1000, decode_tokens_per_s=100)
    chat = Foreign(steps=[said(), said(), said()])
    model = budgeted(chat, ledger=ledger, price=price, accounts={"user/42": Budget(usd="1")}, stream_lead_tokens=lead)
    model.invoke("hi")
    list(model.stream("hi"))
    stream = model.stream("hi")
    next(stream)
    stream.close()  # type: ignore[attr-defined] # it is a generator
    *whole, left = ledger.holds()
    for hold in whole:
        assert hold.settled is not None
        assert hold.settled.usd_nano == price.cost(Usage.from_dict(hold.detail["usage"])) > 0
    assert left.presumed
    assert left.settled is not None
    assert left.settled.usd_nano > 0


def test_a_foreign_stream_of_unknown_manners_holds_the_worst_case(ledger: Ledger) -> None:
    list(foreign(ledger, said()).stream("hi"))
    assert only(ledger).amount.tokens == 83 + 100
    assert only(ledger).settled == Amount(47_000, 11, 1)


def test_a_stream_that_breaks_off_is_presumed_spent_and_not_tried_again(ledger: Ledger) -> None:
    model = foreign(ledger, said(breaks=True), said(), attempts=3)
    with pytest.raises(ConnectionError):
        list(model.stream("hi"))
    assert only(ledger).presumed
    assert only(ledger).settled == only(ledger).amount


def test_a_stream_that_is_refused_at_first_is_tried_again(ledger: Ledger) -> None:
    model = foreign(ledger, Refused(529, **{"retry-after-ms": "1"}), said(), attempts=2)
    assert "".join(chunk.text for chunk in model.stream("hi")).split() == WORDS.split()
    assert [hold.settled for hold in ledger.holds()] == [Amount(0, 0, 1), Amount(47_000, 11, 1)]


def test_a_stream_that_its_reader_leaves_is_booked(ledger: Ledger) -> None:
    stream = ours(ledger).stream("hi", USER)
    next(stream)
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert only(ledger).state == "settled"
    assert ledger.balance("user/42").held == Amount()


async def test_a_cancelled_call_is_booked(ledger: Ledger) -> None:
    model = ours(ledger, [ScriptedReply(WORDS, delay_s=30)])
    task = asyncio.create_task(model.ainvoke("hi", USER))
    while not ledger.holds():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert only(ledger).presumed


def test_a_broken_stream_of_ours_raises_after_its_pieces(ledger: Ledger) -> None:
    error = OutcomeUnknown("dropped", model="scripted:model")
    pieces: list[str] = []
    with pytest.raises(OutcomeUnknown):
        pieces.extend(
            chunk.text for chunk in ours(ledger, [ScriptedReply(WORDS, error=error)], attempts=1).stream("hi", USER)
        )
    assert pieces[:4] == ["one ", "two ", "three ", "four"]
    assert only(ledger).presumed


def test_what_an_integration_says_beside_its_message_is_heard(ledger: Ledger) -> None:
    class Beside(Foreign):
        def _generate(self, *_: Any, **__: Any) -> ChatResult:
            told = {"finish_reason": "length"}
            return ChatResult(generations=[ChatGeneration(message=self._next({}), generation_info=told)])

    model = budgeted(
        Beside(steps=[said()]), ledger=ledger, price=PRICE, accounts={"user/42": Budget(usd="1")}, hold="worst"
    )
    model.invoke("hi")
    assert only(ledger).detail["finish"] == "length"


# --- what is learned


def test_a_learned_cap_is_written_into_the_request_and_an_answer_that_it_cuts_is_made_again(ledger: Ledger) -> None:
    asked: list[int] = []

    def reply(request: Any) -> ScriptedReply:
        asked.append(request.max_output_tokens)
        text = " ".join(["word"] * 200) if "long" in request.messages[-1].text else WORDS
        cut = len(text.split()) > request.max_output_tokens
        return ScriptedReply(text, finish="length" if cut else "stop")

    model = ours(ledger, reply, hold="quantile")
    for _ in range(40):
        model.invoke("hi", USER)
    model.invoke("a long one", USER)
    assert asked[0] == 1024
    assert asked[-2] < 200
    assert asked[-1] == 1024
    assert ledger.holds()[-1].meta["purpose"] == "retry"


# --- who pays


def test_a_call_whose_payer_is_not_named_is_not_made(ledger: Ledger) -> None:
    with pytest.raises(Mistake, match="user_id"):
        ours(ledger).invoke("hi")
    assert ledger.holds() == []


def test_an_account_that_nobody_opened_is_a_slip_of_the_pen(ledger: Ledger) -> None:
    with pytest.raises(UnknownAccount):
        foreign(ledger, said(), accounts=["user/24"]).invoke("hi")


def test_a_model_without_accounts_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Mistake, match="accounts"):
        foreign(ledger, said(), accounts=[])


def test_an_account_that_exists_keeps_its_limit(ledger: Ledger) -> None:
    ledger.account("user/42", limit=Budget(usd="5"))
    ours(ledger).invoke("hi", USER)
    assert ledger.balance("user/42").limit == Budget(usd="5")


def test_the_payer_is_found_in_the_config_of_the_graph_around(ledger: Ledger) -> None:
    model = ours(ledger)

    def ask(text: str) -> str:
        return model.invoke(text).text

    RunnableLambda(ask).invoke("hi", {"configurable": {"user_id": "7"}})
    assert ledger.balance("user/7").posted.calls == 1


def test_metadata_names_a_payer_too(ledger: Ledger) -> None:
    ours(ledger).invoke("hi", {"metadata": {"user_id": "9"}})
    assert ledger.balance("user/9").posted.calls == 1


def test_a_run_that_pays_has_a_statement(ledger: Ledger) -> None:
    model = budgeted(
        ChatModel(model=ScriptedModel(lambda _: WORDS)), ledger=ledger, accounts={"run/{thread_id}": Budget(usd="1")}
    )
    model.invoke("hi", {"configurable": {"thread_id": "t1"}})
    statement = Statement.of(ledger, "t1", task="chat")
    assert statement.totals.settled.usd_nano == 42_000
    assert statement.totals.calls == 1


# --- once


def test_the_hold_has_the_run_id_of_the_trace(ledger: Ledger) -> None:
    run_id = uuid4()
    ours(ledger).invoke("hi", {**USER, "run_id": run_id})
    assert only(ledger).id == f"langchain/langchain.{run_id}"


def test_a_run_id_pays_once(ledger: Ledger) -> None:
    config: RunnableConfig = {**USER, "run_id": uuid4()}
    model = ours(ledger)
    model.invoke("hi", config)
    with pytest.raises(HoldConflict):
        model.invoke("hi", config)
    assert len(ledger.holds()) == 1


def test_an_answer_from_langchains_cache_costs_nothing(ledger: Ledger) -> None:
    model = budgeted(
        ChatModel(model=ScriptedModel([WORDS]), cache=InMemoryCache()),
        ledger=ledger,
        accounts={"user/42": Budget(usd="1")},
    )
    assert model.invoke("hi").text == model.invoke("hi").text
    assert len(ledger.holds()) == 1


# --- as LangChain expects of a chat model


class Team(BaseModel):
    """Which team."""

    name: str


def test_tools_and_types_are_the_wrapped_models_own(ledger: Ledger) -> None:
    model = ours(ledger, ['{"name": "billing"}'])
    assert model.with_structured_output(Team).invoke("who?", USER) == Team(name="billing")
    assert ledger.balance("user/42").posted.calls == 1


def test_raw_structured_output_is_booked_too(ledger: Ledger) -> None:
    model = ours(ledger, ['{"name": "billing"}'])
    found = model.with_structured_output(Team, include_raw=True).invoke("who?", USER)
    assert isinstance(found, dict)
    assert found["parsed"] == Team(name="billing")
    assert ledger.balance("user/42").posted.calls == 1


class Heard(BaseCallbackHandler):
    def __init__(self) -> None:
        self.told: list[str] = []

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.told.append("start")

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.told.append("end")

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self.told.append(type(error).__name__)


def test_callbacks_hear_one_model(ledger: Ledger) -> None:
    heard = Heard()
    ours(ledger).invoke("hi", {**USER, "callbacks": [heard]})
    assert heard.told == ["start", "end"]


def test_callbacks_hear_of_a_refusal(ledger: Ledger) -> None:
    heard = Heard()
    with pytest.raises(BudgetExceeded):
        ours(ledger, usd="0.000001").invoke("hi", {**USER, "callbacks": [heard]})
    assert heard.told == ["start", "BudgetExceeded"]


def test_it_can_be_sent_to_another_process(tmp_path: Path) -> None:
    model = budgeted(
        FakeListChatModel(responses=["a"]),
        ledger=tmp_path / "ledger.db",
        price=PRICE,
        accounts={"user/42": Budget(usd="1")},
    )
    twin = pickle.loads(pickle.dumps(model))
    twin.invoke("hi", max_tokens=5)
    assert Ledger.open(tmp_path / "ledger.db").balance("user/42").posted.calls == 1


def test_one_of_our_models_can_be_sent_to_another_process_by_its_name(tmp_path: Path) -> None:
    model = budgeted("llamacpp:smollm2-135m", ledger=tmp_path / "ledger.db", accounts={"user/42": Budget(usd="1")})
    twin = pickle.loads(pickle.dumps(model))
    assert twin.terms({}).price == model.terms({}).price
    assert twin.inner.served is not model.inner.served  # type: ignore[attr-defined] # ours, which has one


def test_a_copy_shares_the_model(ledger: Ledger) -> None:
    model = ours(ledger)
    twin = copy.deepcopy(model)
    assert twin.inner.served is model.inner.served  # type: ignore[attr-defined] # as above
    assert twin.invoke("hi", USER).text == WORDS


LEAVES_OPEN = """
import sys
from agentbudget.langchain import ChatModel, budgeted
from agentbudget.money import Budget
from agentbudget.testing import ScriptedModel

chat = ChatModel(model=ScriptedModel(lambda _: "one two three four"))
pieces = budgeted(chat, ledger=sys.argv[1], accounts={"user/42": Budget(usd="1")}).stream("hi")
print(next(pieces).text)
"""


def test_a_stream_that_is_open_when_its_process_ends_is_booked_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    place = tmp_path / "ledger.db"
    command = [sys.executable, "-c", LEAVES_OPEN, str(place)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "one"), ended.stderr
    (hold,) = Ledger.open(place).holds()
    assert (hold.state, hold.presumed, hold.detail["finish"]) == ("settled", False, "left")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_answers_too(tmp_path: Path) -> None:
    accounts = {"user/42": Budget(usd="1")}
    model = budgeted(ChatModel(model=ScriptedModel(by_heart)), ledger=tmp_path / "ledger.db", accounts=accounts)
    assert model.invoke("hi").text == WORDS
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        signal.alarm(60)  # a child that waits for its parent's thread waits for ever
        try:
            os.write(writer, model.invoke("hi").text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        assert answer.read() == WORDS
    assert model.ledger.balance("user/42").posted.calls == 2


def test_a_ledger_in_memory_stays_in_its_process(ledger: Ledger) -> None:
    with pytest.raises(Mistake, match="memory"):
        pickle.dumps(budgeted(FakeListChatModel(responses=["a"]), ledger=ledger, price=PRICE, accounts=["user/42"]))


def test_langchain_saves_and_loads_it(tmp_path: Path) -> None:
    model = budgeted(
        "llamacpp:smollm2-135m",
        ledger=tmp_path / "ledger.db",
        accounts={"user/42": Budget(usd="1", tokens=9)},
        label="chat",
    )
    text = dumps(model)
    twin = loads(text, valid_namespaces=["agentbudget"], allowed_objects=[BudgetedChatModel, ChatModel])
    assert isinstance(twin, BudgetedChatModel)
    assert (twin.accounts, twin.books, twin.label) == (model.accounts, model.books, "chat")
    assert twin.model_name == "smollm2-135m"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://app:hunter2@127.0.0.1:5/agents", "postgresql://app@127.0.0.1:5/agents"),
        ("postgresql:///agents?host=/run&password=hunter2&user=app", "postgresql:///agents?host=/run&user=app"),
        ("postgresql://app:hunter2@db/agents?sslpassword=hunter2", "postgresql://app@db/agents"),
    ],
)
def test_the_password_of_a_ledger_is_not_saved(address: str, told: str) -> None:
    model = budgeted(FakeListChatModel(responses=["a"]), ledger=address, price=PRICE, accounts=["user/42"])
    assert "hunter2" not in dumps(model) + repr(model)
    assert model.books.location == told


def test_a_model_without_a_price_is_refused_when_it_is_made(ledger: Ledger) -> None:
    with pytest.raises(UnknownPrice):
        budgeted(FakeListChatModel(responses=["a"]), ledger=ledger, accounts=["user/42"])


def test_an_answer_of_unknown_length_cannot_be_held(ledger: Ledger) -> None:
    model = budgeted(
        GenericFakeChatModel(messages=iter([said()])), ledger=ledger, price=PRICE, accounts={"user/42": Budget(usd="1")}
    )
    with pytest.raises(Mistake, match="max_tokens"):
        model.invoke("hi")


def test_what_a_provider_runs_itself_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Mistake, match="web_search"):
        foreign(ledger, said()).invoke("hi", tools=[{"type": "web_search"}])
    assert ledger.holds() == []


@pytest.mark.parametrize("kind", ["input_audio", "file"])
def test_parts_that_nobody_can_count_are_refused(kind: str, ledger: Ledger) -> None:
    message = HumanMessage([{"type": kind, kind: {"data": "AAAA"}}])
    with pytest.raises(Mistake, match=kind):
        foreign(ledger, said()).invoke([message])
    assert ledger.holds() == []


def test_a_bound_model_is_no_model_to_budget(ledger: Ledger) -> None:
    bound: Any = ChatModel(model=ScriptedModel([])).bind_tools([Team])
    with pytest.raises(Mistake, match="before bind_tools"):
        budgeted(bound, ledger=ledger, accounts=["user/42"])


def test_usage_with_compute_survives_the_way_through_langchain(ledger: Ledger) -> None:
    reply = ScriptedReply(WORDS, usage=Usage(10, 4, compute_ns=77))
    ours(ledger, [reply]).invoke("hi", USER)
    assert only(ledger).detail["usage"]["compute_ns"] == 77


def test_calls_at_once_never_overspend(ledger: Ledger) -> None:
    model = foreign(ledger, *[said() for _ in range(50)], accounts={"user/42": Budget(calls=10)})
    results: Sequence[Any] = model.batch(["hi"] * 50, return_exceptions=True)
    assert sum(isinstance(result, AIMessage) for result in results) == 10
    assert ledger.balance("user/42").posted.calls == 10
