"""JSON schema → GBNF, the grammar that llama.cpp holds a model's output to.

The output is then valid JSON of the schema, written on one line with one space after each colon and comma: few tokens,
no white space to wander in. What a grammar cannot say is refused (`SchemaUnsupported`) rather than left unchecked, so
whoever gets text back can rely on it. `oneOf` is read as `anyOf`, and ``format`` that is not a date, time, date-time
or UUID as an annotation, which is what the JSON schema standard makes of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, cast

from agentbudget.errors import SchemaUnsupported
from agentbudget.models.base import JsonSchema

_ANNOTATIONS: Final = frozenset(
    {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples"}
    | {"deprecated", "readOnly", "writeOnly", "discriminator", "format"}
)
_DIGITS: Final = 15
"""As many as a double holds exactly."""

_PRIMITIVES: Final[Mapping[str, str]] = {
    "value": "object | array | string | number | boolean | null",
    "object": '"{" (string ": " value (", " string ": " value)*)? "}"',
    "array": '"[" (value (", " value)*)? "]"',
    "string": '"\\"" char* "\\""',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" code)',
    "code": '[0-9abcefABCEF] hex{3} | [dD] ([0-7] hex{2} | [89abAB] hex{2} "\\\\u" [dD] [cdefCDEF] hex{2})',
    "hex": "[0-9a-fA-F]",
    "integer": f'"0" | "-"? [1-9] [0-9]{{0,{_DIGITS - 1}}}',
    "number": f'"-"? ("0" | [1-9] [0-9]{{0,{_DIGITS - 1}}}) fraction?',
    "fraction": f'"." [0-9]{{1,{_DIGITS}}}',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "day": '[12] [0-9]{3} "-" (("0" [13578] | "1" [02]) "-" ("3" [01] | early) | ("0" [469] | "11") "-" ("30" | early)'
    ' | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]))',
    "early": '"0" [1-9] | [12] [0-9]',
    "clock": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] "Z"',
}
_FORMATS: Final[Mapping[str, str]] = {
    "date": '"\\"" day "\\""',
    "time": '"\\"" clock "\\""',
    "date-time": '"\\"" day "T" clock "\\""',
    "uuid": '"\\"" hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12} "\\""',
}
_KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}


def to_gbnf(schema: JsonSchema) -> str:
    """The grammar of `schema`, from its rule ``root``. Raises `SchemaUnsupported`, naming the keyword and its place."""
    grammar = _Grammar(schema)
    root = grammar.root()
    return _written({"root": root, **grammar.rules})


def alternatives(choices: Sequence[tuple[str, JsonSchema, str]], *, before: str, after: str) -> str:
    """The grammar of one of several values, each between two texts of its own, all between `before` and `after`.

    Raises `SchemaUnsupported`, as `to_gbnf` does.
    """
    rules: dict[str, str] = {}
    either: list[str] = []
    for number, (start, schema, end) in enumerate(choices):
        part = _Grammar(schema, prefix=f"c{number}")
        either.append(f"{_literal(start)} ({part.root()}) {_literal(end)}")
        rules |= part.rules
    return _written({"root": f"{_literal(before)} {_either(either)} {_literal(after)}", **rules})


def _written(rules: Mapping[str, str]) -> str:
    primitives = {name: _PRIMITIVES[name] for name in _used_primitives(rules.values())}
    return "\n".join(f"{name} ::= {rule}" for name, rule in {**rules, **primitives}.items())


class _Grammar:
    """Rules by name, and the rule that each ``$ref`` became: a schema may refer to itself."""

    def __init__(self, schema: JsonSchema, *, prefix: str = "") -> None:
        self._schema = schema
        self._prefix = prefix
        self.rules: dict[str, str] = {}
        self._refs: dict[str, str] = {}

    def root(self) -> str:
        """What stands for the whole schema; ``rules`` has what it needs."""
        return self._rule(self._schema, "#")

    def _rule(self, schema: object, place: str) -> str:
        """What stands for `schema` on the right of a rule."""
        if schema is True:
            return "value"
        if not isinstance(schema, Mapping):
            raise SchemaUnsupported(f"{place}: {schema!r} admits no value, so no output can fit it")
        schema = cast(JsonSchema, schema)
        keywords = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
        if not keywords:
            return "value"
        if "$ref" in keywords:
            self._refuse(keywords, {"$ref"}, place)
            return self._reference(keywords["$ref"], place)
        if "enum" in keywords or "const" in keywords:
            self._refuse(keywords, {"enum", "const", "type"}, place)
            return _either(_literal(json.dumps(value, ensure_ascii=False)) for value in _values(keywords))
        if len(union := [key for key in ("anyOf", "oneOf", "allOf") if key in keywords]) == 1:
            return self._union(keywords, union[0], place)
        return self._typed(keywords, cast("str | None", schema.get("format")), place)

    def _union(self, keywords: JsonSchema, key: str, place: str) -> str:
        self._refuse(keywords, {key}, place)
        if key == "allOf" and len(keywords[key]) != 1:
            raise SchemaUnsupported(f"{place}/allOf: several schemas at once; write the one schema that they add up to")
        return _either(self._rule(one, f"{place}/{key}/{n}") for n, one in enumerate(keywords[key]))

    def _typed(self, keywords: JsonSchema, style: str | None, place: str) -> str:
        kinds = keywords["type"] if "type" in keywords else _implied_type(keywords, place)
        if not isinstance(kinds, str):
            return _either(
                self._typed({k: v for k, v in keywords.items() if k in _KEYWORDS[kind]} | {"type": kind}, style, place)
                for kind in cast(Sequence[str], kinds)
            )
        if kinds not in _KEYWORDS:
            raise SchemaUnsupported(f"{place}: {kinds!r} is not a JSON type")
        self._refuse(keywords, {"type", *_KEYWORDS[kinds]}, place)
        match kinds:
            case "object":
                return self._object(keywords, place)
            case "array":
                return self._array(keywords, place)
            case "string":
                return _string(keywords, style)
            case "integer":
                return _integer(keywords)
            case "number":
                return _number(keywords, place)
            case _:
                return kinds

    def _reference(self, ref: str, place: str) -> str:
        if ref not in self._refs:
            target = _resolve(self._schema, ref, place)
            self._refs[ref] = name = f"{self._prefix}ref{len(self._refs)}"
            self.rules[name] = self._rule(target, ref)
        return self._refs[ref]

    def _object(self, keywords: JsonSchema, place: str) -> str:
        """Properties in the order of the schema, required ones always; other properties only where none are named."""
        properties = cast("Mapping[str, object]", keywords.get("properties", {}))
        required = set(cast(Sequence[str], keywords.get("required", ())))
        if missing := required - set(properties):
            raise SchemaUnsupported(f"{place}: required but not among the properties: {', '.join(sorted(missing))}")
        if not properties:
            others = keywords.get("additionalProperties", True)
            if others is False:
                return '"{}"'
            pair = f'string ": " {self._inner(others, f"{place}/additionalProperties")}'
            return f'"{{" ({pair} (", " {pair})*)? "}}"'
        pairs = [
            (f"{_literal(json.dumps(key, ensure_ascii=False) + ': ')} {self._inner(sub, f'{place}/properties/{key}')}",
             key in required)
            for key, sub in properties.items()
        ]  # fmt: skip
        return f'"{{" {self._pairs(pairs)} "}}"'

    def _pairs(self, pairs: list[tuple[str, bool]]) -> str:
        """Required and optional pairs with a comma between those that are written."""
        first_required = next((n for n, (_, required) in enumerate(pairs) if required), None)
        if first_required is None:
            return f"({' | '.join(self._starts([pair for pair, _ in pairs]))})?"
        before = " ".join(f'({pair} ", ")?' for pair, _ in pairs[:first_required])
        return f"{before} {_sequence(pairs[first_required][0], pairs[first_required + 1 :])}".strip()

    def _starts(self, optional: Sequence[str]) -> list[str]:
        """What may be written, by the pair that it begins with.

        What may follow a pair has a rule of its own, which ends with the next one's: written out behind each, fifty
        pairs would be more than llama.cpp takes.
        """
        starts, rest = [optional[-1]], ""
        for after, pair in pairwise(reversed(optional)):
            rest = self._named(f'(", " {after})? {rest}'.rstrip())
            starts.append(f"{pair} {rest}")
        return starts[::-1]

    def _array(self, keywords: JsonSchema, place: str) -> str:
        first = [
            self._inner(one, f"{place}/prefixItems/{n}")
            for n, one in enumerate(cast("Sequence[object]", keywords.get("prefixItems", ())))
        ]
        least, most = int(keywords.get("minItems", 0)), keywords.get("maxItems")
        if first:
            if least > len(first) or keywords.get("items", False) is not False:
                raise SchemaUnsupported(f"{place}: items beyond prefixItems; give the tuple a fixed length")
            return '"[" ' + ' ", " '.join(first) + ' "]"'
        item = self._inner(keywords.get("items", True), f"{place}/items")
        if most == 0:
            return '"[]"'
        more = f'{item} (", " {item}){{{max(0, least - 1)},{"" if most is None else int(most) - 1}}}'
        return f'"[" {more} "]"' if least else f'"[" ({more})? "]"'

    def _inner(self, schema: object, place: str) -> str:
        """A rule of its own for what is not a single word, so that it can be repeated."""
        rule = self._rule(schema, place)
        return rule if re.fullmatch(r"[a-z0-9]+", rule) else self._named(rule)

    def _named(self, rule: str) -> str:
        for name, known in self.rules.items():
            if known == rule:
                return name
        name = f"{self._prefix}rule{len(self.rules)}"
        self.rules[name] = rule
        return name

    @staticmethod
    def _refuse(keywords: JsonSchema, known: set[str], place: str) -> None:
        if unknown := sorted(set(keywords) - known):
            raise SchemaUnsupported(
                f"{place}: a grammar cannot enforce {', '.join(unknown)} here; leave it out of the schema and check "
                "the value after it was parsed"
            )


def _used_primitives(rules: Iterable[str]) -> list[str]:
    """The primitives that rules name, and those that these name in turn."""
    found: list[str] = []
    todo = list(rules)
    while todo:
        for word in re.findall(r"[a-z][a-z0-9]*", _without_literals(todo.pop())):
            if word in _PRIMITIVES and word not in found:
                found.append(word)
                todo.append(_PRIMITIVES[word])
    return found


def _without_literals(rule: str) -> str:
    return re.sub(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]', " ", rule)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + '"'


def _either(rules: Iterable[str]) -> str:
    return f"({' | '.join(rules)})"


def _values(keywords: JsonSchema) -> Sequence[object]:
    return [keywords["const"]] if "const" in keywords else cast("Sequence[object]", keywords["enum"])


def _sequence(first: str, rest: Iterable[tuple[str, bool]]) -> str:
    return " ".join([first, *(f'", " {pair}' if required else f'(", " {pair})?' for pair, required in rest)])


def _implied_type(keywords: JsonSchema, place: str) -> str:
    for kind, known in _KEYWORDS.items():
        if known and set(keywords) <= known:
            return kind
    raise SchemaUnsupported(f"{place}: no type, and a grammar cannot tell it from {', '.join(sorted(keywords))}")


def _resolve(schema: JsonSchema, ref: str, place: str) -> object:
    if not ref.startswith("#"):
        raise SchemaUnsupported(f"{place}: {ref!r} points out of the schema; copy it into $defs")
    target: object = schema
    for step in ref.removeprefix("#").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, Mapping) or key not in target:
            raise SchemaUnsupported(f"{place}: {ref!r} points to nothing in the schema")
        target = cast("Mapping[str, object]", target)[key]
    return target


def _string(keywords: JsonSchema, style: str | None) -> str:
    if style in _FORMATS:
        return _FORMATS[style]
    least, most = keywords.get("minLength", 0), keywords.get("maxLength", "")
    return f'"\\"" char{{{least},{most}}} "\\""' if least or most != "" else "string"


def _integer(keywords: JsonSchema) -> str:
    lowest, highest = _whole(keywords.get("minimum")), _whole(keywords.get("maximum"), up=False)
    above, below = _whole(keywords.get("exclusiveMinimum"), up=False), _whole(keywords.get("exclusiveMaximum"))
    lowest = max((n for n in (lowest, None if above is None else above + 1) if n is not None), default=None)
    highest = min((n for n in (highest, None if below is None else below - 1) if n is not None), default=None)
    if lowest is None and highest is None:
        return "integer"
    return _range(
        -_beyond(highest) if lowest is None else lowest,
        _beyond(lowest) if highest is None else highest,
    )


def _beyond(bound: int | None) -> int:
    """How far from 0 a number may go that only has a bound on the other side: further than that."""
    return 10 ** max(_DIGITS, len(str(abs(bound or 0))) + 1) - 1


def _whole(value: Any, *, up: bool = True) -> int | None:
    """A bound as the nearest whole number inside (`up`: at or above it)."""
    if value is None:
        return None
    return -int(-value // 1) if up else int(value // 1)


def _number(keywords: JsonSchema, place: str) -> str:
    """Bounds of a number are expressed where they are whole and not negative, as in a share from 0 to 1."""
    lowest, highest = keywords.get("minimum"), keywords.get("maximum")
    if lowest is None and highest is None:
        return "number"
    if lowest is None or lowest < 0 or any(n is not None and n != int(n) for n in (lowest, highest)):
        raise SchemaUnsupported(
            f"{place}: a grammar can bound a number only from a whole minimum of at least 0 to a whole maximum, if any"
        )
    if highest is None:
        return f"{_range(int(lowest), _beyond(int(lowest)))} fraction?"
    inside = f"{_range(int(lowest), int(highest) - 1)} fraction? | " if highest > lowest else ""
    return f'({inside}"{int(highest)}" ("." "0"{{1,{_DIGITS}}})?)'


def _range(low: int, high: int) -> str:
    """The whole numbers from `low` to `high`, without leading zeros."""
    if low > high:
        raise SchemaUnsupported(f"no whole number is at least {low} and at most {high}")
    parts: list[str] = []
    if low < 0:
        parts.append(f'"-" {_range(max(1, -high), -low)}')
    low = max(0, low)
    while low <= high:
        end = min(high, 10 ** len(str(low)) - 1)
        parts.append(_same_length(str(low), str(end)))
        low = end + 1
    return _either(parts)


def _same_length(low: str, high: str) -> str:
    """The numbers from `low` to `high`, which have as many digits."""
    if not low:
        return ""
    rest = len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return f"[{low[0]}-{high[0]}]" + (f" [0-9]{{{rest}}}" if rest else "")
    if low[0] == high[0]:
        return f'"{low[0]}" {_same_length(low[1:], high[1:])}'
    parts = [f'"{low[0]}" {_same_length(low[1:], "9" * rest)}', f'"{high[0]}" {_same_length("0" * rest, high[1:])}']
    if int(high[0]) - int(low[0]) > 1:
        parts.append(f"[{int(low[0]) + 1}-{int(high[0]) - 1}] [0-9]{{{rest}}}")
    return _either(parts)
