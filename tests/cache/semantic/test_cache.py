from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from agentbudget.cache.semantic import Look, Place, Semantic, SemanticCache
from agentbudget.errors import InvalidArgument, SchemaMismatch, StoreUnavailable
from tests.context.conftest import WordEmbedder

HERE = Place(tenant="acme", skill="answer", form="form")
POLICY = Semantic(wrong=0.2, audited=0.01)
SYLLABLES = ("ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru")


def topics(count: int, start: int = 0) -> list[str]:
    """Questions of three words each that no other has."""
    words = ("".join(parts) for parts in itertools.product(SYLLABLES, repeat=3))
    taken = list(itertools.islice(words, 3 * start, 3 * (start + count)))
    return [" ".join(taken[n : n + 3]) for n in range(0, len(taken), 3)]


def opened(path: Path | None = None, *, draw: float = 0.5, embedder: WordEmbedder | None = None) -> SemanticCache:
    return SemanticCache(path, embedder or WordEmbedder(), draw=lambda: draw)


def keep(cache: SemanticCache, question: str, place: Place = HERE) -> None:
    """Buy the answer to a question that is like no other."""
    cache.bought(cache.look(place, question, POLICY), key=f"key of {question}", same=None, policy=POLICY)


def teach(cache: SemanticCache, place: Place = HERE, *, count: int = 120) -> None:
    """Ask each question in two ways, and let the answers be the same."""
    for topic in topics(count):
        keep(cache, topic, place)
        look = cache.look(place, f"please {topic}", POLICY)
        cache.bought(look, key=f"key of please {topic}", same=True, policy=POLICY)


def test_an_answer_is_reused_once_enough_like_it_were_right() -> None:
    with opened() as cache:
        [topic] = topics(1, start=200)
        keep(cache, topic)
        assert cache.look(HERE, f"please {topic}", POLICY).decision == "buy"
        teach(cache)
        look = cache.look(HERE, f"please {topic}", POLICY)
        assert look.decision == "reuse"
        assert look.entry is not None
        assert look.entry.key == f"key of {topic}"
        assert look.fit.bound.wrong < 0.2
        assert look.probability > 0.9


def test_nothing_is_reused_where_such_answers_were_wrong() -> None:
    with opened() as cache:
        for number, topic in enumerate(topics(200)):
            keep(cache, topic)
            look = cache.look(HERE, f"please {topic}", POLICY)
            cache.bought(look, key=f"other {topic}", same=number % 2 == 0, policy=POLICY)
        assert cache.look(HERE, f"please {topics(1)[0]}", POLICY).decision == "buy"


def test_a_near_miss_is_bought_however_sure_the_rest_is() -> None:
    with opened() as cache:
        keep(cache, "dera lome 2019")
        teach(cache)
        look = cache.look(HERE, "dera lome 2020", POLICY)
        assert look.similarity > 0.6
        assert (look.decision, look.differ) == ("buy", ("number",))


@pytest.mark.parametrize(
    "other",
    [
        Place(tenant="evil", skill="answer", form="form"),
        Place(tenant="acme", skill="answer", form="another"),
        Place(tenant='acme", "form": "form', skill="answer", form="form"),
        Place(tenant="", skill="answer", form="form"),
    ],
)
def test_another_tenant_or_another_form_finds_nothing(other: Place) -> None:
    with opened() as cache:
        teach(cache)
        look = cache.look(other, topics(1)[0], POLICY)
        assert (look.entry, look.fit.bound.threshold) == (None, inf)


def test_a_hit_that_was_found_wrong_is_not_given_again() -> None:
    with opened() as cache:
        teach(cache)
        asked = f"please {topics(1)[0]}"
        hit = cache.reused(cache.look(HERE, asked, POLICY))
        assert cache.found_wrong(hit)
        assert cache.found_wrong(hit)
        look = cache.look(HERE, asked, POLICY)
        assert look.entry is not None
        assert look.decision == "buy"
        assert look.entry.record.wrong == look.entry.record.right + 1


def nearby(look: Look) -> tuple[float, float]:
    """What outcomes nearby say for and against the candidate."""
    right, wrong = look.features[-2:]
    return right, wrong


