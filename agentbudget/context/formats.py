"""One reader per kind of file: bytes → text and blocks. Raises `Unreadable` with the reason."""

from __future__ import annotations

import ast
import codecs
import io
import logging
import re
import tokenize
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, cast

from agentbudget.context._extra import needs
from agentbudget.context.document import Block, Kind, Unreadable
from agentbudget.context.metadata import stated

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from bs4.element import PageElement, Tag
    from markdown_it.token import Token

Path = tuple[str, ...]

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """Text of a document, its blocks in order, and what it states of itself."""

    text: str
    blocks: tuple[Block, ...]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)


@dataclass(slots=True)
class _Outline:
    """The headings above the current place."""

    _open: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def enter(self, level: int, title: str) -> None:
        self._open = [(depth, name) for depth, name in self._open if depth < level]
        if title:
            self._open.append((level, title))

    @property
    def path(self) -> Path:
        return tuple(title for _, title in self._open)


# --- text -----------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> str:
    """UTF-8, or what a byte order mark says; with ``\\n`` line ends. Guessing would put wrong words into answers."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"not {encoding.upper()} text (byte {error.start}); save it as UTF-8") from error
    return _checked(text)


def _checked(text: str) -> str:
    if "\0" in text:
        raise Unreadable("binary data, not text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def line_starts(text: str) -> list[int]:
    """Where each line begins, and one past the end."""
    starts = [0]
    starts.extend(match.end() for match in re.finditer("\n", text))
    return [*starts, len(text)]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without blank lines at its ends; indentation of its first line stays."""
    piece = text[start:end]
    lead = len(piece) - len(piece.lstrip())
    start += piece.rfind("\n", 0, lead) + 1
    return start, max(start, start + len(text[start:end].rstrip()))


def _block(text: str, start: int, end: int, path: Path, kind: Kind, head: str = "") -> list[Block]:
    """The block of this span, or nothing if it is blank."""
    start, end = _trimmed(text, start, end)
    return [Block(start, end, path, kind, head)] if end > start else []


# --- plain text and reStructuredText --------------------------------------------------------------------------------


def plain(data: bytes) -> Parsed:
    """Paragraphs between blank lines; underlined titles count as headings."""
    return _underlined(decode(data), glue_indented=False)


def restructured(data: bytes) -> Parsed:
    """Sections by their underlines; an indented body stays with the directive or paragraph above it."""
    return _underlined(decode(data), glue_indented=True)


_RULE: Final = re.compile(r"([!-/:-@\[-`{-~])\1{2,}")


def _underlined(text: str, *, glue_indented: bool) -> Parsed:
    lines = text.split("\n")
    starts = line_starts(text)
    outline, styles, blocks = _Outline(), list[str](), list[Block]()
    at = 0
    while at < len(lines):
        title = _title_at(lines, at)
        if title is not None:
            style, name, used = title
            if style not in styles:
                styles.append(style)
            outline.enter(styles.index(style), name)
            at += used
            continue
        end = _paragraph_end(lines, at, glue_indented=glue_indented)
        blocks += _block(text, starts[at], starts[end], outline.path, "prose")
        at = end
    return Parsed(text, tuple(blocks))


def _title_at(lines: list[str], at: int) -> tuple[str, str, int] | None:
    """A title that starts at this line: its style, its text and the lines it takes."""
    here = lines[at].rstrip()
    after = [line.rstrip() for line in lines[at + 1 : at + 3]]
    if len(after) == 2 and _RULE.fullmatch(here) and after[1] == here and 0 < len(after[0].strip()) <= len(here):
        return here[0] * 2, _one_line(after[0]), 3
    if not after or not here or here[0].isspace() or _RULE.fullmatch(here) or not _RULE.fullmatch(after[0]):
        return None
    return (after[0][0], _one_line(here), 2) if len(after[0]) >= len(here) else None


def _paragraph_end(lines: list[str], at: int, *, glue_indented: bool) -> int:
    end = at + 1
    while end < len(lines):
        if not lines[end - 1].strip() and lines[end].strip():
            indented = lines[end][0].isspace()
            if not (glue_indented and indented):
                break
        if end > at and _title_at(lines, end) is not None:
            break
        end += 1
    return end


# --- Markdown -------------------------------------------------------------------------------------------------------

