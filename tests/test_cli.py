"""The command line: what it prints, what bad input gets, and that the statement is printed whatever happens.

Each test is a real process. Where a model is needed it is SmolLM2-135M in llama.cpp: what it says is not looked at.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from agentbudget.cli import cli
from agentbudget.ledger import Ledger
from agentbudget.memory import Owner, Source, open_memories
from agentbudget.models import catalog
from agentbudget.settings import Settings
from tests.models.provider_server import ProviderServer, Reply
from tests.models.remote_fixtures import chat_answer

SMOL = "llamacpp:smollm2-135m"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "returns.md").write_text("# Returns\n\nA kettle can be returned within 30 days of delivery.\n")
    return folder


def agentbudget(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentbudget", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )


def run(docs: Path, *arguments: str, models: str = SMOL, **environment: str) -> subprocess.CompletedProcess[str]:
    return agentbudget("run", "--docs", docs, "--models", models, *arguments, "What is the window?", **environment)


def posted() -> dict[str, int]:
    """What stands in the ledger, in nano-dollars by account."""
    with Ledger.open(Path(os.environ["AGENTBUDGET_HOME"]) / "ledger.db") as ledger:
        verification = ledger.verify()
        assert verification.ok, verification.problems
        assert all(account.held.usd_nano == 0 for account in ledger.accounts())
        return {account.name: account.posted.usd_nano for account in ledger.accounts()}


@pytest.fixture
def smollm2() -> None:
    catalog.ensure("smollm2-135m")
    catalog.ensure("all-minilm-l6-v2")


@pytest.mark.usefixtures("smollm2")
def test_a_run_prints_json_for_programs_and_the_ledger_verifies(docs: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 cut short")
    done = run(docs, "--json", "--user", "42")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["output"]
    assert told["statement"]["run_id"] == told["run_id"]
    spent = posted()
    assert spent[f"run/{told['run_id']}"] == spent["user/42"] > 0

    statement = agentbudget("statement")
    assert statement.returncode == 0
    assert "plan" in statement.stdout
    verified = agentbudget("ledger", "verify", "--json")
    assert json.loads(verified.stdout)["ok"] is True
    accounts = json.loads(agentbudget("ledger", "accounts", "--json").stdout)
    assert {a["name"] for a in accounts} >= {"user/42", "skill/plan", "skill/answer"}

    again = run(docs, "--json")
    assert json.loads(again.stdout)["output"] == told["output"]
    calls = [line for line in json.loads(again.stdout)["statement"]["lines"] if line["skill"] == "plan"]
    assert calls[0]["status"] == "cached"


@pytest.mark.usefixtures("smollm2")
def test_an_unreadable_file_among_good_ones_is_named_and_skipped(docs: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 cut short")
    (docs / "none\x1b[2J.md").write_bytes(b"")
    done = agentbudget("index", docs)
    assert done.returncode == 0
    assert "skipped broken.pdf" in done.stderr
    assert r"skipped none\x1b[2J.md: empty" in done.stderr, "a terminal would obey it"
    assert "1 embedded" in done.stdout
    assert "1 chunks kept, 0 embedded" in agentbudget("index", docs).stdout


@pytest.mark.usefixtures("smollm2")
def test_a_budget_too_small_for_the_first_step_says_what_would_be_needed(docs: Path) -> None:
    done = run(docs, "--budget", "0.000001")
    assert done.returncode == 3
    assert "over budget" in done.stderr
    assert "raise the limit by at least" in done.stderr
    assert set(posted().values()) == {0}


def test_a_missing_folder_is_named_before_anything_is_opened(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert not Path(os.environ["AGENTBUDGET_HOME"]).exists()


@pytest.mark.usefixtures("smollm2")
def test_an_empty_task_is_refused_before_weights_are_fetched(docs: Path, tmp_path: Path) -> None:
    done = agentbudget("run", "--docs", docs, "--models", SMOL, " ", AGENTBUDGET_WEIGHTS=str(tmp_path / "none"))
    assert done.returncode == 1
    assert "the task is empty" in done.stderr
    assert "smollm2" not in done.stderr
    assert not (tmp_path / "none").exists()


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(tmp_path / "empty")
    assert done.returncode == 1
    assert "empty" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("budget", ["abc", "-1", "NaN"])
def test_a_budget_that_is_no_amount_is_refused(docs: Path, budget: str) -> None:
    done = run(docs, "--budget", budget)
    assert done.returncode == 1
    assert budget in done.stderr
    assert "usd=" not in done.stderr  # Python's way to write it is none here
    assert "Traceback" not in done.stderr


def test_a_model_without_a_price_is_refused_with_how_to_price_it(docs: Path) -> None:
    done = run(docs, models="openai:nobody-has-heard-of-it", OPENAI_API_KEY="sk-test")
    assert done.returncode == 1
    assert "price" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_model_is_named(docs: Path) -> None:
    done = run(docs, models="llamacpp:no-such-model")
    assert done.returncode == 1
    assert "no-such-model" in done.stderr


@pytest.mark.usefixtures("smollm2")
def test_weights_that_were_changed_are_refused(docs: Path, tmp_path: Path) -> None:
    good = catalog.entry("smollm2-135m").path
    weights = tmp_path / "weights"
    for name in ("smollm2-135m", "all-minilm-l6-v2"):
        source = catalog.entry(name).folder
        (weights / name).mkdir(parents=True)
        for file in source.iterdir():
            if file.is_file() and file != good:
                os.link(file, weights / name / file.name)
    bad = weights / "smollm2-135m" / good.name
    bad.write_bytes(b"\0" * good.stat().st_size)
    done = run(docs, AGENTBUDGET_WEIGHTS=str(weights))
    assert done.returncode == 1
    assert "sha256" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("smollm2")
def test_without_llama_cpp_the_extra_is_named(docs: Path, tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "llama_cpp.py").write_text("raise ModuleNotFoundError(\"No module named 'llama_cpp'\", name='llama_cpp')")
    done = run(docs, PYTHONPATH=str(shadow))
    assert done.returncode == 1
    assert "agentbudget-runtime[local]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("smollm2")
async def test_a_key_that_the_provider_refuses_is_told_without_showing_it(docs: Path) -> None:
    import asyncio

    refusal = Reply.json({"type": "error", "error": {"type": "authentication_error", "message": "invalid"}}, 401)
    async with ProviderServer(refusal) as server:
        done = await asyncio.to_thread(
            run,
            docs,
            models=f"{SMOL},anthropic:claude-sonnet-5-5",
            ANTHROPIC_API_KEY="sk-secret-12345",
            ANTHROPIC_BASE_URL=server.url,
        )
    assert done.returncode == 1
    assert "ANTHROPIC_API_KEY" in done.stderr
    assert "sk-secret" not in done.stderr + done.stdout
    assert "skill/plan" in posted()


@pytest.mark.usefixtures("smollm2")
def test_a_provider_that_is_down_costs_nothing(docs: Path) -> None:
    done = run(
        docs,
        models=f"{SMOL},openai:gpt-5.5",
        OPENAI_API_KEY="sk-secret-12345",
        OPENAI_BASE_URL="http://127.0.0.1:9/v1",
        AGENTBUDGET_PRICES=str(_prices(docs.parent)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert posted()["skill/plan"] == 0


def _prices(folder: Path, model: str = "openai:gpt-5.5") -> Path:
    path = folder / "prices.toml"
    path.write_text(f'["{model}"]\ninput = 5\noutput = 30\ncontext_window = 100000\n')
    return path


@pytest.mark.usefixtures("smollm2")
async def test_an_answer_that_no_model_could_form_is_told_with_what_a_user_can_change(docs: Path) -> None:
    async with ProviderServer(Reply.json(chat_answer('{"questions": [', finish_reason="length"))) as server:
        done = await asyncio.to_thread(
            run,
            docs,
            "--json",
            models=f"openai:tiny@{server.url}/v1",
            AGENTBUDGET_PRICES=str(_prices(docs.parent, "openai:tiny")),
        )
    assert json.loads(done.stdout)["error"]["type"] == "InvalidOutput"
    assert "gave no Plan: cut at 3 output tokens; a stronger model" in done.stderr
    assert "--models" in done.stderr
    assert "max_output_tokens" not in done.stderr


def wait_until_sent(skill: str) -> None:
    """Until a call of `skill` has left: the command line tells of it a moment earlier."""
    deadline = time.monotonic() + 300
    with Ledger.open(Path(os.environ["AGENTBUDGET_HOME"]) / "ledger.db") as ledger:
        while not any(hold.sent and hold.meta.get("skill") == skill for hold in ledger.holds(state="open")):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.usefixtures("smollm2")
def test_ctrl_c_in_mid_generation_settles_prints_the_statement_and_can_go_on(docs: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "agentbudget", "run", "--docs", str(docs), "--models", SMOL, "What is the window?"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    seen: list[str] = []
    for line in child.stderr:
        seen.append(line)
        if line.startswith("· plan on"):
            break
    wait_until_sent("plan")
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    _, rest = child.communicate(timeout=300)
    errors = "".join(seen) + rest
    assert child.returncode == 130, errors
    assert "cancelled" in errors
    assert "agentbudget resume" in errors
    assert "Traceback" not in errors
    spent = posted()
    assert spent["skill/plan"] > 0
    run_id = errors.rpartition("agentbudget resume ")[2].split()[0]
    resumed = agentbudget("resume", run_id, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["output"]


async def test_a_second_process_on_the_same_index_is_told_so(docs: Path) -> None:
    async with ProviderServer(Reply(hang=True)) as server:
        models = f"openai:tiny@{server.url}/v1"
        prices = str(_prices(docs.parent, "openai:tiny"))
        first = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentbudget", "run", "--docs", docs, "--models", models, "What is the window?"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"AGENTBUDGET_PRICES": prices},
        )
        await asyncio.wait_for(server.arrived.wait(), 300)  # it has opened the index, and waits for an answer
        second = await asyncio.to_thread(run, docs, models=models, AGENTBUDGET_PRICES=prices)
        first.send_signal(signal.SIGINT)
        await asyncio.wait_for(first.communicate(), 300)
    assert second.returncode == 1
    assert f"is open in process {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    posted()


def test_an_unknown_run_names_the_latest() -> None:
    done = agentbudget("statement", "nothing")
    assert done.returncode == 1
    assert "no run 'nothing'" in done.stderr


@pytest.mark.parametrize(
    ("command", "kind", "status"),
    [
        ("statement nothing", "UnknownRun", 1),
        ("index nowhere", "DocumentsError", 1),
        ("run --docs nowhere task", "DocumentsError", 1),
        ("resume nothing", "UnknownRun", 1),
        ("demo --models llamacpp:no-such-model", "UnknownModel", 1),
        ("models pull no-such-model", "UnknownModel", 1),
        ("ledger limit user/nobody", "UnknownAccount", 1),
        ("eval gsm8k", "DocumentsError", 1),
        ("statement --no-such-option", "NoSuchOption", 2),
        ("ledger entries --limit none", "BadParameter", 2),
    ],
)
def test_an_error_is_an_object_for_programs_and_a_message_for_people(command: str, kind: str, status: int) -> None:
    done = agentbudget(*command.split(), "--json", AGENTBUDGET_DATA="")
    told = json.loads(done.stdout)
    assert (list(told), told["error"]["type"], done.returncode) == (["error"], kind, status)
    assert told["error"]["message"] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("smollm2")
def test_a_run_that_broke_off_tells_programs_why_and_what_it_cost(docs: Path) -> None:
    done = run(docs, "--json", "--budget", "0.000001")
    told = json.loads(done.stdout)
    assert (done.returncode, told["error"]["type"]) == (3, "BudgetExceeded")
    assert told["statement"]["run_id"] == told["run_id"]
    assert told["statement"]["budget"]["usd_nano"] == 1000
    assert f"agentbudget resume {told['run_id']} --budget" in done.stderr


@pytest.mark.usefixtures("smollm2")
def test_a_run_that_is_resumed_keeps_the_limits_that_are_not_given_anew(docs: Path) -> None:
    first = run(docs, "--json", "--tokens", "10")
    run_id = json.loads(first.stdout)["run_id"]
    assert f"agentbudget resume {run_id} --tokens" in first.stderr
    dearer = agentbudget("resume", run_id, "--budget", "0.10", "--json")
    assert (dearer.returncode, json.loads(dearer.stdout)["statement"]["budget"]["tokens"]) == (3, 10)
    done = agentbudget("resume", run_id, "--tokens", "20000", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["statement"]["budget"] == {
        "usd": "0.1",
        "usd_nano": 100_000_000,
        "tokens": 20_000,
        "calls": None,
    }


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that is no group, by what is typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield " ".join([*path, name]), command


def test_every_command_prints_json_for_programs() -> None:
    without = [name for name, command in commands(cli) if all("--json" not in option.opts for option in command.params)]
    assert without == []


async def test_memories_are_forgotten_by_programs(tmp_path: Path) -> None:
    memories = open_memories(Settings.from_env().memories_location)
    mia = Owner("default", "mia")
    for seat in ("aisle", "window"):
        source = Source(run="run-1", step=None, at_ns=time.time_ns(), text=seat)
        await memories.remember(mia, f"She likes the {seat}.", source=source)
    one = (await memories.all_of(mia))[0]
    told = [
        json.loads((await asyncio.to_thread(agentbudget, "memory", "forget", *arguments, "--json")).stdout)
        for arguments in ((one.id, "--user", "mia"), ("--user", "mia", "--all", "--yes"), ("--everyone", "--yes"))
    ]
    assert told == [
        {"tenant": "default", "user": "mia", "forgotten": 1},
        {"tenant": "default", "user": "mia", "forgotten": "all"},
        {"users": 0, "forgotten": "all"},
    ]


def test_the_statement_of_a_run_that_only_the_ledger_knows_is_shown(docs: Path) -> None:
    run_id = json.loads(agentbudget("index", docs, "--json").stdout)["run_id"]
    shown = agentbudget("statement", run_id)
    assert shown.returncode == 0, shown.stderr
    assert f"run {run_id}" in shown.stdout
    told = json.loads(agentbudget("statement", run_id, "--json").stdout)
    assert (told["run_id"], told["output"], told["totals"]["calls"]) == (run_id, None, 0)


@pytest.mark.parametrize("left", [b"", b'{"run_id": "r"', b'{"run_id": 5}'])
def test_the_statement_of_a_run_whose_file_is_damaged_is_shown(left: bytes, tmp_path: Path) -> None:
    home = Path(os.environ["AGENTBUDGET_HOME"])
    subprocess.run([sys.executable, "-c", LEFT], check=True)
    (file,) = (home / "runs").glob("*.json")
    file.write_bytes(left)
    done = agentbudget("statement")
    assert (done.returncode, "tell" in done.stdout) == (0, True), done.stderr
    assert f"remove {file}; what the run cost is in the ledger" in done.stderr
    resumed = agentbudget("resume", file.stem)
    assert resumed.returncode == 1
    assert len(resumed.stderr.splitlines()) == 1


def test_help_names_every_command() -> None:
    done = agentbudget("--help")
    for command in ("run", "demo", "resume", "statement", "index", "models", "ledger", "eval"):
        assert f"\n  {command} " in done.stdout


LEFT = """
import os, sys
from agentbudget import Agent, Context, skill, Budget
from agentbudget.ledger import Ledger
from agentbudget.money import Amount
from agentbudget.testing import ScriptedModel

@skill
async def tell(ctx: Context, task: str) -> str:
    '''Tell.'''
    ...

run = Agent([tell], models=[ScriptedModel(["a tale"])]).run_sync("a fox", budget=Budget(usd="1"))
ledger = Ledger.open(os.environ["AGENTBUDGET_HOME"] + "/ledger.db")
ledger.reserve("left", Amount(calls=1), accounts=[f"run/{run.statement.run_id}"])
os._exit(0)
"""


def test_a_statement_can_be_read_where_the_disk_is_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        home = {"AGENTBUDGET_HOME": str(disk)}
        subprocess.run([sys.executable, "-c", LEFT], check=True, env=os.environ | home)
        subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'filler'}", "bs=4k"], capture_output=True, check=False)
        done = agentbudget("statement", **home)
        assert (done.returncode, "tell" in done.stdout) == (0, True), done.stderr
        assert "what a process that died left is not resolved" in done.stderr
        (disk / "filler").unlink()
        assert "not resolved" not in agentbudget("statement", **home).stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)
