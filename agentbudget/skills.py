"""A skill: a typed Python function that a model carries out, and what it knows about itself."""

from __future__ import annotations

import builtins
import hashlib
import inspect
import json
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    get_type_hints,
    overload,
)

from agentbudget.cache.policy import Cache, caching
from agentbudget.errors import InvalidArgument, SkillError
from agentbudget.holding import Hold, holding
from agentbudget.models.base import Message
from agentbudget.money import Budget
from agentbudget.output import Output
from agentbudget.privacy import DataClass
from agentbudget.privacy.classes import checked as checked_class
from agentbudget.route import Start, checked_confidence, checked_start
from agentbudget.verify import Check

if TYPE_CHECKING:
    from pydantic import BaseModel

    from agentbudget.step import Context

P = ParamSpec("P")
R = TypeVar("R")
SkillFunction = Callable[Concatenate["Context", P], Awaitable[R]]

DEFAULT_OUTPUT_TOKENS: Final = 256
DEFAULT_INPUT_TOKENS: Final = 2048
"""What a call inside a skill with a body may bring, where the skill does not say."""

MAX_OUTPUT_TOKENS: Final = 200_000
MAX_INPUT_TOKENS: Final = 10_000_000

MAX_TEMPERATURE: Final = 2.0
"""The highest that any provider takes."""

RESERVED: Final = frozenset(
    {
        "model_config",
        "model_dump",
        "model_dump_json",
        "model_extra",
        "model_fields_set",
        "model_post_init",
        "model_validate",
        "model_validate_json",
        "model_validate_strings",
    }
)
"""No names for parameters: a planner gives a skill's arguments as a pydantic model, which keeps these for itself."""


class NodeRuntime(Protocol):
    """What LangGraph hands a node as ``runtime``."""

    @property
    def context(self) -> Context: ...


class Verifier(Protocol):
    """A skill that checks another's output: it returns a bool or a `Verdict`, and takes the output as ``answer``."""

    @property
    def name(self) -> str: ...

    @property
    def signature(self) -> inspect.Signature: ...


AnyCheck = Check | Verifier
"""A check of an output: a predicate, or a skill that returns a bool or a `Verdict`."""

Accept = AnyCheck | Sequence[AnyCheck]


