"""One middleware for `create_agent`: model and tool calls that pay, and an end with grace when nothing is left."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.uuid import uuid7

from agentbudget import telemetry
from agentbudget.errors import BudgetExceeded, Mistake
from agentbudget.langchain.accounts import Accounts, checked, opened, run_of
from agentbudget.langchain.books import Books
from agentbudget.langchain.budgeted import BudgetedChatModel, budgeted
from agentbudget.ledger import Hold, Ledger
from agentbudget.money import ZERO, Amount, Money, usd_to_nano

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool
    from langgraph.types import Command

_log = logging.getLogger(__name__)

OnExhausted = Literal["end", "raise"]

ENDED: Final = "The budget of this conversation is used up, so that I stop here: {refusal}"

KEPT_MODELS: Final = 16
"""Models whose wrappers are kept for their next call."""


class BudgetMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Budgets an agent of `create_agent`: whichever model it calls, and each of its tool calls.

    ``accounts`` are those of `budgeted`, filled in from the config of each run: ``"run/{thread_id}"`` gives every
    thread a budget. ``tools`` says what a call of a tool costs in dollars, by its name (others cost nothing, and count
    as a call; a name that none of the first tools offered has is warned of). When a call does not fit, the agent ends
    with a message that says so (``"end"``), or `BudgetExceeded` is raised. ``model`` holds what `budgeted` takes
    besides: ``{"hold": "quantile", "price": …}``.

    Put it last: a middleware further in may call another model. A model that is called beside the agent's node, as
    `SummarizationMiddleware` does, never passes here: give that one a model of `budgeted`.
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        ledger: Ledger | str | Path | None = None,
        tools: Mapping[str, Money] | None = None,
        on_exhausted: OnExhausted = "end",
        model: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if on_exhausted not in ("end", "raise"):
            raise Mistake(f"on_exhausted must be 'end' or 'raise', not {on_exhausted!r}")
        self.books = Books(ledger)
        self._accounts = checked(accounts)
        self._prices = {name: usd_to_nano(usd) for name, usd in (tools or {}).items()}
        self._unseen = set(self._prices)
        self._on_exhausted: OnExhausted = on_exhausted
        self._options = dict(model or {})
        self._paying: dict[int, tuple[BaseChatModel, BudgetedChatModel]] = {}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | AIMessage:
        """Call the model on a hold of its own."""
        try:
            return handler(self._paid(request))
        except BudgetExceeded as refusal:
            return self._end(refusal)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | AIMessage:
        """See `wrap_model_call`."""
        try:
            return await handler(self._paid(request))
        except BudgetExceeded as refusal:
            return self._end(refusal)

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Call the tool on a hold of its own: a tool that raises has been called, and costs what it costs.

        One that pauses the graph to ask somebody (``interrupt``) costs nothing yet: it is called again with the answer.
        """
        try:
            hold = self._hold(request)
        except BudgetExceeded as refusal:
            return self._refused(request, refusal)
        with _called(hold):
            return handler(request)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """See `wrap_tool_call`."""
        try:
            hold = self._hold(request)
        except BudgetExceeded as refusal:
            return self._refused(request, refusal)
        with _called(hold):
            return await handler(request)

    def _paid(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """The request to a model that pays."""
        if self._unseen and request.tools:
            self._look_for_prices(request.tools)
        return request.override(model=self._budgeted(request.model))

    def _look_for_prices(self, tools: Sequence[BaseTool | dict[str, Any]]) -> None:
        """Say once which prices are for none of `tools`. It is no error: another call may be given other tools."""
        offered = {
            str(tool.get("function", tool).get("name", tool.get("type"))) if isinstance(tool, dict) else tool.name
            for tool in tools
        }
        unseen, self._unseen = self._unseen - offered, set[str]()
        if unseen:
            _log.warning(
                "tools=… has a price for %s, which is none of the tools offered (%s): a tool by another name is free",
                ", ".join(map(repr, sorted(unseen))),
                ", ".join(sorted(offered)),
            )

    def _budgeted(self, model: BaseChatModel) -> BudgetedChatModel:
        """The model of this call, which pays. It is kept with its wrapper: another may take its place in memory."""
        if isinstance(model, BudgetedChatModel):
            return model
        found = self._paying.get(id(model))
        if found is None or found[0] is not model:
            if len(self._paying) >= KEPT_MODELS:  # some make one for each call
                self._paying.clear()
            paying = budgeted(model, accounts=self._accounts, ledger=self.books.ledger, **self._options)
            found = self._paying[id(model)] = (model, paying)
        return found[1]

    def _end(self, refusal: BudgetExceeded) -> AIMessage:
        """A last message without tool calls: the agent's loop ends on it."""
        if self._on_exhausted == "raise":
            raise refusal
        return AIMessage(ENDED.format(refusal=refusal), response_metadata={"finish_reason": "over budget"})

    def _refused(self, request: ToolCallRequest, refusal: BudgetExceeded) -> ToolMessage:
        """What the model hears of a tool that cannot be paid for: it may still answer from what it knows."""
        if self._on_exhausted == "raise":
            raise refusal
        call = request.tool_call
        return ToolMessage(f"not called: {refusal}", tool_call_id=call["id"], name=call["name"], status="error")

    def _hold(self, request: ToolCallRequest) -> Hold:
        """Reserve for a tool call, which is a new one each time: a graph that goes on after a crash pays anew.

        The model's own id for it names it to people, no more: many models number the calls of every conversation alike.
        """
        ledger, call = self.books.ledger, request.tool_call
        accounts = opened(ledger, self._accounts, ensure_config())
        amount = Amount(self._prices.get(call["name"], 0), 0, 1)
        hold_id = f"{run_of(accounts)}/tool.{call['name']}.{call['id']}.{uuid7()}"
        meta = {"kind": "tool", "tool": call["name"]}
        with telemetry.reservation(hold_id, kind="tool"):
            return ledger.reserve(hold_id, amount, accounts=accounts, tag=f"tool|{call['name']}", meta=meta)


@contextmanager
def _called(hold: Hold) -> Generator[None]:
    """Around a call of a tool: what was held for it is settled however it ends, a pause of the graph at nothing."""
    with hold:
        hold.mark_sent()
        cost = hold.amount
        try:
            yield
        except BaseException as error:
            cost = ZERO if _is_pause(error) else cost
            raise
        finally:
            telemetry.settlement(hold.settle(cost))


def _is_pause(error: BaseException) -> bool:
    """Whether it is LangGraph's, raised where a graph pauses to ask somebody."""
    return any(base.__name__ == "GraphInterrupt" for base in type(error).__mro__)
