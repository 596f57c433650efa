"""Any sequence of operations, over every store: the ledger does what the model of it foresees, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.ledger import drill
from tests.ledger.drill import OPERATIONS, Drill, Place

RANDOMS = st.randoms(use_true_random=False)


class LedgerMachine(RuleBasedStateMachine):
    """Hypothesis chooses the operations, and what they are about; a sequence that fails is made short."""

    def __init__(self, place: Callable[[], Place]) -> None:
        super().__init__()
        self.drill = Drill(place(), Random(0))

    @rule(name=st.sampled_from(list(OPERATIONS)), random=RANDOMS)
    def operate(self, name: str, random: Random) -> None:
        getattr(self.drill, name)(random)
        self.drill.check(random)

    def teardown(self) -> None:
        self.drill.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Callable[[], Place]:
    """A new store at each call; another store is another line here."""
    if request.param == "postgresql":
        server = request.getfixturevalue("server")
        return lambda: drill.at(server.fresh())
    return {"memory": drill.in_memory, "sqlite": drill.in_a_file}[request.param]


SIZES = {"memory": (30, 30), "sqlite": (8, 6), "postgresql": (2, 1)}
"""How many sequences hypothesis tries, and how many lives of fifty operations are drawn at random beside them."""


def test_what_hypothesis_thinks_of(place: Callable[[], Place], request: pytest.FixtureRequest) -> None:
    class Machine(LedgerMachine):
        def __init__(self) -> None:
            super().__init__(place)

    examples, _ = SIZES[request.node.callspec.params["place"]]
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=checks),
    )


def test_whole_lives_drawn_at_random(place: Callable[[], Place], request: pytest.FixtureRequest) -> None:
    _, lives = SIZES[request.node.callspec.params["place"]]
    for seed in range(lives):
        drill.run(place(), Random(seed), 50)
