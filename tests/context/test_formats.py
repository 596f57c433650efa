from __future__ import annotations

import pytest

from agentbudget.context import formats
from agentbudget.context.formats import Parsed
from tests.context.conftest import pdf_bytes


def _shown(parsed: Parsed) -> list[tuple[tuple[str, ...], str]]:
    return [(block.heading_path, parsed.text[block.start : block.end]) for block in parsed.blocks]


def test_markdown_sections_tables_fences_and_lists() -> None:
    text = """---
title: not text
---
Intro.

# One *bold* `code`

First
paragraph.

| a | b |
|---|---|
| 1 | 2 |

Two
---

```python
# not a heading

x = 1
```

- item one
  continued
- item two

<!-- a comment -->

## Three

> quoted

# Four

last
"""
    assert _shown(formats.markdown(text.encode())) == [
        ((), "Intro."),
        (("One bold code",), "First\nparagraph."),
        (("One bold code",), "| a | b |\n|---|---|\n| 1 | 2 |"),
        (("One bold code", "Two"), "```python\n# not a heading\n\nx = 1\n```"),
        (("One bold code", "Two"), "- item one\n  continued"),
        (("One bold code", "Two"), "- item two"),
        (("One bold code", "Three"), "> quoted"),
        (("Four",), "last"),
    ]


def test_a_markdown_table_knows_its_header() -> None:
    [table] = formats.markdown(b"| a | b |\n|---|---|\n| 1 | 2 |\n").blocks
    assert (table.kind, table.head) == ("lines", "| a | b |\n|---|---|\n")


def test_restructured_text_nests_by_style_and_keeps_bodies_with_their_directive() -> None:
    text = """=====
Title
=====

Intro.

Part
----

.. code-block:: sh

   make

   make test

Deeper
~~~~~~

words

Other
-----

more
"""
    assert _shown(formats.restructured(text.encode())) == [
        (("Title",), "Intro."),
        (("Title", "Part"), ".. code-block:: sh\n\n   make\n\n   make test"),
        (("Title", "Part", "Deeper"), "words"),
        (("Title", "Other"), "more"),
    ]


def test_plain_text_is_cut_at_blank_lines_and_underlined_titles() -> None:
    text = "Hours\n=====\n\nMonday\nto Friday.\n\n  Indented.\n\n-----\n\nEnd"
    assert _shown(formats.plain(text.encode())) == [
        (("Hours",), "Monday\nto Friday."),
        (("Hours",), "  Indented."),
        (("Hours",), "-----"),
        (("Hours",), "End"),
    ]


def test_html_gives_the_readable_part() -> None:
    page = b"""<html><head><title>Shop</title><style>p {}</style></head><body><nav>menu</nav><main>
    <h1>Kettles<a class="headerlink" href="#x">\xc2\xb6</a></h1><p>They <b>boil</b><br>water.</p>
    <ul><li>one</li><li>two <i>x</i></li></ul><pre>a
      b</pre><table><tr><th>Model</th><th>Price</th></tr><tr><td>Fjord</td><td>49</td></tr></table>
    <script>evil()</script></main><footer>imprint</footer></body></html>"""
    parsed = formats.html(page)
    assert _shown(parsed) == [
        (("Kettles",), "They boil"),
        (("Kettles",), "water."),
        (("Kettles",), "- one"),
        (("Kettles",), "- two x"),
        (("Kettles",), "a\n      b"),
        (("Kettles",), "| Model | Price |\n| Fjord | 49 |"),
    ]
    assert parsed.blocks[-1].head == "| Model | Price |\n"
    assert "- one\n- two x\n\na" in parsed.text


def test_html_without_headings_goes_under_its_title() -> None:
    assert _shown(formats.html(b"<title>About us</title><p>We sell kettles.")) == [(("About us",), "We sell kettles.")]


def test_html_in_a_stated_encoding_is_read_in_it() -> None:
    page = '<meta charset="iso-8859-2"><p>Łódź</p>'.encode("iso-8859-2")
    assert _shown(formats.html(page)) == [((), "Łódź")]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ('<?xml version="1.0" encoding="iso-8859-2"?><div>Łódź</div>'.encode("iso-8859-2"), "Łódź"),
        ('<?xml version="1.0"?>\n<html><p>ünï</p></html>'.encode(), "ünï"),
        (b"https://example.org/no-tags.html", "https://example.org/no-tags.html"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_html_that_looks_like_xml_or_an_address_is_read_without_a_warning(page: bytes, text: str) -> None:
    assert _shown(formats.html(page)) == [((), text)]


def test_html_that_is_nested_deeper_than_python_may_recurse_is_read() -> None:
    assert _shown(formats.html(b"<div>" * 5000 + b"deep" + b"</div>" * 5000)) == [((), "deep")]


def test_python_is_cut_by_definition() -> None:
    text = '''"""A module."""
import os

X = 1


# about f
@cache
def f():
    return 1


class C:
    """A class."""

    y = 2

    async def g(self):
        def inner(): ...


print(X)
'''
    assert _shown(formats.python(text.encode())) == [
        ((), '"""A module."""\nimport os\n\nX = 1'),
        (("f",), "# about f\n@cache\ndef f():\n    return 1"),
        (("C",), 'class C:\n    """A class."""\n\n    y = 2'),
        (("C", "g"), "    async def g(self):\n        def inner(): ..."),
        ((), "print(X)"),
    ]


@pytest.mark.parametrize("text", ["print 'python 2'\n", "def broken(:\n", "x = " + "(" * 500 + ")" * 500 + "\n"])
def test_python_that_this_python_cannot_parse_is_still_text(text: str) -> None:
    assert _shown(formats.python(text.encode())) == [((), text.rstrip())]


@pytest.mark.filterwarnings("error")
def test_python_with_a_doubtful_escape_is_read_without_a_warning() -> None:
    assert len(formats.python(rb"x = '\d' is 1").blocks) == 1


def test_pdf_pages_are_headings() -> None:
    parsed = formats.pdf(pdf_bytes("Refunds take 5 days.", "", "Kettles boil."))
    assert _shown(parsed) == [(("page 1",), "Refunds take 5 days."), (("page 3",), "Kettles boil.")]
