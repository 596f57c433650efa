"""``python -m evals.indexing history | build | search``: a table each, everything in it measured in the same run."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

from evals.indexing import build, history, search

CACHE: Final = user_cache_path("agentbudget") / "evals"


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m evals.indexing", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    past = kinds.add_parser("history", help="successive versions of a package's documents, or folders of versions")
    past.add_argument("--package", default="click", help="a package whose source distributions hold docs/")
    past.add_argument("--versions", default=history.VERSIONS, help="of the package, oldest first, separated by commas")
    past.add_argument("--folders", type=Path, help="a folder with a folder for each version, instead of a package")
    past.add_argument("--cache", type=Path, default=CACHE, help="where source distributions are kept")
    built = kinds.add_parser("build", help="indexing passages, beside fastembed alone")
    built.add_argument("--passages", type=int, default=1000)
    built.add_argument(
        "--rounds", type=int, default=4, help="parts that take turns, so that others' load falls on both"
    )
    built.add_argument("--processes", type=int, default=1)
    found = kinds.add_parser("search", help="hybrid queries over many chunks, the question's embedding apart")
    found.add_argument("--chunks", type=int, default=100_000)
    found.add_argument("--queries", type=int, default=300)
    found.add_argument("--kept", type=Path, help="a folder in which the index is kept for the next time")
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} at the start", flush=True)
    if given.kind == "history":
        versions = (
            history.from_folder(given.folders)
            if given.folders is not None
            else history.from_package(given.package, given.versions.split(","), given.cache)
        )
        asyncio.run(history.measure(versions))
    elif given.kind == "build":
        asyncio.run(build.measure(given.passages, rounds=given.rounds, processes=given.processes))
    else:
        asyncio.run(search.measure(given.chunks, given.queries, kept=given.kept))


if __name__ == "__main__":
    main()
