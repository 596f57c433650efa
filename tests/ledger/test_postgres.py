"""What only the store in PostgreSQL can get wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest

from agentbudget.errors import (
    BudgetExceeded,
    Mistake,
    SchemaMismatch,
    StoreBusy,
    StoreInterrupted,
    StoreUnavailable,
)
from agentbudget.ledger import Ledger
from agentbudget.ledger.core import open_store
from agentbudget.money import Amount, Budget
from tests.ledger.server import Server
from tests.ledger.wire import Wire


def run_sql(url: str, *statements: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True, options="-c search_path=agentbudget,public") as db:
        for statement in statements:
            db.execute(statement.encode())


def posted(ledger: Ledger) -> int:
    return ledger.balance("run/1").posted.usd_nano


def test_balances_survive_reopening(database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1", limit=Budget(usd="0.05", tokens=10))
        ledger.reserve("a", Amount(5, 5), accounts=["run/1"], meta={"skill": "answer"}).settle(Amount(4, 3))
    with Ledger.open(database) as ledger:
        assert ledger.balance("run/1").posted == Amount(4, 3)
        assert ledger.verify().ok


def test_the_clock_is_the_servers(database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        before = time.time_ns()
        created = ledger.reserve("a", Amount(1), accounts=["run/1"]).record.created_ns
        assert abs(created - before) < 60 * 10**9  # the same host, in nanoseconds since 1970
        store = open_store(database)
        with store.write() as tx:
            first = tx.now_ns()
            time.sleep(0.002)
            assert tx.now_ns() == first  # a transaction is one moment
        store.close()


WORKER = """
import sys, threading
from agentbudget.errors import BudgetExceeded
from agentbudget.ledger import Ledger
from agentbudget.money import Amount
ledger = Ledger.open(sys.argv[1])
won = []
def work(name):
    for i in range(15):
        try:
            hold = ledger.reserve(f"{name}-{i}", Amount(usd_nano=10), accounts=["user/42", "run/1"])
        except BudgetExceeded:
            continue
        hold.settle(Amount(usd_nano=10))
        won.append(i)
