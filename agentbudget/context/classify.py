"""The data class of documents: what they claim, what is found in them, and the rules above both."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from agentbudget.context.document import Document
from agentbudget.privacy import METADATA_KEY, DataClass, Label, Privacy
from agentbudget.privacy.classes import CLASSES, claimed, strictest, understood
from agentbudget.privacy.patterns import Finder, Finding

if TYPE_CHECKING:
    from agentbudget.context.chunk import Chunk

_log = logging.getLogger(__name__)

FOUND: Final = "found"
"""Metadata: what was found in a file, as kinds with commas between."""

LOOKED: Final = "_looked"
"""What was looked for when a file was last read. Kept with the file, not with its chunks."""

MASK: Final = "█"
"""Stands in the place of each character that was masked: where a citation points stays where it was."""

_HEAD: Final = 2_000
"""Characters of a document in which it may claim a class, whatever its format and however the claim is written."""

_SHOWN: Final = 40
"""Characters that are shown of a claim that nobody understands."""

_CLAIM: Final = re.compile(
    r"^[\W_]*data[\s_-]?class[\"'*_]*\s*[:=]\s*[\"']?([^\n\"',}<]*)", re.IGNORECASE | re.MULTILINE
)


def looked_through(document: Document, privacy: Privacy) -> Document:
    """The document with what it claims and what was found in it among its metadata; masked, if the rules say so."""
    stated = {key: value for key, value in document.metadata.items() if key not in (FOUND, LOOKED)}
    claims = [*([stated[METADATA_KEY]] if METADATA_KEY in stated else []), *_CLAIM.findall(document.text[:_HEAD])]
    if claims:
        stated[METADATA_KEY] = strictest(map(claimed, claims))
        _warn_of_unknown(claims, document.source)
    if not privacy.looks:
        return replace(document, metadata=stated)
    finder = Finder.of(privacy.groups)
    found = finder.find(document.text)
    stated[LOOKED] = privacy.looking
    everywhere = (*found, *finder.find(_beside(document)))
    if everywhere and privacy.documents == "mask":
        return _masked(replace(document, metadata=stated), found, finder)
    if everywhere:
        stated[FOUND] = ",".join(sorted({f"{finding.group}:{finding.kind}" for finding in everywhere}))
    return replace(document, metadata=stated)


def _warn_of_unknown(claims: Sequence[str], source: str) -> None:
    """Tell whoever misspelled a class: most models may not see the document then."""
    unknown = next((claim.strip() for claim in claims if understood(claim) is None), None)
    if unknown is not None:
        _log.warning(
            "%s says that its data class is %r, which is none of %s: it is taken for %s",
            *(source, unknown[:_SHOWN], ", ".join(CLASSES), claimed(unknown)),
        )


def is_current(stated: Mapping[str, str], privacy: Privacy) -> bool:
    """Whether a file was searched for what the rules look for now."""
    return stated.get(LOOKED, "") == privacy.looking


def classified(source: str, stated: Mapping[str, str], known: Mapping[str, str], privacy: Privacy) -> dict[str, str]:
    """What is known of a file with its class: by the rules, and narrower by what it or its owner says, or it holds."""
    classes: list[DataClass] = [
        privacy.class_of(source, stated),
        privacy.class_of(source, known),
        *_of_found(stated.get(FOUND, "")),
    ]
    kept = {key: value for key, value in known.items() if key not in (LOOKED, FOUND)}
    if FOUND in stated:
        kept[FOUND] = stated[FOUND]
    return {**kept, METADATA_KEY: strictest(classes)}


def label_of(chunk: Chunk, privacy: Privacy) -> Label:
    """The class of a chunk: the narrowest of the places where its content stands, by the rules of now."""
    label = Label()
    for place in chunk.places:
        label = label.joined(Label(privacy.class_of(place.source, place.metadata), (place.source,)))
    return label


def _of_found(found: str) -> list[DataClass]:
    """A credential is restricted, personal data are confidential."""
    groups = {one.partition(":")[0] for one in found.split(",") if one}
    classes: list[DataClass] = []
    if "secret" in groups:
        classes.append("restricted")
    if "personal" in groups:
        classes.append("confidential")
    return classes


def _beside(document: Document) -> str:
    """What is said beside the text, such as the title of a page: headings and metadata."""
    headings = (heading for block in document.blocks for heading in block.heading_path)
    return "\n".join(dict.fromkeys((*headings, *document.metadata.values())))


def _masked(document: Document, found: tuple[Finding, ...], finder: Finder) -> Document:
    """The document without what was found, in its text and in all that is said beside it: headings and metadata."""

    @cache  # many blocks stand under one heading
    def masked(text: str) -> str:
        return _hidden(text, finder.find(text)) if text else text

    blocks = tuple(
        replace(block, head=masked(block.head), heading_path=tuple(map(masked, block.heading_path)))
        for block in document.blocks
    )
    metadata = {key: masked(value) for key, value in document.metadata.items()}
    return replace(document, text=_hidden(document.text, found), blocks=blocks, metadata=metadata)


def _hidden(text: str, found: tuple[Finding, ...]) -> str:
    for finding in found:
        middle = re.sub(r"[^\n]", MASK, text[finding.start : finding.end])
        text = text[: finding.start] + middle + text[finding.end :]
    return text
