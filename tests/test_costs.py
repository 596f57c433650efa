"""Outlook and break-even: by hand, and as laws."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Final, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget import costs
from agentbudget.cache import Answers
from agentbudget.costs import Machine, Workload
from agentbudget.errors import InvalidAmount
from agentbudget.ledger import Ledger
from agentbudget.models.ladder import Ladder
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice, TokenPrice
from agentbudget.skills import skill
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ManualClock, ScriptedModel, ScriptedReply
from agentbudget.usage import Usage

API: Final = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="5", cached_usd_per_mtok="0.1")
CALL: Final = Usage(2000, 200)
GPU: Final = Machine(
    Decimal("2.50"), Fraction(20_000), Fraction(2500), Decimal(700), Decimal("0.30"), utilisation=Fraction(1, 2)
)

machines = st.builds(
    Machine,
    st.decimals("0.01", "100", places=2),
    st.fractions(1, 100_000),
    st.fractions(1, 100_000),
    st.decimals("0", "2000", places=0),
    st.decimals("0", "1", places=2),
    st.fractions(Fraction(1, 100), 1),
)


def test_a_month_of_a_machine_is_its_hours_and_its_calls_their_energy() -> None:
    assert GPU.month_usd_nano == 1800 * 10**9  # 720 h × 2.50
    assert GPU.seconds(CALL) == Fraction(18, 100)  # 2000 / 20 000 + 200 / 2500
    assert GPU.energy_usd_nano(CALL) == 10_500  # 0.7 kW × 0.18 s / 3600 × 0.30
    assert GPU.calls_a_month(CALL) == 7_200_000  # 720 h × 3600 s × 50 % / 0.18 s


def test_an_api_and_a_machine_meet_where_their_months_cost_the_same() -> None:
    found = costs.break_even(API, GPU, CALL)
    assert found.api_call_usd_nano == 3_000_000
    assert found.calls == 602_108  # 1800 / (0.003 − 0.0000105), rounded up
    assert (found.capacity, found.full_call_usd_nano) == (7_200_000, 260_500)
    (meeting,) = (v for v in found.volumes if v.calls == found.calls)
    assert meeting.machines == 1
    assert 0 <= meeting.api_usd_nano - meeting.own_usd_nano < found.api_call_usd_nano


def test_a_machine_that_is_dearer_in_full_use_never_pays() -> None:
    cheap = TokenPrice.custom(input_usd_per_mtok="0.05", output_usd_per_mtok="0.40")
    found = costs.break_even(cheap, GPU, CALL)
    assert found.calls is None
    assert found.full_call_usd_nano > found.api_call_usd_nano
    assert all(v.own_usd_nano > v.api_usd_nano for v in found.volumes)


def test_more_calls_than_one_machine_computes_take_more_machines() -> None:
    slow = Machine(Decimal(1), Fraction(1000), Fraction(100))
    found = costs.break_even(API, slow, CALL)
    assert found.capacity == 648_000
    assert found.calls == 240_000
    last = found.volumes[-1]
    assert (last.calls, last.machines) == (2_400_000, 4)
    assert last.own_usd_nano == 4 * 720 * 10**9


def test_what_is_cached_is_not_computed_by_the_machine_and_cheaper_at_the_api() -> None:
    cached = Usage(2000, 200, cached_tokens=1500)
    assert GPU.seconds(cached) == Fraction(500, 20_000) + Fraction(200, 2500)
    assert costs.break_even(API, GPU, cached).api_call_usd_nano == 500_000 + 150_000 + 1_000_000


@given(machine=machines, read=st.integers(0, 100_000), written=st.integers(1, 10_000))
def test_below_the_break_even_the_api_is_cheaper_and_from_there_on_the_machine(
    machine: Machine, read: int, written: int
) -> None:
    usage = Usage(read, written)
    if machine.calls_a_month(usage) == 0:
        with pytest.raises(InvalidAmount, match="cannot compute one"):
            costs.break_even(API, machine, usage)
        return
    found = costs.break_even(API, machine, usage)
    own = machine.month_usd_nano / found.capacity + machine.energy_usd_nano(usage)
    assert (found.calls is None) == (own > found.api_call_usd_nano)
    if found.calls is not None:
        for calls, cheaper in ((found.calls, True), (found.calls - 1, False)):
            own = machine.month_usd_nano + calls * machine.energy_usd_nano(usage)
            assert (own <= calls * found.api_call_usd_nano) == cheaper


@given(speed=st.integers(1, 600), usd=st.integers(1, 8))
def test_from_always_on_own_machines_cost_no_more_however_many_it_takes(speed: int, usd: int) -> None:
    machine, usage = Machine(Decimal(usd), Fraction(speed), Fraction(speed)), Usage(0, 30_000)
    found = costs.break_even(API, machine, usage)

    def pays(calls: int) -> bool:
        return ceil(Fraction(calls, found.capacity)) * machine.month_usd_nano <= calls * found.api_call_usd_nano

    if found.always is None:
        assert found.calls in (None, found.capacity)
        return
    first_of_each = (machines * found.capacity + 1 for machines in range(100))
    assert all(pays(calls) for calls in (found.always, *first_of_each) if calls >= found.always)
    assert found.always == found.calls or not pays(found.always - 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefill_tokens_per_s": Fraction(0)},
        {"decode_tokens_per_s": Fraction(-1)},
        {"utilisation": Fraction(0)},
        {"utilisation": Fraction(3, 2)},
        {"usd_per_hour": Decimal(-1)},
        {"watts": Decimal(-1)},
    ],
)
def test_a_machine_that_cannot_be_is_refused(wrong: dict[str, Fraction | Decimal]) -> None:
    given = {"usd_per_hour": Decimal(1), "prefill_tokens_per_s": Fraction(1), "decode_tokens_per_s": Fraction(1)}
    with pytest.raises(InvalidAmount, match=next(iter(wrong))):
        Machine(**(given | wrong))  # pyright: ignore[reportArgumentType] # the types are right, one by one


def test_a_call_of_no_tokens_has_no_break_even() -> None:
    with pytest.raises(InvalidAmount, match="needs tokens"):
        costs.break_even(API, GPU, Usage())


# --- outlook


def test_an_outlook_is_the_mean_of_what_each_call_would_be_booked_at() -> None:
    work = Workload("triage", (Usage(1000, 10), Usage(3000, 30, cached_tokens=1000)), Fraction(100))
    found = costs.outlook("x:api", API, work)
    one, other = 1_050_000, 2_000_000 + 100_000 + 150_000
    assert found.call_usd_nano == ceil(Fraction(one + other, 2))
    assert found.month_usd_nano == 50 * (one + other)
    assert work.mean_tokens == (2000, 500, 20)


def test_a_local_model_is_paid_by_the_seconds_of_what_is_new() -> None:
    price = ComputePrice(Decimal("3.6"), 100, 10)
    work = Workload("a call", (Usage(1000, 20, cached_tokens=900),))
    found = costs.outlook("llamacpp:x", price, work)
    assert found.call_usd_nano == 3 * 10**6  # 100 / 100 s + 20 / 10 s at 0.001 USD/s
    assert found.month_usd_nano is None


@skill(max_output_tokens=8)
async def triage(ctx: Context, message: str) -> Literal["billing", "bug"]:
    """Say which team should handle this message."""
    ...


async def test_the_calls_of_a_skill_and_how_many_a_month_come_from_the_ledger() -> None:
    clock = ManualClock()
    with Ledger.open("memory:", clock=clock) as ledger:
        ledger.account("run/r", limit=Budget(usd="1"))
        used = [Usage(100 * n, 2) for n in (1, 2, 3)]
        model = ScriptedModel([ScriptedReply('"bug"', usage=usage) for usage in used])
        machine = ComputePrice(Decimal("0.10"), 100, 10)
        ctx = Context(Engine(ledger, Ladder((model,)), Answers(), machine), Scope("r"))
        for n in (1, 2, 3, 1):  # the last one was paid for before
            await triage(ctx, message=f"message {n}")
            clock.advance(86_400)
        (found,) = costs.skills(ledger.holds())
    assert (found.name, found.usages) == ("triage", tuple(used))
    assert found.calls_a_month == 3 * 30 / Fraction(2)


async def test_calls_of_less_than_a_day_do_not_make_a_month() -> None:
    with Ledger.open("memory:") as ledger:
        ledger.account("run/r", limit=Budget(usd="1"))
        ctx = Context(
            Engine(ledger, Ladder((ScriptedModel(['"bug"']),)), Answers(), ComputePrice(Decimal(1), 1, 1)), Scope("r")
        )
        await triage(ctx, message="x")
        (found,) = costs.skills(ledger.holds())
    assert found.calls_a_month is None
