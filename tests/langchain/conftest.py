"""The real server and weights of the models' tests."""

from tests.models.conftest import llama_server, smollm2

__all__ = ["llama_server", "smollm2"]
