"""OpenAI's models, and every server that speaks OpenAI's chat API: llama-server, vLLM, Ollama and the like."""

from __future__ import annotations

from agentbudget.models.openai.model import Api, OpenAIModel, Tier
from agentbudget.models.servers import Effort

__all__ = ["Api", "Effort", "OpenAIModel", "Tier"]