_FRONT_MATTER: Final = re.compile(r"\A---[ \t]*\n(?P<yaml>.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)


def markdown(data: bytes) -> Parsed:
    """CommonMark with tables. Front matter is metadata, no text; tables, code fences and list items are blocks."""
    with needs("reading Markdown"):
        from markdown_it import MarkdownIt

    text = decode(data)
    skipped, metadata = _front_matter(text)
    body = text[skipped:]
    starts = [skipped + start for start in line_starts(body)]
    outline, blocks = _Outline(), list[Block]()
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    for token, following in pairwise([*tokens, *tokens[-1:]]):
        if token.type == "heading_open" and token.level == 0:
            outline.enter(int(token.tag[1:]), _inline_text(following))
        else:
            blocks += _markdown_block(text, token, starts, outline.path)
    return Parsed(text, tuple(blocks), metadata)


def _front_matter(text: str) -> tuple[int, dict[str, str]]:
    """Where the text begins behind its front matter, and what that states.

    What cannot be read is not passed over: it may say who must not see the document.
    """
    front = _FRONT_MATTER.match(text)
    if front is None:
        return 0, {}
    with needs("reading front matter"):
        import yaml
    try:
        # Every value as it is written: "no" and "2026-11-27" are strings here.
        found: object = yaml.load(front["yaml"], Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise Unreadable(f"front matter that is not YAML ({_one_line(str(error))[:200]}); mend or remove it") from error
    if found is None or found == "":
        return front.end(), {}
    # Text between two rules is text.
    return (front.end(), stated(cast("dict[object, object]", found))) if isinstance(found, dict) else (0, {})


_MARKDOWN_KINDS: Final[dict[tuple[str, int], Kind]] = {
    ("paragraph_open", 0): "prose",
    ("blockquote_open", 0): "prose",
    ("list_item_open", 1): "prose",
    ("html_block", 0): "lines",
    ("fence", 0): "lines",
    ("code_block", 0): "lines",
    ("table_open", 0): "lines",
}


def _markdown_block(text: str, token: Token, starts: list[int], path: Path) -> list[Block]:
    kind = _MARKDOWN_KINDS.get((token.type, token.level))
    if kind is None or token.map is None:
        return []
    start, end = starts[token.map[0]], starts[token.map[1]]
    if token.type == "html_block" and text[start:end].lstrip().startswith("<!--"):
        return []
    head = text[start : starts[token.map[0] + 2]] if token.type == "table_open" else ""
    return _block(text, start, end, path, kind, head)


def _inline_text(token: Token) -> str:
    parts = (child.content if child.type != "softbreak" else " " for child in token.children or ())
    return _one_line("".join(parts))


# --- HTML -----------------------------------------------------------------------------------------------------------

_DROPPED: Final = "script, style, template, noscript, nav, svg, [role=navigation], a.headerlink, [hidden]"
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}
_BLOCK_TAGS: Final = frozenset(
    (
        "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "details", "div",
        "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html",
        "li", "main", "ol", "option", "p", "section", "summary", "table", "tbody", "td",
        "tfoot", "th", "thead", "tr", "ul",
    )
)  # fmt: skip


_XML_PROLOG: Final = re.compile(rb"""\s*<\?xml(?:[^>]*?encoding=["'](?P<encoding>[\w.-]+)["'])?[^>]*\?>""")


@dataclass(slots=True)
class _Builder:
    """Text that grows block by block, for formats whose text has to be taken out."""

    outline: _Outline = field(default_factory=_Outline)
    blocks: list[Block] = field(default_factory=list[Block])
    _parts: list[str] = field(default_factory=list[str])
    _length: int = 0

    def write(self, text: str, before: str = "\n\n") -> int:
        if self._parts:
            self._parts.append(before)
            self._length += len(before)
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        return start

    def add(self, text: str, kind: Kind = "prose", head: str = "") -> None:
        if text.strip():
            within_list = text.startswith("- ") and bool(self._parts) and self._parts[-1].startswith("- ")
            start = self.write(text, "\n" if within_list else "\n\n")
            self.blocks.append(Block(start, start + len(text), self.outline.path, kind, head))

    def enter(self, level: int, title: str) -> None:
        if title:
            self.outline.enter(level, title)
            self.write(title)

    def parsed(self) -> Parsed:
        return Parsed("".join(self._parts), tuple(self.blocks))


def html(data: bytes) -> Parsed:
    """The readable part of a page: headings, paragraphs, list items, preformatted text, tables as ``| a | b |``."""
    with needs("reading HTML"):
        from bs4 import BeautifulSoup
        from bs4.builder import ParserRejectedMarkup

    if b"<" not in data:
        return plain(data)
    prolog = _XML_PROLOG.match(data)
    encoding = prolog["encoding"].decode("ascii") if prolog and prolog["encoding"] else None
    try:
        # Without its prolog, for bs4 warns of HTML that calls itself XML.
        soup = BeautifulSoup(data[prolog.end() if prolog else 0 :], "html.parser", from_encoding=encoding)
    except ParserRejectedMarkup as error:
        raise Unreadable(f"not HTML: {error}") from error
    if soup.contains_replacement_characters or "\0" in soup.get_text():
        raise Unreadable("not text in the encoding that it states; save it as UTF-8")
    for unwanted in soup.select(_DROPPED):
        unwanted.decompose()
    builder = _Builder()
    if soup.title:
        title = _one_line(soup.title.extract().get_text())
        if not soup.find(["h1", "h2"]):
            builder.enter(1, title)
    _walk(_readable_part(soup), builder)
    return builder.parsed()


def _readable_part(soup: BeautifulSoup) -> Tag:
    for choice in ("main", "[role=main]", "article", "body"):
        found = soup.select(choice)
        if len(found) == 1 and found[0].get_text(strip=True):
            return found[0]
    if soup.head:
        soup.head.decompose()
    return soup


def _walk(root: Tag, builder: _Builder) -> None:
    """Depth first with a stack of its own, since pages may be nested deeper than Python's."""
    from bs4.element import NavigableString, PreformattedString, Tag

    inline: list[str] = []

    def flush() -> None:
        builder.add(_one_line("".join(inline)))
        inline.clear()

    todo: list[PageElement | None] = [root]
    while todo:
        node = todo.pop()
        if node is None:
            flush()
        elif isinstance(node, Tag):
            if _takes_whole(node, builder, flush):
                continue
            if node.name in _BLOCK_TAGS:
                flush()
                todo.append(None)
            if node.name == "li":
                inline.append("- ")
            todo.extend(reversed(node.contents))
        elif isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            inline.append(node)
    flush()


def _takes_whole(node: Tag, builder: _Builder, flush: Callable[[], None]) -> bool:
    """Headings, preformatted text and plain tables are taken in one piece."""
    if node.name in _HEADINGS:
        flush()
        builder.enter(_HEADINGS[node.name], _one_line(node.get_text()).rstrip("#¶ "))  # permalink marks
    elif node.name == "pre":
        flush()
        builder.add(node.get_text().strip("\n"), "lines")
    elif node.name == "table" and not node.find(["table", "pre", "ul", "ol", *_HEADINGS]):
        flush()
        _table(node, builder)
    else:
        return False
    return True


def _table(node: Tag, builder: _Builder) -> None:
    rows = [[_one_line(cell.get_text(" ")) for cell in row.find_all(["th", "td"])] for row in node.find_all("tr")]
    lines = [f"| {' | '.join(cells)} |" for cells in rows if any(cells)]
    head = f"{lines[0]}\n" if node.find("th") and len(lines) > 1 else ""
    builder.add("\n".join(lines), "lines", head)


# --- Python ---------------------------------------------------------------------------------------------------------


_DOCUMENT: Final = "<agentbudget document>"


def python(data: bytes) -> Parsed:
    """A block per function, per method and per class head; what stands between them, as one block each."""
    text = _python_text(data)
    try:
        # What Python would warn of in a document is not our caller's affair. The filter names the documents alone, for
        # `catch_warnings` would change what other threads see.
        warnings.filterwarnings("ignore", module=re.escape(_DOCUMENT))
        tree = ast.parse(text, filename=_DOCUMENT)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Code for another Python is still text that a reader can use.
        return Parsed(text, tuple(_block(text, 0, len(text), (), "lines")))
    lines, starts = text.split("\n"), line_starts(text)
    pieces = _definitions(tree.body, lines, first=0, last=len(lines), path=())
    blocks = [
        block for first, last, path in pieces for block in _block(text, starts[first], starts[last], path, "lines")
    ]
    return Parsed(text, tuple(blocks))


def _python_text(data: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return _checked(data.decode(encoding))
    except (SyntaxError, LookupError, UnicodeDecodeError) as error:
        raise Unreadable(f"not text in the encoding that it states ({error}); save it as UTF-8") from error


def _definitions(
    body: list[ast.stmt], lines: list[str], *, first: int, last: int, path: Path
) -> Iterator[tuple[int, int, Path]]:
    """Line ranges from `first` to `last`, each with the names that lead to it."""
    done = first
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        start = _with_comments(node, lines, done)
        end = node.end_lineno or start + 1
        if start > done:
            yield done, start, path
        here = (*path, node.name)
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, lines, first=start, last=end, path=here)
        else:
            yield max(start, done), end, here
        done = max(done, end)
    if last > done:
        yield done, last, path


def _with_comments(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, lines: list[str], done: int) -> int:
    start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    while start > done and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return max(start, done)


# --- PDF ------------------------------------------------------------------------------------------------------------


def pdf(data: bytes) -> Parsed:
    """The text of each page, under the heading ``page N``."""
    with needs("reading PDF"):
        from pypdf import PdfReader
    # It complains on standard error of every broken file; ours are named and skipped with the reason.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)

    builder = _Builder()
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted; save it without a password")
        for number, page in enumerate(reader.pages, 1):
            text = page.extract_text().encode(errors="replace").decode().replace("\0", "")
            builder.outline.enter(1, f"page {number}")
            builder.add("\n".join(line.rstrip() for line in text.strip().split("\n")))
    except Unreadable:
        raise
    except Exception as error:  # pypdf lets almost anything out of a broken file; it is named, not lost
        raise Unreadable(f"not a PDF that can be read: {_one_line(str(error)) or type(error).__name__}") from error
    if not builder.blocks:
        raise Unreadable("a PDF without text (scanned?); run text recognition on it first")
    return builder.parsed()
