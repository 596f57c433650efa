"""A decorated function: every call is reserved, sent and settled, whatever comes of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, assert_type

import pytest

from agentbudget.errors import (
    BudgetExceeded,
    HoldClosed,
    HoldConflict,
    InvalidAmount,
    InvalidArgument,
    UnknownAccount,
)
from agentbudget.ledger import Hold, HoldRecord, Ledger
from agentbudget.money import ZERO, Amount, Budget

PRICE = Amount(100, 10, 1)


@pytest.fixture(autouse=True)
def _purse(ledger: Ledger) -> None:  # pyright: ignore[reportUnusedFunction]
    ledger.account("user/42", limit=Budget(tokens=100))


def length(text: str) -> Amount:
    return Amount(len(text), len(text), 1)


def only_hold(ledger: Ledger) -> HoldRecord:
    (hold,) = ledger.holds()
    return hold


def test_a_call_is_settled_at_what_its_result_cost(ledger: Ledger) -> None:
    @ledger.charged(PRICE, accounts=["user/42"], cost=length)
    def ask(question: str, *, loud: bool = False) -> str:
        """Ask."""
        assert only_hold(ledger).sent
        return question.upper() if loud else question

    assert_type(ask("why?", loud=True), str)
    hold = only_hold(ledger)
    assert (hold.state, hold.settled, hold.amount) == ("settled", Amount(4, 4, 1), PRICE)
    assert hold.meta["function"].endswith("ask")
    assert ledger.balance("user/42").posted == Amount(4, 4, 1)
    assert ledger.verify().ok


async def test_an_async_call_is_settled_when_it_was_awaited(ledger: Ledger) -> None:
    @ledger.charged(PRICE, accounts=["user/42"], cost=length)
    async def ask(question: str) -> str:
        await asyncio.sleep(0)
        assert only_hold(ledger).state == "open"
        return question

    assert inspect.iscoroutinefunction(ask)
    coroutine = ask("why?")
    assert ledger.holds() == []  # nothing is reserved before it runs
    assert assert_type(await coroutine, str) == "why?"
    assert only_hold(ledger).settled == Amount(4, 4, 1)


def test_name_signature_and_docstring_are_kept(ledger: Ledger) -> None:
    def ask(question: str, *, loud: bool = False) -> str:
        """Ask."""
        return question

    charged = ledger.charged(PRICE, accounts=["user/42"])(ask)
    assert (charged.__name__, charged.__doc__) == ("ask", "Ask.")
    assert inspect.signature(charged) == inspect.signature(ask)


def test_without_a_cost_a_call_costs_what_was_held(ledger: Ledger) -> None:
    ledger.charged(PRICE, accounts=["user/42"])(len)("four")
    hold = only_hold(ledger)
    assert (hold.settled, hold.presumed) == (PRICE, False)


def test_a_call_that_does_not_fit_is_not_made(ledger: Ledger) -> None:
    called: list[str] = []
    ask = ledger.charged(Amount(tokens=101), accounts=["user/42"])(called.append)
    with pytest.raises(BudgetExceeded):
        ask("why?")
    with pytest.raises(UnknownAccount):
        ledger.charged(PRICE, accounts=["nobody"])(called.append)("why?")
    assert (called, ledger.holds()) == ([], [])


def test_a_call_that_raises_is_presumed_spent(ledger: Ledger) -> None:
    @ledger.charged(PRICE, accounts=["user/42"], cost=length)
    def ask(question: str) -> str:
        raise TimeoutError(question)

    with pytest.raises(TimeoutError, match="why"):
        ask("why?")
    hold = only_hold(ledger)
    assert (hold.state, hold.presumed, hold.settled) == ("settled", True, PRICE)
    assert hold.detail["error"] == "TimeoutError"
    ledger.settle(hold.id, Amount(7))  # the truth came
    assert ledger.balance("user/42").posted == Amount(7)


async def test_a_call_that_is_cancelled_is_presumed_spent(ledger: Ledger) -> None:
    begun = asyncio.Event()

    @ledger.charged(PRICE, accounts=["user/42"])
    async def ask() -> None:
        begun.set()
        await asyncio.sleep(600)

    task = asyncio.ensure_future(ask())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert only_hold(ledger).presumed


# --- the hold in the function's hands


def test_a_function_that_says_when_it_sends_frees_what_it_did_not_send(ledger: Ledger) -> None:
    @ledger.charged(PRICE, accounts=["user/42"], passing="hold")
    def ask(question: str, *, hold: Hold | None = None) -> str:
        assert hold is not None
        if not question:
            raise ValueError("nothing to ask")
        hold.mark_sent()
        raise TimeoutError

    with pytest.raises(ValueError, match="nothing to ask"):
        ask("")
    assert only_hold(ledger).state == "voided"
    with pytest.raises(TimeoutError):
        ask("why?")
    assert [(h.state, h.presumed) for h in ledger.holds()] == [("voided", False), ("settled", True)]


def test_a_function_may_extend_and_settle_its_hold_itself(ledger: Ledger) -> None:
    @ledger.charged(PRICE, accounts=["user/42"], cost=length, passing="hold")
    def stream(text: str, *, hold: Hold | None = None) -> str:
        assert hold is not None
        hold.mark_sent()
        hold.extend(Amount(100, 50, 1))
        hold.settle(Amount(0, 45, 1), detail={"words": len(text.split())})
        return text

    assert stream("as I said") == "as I said"
    hold = only_hold(ledger)
    assert (hold.amount, hold.settled, hold.detail["words"]) == (Amount(100, 50, 1), Amount(0, 45, 1), 3)


def test_a_function_that_takes_its_hold_and_leaves_it_is_settled_by_its_cost(ledger: Ledger) -> None:
    @ledger.charged(PRICE, accounts=["user/42"], cost=length, passing="hold")
    def ask(question: str, **kwargs: Hold) -> str:
        assert kwargs["hold"].amount == PRICE
        return question

    ask("why?")
    assert only_hold(ledger).settled == Amount(4, 4, 1)


def test_calls_within_the_hold_are_its_cost(ledger: Ledger) -> None:
    @ledger.charged(PRICE, accounts=["user/42"], cost=lambda _: ZERO, passing="hold")
    def plan(*, hold: Hold | None = None) -> None:
        assert hold is not None

        @ledger.charged(Amount(tokens=4), within=hold.id)
        def call() -> None: ...

        call()
        call()
        with pytest.raises(BudgetExceeded):
            call()

    plan()
    assert ledger.balance("user/42").posted == Amount(tokens=8)
    assert ledger.verify().ok


def test_without_a_cost_a_call_costs_what_was_held_also_with_calls_within(ledger: Ledger) -> None:
    @ledger.charged(Amount(tokens=10), accounts=["user/42"], passing="hold")
    def plan(*, hold: Hold | None = None) -> None:
        assert hold is not None
        hold.mark_sent()
        ledger.charged(Amount(tokens=4), within=hold.id)(lambda: None)()

    plan()
    assert ledger.balance("user/42").posted == Amount(tokens=10)
    assert ledger.holds()[0].overrun == ZERO


def test_a_caller_does_not_give_the_hold(ledger: Ledger) -> None:
    @ledger.charged(PRICE, accounts=["user/42"], passing="hold")
    def ask(*, hold: Hold | None = None) -> None: ...

    with pytest.raises(InvalidArgument, match="which the decorator gives"):
        ask(hold=None)
    assert ledger.holds() == []


# --- of the arguments


def test_amount_accounts_and_id_may_be_functions_of_the_arguments(ledger: Ledger) -> None:
    ledger.account("user/43")

    def bound(question: str, user: int) -> Amount:
        return Amount(tokens=len(question) * 2)

    def payers(question: str, user: int) -> list[str]:
        return [f"user/{user}"]

    def name(question: str, user: int) -> str:
        return f"{user}: {question}"

    @ledger.charged(bound, accounts=payers, hold_id=name, cost=length)
    def ask(question: str, user: int) -> str:
        return question

    ask("why?", user=43)
    ask("how?", 42)
    assert [(h.id, h.accounts, h.amount.tokens) for h in ledger.holds()] == [
        ("43: why?", ("user/43",), 8),
        ("42: how?", ("user/42",), 8),
    ]


def numbered(n: int) -> str:
    return f"call-{n}"


def named(ledger: Ledger, function: Callable[[int], str]) -> Callable[[int], str]:
    return ledger.charged(PRICE, accounts=["user/42"], hold_id=numbered, cost=length)(function)


def test_a_call_with_an_id_is_made_once(ledger: Ledger) -> None:
    called: list[int] = []

    def work(n: int) -> str:
        called.append(n)
        return "done"

    ask = named(ledger, work)
    ask(1)
    with pytest.raises(HoldClosed, match="made before") as refused:
        ask(1)
    assert (refused.value.hold_id, refused.value.state) == ("call-1", "settled")
    ask(2)
    assert called == [1, 2]
    assert ledger.balance("user/42").posted.calls == 2


def test_a_call_of_which_nothing_was_sent_may_be_made_again(ledger: Ledger) -> None:
    tries: list[int] = []

    @ledger.charged(PRICE, accounts=["user/42"], hold_id=lambda: "call", passing="hold")
    def ask(*, hold: Hold | None = None) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionRefusedError
        return "done"

    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            ask()
    assert ask() == "done"
    assert [(h.id, h.state) for h in ledger.holds()] == [
        ("call", "voided"),
        ("call~2", "voided"),
        ("call~3", "settled"),
    ]
    with pytest.raises(HoldClosed):
        ask()


def test_a_call_that_goes_on_is_not_made_beside_itself(ledger: Ledger) -> None:
    def again(n: int) -> str:
        with pytest.raises(HoldConflict, match="is being made") as refused:
            ask(n)
        assert (refused.value.hold_id, refused.value.known) == ("call-1", ledger.owner)
        return "done"

    ask = named(ledger, again)
    ask(1)
    assert only_hold(ledger).settled == Amount(4, 4, 1)


def test_threads_that_make_the_same_call_pay_once(ledger: Ledger) -> None:
    called: list[int] = []

    def work(n: int) -> str:
        called.append(n)
        return "x"

    ask = named(ledger, work)

    def attempt(_: int) -> bool:
        try:
            ask(1)
        except (HoldClosed, HoldConflict):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1
    assert called == [1]


# --- a cost that cannot be told


def impossible(result: str) -> float:
    return len(result) / 0


def bare(result: str) -> float:
    return len(result) / 100


def forgotten(result: str) -> None: ...


@pytest.mark.parametrize("broken", [impossible, bare, forgotten])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cost_that_cannot_be_told_is_presumed_and_shown(
    ledger: Ledger, broken: Callable[[Any], Any], asynchronous: bool
) -> None:
    charge = ledger.charged(PRICE, accounts=["user/42"], cost=broken)

    async def later() -> str:
        return "answer"

    def call() -> object:
        return asyncio.run(charge(later)()) if asynchronous else charge(lambda: "answer")()

    with pytest.raises((ZeroDivisionError, InvalidAmount)) as shown:
        call()
    hold = only_hold(ledger)
    assert (hold.state, hold.presumed, hold.settled) == ("settled", True, PRICE)
    assert "could not be told" in hold.detail["reason"]
    assert type(shown.value).__name__ in hold.detail["error"]
    assert hold.id in shown.value.__notes__[0]


def test_an_overrun_is_booked_in_full(ledger: Ledger) -> None:
    ledger.charged(PRICE, accounts=["user/42"], cost=lambda _: Amount(tokens=150))(lambda: None)()
    assert only_hold(ledger).overrun == Amount(tokens=140)


# --- nonsense


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


async def coroutine() -> str:
    return "x"


@pytest.mark.parametrize("function", [5, "ask", None, int, generator, async_generator, staticmethod(coroutine)])
def test_what_cannot_be_charged_is_refused_when_it_is_decorated(ledger: Ledger, function: Any) -> None:
    with pytest.raises(InvalidArgument) as refused:
        ledger.charged(PRICE, accounts=["user/42"])(function)
    assert (refused.value.argument, refused.value.value) == ("function", function)


def test_a_charge_that_makes_no_sense_is_refused_when_it_is_made(ledger: Ledger) -> None:
    nonsense: Any = ledger.charged
    for argument, make in {
        "accounts": lambda: nonsense(PRICE),
        "within": lambda: nonsense(PRICE, within=5),
        "cost": lambda: nonsense(PRICE, accounts=["user/42"], cost=PRICE),
        "hold_id": lambda: nonsense(PRICE, accounts=["user/42"], hold_id="call"),
    }.items():
        with pytest.raises(InvalidArgument) as refused:
            make()
        assert refused.value.argument == argument
    with pytest.raises(InvalidArgument, match="list of names"):
        nonsense(PRICE, accounts="user/42")
    with pytest.raises(InvalidArgument, match="either on accounts"):
        nonsense(PRICE, accounts=["user/42"], within="step")
    with pytest.raises(InvalidAmount, match=r"Amount\.of"):
        nonsense(0.02, accounts=["user/42"])
    with pytest.raises(InvalidArgument, match="either on accounts"):  # @ledger.charged without its amount
        nonsense(coroutine)


def test_a_function_must_take_the_hold_that_it_is_given(ledger: Ledger) -> None:
    def positional(hold: Hold, /) -> None: ...

    def nothing() -> None: ...

    functions: list[Callable[..., None]] = [positional, nothing]
    for function in functions:
        with pytest.raises(InvalidArgument, match="takes no keyword 'hold'") as refused:
            ledger.charged(PRICE, accounts=["user/42"], passing="hold")(function)
        assert refused.value.argument == "passing"


def test_a_function_that_hands_out_a_coroutine_is_told_so(ledger: Ledger) -> None:
    def hands_out() -> Awaitable[str]:
        return coroutine()

    with pytest.raises(InvalidArgument, match="something to await"):
        ledger.charged(PRICE, accounts=["user/42"])(hands_out)()


async def test_partials_methods_and_callable_objects_are_functions_too(ledger: Ledger) -> None:
    def bound(_client: object, text: str) -> Amount:
        return length(text)

    class Client:
        @ledger.charged(bound, accounts=["user/42"])
        async def ask(self, text: str) -> str:
            return text

        async def __call__(self, text: str) -> str:
            return text

    client = Client()
    assert await client.ask("four") == "four"
    assert await ledger.charged(PRICE, accounts=["user/42"])(client)("x") == "x"
    assert await ledger.charged(PRICE, accounts=["user/42"])(partial(client, "y"))() == "y"
    assert [h.settled for h in ledger.holds()] == [Amount(4, 4, 1), PRICE, PRICE]


def test_calls_are_charged_to_a_lease_as_to_a_ledger(ledger: Ledger) -> None:
    ledger.account("hot", limit=Budget(calls=10))

    def label(order: int) -> str:
        return f"label-{order}"

    with ledger.lease(["hot"], block=Amount(calls=2)) as lease:

        @lease.charged(Amount(calls=1), hold_id=label)
        def buy(order: int) -> int:
            return order

        assert [buy(n) for n in range(4)] == [0, 1, 2, 3]
        with pytest.raises(HoldClosed):
            buy(1)
        with lease.reserve("step", Amount(calls=3)):

            @lease.charged(Amount(calls=1), within="step")
            def inside() -> str:
                return "done"

            assert inside() == "done"
    assert ledger.balance("hot").posted.calls == 5
    assert ledger.verify().ok
