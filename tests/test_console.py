"""What is said on standard error while a run goes on."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agentbudget.console import RunView
from agentbudget.context import Progress, Work
from agentbudget.prices import ComputePrice
from agentbudget.step import Event

HOUR_AT_36_CENTS = ComputePrice(Decimal("0.36"), 100, 10)
BEFORE = Work(files=300, characters=900_000, tokens=300_000)
AFTER_A_HUNDREDTH = Work(300, 900_000, 300_000, done_tokens=3_000, compute_ns=2 * 10**9)


def said(capsys: pytest.CaptureFixture[str], *works: Work, quiet: bool = False) -> str:
    """What a person reads while chunks of `works` are embedded, one batch after the other."""
    with RunView(quiet=quiet, machine=HOUR_AT_36_CENTS) as view:
        for number, work in enumerate(works):
            view.indexing(Progress("embed", 32 * number, 3_200, work))
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_much_to_embed_is_announced_once_with_what_the_first_batch_promises(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = said(capsys, BEFORE, AFTER_A_HUNDREDTH, AFTER_A_HUNDREDTH)
    assert told.count("to embed") == 1
    assert "to embed: 300 files, 3,200 chunks, 300,000 tokens; " in told
    assert "about 3 min and $0.02 of this machine" in told


@pytest.mark.parametrize(
    ("work", "announced"),
    [
        (Work(200, 2_000_000, 500_000, 1_000, 10**9), False),
        (Work(201, 1_000, 300, 100, 10**9), True),
        (Work(1, 2_000_001, 500_000, 1_000, 10**9), True),
    ],
    ids=str,
)
def test_what_is_soon_done_is_not_announced(capsys: pytest.CaptureFixture[str], work: Work, *, announced: bool) -> None:
    assert ("to embed" in said(capsys, work)) is announced


def test_a_model_behind_a_server_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with RunView(quiet=False, machine=HOUR_AT_36_CENTS) as view:
        view.event(Event("call", "plan", "run-1/plan", "vllm:Qwen/Qwen3-8B@http://localhost:8000/v1"))
    assert capsys.readouterr().err == "· plan on Qwen3-8B\n"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, BEFORE, AFTER_A_HUNDREDTH, quiet=True) == ""
