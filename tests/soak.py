"""The long proof of the ledger: `make soak`, or `python -m tests.soak --operations 100000 --kills 300 --seed 1`.

Operations are drawn at random over every store and compared with the model after each; then many processes with many
threads are let at each store that processes can share, and children are killed at work. What fails says how to run
it again. PostgreSQL takes part where its test server can run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom

from tests.ledger import drill
from tests.ledger.drill import Place
from tests.ledger.hammer import Size, hammer
from tests.ledger.kills import kill
from tests.ledger.server import NoServer, Server

LIFE = 100
"""Operations on one ledger."""
SHARES = {"memory": 5, "sqlite": 4, "postgresql": 1}
EVERY_S = 10.0


def main() -> None:
    """Run what is asked for; the process fails if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=100_000, help="in all, over all stores")
    parser.add_argument("--kills", type=int, default=300, help="for each store that outlives its process")
    parser.add_argument("--rounds", type=int, default=60, help="of each of 8 × 4 threads")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--store", choices=list(SHARES), action="append", help="only these")
    parser.add_argument("--life", type=int, help="only this one, as a failure names it")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    server = _server(given.store or list(SHARES))
    try:
        places = _places(given.store or list(SHARES), server)
        if given.life is not None:
            for name, place in places.items():
                _live(name, place, given.seed, given.life)
            return
        _drill(places, given.operations, given.seed)
        for name in places.keys() & {"sqlite", "postgresql"}:
            _hammer(name, server, given.rounds)
            if given.kills:
                _kill(name, server, given.kills, given.seed)
    finally:
        if server is not None:
            server.close()


def _server(stores: list[str]) -> Server | None:
    if "postgresql" not in stores:
        return None
    try:
        return Server()
    except NoServer as reason:
        print(f"without PostgreSQL: {reason}", flush=True)
        return None


def _places(stores: list[str], server: Server | None) -> dict[str, Callable[[], Place]]:
    found: dict[str, Callable[[], Place]] = {"memory": drill.in_memory, "sqlite": drill.in_a_file}
    if server is not None:
        found["postgresql"] = lambda: drill.at(server.fresh())
    return {name: found[name] for name in stores if name in found}


def _drill(places: dict[str, Callable[[], Place]], operations: int, seed: int) -> None:
    whole = sum(SHARES[name] for name in places)
    total: Counter[str] = Counter()
    for name, place in places.items():
        wanted, counts, life, said = operations * SHARES[name] / whole, Counter[str](), 0, time.monotonic()
        while sum(counts.values()) < wanted:
            counts += _live(name, place, seed, life)
            life += 1
            if time.monotonic() - said > EVERY_S or sum(counts.values()) >= wanted:
                said = time.monotonic()
                print(f"{name}: {sum(counts.values()):,} operations in {life:,} lives, all as foreseen", flush=True)
        total += counts
    for what, times in sorted(total.items()):
        print(f"{times:10,}  {what}")
    print(f"{sum(total.values()):10,}  operations in all, seed {seed}", flush=True)


def _live(name: str, place: Callable[[], Place], seed: int, life: int) -> Counter[str]:
    try:
        return drill.run(place(), Random(f"{seed} {name} {life}"), LIFE)
    except BaseException:
        print(f"failed: python -m tests.soak --seed {seed} --store {name} --life {life}", file=sys.stderr, flush=True)
        raise


def _location(name: str, server: Server | None, folder: Path) -> str:
    return str(folder / "ledger.db") if server is None or name == "sqlite" else server.fresh()


def _hammer(name: str, server: Server | None, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        size = Size(rounds=rounds)
        seen = hammer(_location(name, server, Path(folder)), Path(folder), size)
        print(f"{name}: {size.processes} × {size.threads} threads, {rounds} rounds each: {dict(seen)}", flush=True)


def _kill(name: str, server: Server | None, kills: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = kill("work", _location(name, server, Path(folder)), Path(folder), kills, seed)
        print(f"{name}: {said.splitlines()[-1]}", flush=True)
        if name == "sqlite":
            print(f"{name}: {kill('births', '', Path(folder), kills // 3, seed).strip()}", flush=True)


if __name__ == "__main__":
    main()
