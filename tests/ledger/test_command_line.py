"""The commands on every store that outlives its process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agentbudget.cli import cli
from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget


def data(location: str, *arguments: str) -> Any:
    command = ["ledger", *arguments, "--ledger", location, "--json"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False, standalone_mode=False)
    return json.loads(done.stdout)


def test_each_command_finds_the_ledger_where_it_is(location: str, tmp_path: Path) -> None:
    if location == "memory:":
        pytest.skip("a ledger in memory is seen by nobody else")
    with Ledger.open(location) as opened:
        opened.account("user/42", limit=Budget(usd="1"))
        opened.reserve("call", Amount(500, 5, 1), accounts=["user/42"]).settle(Amount(400, 4, 1))
    assert data(location, "accounts")[0]["posted"] == {"usd_nano": 400, "tokens": 4, "calls": 1}
    assert (
        data(location, "limit", "user/42", "--calls", "9", "--window", "day")["windows"][0]["available"]["calls"] == 8
    )
    assert data(location, "topup", "user/42", "--usd", "1", "--id", "t")["limit"]["usd_nano"] == 2 * 10**9
    assert data(location, "freeze", "user/42", "--reason", "why")["frozen"] == "why"
    assert data(location, "unfreeze", "user/42")["frozen"] is None
    assert [hold["id"] for hold in data(location, "holds", "--state", "all")] == ["call"]
    assert data(location, "sweep") == []
    assert data(location, "entries", "--last", "1")[0]["kind"] == "unfreeze"
    assert data(location, "verify")["ok"] is True
    path = str(tmp_path / "journal.jsonl")
    head = data(location, "export", path)["head"]
    assert data(location, "verify", "--export", path, "--head", head)["ok"] is True
