"""Billable attempts at one call, each with its own hold: what may pass is tried again."""

from __future__ import annotations

from typing import Any, Final

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from agentbudget.errors import LONGEST_WAIT_S, ModelError
from agentbudget.models.langchain.failures import failure

BACKOFF_S: Final = 0.5

_BACKOFF: Final = wait_random_exponential(multiplier=BACKOFF_S, max=LONGEST_WAIT_S)


def retrying(attempts: int) -> Retrying:
    """``for attempt in retrying(3): with attempt: …``: the last error is raised as it came."""
    return Retrying(**_policy(attempts))


def aretrying(attempts: int) -> AsyncRetrying:
    """The same for code that is async."""
    return AsyncRetrying(**_policy(attempts))


def _policy(attempts: int) -> dict[str, Any]:
    return {
        "stop": stop_after_attempt(attempts),
        "retry": retry_if_exception(_may_pass),
        "wait": _wait,
        "reraise": True,
    }


def _may_pass(error: BaseException) -> bool:
    told = failure(error, model="") if isinstance(error, Exception) else error
    return isinstance(told, ModelError) and told.passes_soon


def _wait(state: RetryCallState) -> float:
    error = None if state.outcome is None else state.outcome.exception()
    told = failure(error, model="") if isinstance(error, Exception) else None
    asked = told.retry_after_s if isinstance(told, ModelError) else None
    return _BACKOFF(state) if asked is None else asked
