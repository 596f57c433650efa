"""A middleware for `create_agent` that shortens what its model is sent, and leaves the state of the graph as it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from agentbudget.history import Compacted, Entry, Policy, compact, fit
from agentbudget.langchain.guarding import standing_for
from agentbudget.models.base import Message
from agentbudget.models.langchain.messages import from_langchain

Call = ModelRequest[Any]
Answer = ModelResponse[Any]


class HistoryMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Sends the model of `create_agent` its conversation in fewer tokens.

    What is old becomes a line each, tool results are written as tables, and the beginning of a prompt stays as it was
    between two steps: see `Policy`. With `tokens`, a conversation that fits is sent whole, and one that does not is
    shortened until it does, by an approximate count; `ContextTooLong` is raised where what must stay does not fit.

    What is sent is of the class of the whole conversation, whatever became of its messages (see `budgeted`).

    The messages in the graph's state stay as they are. Put it before `BudgetMiddleware`, so that what is held for a
    call is what is sent.
    """

    def __init__(self, policy: Policy | None = None, *, tokens: int | None = None) -> None:
        super().__init__()
        self.policy = policy or Policy()
        self.tokens = tokens

    def wrap_model_call(self, request: Call, handler: Callable[[Call], Answer]) -> Answer | AIMessage:
        """Call the model with the shortened conversation."""
        return handler(self._shortened(request))

    async def awrap_model_call(self, request: Call, handler: Callable[[Call], Awaitable[Answer]]) -> Answer | AIMessage:
        """See `wrap_model_call`."""
        return await handler(self._shortened(request))

    def _shortened(self, request: Call) -> Call:
        system = request.system_message
        whole: list[BaseMessage] = [*([system] if system else []), *request.messages]
        found = self._found(from_langchain(whole, thoughts=True))
        sent: list[Any] = [_sent(entry, whole) for entry in found.entries]
        kept = {entry.of for entry in found.entries}
        if sent:  # what is gone lives on in lines: where it may go still depends on what it was
            sent[-1] = standing_for(sent[-1], (message for n, message in enumerate(whole) if n not in kept))
        if system is None:
            return request.override(messages=sent)
        return request.override(system_message=sent[0], messages=sent[1:])

    def _found(self, messages: Sequence[Message]) -> Compacted:
        if self.tokens is None:
            return compact(messages, self.policy)
        return fit(messages, tokens=self.tokens, policy=self.policy)


def _sent(entry: Entry, whole: Sequence[BaseMessage]) -> Any:
    """The message of the state itself where nothing changed, with all that our own messages have no place for."""
    if entry.of is None:
        return HumanMessage(entry.message.text)
    message = whole[entry.of]
    if not entry.changed:
        return message
    content: Any = entry.message.text
    if isinstance(message.content, list):  # pictures and the like stay beside the new text
        others = [part for part in message.content if isinstance(part, dict) and part.get("type") != "text"]
        content = [{"type": "text", "text": entry.message.text}, *others] if others else content
    return message.model_copy(update={"content": content})
