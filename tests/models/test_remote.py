"""What holds for every API: one request, its usage known or known to be unknown, each failure in our words."""

from __future__ import annotations

import asyncio
import socket
import sys
import traceback
from email.utils import format_datetime

import pytest

from agentbudget.errors import (
    AuthenticationFailed,
    MissingDependency,
    Mistake,
    ModelError,
    ModelUnavailable,
    OutcomeUnknown,
    RateLimited,
    RequestRejected,
)
from agentbudget.models.base import Completion, Meter, Model
from agentbudget.models.remote import checked_address, is_loopback, is_proxied, key_from, retry_after_s
from agentbudget.usage import Usage
from tests.models.provider_server import ProviderServer, Reply
from tests.models.remote_fixtures import APIS, KEY, Api, ask

every_api = pytest.mark.parametrize("api", APIS, ids=[api.name for api in APIS])


async def failure_of(api: Api, *replies: Reply, timeout_s: float = 20.0) -> tuple[ModelError, Meter, ProviderServer]:
    meter = Meter()
    async with ProviderServer(*replies) as server:
        model = api.model(server.url)
        with pytest.raises(ModelError) as raised:
            await model.complete(ask(timeout_s=timeout_s), meter)
        await model.aclose()
    return raised.value, meter, server


@every_api
async def test_an_answer_comes_with_its_usage(api: Api) -> None:
    marks: list[str] = []
    meter = Meter(on_leaving=lambda: marks.append("leaving"))
    async with ProviderServer(api.reply()) as server:
        model: Model = api.model(server.url)
        assert isinstance(model, Model)
        completion = await model.complete(ask(), meter)
        await model.aclose()
    assert server.received[0].path == api.path
    assert marks == ["leaving"]
    assert meter.sent
    assert meter.usage == completion.usage == Usage(input_tokens=12, output_tokens=3)
    assert (completion.text, completion.finish) == ("hi", "stop")
    assert completion.served_by == api.answer()["model"]


@every_api
async def test_a_model_answers_in_one_event_loop_after_another(api: Api) -> None:
    meter = Meter()
    async with ProviderServer(api.reply(), api.reply()) as server:
        model = api.model(server.url)

        def in_a_loop_of_its_own() -> Completion:
            return asyncio.run(model.complete(ask(), meter))

        first = await asyncio.to_thread(in_a_loop_of_its_own)
        second = await asyncio.to_thread(in_a_loop_of_its_own)
    assert first.text == second.text == "hi"


@every_api
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_names_the_variable_and_not_the_key(api: Api, status: int) -> None:
    said = {"error": {"type": "authentication_error", "message": f"Incorrect API key provided: {KEY}"}}
    error, meter, _ = await failure_of(api, Reply.json(said, status))
    assert isinstance(error, AuthenticationFailed)
    assert api.variable in str(error)
    assert KEY not in "".join(traceback.format_exception(error))
    assert error.status == status
    assert not error.retryable
    assert meter.usage == Usage()


@every_api
@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_rejected_request_is_not_billed_and_repeats_the_reason(api: Api, status: int) -> None:
    said = {"error": {"type": "invalid_request_error", "message": "max_tokens: too large"}}
    error, meter, _ = await failure_of(api, Reply.json(said, status))
    assert isinstance(error, RequestRejected)
    assert "max_tokens: too large" in str(error)
    assert (error.status, error.sent, error.usage, meter.usage) == (status, True, Usage(), Usage())


@every_api
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_for_the_prompt_may_not_go_elsewhere(api: Api, status: int) -> None:
    async with ProviderServer(api.reply()) as elsewhere:
        error, meter, _ = await failure_of(api, Reply(status=status, headers={"location": f"{elsewhere.url}/v1"}))
        assert elsewhere.received == []
        address = f"{elsewhere.url}/v1"
    assert isinstance(error, RequestRejected)
    assert f"answered {status}, a redirect to {address}, which is not followed" in str(error)
    assert meter.usage == Usage()


