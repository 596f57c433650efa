"""``agentbudget eval``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentbudget.cli.base import console, home_option, json_option, note, print_json

if TYPE_CHECKING:
    from agentbudget.evals import EvalReport


@click.command("eval")
@click.argument("dataset", type=click.Choice(["banking77", "gsm8k"]))
@click.option("--data", type=click.Path(path_type=Path), help="The folder of evaluation data [AGENTBUDGET_DATA].")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Items to try.")
@click.option(
    "--policy",
    "policies",
    type=click.Choice(["all-cheap", "all-strong", "cascade", "learned"]),
    multiple=True,
    help="A policy to try; may be given several times [all but learned].",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which items are drawn.")
@click.option("--budget", "usd", help="Dollars that the whole eval may spend.")
@click.option("--models", help="The ladder, cheapest first, separated by commas [AGENTBUDGET_MODELS].")
@click.option("--out", type=click.Path(path_type=Path), help="Write the report and its plot into this folder.")
@click.option("--log-dir", type=click.Path(path_type=Path), help="Where Inspect's logs go, for `inspect view`.")
@home_option
@json_option
def evaluate(
    dataset: Any,
    data: Path | None,
    limit: int,
    policies: tuple[Any, ...],
    seed: int,
    usd: str | None,
    models: str | None,
    out: Path | None,
    log_dir: Path | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Trade accuracy against cost: all-cheap, all-strong and cascades on real data."""
    from agentbudget.console import RunView
    from agentbudget.evals import USUAL, run_eval
    from agentbudget.money import Budget

    ladder = [name.strip() for name in models.split(",") if name.strip()] if models else None

    async def work() -> EvalReport:
        with RunView(quiet=as_json) as view:
            return await run_eval(
                dataset,
                data=data,
                policies=policies or USUAL,
                limit=limit,
                seed=seed,
                models=ladder,
                budget=None if usd is None else Budget(usd=usd),
                home=home,
                log_dir=log_dir,
                on_progress=view.evaluating,
            )

    show(asyncio.run(work()), out, as_json=as_json)


def show(report: EvalReport, out: Path | None, *, as_json: bool) -> None:
    """Print a report, and write it into `out`: what was paid for is told whether it can be written or not."""
    screen = console()
    if as_json:
        note(**report.to_dict())
    else:
        screen.print(report.table())
    written = report.write(out) if out is not None else ()
    if as_json:
        print_json(report.to_dict() | {"files": [str(path) for path in written]})
    else:
        for path in written:
            screen.print(f"written: {path}", markup=False)
