"""Where data lives, from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbudget.settings import Settings


def test_the_ledger_is_in_the_home_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_env().ledger_location == tmp_path / "home" / "ledger.db"
    monkeypatch.setenv("AGENTBUDGET_LEDGER", "postgresql://me@host/db")
    named = Settings.from_env()
    assert named.ledger_location == "postgresql://me@host/db"
    assert named.at(tmp_path).ledger_location == "postgresql://me@host/db"
    assert named.with_ledger("memory:").ledger_location == "memory:"


def test_the_path_of_a_ledger_means_the_same_wherever_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert Settings.from_env().with_ledger("books/ledger.db").ledger_location == tmp_path / "books" / "ledger.db"
    assert Settings.from_env().with_ledger("~/ledger.db").ledger_location == tmp_path / "me" / "ledger.db"
