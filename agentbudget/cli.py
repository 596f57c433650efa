"""The command line: ``agentbudget run | demo | resume | statement | index | models | ledger | eval``.

Heavy parts load inside the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from agentbudget import __version__
from agentbudget.errors import AgentBudgetError, BudgetExceeded

if TYPE_CHECKING:
    from rich.console import Console

    from agentbudget.agent import Agent, Run

T = TypeVar("T")

DEMO_TASK: Final = "Can a kettle bought 40 days ago still be returned, and who pays for the return shipping?"

EXIT_ERROR: Final = 1
EXIT_OVER_BUDGET: Final = 3
EXIT_INTERRUPTED: Final = 130

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
home_option = click.option(
    "--home", type=click.Path(path_type=Path), help="Where ledger, cache and indexes live [AGENTBUDGET_HOME]."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="agentbudget")
def cli() -> None:
    """Run agents within a budget, and see where every token went."""


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


def fail(message: str, code: int = EXIT_ERROR) -> NoReturn:
    """Print `message` as the reason and leave with `code`."""
    click.secho(f"agentbudget: {message}", fg="red", err=True)
    sys.exit(code)


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


# --- runs

run_options: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("--budget", "usd", default="0.05", show_default=True, help="Dollars that the run may spend."),
    click.option("--tokens", type=click.IntRange(1), help="Tokens that the run may use."),
    click.option("--user", help="Who the run is for: an account that pays along."),
    click.option("--feature", help="What the run is part of: an account that pays along."),
    click.option("--models", help="The ladder, cheapest first, separated by commas [AGENTBUDGET_MODELS]."),
    click.option("--no-cache", is_flag=True, help="Do not reuse answers of other runs."),
    home_option,
    json_option,
)


def with_options(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    """Add `options` to a command, in their order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@cli.command()
@click.argument("task")
@click.option(
    "--docs", required=True, type=click.Path(path_type=Path), help="A folder of .md .txt .rst .html .py .pdf files."
)
@with_options(run_options)
def run(task: str, docs: Path, **options: Any) -> None:
    """Answer TASK from a folder of documents, within a budget."""
    carry_out(task, docs, **options)


@cli.command()
@click.argument("task", default=DEMO_TASK)
@with_options(run_options)
def demo(task: str, **options: Any) -> None:
    """The same, on the handbook that comes with agentbudget."""
    from agentbudget.reference import handbook

    carry_out(task, handbook(), **options)


@cli.command()
@click.argument("run_id")
@click.option("--models", help="The ladder; without it, the run's own.")
@home_option
@json_option
def resume(run_id: str, models: str | None, home: Path | None, as_json: bool) -> None:
    """Go on with a run that was cut short; what it paid for is not paid again."""
    from agentbudget.runs import Runs
    from agentbudget.settings import Settings

    settings = Settings.from_env() if home is None else Settings.from_env().at(home)
    record = Runs(settings.runs_dir).load(run_id)
    agent = make_agent(record.docs, models or ",".join(record.ladder), no_cache=False, home=home)
    finish(
        agent, run_id, as_json, lambda listener, on_index: agent.resume(run_id, listener=listener, on_index=on_index)
    )


def make_agent(docs: Path | str | None, models: str | None, *, no_cache: bool, home: Path | None) -> Agent:
    """The research agent over a folder of documents."""
    from agentbudget.agent import Agent
    from agentbudget.reference import research_graph

    return Agent(
        graph=research_graph(),
        models=[name.strip() for name in models.split(",") if name.strip()] if models else None,
        index=docs,
        name="research",
        home=home,
        share_answers=not no_cache,
    )


def carry_out(
    task: str,
    docs: Path,
    *,
    usd: str,
    tokens: int | None,
    user: str | None,
    feature: str | None,
    models: str | None,
    no_cache: bool,
    home: Path | None,
    as_json: bool,
) -> None:
    """Run the research agent, show its progress, print its answer and its statement."""
    from agentbudget.money import Budget
    from agentbudget.runs import new_run_id

    budget = Budget(usd=usd, tokens=tokens)
    check_documents(docs)
    agent = make_agent(docs, models, no_cache=no_cache, home=home)
    run_id = new_run_id()
    finish(
        agent,
        run_id,
        as_json,
        lambda listener, on_index: agent.run(
            task, budget=budget, user=user, feature=feature, run_id=run_id, listener=listener, on_index=on_index
        ),
    )


