"""JSON schemas as OpenAI and Anthropic accept them: an object at the top, closed, every property required."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from agentbudget.errors import SchemaUnsupported
from agentbudget.models.base import JsonSchema

RESULT: Final = "result"
"""The property that holds an answer whose type is not an object."""

FORMATS: Final = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})

KEPT: Final = frozenset(
    {"type", "enum", "const", "description", "pattern", "multipleOf", "minItems", "maxItems"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
)
"""Keywords that strict structured output enforces."""

DROPPED: Final = frozenset({"title", "default", "discriminator", "required", "additionalProperties", "$schema", "$id"})
"""Keywords that say nothing about the answer, or that are set anew."""

IMPOSSIBLE: Final = frozenset(
    {"not", "if", "then", "else", "patternProperties", "prefixItems", "dependentRequired", "dependentSchemas"}
    | {"unevaluatedProperties", "propertyNames", "contains", "$dynamicRef"}
)
"""Keywords whose meaning would be lost without a word."""

HINTED: Final = frozenset(
    {"minLength", "maxLength", "uniqueItems", "examples", "format", "minProperties", "maxProperties"}
    | {"contentEncoding", "contentMediaType", "deprecated", "readOnly", "writeOnly", "$comment"}
)
"""Keywords that cannot be enforced while decoding: the model reads them in the description, verification checks."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A schema to send, and whether the answer comes inside ``{"result": …}``."""

    schema: dict[str, object]
    wrapped: bool

    def unwrap(self, text: str) -> str:
        """The answer itself, as JSON. Raises `ValueError` if `text` is not JSON or lacks the wrapping."""
        try:
            value: object = json.loads(text)
        except RecursionError as error:
            raise ValueError("the answer is nested too deep") from error
        if not self.wrapped:
            return text
        if not isinstance(value, dict) or RESULT not in value:
            raise ValueError(f"the answer is not an object with {RESULT!r}")
        return json.dumps(cast("dict[str, object]", value)[RESULT], ensure_ascii=False)


def wrap(schema: JsonSchema) -> Structure:
    """The schema as it is, inside an object if its answers are not objects already."""
    root = _resolved(schema)
    if root.get("type") == "object" and "anyOf" not in root:
        return Structure(root, wrapped=False)
    if '"$ref": "#"' in json.dumps(schema):
        raise SchemaUnsupported('a schema that refers to its own root ("#") must be an object; name the type in $defs')
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    outer: dict[str, object] = {
        "type": "object",
        "properties": {RESULT: inner},
        "required": [RESULT],
        "additionalProperties": False,
    }
    return Structure({**outer, "$defs": schema["$defs"]} if "$defs" in schema else outer, wrapped=True)


def strict(schema: JsonSchema) -> Structure:
    """The schema under the rules of strict structured output: what fits the result fits `schema`.

    Optional properties become required (an answer that has them all still fits), ``oneOf`` becomes
    ``anyOf``, and limits that cannot be enforced move into the description. Raises `SchemaUnsupported`
    for what would lose its meaning: open maps, tuples, conditionals.
    """
    wrapped = wrap(schema)
    return Structure(_closed(wrapped.schema, "the schema"), wrapped.wrapped)


def _resolved(schema: JsonSchema) -> dict[str, object]:
    """A schema whose root is a reference, with what it refers to as its root."""
    reference = schema.get("$ref")
    definitions = cast("Mapping[str, Mapping[str, object]]", schema.get("$defs", {}))
    if reference is None:
        return dict(schema)
    target = definitions.get(str(reference).removeprefix("#/$defs/"))
    if target is None:
        raise SchemaUnsupported(f"the schema refers to {reference!r}, which it does not define in $defs")
    return _resolved({**target, "$defs": definitions})


def _closed(schema: Mapping[str, Any], where: str) -> dict[str, object]:
    """One level of the schema; `where` names it in an error."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    if isinstance(schema.get("type"), list):
        return _closed({"anyOf": [{**schema, "type": kind} for kind in schema["type"]]}, where)
    _refuse(schema, where)
    closed: dict[str, object] = {key: value for key, value in schema.items() if key in KEPT}
    if schema.get("format") in FORMATS:
        closed["format"] = schema["format"]
    closed |= _unions(schema, where)
    if "items" in schema:
        closed["items"] = _closed(schema["items"], f"{where}, items")
    if schema.get("type") == "object":
        closed |= _object(schema, where)
    if "$defs" in schema:
        closed["$defs"] = {name: _closed(value, f"{where}, {name}") for name, value in schema["$defs"].items()}
    return _hinted(schema, closed)


def _refuse(schema: Mapping[str, Any], where: str) -> None:
    if lost := IMPOSSIBLE & schema.keys():
        raise SchemaUnsupported(
            f"{where}: {', '.join(sorted(lost))} cannot be enforced; use an object or list of one type"
        )
    known = KEPT | DROPPED | HINTED | {"$defs", "properties", "items", "anyOf", "oneOf", "allOf"}
    if unknown := schema.keys() - known:
        raise SchemaUnsupported(f"{where}: {', '.join(sorted(unknown))} is not a keyword that can be enforced")
    if not schema.keys() & {"type", "enum", "const", "anyOf", "oneOf", "allOf"}:
        raise SchemaUnsupported(f"{where}: any value is allowed; give it a type")
    if schema.get("type") == "array" and "items" not in schema:
        raise SchemaUnsupported(f"{where}: a list needs the type of its items")


def _unions(schema: Mapping[str, Any], where: str) -> dict[str, object]:
    variants = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    alone = schema.get("allOf", ())
    if len(alone) > 1:
        raise SchemaUnsupported(f"{where}: allOf of several types cannot be enforced; merge them into one")
    if alone and not variants:
        return _closed(alone[0], where)
    return {"anyOf": [_closed(variant, f"{where}, anyOf") for variant in variants]} if variants else {}


def _object(schema: Mapping[str, Any], where: str) -> dict[str, object]:
    properties: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    if not properties and schema.get("additionalProperties") is not False:
        raise SchemaUnsupported(f"{where}: an object with free keys cannot be enforced; use a list of key and value")
    return {
        "properties": {name: _closed(value, f"{where}, {name}") for name, value in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }


def _hinted(schema: Mapping[str, Any], closed: dict[str, object]) -> dict[str, object]:
    hints = {key: schema[key] for key in schema if key in HINTED and key not in closed}
    if not hints:
        return closed
    words = ", ".join(f"{key}: {json.dumps(value)}" for key, value in hints.items())
    return {**closed, "description": f"{schema.get('description', '')} ({words})".strip()}
