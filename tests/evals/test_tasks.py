from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import DocumentsError
from agentbudget.evals import DATASETS, find_data
from agentbudget.evals.banking77 import SHOTS, Banking77
from agentbudget.evals.exams import open_exam
from agentbudget.evals.gsm8k import Gsm8k
from agentbudget.evals.tasks import Item, choose
from tests.evals.conftest import WriteRows

DATA = os.environ.get("AGENTBUDGET_DATA")

ITEMS = [Item(str(n), "q", "a") for n in range(400)]


def test_every_item_is_either_for_tuning_or_for_the_report() -> None:
    report = choose(ITEMS, split="report", limit=None, seed=0)
    tune = choose(ITEMS, split="tune", limit=None, seed=0)
    assert Counter(report + tune) == Counter(ITEMS)
    assert 60 < len(tune) < 140


@given(st.integers(0, 100), st.integers(1, 50), st.integers(1, 50))
def test_a_smaller_limit_takes_the_beginning_of_a_larger_one(seed: int, few: int, more: int) -> None:
    chosen = choose(ITEMS, split="report", limit=few + more, seed=seed)
    assert choose(ITEMS, split="report", limit=few, seed=seed) == chosen[:few]


def test_another_seed_takes_other_items_of_the_same_split() -> None:
    first, second = (choose(ITEMS, split="tune", limit=20, seed=seed) for seed in (0, 1))
    assert set(first) != set(second)
    assert set(second) <= set(choose(ITEMS, split="tune", limit=None, seed=0))


def test_items_of_one_id_are_named_before_anything_is_paid_for() -> None:
    with pytest.raises(DocumentsError, match="1 ids of items stand for more than one each, such as '7'"):
        choose([*ITEMS, ITEMS[7]], split="report", limit=3, seed=0)


def test_the_folder_comes_from_the_argument_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTBUDGET_DATA", str(tmp_path))
    assert find_data() == tmp_path
    assert find_data(str(tmp_path)) == tmp_path


def test_without_a_folder_the_message_names_both_ways_to_give_one(tmp_path: Path) -> None:
    for given_folder in (None, tmp_path / "none"):
        with pytest.raises(DocumentsError, match=r"--data.*AGENTBUDGET_DATA"):
            find_data(given_folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentsError, match=r"gsm8k_test\.jsonl\.gz.*--data"):
        Gsm8k.load(tmp_path)


def test_a_wrong_line_is_named(write_rows: WriteRows) -> None:
    row = {"id": "x", "question": "1?", "answer": "#### 1"}
    data = write_rows("gsm8k_test.jsonl.gz", [row, {**row, "question": None}])
    with pytest.raises(DocumentsError, match=r"line 2: question"):
        Gsm8k.load(data)


def test_a_file_that_is_cut_short_is_an_error(write_rows: WriteRows) -> None:
    data = write_rows("gsm8k_test.jsonl.gz", [{"id": "x", "question": "1?", "answer": "#### 1"}])
    path = data / "skills" / "gsm8k_test.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DocumentsError, match="cannot be read"):
        Gsm8k.load(data)


def test_gsm8k_targets_are_the_numbers_after_the_mark(sums: Path) -> None:
    items = Gsm8k.load(sums).items
    assert items[3] == Item("sum-3", "What is 3 + 1000?", "1003")


def test_gsm8k_without_a_final_answer_is_an_error(write_rows: WriteRows) -> None:
    data = write_rows("gsm8k_test.jsonl.gz", [{"id": "odd", "question": "1?", "answer": "one"}])
    with pytest.raises(DocumentsError, match="odd has no final answer"):
        Gsm8k.load(data)


def test_banking77_shows_a_few_examples_of_each_intent(write_rows: WriteRows, tmp_path: Path) -> None:
    labelled = [{"text": f"{label} {n}", "category": label} for label in ("card", "top_up") for n in range(SHOTS + 5)]
    write_rows("banking77_train.jsonl.gz", labelled)
    data = write_rows("banking77_test.jsonl.gz", [{"id": 7, "text": "my card?", "category": "card"}])
    exam = Banking77.load(data, tmp_path)
    assert Counter(example.label for example in exam.nearest.examples) == {"card": SHOTS, "top_up": SHOTS}
    assert exam.items == (Item("7", "my card?", "card"),)


@pytest.mark.skipif(not DATA, reason="AGENTBUDGET_DATA names no folder of evaluation data")
@pytest.mark.parametrize("name", DATASETS)
def test_the_real_files_have_enough_items_to_report_on(name: str, tmp_path: Path) -> None:
    exam = open_exam(name, Path(str(DATA)), tmp_path)  # pyright: ignore[reportArgumentType] # one of DATASETS
    assert len(choose(exam.items, split="report", limit=None, seed=0)) >= 100
    assert len(choose(exam.items, split="tune", limit=None, seed=0)) >= 100