def check_documents(docs: Path) -> None:
    """Say at once what is wrong with a folder, before anything is opened or loaded."""
    from agentbudget.errors import DocumentsError

    if not docs.exists():
        raise DocumentsError(f"there is no folder {str(docs)!r}: give --docs a folder of documents")
    if not docs.is_dir():
        raise DocumentsError(f"{str(docs)!r} is a file: give --docs the folder that it is in")


def finish(agent: Agent, run_id: str, as_json: bool, begin: Callable[[Any, Any], Coroutine[Any, Any, Run]]) -> None:
    """Await a run. Whatever ends it, the statement is printed: money was spent."""
    from agentbudget.console import RunView

    async def work() -> Run:
        async with agent:
            with RunView(quiet=as_json) as view:
                await pull_weights(agent, view)
                task = asyncio.ensure_future(begin(view.event, view.indexing))
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
                try:
                    return await task
                except BaseException as error:
                    view.stop()
                    show_broken_run(agent, run_id, error, as_json)
                    raise

    try:
        done = asyncio.run(work())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if as_json:
        print_json(done.to_dict())
    else:
        show_run(done)


async def pull_weights(agent: Agent, view: Any) -> None:
    """Fetch the catalog's weights that the ladder and the index need, with progress, before anything is spent."""
    from agentbudget.models import catalog

    known = {entry.name for entry in catalog.entries()}
    wanted = [name.partition(":")[2] for name in agent.ladder.names]
    for name in [*(n for n in wanted if n in known), "all-minilm-l6-v2"]:
        if not catalog.is_present(name):
            await asyncio.to_thread(catalog.ensure, name, progress=view.pulling)


def console(*, stderr: bool = False) -> Console:
    """A rich console; 100 columns wide where the output is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 100)


def show_run(done: Run) -> None:
    """The answer, where it stands, and what it cost."""
    screen = console()
    screen.print()
    screen.print(str(done.output), style="bold", markup=False)
    for citation in done.citations:
        place = f"  [{citation['number']}] {citation['source']}"
        heading = f" › {citation['heading']}" if citation.get("heading") else ""
        screen.print(f"{place}{heading}  (characters {citation['start']}–{citation['end']})", style="dim", markup=False)
    screen.print()
    screen.print(done.statement.render())
    if done.index_report is not None:
        for skipped in done.index_report.skipped:
            screen.print(f"skipped {skipped.source}: {skipped.reason}", style="yellow", markup=False)


def show_broken_run(agent: Agent, run_id: str, error: BaseException, as_json: bool) -> None:
    """What was spent until a run broke off, and how to go on with it."""
    from agentbudget.errors import UnknownRun

    try:
        statement = agent.statement(run_id)
    except UnknownRun:
        return  # it broke before it began: there is nothing to state
    if as_json:
        print_json({"run_id": run_id, "error": f"{type(error).__name__}: {error}", "statement": statement.to_dict()})
    elif statement.lines:
        console(stderr=True).print(statement.render())
    click.echo(f"go on with it: agentbudget resume {run_id}", err=True)


@cli.command()
@click.argument("run_id", required=False)
@home_option
@json_option
def statement(run_id: str | None, home: Path | None, as_json: bool) -> None:
    """What a run cost; without RUN_ID, the latest."""
    from agentbudget.errors import UnknownRun
    from agentbudget.ledger import Ledger
    from agentbudget.runs import Runs
    from agentbudget.statement import Statement

    settings = settings_at(home)
    runs = Runs(settings.runs_dir)
    ids = runs.ids()
    if run_id is None and not ids:
        raise UnknownRun("there is no run yet: try agentbudget demo")
    record = runs.load(run_id or ids[-1])
    with Ledger.open(settings.ledger_path) as ledger:
        told = Statement.of(
            ledger,
            record.run_id,
            task=record.task,
            user=record.user,
            ladder=tuple(record.ladder),
            status=record.status,
        )
    if as_json:
        print_json(told.to_dict() | {"output": record.output, "citations": record.citations})
    else:
        console().print(told.render())


def settings_at(home: Path | None) -> Any:
    """The environment's settings, with another home if one is given."""
    from agentbudget.settings import Settings

    settings = Settings.from_env()
    return settings if home is None else settings.at(home)


