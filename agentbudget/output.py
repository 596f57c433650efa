"""What a skill returns, as a model must produce it: its schema, how a text is read into it, what a model is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args, get_origin

from agentbudget.errors import SkillError
from agentbudget.models.base import JsonSchema

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True)
class Output:
    """A return type: its JSON schema, how to read a model's text into it, and what to tell the model."""

    type: Any

    @property
    def name(self) -> str:
        """The type's name, for messages; of an annotated type that of what is annotated."""
        kind = get_args(self.type)[0] if get_origin(self.type) is Annotated else self.type
        return getattr(kind, "__name__", None) or str(kind).removeprefix("typing.")

    @property
    def is_text(self) -> bool:
        """True for plain ``str``, which needs no schema."""
        return self.type is str

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        from pydantic import PydanticUserError, TypeAdapter
        from pydantic_core import SchemaError

        try:
            return TypeAdapter(self.type)
        except (PydanticUserError, SchemaError) as error:
            raise self._unusable(error) from error

    @cached_property
    def schema(self) -> JsonSchema | None:
        """The JSON schema that a model's output must fit; None for text. Raises `SkillError` for a type without one."""
        from pydantic import PydanticUserError

        try:
            return None if self.is_text else self._adapter.json_schema()
        except PydanticUserError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> SkillError:
        why = str(error).partition("\n\n")[0]
        return SkillError(
            f"{self.name} cannot be what a model answers, use a type that pydantic has a schema for: {why}"
        )

    def parse(self, text: str) -> Any:
        """The value in a model's text. Raises ``ValueError``, which says where it does not fit the type."""
        if self.is_text:
            return text.strip()
        from pydantic import ValidationError

        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ValueError(f"{where}: {problem['msg']}" if where else problem["msg"]) from error

    def reads(self, text: str) -> bool:
        """Whether `parse` takes this text."""
        try:
            self.parse(text)
        except ValueError:
            return False
        return True

    def dump(self, value: Any) -> Any:
        """The value as JSON-ready data."""
        return self._adapter.dump_python(value, mode="json")

    @cached_property
    def instruction(self) -> str:
        """What a model is told about the form of its answer; empty for text."""
        if self.is_text:
            return ""
        if get_origin(self.type) is Literal:
            return "Answer with exactly one of: " + ", ".join(json.dumps(label) for label in get_args(self.type)) + "."
        if self.type is bool:
            return "Answer with true or false."
        return "Answer in JSON that fits this schema: " + json.dumps(_lean(self.schema), separators=(",", ":"))


def _lean(schema: Any) -> Any:
    """A schema without titles and the docstrings of classes: they are not written for a model, and it repeats them."""
    if isinstance(schema, Mapping):
        items = cast(Mapping[str, Any], schema)
        return {k: _lean(v) for k, v in items.items() if not (k in ("title", "description") and isinstance(v, str))}
    if isinstance(schema, list):
        return [_lean(item) for item in cast(list[Any], schema)]
    return schema
