"""Whole evals: Inspect runs, scores and logs; the ledger says what each answer cost."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from agentbudget.cli.evals import show
from agentbudget.errors import (
    AuthenticationFailed,
    DocumentsError,
    ExportError,
    MissingDependency,
    Mistake,
    StoreUnavailable,
)
from agentbudget.evals import EvalReport, Outcome, PolicyName, Progress, run_eval, run_eval_sync
from agentbudget.evals.gsm8k import Gsm8k
from agentbudget.ledger import Ledger
from agentbudget.models.base import Completion, Meter, Request
from agentbudget.money import Amount, Budget
from agentbudget.prices import TokenPrice
from agentbudget.testing import ScriptedModel, ScriptedReply
from tests.conftest import Disk
from tests.evals.conftest import WriteRows, solving, sums_chosen

CHOSEN = sums_chosen(4)


def ladder() -> tuple[ScriptedModel, ScriptedModel]:
    """The small model solves one of `CHOSEN`, the large one three."""
    small, large = solving(*CHOSEN[:1], name="scripted:small"), solving(*CHOSEN[:3], name="scripted:large")
    small.price = TokenPrice.custom(input_usd_per_mtok="0.1", output_usd_per_mtok="1")
    return small, large


async def evaluate(data: Path, home: Path, **options: Any) -> EvalReport:
    options = {"models": ladder(), "limit": 4, "threshold": 0.95} | options
    return await run_eval("gsm8k", data=data, home=home, log_dir=home / "logs", **options)


def of(report: EvalReport, policy: str) -> list[Outcome]:
    return [outcome for outcome in report.outcomes if outcome.policy == policy]


def reporting(outcomes: tuple[Outcome, ...], *, model: str = "scripted:small") -> EvalReport:
    return EvalReport(
        name="eval-gsm8k",
        dataset="gsm8k",
        split="report",
        seed=0,
        threshold=0.9,
        prices={model: "custom"},
        outcomes=outcomes,
        paid_usd_nano=sum(outcome.paid_usd_nano for outcome in outcomes),
        seconds=1.0,
    )


async def test_each_policy_answers_the_same_items_and_is_scored(sums: Path, tmp_path: Path) -> None:
    report = await evaluate(sums, tmp_path)
    assert [(line.policy, line.correct, line.items) for line in report.economics] == [
        ("all-cheap", 1, 4),
        ("all-strong", 3, 4),
        ("cascade", 3, 4),
    ]
    for policy in ("all-cheap", "all-strong", "cascade"):
        assert {outcome.item for outcome in of(report, policy)} == {item.id for item in CHOSEN}


async def test_costs_are_what_the_ledger_settled(sums: Path, tmp_path: Path) -> None:
    report = await evaluate(sums, tmp_path)
    assert report.paid_usd_nano == sum(outcome.paid_usd_nano for outcome in report.outcomes) > 0
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert ledger.balance(f"feature/{report.name}").posted.usd_nano == report.paid_usd_nano
        for outcome in report.outcomes:
            run = f"run/{report.name}.{outcome.policy}.{outcome.item}"
            assert ledger.balance(run).posted.usd_nano == outcome.paid_usd_nano
        assert ledger.verify().ok


async def test_an_answer_is_bought_once_and_counts_for_every_policy_that_uses_it(sums: Path, tmp_path: Path) -> None:
    models = ladder()
    report = await evaluate(sums, tmp_path, models=models)
    assert [len(model.requests) for model in models] == [4, 4]
    cost = {line.policy: line.cost_usd_nano for line in report.economics}
    assert cost["cascade"] == cost["all-cheap"] + cost["all-strong"]  # nothing was sure enough to be kept
    assert report.paid_usd_nano == cost["cascade"]
    assert all(outcome.calls == {"scripted:small": 1, "scripted:large": 1} for outcome in of(report, "cascade"))


async def test_a_second_eval_pays_nothing_and_reports_the_same(sums: Path, tmp_path: Path) -> None:
    first = await evaluate(sums, tmp_path)
    models = ladder()
    again = await evaluate(sums, tmp_path, models=models)
    assert [model.requests for model in models] == [[], []]
    assert again.paid_usd_nano == 0
    assert [(line.correct, line.cost_usd_nano) for line in again.economics] == [
        (line.correct, line.cost_usd_nano) for line in first.economics
    ]


async def test_a_cascade_with_a_low_threshold_keeps_every_draft(sums: Path, tmp_path: Path) -> None:
    report = await evaluate(sums, tmp_path, threshold=0.5)
    cheap, strong, cascade = report.economics
    assert cascade.correct == 1
    assert cascade.cost_usd_nano == cheap.cost_usd_nano < strong.cost_usd_nano
    assert dict(cascade.calls) == {"scripted:small": 4}


async def test_an_item_that_does_not_fit_the_budget_is_unanswered_and_costs_nothing(sums: Path, tmp_path: Path) -> None:
    report = await evaluate(sums, tmp_path, budget_per_item=Budget(usd="0.000001"))
    assert all(outcome.answer is None and not outcome.correct for outcome in report.outcomes)
    assert all("BudgetExceeded" in str(outcome.problem) for outcome in report.outcomes)
    assert report.paid_usd_nano == 0


async def test_the_whole_eval_stops_spending_at_its_budget(sums: Path, tmp_path: Path) -> None:
    models = ladder()
    skill = Gsm8k(items=()).skill("local")
    held = models[0].price.bound(input_tokens=skill.max_input_tokens, output_tokens=skill.max_output_tokens)
    budget = Budget(usd=Amount(held + 1_000).usd)  # room for the first: what it settles is missing for the second
    report = await evaluate(sums, tmp_path, policies=("all-cheap",), models=models, budget=budget)
    assert [outcome.answer is None for outcome in report.outcomes].count(True) == 3
    assert len(models[0].requests) == 1
    assert 1_000 < report.paid_usd_nano < held


async def test_output_that_fits_no_type_is_unanswered_but_paid_for(sums: Path, tmp_path: Path) -> None:
    models = (ScriptedModel(lambda _: "no JSON", name="scripted:small"), ladder()[1])
    report = await evaluate(sums, tmp_path, models=models, policies=("all-cheap",))
    (line,) = report.economics
    assert (line.unanswered, line.correct) == (4, 0)
    assert line.cost_usd_nano > 0
    assert line.cost_per_success_usd_nano is None


async def test_an_answer_that_took_two_tries_costs_every_policy_both(sums: Path, tmp_path: Path) -> None:
    asked: set[str] = set()

    def stumbling(request: Request) -> str:
        question = request.messages[1].text
        if question in asked:
            return '{"reasoning": "so it is", "answer": 0}'
        asked.add(question)
        return "no JSON"

    for paid in (True, False):
        models = (ScriptedModel(stumbling, name="scripted:small"), ladder()[1])
        report = await evaluate(sums, tmp_path, models=models, policies=("all-cheap", "cascade"), threshold=0.0)
        cheap, cascade = report.economics
        assert cheap.cost_usd_nano == cascade.cost_usd_nano == sum(o.cost_usd_nano for o in report.outcomes) // 2
        assert (report.paid_usd_nano == cheap.cost_usd_nano) is paid


async def test_items_whose_ids_begin_alike_are_each_counted_once(write_rows: WriteRows, tmp_path: Path) -> None:
    ids = ["/".join("x" * n) for n in range(1, 13)]
    data = write_rows(
        "gsm8k_test.jsonl.gz",
        [{"id": one, "question": f"What is {n}?", "answer": f"#### {n}"} for n, one in enumerate(ids)],
    )
    report = await evaluate(data, tmp_path, limit=None)
    assert {outcome.item for outcome in report.outcomes} < set(ids)
    assert all(outcome.calls == {"scripted:small": 1} for outcome in of(report, "all-cheap"))
    assert all(outcome.calls == {"scripted:small": 1, "scripted:large": 1} for outcome in of(report, "cascade"))


async def test_a_fault_ends_the_eval_and_what_was_bought_stays_bought(sums: Path, tmp_path: Path) -> None:
    small, large = ladder()
    refused = AuthenticationFailed("the key is refused", model="scripted:large", sent=False)
    broken = ScriptedModel(lambda _: ScriptedReply(error=refused, sent=False), name=large.name)
    with pytest.raises(AuthenticationFailed, match="the key is refused"):
        await evaluate(sums, tmp_path, models=(small, broken))
    assert small.closed
    bought, (small, large) = len(small.requests), ladder()
    await evaluate(sums, tmp_path, models=(small, large))
    assert len(small.requests) == 4 - bought


async def test_cancelling_ends_the_eval_at_once(sums: Path, tmp_path: Path) -> None:
    slow = ScriptedModel(lambda _: ScriptedReply("{}", delay_s=600), name="scripted:small")
    task = asyncio.create_task(evaluate(sums, tmp_path, models=(slow, ladder()[1]), policies=("all-cheap",)))
    while not slow.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, timeout=60)
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        assert ledger.holds(state="open") == []
        assert ledger.verify().ok


class Filling(ScriptedModel):
    """Fills a disk before it answers."""

    disk: Disk

    async def complete(self, request: Request, meter: Meter) -> Completion:
        self.disk.fill()
        return await super().complete(request, meter)


async def test_a_log_that_cannot_be_written_ends_the_eval_with_the_reason(
    sums: Path, tmp_path: Path, small_disk: Disk
) -> None:
    filling = Filling(lambda _: '{"reasoning": "so it is", "answer": 1}', name="scripted:filling")
    filling.disk = small_disk
    logs = small_disk.path / "logs"
    with pytest.raises(StoreUnavailable, match="No space left on device") as raised:
        await run_eval("gsm8k", data=sums, home=tmp_path, log_dir=logs, models=[filling], limit=4)
    assert str(logs) in str(raised.value)


@pytest.mark.parametrize("below", ["", "logs"])
async def test_logs_that_cannot_be_written_are_named_before_anything_is_paid_for(
    sums: Path, tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    models = ladder()
    with pytest.raises(StoreUnavailable, match=r"the logs of the eval cannot be written to .*file.*: name another"):
        await run_eval("gsm8k", data=sums, home=tmp_path, log_dir=tmp_path / "file" / below, models=models, limit=1)
    assert [model.requests for model in models] == [[], []]


async def test_inspect_can_read_the_logs(sums: Path, tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    report = await evaluate(sums, tmp_path)
    assert [log.parent for log in report.logs] == [tmp_path / "logs"] * 3
    for path, line in zip(report.logs, report.economics, strict=True):
        log = read_eval_log(str(path))
        assert log.results is not None
        (score,) = log.results.scores
        assert score.metrics["accuracy"].value == pytest.approx(line.accuracy)
        assert log.samples is not None
        assert all("paid_usd_nano" in sample.metadata["agentbudget"] for sample in log.samples)


async def test_progress_counts_items_and_successes_per_policy(sums: Path, tmp_path: Path) -> None:
    heard: list[Progress] = []
    await evaluate(sums, tmp_path, policies=("all-strong",), on_progress=heard.append)
    assert [(p.stage, p.done, p.total) for p in heard] == [("all-strong", n, 4) for n in (1, 2, 3, 4)]
    assert heard[-1].correct == 3


async def test_items_may_run_side_by_side(sums: Path, tmp_path: Path) -> None:
    report = await evaluate(sums, tmp_path, concurrency=4)
    assert [line.correct for line in report.economics] == [1, 3, 3]


async def test_a_report_is_written_as_data_text_and_picture(sums: Path, tmp_path: Path) -> None:
    report = await evaluate(sums, tmp_path)
    data, text, picture = report.write(tmp_path / "out")
    assert json.loads(data.read_text())["policies"][1]["correct"] == 3
    assert "| all-strong | 75.0% | 30.1% to 95.4% |" in text.read_text()
    drawn = picture.read_text()
    assert all(word in drawn for word in ("all-cheap", "all-strong", "cascade", "accuracy"))
    assert report.plot(tmp_path / "again.svg").read_text() == drawn
    assert report.plot(tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Mistake, match=r"\.svg"):
        report.plot(tmp_path / "plot.txt")


@pytest.mark.parametrize(("correct", "items"), [(0, 3), (10, 10)])
def test_a_report_is_drawn_in_which_nothing_or_everything_is_right(correct: int, items: int, tmp_path: Path) -> None:
    outcomes = tuple(
        Outcome(policy="all-cheap", item=str(n), answer="1", correct=n < correct, paid_usd_nano=1) for n in range(items)
    )
    assert reporting(outcomes).plot(tmp_path / "plot.svg").is_file()


async def test_a_report_that_cannot_be_written_is_shown_all_the_same(
    sums: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = await evaluate(sums, tmp_path)
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(ExportError, match=r"cannot be written to .*not bought again"):
        show(report, tmp_path / "out", as_json=False)
    assert "cost against accuracy" in capsys.readouterr().out
    facts: dict[str, Any] = {}
    with click.Context(click.Command("eval"), obj=facts), pytest.raises(ExportError):
        show(report, tmp_path / "out", as_json=True)
    assert facts["paid_usd_nano"] == report.paid_usd_nano
    assert capsys.readouterr().out == "", "the error is the one document"


async def test_a_report_prints_as_a_table(sums: Path, tmp_path: Path) -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print((await evaluate(sums, tmp_path)).table())
    text = console.export_text()
    assert "30.1% to 95.4%" in text
    assert "4 × small, 4 × large" in text


def test_a_report_is_shown_with_whole_figures_and_its_notes_once(capsys: pytest.CaptureFixture[str]) -> None:
    model = "llamacpp:/weights/[v2]/small.gguf"
    paid: dict[PolicyName, int] = {"all-cheap": 123_456, "all-strong": 12_345_600}
    outcomes = tuple(
        Outcome(policy=policy, item=str(n), answer="1", correct=n < 7, paid_usd_nano=usd_nano, calls={model: 2})
        for policy, usd_nano in paid.items()
        for n in range(100)
    )
    show(reporting(outcomes, model=model), None, as_json=False)
    shown = capsys.readouterr().out
    for word in ("all-strong", "3.4% to 13.7%", "$0.01235", "$0.0001235", "$0.001764", "200 ×", "unanswered"):
        assert word in shown
    assert f"Ladder: {model} (custom)." in shown
    assert shown.count("100 items") == 1


def test_the_sync_form_takes_the_same_options(sums: Path, tmp_path: Path) -> None:
    report = run_eval_sync(
        "gsm8k", data=sums, home=tmp_path, limit=1, policies=("all-cheap",), models=ladder(), log_dir=tmp_path / "l"
    )
    assert report.economics[0].items == 1


async def test_missing_data_are_a_mistake_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(DocumentsError, match="--data"):
        await evaluate(tmp_path / "nowhere", tmp_path / "home")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policies": ("best",)}, "all-cheap, all-strong, cascade, learned"),
        ({"policies": ()}, "all-cheap, all-strong, cascade, learned"),
        ({"policies": ("cascade", "cascade")}, "each once"),
        ({"split": "test"}, "split must be report or tune, not 'test'"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
    ],
)
async def test_bad_options_are_refused(sums: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Mistake, match=message):
        await evaluate(sums, tmp_path, **options)


async def test_without_inspect_the_message_names_the_extra(
    sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "agentbudget.evals.samples", raising=False)
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    with pytest.raises(MissingDependency, match=r"agentbudget-runtime\[evals\]"):
        await evaluate(sums, tmp_path)


@pytest.mark.usefixtures("real_weights")
async def test_real_models_answer_within_the_labels_of_the_nearest_examples(
    write_rows: WriteRows, tmp_path: Path
) -> None:
    texts = {"card_arrival": "where is my new card", "top_up_failed": "my top up did not work", "atm": "find an ATM"}
    write_rows(
        "banking77_train.jsonl.gz",
        [{"text": f"{text}{end}", "category": label} for label, text in texts.items() for end in "?!."],
    )
    data = write_rows(
        "banking77_test.jsonl.gz",
        [{"id": n, "text": f"{text}, please", "category": label} for n, (label, text) in enumerate(texts.items())],
    )
    report = await run_eval(
        "banking77",
        data=data,
        policies=("all-cheap",),
        limit=2,
        models=("llamacpp:smollm2-135m",),
        home=tmp_path,
        log_dir=tmp_path / "logs",
    )
    assert len(report.outcomes) == 2
    assert all(outcome.answer in texts for outcome in report.outcomes)
    assert all(outcome.confidence is not None and outcome.compute_ns > 0 for outcome in report.outcomes)
    assert report.baseline == (2, 2)


async def test_a_dataset_that_nobody_knows_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="dataset must be banking77 or gsm8k, not 'mmlu'"):
        await run_eval("mmlu", data=tmp_path)  # pyright: ignore[reportArgumentType] # the mistake
