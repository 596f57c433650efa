"""The command line: ``agentbudget run | demo | resume | statement | index | models | ledger | eval``.

Heavy parts load inside the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys

import click

from agentbudget import __version__
from agentbudget.cli.base import EXIT_INTERRUPTED, EXIT_OVER_BUDGET, fail
from agentbudget.cli.evals import evaluate
from agentbudget.cli.index import index
from agentbudget.cli.ledger import ledger
from agentbudget.cli.models import models
from agentbudget.cli.runs import demo, resume, run, statement
from agentbudget.errors import AgentBudgetError, BudgetExceeded

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agentbudget")
def cli() -> None:
    """Run agents within a budget, and see where every token went."""


for command in (run, demo, resume, statement, index, evaluate, models, ledger):
    cli.add_command(command)


def main() -> None:
    """The entry point: an error of ours is one clear message and a non-zero exit."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", EXIT_INTERRUPTED)
    except BudgetExceeded as error:
        fail(f"over budget: {error}", EXIT_OVER_BUDGET)
    except AgentBudgetError as error:
        fail(str(error))
