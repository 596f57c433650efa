"""Schemas for strict structured output: what fits the sent schema fits the one that was asked for."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Literal, cast

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from agentbudget.errors import SchemaUnsupported
from agentbudget.models.structured import strict, wrap


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    kind: Literal["leaf"]
    size: int = Field(ge=1, le=9)


class Branch(BaseModel):
    kind: Literal["branch"]
    leaves: list[Leaf] = Field(min_length=1)
    name: str | None = None
    label: str = Field(default="none", min_length=2)


class Tree(BaseModel):
    children: list[Tree]


def schema_of(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema()


def levels(value: object) -> list[dict[str, Any]]:
    """Every object of a JSON value."""
    if isinstance(value, list):
        return [level for item in cast("list[object]", value) for level in levels(item)]
    if not isinstance(value, dict):
        return []
    this = cast("dict[str, object]", value)
    return [this, *(level for item in this.values() for level in levels(item))]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (Literal["billing", "bug"], "bug"),
        (str, "text"),
        (int, 7),
        (bool, True),
        (list[str], ["a", "b"]),
        (str | None, None),
        (Color, "red"),
        (list[Leaf], [{"kind": "leaf", "size": 2}]),
        (Leaf | Branch, {"kind": "leaf", "size": 2}),
    ],
)
def test_an_answer_that_is_no_object_travels_inside_one(kind: Any, answer: object) -> None:
    structure = strict(schema_of(kind))
    assert structure.wrapped
    assert structure.schema["type"] == "object"
    unwrapped = structure.unwrap(json.dumps({"result": answer}))
    assert json.loads(unwrapped) == answer
    TypeAdapter(kind).validate_json(unwrapped)


@pytest.mark.parametrize("kind", [Leaf, Branch, Tree])
def test_an_object_travels_as_it_is(kind: type[BaseModel]) -> None:
    structure = strict(kind.model_json_schema())
    assert not structure.wrapped
    assert structure.schema["type"] == "object"
    assert structure.unwrap('{"a": "ü"}') == '{"a": "ü"}'


@pytest.mark.parametrize("kind", [Leaf, Branch, Tree, list[Branch], Leaf | Branch])
def test_every_object_is_closed_and_requires_all_that_it_has(kind: Any) -> None:
    schema = strict(schema_of(kind)).schema
    objects = [level for level in levels(schema) if level.get("type") == "object"]
    assert objects
    for level in objects:
        assert level["additionalProperties"] is False
        assert level["required"] == list(level["properties"])
    assert not [level for level in levels(schema) if "oneOf" in level or "default" in level]


def test_references_still_lead_to_their_definitions() -> None:
    schema = strict(schema_of(list[Branch])).schema
    references = {level["$ref"] for level in levels(schema) if "$ref" in level}
    assert references == {"#/$defs/Branch", "#/$defs/Leaf"}
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    assert set(definitions) == {"Branch", "Leaf"}  # pyright: ignore[reportUnknownArgumentType] - JSON


def test_limits_that_can_be_enforced_stay_and_others_become_words() -> None:
    branch = strict(Branch.model_json_schema()).schema
    properties: Any = branch["properties"]
    assert properties["leaves"]["minItems"] == 1
    assert properties["label"] == {"type": "string", "description": "(minLength: 2)"}
    leaf: Any = strict(Leaf.model_json_schema()).schema["properties"]
    assert leaf["size"] == {"type": "integer", "minimum": 1, "maximum": 9}


def test_several_types_become_a_union_of_one_each() -> None:
    schema: Any = strict({"type": ["string", "null"], "pattern": "^a"}).schema
    assert schema["properties"]["result"] == {
        "anyOf": [{"type": "string", "pattern": "^a"}, {"type": "null", "pattern": "^a"}]
    }


def test_the_schema_that_was_given_is_left_alone() -> None:
    given = schema_of(list[Branch])
    before = json.dumps(given)
    strict(given)
    assert json.dumps(given) == before


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        (schema_of(dict[str, int]), "free keys"),
        ({"type": "object", "properties": {"m": {"type": "object"}}}, "the schema, m: an object with free keys"),
        (schema_of(tuple[int, str]), "prefixItems"),
        ({"type": "object", "properties": {"x": {}}}, "the schema, x: any value"),
        ({"type": "array"}, "type of its items"),
        ({"allOf": [{"type": "string"}, {"enum": ["a"]}]}, "allOf"),
        ({"type": "string", "sparkle": True}, "sparkle"),
        ({"$ref": "#/$defs/Gone"}, "does not define"),
        ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, "its own root"),
    ],
)
def test_a_schema_that_would_lose_its_meaning_is_refused_by_place(schema: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SchemaUnsupported, match=complaint):
        strict(schema)


@pytest.mark.parametrize("text", ["not json", '{"other": 1}', "[1]", '{"result": 1', '{"result":' + "[" * 5000])
def test_an_answer_without_its_wrapping_is_told_apart(text: str) -> None:
    with pytest.raises(ValueError, match=r"result|JSON|Expecting|delimiter|too deep"):
        wrap({"type": "integer"}).unwrap(text)
