"""Every exception that agentbudget raises.

A level of the tree answers one question: what would a caller catch?

    AgentBudgetError (RuntimeError)
    ├── BudgetExceeded            expected: what was asked does not fit what is left
    ├── AccountFrozen             somebody stopped this account; what is left plays no part
    ├── DataRefused               expected: a text may not go where it would have to; nothing was sent
    ├── Mistake                   the call was wrong; mend the caller
    │   ├── InvalidAmount         (also ValueError)
    │   ├── InvalidArgument       (also ValueError)
    │   ├── UnknownAccount
    │   ├── AccountConflict
    │   ├── UnknownHold
    │   ├── HoldConflict
    │   ├── HoldClosed
    │   ├── UnknownModel
    │   ├── UnknownPrice
    │   ├── UnknownHit
    │   ├── UnknownRun
    │   ├── SkillError
    │   ├── ContextTooLong
    │   ├── SchemaUnsupported
    │   └── DocumentsError
    └── Fault                     the world was wrong; nothing in the call mends it
        ├── StoreError
        │   ├── StoreUnavailable
        │   │   └── StoreInterrupted
        │   ├── StoreBusy
        │   └── SchemaMismatch
        ├── ExportError
        ├── IndexFault
        │   ├── IndexBusy
        │   └── IndexMismatch
        ├── WeightsError
        │   └── WeightsTooLarge
        ├── MissingDependency
        └── ModelError            a model call failed; `usage` says what it used, if known
            ├── AuthenticationFailed
            ├── RequestRejected
            ├── RateLimited
            ├── ModelUnavailable
            ├── OutcomeUnknown
            └── InvalidOutput

The root is a ``RuntimeError`` because LangGraph's default retry policy retries every exception that it
does not list, and it lists ``RuntimeError``: an exhausted budget must not be retried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from agentbudget.money import Amount
    from agentbudget.usage import Usage

LONGEST_WAIT_S: Final = 60.0
"""The longest that a provider is waited for before a call is tried again."""


class AgentBudgetError(RuntimeError):
    """Root of every error that agentbudget raises. Its fields survive pickling: workers may raise it to their pool."""

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[object, ...], dict[str, object]]:
        return _restored, (type(self), *self.args), self.__dict__


def _restored(cls: type[AgentBudgetError], *args: object) -> AgentBudgetError:
    return cls.__new__(cls, *args)


class BudgetExceeded(AgentBudgetError):
    """A reservation does not fit: it was refused whole, and nothing was sent or spent.

    ``account`` is the account (or the parent hold's id) that refused, ``unit`` the unit that ran short,
    ``needed`` and ``available`` are in that unit (nano-dollars, tokens or calls). ``window`` is the window of time
    whose limit refused ("total" for the one without end), ``resets_at`` when it begins to free up.
    """

    def __init__(
        self,
        message: str,
        *,
        account: str,
        unit: str,
        needed: int,
        available: int,
        requested: Amount,
        window: str = "total",
        resets_at: datetime | None = None,
    ) -> None:
        super().__init__(message)
        self.window = window
        self.resets_at = resets_at
        self.account = account
        self.unit = unit
        self.needed = needed
        self.available = available
        self.requested = requested


class AccountFrozen(AgentBudgetError):
    """A reservation names an account that is frozen (or one below it): nothing was sent or spent."""

    def __init__(self, message: str, *, account: str) -> None:
        super().__init__(message)
        self.account = account


class DataRefused(AgentBudgetError):
    """A text may not go where it would have to: refused before anything was sent or paid for.

    ``data_class`` is its class and ``sources`` what asks for that (documents, skills); ``destinations`` are the names
    of the models, or of what else it would have gone to. ``found`` counts what was found in it, by kind, never the
    things themselves.
    """

    def __init__(
        self,
        message: str,
        *,
        data_class: str,
        sources: tuple[str, ...] = (),
        destinations: tuple[str, ...] = (),
        found: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.data_class = data_class
        self.sources = sources
        self.destinations = destinations
        self.found = dict(found or {})


class Mistake(AgentBudgetError):
    """The call itself was wrong; the message says what to change."""


class InvalidAmount(Mistake, ValueError):
    """An amount is negative, not a number, a float, or too large. ``value`` is what was given, ``unit`` of what."""

    def __init__(self, message: str, *, value: object = None, unit: str | None = None) -> None:
        super().__init__(message)
        self.value = value
        self.unit = unit


class InvalidArgument(Mistake, ValueError):
    """An id, a name, a window, a time or a detail is not what the ledger can keep.

    ``argument`` names it, ``value`` is what was given.
    """

    def __init__(self, message: str, *, argument: str, value: object) -> None:
        super().__init__(message)
        self.argument = argument
        self.value = value


class UnknownAccount(Mistake):
    """``account`` was never opened."""

    def __init__(self, message: str, *, account: str) -> None:
        super().__init__(message)
        self.account = account


class AccountConflict(Mistake):
    """An account was opened again under another parent, or a top-up's id used again for another one.

    ``known`` is what the ledger has, ``asked`` what this call wanted: parents, or top-ups in words.
    """

    def __init__(self, message: str, *, account: str, known: str | None, asked: str | None) -> None:
        super().__init__(message)
        self.account = account
        self.known = known
        self.asked = asked


class UnknownHold(Mistake):
    """No hold has the id ``hold_id``."""

    def __init__(self, message: str, *, hold_id: str) -> None:
        super().__init__(message)
        self.hold_id = hold_id


class HoldConflict(Mistake):
    """A hold id was used again with another amount, other accounts, another parent or by another owner.

    ``known`` is the hold's own, ``asked`` what this call wanted it to be.
    """

    def __init__(
        self,
        message: str,
        *,
        hold_id: str,
        known: Amount | tuple[str, ...] | str,
        asked: Amount | tuple[str, ...] | str,
    ) -> None:
        super().__init__(message)
        self.hold_id = hold_id
        self.known = known
        self.asked = asked


class HoldClosed(Mistake):
    """The hold was already settled, voided or lapsed in another way than this call asks. ``state`` says which."""

    def __init__(self, message: str, *, hold_id: str, state: str) -> None:
        super().__init__(message)
        self.hold_id = hold_id
        self.state = state


class UnknownModel(Mistake):
    """No provider or catalog entry has this name."""


class UnknownPrice(Mistake):
    """The model has no price; the message says how to give it one. Never free by accident."""


class UnknownHit(Mistake):
    """No answer was given from the semantic cache as ``hit``."""

    def __init__(self, message: str, *, hit: int) -> None:
        super().__init__(message)
        self.hit = hit


class UnknownRun(Mistake):
    """The ledger has no run of this id."""


class SkillError(Mistake):
    """A skill is declared in a way that cannot work."""


class ContextTooLong(Mistake):
    """The input does not fit the model's context window. Found before anything was spent."""

    def __init__(self, message: str, *, input_tokens: int, output_tokens: int, window: int) -> None:
        super().__init__(message)
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.window = window


class SchemaUnsupported(Mistake):
    """A JSON schema that this model's structured output cannot express."""


class DocumentsError(Mistake):
    """A documents folder is missing, or nothing in it could be read."""


class Fault(AgentBudgetError):
    """Something outside the call failed."""


class StoreError(Fault):
    """The ledger's or cache's store failed; nothing was admitted. ``location`` is its path or address."""

    def __init__(self, message: str, *, location: str | None = None) -> None:
        super().__init__(message)
        self.location = location


class StoreUnavailable(StoreError):
    """The store cannot be opened, read or written."""


class StoreInterrupted(StoreUnavailable):
    """The store gave up a transaction half-way and kept nothing of it; asked again, it may well do it."""


class StoreBusy(StoreError):
    """Another process held the store's lock for longer than the time allowed."""


class SchemaMismatch(StoreError):
    """The store was written by another version (``found``, where this one reads ``expected``), or another program."""

    def __init__(
        self, message: str, *, location: str | None = None, found: int | None = None, expected: int | None = None
    ) -> None:
        super().__init__(message, location=location)
        self.found = found
        self.expected = expected


class ExportError(Fault):
    """An export cannot be written to ``path``, or read from it; what was there before is untouched."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class IndexFault(Fault):
    """The document index failed."""


class IndexBusy(IndexFault):
    """Another process has this index open."""


class IndexMismatch(IndexFault):
    """The index was built by another embedding model, chunker or version.

    ``tokens`` would have to be embedded to build it anew, in ``chunks`` chunks, in about ``seconds``, for about
    ``usd_nano``; None where that is not known, or was not looked at.
    """

    def __init__(
        self,
        message: str,
        *,
        chunks: int | None = None,
        tokens: int | None = None,
        seconds: float | None = None,
        usd_nano: int | None = None,
    ) -> None:
        super().__init__(message)
        self.chunks = chunks
        self.tokens = tokens
        self.seconds = seconds
        self.usd_nano = usd_nano


class WeightsError(Fault):
    """Weights are missing, cut short, or do not have the checksum that the catalog states."""


class WeightsTooLarge(WeightsError):
    """The weights, with the cache for their window, need more memory than there is. Said before they are loaded."""

    def __init__(self, message: str, *, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class MissingDependency(Fault):
    """An optional package is not installed; the message names the extra that brings it."""


class ModelError(Fault):
    """A model call failed.

    ``sent`` says whether the request left; ``usage`` is what the provider said it used, None if unknown;
    ``retryable`` whether another attempt may help; ``retry_after_s`` how long the provider asked to wait.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        model: str,
        sent: bool = True,
        usage: Usage | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.sent = sent
        self.usage = usage
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def passes_soon(self) -> bool:
        """Whether another attempt may help, and the provider does not ask to wait longer than `LONGEST_WAIT_S`.

        A limit by the day is refused with a wait of hours: whoever asked is told, and holds nothing meanwhile.
        """
        return self.retryable and (self.retry_after_s or 0.0) <= LONGEST_WAIT_S


class AuthenticationFailed(ModelError):
    """The provider refused the key (401 or 403)."""


class RequestRejected(ModelError):
    """The provider refused the request itself (400, 404, 413, 422); it is not billed."""


class RateLimited(ModelError):
    """The provider asked to slow down (429); it is not billed."""

    retryable = True


class ModelUnavailable(ModelError):
    """The provider is down or overloaded (connection refused, 5xx, 529)."""

    retryable = True


class OutcomeUnknown(ModelError):
    """The request was sent and no answer came (timeout, dropped stream): presumed spent."""

    retryable = True


class InvalidOutput(ModelError):
    """The model's output does not fit the type that was asked for.

    ``fact`` is the message without ``advice``, which is for the author of the skill: others cannot change it.
    """

    def __init__(self, fact: str, *, model: str, usage: Usage | None = None, advice: str | None = None) -> None:
        super().__init__(fact if advice is None else f"{fact}; {advice}", model=model, usage=usage)
        self.fact = fact
        self.advice = advice
