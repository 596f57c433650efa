"""JSON schema → GBNF: what llama.cpp takes, what can be written with it, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from agentbudget.errors import SchemaUnsupported
from agentbudget.models.grammar import to_gbnf

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


class Person(BaseModel):
    """Refers to itself, with required and optional fields in every order."""

    nick: str | None = None
    name: str
    age: Annotated[int, Field(ge=0, le=120)]
    kids: list[Person] = []
    rank: Literal["a", 'b"c\n'] = "a"


TYPES: tuple[Any, ...] = (
    Person,
    Literal["billing", "bug"],
    bool,
    int,
    float,
    str,
    str | None,
    list[str],
    dict[str, int],
    tuple[int, str],
    Annotated[float, Field(ge=0, le=1)],
    Annotated[int, Field(gt=-20)],
    Annotated[list[int], Field(min_length=2, max_length=3)],
)
SCHEMAS: Sequence[Any] = [
    *(TypeAdapter(kind).json_schema() for kind in TYPES),
    {},
    True,
    {"const": None},
    {"type": ["string", "null"], "maxLength": 3},
    {"type": "object", "additionalProperties": False},
    {"type": "integer", "minimum": 10**16},
    {"type": "integer", "exclusiveMaximum": -(10**15)},
    {"type": "number", "minimum": 10**16},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"properties": {"a": {}, "b": {"type": "null"}}},
    {"properties": {f"field {number}": {"type": "integer"} for number in range(60)}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:50])
def test_llama_cpp_takes_the_grammar(schema: dict[str, object], smollm2: Path) -> None:
    from agentbudget.models.llama.vocabulary import Vocabulary

    vocabulary = Vocabulary(smollm2)
    vocabulary.check_grammar(to_gbnf(schema))
    vocabulary.close()


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "string", "pattern": "a+"}, "pattern"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "integer", "multipleOf": 2}, "multipleOf"),
        ({"type": "object", "patternProperties": {}}, "patternProperties"),
        ({"not": {"type": "string"}}, "not"),
        ({"allOf": [{"type": "string"}, {"maxLength": 2}]}, "allOf"),
        ({"type": "number", "minimum": -0.5}, "minimum"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no whole number"),
        ({"type": "colour"}, "colour"),
        ({"$ref": "other.json"}, "other.json"),
        ({"$ref": "#/$defs/absent"}, "absent"),
        ({"properties": {"a": False}}, "#/properties/a"),
        ({"properties": {"a": {"items": {"pattern": "x"}}}}, "#/properties/a/items"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "b"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(schema: dict[str, object], keyword: str) -> None:
    with pytest.raises(SchemaUnsupported, match=re.escape(keyword)):
        to_gbnf(schema)


@pytest.mark.parametrize(
    ("schema", "inside", "outside"),
    [
        ({"minimum": 10**16}, [10**16, 10**17, 9 * 10**17], [10**16 - 1, 0]),
        ({"maximum": -(10**16)}, [-(10**16), -(10**17)], [-(10**16) + 1, 0]),
        ({"minimum": 10**15 - 1}, [10**15 - 1, 10**15], [10**15 - 2]),
        ({"minimum": 7}, [7, 10**15 - 1], [6, 10**15]),
    ],
)
def test_a_bound_of_more_digits_than_numbers_have_is_kept(
    schema: dict[str, int], inside: list[int], outside: list[int]
) -> None:
    pattern = to_gbnf({"type": "integer", **schema}).removeprefix("root ::= ").replace('"', "").replace(" ", "")
    assert all(re.fullmatch(pattern, str(number)) for number in inside)
    assert not any(re.fullmatch(pattern, str(number)) for number in outside)


@given(st.integers(-3000, 3000), st.integers(0, 3000), st.integers(-7000, 7000))
def test_a_range_holds_just_the_numbers_between_its_bounds(low: int, span: int, number: int) -> None:
    root = to_gbnf({"type": "integer", "minimum": low, "maximum": low + span}).removeprefix("root ::= ")
    pattern = root.replace('"', "").replace(" ", "")
    assert bool(re.fullmatch(pattern, str(number))) == (low <= number <= low + span)
