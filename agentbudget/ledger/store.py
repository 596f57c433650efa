"""The seam between the ledger's rules and where its rows are kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, Protocol

from agentbudget.errors import InvalidArgument
from agentbudget.ledger.records import NOTHING, Account, Detail, Entry, EntryKind, HoldRecord, Units
from agentbudget.ledger.tally import NEVER

GENESIS: Final = bytes(16)
"""The hash before the first entry."""


class Transaction(Protocol):
    """Rows as one writer sees them: nobody else writes between its first read and its end.

    If the block raises, nothing of it remains. A transaction belongs to the thread that began it.
    """

    def now_ns(self) -> int:
        """The store's clock: the same for every process that writes to it, where the store has one."""
        ...

    def account(self, name: str) -> Account | None: ...

    def accounts(self, *, prefix: str = "") -> list[Account]:
        """Accounts whose name starts with `prefix`, by name."""
        ...

    def put_account(self, account: Account) -> None: ...

    def put_balances(self, accounts: Sequence[Account]) -> None:
        """Keep what accounts that are there have posted and held; nothing else of them changed."""
        ...

    def used(self, account: str, window: str, since_ns: int) -> Units:
        """What is held and posted by holds that were reserved in periods of `window` from `since_ns` on."""
        ...

    def oldest(self, account: str, window: str, since_ns: int) -> int | None:
        """The first period from `since_ns` on in which anything is held or posted; None if there is none."""
        ...

    def most(self, account: str, window: str, start_ns: int, length_ns: int) -> Units:
        """The most, in each unit, that is held and posted in any time of this length that the period from `start_ns`
        on is in."""
        ...

    def period(self, account: str, window: str, since_ns: int, until_ns: int = NEVER) -> list[tuple[int, Units, Units]]:
        """The periods from `since_ns` on that begin before `until_ns`: (start, held, posted), in order."""
        ...

    def shift(self, account: str, window: str, start_ns: int, held: Units, posted: Units) -> None:
        """Add to what is held and posted in one period of a window."""
        ...

    def forget_periods(self, account: str, window: str) -> None:
        """Drop the periods of a window."""
        ...

    def hold(self, hold_id: str) -> HoldRecord | None: ...

    def add_hold(self, hold: HoldRecord) -> bool:
        """Keep a new hold; False, and nothing changed, if its id is taken. Its entry follows in this transaction."""
        ...

    def put_hold(self, hold: HoldRecord) -> None:
        """Keep what changed of a hold that is there."""
        ...

    def holds_within(self, parent: str) -> list[HoldRecord]:
        """Direct children of a hold, in order of creation."""
        ...

    def holds(self, *, prefix: str = "", state: str | None = None) -> list[HoldRecord]:
        """Holds whose id starts with `prefix`, in order of creation."""
        ...

    def history(self, tag: str, limit: int) -> list[HoldRecord]:
        """The last `limit` settled holds of this tag, newest first; presumed ones are left out."""
        ...

    def mark(self, name: str) -> int | None:
        """The number of the entry that was written under this id, or None."""
        ...

    def put_mark(self, name: str, seq: int) -> None: ...

    def lease(self, owner: str) -> int | None:
        """Until when (ns) this owner said that it lives."""
        ...

    def put_lease(self, owner: str, until_ns: int) -> None: ...

    def next_seq(self) -> int:
        """The number that the next entry gets."""
        ...

    def append(
        self,
        kind: EntryKind,
        subject: str,
        *,
        at_ns: int,
        targets: tuple[str, ...],
        held: Units,
        posted: Units,
        detail: Detail,
    ) -> int:
        """Write the next entry; returns its number. Raises `InvalidArgument` if `detail` is not JSON."""
        ...

    def entry(self, seq: int) -> Entry | None: ...

    def entries(self, *, after: int = 0) -> Iterator[Entry]: ...


def note(tx: Transaction, kind: EntryKind, subject: str, detail: Detail, *, at_ns: int) -> int:
    """Write an entry that changes no balance."""
    return tx.append(kind, subject, at_ns=at_ns, targets=(), held=NOTHING, posted=NOTHING, detail=detail)


class Store(Protocol):
    """Where rows are kept."""

    @property
    def interruptible(self) -> bool:
        """Whether it may give up a transaction (`StoreInterrupted`) that would pass if it were run again."""
        ...

    @property
    def location(self) -> str:
        """For messages: the path or address."""
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """An exclusive transaction; commits when the block ends, rolls back when it raises."""
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """A consistent view for reading."""
        ...

    def glance(self, account: str) -> Account | None:
        """The account as this process last knew it; None where that takes a look at the store."""
        ...

    def close(self) -> None: ...


LONGEST: Final = 512
"""The longest id or name, in characters."""
_ODD: Final = re.compile("[\ud800-\udfff\U0010ffff]")

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode
"""It looks for no circles: nothing is as deep that was checked (`check_detail`)."""


def canonical(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys, all of them text, and no spaces: the form that is hashed and stored.

    Raises `InvalidArgument` for what is no JSON.
    """
    if not value:
        return "{}"
    try:
        text = _encode(value if isinstance(value, dict) else dict(value))
        if not text.isascii():
            text.encode()  # a lone surrogate is text to Python alone
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            f"what goes with a hold must be JSON (text, finite numbers, lists): {error}", argument="detail", value=value
        ) from None
    return text


def check_text(argument: str, text: object, *, least: int = 1, most: int = LONGEST) -> None:
    """Raise `InvalidArgument` unless every store can keep `text`, compare it and list it: without NUL, lone surrogates
    and U+10FFFF, and no longer than an index takes."""
    if type(text) is str and text.isascii() and least <= len(text) <= most and "\0" not in text:
        return
    if not isinstance(text, str):
        raise InvalidArgument(f"{argument} is text, not {text!r}", argument=argument, value=text)
    if not least <= len(text) <= most:
        raise InvalidArgument(
            f"{argument} has {len(text)} characters; give it {least} to {most}", argument=argument, value=text
        )
    if "\0" in text or _ODD.search(text) is not None:
        raise InvalidArgument(
            f"{argument} {text!r} has a NUL, a lone surrogate or U+10FFFF in it, which no store keeps",
            argument=argument,
            value=text,
        )


@lru_cache(maxsize=4096)
def targets_text(targets: tuple[str, ...]) -> str:
    """The targets of an entry as they are hashed and stored."""
    return _encode(targets)


def chain_hash(
    before: bytes,
    seq: int,
    at_ns: int,
    kind: str,
    subject: str,
    targets: str,
    held: Units,
    posted: Units,
    detail: str,
) -> bytes:
    """The hash of an entry: BLAKE2b-128 over the hash of the entry before and every column of this one.

    The text that is hashed has its columns apart by ``|``: sequence, time, kind, subject, targets, held, posted
    (each: nano-dollars, tokens, calls, apart by ``,``), detail; lists and detail as canonical JSON.
    """
    h0, h1, h2 = held
    p0, p1, p2 = posted
    line = f"{seq}|{at_ns}|{kind}|{subject}|{targets}|{h0},{h1},{h2}|{p0},{p1},{p2}|{detail}"
    return blake2b(before + line.encode(), digest_size=16).digest()
