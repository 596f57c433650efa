"""Documents indexed within a budget: held ahead, settled at the truth, stopped when the money is out, resumed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agentbudget import Budget, Ledger, indexing
from agentbudget.context import Index, IndexReport, Progress, open_index
from agentbudget.errors import BudgetExceeded
from agentbudget.indexing import update_within
from agentbudget.prices import ComputePrice
from tests.context.words import WordEmbedder

NANO_PER_NS = ComputePrice(usd_per_hour=3600, prefill_tokens_per_s=1, decode_tokens_per_s=1)  # pyright: ignore[reportArgumentType] it converts
"""A machine that costs a dollar a second: its nanoseconds are nano-dollars."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "long.md").write_text("".join(f"# S{n}\n\nsection number {n}\n\n" for n in range(100)))
    return docs


@pytest.fixture
def ledger() -> Ledger:
    return Ledger.open("memory:")


async def _update(index: Index, folder: Path, ledger: Ledger, **options: object) -> IndexReport:
    return await update_within(
        index,
        folder,
        ledger=ledger,
        accounts=["run/1"],
        base="1",
        machine=NANO_PER_NS,
        **options,  # pyright: ignore[reportArgumentType] each test gives one that fits
    )


async def test_an_update_is_settled_at_the_seconds_that_it_took(folder: Path, ledger: Ledger, tmp_path: Path) -> None:
    ledger.account("run/1", limit=Budget(usd="1000"))
    async with open_index(tmp_path / "index", embedder=WordEmbedder()) as index:
        report = await _update(index, folder, ledger)
        [hold] = ledger.holds()
        assert hold.settled is not None
        assert hold.settled.usd_nano == report.compute_ns == report.usd_nano
        assert report.compute_ns > 0
        assert hold.settled.usd_nano <= hold.amount.usd_nano
        assert (hold.tag, hold.detail["embedded"], hold.detail["tokens"]) == ("index", 100, report.tokens)
        again = await _update(index, folder, ledger)
        assert again.embedded == 0
        assert ledger.holds()[-1].settled is not None
        assert ledger.balance("run/1").posted.usd_nano == report.compute_ns
    assert ledger.verify().ok


async def test_an_update_stops_when_the_money_is_out_and_goes_on_when_there_is_more(
    folder: Path, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "AHEAD_NS", 1)
    ledger.account("run/1", limit=Budget(usd="0.00000001"))
    async with open_index(tmp_path / "index", embedder=WordEmbedder()) as index:
        with pytest.raises(BudgetExceeded, match=r"^indexing stopped: .*; 32 of 100 new chunks are embedded") as caught:
            await _update(index, folder, ledger)
        assert (caught.value.account, caught.value.unit) == ("run/1", "usd")
        [hold] = ledger.holds()
        assert hold.state == "settled"
        assert hold.detail["embedded"] == 32
        ledger.account("run/1", limit=Budget(usd="1000"))
        report = await _update(index, folder, ledger)
        assert (report.kept, report.embedded) == (32, 68)
    assert ledger.verify().ok


async def test_an_account_without_money_embeds_nothing(folder: Path, ledger: Ledger, tmp_path: Path) -> None:
    ledger.account("run/1", limit=Budget(usd="1"))
    embedder = WordEmbedder()
    async with open_index(tmp_path / "index", embedder=embedder) as index:
        with pytest.raises(BudgetExceeded):
            await _update(index, folder, ledger)
        assert await index.count() == 0
    assert embedder.embedded == []


async def test_what_an_update_of_another_kind_raises_is_settled_too(
    folder: Path, ledger: Ledger, tmp_path: Path
) -> None:
    def broken(progress: Progress) -> None:
        if progress.stage == "embed" and progress.done:
            raise ValueError("the screen is gone")

    ledger.account("run/1")
    async with open_index(tmp_path / "index", embedder=WordEmbedder()) as index:
        with pytest.raises(ValueError, match="the screen"):
            await _update(index, folder, ledger, progress=broken)
    [hold] = ledger.holds()
    assert hold.settled is not None
    assert (hold.settled.usd_nano > 0, hold.detail["error"]) == (True, "ValueError")


KILLED = """
    import asyncio, sys, time
    from agentbudget import Ledger
    from agentbudget.context import open_index
    from agentbudget.indexing import update_within
    from tests.context.words import WordEmbedder
    from tests.test_indexing import NANO_PER_NS
    def tell(progress):
        if progress.stage == "embed" and progress.done >= 64:
            print("ready", flush=True)
            time.sleep(600)
    async def main():
        ledger = Ledger.open(sys.argv[3])
        ledger.account("run/1")
        async with open_index(sys.argv[1], embedder=WordEmbedder()) as index:
            await update_within(index, sys.argv[2], ledger=ledger, accounts=["run/1"], base="1", machine=NANO_PER_NS,
                                progress=tell)
    asyncio.run(main())
"""


async def test_what_a_killed_update_took_is_presumed_spent_and_the_next_one_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    place, books = tmp_path / "index", tmp_path / "ledger.db"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(place), str(folder), str(books)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.kill()
    child.wait()
    with Ledger.open(books) as ledger:
        [hold] = ledger.holds()
        assert (hold.state, hold.presumed) == ("lapsed", True)
        async with open_index(place, embedder=WordEmbedder()) as index:
            report = await _update(index, folder, ledger)
            assert (report.kept, report.embedded) == (64, 36)
        assert ledger.verify().ok
