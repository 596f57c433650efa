"""Source code without a parser: definitions whole, with their names, whatever the language."""

from __future__ import annotations

import pytest

from agentbudget.context.document import Unreadable
from agentbudget.context.source import LONG_LINES, source

PARTS: dict[str, tuple[str, list[tuple[str, ...]]]] = {
    "javascript": (
        """\
import a from 'b';

// What f does.
async function f(x) {
  if (x) {
    return g(x);
  }

  return 1;
}

export default class A {
  m() { return 1; }
}

const h = async (x) => {
  return x;
};
""",
        [(), ("f",), ("A",), ("h",)],
    ),
    "typescript": (
        """\
export interface I<T> { a: T }

export abstract class A {
  m(): void {}
}

export type U = I<A>;
""",
        [("I",), ("A",), ("U",)],
    ),
    "go": (
        """\
package main

// F does.
func F(a int) int {
	return g(a)
}

func (t *T) M() {}

type T struct {
	A int
}
""",
        [(), ("F",), ("M",), ("T",)],
    ),
    "rust": (
        """\
use a::b;

#[inline]
pub fn f(x: u32) -> u32 {
    g(x)
}

impl A {
    fn m() {}
}
""",
        [(), ("f",), ("A",)],
    ),
    "java": (
        """\
package a;

@Test
public class A extends B {
    int x;

    int m() { return n(); }
}
""",
        [(), ("A",)],
    ),
    "c": (
        """\
#include <a.h>

static int *f(int a,
    int b)
{
    return g(a);
}

struct s { int a; };
""",
        [(), ("f",), ("s",)],
    ),
    "c++": (
        """\
template <class T>
class A {
 public:
  int m();
};

int A::m() {
  return 2;
}
""",
        [("A",), ("A::m",)],
    ),
    "ruby": (
        """\
module M
  def self.f(x)
    x
  end
end

def g
  1
end
""",
        [("M",), ("g",)],
    ),
    "shell": (
        """\
set -e

build() {
  make
}

build all
""",
        [(), ("build",), ()],
    ),
    "sql": (
        """\
CREATE TABLE orders (id int);

SELECT 1;
""",
        [("orders",), ()],
    ),
}


@pytest.mark.parametrize("language", PARTS)
def test_definitions_are_blocks_with_their_names(language: str) -> None:
    text, paths = PARTS[language]
    assert [block.heading_path for block in source(text.encode()).blocks] == paths


def test_every_line_is_in_one_block_and_comments_stay_with_what_they_tell_of() -> None:
    text = PARTS["javascript"][0]
    blocks = source(text.encode()).blocks
    assert "".join("".join(text[b.start : b.end].split()) for b in blocks) == "".join(text.split())
    assert text[blocks[1].start :].startswith("// What f does.\nasync function")


def test_a_long_definition_is_cut_along_those_inside_it() -> None:
    methods = "\n\n".join(f"    int m{n}() {{\n        return {n};\n    }}" for n in range(LONG_LINES // 3))
    paths = [block.heading_path for block in source(f"class A {{\n{methods}\n}}\n".encode()).blocks]
    assert paths[0] == ("A",)
    assert [path for path in paths if len(path) == 2] == [("A", f"m{n}") for n in range(LONG_LINES // 3)]


def test_nesting_without_end_is_not_followed_without_end() -> None:
    nested = "\n".join(" " * n + f"class c{n} {{" for n in range(3_000))
    assert max(len(block.heading_path) for block in source(nested.encode()).blocks) == 8


def test_a_line_without_end_is_no_trouble() -> None:
    assert len(source(b"int " + b"** && " * 200_000).blocks) == 1


def test_binary_data_are_a_reason() -> None:
    with pytest.raises(Unreadable, match="binary data"):
        source(b"\x7fELF\0\0")
