"""Rows of the table of holds, as whoever brings it up to the journal writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentbudget.ledger.records import NOTHING, HoldRecord
from agentbudget.ledger.sql import HOLD_FIELDS, Row

PLAIN_FIELDS: Final = (
    *("number", "id", "usd", "tokens", "calls", "state", "sent", "owner", "tag"),
    *("settled_usd", "settled_tokens", "settled_calls", "presumed", "closed"),
)
"""What is to be said of a hold on accounts within which nothing was held: most are, and it is two thirds of a row."""


def _put(fields: Sequence[str]) -> str:
    """Writes a row of these columns; of one that is there, all others become what they are in a new one."""
    return (
        f"INSERT INTO holds ({', '.join(fields)}) VALUES ({','.join('?' * len(fields))}) "
        "ON CONFLICT (number) DO UPDATE SET " + ", ".join(f"{c} = excluded.{c}" for c in HOLD_FIELDS[3:])
    )


PUT_WHOLE: Final = _put(HOLD_FIELDS)
PUT_PLAIN: Final = _put(PLAIN_FIELDS)


def is_plain(hold: HoldRecord) -> bool:
    """Whether `plain_row` says all of it."""
    return hold[2] is None and not hold[13] and hold[11] == hold[12] == NOTHING


def plain_row(hold: HoldRecord) -> Row:
    """A hold in the order of `PLAIN_FIELDS`."""
    number, hold_id, _, _, amount, state, sent, owner, tag, _, _, _, _, _, settled, presumed, end, _, _ = hold
    settled = settled or (None, None, None)
    return (number, hold_id, *amount, state, int(sent), owner, tag or None, *settled, int(presumed), end)


def whole_row(hold: HoldRecord) -> Row:
    """A hold in the order of `HOLD_FIELDS`."""
    # fmt: off
    (number, hold_id, parent, _, (usd, tokens, calls), state, sent, owner, tag, _, _, (r_usd, r_tokens, r_calls),
     (s_usd, s_tokens, s_calls), children, settled, presumed, end, _, _) = hold
    usd_settled, tokens_settled, calls_settled = settled or (None, None, None)
    return (
        number, hold_id, parent, usd, tokens, calls, state, int(sent), owner, tag or None,
        r_usd, r_tokens, r_calls, s_usd, s_tokens, s_calls, children,
        usd_settled, tokens_settled, calls_settled, int(presumed), end,
    )
    # fmt: on
