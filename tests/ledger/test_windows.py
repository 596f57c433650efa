"""Periods of windows, against what a calendar says: each moment is in one, and they follow each other without a gap."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo, available_timezones

import pytest

from agentbudget.ledger import Window
from tests.ledger.model import first_place, place

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # has midnight twice
    "Africa/Cairo",  # leaves midnight out
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Pacific/Auckland",
    "Pacific/Kiritimati",
)
WINDOWS = [f"{kind}@{zone}" for kind in ("hour", "day", "month") for zone in ZONES] + [
    "day@Australia/Lord_Howe",  # moves its clocks by half an hour
    "month@Australia/Lord_Howe",
    "1s",
    "90s",
    "86400s",
]
NS = 10**9


def moments(zone: str) -> list[int]:
    """Some of a year, many of them near a change of its clocks or of its date."""
    random, begin = Random(zone), datetime(2026, 1, 1, tzinfo=UTC)
    edges: list[datetime] = []
    for hours in range(366 * 24):
        at, after = (begin + timedelta(hours=h) for h in (hours, hours + 1))
        here, there = at.astimezone(ZoneInfo(zone)), after.astimezone(ZoneInfo(zone))
        if here.utcoffset() != there.utcoffset():
            edges += [at] * 40
        elif here.date() != there.date():
            edges.append(at)
    return sorted(
        int(edge.timestamp()) * NS + random.choice((0, -1, 1, random.randrange(-5000 * NS, 5000 * NS)))
        for edge in edges
    )


@pytest.mark.parametrize("text", WINDOWS)
def test_a_period_is_what_the_calendar_calls_one(text: str) -> None:
    window = Window.parse(text)
    assert window.text == text
    found = moments(window.zone)
    for before, after in pairwise(found):
        assert (window.start(before) == window.start(after)) == (place(text, before) == place(text, after))
        assert (window.start(before) < window.since(after)) == (place(text, before) < first_place(text, after))
    for at in found:
        start = window.start(at)
        assert start <= at
        assert window.start(start) == start
        assert window.start(start - 1) < start
        ends = window.ends(start)
        assert ends > at
        assert window.since(ends) > start
        assert window.since(ends - 1) == start


def test_no_zone_has_begun_an_hour_within_a_half_minute_since_1970() -> None:
    odd = {
        (zone, year)
        for zone in available_timezones()
        for year in range(1970, 2040)
        for month in (1, 7)
        if (ZoneInfo(zone).utcoffset(datetime(year, month, 1)) or timedelta()) % timedelta(seconds=30)
    }
    assert odd == set()
