"""A skill's declaration: what it says, and what is refused."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from agentbudget import Context, skill
from agentbudget.errors import SkillError
from agentbudget.skills import DEFAULT_OUTPUT_TOKENS, Output


class Fact(BaseModel):
    name: str
    value: int


@skill
async def facts(ctx: Context, text: str, limit: int = 3) -> list[Fact]:
    """List the facts."""
    ...


def test_a_skill_without_a_body_is_its_docstring() -> None:
    assert not facts.has_body
    assert facts.max_output_tokens == DEFAULT_OUTPUT_TOKENS
    system, user = facts.messages(facts.bind(("water boils at 100",), {}))
    assert system.text.startswith("List the facts.\n\nAnswer in JSON that fits this schema: ")
    assert user.text == "Text:\nwater boils at 100\n\nLimit:\n3"


def test_a_lone_argument_stands_without_its_name() -> None:
    @skill
    async def say(ctx: Context, text: str) -> str:
        """Say it."""
        ...

    assert say.messages(say.bind(("hello",), {}))[1].text == "hello"


def test_a_skill_with_a_body_is_known_by_its_code() -> None:
    @skill
    async def work(ctx: Context, text: str) -> str:
        """Work."""
        return text

    assert work.has_body


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (str, " hi ", "hi"),
        (bool, "true", True),
        (int, "7", 7),
        (Literal["a", "b"], '"a"', "a"),
        (list[int], "[1,2]", [1, 2]),
        (Fact, '{"name":"x","value":1}', Fact(name="x", value=1)),
        (int | None, "null", None),
    ],
)
def test_a_models_text_becomes_the_type(kind: Any, text: str, value: Any) -> None:
    assert Output(kind).parse(text) == value


@pytest.mark.parametrize(("kind", "text"), [(int, '"x"'), (Literal["a"], '"b"'), (Fact, "{}"), (bool, "perhaps")])
def test_text_of_another_type_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Output(kind).parse(text)


@pytest.mark.parametrize(
    ("text", "where"), [('{"name":"x"}', "value: Field required"), ('[{"name":', "Invalid JSON: ")]
)
def test_a_refusal_says_what_does_not_fit(text: str, where: str) -> None:
    with pytest.raises(ValueError, match=f"^{where}"):
        Output(Fact).parse(text)


def test_what_cannot_work_is_refused_when_it_is_declared() -> None:
    def plain(ctx: Context, text: str) -> str:
        """Not async."""
        return text

    async def silent(ctx: Context, text: str) -> str: ...

    async def contextless() -> str:
        """No context."""
        ...

    async def starred(ctx: Context, *texts: str) -> str:
        """Stars."""
        ...

    for function, why in ((plain, "async"), (silent, "docstring"), (contextless, "context"), (starred, r"\*args")):
        with pytest.raises(SkillError, match=why):
            skill(function)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]
    with pytest.raises(SkillError, match="max_output_tokens"):
        skill(max_output_tokens=0)(silent)


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SkillError, match="facts"):
        facts.bind((), {"nonsense": 1})


def test_a_skill_without_a_return_type_is_refused_when_it_is_used() -> None:
    async def untyped(ctx: Context, text: str):
        """No type."""
        ...

    with pytest.raises(SkillError, match="return type"):
        _ = skill(untyped).output


def test_the_version_follows_prompt_and_type() -> None:
    def told(prompt: str, kind: type) -> str:
        async def say(ctx: Context, text: str) -> Any: ...

        say.__doc__, say.__annotations__["return"] = prompt, kind
        return skill(say).version

    assert len({told("Say it.", str), told("Say it louder.", str), told("Say it.", int)}) == 3
    assert told("Say it.", str) == told("Say it.", str)