def test_what_came_of_questions_nearby_counts_for_a_new_one() -> None:
    with opened() as cache:
        keep(cache, "dera lome kuni pofi goba")
        look = cache.look(HERE, "dera lome kuni pofi gode", POLICY)
        assert nearby(look) == (0, 0)
        cache.bought(look, key="another", same=True, policy=POLICY)
        right, wrong = nearby(cache.look(HERE, "dera lome kuni pofi gofi", POLICY))
        assert right > wrong == 0


def test_a_hit_that_was_found_wrong_counts_against_those_nearby() -> None:
    with opened() as cache:
        keep(cache, "dera lome kuni pofi goba")
        hit = cache.reused(cache.look(HERE, "dera lome kuni pofi gode", POLICY))
        assert cache.found_wrong(hit)
        assert cache.found_wrong(hit)
        right, wrong = nearby(cache.look(HERE, "dera lome kuni pofi goba", POLICY))
        assert wrong > right == 0


def test_where_questions_lay_is_forgotten_with_them() -> None:
    with opened() as cache:
        keep(cache, "dera lome kuni")
        look = cache.look(HERE, "please dera lome kuni", POLICY)
        cache.bought(look, key="another", same=False, policy=POLICY)
        assert look.entry is not None
        cache.gone(look)
        assert cache.store.outcome_signs(look.space, 0) == []


