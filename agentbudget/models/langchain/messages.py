"""Messages, tools and schemas as LangChain writes them, and as ours: both ways."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast, get_args

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.utils.function_calling import convert_to_json_schema

from agentbudget.errors import Mistake
from agentbudget.models.base import (
    Image,
    ImageType,
    JsonSchema,
    Message,
    Request,
    Role,
    Tool,
    ToolCall,
    ToolChoice,
)

OPAQUE: Final = frozenset({"audio", "input_audio", "file", "document", "video", "media"})
"""Blocks whose tokens cannot be told from what stands in them."""

HANDED_OVER: Final = frozenset({"tool_call", "tool_use", "tool_call_chunk", "invalid_tool_call", "input_json_delta"})
"""Blocks that a message also has among its ``tool_calls``."""

THOUGHTS: Final = ("thinking", "reasoning", "summary", "refusal")
"""Where integrations keep what a model thought, in blocks of its content: Anthropic's, LangChain's own, OpenAI's."""

_ROLES: Final[Mapping[str, Role]] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
}


def to_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    """Our messages as LangChain's."""
    return [_written(message) for message in messages]


def from_langchain(messages: Sequence[BaseMessage], *, thoughts: bool = False) -> tuple[Message, ...]:
    """LangChain's messages as ours: text, pictures (as bytes), tool calls and their results.

    With `thoughts`, what our messages have no place for (reasoning, citations) stands in the text as JSON, so that it
    is counted. Raises `Mistake` on what cannot be counted: sound, files, pictures by address.
    """
    return tuple(_read(message, thoughts) for message in messages)


COUNTED: Final = frozenset({"tools", "functions", "response_format", "tool_choice"})
"""Keywords of a call that a request of ours has a place for."""

_CHOICES: Final[Mapping[str, ToolChoice]] = {"any": "required", "required": "required", "none": "none", "auto": "auto"}


def request_of(
    messages: Sequence[BaseMessage], asked: Mapping[str, Any], *, tokens: int, thoughts: bool = True
) -> Request:
    """A call of a chat model as a request of ours, as far as it has words for it: enough to count it."""
    tools = tuple(tool_of(spec) for name in ("tools", "functions") for spec in asked.get(name) or ())
    return Request(
        from_langchain(messages, thoughts=thoughts),
        max_output_tokens=tokens,
        schema=schema_of(asked.get("response_format")),
        tools=tools,
        tool_choice=_CHOICES.get(str(asked.get("tool_choice")), "auto"),
        cache_time="1h",  # its messages may ask for that in their provider's own words
    )


def schema_of(response_format: object) -> JsonSchema | None:
    """The JSON schema in an OpenAI-like ``response_format``, or of the type that it is; None if it names none."""
    if isinstance(response_format, type):
        return convert_to_json_schema(cast("type[Any]", response_format))
    if not isinstance(response_format, Mapping):
        return None
    told = cast("Mapping[str, Any]", response_format)
    inner = cast("Mapping[str, Any]", told.get("json_schema", told))
    return cast("JsonSchema | None", inner.get("schema"))


def tool_of(spec: Mapping[str, Any]) -> Tool:
    """A tool as OpenAI, Anthropic or a schema describes it. Raises `Mistake` for one that the provider runs."""
    function: Mapping[str, Any] = spec.get("function", spec)
    parameters = function.get("parameters", function.get("input_schema"))
    if "name" not in function or parameters is None:
        raise Mistake(
            f"the tool {spec.get('name', spec.get('type'))!r} runs at the provider, which charges for it apart from "
            "tokens: nobody can hold what it will cost. Use a tool that runs in your own code"
        )
    return Tool(str(function["name"]), str(function.get("description", "")), cast("JsonSchema", parameters))


def spec_of(tool: Tool) -> dict[str, Any]:
    """Our tool as LangChain's chat models take it."""
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
    }


def calls_of(message: AIMessage) -> tuple[ToolCall, ...]:
    """What a message asks for: its tool calls, those with arguments that are no JSON included."""
    good = (ToolCall(call["id"] or "", call["name"], json.dumps(call["args"])) for call in message.tool_calls)
    bad = (
        ToolCall(call.get("id") or "", call.get("name") or "", call.get("args") or "")
        for call in message.invalid_tool_calls
    )
    return (*good, *bad)


def text_of(message: BaseMessage) -> str:
    """The text of a message, without reasoning and tool calls."""
    content: object = message.content
    if isinstance(content, str):
        return content
    return "".join(str(block.get("text", "")) for block in _blocks(message) if block.get("type") == "text")


