"""kill -9 at random moments: what was acknowledged stays, nothing is paid twice, what is not known is presumed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ledger.kills import kill

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.mark.parametrize("location", ["sqlite", "postgresql"], indirect=True)
def test_thirty_kills_lose_nothing_and_pay_nothing_twice(location: str, tmp_path: Path) -> None:
    kill("work", location, tmp_path, kills=30, seed=1)


def test_a_ledger_that_was_not_made_whole_is_made_by_the_next_and_many_make_one(tmp_path: Path) -> None:
    kill("births", "", tmp_path, kills=30, seed=1)
