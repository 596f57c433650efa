"""The seam to language models: one request, one completion, one meter, whoever serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from agentbudget.usage import Usage

JsonSchema = Mapping[str, Any]
Role = Literal["system", "user", "assistant"]
Place = Literal["local", "remote"]
Finish = Literal["stop", "length", "budget", "refused"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model: everything that changes the answer, and the caps that its hold paid for.

    ``schema`` is a JSON schema that the answer must fit (any type at the top level, not only objects);
    the completion's text is then JSON. ``max_output_tokens`` includes reasoning. ``max_compute_s`` cuts a
    local model when it has computed for so long (finish ``"budget"``). ``timeout_s`` bounds a remote call.
    """

    messages: tuple[Message, ...]
    max_output_tokens: int
    schema: JsonSchema | None = None
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    max_compute_s: float | None = None
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer.

    ``finish``: ``"stop"`` it ended by itself, ``"length"`` the output cap cut it, ``"budget"`` the compute
    cap cut it, ``"refused"`` the model declined. ``confidence`` is the geometric mean probability of the
    output tokens (0 to 1) where the model reports probabilities, else None. ``served_by`` is the name of
    the model that the provider says answered.
    """

    text: str
    finish: Finish
    usage: Usage
    served_by: str
    confidence: float | None = None


@dataclass(slots=True)
class Meter:
    """How far one attempt got. The model reports to it; the step settles by it, however the attempt ends.

    A model calls `leaving` just before anything leaves (or compute starts), and `used` whenever it knows
    what has been used so far: at the end, when it is cancelled, and before it raises.
    """

    on_leaving: Callable[[], None] | None = None
    sent: bool = False
    usage: Usage | None = field(default=None)

    def leaving(self) -> None:
        """The request is about to leave: from here on it may be billed."""
        if not self.sent:
            if self.on_leaving is not None:
                self.on_leaving()
            self.sent = True

    def used(self, usage: Usage) -> None:
        """What this attempt has used until now, as the provider (or the local engine) counts it."""
        self.usage = usage


@dataclass(frozen=True, slots=True)
class InputCount:
    """Input tokens of a request: exact, or a bound that the true count does not exceed."""

    tokens: int
    exact: bool


class Price(Protocol):
    """Usage → nano-dollars, and the most that a request of given size can cost."""

    @property
    def source(self) -> str:
        """Where the price comes from, for the statement: ``"genai-prices 0.2.3"``, ``"0.10 USD/h"``."""
        ...

    @property
    def terms(self) -> Mapping[str, Any]:
        """The rates in force, as JSON-ready data: kept with each settlement, so that it can be computed again."""
        ...

    def cost(self, usage: Usage) -> int:
        """What this usage costs, in nano-dollars, rounded up."""
        ...

    def expected(self, *, input_tokens: int, output_tokens: int) -> int:
        """What a call of this size usually costs, in nano-dollars: no cache, nothing going wrong."""
        ...

    def bound(self, *, input_tokens: int, output_tokens: int) -> int:
        """The most that a call with at most these tokens may cost, in nano-dollars."""
        ...

    def compute_cap_s(self, usd_nano: int) -> float | None:
        """Seconds of compute that this much buys; None where compute is not what is paid for."""
        ...


@runtime_checkable
class Model(Protocol):
    """A model that can be called. Implementations: `llamacpp`, `anthropic`, `openai`, `ScriptedModel`."""

    @property
    def name(self) -> str:
        """As a user writes it, provider first: ``"llamacpp:qwen2.5-coder-0.5b"``."""
        ...

    @property
    def provider(self) -> str:
        """``gen_ai.provider.name``: ``"llamacpp"``, ``"anthropic"``, ``"openai"``."""
        ...

    @property
    def place(self) -> Place:
        """Whether prompts stay on this machine."""
        ...

    @property
    def price(self) -> Price: ...

    @property
    def context_window(self) -> int:
        """Input and output tokens that fit together."""
        ...

    @property
    def fingerprint(self) -> str:
        """What identifies the answers of this model in a cache key: the weights' sha256 and template, or
        the API's address and model id. Never a key or secret."""
        ...

    async def count_input(self, request: Request) -> InputCount:
        """Count the input of `request` as it will be sent, template and schema included, before sending it."""
        ...

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """Answer `request`. Raises the `ModelError` tree; `meter` knows what was sent and used, always.

        Cancelling the awaiting task stops a local generation within about one token, reports what it used
        to `meter`, and re-raises ``CancelledError``. One call is one billable request: no retry inside.
        """
        ...

    async def aclose(self) -> None:
        """Free the model's memory and connections."""
        ...