def piece_of(message: AIMessage) -> AIMessageChunk:
    """A piece of a stream: a chat model that does not stream, or was told not to, gives its whole answer as one."""
    if isinstance(message, AIMessageChunk):
        return message
    return AIMessageChunk(**message.model_dump(exclude={"type"}))


def thoughts_of(message: BaseMessage) -> str:
    """What a model thought or refused with, wherever its integration puts that: it is charged for like text."""
    beside: object = message.additional_kwargs.get("reasoning_content")
    within = (block.get(name) for block in _blocks(message) for name in THOUGHTS)
    return "".join(str(each) for each in (beside, *within) if each)


def asks(call: ToolCall) -> tuple[dict[str, Any], bool]:
    """A tool call as LangChain keeps it, and whether its arguments are the JSON object that they should be."""
    try:
        arguments: object = json.loads(call.arguments)
    except ValueError as error:
        return dict(invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error=str(error))), False
    if not isinstance(arguments, dict):
        return dict(invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error="not an object")), False
    return dict(tool_call(name=call.name, args=cast("dict[str, Any]", arguments), id=call.id)), True


def _written(message: Message) -> BaseMessage:
    if message.role == "system":
        return SystemMessage(message.text)
    if message.role == "tool":
        return ToolMessage(message.text, tool_call_id=message.answers or "")
    if message.role == "assistant":
        asked = [asks(call) for call in message.calls]
        return AIMessage(
            message.text,
            tool_calls=[call for call, good in asked if good],
            invalid_tool_calls=[call for call, good in asked if not good],
        )
    if not message.images:
        return HumanMessage(message.text)
    blocks: list[str | dict[str, Any]] = [{"type": "text", "text": message.text}] if message.text else []
    return HumanMessage([*blocks, *(_picture(image) for image in message.images)])


def _picture(image: Image) -> dict[str, Any]:
    """As OpenAI writes it, which every integration reads, with how closely to look."""
    url = f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": image.detail}}


def _read(message: BaseMessage, thoughts: bool) -> Message:
    kind = message.role if isinstance(message, ChatMessage) else message.type
    role = _ROLES.get(kind)
    if role is None:
        raise Mistake(f"a message of the role {kind!r} cannot be sent; use system, user, assistant or tool")
    text: list[str] = []
    images: list[Image] = []
    for block in _blocks(message):
        _sort(block, text, images, thoughts)
    calls = calls_of(message) if isinstance(message, AIMessage) else ()
    answers = message.tool_call_id if isinstance(message, ToolMessage) else None
    return Message(role, "\n".join(text), tuple(images), calls, answers)


def _sort(block: Mapping[str, Any], text: list[str], images: list[Image], thoughts: bool) -> None:
    """Put one block of a message where it belongs."""
    kind = str(block.get("type", "text"))
    if kind in ("text", "input_text", "output_text", "refusal") and isinstance(block.get("text"), str):
        text.append(block["text"])
    elif kind in ("image", "image_url", "input_image"):
        images.append(_image(block))
    elif kind in OPAQUE:
        raise Mistake(
            f"a message has a part of the type {kind!r}, whose tokens nobody can count beforehand; "
            "bring it as text or as pictures"
        )
    elif thoughts and kind not in HANDED_OVER:
        text.append(json.dumps(block, default=str))


def _blocks(message: BaseMessage) -> Iterable[Mapping[str, Any]]:
    content = cast("str | list[str | dict[str, Any]]", message.content)
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [{"type": "text", "text": block} if isinstance(block, str) else block for block in content]


def _image(block: Mapping[str, Any]) -> Image:
    """A picture from any of the ways in which LangChain writes one."""
    source: Mapping[str, Any] = block["source"] if isinstance(block.get("source"), Mapping) else block
    link: object = block.get("image_url")
    linked = cast("Mapping[str, Any]", link) if isinstance(link, Mapping) else {"url": link, **block}
    url, detail = linked.get("url"), linked.get("detail")
    media_type, data = source.get("mime_type", source.get("media_type")), source.get("base64", source.get("data"))
    if isinstance(url, str) and url.startswith("data:"):
        head, _, data = url.partition(",")
        media_type = head.removeprefix("data:").partition(";")[0]
    if not isinstance(data, str):
        raise Mistake("a picture by address or file id cannot be counted beforehand; bring it as base64 bytes")
    if media_type not in get_args(ImageType):
        raise Mistake(f"a picture of the type {media_type!r} cannot be sent; use PNG, JPEG, WebP or GIF")
    try:
        raw = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise Mistake(f"a picture is not base64: {error}") from None
    return Image(raw, cast("ImageType", media_type), detail if detail in ("low", "high") else "auto")
