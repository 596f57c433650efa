"""The evals of estimates: on data in the files' own form, and on the real data where it is at hand."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from evals.estimates import course, limits, speed
from evals.estimates.__main__ import SETTINGS, Score, halves, table
from evals.estimates.data import MAX_OUTPUT_TOKENS, Answer, Arrival, answers, arrivals, models_of
from evals.estimates.replay import Replay, Tally
from evals.estimates.replay import table as replay_table

DATA = os.environ.get("AGENTBUDGET_DATA")


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Questions of both sets, whose answers are as many times longer as they have words; and a log."""
    chance = random.Random(7)
    for name, tokens_a_word in (("gsm", 4), ("math_l5", 12)):
        words = [chance.randint(5, 40) for _ in range(60)]
        questions = [{"id": str(n), "question": "word " * count} for n, count in enumerate(words)]
        results = [
            {"model": "m", "id": str(n), "out_tokens_cl100k": round(count * tokens_a_word * chance.uniform(0.8, 1.3))}
            for n, count in enumerate(words)
        ]
        write(tmp_path / "routing" / f"zeroeval_{name}.questions.jsonl.gz", questions)
        write(tmp_path / "routing" / f"zeroeval_{name}.results.jsonl.gz", results)
    log = [
        {
            "t": f"2023-11-16 18:{15 + n // 120:02d}:{n // 2 % 60:02d}.6805900",
            "input_tokens": 50 + n % 7,
            "output_tokens": chance.randint(20, 200),
        }
        for n in range(240)
    ]
    write(tmp_path / "load" / "azure_conv.jsonl.gz", log)
    return tmp_path


async def scored(found: list[Answer], model: str, *, seeds: int) -> list[tuple[Score, ...]]:
    return [await halves(SETTINGS[0], model, found, seed=seed) for seed in range(seeds)]


async def test_a_learned_bound_covers_the_other_half_for_less_than_the_cap(data: Path) -> None:
    found = answers(data)
    assert models_of(found) == ["m"]
    scores = await scored(found, "m", seeds=2)
    covered = sum(at90.covered for at90, _, _ in scores) / len(scores)
    assert covered > 0.75
    assert all(at90.reserved < 2.5 < cap.reserved for at90, _, cap in scores)


def test_a_table_has_a_row_a_model_and_the_mean_of_the_others(data: Path) -> None:
    found = [Answer(a.exercise, a.question, {"o": a.tokens["m"]}) for a in answers(data)]
    lines = list(table(SETTINGS[4], found, splits=1, others=1))
    assert any(line.startswith("| mean of the 1 other models") for line in lines)


def test_a_skill_is_played_from_its_first_call_on_and_through_a_change(data: Path) -> None:
    calls = course.play(
        answers(data) * 4, lambda answer, n: answer.tokens["m"] * (1 if n < 240 else 3), level=0.9, seed=1
    )
    hits = [call.used <= call.held for call in calls]
    assert {call.held for call in calls[:20]} == {MAX_OUTPUT_TOKENS}
    assert sum(hits[140:240]) > 80
    assert sum(hits[240:260]) < 14
    assert sum(hits[-100:]) > 80


def test_stages_that_no_skill_came_to_have_no_row(data: Path) -> None:
    rows = list(course.from_the_start(answers(data)))
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["0 to 19", "20 to 39", "40 to 79", "80 to 159"]


def test_what_other_models_answered_leaves_less_open_than_the_prompt_does(data: Path) -> None:
    found = [Answer(a.exercise, a.question, {**a.tokens, "twin": a.tokens["m"] + 1}) for a in answers(data)]
    lines = list(limits.table("m", found, None, splits=2))
    prompt, curved, others, groups = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[-4:])
    left, at_level = ([float(row[cell]) for row in (prompt, curved, others)] for cell in (1, 4))
    assert left[2] < 0.8 * min(left[:2])
    assert 1 < at_level[2] < min(at_level[:2])
    assert float(groups[4]) > at_level[0]


async def test_what_an_estimate_costs_is_measured_part_by_part() -> None:
    *_, read, estimated, learned = await speed.measured(20)
    assert all(float(row.split("|")[2]) > 0 for row in (read, estimated, learned))


async def test_a_log_is_replayed_without_overspending_and_every_request_ends_somehow(data: Path) -> None:
    log = arrivals(data)
    assert log[0].at_s == 0
    for policy in ("worst case", "fixed", "quantile + extend"):
        replay = Replay(log, policy, level=0.9, times=1.5)
        await replay.run()
        tally = replay.tally
        assert tally.done + tally.cut + tally.refused == len(log)
        assert (tally.most_above_limit_nano <= 0, tally.overrun) == (True, 0)
        assert replay.ledger.verify().ok
        assert len(list(replay_table([replay], times=1.5))) == 4


async def test_a_request_refused_for_money_that_is_only_held_is_refused_by_mistake() -> None:
    log = [Arrival(0.0, 10, 10), Arrival(0.1, 10, 10), Arrival(0.2, 10, 10)]
    replay = Replay(log, "worst case", level=0.9, times=80)  # room for one worst case, and for many true costs
    await replay.run()
    assert replay.tally == Tally(
        "worst case",
        done=1,
        refused=2,
        refused_by_mistake=2,
        settled_nano=replay.tally.settled_nano,
        most_above_limit_nano=replay.tally.most_above_limit_nano,
        idle_nano_s=replay.tally.idle_nano_s,
        at_work_nano_s=replay.tally.at_work_nano_s,
    )


@pytest.mark.skipif(DATA is None, reason="the evaluation data is not at hand: set AGENTBUDGET_DATA")
async def test_bounds_cover_real_answers_as_often_as_they_say() -> None:
    assert DATA is not None
    found = answers(Path(DATA))
    model = "claude-3-5-sonnet-20240620"
    scores = await scored([each for each in found if model in each.tokens], model, seeds=2)
    at90, at99 = (sum(score[n].covered for score in scores) / len(scores) for n in range(2))
    assert at90 == pytest.approx(0.9, abs=0.04)
    assert at99 == pytest.approx(0.99, abs=0.02)
    assert all(score[0].reserved < 1.5 for score in scores)