class Skill(Generic[P, R]):
    """A typed async function that models carry out, as one transaction. Made by `skill`.

    Calling it with a `Context` runs it as a step: ``label = await triage(ctx, message="…")``.
    Raises `SkillError` for what cannot work, when it is declared.
    """

    def __init__(
        self,
        function: SkillFunction[P, R],
        *,
        tier: str = "local",
        escalate: str | None = None,
        max_output_tokens: int = DEFAULT_OUTPUT_TOKENS,
        max_input_tokens: int = DEFAULT_INPUT_TOKENS,
        budget: Budget | None = None,
        accept: Accept = (),
        temperature: float = 0.0,
        hold: Hold = "quantile",
        data_class: DataClass | None = None,
        cache: Cache = "exact",
        confidence: float | None = None,
        start: Start = "tier",
    ) -> None:
        self.signature: inspect.Signature = _signature(function)
        parameters = self.signature.parameters.values()
        self._by_place = tuple(p.name for p in parameters if p.kind is _BY_PLACE_OR_NAME)
        self.function = function
        self.name: str = function.__name__
        self.tier = _rung("tier", tier)
        self.escalate = None if escalate is None else _rung("escalate", escalate)
        self.max_output_tokens = positive("max_output_tokens", max_output_tokens, MAX_OUTPUT_TOKENS)
        self.max_input_tokens = positive("max_input_tokens", max_input_tokens, MAX_INPUT_TOKENS)
        self.budget = _budget(budget)
        self.accept = self.checks(accept)
        self.temperature = _temperature(temperature)
        self.holding = holding(hold)
        self.data_class: DataClass | None = _data_class(data_class)
        self.caching = caching(cache)
        self.confidence = checked_confidence(confidence)
        self.start: Start = checked_start(start)
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self.prompt = inspect.cleandoc(function.__doc__ or "")
        self.has_body = not _is_empty(function)
        if not self.has_body and not self.prompt:
            raise SkillError(f"skill {self.name!r} has neither a body nor a docstring: its docstring is its prompt")

    def __repr__(self) -> str:
        return f"<skill {self.name}{self.signature}>"

    async def __call__(self, ctx: Context, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run as a step of the run, or inside the step, that `ctx` belongs to."""
        return await self._within(ctx).call(self, self.bind(args, kwargs))

    def _within(self, ctx: Context) -> Context:
        """`ctx`, where it is one: a graph invoked by itself brings None, a skill that is a node itself the state."""
        if hasattr(ctx, "call"):
            return ctx
        raise SkillError(
            f"skill {self.name!r} needs the context of a run, not {type(ctx).__name__}: inside a skill write "
            f'await {self.name}(ctx, …); in a graph, graph.add_node("{self.name}", {self.name}.node()), which '
            "Agent(graph=…) carries out"
        )

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, defaults filled in. Raises `SkillError` if they do not fit the signature."""
        if not kwargs and len(args) == len(self._by_place) == len(self.signature.parameters):
            return dict(zip(self._by_place, args, strict=True))  # as most calls are: what follows takes 10 µs
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise SkillError(f"{self.name}{self.signature}: {error}") from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def checks(self, accept: Accept) -> tuple[AnyCheck, ...]:
        """One check of this skill's output or several, as a tuple. Raises `SkillError` for what cannot check it."""
        several = isinstance(accept, Sequence) and not isinstance(accept, str)
        checks = tuple(cast(Sequence[AnyCheck], accept)) if several else (cast(AnyCheck, accept),)
        for check in checks:
            if not callable(check):
                raise SkillError(
                    f"{check!r} cannot check an answer: accept takes a function of the output that returns a bool, "
                    "a skill that does, or a list of them"
                )
            if isinstance(check, Skill):
                self._require_arguments(cast(Verifier, check))
        return checks

    def _require_arguments(self, verifier: Verifier) -> None:
        """Raise `SkillError` unless a checking skill takes the output and asks for nothing that is not there."""
        if "answer" not in verifier.signature.parameters:
            raise SkillError(f"skill {verifier.name!r} cannot check an answer: give it a parameter named 'answer'")
        known = {*self.signature.parameters, "answer"}
        required = {name for name, p in verifier.signature.parameters.items() if p.default is p.empty}
        if missing := sorted(required - known):
            raise SkillError(
                f"skill {verifier.name!r} cannot check what {self.name!r} answers, which has no {', '.join(missing)}: "
                "a check gets the output as 'answer' beside the checked skill's own arguments"
            )

    @cached_property
    def output(self) -> Output:
        """The type that the skill returns, as a model must produce it."""
        hints = _hints(self.function)
        if "return" not in hints:
            raise SkillError(f"skill {self.name!r} needs a return type: it is what the model's output must fit")
        return Output(hints["return"])

    @cached_property
    def arguments_model(self) -> type[BaseModel]:
        """The arguments as a pydantic model: what a planner must give."""
        from pydantic import create_model

        hints = _hints(self.function)
        fields: dict[str, Any] = {
            name: (hints.get(name, str), ... if p.default is p.empty else p.default)
            for name, p in self.signature.parameters.items()
        }
        return create_model(f"{self.name}_arguments", **fields)

    @cached_property
    def version(self) -> str:
        """Changes when the prompt, the output type or the sampling does: part of a cached answer's key.

        What a skill with a body returns is its own affair: the form of each call is part of that call's key.
        """
        schema = None if self.has_body else self.output.schema
        parts = [self.name, self.prompt, json.dumps(schema, sort_keys=True), str(self.temperature)]
        return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()

    def node(self, *, output: str | None = None) -> Callable[[object, NodeRuntime], Awaitable[dict[str, Any]]]:
        """A node for a LangGraph whose ``context_schema`` is `Context`.

        It takes the skill's arguments by name from the state (a dict, a model or a dataclass), and writes what the
        skill returns, as JSON-ready data, under `output` (by default the skill's name; what stands under ``"output"``
        is what a run of an `Agent` gives).
        """
        names = tuple(self.signature.parameters)

        async def run(state: object, runtime: NodeRuntime) -> dict[str, Any]:
            ctx = self._within(runtime.context)
            parts = _by_name(state)
            given = {name: parts[name] for name in names if name in parts}
            value = await ctx.call(self, self.bind((), given))
            return {output or self.name: self.output.dump(value)}

        run.__name__ = self.name
        return run

    def messages(self, arguments: Mapping[str, Any]) -> tuple[Message, ...]:
        """The prompt of a skill without a body: the docstring, fixed, then the arguments."""
        return (self._system, Message("user", render_arguments(arguments)))

    @cached_property
    def _system(self) -> Message:
        return Message("system", "\n\n".join(filter(None, [self.prompt, self.output.instruction])))


@overload
def skill(function: SkillFunction[P, R], /) -> Skill[P, R]: ...
@overload
def skill(
    *,
    tier: str = "local",
    escalate: str | None = None,
    max_output_tokens: int = DEFAULT_OUTPUT_TOKENS,
    max_input_tokens: int = DEFAULT_INPUT_TOKENS,
    budget: Budget | None = None,
    accept: Accept = (),
    temperature: float = 0.0,
    hold: Hold = "quantile",
    data_class: DataClass | None = None,
    cache: Cache = "exact",
    confidence: float | None = None,
    start: Start = "tier",
) -> Callable[[SkillFunction[P, R]], Skill[P, R]]: ...
def skill(
    function: SkillFunction[P, R] | None = None,
    /,
    *,
    tier: str = "local",
    escalate: str | None = None,
    max_output_tokens: int = DEFAULT_OUTPUT_TOKENS,
    max_input_tokens: int = DEFAULT_INPUT_TOKENS,
    budget: Budget | None = None,
    accept: Accept = (),
    temperature: float = 0.0,
    hold: Hold = "quantile",
    data_class: DataClass | None = None,
    cache: Cache = "exact",
    confidence: float | None = None,
    start: Start = "tier",
) -> Skill[P, R] | Callable[[SkillFunction[P, R]], Skill[P, R]]:
    """Make an async function a skill. Its first parameter is the `Context`; its return type is enforced.

    A function without a body is its docstring: that is the prompt, and the arguments follow it. With a body,
    it calls ``ctx.complete`` and ``ctx.retrieve`` itself.

    ``tier``: the rung of the ladder to try first, ``"local"`` (the cheapest), ``"frontier"`` (the strongest)
    or a model's name. ``escalate``: the rung that it may climb to when an answer is not accepted, or a model
    cannot be had.
    ``accept``: a check of the output, or several; a check is a predicate, or a skill that takes the output as
    ``answer`` beside any of this skill's own arguments. It returns a bool, or a `Verdict` that says why.
    ``confidence``: an answer of which its model is less sure than this, or does not say how sure, is not accepted while
    there is a stronger model to ask. ``start``: the rung to begin on, that of the ``"tier"`` or, ``"learned"``, the one
    from which such steps have cost least.
    ``budget``: the most one step may hold; without it the worst case of its calls is held. ``max_input_tokens``
    sizes the hold of a skill with a body, whose prompts are not known beforehand. ``hold``: how much of a call's price
    is held before it runs (`agentbudget.holding`): ``"worst"``, ``"quantile"`` (what such calls have used), ``"grow"``
    for a skill that streams, or a `Budget` that each call may hold at most. ``cache``: whether answers may be reused
    (`agentbudget.cache`): ``"exact"``, ``"off"``, or a ``timedelta``, how old one may be. ``data_class``: that of what
    the skill brings into the run (its arguments, its prompt, what it looks up), if narrower than what the run has seen.
    """

    def decorate(inner: SkillFunction[P, R]) -> Skill[P, R]:
        return Skill(
            inner,
            tier=tier,
            escalate=escalate,
            max_output_tokens=max_output_tokens,
            max_input_tokens=max_input_tokens,
            budget=budget,
            accept=accept,
            temperature=temperature,
            hold=hold,
            data_class=data_class,
            cache=cache,
            confidence=confidence,
            start=start,
        )

    return decorate if function is None else decorate(function)


def render_arguments(arguments: Mapping[str, Any]) -> str:
    """Arguments as a user message: a lone one as it is, several under their names."""
    if len(arguments) == 1:
        return _text(next(iter(arguments.values())))
    return "\n\n".join(f"{name.replace('_', ' ').capitalize()}:\n{_text(value)}" for name, value in arguments.items())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        return str(value)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The parameters that a prompt brings: all but the context."""
    name = getattr(function, "__name__", function)
    if not inspect.iscoroutinefunction(function) or not hasattr(function, "__code__"):
        raise SkillError(f"skill {name!r} must be an async function: write 'async def', and options by their names")
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, _BY_PLACE_OR_NAME):
        raise SkillError(f"skill {name!r} needs a context as its first parameter: (ctx: Context, …)")
    if _is_builtin(parameters[0].annotation):
        raise SkillError(
            f"skill {name!r} needs a context as its first parameter: (ctx: Context, {parameters[0].name}, …)"
        )
    for parameter in parameters[1:]:
        if why := _unfit(parameter):
            raise SkillError(f"skill {name!r}: {why}")
    return signature.replace(parameters=parameters[1:])


def _is_builtin(annotation: Any) -> bool:
    """True for ``str``, ``list[int]`` and their like, also as a string: what so is annotated is no context."""
    written = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return annotation is not inspect.Parameter.empty and hasattr(builtins, written.partition("[")[0])


_BY_PLACE_OR_NAME: Final = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _unfit(parameter: inspect.Parameter) -> str | None:
    """Why a parameter cannot be one of a skill: its arguments go by name, into a prompt and out of a plan."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return "*args and **kwargs have no place in a prompt; name them"
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return f"parameter {parameter.name!r} must have a name that callers may use; put '/' right after the context"
    if parameter.name.startswith("_") or parameter.name in RESERVED:
        return f"{parameter.name!r} cannot be the name of a parameter (pydantic keeps it); choose another"
    return None


def _by_name(state: object) -> Mapping[str, Any]:
    if isinstance(state, Mapping):
        return cast(Mapping[str, Any], state)
    if is_dataclass(state):
        return {each.name: getattr(state, each.name) for each in fields(state)}
    return vars(state)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Type hints of a skill. Its context may be a name that exists only for type checkers."""
    try:
        return get_type_hints(function, localns={"Context": object}, include_extras=True)
    except NameError as error:
        raise SkillError(f"skill {function.__name__!r}: {error}; a skill's types must exist when it runs") from None


def positive(name: str, value: int, most: int) -> int:
    """`value` if it is a whole number from 1 to `most`; raises `SkillError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise SkillError(f"{name} must be a whole number from 1 to {most:,}, not {value!r}")
    return value


def _rung(name: str, value: str) -> str:
    if not isinstance(value, str) or not value:
        raise SkillError(f"{name} must be 'local', 'frontier' or a model's name, not {value!r}")
    return value


def _budget(value: Budget | None) -> Budget | None:
    if value is not None and not isinstance(value, Budget):
        raise SkillError(f"budget must be a Budget, not {value!r}: write budget=Budget(usd='0.05')")
    return value


def _data_class(value: DataClass | None) -> DataClass | None:
    try:
        return None if value is None else checked_class(value, argument="data_class")
    except InvalidArgument as error:
        raise SkillError(str(error)) from None


def _temperature(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TEMPERATURE:
        raise SkillError(f"temperature must be a number from 0 to {MAX_TEMPERATURE:g}, not {value!r}")
    return value


def _is_empty(function: Callable[..., Any]) -> bool:
    """True if the body is a docstring, ``...`` or ``pass``: it compiles to the same code as an empty one."""
    code = cast(types.FunctionType, function).__code__
    returned = set(code.co_consts) - {function.__doc__, None, ...}
    return not returned and (code.co_code, code.co_names) in _EMPTY


async def _docstring_only(ctx: object) -> None:
    """A docstring."""


async def _ellipsis_only(ctx: object) -> None: ...


async def _docstring_and_ellipsis(ctx: object) -> None:
    """A docstring."""


_EMPTY: Final = {
    (f.__code__.co_code, f.__code__.co_names) for f in (_docstring_only, _ellipsis_only, _docstring_and_ellipsis)
}
