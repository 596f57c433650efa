"""Where a conversation of LangChain's may go: the class of its messages, and what is found in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.runnables import RunnableConfig

from agentbudget import telemetry
from agentbudget.ledger import Ledger
from agentbudget.models.base import Message, Request
from agentbudget.money import ZERO
from agentbudget.privacy import METADATA_KEY, Destination, Label, Privacy
from agentbudget.privacy.classes import claimed
from agentbudget.privacy.policy import refusal
from agentbudget.privacy.prompts import clear


def label_of(messages: Sequence[BaseMessage], config: RunnableConfig, privacy: Privacy) -> Label:
    """The class of a conversation, as far as anybody says it.

    ``data_class`` in the config (``configurable`` or ``metadata``), in a message's ``additional_kwargs``, and in the
    metadata of the documents that a tool gives as its ``artifact``. What says nothing is of the class of a task.
    """
    label = Label(privacy.task)
    for told in (config.get("metadata"), config.get("configurable")):
        label = label.joined(_said(told, "config"))
    for message in messages:
        label = label.joined(_said(message.additional_kwargs, f"{message.type} message"))
        if isinstance(message, ToolMessage):
            for document in _documents(message.artifact):
                label = label.joined(_of_document(document, privacy))
    return label


def guarded(
    messages: list[BaseMessage], label: Label, destination: Destination, privacy: Privacy
) -> tuple[list[BaseMessage], dict[str, int]]:
    """The messages as they may go there, and what was found in them by kind. Raises `DataRefused`."""
    privacy.require(destination, label, what="the conversation")
    if not (privacy.looks and privacy.leaves(destination)):
        return messages, {}
    texts = [text for message in messages for text in _texts(message)]
    cleared = clear(Request(tuple(Message("user", text) for text in texts), 1), privacy)
    found = dict(cleared.found)
    if cleared.refused:
        raise refusal([destination.name], label, what="the conversation", found=found)
    replaced = iter(message.text for message in cleared.request.messages)
    return [_with_texts(message, replaced) for message in messages], found


def book_refusal(ledger: Ledger, hold_id: str, accounts: Sequence[str], label: Label, destination: Destination) -> None:
    """Say in the journal that a model must not see a conversation."""
    meta = {"kind": "refusal", "model": destination.name, "data_class": label.data_class, "sources": [*label.sources]}
    hold = ledger.reserve(hold_id, ZERO, accounts=accounts, meta=meta)
    hold.void(reason=f"{label.told} may not go to {destination.name}")
    telemetry.data_class(label.data_class, decision="refused", destination=destination.name)


def _said(told: Mapping[str, Any] | None, source: str) -> Label:
    value = (told or {}).get(METADATA_KEY)
    return Label() if value is None else Label(claimed(value), (source,))


def _of_document(document: Document, privacy: Privacy) -> Label:
    known = {str(key): str(value) for key, value in document.metadata.items() if key == METADATA_KEY}
    source = str(document.metadata.get("source", "a document"))
    return Label(privacy.class_of(source, known), (source,))


def _documents(artifact: object) -> Iterable[Document]:
    items = cast("Iterable[object]", artifact) if isinstance(artifact, list | tuple) else [artifact]
    return [item for item in items if isinstance(item, Document)]


def _texts(message: BaseMessage) -> list[str]:
    """The texts of a message's content, whole or in blocks."""
    if isinstance(message.content, str):
        return [message.content]
    return [_text_of(block) for block in message.content]


def _text_of(block: str | dict[Any, Any]) -> str:
    return block if isinstance(block, str) else str(block.get("text", ""))


def _with_texts(message: BaseMessage, texts: Iterable[str]) -> BaseMessage:
    """The message with other texts in the same places."""
    source = iter(texts)
    if isinstance(message.content, str):
        text = next(source)
        return message if text == message.content else message.model_copy(update={"content": text})
    blocks: list[str | dict[Any, Any]] = []
    for block in message.content:
        text = next(source)
        if isinstance(block, str):
            blocks.append(text)
        else:
            blocks.append({**block, "text": text} if "text" in block else block)
    return message.model_copy(update={"content": blocks})
