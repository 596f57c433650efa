"""What is found in texts, what becomes of a prompt that holds it, and that it shows up nowhere else."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.cache import Answers
from agentbudget.errors import DataRefused, MissingDependency
from agentbudget.ledger import Ledger
from agentbudget.models.base import Message, Request, ToolCall
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice
from agentbudget.privacy import Privacy, patterns
from agentbudget.privacy.patterns import Finder
from agentbudget.privacy.prompts import clear, redacted
from agentbudget.skills import skill
from agentbudget.statement import Statement
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel, capture_spans
from evals.privacy.labelled import NOTHING, samples

pytestmark = pytest.mark.usefixtures("looking")

TOKEN = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
BOTH = Privacy(secrets="redact", personal="redact")


def kinds(text: str) -> list[tuple[str, str]]:
    finder = Finder.of(frozenset(("secret", "personal")))
    return [(found.kind, text[found.start : found.end]) for found in finder.find(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Use {TOKEN}.", [("github-pat", TOKEN)]),
        (f"Use {TOKEN}9f2!", [("github-pat", f"{TOKEN}9f2")]),
        ("ada@kettles.example", [("email", "ada@kettles.example")]),
        ("IBAN DE89 3704 0044 0532 0130 00 for it", [("iban", "DE89 3704 0044 0532 0130 00")]),
        ("IBAN DE88 3704 0044 0532 0130 00 for it", []),
        ("card 4111 1111 1111 1111", [("card", "4111 1111 1111 1111")]),
        ("card 4111 1111 1111 1112", []),
        ("+1 212 555 0199", [("phone", "+1 212 555 0199")]),
        ("é€😀 " + f"{TOKEN} ü ada@kettles.example", [("github-pat", TOKEN), ("email", "ada@kettles.example")]),
        (f"\ud800 {TOKEN}", [("github-pat", TOKEN)]),
    ],
)
def test_a_finding_says_where_it_stands(text: str, found: list[tuple[str, str]]) -> None:
    assert kinds(text) == found


def test_every_shape_of_the_labelled_set_that_needs_no_context_is_found() -> None:
    missed = [
        truth.kind
        for sample in samples(each=2)
        for truth in sample.truths
        if not any(sample.text[truth.start : truth.end] in value for _, value in kinds(sample.text))
    ]
    known = {"aws_secret_access_key", "password", "db_password", "the wi-fi password is"}
    assert set(missed) <= known, "see docs/privacy.md: what has no shape of its own is not found"


def test_what_only_looks_like_it_is_left_alone() -> None:
    wrong = [text for text in NOTHING if kinds(text)]
    assert wrong == ["postgres://user:password@localhost/test is how an address looks."]


@given(st.text(), st.text())
def test_nothing_that_was_found_is_in_a_redacted_text(before: str, after: str) -> None:
    told = redacted(f"{before} {TOKEN} {after}", BOTH)
    assert TOKEN not in told


def test_the_same_value_is_the_same_placeholder_in_all_of_a_request() -> None:
    request = Request(
        (
            Message("system", "Serve ada@kettles.example."),
            Message("user", "Is jo@kettles.example known to ada@kettles.example?"),
            Message("assistant", "", calls=(ToolCall("1", "look", json.dumps({"who": "jo@kettles.example"})),)),
            Message("tool", f"yes, by {TOKEN}", answers="1"),
        ),
        10,
    )
    cleared = clear(request, BOTH)
    texts = [message.text for message in cleared.request.messages]
    assert texts == ["Serve <email 1>.", "Is <email 2> known to <email 1>?", "", "yes, by <github-pat 1>"]
    assert cleared.request.messages[2].calls[0].arguments == '{"who": "<email 2>"}'
    assert dict(cleared.found) == {"email": 4, "github-pat": 1}


def test_a_request_in_which_nothing_is_found_is_the_same_object() -> None:
    request = Request((Message("user", "lunch?"),), 10)
    assert clear(request, BOTH).request is request


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kingfisher_sdk", None)
    for cached in (patterns._scanner, Finder.of):  # pyright: ignore[reportPrivateUsage]
        cached.cache_clear()
    with pytest.raises(MissingDependency, match=r"looking for secrets needs kingfisher_sdk; .*\[privacy\]"):
        Finder.of(frozenset(("secret",)))


# --- in a step


@skill(tier="frontier", escalate=None, max_output_tokens=20)
async def ask(ctx: Context, question: str) -> str:
    """Answer."""
    ...


@pytest.fixture
def ledger() -> Generator[Ledger]:
    with Ledger.open("memory:") as opened:
        opened.account("run/r", limit=Budget(usd="1"))
        yield opened


def context(ledger: Ledger, *models: ScriptedModel, **rules: Any) -> Context:
    machine = ComputePrice("0.10", 100, 10)  # pyright: ignore[reportArgumentType]
    return Context(Engine(ledger, Ladder(models), Answers(), machine, privacy=Privacy(**rules)), Scope("r"))


def model(name: str, place: Any) -> ScriptedModel:
    return ScriptedModel(lambda _: f"{name} says so", name=f"scripted:{name}", place=place)


SAID = f"Deploy with {TOKEN} for ada@kettles.example"


async def test_a_prompt_leaves_without_what_is_redacted_and_says_how_much_there_was(ledger: Ledger) -> None:
    cloud = model("cloud", "remote")
    ctx = context(ledger, model("small", "local"), cloud, secrets="redact", personal="redact")
    with capture_spans() as captured:
        await ask(ctx, question=SAID)
    ((_, told),) = (event for span in captured.spans for event in span.events)
    assert told["agentbudget.data_class.decision"] == "redacted"
    assert told["agentbudget.data_class.found"] == ("email:1", "github-pat:1")
    assert cloud.requests[0].messages[-1].text == "Deploy with <github-pat 1> for <email 1>"
    (call,) = (hold for hold in ledger.holds() if hold.meta.get("kind") == "call")
    assert call.meta["found"] == {"email": 1, "github-pat": 1}
    assert "1 email, 1 github-pat" in str(Statement.of(ledger, "r"))


async def test_a_prompt_that_must_not_leave_is_answered_here(ledger: Ledger) -> None:
    small, cloud = model("small", "local"), model("cloud", "remote")
    assert await ask(context(ledger, small, cloud, secrets="refuse"), question=SAID) == "small says so"
    assert cloud.requests == []
    assert small.requests[0].messages[-1].text == SAID, "what stays here stays as it is"
    (note,) = (hold for hold in ledger.holds() if hold.meta.get("kind") == "refusal")
    assert note.detail["reason"] == "1 github-pat may not go to scripted:cloud"


async def test_a_prompt_may_be_let_through_and_counted(ledger: Ledger) -> None:
    cloud = model("cloud", "remote")
    await ask(context(ledger, cloud, secrets="allow", personal="allow"), question=SAID)
    assert cloud.requests[0].messages[-1].text == SAID
    (call,) = (hold for hold in ledger.holds() if hold.meta.get("kind") == "call")
    assert call.meta["found"] == {"email": 1, "github-pat": 1}


async def test_the_thing_itself_is_in_no_error_span_log_or_entry(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_spans() as captured:
        with pytest.raises(DataRefused, match="holds 1 github-pat and may not go to scripted:cloud") as caught:
            await ask(context(ledger, model("cloud", "remote"), secrets="refuse"), question=SAID)
        await ask(context(ledger, model("cloud", "remote"), secrets="redact"), question=SAID)
    assert caught.value.found == {"github-pat": 1}
    everything = [str(caught.value), captured.dump(), caplog.text, *(str(entry) for entry in ledger.entries())]
    assert not any(TOKEN in told for told in everything)


async def test_nothing_is_looked_for_unless_the_rules_ask(ledger: Ledger) -> None:
    cloud = model("cloud", "remote")
    await ask(context(ledger, cloud), question=SAID)
    assert cloud.requests[0].messages[-1].text == SAID
    assert "found" not in next(hold for hold in ledger.holds() if hold.meta.get("kind") == "call").meta