threads = [threading.Thread(target=work, args=(f"{sys.argv[2]}-{n}",)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(won))
"""


def test_processes_and_threads_together_never_overspend_and_never_refuse_what_fits(database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1", limit=Budget(usd="0.000001"))  # room for 100 of the 120 calls
        ledger.account("user/42")
        workers = [
            subprocess.Popen([sys.executable, "-c", WORKER, database, str(n)], stdout=subprocess.PIPE) for n in range(2)
        ]
        won = sum(int(w.communicate()[0]) for w in workers)
        assert won == 100
        assert ledger.balance("run/1").posted.usd_nano == 1000
        assert ledger.verify().ok


def test_many_who_open_an_empty_database_at_once_find_one_ledger(database: str) -> None:
    failed: list[Exception] = []

    def open_it(n: int) -> None:
        try:
            with Ledger.open(database) as ledger:
                ledger.account(f"run/{n}")
        except Exception as error:  # noqa: BLE001 # told below
            failed.append(error)

    in_threads(6, open_it)
    assert failed == []
    with Ledger.open(database) as ledger:
        assert len(ledger.accounts()) == 6
        assert ledger.verify().ok


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- the server goes away


@pytest.fixture
def own_server(server: Server) -> Generator[Server]:
    """The server, for a test that stops it: started again at the end, whatever happened."""
    yield server
    server.ensure_started()


def insist(operation: Callable[[], object]) -> None:
    """Ask until the server is there again."""
    for _ in range(600):
        try:
            operation()
            return
        except StoreUnavailable:
            time.sleep(0.02)
    raise AssertionError("the server did not come back")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_in_mid_flight_loses_nothing_and_pays_nothing_twice(
    own_server: Server, database: str, mode: str
) -> None:
    calls, threads = 60, 4
    with Ledger.open(database) as ledger:
        ledger.account("run/1", limit=Budget(calls=calls * threads))
        halfway = threading.Event()

        def work(n: int) -> None:
            for i in range(calls):
                hold_id = f"{n}-{i}"
                insist(lambda hold_id=hold_id: ledger.reserve(hold_id, Amount(10, 0, 1), accounts=["run/1"]))
                insist(lambda hold_id=hold_id: ledger.settle(hold_id, Amount(7, 0, 1)))
                if i == calls // 3:
                    halfway.set()

        running = threading.Thread(target=in_threads, args=(threads, work))
        running.start()
        assert halfway.wait(60)
        own_server.stop("fast" if mode == "fast" else "immediate")
        own_server.start()
        running.join()
        assert ledger.balance("run/1").posted == Amount(7 * calls * threads, 0, calls * threads)
        assert ledger.verify().ok


def test_the_next_operation_after_a_restart_just_works(own_server: Server, database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        own_server.stop()
        own_server.start()
        ledger.reserve("a", Amount(5), accounts=["run/1"]).settle(Amount(4))
        assert ledger.balance("run/1").posted == Amount(4)


def test_a_server_that_is_down_fails_closed(own_server: Server, database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        own_server.stop()
        with pytest.raises(StoreUnavailable, match="nothing was admitted"):
            ledger.reserve("a", Amount(5), accounts=["run/1"])
        with pytest.raises(StoreUnavailable, match="nothing was admitted"):
            ledger.balance("run/1")
        own_server.start()
        assert ledger.hold("a") is None


def test_no_server_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"cannot open the ledger postgresql://me@/books.*nothing was admitted"):
        Ledger.open(f"postgresql://me@/books?host={tmp_path}")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@/books?host=/nowhere",
        "postgresql://me:s3cret@[bad/books",
        "postgresql://me:s3cret%zz@localhost/books",
        "postgresql://me@localhost/books?password=s3cret&nonsense=1",
        "postgresql://me@/books?host=/nowhere&password=s3cret",
    ],
)
def test_a_password_is_never_told(url: str) -> None:
    with pytest.raises((StoreUnavailable, Mistake)) as refused:
        Ledger.open(url)
    assert "s3cret" not in "".join(map(str, chain_of(refused.value)))


def chain_of(error: BaseException) -> list[BaseException]:
    """The error and those that led to it, as a traceback shows them."""
    above = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return [error, *(chain_of(above) if above else [])]


def test_the_location_has_no_password(server: Server, database: str) -> None:
    with Ledger.open(database.replace("postgres@", "postgres:s3cret@")) as ledger:
        assert (
            ledger.location == f"postgresql://postgres@/{database.split('/')[3].partition('?')[0]}?host={server.folder}"
        )


def test_the_location_says_which_service_it_is(
    server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text(f"[books]\nhost={server.folder}\nuser=postgres\ndbname=postgres\npassword=s3cret\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    with Ledger.open("postgresql:///?service=books") as ledger:
        assert ledger.location == "postgresql:///?service=books"
        assert ledger.accounts() == []


def test_the_location_says_at_which_address_it_is() -> None:
    address = "postgresql://me@db.example:1/books?hostaddr=127.0.0.1"
    with pytest.raises(StoreUnavailable) as refused:
        Ledger.open(address)
    assert refused.value.location == address


def test_a_server_that_only_reads_is_a_clear_error(database: str) -> None:
    Ledger.open(database).close()
    with Ledger.open(f"{database}&options=-c%20default_transaction_read_only%3Don") as ledger:
        assert ledger.accounts() == []
        with pytest.raises(StoreUnavailable, match=r"read-only.*nothing was admitted"):
            ledger.account("run/1")


# --- a commit without an answer


@pytest.fixture
def wire(server: Server) -> Generator[Wire]:
    """A connection to the server that can be cut at the worst moment."""
    with Wire(server.folder) as wire:
        yield wire


def through(wire: Wire, database: str) -> str:
    return database.replace(database.rpartition("host=")[2], str(wire.folder))


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_whose_answer_is_lost_is_booked_once(wire: Wire, database: str, arrives: bool) -> None:
    with Ledger.open(through(wire, database)) as ledger:
        ledger.account("run/1", limit=Budget(calls=1))
        wire.cut_at_commit(arrives=arrives)
        hold = ledger.reserve("a", Amount(5, 0, 1), accounts=["run/1"])
        assert not hold.replayed
        wire.cut_at_commit(arrives=arrives)
        hold.settle(Amount(4, 0, 1))
        assert wire.cuts == 2
        assert ledger.balance("run/1").posted == Amount(4, 0, 1)
        assert [entry.kind for entry in ledger.entries(subject="a")] == ["reserve", "settle"]
        assert ledger.verify().ok


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_that_nobody_can_tell_of_says_so_and_may_be_asked_again(
    wire: Wire, database: str, arrives: bool
) -> None:
    from agentbudget.ledger.postgres import PostgresStore

    with Ledger(PostgresStore(through(wire, database), patience_s=0.1)) as ledger:
        ledger.account("run/1")
        wire.cut_at_commit(arrives=arrives, for_good=True)
        with pytest.raises(StoreUnavailable, match="not known: ask again with the same id") as unknown:
            ledger.reserve("a", Amount(5), accounts=["run/1"])
        assert not isinstance(unknown.value, StoreInterrupted)
        wire.mend()
        assert ledger.reserve("a", Amount(5), accounts=["run/1"]).replayed is arrives
        assert ledger.balance("run/1").held == Amount(5)
        assert ledger.verify().ok


def test_a_connection_that_breaks_in_a_transaction_is_asked_again(wire: Wire, database: str) -> None:
    with Ledger.open(through(wire, database)) as ledger:
        ledger.account("run/1")
        wire.cut_at(b"INSERT INTO holds")
        assert not ledger.reserve("a", Amount(5), accounts=["run/1"]).replayed
        assert wire.cuts == 1
        assert ledger.balance("run/1").held == Amount(5)
        wire.cut_at(b"h.state = 'open'")
        assert ledger.sweep() == []
        assert wire.cuts == 2


def test_a_transaction_that_the_database_gives_up_is_run_again(database: str) -> None:
    """As CockroachDB does at a commit, where writers crossed: here a trigger that fails twice stands for them."""
    with Ledger.open(database) as ledger:
        ledger.account("run/1", limit=Budget(calls=1))
        run_sql(
            database,
            "CREATE SEQUENCE crossings",
            "CREATE FUNCTION cross_writers() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF nextval('agentbudget.crossings') <= 2 THEN RAISE 'crossed' USING ERRCODE = '40001'; END IF; "
            "RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER crossed AFTER INSERT ON entries DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION cross_writers()",
        )
        assert not ledger.reserve("a", Amount(5, 0, 1), accounts=["run/1"]).replayed
        assert ledger.balance("run/1").held == Amount(5, 0, 1)
        run_sql(database, "ALTER SEQUENCE crossings RESTART")
        run_sql(database, "ALTER SEQUENCE crossings INCREMENT BY -1 MINVALUE -100")
        with pytest.raises(StoreInterrupted, match="nothing was admitted"):
            ledger.settle("a", Amount(5, 0, 1))
        assert ledger.balance("run/1").held == Amount(5, 0, 1)


# --- a pooler that pools by transaction


def test_a_session_that_a_pooler_exchanged_is_named_and_nothing_is_written(wire: Wire, database: str) -> None:
    with Ledger.open(through(wire, database)) as ledger:
        ledger.account("run/1", limit=Budget(calls=1))
        wire.hand_over_at(b"BEGIN")
        with pytest.raises(StoreUnavailable, match=r"let it pool by session.*nothing was admitted"):
            ledger.reserve("a", Amount(5, 0, 1), accounts=["run/1"])
        wire.hand_over_at(b"BEGIN")
        with pytest.raises(StoreUnavailable, match="let it pool by session"):
            ledger.balance("run/1")
        assert wire.cuts == 2
        assert ledger.hold("a") is None
        assert not ledger.reserve("a", Amount(5, 0, 1), accounts=["run/1"]).replayed
        assert ledger.verify().ok


def test_tables_are_made_in_no_session_that_was_not_set_up_for_them(wire: Wire, database: str) -> None:
    import psycopg

    wire.hand_over_at(b"BEGIN")
    with pytest.raises(StoreUnavailable, match="let it pool by session"):
        Ledger.open(through(wire, database))
    with psycopg.connect(database) as db:
        assert db.execute("SELECT 1 FROM pg_tables WHERE schemaname IN ('public', 'agentbudget')").fetchall() == []


# --- others at the same tables


def test_a_writer_that_keeps_the_lock_makes_others_give_up(database: str) -> None:
    import psycopg

    from agentbudget.ledger.postgres import PostgresStore

    with Ledger(PostgresStore(database, lock_timeout_s=0.05)) as ledger:
        ledger.account("run/1")
        with psycopg.connect(database) as blocker:
            blocker.execute("SELECT seq FROM agentbudget.head FOR UPDATE")
            with pytest.raises(StoreBusy, match="somebody else"):
                ledger.reserve("a", Amount(1), accounts=["run/1"])
            assert ledger.hold("a") is None  # reading waits for nobody
        ledger.reserve("a", Amount(1), accounts=["run/1"])


def test_a_writer_that_was_stopped_does_not_keep_the_others_for_ever(database: str) -> None:
    from agentbudget.ledger.postgres import PostgresStore

    stopped = PostgresStore(database, lock_timeout_s=0.3)

    def write(ledger: Ledger) -> None:
        with stopped.write() as tx:
            ledger.account("run/1")  # waits until the server ends the session of the other
            tx.put_lease("me", 1)
            tx.lease("me")

    with Ledger.open(database) as ledger:
        with pytest.raises(StoreInterrupted, match="gave up"):
            write(ledger)
        assert ledger.balance("run/1").name == "run/1"
    stopped.close()


@pytest.mark.parametrize("table", ["head (seq INTEGER)", "accounts (login TEXT)"])
def test_another_programs_tables_are_refused(database: str, table: str) -> None:
    run_sql(database, "CREATE SCHEMA agentbudget", f"CREATE TABLE agentbudget.{table}")
    with pytest.raises(SchemaMismatch, match="another program"):
        Ledger.open(database)


def test_an_applications_own_tables_may_be_beside_the_ledgers(database: str) -> None:
    run_sql(database, "CREATE TABLE public.accounts (login TEXT)", "CREATE TABLE public.head (x TEXT)")
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        assert ledger.verify().ok


@pytest.fixture
def made(server: Server) -> Generator[Callable[[str], str]]:
    """Makes an empty database of an encoding; gives its address."""
    import psycopg

    names: list[str] = []
    with psycopg.connect(server.fresh(), autocommit=True) as db:

        def make(encoding: str) -> str:
            names.append(f"of_{encoding.lower()}")
            locale = "LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            db.execute(f"CREATE DATABASE {names[-1]} ENCODING '{encoding}' {locale}".encode())
            return server.url(names[-1])

        yield make
        for name in names:
            db.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_database_whose_encoding_lacks_letters_is_refused(made: Callable[[str], str]) -> None:
    with pytest.raises(SchemaMismatch, match="make it with ENCODING 'UTF8'") as refused:
        Ledger.open(made("LATIN1"))
    assert refused.value.location is not None


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
def test_every_letter_is_kept_whatever_encoding_a_client_is_said_to_have(
    made: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with Ledger.open(f"{made(encoding)}&client_encoding=latin1") as ledger:
        ledger.account("user/日本")
        ledger.reserve("é", Amount(1), accounts=["user/日本"], meta={"é": "日本"}).settle(Amount(1))
        assert [hold.meta for hold in ledger.holds(prefix="é")] == [{"é": "日本"}]
        assert [account.name for account in ledger.accounts(prefix="user/")] == ["user/日本"]
        assert ledger.verify().ok


def test_a_newer_schema_is_refused_also_by_those_who_have_it_open(database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        run_sql(database, "UPDATE head SET version = 99")
        with pytest.raises(SchemaMismatch, match="schema 99"):
            ledger.reserve("a", Amount(1), accounts=["run/1"])
    with pytest.raises(SchemaMismatch, match="schema 99"):
        Ledger.open(database)


def test_tables_that_are_dropped_are_missed(database: str) -> None:
    with Ledger.open(database) as ledger:
        run_sql(database, "DROP SCHEMA agentbudget CASCADE")
        with pytest.raises(SchemaMismatch, match="were changed"):
            ledger.account("run/1")


def test_tampering_shows(database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        ledger.reserve("a", Amount(5), accounts=["run/1"]).settle(Amount(4))
        run_sql(database, "UPDATE entries SET posted_usd = 1 WHERE kind = 'settle'", "UPDATE accounts SET held_usd = 9")
        problems = ledger.verify().problems
    assert any("does not match its hash" in p for p in problems)
    assert any("run/1" in p for p in problems)


def test_a_last_entry_that_is_taken_away_shows(database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        ledger.account("run/2")
        run_sql(database, "DELETE FROM entries WHERE subject = 'run/2'", "DELETE FROM accounts WHERE name = 'run/2'")
        assert not ledger.verify().ok


def test_an_ordinary_user_cannot_change_an_entry_by_accident(database: str) -> None:
    import psycopg

    run_sql(database, "CREATE ROLE teller LOGIN", "GRANT CREATE ON DATABASE postgres TO teller")
    as_teller = database.replace("postgres@", "teller@")
    with Ledger.open(as_teller) as ledger:
        ledger.account("run/1")
        ledger.reserve("a", Amount(5), accounts=["run/1"]).settle(Amount(4))
        for statement in ("UPDATE entries SET posted_usd = 0", "DELETE FROM entries", "TRUNCATE entries"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                run_sql(as_teller, statement)
        assert ledger.verify().ok


# --- mistakes


def test_a_closed_ledger_says_so(database: str) -> None:
    ledger = Ledger.open(database)
    ledger.close()
    with pytest.raises(StoreUnavailable, match="was closed"):
        ledger.account("run/1")


def test_a_forked_process_has_a_connection_of_its_own(database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1")
        ledger.reserve("parent", Amount(1), accounts=["run/1"])
        child = os.fork()
        if child == 0:
            done = 1
            with suppress(Exception):
                ledger.reserve("child", Amount(2), accounts=["run/1"]).settle(Amount(2))
                ledger.close()
                done = 0
            os._exit(done)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ledger.settle("parent", Amount(1))
        assert ledger.balance("run/1").posted == Amount(3)
        assert ledger.verify().ok


def test_without_psycopg_the_extra_is_named() -> None:
    script = """
import sys
sys.modules["psycopg"] = None
from agentbudget.errors import MissingDependency
from agentbudget.ledger import Ledger
try:
    Ledger.open("postgresql://localhost/books")
except MissingDependency as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "agentbudget-runtime[postgres]" in done.stdout


def test_a_refused_hold_leaves_the_connection_good(database: str) -> None:
    with Ledger.open(database) as ledger:
        ledger.account("run/1", limit=Budget(tokens=5))
        for n in range(8):
            with pytest.raises(BudgetExceeded):
                ledger.reserve(f"h{n}", Amount(tokens=6), accounts=["run/1"])
        ledger.reserve("fits", Amount(tokens=5), accounts=["run/1"])
        assert ledger.verify().ok


def test_what_goes_with_a_settlement_may_be_larger_than_the_connection_takes_at_once(database: str) -> None:
    script = """
import sys
from agentbudget.ledger import Ledger
from agentbudget.money import Amount
with Ledger.open(sys.argv[1]) as ledger:
    ledger.account("run/1")
    detail = {"said": "x" * 5_000_000}
    assert ledger.reserve("a", Amount(5), accounts=["run/1"]).settle(Amount(4), detail=detail).detail == detail
    assert ledger.verify().ok
"""
    subprocess.run([sys.executable, "-c", script, database], check=True, timeout=60)  # in a process: else it hangs here