# --- documents


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--rebuild", is_flag=True, help="Start afresh: embed everything again.")
@home_option
@json_option
def index(folder: Path, rebuild: bool, home: Path | None, as_json: bool) -> None:
    """Index FOLDER, or bring its index up to date: only what changed is embedded."""
    from agentbudget.agent import index_location
    from agentbudget.console import RunView
    from agentbudget.context import open_index

    check_documents(folder)
    settings = settings_at(home)

    async def work() -> Any:
        with RunView(quiet=as_json) as view:
            async with open_index(index_location(settings, folder)) as opened:
                return await opened.update(folder, rebuild=rebuild, progress=view.indexing)

    report = asyncio.run(work())
    skipped = [{"source": s.source, "reason": s.reason} for s in report.skipped]
    if as_json:
        names = ("documents", "kept", "moved", "embedded", "deleted", "ignored", "tokens", "seconds")
        print_json({name: getattr(report, name) for name in names} | {"skipped": skipped})
        return
    click.echo(
        f"{report.documents} documents: {report.kept} chunks kept, {report.embedded} embedded "
        f"({report.tokens:,} tokens), {report.deleted} deleted, in {report.seconds:.1f} s"
    )
    for item in skipped:
        click.secho(f"skipped {item['source']}: {item['reason']}", fg="yellow", err=True)


# --- weights


@cli.group()
def models() -> None:
    """Local weights: what there is, and getting it."""


@models.command("list")
@json_option
def models_list(as_json: bool) -> None:
    """The catalog of local weights."""
    from agentbudget.models import catalog

    rows: list[dict[str, Any]] = [
        {
            "name": e.name,
            "title": e.title,
            "licence": e.licence,
            "size_bytes": e.size_bytes,
            "memory_gb": e.memory_gb,
            "present": catalog.is_present(e.name),
        }
        for e in catalog.entries()
    ]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("Name", "What", "Licence", "Size", "Memory", "Here")
    for row in rows:
        size, memory = f"{row['size_bytes'] / 1e6:,.0f} MB", f"{row['memory_gb']} GB"
        table.add_row(row["name"], row["title"], row["licence"], size, memory, "yes" if row["present"] else "–")
    console().print(table)


@models.command("pull")
@click.argument("name")
@click.option("--force", is_flag=True, help="Fetch again what is here.")
@json_option
def models_pull(name: str, force: bool, as_json: bool) -> None:
    """Fetch weights and check their sha256."""
    from agentbudget.console import RunView
    from agentbudget.models import catalog

    with RunView(quiet=as_json) as view:
        path = catalog.ensure(name, progress=view.pulling, force=force)
    print_json({"name": name, "path": str(path)}) if as_json else click.echo(path)


@models.command("remove")
@click.argument("name")
@json_option
def models_remove(name: str, as_json: bool) -> None:
    """Delete weights from this machine."""
    from agentbudget.models import catalog

    gone = catalog.remove(name)
    if as_json:
        print_json({"name": name, "removed": gone})
    else:
        click.echo(f"{name} removed" if gone else f"{name} was not here")


# --- the ledger


@cli.group()
def ledger() -> None:
    """Accounts, entries, and the proof that they agree."""


@ledger.command("accounts")
@home_option
@json_option
def ledger_accounts(home: Path | None, as_json: bool) -> None:
    """Every account: limit, posted, held, available."""
    from agentbudget.ledger import Ledger
    from agentbudget.money import format_usd

    with Ledger.open(settings_at(home).ledger_path) as opened:
        accounts = opened.accounts()
    if as_json:
        print_json([account_row(a) for a in accounts])
        return
    from rich.table import Table

    table = Table("Account", "Limit", "Posted", "Held", "Available", "Tokens posted", "Calls")
    for a in accounts:
        limit, left = a.limit.usd_nano, a.available.usd_nano
        table.add_row(
            a.name,
            "–" if limit is None else format_usd(limit),
            format_usd(a.posted.usd_nano),
            format_usd(a.held.usd_nano),
            "–" if left is None else format_usd(left),
            f"{a.posted.tokens:,}",
            f"{a.posted.calls:,}",
        )
    console().print(table)


