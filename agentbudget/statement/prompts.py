"""What the prompts of a run were made of: the breakdowns of its calls, together and by line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from agentbudget.history import Breakdown, total
from agentbudget.ledger import HoldRecord
from agentbudget.statement.fold import is_call, is_step, mapping


def prompts_of(records: Sequence[HoldRecord]) -> dict[str, Breakdown]:
    """Line id → what its own calls were made of, those of steps within it left out; lines without calls are not there.

    Calls of a version that did not keep this, and those that failed, are not in it.
    """
    by_id = {record.id: record for record in records}
    found: dict[str, list[Breakdown]] = defaultdict(list)
    for record in records:
        told = mapping(record.detail, "made_of")
        if is_call(record) and told:
            found[_line(record, by_id)].append(Breakdown.from_dict(told))
    return {line: total(breakdowns) for line, breakdowns in found.items()}


def _line(record: HoldRecord, by_id: Mapping[str, HoldRecord]) -> str:
    """The step that a call belongs to, or the call itself where it stands alone."""
    while not is_step(record) and record.parent is not None and record.parent in by_id:
        record = by_id[record.parent]
    return record.id
