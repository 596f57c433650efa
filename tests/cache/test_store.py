"""What is kept: within a bound, as long as it may be, findable when it has to go, and never in anybody's way."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentbudget.cache import Answers, Label, Limits, Row, Source, Store, Which
from agentbudget.cache.schema import VERSION
from agentbudget.errors import Mistake, SchemaMismatch, StoreBusy, StoreUnavailable
from agentbudget.models.base import Completion
from agentbudget.testing import ManualClock
from agentbudget.usage import Usage

ANSWER = Completion("text", "stop", Usage(2, 5), "served", confidence=0.5)


def keep(store: Store, *keys: str, size: int = 10, cost: int = 100, label: Label | None = None) -> None:
    store.put(dict.fromkeys(keys), b"v" * size, label or Label(), cost_usd_nano=cost)


def there(store: Store, *keys: str) -> list[str]:
    return [key for key in keys if store.find((key,))]


def only(store: Store, key: str) -> Row:
    (row,) = store.find((key,))
    return row


def test_an_entry_is_found_under_each_of_its_keys_in_the_order_that_is_asked_for() -> None:
    store = Store()
    keep(store, "own", "shared")
    keep(store, "other")
    assert [row.key for row in store.find(("shared", "none", "other", "own"))] == ["shared", "other", "own"]
    many = ("shared", *(f"none/{number}" for number in range(9)), "other", "own")
    assert [row.key for row in store.find(many)] == ["shared", "other", "own"]
    assert store.find(()) == []
    assert only(store, "own").entry == only(store, "shared").entry


def test_a_value_survives_the_process(tmp_path: Path) -> None:
    with Store(tmp_path / "c.db") as store:
        keep(store, "k", cost=7)
    with Store(tmp_path / "c.db") as store:
        assert only(store, "k").cost_usd_nano == 7


def test_a_path_may_be_written_as_text(tmp_path: Path) -> None:
    with Store(str(tmp_path / "cache.db")) as store:
        keep(store, "own")
    with Store(tmp_path / "cache.db") as store:
        assert there(store, "own") == ["own"]


def test_threads_may_make_a_file_at_once(tmp_path: Path) -> None:
    def make(path: Path) -> str:
        with Store(path) as store:
            keep(store, "k")
            return only(store, "k").key

    with ThreadPoolExecutor(4) as pool:
        for number in range(25):
            assert list(pool.map(make, [tmp_path / f"{number}.db"] * 4)) == ["k"] * 4


def test_what_is_put_again_takes_the_place_of_what_stood_there() -> None:
    store = Store()
    keep(store, "a", "b", size=10)
    keep(store, "a", size=20)
    assert len(only(store, "a").value) == 20
    assert len(only(store, "b").value) == 10
    keep(store, "b", size=30)
    assert store.size[0] == 2


def test_an_entry_is_gone_after_its_time() -> None:
    clock = ManualClock()
    store = Store(clock_ns=clock)
    store.put({"own": None, "shared": 60.0}, b"v", Label(), cost_usd_nano=1)
    clock.advance(59)
    assert there(store, "own", "shared") == ["own", "shared"]
    clock.advance(2)
    assert there(store, "own", "shared") == ["own"]


def test_what_is_past_its_time_makes_room() -> None:
    clock = ManualClock()
    store = Store(clock_ns=clock)
    store.put({"k": 60.0}, b"v", Label(), cost_usd_nano=1)
    clock.advance(61)
    keep(store, "other")
    assert store.size[0] == 1


# --- the bound


@pytest.mark.parametrize("limits", [Limits(entries=50), Limits(bytes=1500)])
def test_the_bound_holds_after_every_put(limits: Limits) -> None:
    store = Store(limits=limits)
    for number in range(400):
        keep(store, f"k{number}", size=number % 40)
        entries, size = store.size
        assert entries <= limits.entries
        assert size <= limits.bytes
    assert store.size[0] > 10


def test_what_saves_most_for_its_size_stays() -> None:
    store = Store(limits=Limits(entries=20))
    keep(store, "dear", cost=1_000_000)
    for number in range(200):
        keep(store, f"cheap{number}", cost=10)
    assert there(store, "dear", "cheap0", "cheap199") == ["dear", "cheap199"]


def test_what_is_asked_for_stays() -> None:
    store = Store(limits=Limits(entries=20))
    keep(store, "wanted")
    for number in range(100):
        keep(store, f"k{number}")
        store.touch(only(store, "wanted").entry)
    assert there(store, "wanted", "k0") == ["wanted"]


def test_what_was_dear_and_is_never_asked_for_goes_in_the_end() -> None:
    store = Store(limits=Limits(entries=20))
    keep(store, "dear", cost=1000)
    for number in range(3000):
        keep(store, f"cheap{number}", cost=100)
    assert there(store, "dear") == []


def test_what_is_larger_than_the_bound_drives_nothing_out() -> None:
    store = Store(limits=Limits(bytes=100))
    keep(store, "small")
    keep(store, "large", size=200)
    assert there(store, "small", "large") == ["small"]


def test_a_bound_without_room_is_refused() -> None:
    with pytest.raises(Mistake, match="room for something"):
        Limits(entries=0)


# --- what has to go


MADE: Mapping[str, Label] = {
    "a": Label(tenant="acme", skill="answer", skill_version="1", sources=(Source("orders.md", "c1"),)),
    "b": Label(tenant="acme", skill="answer", skill_version="2", sources=(Source("orders.md", "c2"),)),
    "c": Label(tenant="other", skill="answer", skill_version="2", sources=(Source("prices.md", "c3"),)),
    "p": Label(kind="plan", tenant="other", skill="plan", model="m"),
    "s": Label(tenant="", skill="triage"),
}


@pytest.mark.parametrize(
    ("which", "gone"),
    [
        (Which(tenant="acme"), "ab"),
        (Which(skill="answer"), "abc"),
        (Which(skill="answer", skill_version="2"), "bc"),
        (Which(skill="answer", skill_version="2", tenant="acme"), "b"),
        (Which(document="orders.md"), "ab"),
        (Which(chunk="c2"), "b"),
        (Which(document="orders.md", chunk="c3"), ""),
        (Which(kind="plan"), "p"),
        (Which(model="m"), "p"),
        (Which(tenant=""), "s"),
    ],
)
def test_what_fits_is_forgotten_and_nothing_else(which: Which, gone: str) -> None:
    store = Store()
    for key, label in MADE.items():
        keep(store, key, label=label)
    assert store.invalidate(which) == len(gone)
    assert there(store, *MADE) == [key for key in MADE if key not in gone]
    assert store.size[0] == len(MADE) - len(gone)


def test_what_is_older_is_forgotten() -> None:
    clock = ManualClock()
    store = Store(clock_ns=clock)
    keep(store, "old")
    clock.advance(100)
    keep(store, "new")
    assert store.invalidate(Which(older_than_s=50)) == 1
    assert there(store, "old", "new") == ["new"]


def test_nothing_said_is_refused_and_clearing_forgets_all() -> None:
    store = Store()
    keep(store, "a")
    with pytest.raises(Mistake, match="clear"):
        store.invalidate(Which())
    assert store.clear() == 1
    assert store.size == (0, 0)


def test_what_was_forgotten_is_not_left_in_the_file(tmp_path: Path) -> None:
    with Store(tmp_path / "c.db") as store:
        store.put({"k": None}, b"a secret of acme's", Label(tenant="acme"), cost_usd_nano=1)
        store.invalidate(Which(tenant="acme"))
        left = b"".join(path.read_bytes() for path in tmp_path.glob("c.db*") if path.is_file())
    assert b"secret" not in left


def test_hits_and_what_they_saved_are_told_by_kind() -> None:
    store = Store()
    keep(store, "a", cost=100)
    keep(store, "p", cost=1000, label=Label(kind="plan"))
    for _ in range(3):
        store.touch(only(store, "a").entry)
    kept = {one.kind: one for one in store.kept()}
    assert (kept["answer"].hits, kept["answer"].saved_usd_nano) == (3, 300)
    assert (kept["plan"].entries, kept["plan"].hits) == (1, 0)


def test_hits_are_noted_when_the_store_is_closed(tmp_path: Path) -> None:
    with Store(tmp_path / "c.db") as store:
        keep(store, "a")
        store.touch(only(store, "a").entry)
    with Store(tmp_path / "c.db") as store:
        assert store.kept()[0].hits == 1


# --- files of others, and of other versions


def test_another_programs_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(SchemaMismatch, match="another program's"):
        Store(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "c.db").close()
    db = sqlite3.connect(tmp_path / "c.db")
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    with pytest.raises(SchemaMismatch, match="later version") as refused:
        Store(tmp_path / "c.db")
    assert (refused.value.found, refused.value.expected) == (VERSION + 1, VERSION)


def of_version_1(path: Path) -> None:
    """A cache as version 1 made it, with one answer."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA application_id = 1095189059")
    db.execute(
        "CREATE TABLE answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL, cost_usd_nano INTEGER NOT NULL, "
        "created_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID"
    )
    usage = '{"input_tokens": 2, "output_tokens": 5}'
    answer = f'{{"text": "é", "finish": "stop", "usage": {usage}, "served_by": "m", "confidence": null, "calls": []}}'
    db.executemany("INSERT INTO answers VALUES (?, ?, 7, 5)", [("k", answer), ("r#k", answer)])
    db.commit()
    db.close()


