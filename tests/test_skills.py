"""A skill's declaration: what it says, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field

from agentbudget import Context, skill
from agentbudget.errors import SkillError
from agentbudget.output import Output
from agentbudget.skills import DEFAULT_OUTPUT_TOKENS, RESERVED, Skill


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


def test_an_annotated_type_is_named_by_what_is_annotated() -> None:
    assert Output(Annotated[list[int], Field(max_length=3)]).name == "list"


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

    async def without(text: str) -> str:
        """The context was forgotten."""
        ...

    mistakes = ((plain, "async"), (silent, "docstring"), (contextless, "context"), (starred, r"\*args"))
    for function, why in (*mistakes, (without, r"context as its first parameter: \(ctx: Context, text, …\)")):
        with pytest.raises(SkillError, match=why):
            skill(function)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]
    with pytest.raises(SkillError, match="max_output_tokens"):
        skill(max_output_tokens=0)(silent)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"accept": "abc"}, r"'abc' cannot check an answer: accept takes a function"),
        ({"accept": 0.9}, r"0\.9 cannot check an answer"),
        ({"accept": [str.isupper, None]}, r"None cannot check an answer"),
        ({"budget": "0.05"}, r"write budget=Budget\(usd='0\.05'\)"),
        ({"temperature": "hot"}, r"temperature must be a number from 0 to 2, not 'hot'"),
        ({"temperature": -0.1}, r"temperature must be a number"),
        ({"temperature": float("nan")}, r"temperature must be a number"),
        ({"max_output_tokens": -1}, r"max_output_tokens must be a whole number from 1"),
        ({"max_output_tokens": 1.5}, r"max_output_tokens must be a whole number from 1"),
        ({"max_input_tokens": 0}, r"max_input_tokens must be a whole number from 1"),
        ({"tier": 1}, r"tier must be 'local', 'frontier' or a model's name"),
        ({"escalate": ""}, r"escalate must be 'local', 'frontier' or a model's name"),
    ],
    ids=str,
)
def test_an_option_of_another_kind_is_refused_when_the_skill_is_declared(options: dict[str, Any], why: str) -> None:
    async def say(ctx: Context, text: str) -> str:
        """Say it."""
        ...

    with pytest.raises(SkillError, match=why):
        skill(**options)(say)


def test_a_parameter_that_no_caller_could_name_is_refused() -> None:
    async def placed(ctx: Context, text: str, /) -> str:
        """Say it."""
        ...

    async def named(*, ctx: Context) -> str:
        """Say it."""
        ...

    with pytest.raises(SkillError, match="put '/' right after the context"):
        skill(placed)
    with pytest.raises(SkillError, match="context as its first parameter"):
        skill(named)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]


def declared(parameter: str) -> Skill[..., str]:
    """A skill with a parameter of this name."""
    namespace: dict[str, Any] = {}
    exec(f"async def say(ctx, {parameter}: str) -> str: 'Say it.'", namespace)
    return skill(namespace["say"])


@pytest.mark.parametrize("name", [*sorted(RESERVED), "_text"])
def test_a_parameter_that_pydantic_keeps_for_itself_is_refused(name: str) -> None:
    with pytest.raises(SkillError, match=f"'{name}' cannot be the name of a parameter"):
        declared(name)


@pytest.mark.filterwarnings("ignore:Field name")
@pytest.mark.parametrize("name", [name for name in dir(BaseModel) if name[0] != "_" and name not in RESERVED])
def test_what_may_be_a_parameter_can_be_planned(name: str) -> None:
    given = declared(name).arguments_model.model_validate({name: "x"})
    assert getattr(given, name) == "x"


def test_options_without_their_names_are_refused() -> None:
    with pytest.raises(SkillError, match="'local' must be an async function"):
        skill("local")  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]


def test_a_checking_skill_must_take_the_answer_and_only_what_is_there() -> None:
    @skill
    async def deaf(ctx: Context, text: str) -> bool:
        """Is it right?"""
        ...

    @skill
    async def curious(ctx: Context, answer: str, passages: str, hint: str = "") -> bool:
        """Is it right?"""
        ...

    async def say(ctx: Context, text: str) -> str:
        """Say it."""
        ...

    with pytest.raises(SkillError, match="give it a parameter named 'answer'"):
        skill(accept=deaf)(say)
    with pytest.raises(SkillError, match="what 'say' answers, which has no passages:"):
        skill(accept=[str.isupper, curious])(say)


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SkillError, match="facts"):
        facts.bind((), {"nonsense": 1})


@pytest.mark.parametrize("context", [None, {"text": "state"}, "text"], ids=str)
async def test_a_skill_outside_of_a_run_says_what_to_write(context: Any) -> None:
    with pytest.raises(SkillError, match=r"graph\.add_node\(\"facts\", facts\.node\(\)\)"):
        await facts(context, "a", 1)


async def test_a_node_in_a_graph_without_a_context_says_what_to_write() -> None:
    with pytest.raises(SkillError, match=r"Agent\(graph=…\)"):
        await facts.node()({"text": "a"}, Runtime())  # pyright: ignore[reportArgumentType] # the mistake


def test_a_skill_without_a_return_type_is_refused_when_it_is_used() -> None:
    async def untyped(ctx: Context, text: str):
        """No type."""
        ...

    with pytest.raises(SkillError, match="return type"):
        _ = skill(untyped).output


@pytest.mark.parametrize("kind", [Callable[[], int], Annotated[int, Field(lt=1.5)], list[Skill[..., Any]]])
def test_a_type_that_no_model_can_be_held_to_is_refused_when_it_is_used(kind: Any) -> None:
    with pytest.raises(SkillError, match="cannot be what a model answers"):
        _ = Output(kind).schema


def test_the_version_follows_prompt_and_type() -> None:
    def told(prompt: str, kind: type) -> str:
        async def say(ctx: Context, text: str) -> Any: ...

        say.__doc__, say.__annotations__["return"] = prompt, kind
        return skill(say).version

    assert len({told("Say it.", str), told("Say it louder.", str), told("Say it.", int)}) == 3
    assert told("Say it.", str) == told("Say it.", str)
