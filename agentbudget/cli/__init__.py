"""The command line: agentbudget run | demo | resume | statement | index | memory | models | prices | ledger | cache |
budget | eval.

Heavy parts load inside the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Any, Final

import click

from agentbudget import __version__
from agentbudget.cli.base import EXIT_INTERRUPTED, EXIT_OVER_BUDGET, fail, print_json
from agentbudget.cli.budget import budget
from agentbudget.cli.cache import cache
from agentbudget.cli.evals import evaluate
from agentbudget.cli.index import index
from agentbudget.cli.ledger import ledger
from agentbudget.cli.memory import memory
from agentbudget.cli.models import models
from agentbudget.cli.prices import prices
from agentbudget.cli.runs import demo, resume, run, statement
from agentbudget.errors import AgentBudgetError, BudgetExceeded, InvalidOutput

__all__ = ["cli", "main"]

STRONGER: Final = (
    "a stronger model may do better: name some with --models, cheapest first (agentbudget models list), "
    "or set ANTHROPIC_API_KEY or OPENAI_API_KEY"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agentbudget")
def cli() -> None:
    """Run agents within a budget, and see where every token went."""


for command in (run, demo, resume, statement, index, memory, evaluate, models, prices, ledger, cache, budget):
    cli.add_command(command)


def main() -> None:
    """The entry point: an error is one clear message, a non-zero exit and, with ``--json``, an object for programs."""
    facts: dict[str, Any] = {}
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name in another script must not break off what was done
            stream.reconfigure(errors="backslashreplace")
    try:
        cli(standalone_mode=False, obj=facts)
    except (Exception, KeyboardInterrupt) as error:
        if "--json" in sys.argv[1:]:  # as it was typed: what could not be parsed is an error, too
            print_json({"error": {"type": type(error).__name__, "message": message(error)}} | facts)
        leave(error)
        raise


def message(error: BaseException) -> str:
    """What an error says to somebody at a command line, who can choose models but not change skills."""
    match error:
        case click.ClickException():
            return error.format_message()
        case click.Abort() | KeyboardInterrupt():
            return "interrupted"
        case InvalidOutput():
            return f"{error.fact}; {STRONGER}"
        case _:
            return str(error)


def leave(error: BaseException) -> None:
    """Say on standard error what went wrong and leave with its exit status; come back if it is a fault of our code."""
    match error:
        case click.ClickException():
            error.show()
            sys.exit(error.exit_code)
        case click.Abort() | KeyboardInterrupt():
            fail(message(error), EXIT_INTERRUPTED)
        case BudgetExceeded():
            fail(f"over budget: {message(error)}", EXIT_OVER_BUDGET)
        case AgentBudgetError():
            fail(message(error))
        case _:
            pass
