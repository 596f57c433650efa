"""``agentbudget run | demo | resume | statement``."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agentbudget.cli.base import check_documents, console, home_option, json_option, note, print_json, printable
from agentbudget.cli.options import ledger_option, look_into, settings_for, with_options

if TYPE_CHECKING:
    from agentbudget.agent import Agent, Run
    from agentbudget.settings import Settings

DEMO_TASK: Final = (
    "A customer bought a kettle 40 days ago. Can it still be returned, and when is phone support open on Saturdays?"
)

run_options: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("--budget", "usd", default="0.05", show_default=True, help="Dollars that the run may spend."),
    click.option("--tokens", type=click.IntRange(1), help="Tokens that the run may use."),
    click.option("--user", help="Who the run is for: an account that pays along."),
    click.option("--feature", help="What the run is part of: an account that pays along."),
    click.option("--models", help="The ladder, cheapest first, separated by commas [AGENTBUDGET_MODELS]."),
    click.option("--no-cache", is_flag=True, help="Do not reuse answers of other runs."),
    ledger_option,
    home_option,
    json_option,
)


@click.command()
@click.argument("task")
@click.option(
    "--docs",
    required=True,
    type=click.Path(path_type=Path),
    help="A folder of documents: text, HTML, PDF, tables, source code.",
)
@with_options(run_options)
def run(task: str, docs: Path, **options: Any) -> None:
    """Answer TASK from a folder of documents, within a budget."""
    carry_out(task, docs, **options)


@click.command()
@click.argument("task", default=DEMO_TASK)
@with_options(run_options)
def demo(task: str, **options: Any) -> None:
    """The same, on the handbook that comes with agentbudget."""
    from agentbudget.reference import handbook

    carry_out(task, handbook(), **options)


@click.command()
@click.argument("run_id")
@click.option("--models", help="The ladder; without it, the run's own.")
@click.option("--budget", "usd", help="A new limit in dollars, what the run has spent included.")
@click.option("--tokens", type=click.IntRange(1), help="A new limit in tokens, what the run has used included.")
@ledger_option
@home_option
@json_option
def resume(
    run_id: str,
    models: str | None,
    usd: str | None,
    tokens: int | None,
    where: str | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Go on with a run that was cut short; what it paid for is not paid again. A limit that is not given stays."""
    from agentbudget.money import Budget
    from agentbudget.runs import Runs

    settings = settings_for(home, where)
    record = Runs(settings.runs_dir).load(run_id)
    agent = make_agent(record.docs, models or ",".join(record.ladder), no_cache=False, settings=settings)
    known = record.budget
    budget = Budget(usd=known.usd if usd is None else usd, tokens=tokens or known.tokens, calls=known.calls)
    finish(
        agent,
        run_id,
        as_json,
        lambda listener, on_index: agent.resume(run_id, budget=budget, listener=listener, on_index=on_index),
    )


