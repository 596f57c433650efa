"""Exact answers: the same question to the same model, asked again, costs nothing."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from agentbudget.errors import SchemaMismatch, StoreUnavailable
from agentbudget.models.base import Completion, Message, Model, Request, ToolCall
from agentbudget.usage import Usage

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x41474243


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer, what it cost when it was bought, in nano-dollars, and the key that it stood under."""

    completion: Completion
    cost_usd_nano: int
    key: str = ""


def answer_key(request: Request, model: Model, *, tenant: str, skill_version: str = "") -> str:
    """Everything that changes an answer, hashed: model and weights, messages, schema, sampling, tenant.

    The output cap is left out: an answer that ended by itself is the same under any cap that it fits.
    """
    parts: dict[str, object] = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "messages": [_told(message) for message in request.messages],
        "schema": request.schema,
        "temperature": request.temperature,
        "seed": request.seed,
        "stop": request.stop,
        "tenant": tenant,
        "skill": skill_version,
    }
    if request.tools:
        parts["tools"] = [
            request.tool_choice,
            *([tool.name, tool.description, tool.parameters] for tool in request.tools),
        ]
    if request.reasoning_tokens is not None:
        parts["reasoning"] = request.reasoning_tokens
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=20).hexdigest()


class Answers:
    """Answers in one SQLite file (or in memory), shared by the threads and processes that open it."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", timeout=10, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._create()
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"cannot open the answer cache {path}: {error}", location=str(path)) from error

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            self._db.execute("ROLLBACK")
            raise SchemaMismatch(
                f"{self._path} is another program's database; name another path for the cache", location=str(self._path)
            )
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL, "
            "cost_usd_nano INTEGER NOT NULL, created_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID"
        )
        self._db.execute("COMMIT")

    def get(self, key: str, *, max_output_tokens: int) -> CachedAnswer | None:
        """The answer under `key`, if the model would give the same under this cap.

        An answer that ended by itself fits any cap that is not below its length; one that a cap cut, only that cap.
        """
        return self.first((key,), max_output_tokens=max_output_tokens)

    def first(self, keys: Sequence[str], *, max_output_tokens: int) -> CachedAnswer | None:
        """The answer under the first of `keys` that has one which fits; see `get`."""
        marks = ", ".join("?" * len(keys))
        found = self._execute(f"SELECT key, answer, cost_usd_nano FROM answers WHERE key IN ({marks})", keys)
        rows = {key: (answer, cost) for key, answer, cost in found}
        for key in keys:
            if key in rows:
                completion = self._read(key, rows[key][0])
                if _is_same(completion, max_output_tokens):
                    return CachedAnswer(completion, rows[key][1], key)
        return None

    def put(self, key: str, completion: Completion, *, cost_usd_nano: int) -> None:
        """Keep an answer, in place of what stood under its key."""
        self.put_under((key,), completion, cost_usd_nano=cost_usd_nano)

    def put_under(self, keys: Sequence[str], completion: Completion, *, cost_usd_nano: int) -> None:
        """Keep an answer under several keys at once."""
        row = (_encode(completion), cost_usd_nano, time.time_ns())
        marks = ", ".join(["(?, ?, ?, ?)"] * len(keys))
        self._execute(
            f"INSERT OR REPLACE INTO answers (key, answer, cost_usd_nano, created_ns) VALUES {marks}",
            [value for key in keys for value in (key, *row)],
        )

    def _read(self, key: str, text: str) -> Completion:
        try:
            return _decode(text)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"the answer {key} in the cache {self._path} cannot be read: {error}", location=str(self._path)
            ) from error

    def _execute(self, sql: str, values: Sequence[object]) -> list[tuple[str, str, int]]:
        with self._lock:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise StoreUnavailable(
                    f"the answer cache {self._path} failed: {error}", location=str(self._path)
                ) from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_same(completion: Completion, max_output_tokens: int) -> bool:
    """Whether the model would give this answer under such a cap."""
    tokens, whole = completion.usage.output_tokens, completion.finish in ("stop", "tools")
    return tokens <= max_output_tokens if whole else tokens == max_output_tokens


def _told(message: Message) -> list[object]:
    """A message as it counts in a key: texts as they were before there was anything else, so that old answers stay."""
    told: list[object] = [message.role, message.text]
    if message.images:
        told.append([[hashlib.blake2b(i.data).hexdigest(), i.media_type, i.detail] for i in message.images])
    if message.calls or message.answers is not None:
        told.append([message.answers, [[call.id, call.name, call.arguments] for call in message.calls]])
    return told


def _encode(completion: Completion) -> str:
    return json.dumps(
        {
            "text": completion.text,
            "finish": completion.finish,
            "usage": completion.usage.to_dict(),
            "served_by": completion.served_by,
            "confidence": completion.confidence,
            "calls": [[call.id, call.name, call.arguments] for call in completion.calls],
        }
    )


def _decode(text: str) -> Completion:
    data = json.loads(text)
    return Completion(
        text=data["text"],
        finish=data["finish"],
        usage=Usage.from_dict(data["usage"]),
        served_by=data["served_by"],
        confidence=data["confidence"],
        calls=tuple(ToolCall(*call) for call in data.get("calls", ())),
    )
