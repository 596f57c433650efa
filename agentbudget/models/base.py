"""The seam to language models: one request, one completion, one meter, whoever serves them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from agentbudget.usage import Usage

JsonSchema = Mapping[str, Any]
Role = Literal["system", "user", "assistant", "tool"]
Place = Literal["local", "remote"]
Finish = Literal["stop", "length", "budget", "refused", "tools", "cut"]
ImageType = Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
Detail = Literal["low", "high", "auto"]
CacheTime = Literal["5m", "1h"]
ToolChoice = Literal["auto", "required", "none"]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture in a message: its bytes as they stand in a file, and how closely the model should look."""

    data: bytes = field(repr=False)
    media_type: ImageType
    detail: Detail = "auto"


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model may ask for instead of answering. ``parameters`` is the JSON schema (an object) of its arguments."""

    name: str
    description: str
    parameters: JsonSchema


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model asks for a tool. ``arguments`` is JSON as the model wrote it: perhaps not valid, or not of the schema."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    ``calls`` are the tools that an assistant's turn asked for. A turn of the role ``"tool"`` brings the result of one:
    ``answers`` is that call's id. ``echo`` is that of the `Completion` which an assistant's turn brings back: a model
    that wants it (and made it) gets it, others never see it.
    """

    role: Role
    text: str
    images: tuple[Image, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    answers: str | None = None
    echo: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of a model: everything that changes the answer, and the caps that its hold paid for.

    ``schema`` is a JSON schema that the answer must fit (any type at the top level, not only objects);
    the completion's text is then JSON. ``max_output_tokens`` includes reasoning, of which ``reasoning_tokens`` is the
    most (None: the model's own way). ``max_compute_s`` cuts a local model when it has computed for so long (finish
    ``"budget"``). ``timeout_s`` bounds a remote call. The first ``fixed`` messages, and the tools, are the same in many
    requests: what a cache of prompts should keep, for ``cache_time`` where its owner charges by that.
    """

    messages: tuple[Message, ...]
    max_output_tokens: int
    schema: JsonSchema | None = None
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    max_compute_s: float | None = None
    timeout_s: float = 120.0
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    reasoning_tokens: int | None = None
    fixed: int = 0
    cache_time: CacheTime = "5m"


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer.

    ``finish``: ``"stop"`` it ended by itself, ``"tools"`` it asks for the tools in ``calls``, ``"length"`` the output
    cap cut it, ``"budget"`` the compute cap cut it, ``"cut"`` a stream was left since its hold could not grow,
    ``"refused"`` the model declined. ``confidence`` is the geometric mean probability of the output tokens (0 to 1)
    where the model reports probabilities, else None. ``served_by`` is the name of the model that the provider says
    answered. ``price`` is what was charged by where that is not the model's own: another service tier than asked for.
    ``echo`` is what the provider wants back, unread, with a turn that asked for tools: its signed or sealed reasoning.
    """

    text: str
    finish: Finish
    usage: Usage
    served_by: str
    confidence: float | None = None
    calls: tuple[ToolCall, ...] = ()
    price: Price | None = None
    echo: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer as it arrives. The last one of a stream has the whole in ``completion``, and no text."""

    text: str = ""
    completion: Completion | None = None


@dataclass(slots=True)
class Meter:
    """How far one attempt got. The model reports to it; the step settles by it, however the attempt ends.

    A model calls `leaving` just before anything leaves (or compute starts), and `used` whenever it knows
    what has been used so far: at the end, when it is cancelled, and before it raises. A stream asks `may_go_on` with
    the most that has been used so far whenever that has grown, and ends (finish ``"cut"``) when it may not.

    ``usage`` is the truth as the provider (or the local engine) counts it. ``presumed`` is a bound for what a stream
    used that ended without the provider's word: what arrived, and what may have been under way. ``saved_usd_nano`` is
    what a cache spared that gave the answer in the provider's place.
    """

    on_leaving: Callable[[], None] | None = None
    sent: bool = False
    usage: Usage | None = field(default=None)
    presumed: Usage | None = field(default=None)
    gate: Callable[[Usage], bool] | None = None
    saved_usd_nano: int | None = None

    def leaving(self) -> None:
        """The request is about to leave: from here on it may be billed."""
        if not self.sent:
            if self.on_leaving is not None:
                self.on_leaving()
            self.sent = True

    def used(self, usage: Usage) -> None:
        """What this attempt has used until now, as the provider (or the local engine) counts it."""
        self.usage = usage

    def may_go_on(self, so_far: Usage) -> bool:
        """Whether the hold covers what a stream has used so far and may use until it asks again. Any thread may ask."""
        return self.gate is None or self.gate(so_far)


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

    def bound(self, *, input_tokens: int, output_tokens: int, cache_1h: bool = True) -> int:
        """The most that a call with at most these tokens may cost, in nano-dollars.

        Without ``cache_1h`` the request asks for no cache of an hour, whose writes are the dearest input.
        """
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

    @property
    def stream_lead_tokens(self) -> int | None:
        """Output tokens that a stream may still be charged for after it is closed: made, and not yet arrived.

        None where nobody says that the provider stops, and charges no more, when a stream is closed: then only a hold
        of the worst case covers a stream.
        """
        ...

    def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """Answer `request` piece by piece; what `complete` says of errors, cancelling and the meter holds here too.

        Closing the generator early leaves the provider's stream, and reports what is known to `meter`. A stream that
        breaks off raises `OutcomeUnknown` (or cut-off errors of its tree) after the pieces that arrived.
        """
        ...

    async def aclose(self) -> None:
        """Free the model's memory and connections."""
        ...


async def in_one_piece(model: Model, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
    """A stream of a model that cannot stream: the whole answer at once."""
    answer = await model.complete(request, meter)
    yield Delta(answer.text)
    yield Delta(completion=answer)
