"""Where data lives, from the environment."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from agentbudget.errors import InvalidAmount, Mistake
from agentbudget.settings import Settings


def test_the_ledger_is_in_the_home_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_env().ledger_location == tmp_path / "home" / "ledger.db"
    monkeypatch.setenv("AGENTBUDGET_LEDGER", "postgresql://me@host/db")
    named = Settings.from_env()
    assert named.ledger_location == "postgresql://me@host/db"
    assert named.at(tmp_path).ledger_location == "postgresql://me@host/db"
    for other in ("memory:", "host=db dbname=agents"):  # the ledger says of each whether it can be one
        assert named.with_ledger(other).ledger_location == other


def test_the_path_of_a_ledger_means_the_same_wherever_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert Settings.from_env().with_ledger("books/ledger.db").ledger_location == tmp_path / "books" / "ledger.db"
    assert Settings.from_env().with_ledger("~/ledger.db").ledger_location == tmp_path / "me" / "ledger.db"


def test_what_the_machine_costs_is_read_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_env().usd_per_hour == Decimal("0.10")
    assert Settings.from_env().watts is None
    for name, value in (("USD_PER_HOUR", "0"), ("WATTS", "65"), ("USD_PER_KWH", "0.30")):
        monkeypatch.setenv(f"AGENTBUDGET_{name}", value)
    found = Settings.from_env()
    assert (found.usd_per_hour, found.watts, found.usd_per_kwh) == (0, 65, Decimal("0.30"))


@pytest.mark.parametrize("variable", ["AGENTBUDGET_USD_PER_HOUR", "AGENTBUDGET_WATTS", "AGENTBUDGET_USD_PER_KWH"])
def test_a_price_of_the_machine_that_is_none_is_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "cheap")
    with pytest.raises(InvalidAmount, match=f"{variable}: 'cheap'"):
        Settings.from_env()


@pytest.mark.parametrize("variable", ["AGENTBUDGET_WATTS", "AGENTBUDGET_USD_PER_KWH"])
def test_watts_without_a_tariff_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(InvalidAmount, match="both AGENTBUDGET_WATTS"):
        Settings.from_env()


@pytest.mark.parametrize("address", ["localhost:6333", "qdrant", "grpc://localhost:6334"])
def test_what_is_no_address_of_a_qdrant_server_is_not_taken_for_a_folder(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTBUDGET_QDRANT_URL", address)
    with pytest.raises(Mistake, match=f"AGENTBUDGET_QDRANT_URL must be an http.*not '{address}'"):
        Settings.from_env()
    monkeypatch.setenv("AGENTBUDGET_QDRANT_URL", "http://localhost:6333")
    assert Settings.from_env().qdrant_url == "http://localhost:6333"
