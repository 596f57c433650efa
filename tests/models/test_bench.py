"""Speeds: solved exactly from calls, kept, and used by what comes after. `test_cli_prices` measures a real model."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path

import pytest

from agentbudget.errors import InvalidOutput, WeightsError
from agentbudget.models import catalog, local_price, machine, make_model, speeds
from agentbudget.models.base import Request
from agentbudget.models.bench import bench
from agentbudget.models.llama.library import Device
from agentbudget.models.machine import Memory
from agentbudget.models.speeds import Speed
from agentbudget.settings import Settings
from agentbudget.testing import ScriptedModel, ScriptedReply
from agentbudget.usage import Usage
from tests.conftest import Disk

SHA = "0" * 64
SPEED = Speed(1000, 100, "2026-11-27T12:00:00+00:00", machine.name())


def machine_of(prefill: float, decode: float, *, cached: int = 0, most: int = 96) -> ScriptedModel:
    """A model that takes the time that these speeds say, to the nanosecond."""

    def reply(request: Request) -> ScriptedReply:
        read = sum(len(message.text.split()) for message in request.messages) + 7
        written = min(request.max_output_tokens, most)
        seconds = (read - cached) / prefill + written / decode
        return ScriptedReply("yes", usage=Usage(read, written, cached, compute_ns=round(seconds * 10**9)))

    return ScriptedModel(reply)


@pytest.mark.parametrize(("prefill", "decode"), [(370.0, 160.0), (20_000.0, 55.0), (12.0, 90.0)])
@pytest.mark.parametrize("cached", [0, 5])
async def test_two_kinds_of_calls_give_both_speeds(prefill: float, decode: float, cached: int) -> None:
    found = await bench(machine_of(prefill, decode, cached=cached), runs=2)
    assert found.prefill_tokens_per_s == pytest.approx(prefill, rel=1e-3)
    assert found.decode_tokens_per_s == pytest.approx(decode, rel=1e-3)
    assert found.machine == machine.name()


async def test_progress_is_told() -> None:
    seen: list[tuple[int, int, str]] = []
    await bench(machine_of(100, 10), runs=2, on_progress=lambda done, total, what: seen.append((done, total, what)))
    assert [(done, total) for done, total, _ in seen] == [(0, 4), (0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


async def test_a_model_that_hardly_writes_cannot_be_measured() -> None:
    with pytest.raises(InvalidOutput, match="writes too little"):
        await bench(machine_of(100, 10, most=3), runs=1)


# --- what is kept


def test_what_was_measured_is_kept_for_these_weights_on_this_machine(tmp_path: Path) -> None:
    assert speeds.measured(tmp_path, SHA) is None
    speeds.keep(tmp_path, SHA, SPEED)
    speeds.keep(tmp_path, "1" * 64, replace(SPEED, prefill_tokens_per_s=5))
    assert speeds.measured(tmp_path, SHA) == SPEED
    speeds.keep(tmp_path, SHA, replace(SPEED, decode_tokens_per_s=50))
    found = speeds.measured(tmp_path, SHA)
    assert found is not None
    assert found.decode_tokens_per_s == 50


def test_the_speeds_of_another_machine_are_not_this_ones(tmp_path: Path) -> None:
    speeds.keep(tmp_path, SHA, replace(SPEED, machine="another"))
    assert speeds.measured(tmp_path, SHA) is None
    speeds.keep(tmp_path, SHA, SPEED)
    assert speeds.measured(tmp_path, SHA) == SPEED


DAMAGED: tuple[object, ...] = ([], {SHA: 5}, {SHA: {machine.name(): 5}}, {SHA: {machine.name(): {"fast": 1}}})
NO_SPEEDS = (asdict(SPEED) | {"decode_tokens_per_s": 0}, asdict(SPEED) | {"prefill_tokens_per_s": "fast"})


@pytest.mark.parametrize(
    "text", ["", "{", *map(json.dumps, DAMAGED), *(json.dumps({SHA: {machine.name(): told}}) for told in NO_SPEEDS)]
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / speeds.FILE).write_text(text)
    with pytest.raises(WeightsError, match=r"speeds\.json is not what .* remove it"):
        speeds.measured(tmp_path, SHA)


def test_what_cannot_be_kept_is_told(tmp_path: Path, small_disk: Disk) -> None:
    home = small_disk.path / "home"
    home.mkdir()
    small_disk.fill()
    with pytest.raises(WeightsError, match=r"1,000 tokens/s read and 100 written cannot be kept .*make room"):
        speeds.keep(home, SHA, replace(SPEED, prefill_tokens_per_s=1000, decode_tokens_per_s=100))
    assert list(home.iterdir()) == []
    (tmp_path / speeds.FILE).mkdir()
    with pytest.raises(WeightsError, match="remove it"):
        speeds.measured(tmp_path, SHA)


def test_bounds_follow_what_was_measured() -> None:
    settings, entry = Settings.from_env(), catalog.entry("smollm2-135m")
    cold = make_model("llamacpp:smollm2-135m", settings).price
    assert cold.bound(input_tokens=370, output_tokens=0) == -(-6 * 100_000_000 // 3600)  # 6 times a second
    speeds.keep(settings.home, entry.sha256, SPEED)
    warm = make_model("llamacpp:smollm2-135m", settings).price
    assert warm.expected(input_tokens=1000, output_tokens=100) == local_price(settings, entry.sha256).expected(
        input_tokens=1000, output_tokens=100
    )
    two_seconds = -(-2 * 100_000_000 // 3600)
    assert warm.expected(input_tokens=1000, output_tokens=100) == two_seconds
    assert warm.bound(input_tokens=1000, output_tokens=100) == -(-6 * 100_000_000 // 3600)


def test_energy_is_part_of_what_a_local_model_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTBUDGET_WATTS", "1000")
    monkeypatch.setenv("AGENTBUDGET_USD_PER_KWH", "0.26")
    price = make_model("llamacpp:smollm2-135m", Settings.from_env()).price
    assert price.cost(Usage(1, 1, compute_ns=3600 * 10**9)) == 360_000_000
    assert price.terms["watts"] == f"{Decimal(1000):f}"


# --- memory


@pytest.mark.parametrize(
    ("needed", "available", "fits"),
    [(50, 60, "yes"), (60, 60, "yes"), (70, 60, "not now"), (101, 60, "no"), (100, None, "yes"), (101, None, "no")],
)
def test_what_fits(needed: int, available: int | None, fits: str) -> None:
    assert Memory(100, available).fits(needed) == fits


@pytest.mark.parametrize(("needed", "fits"), [(50, "yes"), (70, "yes"), (150, "not now"), (201, "no")])
def test_what_fits_one_of_the_gpus(needed: int, fits: str) -> None:
    gpus = (Device("small", free_bytes=60, total_bytes=100), Device("large", free_bytes=90, total_bytes=200))
    assert machine.fits_gpu(gpus, needed) == fits


def test_without_a_gpu_nothing_is_said_of_one() -> None:
    assert machine.fits_gpu((), 1) is None


def test_this_machine_has_memory_and_a_name() -> None:
    found = machine.memory()
    assert found.total_bytes > 10**8
    assert found.available_bytes is None or 0 <= found.available_bytes <= found.total_bytes
    assert machine.name() == machine.name() != ""
