"""Servers that speak OpenAI's protocol, each with its ways: what it takes, what it says of itself, when it stops.

A `Profile` is data. Where each fact was read stands beside it; recorded exchanges of every server play them in
``tests/models/exchanges``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from agentbudget.models.base import ImageType

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
CapName = Literal["max_tokens", "max_completion_tokens"]
SchemaForm = Literal["named", "bare", "value"]
Counter = Literal["responses", "chat", "tokenize", "chat_tokenize"]
WindowSource = Literal["props", "models", "info", "ps", "loaded"]
Running = Literal["timings", "continuous"]

EVERY_IMAGE: Final[frozenset[ImageType]] = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
EVERY_EFFORT: Final[tuple[Effort, ...]] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
ROOTS: Final = ("/engines/v1", "/v1")
"""Where a server's OpenAI protocol begins, below the server's own endpoints."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The ways of one kind of server.

    ``address`` is where it listens unless it is told otherwise (None: nowhere in particular). ``cap`` is what it calls
    the most output tokens. ``schema`` says how a JSON schema is wrapped in ``response_format``: ``"named"`` as OpenAI
    does, ``"bare"`` the schema itself in its place, ``"value"`` under that name. The next ones say whether it takes a
    schema together with tools, and in its Responses API if it has one; whether it minds ``tool_choice``, stop sequences
    and a seed; which pictures it reads, and which efforts it knows.

    ``health`` is the path that answers 200 when it is up. ``count`` is how it counts a request's tokens, ``window``
    where it says how long its context is, ``running`` how a stream is asked for its usage so far.
    ``usage_in_streams``: whether a stream ends with its usage. ``lead_tokens`` is how many tokens it may have made
    beyond what arrived when a stream is closed; None if nobody says that closing stops it.
    ``source`` is where most of it was read.
    """

    name: str
    address: str | None
    source: str
    cap: CapName = "max_tokens"
    schema: SchemaForm = "named"
    schema_with_tools: bool = True
    schema_in_responses: bool = True
    tool_choice: bool = True
    stop: bool = True
    seed: bool = True
    image_types: frozenset[ImageType] = EVERY_IMAGE
    efforts: tuple[Effort, ...] = EVERY_EFFORT
    health: str = "/v1/models"
    count: Counter | None = None
    window: WindowSource | None = None
    running: Running | None = None
    usage_in_streams: bool = True
    lead_tokens: int | None = None


def root_of(address: str) -> str:
    """A server's own root, for the endpoints that stand beside its OpenAI protocol."""
    return next((address.removesuffix(end) for end in ROOTS if address.endswith(end)), address)


OPENAI: Final = Profile(
    name="openai",
    address="https://api.openai.com/v1",
    source="https://developers.openai.com/api/reference",
    cap="max_completion_tokens",
    # Responses has no stop sequences; requests with some go to the chat API.
    count="responses",
)
"""OpenAI itself. It does not say that closing a stream ends the billing: ``lead_tokens`` is None."""

COMPATIBLE: Final = Profile(name="openai", address=None, source="https://developers.openai.com/api/reference")
"""A server at some address of which no more is known than that it speaks the chat API."""

LLAMA_SERVER: Final = Profile(
    name="llama-server",
    address="http://127.0.0.1:8080/v1",
    source="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    schema_in_responses=False,  # server-chat.cpp turns responses into chat requests, and leaves text.format out
    health="/health",  # 503 while the model is loaded
    count="chat",  # POST /v1/chat/completions/input_tokens renders the template, tools and schema included
    window="props",  # n_ctx of one slot
    running="timings",  # timings_per_token: counts and milliseconds in every chunk
    # It looks at the connection before each token that it sends (server-context.cpp, should_stop); measured in
    # tests/models/test_llama_server.py. Speculative decoding makes up to 16 at once.
    lead_tokens=24,
)

