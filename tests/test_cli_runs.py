"""What a person is shown of a run: what a model or a document says, word for word, and nothing a terminal obeys."""

from __future__ import annotations

import pytest

from agentbudget.agent import Run
from agentbudget.cli.runs import show_run
from agentbudget.ledger import Ledger
from agentbudget.statement import Statement

OBEYED = "\x1b]0;mine\x07 \x1b[2J"
WRITTEN = r"\x1b]0;mine\x07 \x1b[2J"


def ended(output: str, *, source: str = "a.md", quote: str = "") -> Run:
    with Ledger.open("memory:") as ledger:
        ledger.account("run/r")
        statement = Statement.of(ledger, "r")
    citation = {"number": 1, "source": source, "heading": "", "start": 0, "end": 9, "quote": quote}
    return Run("r", "task", output, (citation,), statement)


def test_a_letter_is_shown_with_its_lines_and_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    show_run(ended("Dear all,\r\n\r\n\t1\t👩‍🚀\r\noverwritten\rby this"))
    assert "Dear all,\n\n        1       👩‍🚀\noverwritten\\x0dby this\n" in capsys.readouterr().out


def test_an_answer_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_run(ended("[bold]urn:id:42[/] and :warning:\n- two", quote="key:key:7"))
    shown = capsys.readouterr().out
    assert "[bold]urn:id:42[/] and :warning:\n- two\n" in shown
    assert "“key:key:7”" in shown


def test_what_a_terminal_would_obey_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_run(ended(f"answer {OBEYED}", source=f"source {OBEYED}", quote=f"quote {OBEYED}"))
    shown = capsys.readouterr().out
    assert all(f"{what} {WRITTEN}" in shown for what in ("answer", "source", "quote"))
    assert "\x1b" not in shown