@every_api
async def test_what_goes_to_this_machine_passes_no_proxy(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProviderServer(api.reply()) as proxy, ProviderServer(api.reply()) as server:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        model = api.model(server.url)
        await model.complete(ask(), Meter())
        await model.aclose()
        assert (len(server.received), len(proxy.received)) == (1, 0)


def test_a_client_that_heeds_the_environment_sends_to_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    assert not is_proxied("http://127.0.0.1:8080/v1")
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert is_proxied("http://127.0.0.1:8080/v1")
    assert not is_proxied("https://127.0.0.1:8080/v1")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert not is_proxied("http://127.0.0.1:8080/v1")


@every_api
async def test_a_rate_limit_says_how_long_to_wait(api: Api) -> None:
    said = {"error": {"type": "rate_limit_error", "message": "Slow down."}}
    error, meter, server = await failure_of(api, Reply.json(said, 429, retry_after="7"))
    assert isinstance(error, RateLimited)
    assert error.retryable
    assert error.retry_after_s == 7.0
    assert meter.usage == Usage()
    assert len(server.received) == 1


@every_api
async def test_an_exhausted_account_is_not_worth_another_try(api: Api) -> None:
    said = {"error": {"message": "You exceeded your current quota, please check your plan and billing details."}}
    error, _, _ = await failure_of(api, Reply.json(said, 429))
    assert isinstance(error, RequestRejected)


@every_api
@pytest.mark.parametrize(("status", "usage"), [(500, None), (502, None), (503, Usage()), (529, Usage())])
async def test_a_provider_that_is_down_gets_one_request_only(api: Api, status: int, usage: Usage | None) -> None:
    error, meter, server = await failure_of(api, Reply(b"<html>down</html>", status))
    assert isinstance(error, ModelUnavailable)
    assert error.retryable
    assert (error.status, error.sent, error.usage, meter.usage) == (status, True, usage, usage)
    assert len(server.received) == 1


@every_api
async def test_a_refused_connection_means_that_nothing_was_sent(api: Api) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    meter = Meter()
    with pytest.raises(ModelUnavailable, match=f"no connection to http://127.0.0.1:{port}") as raised:
        await api.model(f"http://127.0.0.1:{port}").complete(ask(), meter)
    assert not raised.value.sent
    assert not meter.sent
    assert meter.usage is None


@every_api
async def test_a_provider_that_never_answers_leaves_the_outcome_unknown(api: Api) -> None:
    error, meter, server = await failure_of(api, Reply(hang=True), timeout_s=1.5)
    assert isinstance(error, OutcomeUnknown)
    assert error.sent
    assert (error.usage, meter.sent, meter.usage) == (None, True, None)
    assert len(server.received) == 1


@every_api
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(b"", cut=0), id="dropped before the head's end"),
        pytest.param(Reply(b'{"id": "half of a bo', 200, {"content-type": "application/json"}, cut=9), id="dropped"),
        pytest.param(Reply(b'{"id": "half of a bo', 200, {"content-type": "application/json"}), id="half a body"),
        pytest.param(Reply(b"Welcome to the hotel!", 200, {"content-type": "text/html"}), id="garbage"),
        pytest.param(Reply.json({"object": "list", "data": []}), id="another answer"),
        pytest.param(Reply(b"upstream timed out", 504), id="gateway timeout"),
        pytest.param(Reply(b"took too long", 408), id="request timeout"),
    ],
)
async def test_an_answer_that_broke_off_or_makes_no_sense_is_presumed_spent(api: Api, reply: Reply) -> None:
    error, meter, server = await failure_of(api, reply)
    assert isinstance(error, OutcomeUnknown)
    assert "presumed spent" in str(error)
    assert (error.sent, error.usage, meter.sent, meter.usage) == (True, None, True, None)
    assert len(server.received) == 1


@every_api
async def test_cancelling_hangs_up_and_leaves_the_usage_unknown(api: Api) -> None:
    meter = Meter()
    async with ProviderServer(Reply(hang=True)) as server:
        model = api.model(server.url)
        call = asyncio.create_task(model.complete(ask(), meter))
        await asyncio.wait_for(server.arrived.wait(), 60)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.dropped.wait(), 60)
    assert meter.sent
    assert meter.usage is None


@every_api
async def test_a_missing_key_is_found_before_anything_is_sent(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(api.variable, raising=False)
    model = api.model("https://provider.invalid")
    monkeypatch.setattr(model, "_api_key", None)
    meter = Meter()
    with pytest.raises(AuthenticationFailed, match=f"set {api.variable}") as raised:
        await model.complete(ask(), meter)
    assert not raised.value.sent
    assert not meter.sent


@every_api
async def test_a_missing_sdk_names_the_extra_that_brings_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    model = api.model("http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, model.provider, None)  # makes `import` raise ImportError
    with pytest.raises(MissingDependency, match=rf"agentbudget-runtime\[{model.provider}\]"):
        await model.complete(ask(), Meter())


@every_api
def test_no_secret_is_shown_by_a_model(api: Api) -> None:
    model = api.model("http://someone:hunter2@127.0.0.1:9")
    for shown in (repr(model), str(vars(model)["address"]), model.fingerprint, model.name):
        assert KEY not in shown
        assert "hunter2" not in shown
    assert model.model_id in model.fingerprint


@every_api
def test_a_server_on_this_machine_is_a_local_place(api: Api) -> None:
    assert api.model("http://127.0.0.1:9").place == "local"
    assert api.model("https://provider.invalid").place == "remote"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://here/v1", "http://"])
def test_an_address_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(Mistake, match="base_url must be an address"):
        checked_address(url)


def test_an_address_keeps_port_and_path_and_loses_secrets() -> None:
    assert checked_address("https://me:pw@host:8443/v1/?key=1") == "https://host:8443/v1"
    assert checked_address("http://[::1]:8080/v1") == "http://[::1]:8080/v1"


@pytest.mark.parametrize(
    ("address", "here"),
    [("http://localhost:1", True), ("http://[::1]:1", True), ("http://127.9.9.9", True), ("http://10.0.0.1", False)],
)
def test_loopback_is_recognised(address: str, here: bool) -> None:
    assert is_loopback(address) is here


def test_a_server_on_this_machine_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert key_from(None, "SOME_KEY", address="http://localhost:1", model="m")
    assert key_from("mine", "SOME_KEY", address="https://far.example", model="m") == "mine"
    monkeypatch.setenv("SOME_KEY", "theirs")
    assert key_from(None, "SOME_KEY", address="https://far.example", model="m") == "theirs"


def test_the_time_to_wait_is_read_in_each_of_its_forms() -> None:
    from datetime import UTC, datetime, timedelta

    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after_s({"retry-after": "2.5"}) == 2.5
    assert retry_after_s({}) is None
    assert retry_after_s({"retry-after": "soon"}) is None
    in_a_minute = retry_after_s({"retry-after": format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)})
    assert in_a_minute is not None
    assert 0 < in_a_minute <= 60