def make_agent(docs: Path | str | None, models: str | None, *, no_cache: bool, settings: Settings) -> Agent:
    """The research agent over a folder of documents."""
    from agentbudget.agent import Agent
    from agentbudget.reference import research_graph

    return Agent(
        graph=research_graph(),
        models=[name.strip() for name in models.split(",") if name.strip()] if models else None,
        index=docs,
        name="research",
        settings=settings,
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
    where: str | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Run the research agent, show its progress, print its answer and its statement."""
    from agentbudget.money import Budget
    from agentbudget.runs import check_task, new_run_id

    check_task(task)  # before weights are fetched for it
    budget = Budget(usd=usd, tokens=tokens)
    check_documents(docs)
    agent = make_agent(docs, models, no_cache=no_cache, settings=settings_for(home, where))
    run_id = new_run_id()
    finish(
        agent,
        run_id,
        as_json,
        lambda listener, on_index: agent.run(
            task, budget=budget, user=user, feature=feature, run_id=run_id, listener=listener, on_index=on_index
        ),
    )


def finish(agent: Agent, run_id: str, as_json: bool, begin: Callable[[Any, Any], Coroutine[Any, Any, Run]]) -> None:
    """Await a run. Whatever ends it, the statement is printed: money was spent."""
    from agentbudget.console import RunView
    from agentbudget.models import machine_price

    async def work() -> Run:
        async with agent:
            with RunView(quiet=as_json, machine=machine_price(agent.settings)) as view:
                await agent.check_documents()
                await pull_weights(agent, view)
                task = asyncio.ensure_future(begin(view.event, view.indexing))
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
                try:
                    return await task
                except BaseException as error:
                    view.stop()
                    show_broken_run(agent, run_id, error, as_json=as_json)
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


def show_run(done: Run) -> None:
    """The answer, where it stands, and what it cost."""
    screen = console()
    screen.print()
    screen.print(printable(str(done.output)), style="bold", markup=False)
    for citation in done.citations:
        place = f"  [{citation['number']}] {citation['source']}"
        heading = f" › {citation['heading']}" if citation.get("heading") else ""
        stands = f"{place}{heading}  (characters {citation['start']}–{citation['end']})"
        screen.print(printable(stands), style="dim", markup=False)
        if citation.get("quote"):
            screen.print(printable(f"      “{citation['quote']}”"), style="dim italic", markup=False)
    screen.print()
    screen.print(done.statement.render())
    if done.index_report is not None:
        for skipped in done.index_report.skipped:
            screen.print(printable(f"skipped {skipped.source}: {skipped.reason}"), style="yellow", markup=False)


def show_broken_run(agent: Agent, run_id: str, error: BaseException, *, as_json: bool) -> None:
    """What was spent until a run broke off, and how to go on with it."""
    from agentbudget.errors import UnknownRun

    try:
        statement = agent.statement(run_id)
    except UnknownRun:
        return  # it broke before it began: there is nothing to state
    note(run_id=run_id, statement=statement.to_dict())
    if statement.lines and not as_json:
        console(stderr=True).print(statement.render())
    click.echo(f"go on with it: agentbudget resume {run_id}{larger_limit(error, run_id)}", err=True)


def larger_limit(error: BaseException, run_id: str) -> str:
    """The option without which a run that used up its own budget would only be refused again."""
    from agentbudget.errors import BudgetExceeded

    if not isinstance(error, BudgetExceeded) or error.account != f"run/{run_id}":
        return ""
    return {"usd": " --budget USD", "tokens": " --tokens NUMBER"}.get(error.unit, "")


@click.command()
@click.argument("run_id", required=False)
@ledger_option
@home_option
@json_option
def statement(run_id: str | None, where: str | None, home: Path | None, as_json: bool) -> None:
    """What a run cost; without RUN_ID, the latest.

    RUN_ID may also be that of an index's update (index-…), or any other whose account run/RUN_ID the ledger has.
    """
    from agentbudget.errors import StoreError, UnknownRun
    from agentbudget.runs import Runs, require_ledger
    from agentbudget.statement import Statement

    settings = settings_for(home, where)
    runs = Runs(settings.runs_dir)
    ids = runs.ids()
    if run_id is None and not ids:
        raise UnknownRun("there is no run yet: try agentbudget demo")
    wanted = run_id or ids[-1]
    with look_into(home, where) as ledger:
        booked = any(account.name == f"run/{wanted}" for account in ledger.accounts(prefix=f"run/{wanted}"))
        record = None
        try:
            record = None if booked and wanted not in ids else runs.load(wanted)
        except UnknownRun as error:  # its file is damaged: what it cost stands elsewhere
            if not booked:
                raise
            click.echo(str(error), err=True)
        if record is not None:
            require_ledger(record, None if settings.ledger is None else ledger.location)
        try:
            ledger.sweep()
        except StoreError as error:  # a full disk: what there is can be read all the same
            click.echo(f"what a process that died left is not resolved: {error}", err=True)
        told = Statement.of(
            ledger,
            wanted,
            task=record and record.task,
            user=record and record.user,
            ladder=tuple(record.ladder) if record else (),
            status=record and record.status,
        )
    if as_json:
        gave = {"output": record and record.output, "citations": record.citations if record else []}
        print_json(told.to_dict() | gave)
    elif told.lines:
        console().print(told.render())
    else:
        click.echo(f"run {wanted}{f' ({record.status})' if record else ''} spent nothing")
