"""Runnables built around a chat model, rebuilt around another."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)

from agentbudget.errors import Mistake

AnyRunnable = Runnable[Any, Any]


def rehomed(runnable: AnyRunnable, old: BaseChatModel, new: BaseChatModel) -> AnyRunnable:
    """`runnable` with `new` wherever it has `old`.

    So ``with_structured_output`` and ``bind_tools`` stay each integration's own, and what they bind reaches a model
    that wraps it. Raises `Mistake` if `old` is not in it: then what it does would go past the wrapper.
    """
    moved = _moved(runnable, old, new)
    if bindings(moved, old) or not bindings(moved, new):
        raise Mistake(f"{type(old).__name__} builds this from another model than itself; build it by hand")
    return moved


def bound_to(chat: BaseChatModel, runnable: AnyRunnable) -> AnyRunnable:
    """The part of `runnable` that calls `chat`, with what is bound to it. Raises `Mistake` if there is none."""
    found = bindings(runnable, chat)
    if not found:
        raise Mistake(f"{type(chat).__name__} builds its structured output from another model than itself")
    return found[0]


def bindings(runnable: object, chat: BaseChatModel) -> list[AnyRunnable]:
    """The parts of `runnable` that call `chat`."""
    if runnable is chat:
        return [chat]
    if isinstance(runnable, RunnableBinding):
        bound = cast("RunnableBinding[Any, Any]", runnable)
        return [bound] if bindings(bound.bound, chat) else []
    return [found for part in _parts(runnable) for found in bindings(part, chat)]


def _parts(runnable: object) -> list[AnyRunnable]:
    if isinstance(runnable, RunnableSequence):
        return list(cast("RunnableSequence[Any, Any]", runnable).steps)
    if isinstance(runnable, RunnableParallel):
        return list(cast("RunnableParallel[Any]", runnable).steps__.values())
    if isinstance(runnable, RunnableWithFallbacks):
        return list(cast("RunnableWithFallbacks[Any, Any]", runnable).runnables)
    return []


def _moved(runnable: AnyRunnable, old: BaseChatModel, new: BaseChatModel) -> AnyRunnable:
    if runnable is old:
        return new
    if isinstance(runnable, RunnableBinding):
        return runnable.model_copy(update={"bound": _moved(runnable.bound, old, new)})
    if isinstance(runnable, RunnableSequence):
        return RunnableSequence(*(_moved(step, old, new) for step in _parts(runnable)))
    if isinstance(runnable, RunnableParallel):
        return RunnableParallel({name: _moved(step, old, new) for name, step in runnable.steps__.items()})
    return runnable
