"""One suite that every model passes, in the manner of langchain-tests.

A model's own file subclasses `ModelConformance` and supplies a `case`: the model, and what it claims to be able to do.

    class TestScriptedModel(ModelConformance):
        @pytest.fixture
        def case(self) -> Case:
            return Case(ScriptedModel(…))
"""

from tests.models.conformance.case import Case
from tests.models.conformance.suite import ModelConformance

__all__ = ["Case", "ModelConformance"]