VLLM: Final = Profile(
    name="vllm",
    address="http://localhost:8000/v1",
    source="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
    efforts=("none", "low", "medium", "high"),
    health="/health",
    count="tokenize",  # POST /tokenize takes messages and tools, renders the template, answers count and max_model_len
    window="models",  # max_model_len in /v1/models
    running="continuous",  # stream_options.continuous_usage_stats
    # "requests do get aborted internally", a maintainer in https://github.com/vllm-project/vllm/pull/32442
    lead_tokens=32,
)

OLLAMA: Final = Profile(
    name="ollama",
    address="http://localhost:11434/v1",
    source="https://docs.ollama.com/api/openai-compatibility",
    tool_choice=False,  # not among the supported fields
    # openai/openai.go decodes these alone: any other picture is "invalid image input"
    image_types=frozenset({"image/png", "image/jpeg", "image/webp"}),
    efforts=("none", "low", "medium", "high"),
    health="/api/version",
    # It cuts off the beginning of what does not fit, without a word: the window must be known.
    # /api/ps states that of loaded models: https://docs.ollama.com/context-length
    window="ps",
    # server/routes.go hands the request's context to the runner: a closed connection cancels it. No limit is stated.
    lead_tokens=None,
)

DOCKER_MODEL_RUNNER: Final = Profile(
    name="docker-model-runner",
    address="http://localhost:12434/engines/v1",
    source="https://docs.docker.com/ai/model-runner/api-reference/",
    health="/engines/status",
    # It passes on inference alone to its engine (llama.cpp, or vLLM): no tokenizer, no window, in
    # https://github.com/docker/model-runner/blob/main/pkg/inference/scheduling/http_handler.go
)

FOUNDRY_LOCAL: Final = Profile(
    name="foundry-local",
    # The service binds a port of its own choice, which `foundry service status` shows; the examples have this one.
    address="http://127.0.0.1:5273/v1",
    source="https://github.com/microsoft/Foundry-Local/tree/main/sdk_v2/cpp/src/service",
    cap="max_completion_tokens",
    schema="bare",  # chat_completions_converter.cc hands json_schema to its guidance as it is
    stop=False,  # MapStopSequences turns any into "early_stopping"
    health="/status",
    # chat_completions_handler.cc generates in a thread of its own, whoever is there to listen: closing stops nothing
)

TGI: Final = Profile(
    name="tgi",
    address="http://localhost:8080/v1",
    source="https://github.com/huggingface/text-generation-inference/blob/main/docs/openapi.json",
    schema="value",  # GrammarType: {"type": "json", "value": schema}
    schema_with_tools=False,  # "Grammar and tools are mutually exclusive"
    efforts=(),
    health="/health",
    count="chat_tokenize",  # POST /chat_tokenize: a list of tokens of the rendered template
    window="info",  # max_total_tokens in /info
)

TENSORRT_LLM: Final = Profile(
    name="tensorrt-llm",
    address="http://localhost:8000/v1",
    source="https://nvidia.github.io/TensorRT-LLM/commands/trtllm-serve/trtllm-serve.html",
    # It refuses every field that it does not know (openai_protocol.py, extra="forbid").
    efforts=("none", "low", "medium", "high", "max"),
    health="/health",
    running="continuous",
    # openai_server.py looks once a second whether the client is gone: that is no number of tokens
    lead_tokens=None,
)

LM_STUDIO: Final = Profile(
    name="lm-studio",
    address="http://localhost:1234/v1",
    source="https://lmstudio.ai/docs/developer/openai-compat/chat-completions",
    tool_choice=False,  # not among the payload parameters
    efforts=(),
    window="loaded",  # loaded_context_length in /api/v0/models: https://lmstudio.ai/docs/developer/rest/endpoints
    # "Client disconnected. Stopping generation…" does not hold in every case:
    # https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/1203
    lead_tokens=None,
)

PROFILES: Final = {
    profile.name: profile
    for profile in (
        LLAMA_SERVER,
        VLLM,
        OLLAMA,
        DOCKER_MODEL_RUNNER,
        FOUNDRY_LOCAL,
        TGI,
        TENSORRT_LLM,
        LM_STUDIO,
    )
}
"""The named profiles: what stands before the colon of ``vllm:MODEL@URL``."""
