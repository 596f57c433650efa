"""A ladder of models, cheapest first, and how a name becomes a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentbudget.errors import UnknownModel
from agentbudget.models.base import Model


@dataclass(frozen=True, slots=True)
class Ladder:
    """Models from cheapest to strongest. ``"local"`` names the first, ``"frontier"`` the last."""

    models: tuple[Model, ...]
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The models' names, cheapest first."""

    def __post_init__(self) -> None:
        if not self.models:
            raise UnknownModel("a ladder needs at least one model, such as 'llamacpp:qwen2.5-coder-0.5b'")
        object.__setattr__(self, "names", tuple(model.name for model in self.models))
        if len(set(self.names)) < len(self.names):
            raise UnknownModel(f"a model stands on the ladder twice ({', '.join(self.names)}): name each once")

    @property
    def cheapest(self) -> Model:
        """The first rung."""
        return self.models[0]

    def at(self, tier: str) -> Model:
        """The model of a tier or name. Raises `UnknownModel`."""
        return self.models[self._index(tier)]

    def rung(self, model: Model) -> int:
        """Where `model` stands, 0 for the cheapest."""
        return self.names.index(model.name)

    def climb(self, tier: str, escalate: str | None) -> Sequence[Model]:
        """The models to try in order: from `tier` up to `escalate`; `tier` alone without it."""
        start = self._index(tier)
        top = start if escalate is None else self._index(escalate)
        return self.models[start : max(start, top) + 1]

    def _index(self, tier: str) -> int:
        if tier == "local":
            return 0
        if tier == "frontier":
            return len(self.models) - 1
        if tier in self.names:
            return self.names.index(tier)
        raise UnknownModel(f"{tier!r} is neither 'local', 'frontier' nor on the ladder ({', '.join(self.names)})")

    async def aclose(self) -> None:
        """Free every model."""
        for model in self.models:
            await model.aclose()
