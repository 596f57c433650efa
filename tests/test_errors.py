"""The tree of errors: drawn as it is, and its facts reach another process."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime

import pytest

from agentbudget import errors
from agentbudget.errors import (
    AccountConflict,
    AgentBudgetError,
    BudgetExceeded,
    ContextTooLong,
    ExportError,
    HoldClosed,
    HoldConflict,
    InvalidAmount,
    InvalidArgument,
    OutcomeUnknown,
    SchemaMismatch,
    StoreBusy,
)
from agentbudget.money import Amount
from agentbudget.usage import Usage

EXCEEDED = BudgetExceeded(
    "too dear",
    account="run/1",
    unit="usd",
    needed=5,
    available=3,
    requested=Amount(5),
    window="day@UTC",
    resets_at=datetime(2026, 11, 1, tzinfo=UTC),
)


@pytest.mark.parametrize(
    "error",
    [
        EXCEEDED,
        AccountConflict("m", account="a", known=None, asked="b"),
        ContextTooLong("m", input_tokens=1, output_tokens=2, window=3),
        ExportError("m", path="journal.jsonl"),
        HoldClosed("m", hold_id="h", state="settled"),
        HoldConflict("m", hold_id="h", known=("a",), asked=Amount(1)),
        InvalidAmount("m", value=-1, unit="tokens"),
        InvalidArgument("m", argument="hold_id", value=""),
        OutcomeUnknown("m", model="openai:gpt", usage=Usage(1, 2), status=500),
        SchemaMismatch("m", location="ledger.db", found=3, expected=2),
        StoreBusy("m", location="ledger.db"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_facts_of_an_error_survive_pickling(error: AgentBudgetError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


def _refuse() -> None:
    raise EXCEEDED


def test_a_refusal_in_a_worker_reaches_its_pool() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(BudgetExceeded, match="too dear") as refused:
        pool.submit(_refuse).result(timeout=60)
    assert (refused.value.account, refused.value.requested) == ("run/1", Amount(5))


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, int] = {}
    for line in errors.__doc__.splitlines():
        name = line.lstrip(" │├└─").partition(" ")[0]
        if name and hasattr(errors, name):
            drawn[name] = (len(line) - len(line.lstrip(" │├└─"))) // 4
    there = {c.__name__: c.__mro__.index(AgentBudgetError) for c in vars(errors).values() if _is_ours(c)}
    assert drawn == {name: depth + 1 for name, depth in there.items()}


def _is_ours(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, AgentBudgetError)