def test_answers_of_the_first_version_stay_valid(tmp_path: Path) -> None:
    of_version_1(tmp_path / "c.db")
    for _ in range(2):
        with Answers(tmp_path / "c.db") as answers:
            found = answers.get("k", max_output_tokens=10)
            assert found is not None
            assert (found.completion.text, found.cost_usd_nano, found.created_ns) == ("é", 7, 5)
            assert answers.store.size[0] == 2


@pytest.mark.parametrize("which", [Which(tenant="acme"), Which(skill="answer"), Which(document="orders.md")])
def test_what_does_not_say_whose_it_is_may_be_anybodys(tmp_path: Path, which: Which) -> None:
    of_version_1(tmp_path / "c.db")
    with Store(tmp_path / "c.db") as store:
        assert store.invalidate(which) == 2


# --- when something is wrong


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable, match=r"c\.db: .*move the file away") as refused:
        Store(tmp_path / "c.db")
    assert refused.value.location == str(tmp_path / "c.db")


def test_an_answer_that_cannot_be_read_is_dropped_and_bought_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Answers(tmp_path / "c.db") as answers:
        answers.store.put({"k": None}, b'{"text": "half an ans', Label(), cost_usd_nano=1)
        assert answers.get("k", max_output_tokens=10) is None
        assert "cannot be read" in caplog.text
        assert answers.store.find(("k",)) == []


