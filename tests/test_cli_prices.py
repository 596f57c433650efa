"""``agentbudget prices`` and ``agentbudget models``, as a person and as a program calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner, Result

from agentbudget.cache import Answers
from agentbudget.cli import cli
from agentbudget.errors import AgentBudgetError, InvalidAmount, SkillError, UnknownModel, UnknownPrice
from agentbudget.ledger import Ledger
from agentbudget.models import machine, speeds
from agentbudget.models.ladder import Ladder
from agentbudget.models.speeds import Speed
from agentbudget.money import Budget
from agentbudget.prices import ComputePrice
from agentbudget.settings import Settings
from agentbudget.skills import skill
from agentbudget.step import Context, Engine, Scope
from agentbudget.testing import ScriptedModel, ScriptedReply
from agentbudget.usage import Usage

GPU = ["--usd-per-hour", "2.50", "--prefill", "20000", "--decode", "2500", "--input", "2000", "--output", "200"]


def ask(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def told(*words: str) -> Any:
    result = ask(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def refused(*words: str) -> AgentBudgetError:
    error = ask(*words).exception
    assert isinstance(error, AgentBudgetError)
    return error


def test_a_model_that_embeds_is_shown_and_compared_where_no_output_is_asked_about() -> None:
    small, large = "openai:text-embedding-3-small", "openai:text-embedding-3-large"
    assert [(row["input"], row["output"]) for row in told("prices", "show", small, "--tier", "standard")] == [
        ("0.02", "0")
    ]
    found = told("prices", "compare", large, small, "--input", "1000", "--output", "0")["models"]
    assert [(line["model"], line["call_usd_nano"]) for line in found] == [(small, 20_000), (large, 130_000)]
    assert isinstance(refused("prices", "compare", small), UnknownPrice)


def test_the_rates_of_every_service_tier_are_shown() -> None:
    rows = told("prices", "show", "openai:gpt-5.5", "anthropic:claude-haiku-4-5")
    assert {(row["model"], row["tier"], row["above"]): row["input"] for row in rows} == {
        ("openai:gpt-5.5", "standard", 0): "5",
        ("openai:gpt-5.5", "standard", 272_000): "10",
        ("openai:gpt-5.5", "batch", 0): "2.5",
        ("openai:gpt-5.5", "batch", 272_000): "5",
        ("openai:gpt-5.5", "flex", 0): "2.5",
        ("openai:gpt-5.5", "flex", 272_000): "5",
        ("openai:gpt-5.5", "priority", 0): "12.5",
        ("openai:gpt-5.5", "fast", 0): "12.5",
        ("anthropic:claude-haiku-4-5", "standard", 0): "1",
        ("anthropic:claude-haiku-4-5", "batch", 0): "0.5",
    }
    shown = ask("prices", "show", "anthropic:claude-haiku-4-5").output
    assert all(text in shown for text in ("USD per 1M tokens", "1.25", "2.00", "batch", "genai-prices"))


def test_a_local_model_is_shown_with_what_its_tokens_cost_at_its_speeds() -> None:
    (row,) = told("prices", "show", "llamacpp:smollm2-135m")
    assert row["output"] == "0.173611112"  # 0.10 USD/h ÷ 3600 × 10⁶ ÷ 160
    assert row["source"] == "0.1 USD/h at 370 tokens/s read, 160 written"


def test_a_served_model_is_shown_by_its_name_whatever_that_looks_like() -> None:
    shown = ask("prices", "show", "vllm:x").output
    assert "vllm:x: 0.1 USD/h at" in shown


def test_a_price_sheet_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = tmp_path / "mine.toml"
    sheet.write_text('["openai:mine"]\ninput = 0.1\noutput = 0.3\n')
    monkeypatch.setenv("AGENTBUDGET_PRICES", str(sheet))
    (row,) = told("prices", "show", "openai:mine")
    assert (row["input"], row["source"]) == ("0.1", "price sheet mine.toml")
    assert told("prices", "compare", "openai:mine")["models"][0]["call_usd_nano"] == 160_000


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["show", "openai:nosuch"], UnknownPrice, "AGENTBUDGET_PRICES"),
        (["show", "openai:gpt-4", "--tier", "flex"], UnknownPrice, "service tier 'flex'"),
        (["show", "gpt-4"], UnknownModel, "names no provider"),
        (["compare", "llamacpp:nosuch"], UnknownModel, "no weights are called"),
        (["compare", "openai:gpt-4o", "--skill", "triage"], SkillError, "no calls of a skill 'triage'; it has none"),
        (["break-even", "llamacpp:smollm2-135m", *GPU], UnknownPrice, "--local"),
        (["break-even", "openai:gpt-4o", *GPU, "--utilisation", "2"], InvalidAmount, "utilisation"),
    ],
)
def test_what_cannot_be_priced_says_what_to_change(words: list[str], error: type[Exception], says: str) -> None:
    found = refused("prices", *words)
    assert isinstance(found, error)
    assert says in str(found)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "--input", "10", "--cached", "20"], "cannot be more"),
        (["break-even", "openai:gpt-4o"], "how fast is the machine"),
        (["break-even", "openai:gpt-4o", *GPU, "--watts", "700"], "--usd-per-kwh"),
        (["break-even", "openai:gpt-4o", *GPU, "--local", "openai:gpt-4"], "llamacpp:"),
        (["break-even", "openai:gpt-4o", "--prefill", "fast"], "is not a number"),
        (["break-even", "openai:gpt-4o", "--prefill", "-1"], "at least 0"),
        (["compare", "--calls", "1e400"], "is more than 1,000,000,000,000,000,000"),
    ],
)
def test_options_that_do_not_go_together_are_explained(words: list[str], says: str) -> None:
    result = ask("prices", *words)
    assert result.exit_code == 2
    assert says in result.output


def test_models_are_compared_by_the_call_and_by_the_month() -> None:
    words = ["openai:gpt-4o", "openai:gpt-4o-mini", "--input", "1000", "--output", "100", "--calls", "30000"]
    found = told("prices", "compare", *words)
    assert [(line["model"], line["call_usd_nano"], line["month_usd_nano"]) for line in found["models"]] == [
        ("openai:gpt-4o-mini", 210_000, 6_300_000_000),
        ("openai:gpt-4o", 3_500_000, 105_000_000_000),
    ]
    shown = ask("prices", "compare", *words).output
    assert all(text in shown for text in ("$0.00021", "$3.50", "$105.00", "A month", "█"))


def test_a_service_tier_is_compared() -> None:
    (line,) = told("prices", "compare", "openai:gpt-5", "--tier", "flex", "--input", "1000", "--output", "0")["models"]
    assert line["call_usd_nano"] == 625_000


@skill(max_output_tokens=8)
async def triage(ctx: Context, message: str) -> Literal["billing", "bug"]:
    """Say which team should handle this message."""
    ...


async def test_a_skill_is_compared_by_what_the_ledger_has_of_it() -> None:
    with Ledger.open(Settings.from_env().ledger_location) as ledger:
        ledger.account("run/r", limit=Budget(usd="1"))
        replies = [ScriptedReply('"bug"', usage=Usage(n, 10)) for n in (1000, 3000)]
        engine = Engine(ledger, Ladder((ScriptedModel(replies),)), Answers(), ComputePrice("0.10", 100, 10))  # pyright: ignore[reportArgumentType] # a text is a decimal here
        for n in range(2):
            await triage(Context(engine, Scope("r")), message=str(n))
    found = told("prices", "compare", "openai:gpt-4o-mini", "--skill", "triage", "--calls", "10")
    assert (found["calls"], found["mean_input_tokens"]) == (2, 2000)
    assert found["models"][0]["call_usd_nano"] == 306_000
    assert found["models"][0]["month_usd_nano"] == 3_060_000
    assert "2 calls of triage" in ask("prices", "compare", "openai:gpt-4o-mini", "--skill", "triage").output


def test_the_break_even_is_told_with_a_table_of_volumes() -> None:
    found = told("prices", "break-even", "anthropic:claude-haiku-4-5", *GPU, "--watts", "700", "--usd-per-kwh", "0.30")
    assert found["break_even_calls"] == 602_108
    assert [volume["calls"] for volume in found["volumes"]][2] == 602_108
    shown = ask("prices", "break-even", "anthropic:claude-haiku-4-5", *GPU).output
    assert "from 600,000 calls a month on (20,000 a day) the machine costs less" in shown
    assert "never" in ask("prices", "break-even", "openai:gpt-5-nano", *GPU).output


def test_a_machine_is_known_by_its_local_model_and_the_environment() -> None:
    settings = Settings.from_env()
    sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    speeds.keep(settings.home, sha256, Speed(1000, 100, "2026-11-27T12:00:00+00:00", machine.name()))
    words = ["prices", "break-even", "openai:gpt-4o", "--local", "llamacpp:smollm2-135m", "--utilisation", "1"]
    found = told(*words, "--input", "1000", "--output", "100")
    assert found["month_usd_nano"] == 72 * 10**9
    assert found["capacity"] == 720 * 3600 // 2


# --- models


def test_the_catalog_says_what_fits_and_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTBUDGET_MIRROR", "http://localhost:1")
    monkeypatch.setenv("AGENTBUDGET_HUB", "1")
    rows = {row["name"]: row for row in told("models", "list", "--context", "8192")}
    small = rows["smollm2-135m"]
    assert small["sources"] == ["mirror", "model hub", "package index"]
    assert (small["quantization"], small["licence"], small["size_bytes"]) == ("Q4_1", "Apache-2.0", 98_362_432)
    assert small["sha256"].startswith("b179c9523d0e")
    assert small["memory_bytes"] > small["size_bytes"] + 8192 * 23_040
    assert small["fits"] in ("yes", "not now", "no")
    assert (small["fits_gpu"] is None) == (not machine.gpus())
    assert rows["all-minilm-l6-v2"]["fits_gpu"] is None
    assert small["measured_at"] is None
    shown = ask("models", "list").output
    assert all(text in shown for text in ("Q4_K_M", "Apache-2.0", "b179c9523d0e", "this machine:", "of the catalog"))


def test_a_model_is_measured_and_the_list_says_so(smollm2_named: str) -> None:
    found = told("models", "bench", smollm2_named, "--runs", "1", "--read", "40", "--write", "16")
    (row,) = (row for row in told("models", "list") if row["name"] == smollm2_named)
    assert row["decode_tokens_per_s"] == found["decode_tokens_per_s"] > 1
    assert row["measured_at"] == found["measured_at"]


@pytest.fixture
def smollm2_named() -> str:
    """The catalog's smallest model, here."""
    from agentbudget.errors import WeightsError
    from agentbudget.models import catalog

    try:
        catalog.ensure("smollm2-135m")
    except WeightsError as error:
        if catalog.is_present("smollm2-135m"):
            raise
        pytest.skip(f"the weights cannot be fetched here: {error}")
    return "smollm2-135m"


def test_weights_that_nobody_knows_are_answered_with_the_list() -> None:
    assert "smollm2-135m" in str(refused("models", "pull", "nosuch"))
    assert "smollm2-135m" in str(refused("models", "bench", "nosuch"))