def test_the_file_of_version_1_is_taken_over(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as cache:
        keep(cache, "dera lome kuni")
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("DROP TABLE outcomes")
        db.execute("PRAGMA user_version = 1")
    with opened(tmp_path / "s.db") as cache:
        look = cache.look(HERE, "please dera lome kuni", POLICY)
        cache.bought(look, key="another", same=True, policy=POLICY)
        assert len(cache.store.outcome_signs(look.space, 0)) == 1


def test_no_hit_can_be_found_wrong_that_was_none() -> None:
    with opened() as cache:
        teach(cache, count=5)
        assert not cache.found_wrong(1)
        assert not cache.found_wrong(10**9)


def test_a_question_that_was_answered_as_another_is_not_kept_beside_it() -> None:
    with opened() as cache:
        teach(cache, count=3)
        found = cache.look(HERE, f"please {topics(1)[0]}", POLICY)
        assert found.entry is not None
        assert found.entry.question == topics(1)[0]


def test_what_was_learned_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as cache:
        teach(cache)
    with opened(tmp_path / "s.db") as cache:
        assert cache.look(HERE, f"please {topics(1)[0]}", POLICY).decision == "reuse"


def test_another_bound_is_learned_for_itself(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as cache:
        teach(cache)
        assert cache.look(HERE, f"please {topics(1)[0]}", Semantic(wrong=0.01)).decision == "buy"


def test_what_another_embedding_model_kept_is_not_used(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as cache:
        teach(cache)
    with opened(tmp_path / "s.db", embedder=WordEmbedder(name="others")) as cache:
        look = cache.look(HERE, f"please {topics(1)[0]}", POLICY)
        assert (look.entry, look.fit.learned_from) == (None, 0)


def test_two_that_have_the_file_open_see_what_the_other_adds_and_drops(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as one, opened(tmp_path / "s.db") as other:
        keep(one, "dera lome kuni")
        found: Look = other.look(HERE, "dera lome kuni", POLICY)
        assert found.entry is not None
        one.gone(found)
        assert other.look(HERE, "dera lome kuni", POLICY).entry is None


WORKER = """
import sys
from pathlib import Path
from tests.cache.semantic.test_cache import opened, teach
cache = opened(Path(sys.argv[1]))
teach(cache, count=int(sys.argv[2]))
print("taught", flush=True)
sys.stdin.read()
"""


def worker(path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(path), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_was_learned_survives_kill_9(tmp_path: Path) -> None:
    with worker(tmp_path / "s.db", 120) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taught\n"
        os.kill(process.pid, signal.SIGKILL)
    with opened(tmp_path / "s.db") as cache:
        assert cache.look(HERE, f"please {topics(1)[0]}", POLICY).decision == "reuse"


def test_two_processes_learn_into_one_file(tmp_path: Path) -> None:
    with worker(tmp_path / "s.db", 60) as one, worker(tmp_path / "s.db", 60) as other:
        for process in (one, other):
            _, _ = process.communicate("")
            assert process.returncode == 0
    with sqlite3.connect(tmp_path / "s.db") as db:
        (trials,) = db.execute("SELECT count(*) FROM trials WHERE same IS NOT NULL").fetchone()
        (verified,) = db.execute("SELECT verified FROM spaces").fetchone()
    assert trials == verified >= 120


def test_a_tenants_questions_are_forgotten_on_request(tmp_path: Path) -> None:
    other = Place(tenant="other", skill="answer", form="form")
    with opened(tmp_path / "s.db") as cache:
        keep(cache, "dera lome kuni")
        keep(cache, "dera lome kuni", other)
        assert cache.store.forget(tenant="acme") == 1
        assert cache.look(HERE, "dera lome kuni", POLICY).entry is None
        assert cache.look(other, "dera lome kuni", POLICY).entry is not None


def test_those_that_were_not_used_for_longest_make_room() -> None:
    with SemanticCache(None, WordEmbedder(), most_entries=100) as cache:
        for topic in topics(256):
            keep(cache, topic)
        assert cache.look(HERE, topics(1)[0], POLICY).similarity < 0.99
        keep(cache, "dera lome kuni")
        assert cache.look(HERE, "dera lome kuni", POLICY).similarity > 0.99


def test_what_was_dropped_takes_no_room() -> None:
    with SemanticCache(None, WordEmbedder(), most_entries=100) as cache:
        for topic in topics(90):
            keep(cache, topic)
            cache.gone(cache.look(HERE, topic, POLICY))
        kept = topics(90, start=90)
        for topic in kept:
            keep(cache, topic)
        assert all(cache.look(HERE, topic, POLICY).similarity > 0.99 for topic in kept)


FORKING = """
import os, sys
from pathlib import Path
from tests.cache.semantic.test_cache import HERE, POLICY, keep, opened
with opened(Path(sys.argv[1])) as cache:
    keep(cache, "dera lome kuni")
    parents = cache.store._db
    if os.fork() == 0:
        keep(cache, "bago fila nume")
        assert cache.store._db is not parents
        cache.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    assert cache.look(HERE, "bago fila nume", POLICY).similarity > 0.99
"""


def test_a_forked_child_opens_the_file_for_itself(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    done = subprocess.run([sys.executable, "-c", FORKING, str(tmp_path / "s.db")], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_named_and_leaves_the_cache_usable(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as cache:
        keep(cache, "dera lome kuni")
        pages = cache.store._db.execute("PRAGMA page_count").fetchone()[0]  # pyright: ignore[reportPrivateUsage] # SQLite's own way to a full disk
        cache.store._db.execute(f"PRAGMA max_page_count = {pages}")  # pyright: ignore[reportPrivateUsage] # likewise
        with pytest.raises(StoreUnavailable, match="full"):
            keep(cache, "bago " * 100_000)
        assert cache.look(HERE, "dera lome kuni", POLICY).similarity > 0.99


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_question_is_a_mistake(empty: str) -> None:
    with opened() as cache, pytest.raises(InvalidArgument, match="empty question"):
        cache.look(HERE, empty, POLICY)


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(SchemaMismatch, match="another program"):
        opened(tmp_path / "s.db")


def test_a_later_versions_file_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "s.db").close()
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(SchemaMismatch, match="later version"):
        opened(tmp_path / "s.db")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnavailable, match=r"s\.db.*move the file away"):
        opened(tmp_path / "s.db")


def test_a_fit_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with opened(tmp_path / "s.db") as cache:
        teach(cache)
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("""UPDATE fits SET fit = '{"weights": [1]}'""")
    with opened(tmp_path / "s.db") as cache, pytest.raises(StoreUnavailable, match="damaged"):
        cache.look(HERE, topics(1)[0], POLICY)


@pytest.mark.parametrize("column", ["signs", "vector"])
def test_a_vector_that_was_cut_short_is_named(tmp_path: Path, column: str) -> None:
    with opened(tmp_path / "s.db") as cache:
        keep(cache, "dera lome kuni")
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute(f"UPDATE entries SET {column} = substr({column}, 2)")
    with opened(tmp_path / "s.db") as cache, pytest.raises(StoreUnavailable, match=r"s\.db is damaged"):
        cache.look(HERE, "dera lome kuni", POLICY)
