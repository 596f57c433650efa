"""What may go where: classes of documents, and of the places that texts go to."""

from __future__ import annotations

import unicodedata

import pytest

from agentbudget.errors import DataRefused, InvalidArgument, Mistake
from agentbudget.models.anthropic import AnthropicModel
from agentbudget.models.openai import OpenAIModel
from agentbudget.prices import TokenPrice
from agentbudget.privacy import Destination, Label, Privacy
from agentbudget.testing import ScriptedModel

PRICE = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="2")
RULES = Privacy(rules={"hr/**": "confidential", "*.key": "restricted", "press/*": "public"})


@pytest.mark.parametrize(
    ("source", "data_class"),
    [
        ("hr/pay.md", "confidential"),
        ("HR/Deep/Er/pay.md", "confidential"),
        ("press/kettle.md", "public"),
        ("other/hr.md", "internal"),
        ("hr/root.key", "restricted"),
        ("root.key", "restricted"),
    ],
)
def test_rules_are_globs_and_the_narrowest_that_matches_counts(source: str, data_class: str) -> None:
    assert RULES.class_of(source) == data_class


@pytest.mark.parametrize("pattern", ["hr", "hr/", "./hr/", "**/hr/*", "hr/**", "h?/*"])
def test_a_rule_for_a_folder_holds_for_all_below_it(pattern: str) -> None:
    privacy = Privacy(rules={pattern: "confidential"})
    assert privacy.class_of("hr/deep/pay.md") == "confidential"


def test_a_rule_holds_however_a_file_system_writes_an_accent() -> None:
    privacy = Privacy(rules={"café/*": "confidential"})
    for form in ("NFC", "NFD"):
        assert privacy.class_of(unicodedata.normalize(form, "café/till.md")) == "confidential"  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("said", "data_class"),
    [("public", "confidential"), ("restricted", "restricted"), ("nonsense", "restricted"), ("", "restricted")],
)
def test_a_document_may_narrow_its_class_and_never_widen_it(said: str, data_class: str) -> None:
    assert RULES.class_of("hr/pay.md", {"data_class": said}) == data_class


def test_a_document_cannot_make_itself_wider_than_the_default() -> None:
    assert Privacy().class_of("any.md", {"data_class": "public"}) == "internal"
    assert Privacy(default="confidential").class_of("any.md", {"data_class": "public"}) == "confidential"


def hosted(address: str) -> Destination:
    return Destination.of_model(OpenAIModel("m", base_url=address, price=PRICE, context_window=100))


def test_what_runs_in_this_process_or_on_loopback_is_here() -> None:
    assert not Privacy().leaves(Destination.of_model(ScriptedModel((), place="local")))
    for address in ("http://127.0.0.1:8080/v1", "http://localhost:8000/v1", "http://[::1]:1/v1"):
        assert not Privacy().leaves(hosted(address))


def test_an_api_and_a_server_elsewhere_are_not() -> None:
    assert Privacy().leaves(Destination.of_model(AnthropicModel("claude-sonnet-5-5", api_key="k")))
    assert Privacy().leaves(Destination.of_model(ScriptedModel((), place="remote")))
    for address in ("https://api.openai.com/v1", "http://10.0.0.7:8000/v1", "http://localhost.evil.example/v1"):
        assert Privacy().leaves(hosted(address))


@pytest.mark.parametrize(
    ("private", "address", "leaves"),
    [
        ("10.0.0.0/8", "http://10.1.2.3:8000/v1", False),
        ("10.0.0.0/8", "http://11.1.2.3:8000/v1", True),
        ("fd00::/8", "http://[fd00::7]:8000/v1", False),
        ("llm.corp.example", "https://llm.corp.example/v1", False),
        ("corp.example", "https://LLM.corp.example./v1", False),
        ("corp.example", "https://evilcorp.example/v1", True),
        ("corp.example", "https://corp.example.evil.test/v1", True),
        ("corp.example", "https://corp.example@evil.test/v1", True),
        ("10.0.0.0/8", "https://10.evil.test/v1", True),
    ],
)
def test_a_private_network_counts_as_this_machine(private: str, address: str, leaves: bool) -> None:
    assert Privacy(private=(private,)).leaves(Destination.at("m", address)) is leaves


def test_a_proxy_on_this_machine_can_be_named_as_one_that_forwards() -> None:
    destination = Destination.at("openai:m@http://localhost:4000", "http://localhost:4000")
    assert not Privacy().leaves(destination)
    assert Privacy(forwards=frozenset({destination.name})).leaves(destination)


def test_a_slip_of_the_pen_in_forwards_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="forwards names openai:typo, which is not on the ladder"):
        Privacy(forwards=frozenset({"openai:typo"})).check_names(["openai:m"])


def test_confidential_may_not_leave_unless_a_destination_is_named_for_it() -> None:
    cloud = Destination("openai:gpt-5.5", "https://api.openai.com/v1", here=False)
    label = Label("confidential", ("hr/pay.md",))
    Privacy().require(cloud, Label("internal"), what="the prompt")
    Privacy(allow={"openai:gpt-5.5": "confidential"}).require(cloud, label, what="the prompt")
    with pytest.raises(DataRefused) as caught:
        Privacy(allow={"openai:gpt-5.5": "confidential"}).require(cloud, Label("restricted"), what="the prompt")
    with pytest.raises(DataRefused) as caught:
        Privacy().require(cloud, label, what="the prompt")
    assert str(caught.value) == (
        "the prompt is confidential (hr/pay.md) and may not go to openai:gpt-5.5, which is not on this machine: use a "
        "model of this machine, or allow it by code with Privacy(allow={'openai:gpt-5.5': 'confidential'})"
    )
    assert (caught.value.data_class, caught.value.sources) == ("confidential", ("hr/pay.md",))
    assert caught.value.destinations == ("openai:gpt-5.5",)


def test_a_destination_can_be_narrowed_as_well() -> None:
    cloud = Destination("openai:gpt-5.5", "https://api.openai.com/v1", here=False)
    assert not Privacy(allow={"openai:gpt-5.5": "public"}).admits(cloud, "internal")
    assert not Privacy(leaving="public").admits(cloud, "internal")


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"default": "secret"}, "default"),
        ({"rules": {"a/*": "hidden"}}, "rules['a/*']"),
        ({"allow": {"openai:m": "everything"}}, "allow['openai:m']"),
        ({"secrets": "hide"}, "secrets"),
        ({"private": ("10.0.0.1/8",)}, "private"),
    ],
)
def test_a_rule_that_cannot_be_one_is_refused_when_it_is_made(given: dict[str, object], argument: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Privacy(**given)  # pyright: ignore[reportArgumentType]
    assert caught.value.argument == argument
