"""Models: one file per provider behind one protocol (`base`), the catalog of local weights, the ladder of both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentbudget.errors import UnknownModel, UnknownPrice
from agentbudget.models import speeds
from agentbudget.models.base import Completion, Finish, InputCount, Message, Meter, Model, Price, Request
from agentbudget.models.ladder import Ladder
from agentbudget.models.remote import is_loopback
from agentbudget.models.servers import PROFILES, Profile
from agentbudget.prices import ComputePrice, price_of
from agentbudget.settings import Settings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

__all__ = [
    "Completion",
    "Finish",
    "InputCount",
    "Ladder",
    "Message",
    "Meter",
    "Model",
    "Price",
    "Request",
    "default_names",
    "local_price",
    "machine_price",
    "make_ladder",
    "make_model",
]

LOCAL: Final = ("llamacpp:qwen2.5-coder-0.5b", "llamacpp:qwen2.5-coder-1.5b")
"""The ladder where no key is set."""

FRONTIER: Final = (
    ("ANTHROPIC_API_KEY", "anthropic:claude-sonnet-5-5"),
    ("OPENAI_API_KEY", "openai:gpt-5.5"),
)
"""The frontier tier of the first key that is set; AGENTBUDGET_MODELS names any other."""

COLD_SAFETY: Final = 6
"""How much longer than on the machine of the catalog's figures a call may take before this one is measured."""

STATES: Final = "prompts"
"""The folder of a home where what llama.cpp computed of fixed prompts is kept."""

UNMEASURED: Final = (100.0, 15.0)
"""Prefill and decode tokens a second assumed of a GGUF that is not in the catalog."""


def default_names(settings: Settings) -> tuple[str, ...]:
    """The ladder that the environment asks for: AGENTBUDGET_MODELS, else local with the frontier of a key."""
    if settings.models:
        return settings.models
    for variable, name in FRONTIER:
        if os.environ.get(variable):
            return (LOCAL[0], name)
    return LOCAL


def make_ladder(models: Sequence[str | Model | BaseChatModel] | None, settings: Settings) -> Ladder:
    """A ladder of `models`, or of `default_names`. Nothing is loaded yet. Raises `UnknownModel`, `UnknownPrice`."""
    chosen = default_names(settings) if models is None else models
    return Ladder(tuple(make_model(m, settings) if isinstance(m, str) else _rung(m) for m in chosen))


def _rung(given: Model | BaseChatModel) -> Model:
    """A model as it is; a chat model of LangChain's behind our protocol."""
    if isinstance(given, Model):
        return given
    from agentbudget.models.langchain import LangChainModel

    return LangChainModel(given)


def make_model(name: str, settings: Settings) -> Model:
    """The model that `name` stands for.

    ``llamacpp:<catalog name or path of a .gguf>``, ``anthropic:<model>``, ``openai:<model>``;
    ``<server>:<model>[@<base url>]`` for a kind of server with a profile (`agentbudget.models.servers`), such as
    ``vllm`` or ``llama-server``; and ``openai:<model>@<base url>`` for any other that speaks OpenAI's protocol.
    """
    provider, _, rest = name.partition(":")
    if not rest:
        raise UnknownModel(f"{name!r} names no provider: write 'llamacpp:…', 'anthropic:…' or 'openai:…'")
    if provider in PROFILES:
        return _served(name, PROFILES[provider], rest, settings)
    if provider == "llamacpp":
        return _local(name, rest, settings)
    if provider == "anthropic":
        from agentbudget.models.anthropic import AnthropicModel

        return AnthropicModel(rest)
    if provider == "openai":
        from agentbudget.models.openai import OpenAIModel

        model, _, address = rest.partition("@")
        return OpenAIModel(model, base_url=address or None, name=name)
    known = ", ".join(("llamacpp", "anthropic", "openai", *PROFILES))
    raise UnknownModel(f"unknown provider {provider!r} in {name!r}: known are {known}")


def machine_price(settings: Settings) -> ComputePrice:
    """What a second of this machine costs, whatever it computes."""
    return ComputePrice.here(
        settings, prefill_tokens_per_s=UNMEASURED[0], decode_tokens_per_s=UNMEASURED[1], safety=COLD_SAFETY
    )


def local_price(
    settings: Settings, sha256: str, *, known: tuple[float | None, float | None] = UNMEASURED
) -> ComputePrice:
    """What a second of this machine costs, at the speeds of the weights `sha256`.

    They are those that ``agentbudget models bench`` measured here; else `known`, with more room for another machine.
    """
    speed = speeds.measured(settings.home, sha256)
    if speed is not None:
        return ComputePrice.here(
            settings,
            prefill_tokens_per_s=speed.prefill_tokens_per_s,
            decode_tokens_per_s=speed.decode_tokens_per_s,
        )
    return ComputePrice.here(
        settings,
        prefill_tokens_per_s=known[0] or UNMEASURED[0],
        decode_tokens_per_s=known[1] or UNMEASURED[1],
        safety=COLD_SAFETY,
    )


def _served(name: str, profile: Profile, rest: str, settings: Settings) -> Model:
    """A model behind a server of a known kind. On this machine it is paid for by the second, unless it has a price."""
    from agentbudget.models.openai import OpenAIModel

    model, _, given = rest.partition("@")
    address = given or profile.address
    if address is None or not is_loopback(address):
        return OpenAIModel(model, base_url=address, profile=profile, name=name)
    try:
        price: Price = price_of(profile.name, model)
    except UnknownPrice:
        price = machine_price(settings)
    return OpenAIModel(model, base_url=address, profile=profile, price=price, name=name)


def _local(name: str, rest: str, settings: Settings) -> Model:
    from agentbudget.models import catalog
    from agentbudget.models.llamacpp import LlamaCppModel

    if rest.endswith(".gguf"):
        path = Path(rest).expanduser()
        if not path.is_file():
            raise UnknownModel(f"there is no file {rest!r}")
        sha256 = catalog.file_sha256(path)
        price = local_price(settings, sha256)
        return LlamaCppModel(name, path, price=price, fingerprint=sha256, states=settings.home / STATES)
    entry = catalog.entry(rest)
    if entry.kind != "gguf":
        raise UnknownModel(f"{rest!r} is an embedding model; it cannot answer")
    known = (entry.prefill_tokens_per_s, entry.decode_tokens_per_s)
    price = local_price(settings, entry.sha256, known=known)
    return LlamaCppModel.from_catalog(rest, price=price, states=settings.home / STATES)
