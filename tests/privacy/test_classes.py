"""Data classes: an order, a claim that can only narrow, a mark that can only rise."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.errors import InvalidArgument
from agentbudget.privacy import CLASSES, DataClass, Label, Mark
from agentbudget.privacy.classes import checked, claimed, rank, strictest, within

any_class = st.sampled_from(CLASSES)


def test_classes_are_ordered_from_public_to_restricted() -> None:
    assert CLASSES == ("public", "internal", "confidential", "restricted")
    assert within("internal", "internal")
    assert not within("confidential", "internal")


@given(st.lists(any_class), any_class)
def test_the_strictest_is_none_wider_than_any(classes: list[DataClass], least: DataClass) -> None:
    assert rank(strictest(classes, least=least)) == max(map(rank, [*classes, least]))


def test_a_class_that_nobody_knows_is_refused_in_code_and_narrowest_in_a_text() -> None:
    with pytest.raises(
        InvalidArgument, match="must be one of public, internal, confidential, restricted, not 'secret'"
    ):
        checked("secret", argument="data_class")
    assert claimed(" Confidential ") == "confidential"
    assert claimed("top secret") == claimed("") == claimed(None) == "restricted"


def test_joined_labels_name_the_sources_of_the_narrower_class() -> None:
    pay, menu = Label("confidential", ("pay.md",)), Label("internal", ("menu.md",))
    assert menu.joined(pay) == pay.joined(menu) == pay
    assert pay.joined(Label("confidential", ("ids.md",))).sources == ("pay.md", "ids.md")
    assert pay.told == "confidential (pay.md)"


def test_a_label_names_few_sources() -> None:
    label = Label()
    for number in range(100):
        label = label.joined(Label("confidential", (f"{number}.md",)))
    assert label.sources == ("0.md", "1.md", "2.md", "3.md", "4.md")


@given(st.lists(any_class))
def test_a_mark_never_falls(classes: list[DataClass]) -> None:
    mark, seen = Mark(), [rank("internal")]
    for one in classes:
        mark.rise(Label(one))
        seen.append(rank(mark.label.data_class))
    assert seen == sorted(seen)


def test_a_mark_that_threads_raise_at_once_ends_at_the_narrowest() -> None:
    mark = Mark()
    labels = [Label("internal"), Label("restricted", ("r",)), Label("confidential")] * 20
    threads = [threading.Thread(target=mark.rise, args=(label,)) for label in labels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mark.label == Label("restricted", ("r",))
