"""Where a conversation of LangChain's may go: the class of its messages, and what is found in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.runnables import RunnableConfig

from agentbudget import telemetry
from agentbudget.ledger import Ledger
from agentbudget.models.base import Message, Request
from agentbudget.money import ZERO
from agentbudget.privacy import METADATA_KEY, Destination, Label, Privacy
from agentbudget.privacy.classes import claimed, strictest
from agentbudget.privacy.policy import kept_from, refusal
from agentbudget.privacy.prompts import clear

Tell = Callable[[str], str]

STANDS_FOR: Final = "stands_for"
"""In a message's ``additional_kwargs``: what documents were in messages that it stands for, as their metadata."""

SAYING: Final = ("instructions", "system")
"""Keywords of a call that are words to the model: OpenAI's and Anthropic's names for a system message."""

_RAW_CALLS: Final = frozenset({"tool_calls", "function_call"})
"""Where integrations keep calls as their provider gave them."""

_ARGUMENTS: Final = frozenset({"input", "args", "arguments"})

_UNREAD: Final = frozenset(
    {"type", "id", "name", "index", "call_id", "tool_call_id", "tool_use_id", "mime_type", "media_type"}
    | {"data", "base64", "file_data", "signature", "encrypted_content"}
)
"""Parts of a block that are no words: names, pictures, and what a provider signed or sealed."""


def label_of(messages: Sequence[BaseMessage], config: RunnableConfig, privacy: Privacy) -> Label:
    """The class of a conversation, as far as anybody says it.

    ``data_class`` in the config (``configurable`` or ``metadata``), in a message's ``additional_kwargs``, and in the
    metadata of the documents that a tool gives as its ``artifact``. What says nothing is of the class of a task.
    """
    label = label_said(config, privacy)
    for message in messages:
        label = label.joined(_said(message.additional_kwargs, f"{message.type} message"))
        for metadata in _read_in(message):
            label = label.joined(_of_document(metadata, privacy))
    return label


def label_said(config: RunnableConfig, privacy: Privacy) -> Label:
    """The class that a config says (``configurable`` or ``metadata``), and no wider than that of a task."""
    label = Label(privacy.task)
    for told in (config.get("metadata"), config.get("configurable")):
        label = label.joined(_said(told, "config"))
    return label


def standing_for(message: BaseMessage, gone: Iterable[BaseMessage]) -> BaseMessage:
    """`message`, which is of the class of those that are `gone`, too: words of theirs may stand in it."""
    lost = list(gone)
    documents = [metadata for each in lost for metadata in _read_in(each)]
    said = [each.additional_kwargs[METADATA_KEY] for each in (*lost, message) if METADATA_KEY in each.additional_kwargs]
    if not (documents or said):
        return message
    told = dict(message.additional_kwargs)
    if said:
        told[METADATA_KEY] = strictest(map(claimed, said))
    if documents:
        told[STANDS_FOR] = [*told.get(STANDS_FOR, ()), *documents]
    return message.model_copy(update={"additional_kwargs": told})


def _read_in(message: BaseMessage) -> list[dict[str, str]]:
    """What says the class of the documents that a tool gave with a message, or with one that it stands for."""
    found = [document.metadata for document in _documents(getattr(message, "artifact", None))]
    found += cast("list[dict[str, Any]]", message.additional_kwargs.get(STANDS_FOR) or [])
    return [{key: str(value) for key, value in each.items() if key in ("source", METADATA_KEY)} for each in found]


def guarded(
    messages: list[BaseMessage], label: Label, destination: Destination, privacy: Privacy
) -> tuple[list[BaseMessage], dict[str, int]]:
    """The messages as they may go there, and what was found in them by kind. Raises `DataRefused`."""
    if not _is_to_be_searched(label, destination, privacy, what="the conversation"):
        return messages, {}
    texts = [text for message in messages for text in _texts(message)]
    cleared, found = _cleared(texts, label, destination, privacy, what="the conversation")
    replaced = iter(cleared)
    return [_with_texts(message, replaced) for message in messages], found


def guarded_call(
    messages: list[BaseMessage],
    keywords: Mapping[str, Any],
    label: Label,
    destination: Destination,
    privacy: Privacy,
) -> tuple[list[BaseMessage], dict[str, Any], dict[str, int]]:
    """`guarded`, with what the keywords of a call say to the model as well. Raises `DataRefused`."""
    said = {name: SystemMessage(keywords[name]) for name in SAYING if isinstance(keywords.get(name), str)}
    cleared, found = guarded([*messages, *said.values()], label, destination, privacy)
    words = zip(said, cleared[len(messages) :], strict=True)
    return cleared[: len(messages)], {**keywords, **{name: message.content for name, message in words}}, found


