"""What a LangChain integration raised, in our words: was anything sent, was it billed, may another try help?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from agentbudget.errors import (
    AgentBudgetError,
    AuthenticationFailed,
    InvalidOutput,
    ModelError,
    ModelUnavailable,
    OutcomeUnknown,
    RateLimited,
    RequestRejected,
)
from agentbudget.models.remote import DECLINED, MAX_DETAIL, UNANSWERED, retry_after_s
from agentbudget.usage import Usage

UNCONNECTED: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError", "gaierror"})
"""What HTTP clients raise before a request could leave, whichever client an integration uses."""


INTERRUPTED: Final = ("Timeout", "Connection", "ReadError", "WriteError", "ProtocolError", "ConnectError")
"""What the names of errors have in them that tell of a connection that broke off."""


def failure(error: BaseException, *, model: str) -> ModelError | AgentBudgetError:
    """The error of our tree that stands for `error`.

    Integrations raise the errors of their providers' SDKs, which have a status and no common class: they are told
    apart by it. What cannot be told is `OutcomeUnknown`: presumed spent.
    """
    if isinstance(error, AgentBudgetError):
        return error
    if (answer := getattr(error, "completion", None)) is not None:  # OpenAI's SDK: an answer that it could not parse
        return InvalidOutput(f"{model}: {error}", model=model, usage=_used(answer))
    status = _status(error)
    if status is not None and status >= 400:  # LangChain notes the response of a whole answer on other errors as well
        return _refused(error, status, model)
    if isinstance(error, NotImplementedError):
        return RequestRejected(f"{model}: {error or 'not supported'}", model=model, sent=False)
    if any(type(cause).__name__ in UNCONNECTED for cause in _causes(error)):
        return ModelUnavailable(f"{model}: no connection ({type(error).__name__})", model=model, sent=False)
    what = f"{model}: no complete answer came ({type(error).__name__}); the call is presumed spent"
    unknown = OutcomeUnknown(what, model=model)
    # What an integration says of itself, such as an answer that it cannot read, comes again with the next try.
    unknown.retryable = any(word in name for name in _names(error) for word in INTERRUPTED)
    return unknown


def _used(answer: object) -> Usage | None:
    """What an answer in OpenAI's words used, if it says so."""
    told: object = getattr(answer, "usage", None)
    read, wrote = (getattr(told, name, None) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(read, wrote) if isinstance(read, int) and isinstance(wrote, int) and read > 0 <= wrote else None


def _refused(error: BaseException, status: int, model: str) -> ModelError:
    headers = _headers(error)
    if status in UNANSWERED:
        return OutcomeUnknown(
            f"{model}: the answer broke off ({status}); the call is presumed spent", model=model, status=status
        )
    words = " ".join(str(error).split())[:MAX_DETAIL]
    kind: type[ModelError] = RequestRejected
    if status in (401, 403):
        kind, words = AuthenticationFailed, "the key was refused"  # a provider's own words repeat a part of the key
    elif status == 429 and not ("quota" in words and "billing" in words):  # no waiting mends an account without credit
        kind = RateLimited
    elif status >= 500:
        kind = ModelUnavailable
    usage = None if status >= 500 and status not in DECLINED else Usage()
    return kind(
        f"{model}: answered {status}: {words}",
        model=model,
        usage=usage,
        status=status,
        retry_after_s=retry_after_s(headers),
    )


def _status(error: BaseException) -> int | None:
    """An HTTP status, where the SDKs keep it: on the error, or on its response."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "code", "status"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
                return value
    return None


def _headers(error: BaseException) -> Mapping[str, str]:
    headers: object = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value) for name, value in cast("Mapping[Any, Any]", headers).items()}


def _names(error: BaseException) -> Iterator[str]:
    """The names of the classes of an error and of what it came from."""
    return (base.__name__ for cause in _causes(error) for base in type(cause).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
