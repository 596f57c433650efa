"""Roles of PostgreSQL beside the one that made the ledger: what each may do, and what it hears where it may not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agentbudget.errors import StoreUnavailable
from agentbudget.ledger import Ledger
from agentbudget.money import Amount, Budget
from tests.ledger.server import Server
from tests.ledger.test_postgres import run_sql


def role(server: Server, name: str, *grants: str) -> str:
    """The address of the ledger for a role of these rights alone. The rights end with the schema that a test made."""
    made = f"DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    run_sql(server.url("postgres"), made, *(f"GRANT {each} TO {name}" for each in grants))
    return server.url("postgres", user=name)


USAGE = "USAGE ON SCHEMA agentbudget"


def test_a_role_that_may_only_read_opens_a_ledger_in_which_others_hold(server: Server, database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        ledger.reserve("a", Amount(5), accounts=["run/1"])
        reader = role(server, "auditor", USAGE, "SELECT ON ALL TABLES IN SCHEMA agentbudget")
        for address in (reader, f"{database}&options=-c%20default_transaction_read_only%3Don"):
            with Ledger.open(address) as read:
                assert read.balance("run/1").held == Amount(5)
                assert read.verify().ok
                with pytest.raises(StoreUnavailable, match="nothing was admitted"):
                    read.settle("a", Amount(4))


def test_a_role_that_did_not_make_the_ledger_needs_only_rights_to_its_tables(server: Server, database: str) -> None:
    Ledger.open(database).close()
    rights = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA agentbudget"
    with Ledger.open(role(server, "cashier", USAGE, rights)) as ledger:
        ledger.account("run/1", limit=Budget(usd="1"), windows={"day": Budget(usd="1")})
        ledger.reserve("a", Amount(5), accounts=["run/1"]).settle(Amount(4))
        ledger.set_limit("run/1", Budget(), window="day")
        assert ledger.verify().ok


@pytest.mark.parametrize(
    ("grants", "why"),
    [
        ((), "may not use the schema 'agentbudget': GRANT USAGE on it"),
        (("CREATE ON DATABASE postgres",), "may not use the schema 'agentbudget': GRANT USAGE on it"),
        ((USAGE, "SELECT ON agentbudget.accounts"), "permission denied for table head"),
    ],
    ids=str,
)
def test_a_role_without_rights_to_the_ledger_hears_which_it_lacks(
    server: Server, database: str, grants: tuple[str, ...], why: str
) -> None:
    Ledger.open(database).close()
    name = f"stranger_{len(grants)}_{'usage' if USAGE in grants else 'none'}"
    with pytest.raises(StoreUnavailable, match=why):
        Ledger.open(role(server, name, *grants))


LEFT = """
import os, sys
from agentbudget.ledger import Ledger
from agentbudget.money import Amount
ledger = Ledger.open(sys.argv[1])
ledger.account("run/1")
ledger.reserve("a", Amount(5), accounts=["run/1"])
os._exit(0)
"""


def test_who_may_only_read_opens_a_ledger_in_which_a_process_left_a_hold(
    server: Server, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    subprocess.run([sys.executable, "-c", LEFT, database], check=True)
    reader = role(server, "auditor", USAGE, "SELECT ON ALL TABLES IN SCHEMA agentbudget")
    for address in (reader, f"{database}&options=-c%20default_transaction_read_only%3Don"):
        with Ledger.open(address) as read:
            assert read.balance("run/1").held == Amount(5)
        assert "stays held until it is swept by somebody who may write" in caplog.text
        caplog.clear()


def test_what_a_process_left_that_ended_is_still_swept_by_who_opens_next(database: str) -> None:
    with Ledger.open(database) as ledger:
        subprocess.run([sys.executable, "-c", LEFT, database], check=True)
        ledger.reserve("ours", Amount(3), accounts=["run/1"])
        with Ledger.open(database):
            assert ledger.balance("run/1").held == Amount(3)