def guarded_texts(
    texts: list[str], label: Label, destination: Destination, privacy: Privacy, *, what: str
) -> list[str]:
    """The texts as they may go there. Raises `DataRefused`, which says of ``what``."""
    if not _is_to_be_searched(label, destination, privacy, what=what):
        return texts
    return _cleared(texts, label, destination, privacy, what=what)[0]


def _is_to_be_searched(label: Label, destination: Destination, privacy: Privacy, *, what: str) -> bool:
    """Whether texts of this class must be looked through before they go there. Raises `DataRefused` if they may not."""
    privacy.require(destination, label, what=what)
    return privacy.looks and privacy.leaves(destination)


def _cleared(
    texts: Sequence[str], label: Label, destination: Destination, privacy: Privacy, *, what: str
) -> tuple[list[str], dict[str, int]]:
    """The texts with placeholders, and what was found in them by kind. Raises `DataRefused` where that is the rule."""
    cleared = clear(Request(tuple(Message("user", text) for text in texts), 1), privacy)
    found = dict(cleared.found)
    if cleared.refused:
        raise refusal([destination.name], label, what=what, found=found)
    return [message.text for message in cleared.request.messages], found


def book_refusal(
    ledger: Ledger,
    hold_id: str,
    accounts: Sequence[str],
    label: Label,
    destination: Destination,
    found: Mapping[str, int],
) -> None:
    """Say in the journal that a model must not see a conversation: for its class, or for what was found in it."""
    meta: dict[str, Any] = {"kind": "refusal", "model": destination.name, "data_class": label.data_class}
    meta |= {"sources": [*label.sources], "found": dict(found)}
    hold = ledger.reserve(hold_id, ZERO, accounts=accounts, meta=meta)
    hold.void(reason=kept_from(destination.name, label, found))
    telemetry.data_class(label.data_class, decision="refused", destination=destination.name, found=found)


def _said(told: Mapping[str, Any] | None, source: str) -> Label:
    value = (told or {}).get(METADATA_KEY)
    return Label() if value is None else Label(claimed(value), (source,))


def _of_document(metadata: Mapping[str, str], privacy: Privacy) -> Label:
    source = metadata.get("source", "a document")
    return Label(privacy.class_of(source, metadata), (source,))


def _documents(artifact: object) -> Iterable[Document]:
    items = cast("Iterable[object]", artifact) if isinstance(artifact, list | tuple) else [artifact]
    return [item for item in items if isinstance(item, Document)]


def _texts(message: BaseMessage) -> list[str]:
    """Every text of a message that a model would read."""
    texts: list[str] = []

    def note(text: str) -> str:
        texts.append(text)
        return text

    _mapped(message, note)
    return texts


def _with_texts(message: BaseMessage, texts: Iterator[str]) -> BaseMessage:
    """The message with other texts in the same places."""
    return _mapped(message, lambda _: next(texts))


def _mapped(message: BaseMessage, tell: Tell) -> BaseMessage:
    """The message with what `tell` makes of its texts: those of its content, and of its tool calls' arguments."""
    content: object = message.content
    told: dict[str, object] = {
        "content": tell(content) if isinstance(content, str) else [_block(each, tell) for each in message.content]
    }
    if isinstance(message, AIMessage):
        told["tool_calls"] = [{**call, "args": _value(call["args"], tell)} for call in message.tool_calls]
        told["invalid_tool_calls"] = [
            {**call, "args": _value(call["args"], tell)} for call in message.invalid_tool_calls
        ]
        raw = {key: _value(value, tell) for key, value in message.additional_kwargs.items() if key in _RAW_CALLS}
        told["additional_kwargs"] = {**message.additional_kwargs, **raw}
    changed = {name: value for name, value in told.items() if value != getattr(message, name)}
    return message.model_copy(update=changed) if changed else message


def _block(block: object, tell: Tell) -> object:
    """A block of a message's content, whatever stands within it. Pictures and what a provider sealed stay unread."""
    if isinstance(block, str):
        return block if block.startswith("data:") else tell(block)
    if isinstance(block, list):
        return [_block(each, tell) for each in cast("list[object]", block)]
    if not isinstance(block, dict):
        return block
    parts = cast("dict[str, object]", block)
    return {key: value if key in _UNREAD else _part(key, value, tell) for key, value in parts.items()}


def _part(key: str, value: object, tell: Tell) -> object:
    return _value(value, tell) if key in _ARGUMENTS else _block(value, tell)


def _value(value: object, tell: Tell) -> object:
    """Arguments of a tool: every text in them."""
    if isinstance(value, str):
        return tell(value)
    if isinstance(value, list):
        return [_value(each, tell) for each in cast("list[object]", value)]
    if isinstance(value, dict):
        return {key: _value(each, tell) for key, each in cast("dict[str, object]", value).items()}
    return value