def test_a_damaged_file_is_named_though_what_sqlite_says_of_it_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    Store(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"CREATE INDEX keys_by_expiry", b"CREATE \xd4NDEX keys_by_expiry"))
    with pytest.raises(StoreUnavailable, match=r"c\.db: it is damaged .*move the file away"):
        Store(path)


def test_a_file_that_is_damaged_while_it_is_open_is_named_too(tmp_path: Path) -> None:
    with Store(tmp_path / "c.db") as store:
        keep(store, "k")
        raw = sqlite3.connect(tmp_path / "c.db")
        raw.execute("PRAGMA writable_schema = ON")
        raw.execute("UPDATE sqlite_schema SET sql = CAST(x'43524541544520d4' AS TEXT) WHERE name = 'keys_by_expiry'")
        raw.execute("PRAGMA schema_version = 999")
        raw.commit()
        raw.close()
        with pytest.raises(StoreUnavailable, match="it is damaged"):
            keep(store, "l")
        with pytest.raises(StoreUnavailable, match="it is damaged"):
            there(store, "k")


def test_an_answer_without_a_value_is_dropped_and_bought_anew(caplog: pytest.LogCaptureFixture) -> None:
    with Answers() as answers:
        answers.store.put({"k": None}, b"{}", Label(), cost_usd_nano=1)
        db = answers.store._db  # pyright: ignore[reportPrivateUsage] # as a damaged file has it
        db.executescript(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'value BLOB NOT NULL', "
            "'value BLOB'); PRAGMA writable_schema = RESET; UPDATE entries SET value = NULL"
        )
        assert answers.get("k", max_output_tokens=10) is None
        assert "cannot be read" in caplog.text


def test_another_writer_is_waited_for_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentbudget.cache.database.BUSY_TIMEOUT_S", 0.01)
    with Store(tmp_path / "c.db") as store:
        keep(store, "k")
        other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="another process"):
            keep(store, "l")
        assert there(store, "k") == ["k"]  # who reads waits for nobody
        other.execute("ROLLBACK")
        other.close()
        keep(store, "l")


def test_a_full_disk_is_an_error_that_leaves_the_store_usable(tmp_path: Path) -> None:
    with Store(tmp_path / "c.db") as store:
        keep(store, "k")
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]  # pyright: ignore[reportPrivateUsage] # SQLite's own way to a full disk
        store._db.execute(f"PRAGMA max_page_count = {pages}")  # pyright: ignore[reportPrivateUsage] # likewise
        with pytest.raises(StoreUnavailable, match="full"):
            keep(store, "large", size=1_000_000)
        assert there(store, "k", "large") == ["k"]


def test_a_store_that_is_closed_says_so() -> None:
    store = Store()
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.find(("k",))


def test_threads_share_a_store(tmp_path: Path) -> None:
    with Store(tmp_path / "c.db", limits=Limits(entries=50)) as store:

        def work(number: int) -> None:
            for turn in range(50):
                keep(store, f"{number}.{turn}")
                for row in store.find((f"{number}.{turn}",)):
                    store.touch(row.entry)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 0 < store.size[0] <= 50
        assert store.size[0] == sum(kept.entries for kept in store.kept())


PROCESS = """
import os, sys
from pathlib import Path
from agentbudget.cache import Label, Store
with Store(Path(sys.argv[1])) as store:
    for number in range(20):
        store.put({f"{os.getpid()}.{number}": None}, b"v", Label(), cost_usd_nano=1)
    if os.fork() == 0:
        store.put({"child": None}, b"v", Label(), cost_usd_nano=1)
        store.close()
        os._exit(0)
    os.wait()
    assert store.find(("child",))
"""


def test_processes_and_their_forked_children_share_a_file(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path / "c.db")], cwd=root, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for one in started:
        _, told = one.communicate(timeout=60)
        assert (one.returncode, told) == (0, b"")
    with Store(tmp_path / "c.db") as store:
        assert store.size[0] == 41
