"""What is kept: questions with their vectors, what came of each trial, and what was learned. One SQLite file."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentbudget.cache.database import Database, Schema
from agentbudget.cache.semantic.around import Outcomes
from agentbudget.cache.semantic.bound import Bound
from agentbudget.cache.semantic.features import NAMES, Record
from agentbudget.cache.semantic.learn import Fit, Trials
from agentbudget.cache.semantic.nearby import signs_of
from agentbudget.errors import StoreUnavailable, UnknownHit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION: Final = 2
APPLICATION_ID: Final = 0x41474253
"""``AGBS``: marks the file as ours, so that a path to another program's database is refused."""

TRIALS: Final = 20_000
"""So many are learned from, the latest: what was true of older questions may have changed."""

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS spaces (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, skill TEXT NOT NULL,
        kept INTEGER NOT NULL DEFAULT 0, verified INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    """CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL, key TEXT NOT NULL,
        right INTEGER NOT NULL DEFAULT 0, wrong INTEGER NOT NULL DEFAULT 0, used_ns INTEGER NOT NULL,
        signs BLOB NOT NULL, question TEXT NOT NULL, vector BLOB NOT NULL, UNIQUE (space, key)
    ) STRICT""",
    """CREATE TABLE IF NOT EXISTS trials (
        id INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL, entry INTEGER NOT NULL, at_ns INTEGER NOT NULL,
        hit INTEGER NOT NULL, same INTEGER, features BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE IF NOT EXISTS fits (
        space INTEGER NOT NULL, wrong REAL NOT NULL, learned_from INTEGER NOT NULL, fit TEXT NOT NULL,
        PRIMARY KEY (space, wrong)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS outcomes (
        id INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL, entry INTEGER NOT NULL, same INTEGER NOT NULL,
        expected REAL NOT NULL, signs BLOB NOT NULL, middle BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX IF NOT EXISTS entries_by_space ON entries (space, id)",
    "CREATE INDEX IF NOT EXISTS trials_by_space ON trials (space, id)",
    "CREATE INDEX IF NOT EXISTS outcomes_by_space ON outcomes (space, id)",
    "CREATE INDEX IF NOT EXISTS outcomes_by_entry ON outcomes (entry)",
)
"""Version 1 had no ``outcomes``. What it had learned stays there, unread: it was learned from other features."""

_SCHEMA: Final = Schema("semantic cache", APPLICATION_ID, VERSION, _TABLES)


@dataclass(frozen=True, slots=True)
class Entry:
    """A question that was paid for: the key its answer stands under, its vector, and how its answer did since."""

    id: int
    key: str
    question: str
    vector: NDArray[np.float32]
    record: Record


class SemanticStore(Database):
    """The file at `path`, made with its folder if it is not there; None: in memory. Threads and processes may share it.

    Raises what `Database` does.
    """

    def __init__(self, path: Path | None = None, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        super().__init__(path, _SCHEMA)

    def _prepare(self, db: sqlite3.Connection) -> None:
        super()._prepare(db)
        db.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten

    def damaged(self, what: str) -> StoreUnavailable:
        """What to raise where a row is not what was written."""
        return StoreUnavailable(
            f"the semantic cache {self.location} is damaged: {what}; move the file away, and a new one is made",
            location=self.location,
        )

    # --- spaces: questions that may answer each other

    def space(self, name: str, *, tenant: str, skill: str) -> int:
        """The id of a space, made if it is new."""
        with self._using() as db:
            found = db.execute("SELECT id FROM spaces WHERE name = ?", (name,)).fetchone()
            if found is None:
                db.execute(
                    "INSERT INTO spaces (name, tenant, skill) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (name, tenant, skill),
                )
                found = db.execute("SELECT id FROM spaces WHERE name = ?", (name,)).fetchone()
            return int(found[0])

    def dropped(self, space: int) -> int:
        """How often entries of a space were dropped: what is held of it in memory is stale when this has grown."""
        with self._using() as db:
            found = db.execute("SELECT dropped FROM spaces WHERE id = ?", (space,)).fetchone()
            return int(found[0]) if found else -1

    def forget(self, *, tenant: str | None = None, skill: str | None = None) -> int:
        """Delete the questions, trials and what was learned of a tenant, of a skill, or of both; how many questions."""
        with self._writing() as db:
            spaces = [
                id_
                for (id_,) in db.execute(
                    "SELECT id FROM spaces WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR skill = ?2)",
                    (tenant, skill),
                )
            ]
            count = 0
            for space in spaces:
                count += db.execute("DELETE FROM entries WHERE space = ?", (space,)).rowcount
                for table in ("trials", "outcomes", "fits"):
                    db.execute(f"DELETE FROM {table} WHERE space = ?", (space,))
                db.execute("UPDATE spaces SET dropped = dropped + 1, kept = 0 WHERE id = ?", (space,))
            return count

    # --- entries

    def signs(self, space: int, after: int) -> list[tuple[int, bytes]]:
        """Ids, later than `after`, and signs of the entries of a space."""
        with self._using() as db:
            return db.execute(
                "SELECT id, signs FROM entries WHERE space = ? AND id > ? ORDER BY id", (space, after)
            ).fetchall()

    def entries(self, ids: Sequence[int]) -> list[Entry]:
        """Those of these entries that are still there."""
        marks = ",".join("?" * len(ids))
        with self._using() as db:
            rows = db.execute(
                f"SELECT id, key, question, vector, right, wrong FROM entries WHERE id IN ({marks})", ids
            ).fetchall()
        return [_entry(*row) for row in rows]

    def drop(self, ids: Iterable[int]) -> None:
        """Delete entries whose answers are gone, and where their questions lay. What was learned from them stays."""
        with self._writing() as db:
            for id_ in ids:
                db.execute(
                    "UPDATE spaces SET dropped = dropped + 1, kept = kept - 1 "
                    "WHERE id = (SELECT space FROM entries WHERE id = ?)",
                    (id_,),
                )
                db.execute("DELETE FROM entries WHERE id = ?", (id_,))
                db.execute("DELETE FROM outcomes WHERE entry = ?", (id_,))

    def sweep(self, kept: Callable[[Sequence[str]], Container[str]]) -> int:
        """Delete the questions whose answers are gone; how many. ``kept`` says which of some keys still have one."""
        count, last = 0, 0
        while True:
            with self._using() as db:
                rows: list[tuple[int, str]] = db.execute(
                    "SELECT id, key FROM entries WHERE id > ? ORDER BY id LIMIT ?", (last, _EVICTED)
                ).fetchall()
            if not rows:
                return count
            there = kept([key for _, key in rows])
            gone = [id_ for id_, key in rows if key not in there]
            self.drop(gone)
            count, last = count + len(gone), rows[-1][0]

    def add(self, space: int, *, key: str, question: str, vector: NDArray[np.float32], signs: bytes, most: int) -> None:
        """Keep a question whose answer stands under `key`. Beyond `most`, those go that were not used for longest."""
        import numpy as np

        with self._writing() as db:
            made = db.execute(
                "INSERT INTO entries (space, key, used_ns, signs, question, vector) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                (space, key, self._clock_ns(), signs, question, vector.astype(np.float16).tobytes()),
            )
            if made.rowcount:
                (kept,) = db.execute(
                    "UPDATE spaces SET kept = kept + 1 WHERE id = ? RETURNING kept", (space,)
                ).fetchone()
                if kept > most:
                    self._evict(db, space, kept - most + min(_EVICTED, most // 2))

    def _evict(self, db: sqlite3.Connection, space: int, count: int) -> None:
        gone = db.execute(
            "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE space = ? ORDER BY used_ns, id LIMIT ?)",
            (space, count),
        ).rowcount
        db.execute("UPDATE spaces SET dropped = dropped + 1, kept = kept - ? WHERE id = ?", (gone, space))

    # --- trials: what was decided, and what came of it

    def reused(self, space: int, entry: int, features: Sequence[float]) -> int:
        """Note that an answer was reused; the trial's id, by which it may be found wrong later."""
        with self._writing() as db:
            db.execute("UPDATE entries SET used_ns = ? WHERE id = ?", (self._clock_ns(), entry))
            return self._try(db, space, entry, features, hit=True, same=None)

    def compared(
        self,
        space: int,
        entry: int,
        features: Sequence[float],
        *,
        same: bool,
        middle: NDArray[np.float32],
        expected: float,
    ) -> int:
        """Note that an answer was compared with one that was bought; how many of the space ever were.

        ``middle`` is where the pair of questions lies, ``expected`` with what chance the answer was thought right.
        """
        with self._writing() as db:
            self._try(db, space, entry, features, hit=False, same=same)
            _keep_outcome(db, space, entry, same=same, middle=middle, expected=expected)
            column = "right" if same else "wrong"
            db.execute(
                f"UPDATE entries SET {column} = {column} + 1, used_ns = ? WHERE id = ?", (self._clock_ns(), entry)
            )
            (count,) = db.execute(
                "UPDATE spaces SET verified = verified + 1 WHERE id = ? RETURNING verified", (space,)
            ).fetchone()
            return int(count)

    def outcome_signs(self, space: int, after: int) -> list[tuple[int, bytes]]:
        """Ids, later than `after`, and signs of where the verified pairs of a space lie."""
        with self._using() as db:
            return db.execute(
                "SELECT id, signs FROM outcomes WHERE space = ? AND id > ? ORDER BY id", (space, after)
            ).fetchall()

    def outcomes(self, ids: Sequence[int]) -> Outcomes:
        """Those of these outcomes that are still there."""
        import numpy as np

        marks = ",".join("?" * len(ids))
        with self._using() as db:
            rows = db.execute(f"SELECT middle, same, expected FROM outcomes WHERE id IN ({marks})", ids).fetchall()
        middles = np.frombuffer(b"".join(row[0] for row in rows), np.float16).astype(np.float32)
        return Outcomes(
            middles.reshape(len(rows), len(middles) // max(len(rows), 1)),
            np.array([bool(row[1]) for row in rows], np.bool_),
            np.array([row[2] for row in rows], np.float64),
        )

    def _try(
        self,
        db: sqlite3.Connection,
        space: int,
        entry: int,
        features: Sequence[float],
        *,
        hit: bool,
        same: bool | None,
    ) -> int:
        import numpy as np

        made = db.execute(
            "INSERT INTO trials (space, entry, at_ns, hit, same, features) VALUES (?, ?, ?, ?, ?, ?)",
            (space, entry, self._clock_ns(), hit, same, np.asarray(features, np.float32).tobytes()),
        )
        assert made.lastrowid is not None
        return made.lastrowid

    def found_wrong(self, trial: int) -> bool:
        """Note that a reused answer was wrong; False if there is no such trial. A second time changes nothing."""
        with self._writing() as db:
            found = db.execute("SELECT space, entry, same FROM trials WHERE id = ? AND hit", (trial,)).fetchone()
            if found is None:
                return False
            space, entry, same = found
            if same is None:
                db.execute("UPDATE trials SET same = 0 WHERE id = ?", (trial,))
                # Whoever says so has seen it: it weighs more than what speaks for the entry.
                db.execute("UPDATE entries SET wrong = max(wrong, right) + 1 WHERE id = ?", (entry,))
                db.execute("UPDATE fits SET learned_from = 0 WHERE space = ?", (space,))
                for (vector,) in db.execute("SELECT vector FROM entries WHERE id = ?", (entry,)).fetchall():
                    # What was asked is not known any more: it lay near the question that was taken for the same.
                    _keep_outcome(db, space, entry, same=False, middle=_vector(vector), expected=1.0)
            return True

    def trials(self, space: int) -> Trials:
        """The latest trials of a space; older ones are deleted."""
        import numpy as np

        with self._writing() as db:
            rows = db.execute(
                "SELECT id, features, entry, same, hit FROM trials WHERE space = ? ORDER BY id DESC LIMIT ?",
                (space, TRIALS),
            ).fetchall()
            if len(rows) == TRIALS:
                db.execute("DELETE FROM trials WHERE space = ? AND id < ?", (space, rows[-1][0]))
                db.execute(_DROP_OLD_OUTCOMES, (space, TRIALS))
        rows.reverse()
        width = 4 * len(NAMES)
        if any(len(row[1]) != width for row in rows):
            raise self.damaged(f"a trial has other features than {len(NAMES)} numbers")
        return Trials(
            np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(-1, len(NAMES)).astype(np.float64),
            np.array([row[2] for row in rows], np.int64),
            np.array([row[3] is not None for row in rows], np.bool_),
            np.array([bool(row[3]) for row in rows], np.bool_),
            np.array([bool(row[4]) for row in rows], np.bool_),
        )

    # --- what was learned

    def fit(self, space: int, wrong: float) -> Fit:
        """What was learned of a space for this bound; what is believed before anything was, if nothing was."""
        with self._using() as db:
            found = db.execute(
                "SELECT fit, learned_from FROM fits WHERE space = ? AND wrong = ?", (space, wrong)
            ).fetchone()
        return Fit() if found is None else self._read_fit(*found)

    def _read_fit(self, text: str, learned_from: int) -> Fit:
        try:
            data: dict[str, Any] = json.loads(text)
            weights = tuple(float(weight) for weight in data["weights"])
            if len(weights) != len(NAMES):
                raise ValueError(f"{len(weights)} weights for {len(NAMES)} features")
            return Fit(weights, Bound(**data["bound"]), learned_from)
        except (ValueError, KeyError, TypeError) as error:
            raise self.damaged(f"what was learned cannot be read ({error})") from error

    def keep_fit(self, space: int, wrong: float, fit: Fit) -> None:
        """Keep what was learned, unless another process has learned from more."""
        bound = fit.bound
        told = {"threshold": bound.threshold, "wrong": bound.wrong, "risk": bound.risk, "verified": bound.verified}
        with self._writing() as db:
            db.execute(
                "INSERT INTO fits (space, wrong, learned_from, fit) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE "
                "SET learned_from = ?3, fit = ?4 WHERE learned_from <= ?3",
                (space, wrong, fit.learned_from, json.dumps({"weights": fit.weights, "bound": told})),
            )


_DROP_OLD_OUTCOMES: Final = """DELETE FROM outcomes WHERE space = ?1 AND id <=
    (SELECT id FROM outcomes WHERE space = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)"""

_EVICTED: Final = 256
"""So many more go at once, so that the next few need not look."""


def unknown_hit(hit: int) -> UnknownHit:
    """What is wrong where `SemanticStore.found_wrong` knows of no such trial."""
    return UnknownHit(
        f"no semantic hit {hit!r} is known: take the number from the statement's line of the hit", hit=hit
    )


def _keep_outcome(
    db: sqlite3.Connection, space: int, entry: int, *, same: bool, middle: NDArray[np.float32], expected: float
) -> None:
    import numpy as np

    db.execute(
        "INSERT INTO outcomes (space, entry, same, expected, signs, middle) VALUES (?, ?, ?, ?, ?, ?)",
        (space, entry, same, expected, signs_of(middle), middle.astype(np.float16).tobytes()),
    )


def _entry(id_: int, key: str, question: str, vector: bytes, right: int, wrong: int) -> Entry:
    return Entry(id_, key, question, _vector(vector), Record(right, wrong))


def _vector(kept: bytes) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(kept, np.float16).astype(np.float32)