def account_row(account: Any) -> dict[str, Any]:
    """An account as JSON-ready data."""
    return {
        "name": account.name,
        "parent": account.parent,
        "limit": {"usd_nano": account.limit.usd_nano, "tokens": account.limit.tokens, "calls": account.limit.calls},
        "posted": {
            "usd_nano": account.posted.usd_nano,
            "tokens": account.posted.tokens,
            "calls": account.posted.calls,
        },
        "held": {"usd_nano": account.held.usd_nano, "tokens": account.held.tokens, "calls": account.held.calls},
    }


@ledger.command("limit")
@click.argument("account")
@click.option("--usd", help="Dollars; without it, no dollar limit.")
@click.option("--tokens", type=click.IntRange(0), help="Tokens; without it, no token limit.")
@home_option
@json_option
def ledger_limit(account: str, usd: str | None, tokens: int | None, home: Path | None, as_json: bool) -> None:
    """Limit ACCOUNT, such as user/42; it is opened if it is new."""
    from agentbudget.ledger import Ledger
    from agentbudget.money import Budget

    with Ledger.open(settings_at(home).ledger_path) as opened:
        changed = opened.account(account, limit=Budget(usd=usd, tokens=tokens))
    print_json(account_row(changed)) if as_json else click.echo(f"{changed.name}: {changed.limit}")


@ledger.command("entries")
@click.option("--after", type=click.IntRange(0), default=0, help="From the entry after this one on.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@home_option
@json_option
def ledger_entries(after: int, limit: int, home: Path | None, as_json: bool) -> None:
    """The journal."""
    from agentbudget.ledger import Ledger

    with Ledger.open(settings_at(home).ledger_path) as opened:
        entries = opened.entries(after=after, limit=limit)
    if as_json:
        print_json(
            [
                {
                    "seq": e.seq,
                    "at_ns": e.at_ns,
                    "kind": e.kind,
                    "subject": e.subject,
                    "targets": list(e.targets),
                    "held": list(e.delta.held),
                    "posted": list(e.delta.posted),
                    "detail": dict(e.detail),
                    "hash": e.hash,
                }
                for e in entries
            ]
        )
        return
    for e in entries:
        click.echo(f"{e.seq:>6}  {e.kind:<8} {e.subject}  held {e.delta.held[0]:+,}  posted {e.delta.posted[0]:+,}")


@ledger.command("verify")
@home_option
@json_option
def ledger_verify(home: Path | None, as_json: bool) -> None:
    """Recompute every balance from the entries; exit 1 if any differs."""
    from agentbudget.ledger import Ledger

    with Ledger.open(settings_at(home).ledger_path) as opened:
        found = opened.verify()
    if as_json:
        print_json(
            {
                "ok": found.ok,
                "accounts": found.accounts,
                "holds": found.holds,
                "entries": found.entries,
                "problems": list(found.problems),
            }
        )
    else:
        for problem in found.problems:
            click.secho(problem, fg="red", err=True)
        verdict = "verified" if found.ok else f"{len(found.problems)} problems in"
        click.echo(f"{verdict}: {found.entries:,} entries, {found.holds:,} holds, {found.accounts:,} accounts")
    if not found.ok:
        sys.exit(EXIT_ERROR)


@ledger.command("sweep")
@home_option
@json_option
def ledger_sweep(home: Path | None, as_json: bool) -> None:
    """Resolve what dead owners left: nothing sent is freed, sent is presumed spent."""
    from agentbudget.ledger import Ledger
    from agentbudget.ledger.sqlite import SqliteStore

    opened = Ledger(SqliteStore(settings_at(home).ledger_path))
    with opened:
        swept = opened.sweep()
    if as_json:
        print_json([{"id": r.id, "state": r.state, "presumed": r.presumed} for r in swept])
    else:
        click.echo(f"{len(swept)} holds resolved")
        for record in swept:
            click.echo(f"  {record.state:<7} {record.id}")
