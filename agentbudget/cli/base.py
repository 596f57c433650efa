"""What every command shares: the JSON and home options, output, and the message of an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from rich.console import Console

    from agentbudget.settings import Settings

EXIT_ERROR: Final = 1
EXIT_OVER_BUDGET: Final = 3
EXIT_INTERRUPTED: Final = 130

_CONTROLS: Final = (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_OBEYED: Final = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _CONTROLS}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
home_option = click.option(
    "--home", type=click.Path(path_type=Path), help="Where ledger, cache and indexes live [AGENTBUDGET_HOME]."
)


def printable(text: str) -> str:
    """Text that somebody else named, without what a terminal would obey: control characters and turns of direction are
    written out, but for lines' ends."""
    return text.replace("\r\n", "\n").translate(_OBEYED)


def fail(message: str, code: int = EXIT_ERROR) -> NoReturn:
    """Print `message` as the reason and leave with `code`."""
    click.secho(f"agentbudget: {printable(message)}", fg="red", err=True)
    sys.exit(code)


def note(**facts: Any) -> None:
    """Say beside the error what is known, should this command end with one and JSON be wanted."""
    click.get_current_context().ensure_object(dict).update(facts)


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def console(*, stderr: bool = False) -> Console:
    """A rich console; 100 columns wide where the output is no terminal. ``urn:id:42`` stays that: it knows no emoji."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 100, emoji=False)


def settings_at(home: Path | None) -> Settings:
    """The environment's settings, with another home if one is given."""
    from agentbudget.settings import Settings

    settings = Settings.from_env()
    return settings if home is None else settings.at(home)


def check_documents(docs: Path) -> None:
    """Say at once what is wrong with a folder, before anything is opened or loaded."""
    from agentbudget.errors import DocumentsError

    if not docs.exists():
        raise DocumentsError(f"there is no folder {str(docs)!r}: name a folder of documents")
    if not docs.is_dir():
        raise DocumentsError(f"{str(docs)!r} is a file: name the folder that it is in")
