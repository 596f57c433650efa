"""A function whose every call is charged: reserve, send, call, settle. What ``charged`` of a ledger or lease makes."""

from __future__ import annotations

import inspect
import itertools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from agentbudget.errors import HoldClosed, HoldConflict, InvalidArgument
from agentbudget.ledger.arguments import check_accounts, check_amount, check_text
from agentbudget.ledger.hold import Hold
from agentbudget.money import Amount

if TYPE_CHECKING:
    from agentbudget.ledger.core import Ledger
    from agentbudget.ledger.leased import LeasedBudget
    from agentbudget.ledger.records import Detail

P = ParamSpec("P")
T = TypeVar("T")

NamesOf = Callable[..., Sequence[str]]
AmountOf = Callable[..., Amount]
TextOf = Callable[..., str]
CostOf = Callable[[Any], Amount]
"""From the function's result, whose type is not known yet when the decorator is made."""

_PASSED: Final = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Charge:
    """What each call of a function costs, and who pays. A decorator for plain and for async functions."""

    ledger: Ledger | LeasedBudget
    amount: Amount | AmountOf
    accounts: Sequence[str] | NamesOf
    within: str | TextOf | None
    cost: CostOf | None
    hold_id: TextOf | None
    passing: str | None
    tag: str
    meta: Detail | None

    def __post_init__(self) -> None:
        if not callable(self.amount):
            check_amount(self.amount)
        if bool(self.accounts) == (self.within is not None):
            raise InvalidArgument(
                "a charge weighs either on accounts or within a hold: @ledger.charged(amount, accounts=['user/42'])",
                argument="accounts",
                value=self.accounts,
            )
        if not callable(self.accounts):
            check_accounts(self.accounts)
        if self.within is not None and not callable(self.within):
            check_text("within", self.within)
        if self.cost is not None and not callable(self.cost):
            raise InvalidArgument(
                f"cost must be a function from the result to an Amount, not {self.cost!r}",
                argument="cost",
                value=self.cost,
            )
        if self.hold_id is not None and not callable(self.hold_id):
            raise InvalidArgument(
                f"hold_id must be a function of the arguments, not {self.hold_id!r}: one id is one call",
                argument="hold_id",
                value=self.hold_id,
            )

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, charged. Raises `InvalidArgument` if it is none, or yields."""
        _check_function(function)
        if self.passing is not None:
            _check_passing(function, self.passing)
        return self._asynchronous(function) if _is_async(function) else self._plain(function)

    def _plain(self, function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def charged(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._reserve(function, args, kwargs) as hold:
                result = cast("Callable[..., T]", function)(*args, **self._prepared(hold, kwargs))
                if inspect.isawaitable(result):
                    if inspect.iscoroutine(result):
                        result.close()
                    raise InvalidArgument(
                        f"{_name(function)} gives something to await: charge the async function that it calls",
                        argument="function",
                        value=function,
                    )
                self._settle(hold, result)
                return result

        return charged

    def _asynchronous(self, function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        async def charged(*args: P.args, **kwargs: P.kwargs) -> Any:
            with self._reserve(function, args, kwargs) as hold:
                result = await cast("Callable[..., Awaitable[Any]]", function)(*args, **self._prepared(hold, kwargs))
                self._settle(hold, result)
                return result

        return cast("Callable[P, T]", charged)

    def _reserve(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hold:
        """A hold for this call alone. Raises `HoldClosed` if it was made before, `HoldConflict` while it goes on."""
        if self.passing is not None and self.passing in kwargs:
            raise InvalidArgument(
                f"{self.passing!r} is the hold, which the decorator gives to {_name(function)}",
                argument=self.passing,
                value=kwargs[self.passing],
            )
        wanted = self.hold_id(*args, **kwargs) if self.hold_id is not None else f"{_name(function)}/{uuid.uuid4().hex}"
        amount = self.amount(*args, **kwargs) if callable(self.amount) else self.amount
        accounts = self.accounts(*args, **kwargs) if callable(self.accounts) else self.accounts
        within = self.within(*args, **kwargs) if callable(self.within) else self.within
        meta = {"kind": "charge", "function": _name(function), **(self.meta or {})}
        for number in itertools.count(1):
            hold_id = wanted if number == 1 else f"{wanted}~{number}"
            hold = self.ledger.reserve(hold_id, amount, accounts=accounts, within=within, tag=self.tag, meta=meta)
            if not hold.replayed:
                return hold
            if hold.record.state != "voided":  # nothing was sent under that one: this is the next try
                raise self._refused(hold)
        raise AssertionError("unreachable: the loop above returns or raises")

    def _refused(self, hold: Hold) -> HoldClosed | HoldConflict:
        record = hold.record
        if record.state == "open":
            return HoldConflict(
                f"call {hold.id!r} is being made by {record.owner}; wait until it is done",
                hold_id=hold.id,
                known=record.owner,
                asked=self.ledger.owner,
            )
        return HoldClosed(
            f"call {hold.id!r} was made before, and {record.state} at {record.settled}; it is not made twice",
            hold_id=hold.id,
            state=record.state,
        )

    def _prepared(self, hold: Hold, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keywords for the function. One that does not take its hold is sent as soon as it is called."""
        if self.passing is not None:
            return {**kwargs, self.passing: hold}
        hold.mark_sent()
        return kwargs

    def _settle(self, hold: Hold, result: object) -> None:
        if hold.refresh().state != "open":
            return  # the function settled it
        try:
            # What was spent within it comes on top of the cost, and is a part of what was held.
            cost = hold.record.room if self.cost is None else self.cost(result)
            hold.settle(cost)
        except BaseException as error:
            if hold.refresh().state == "open":
                told = f"{type(error).__name__}: {error}"
                hold.presume(detail={"reason": "the call returned, and its cost could not be told", "error": told})
                error.add_note(
                    f"The call returned; its hold {hold.id!r} is presumed spent. Settle it at its true cost."
                )
            raise


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = cast("partial[Any]", function).func
    call = getattr(function, "__call__", None)  # noqa: B004 # an object may be called with an async method
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _check_function(function: Any) -> None:
    if not callable(function) or isinstance(function, type | staticmethod | classmethod):
        raise InvalidArgument(
            f"{function!r} is no function to charge (@staticmethod and @classmethod go above @ledger.charged)",
            argument="function",
            value=cast(object, function),
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidArgument(
            f"{_name(function)} yields: it spends while it is read, so reserve within it (with ledger.reserve(…))",
            argument="function",
            value=function,
        )


def _check_passing(function: Callable[..., Any], name: str) -> None:
    parameters = inspect.signature(function).parameters
    found = parameters.get(name)
    if found is None and any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    if found is None or found.kind not in _PASSED:
        raise InvalidArgument(
            f"{_name(function)} takes no keyword {name!r} for its hold: give it *, {name}: Hold | None = None",
            argument="passing",
            value=name,
        )
