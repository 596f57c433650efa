"""The shipped fake passes what every model must."""

from __future__ import annotations

import pytest

from agentbudget.errors import Mistake
from agentbudget.models.base import Request
from agentbudget.testing import ScriptedModel, ScriptedReply
from tests.models.conformance import Case, ModelConformance
from tests.models.played.talker import asked_of, talk


def reply(request: Request) -> ScriptedReply:
    """The talker's answer as a script says it."""
    said = talk(asked_of(request))
    return ScriptedReply(said.text, finish=said.finish, calls=said.calls)


class TestScriptedModel(ModelConformance):
    @pytest.fixture
    def case(self) -> Case:
        return Case(ScriptedModel(reply), seeded=True)


def test_a_script_that_is_one_text_is_refused() -> None:
    with pytest.raises(Mistake, match=r"write ScriptedModel\(\['hello'\]\)"):
        ScriptedModel("hello")
