"""Claude through Anthropic's Messages API: one call is one billable request, its output capped by its hold.

`families` knows what differs between models, `asked` writes a request, `bound` counts it, `answers` reads what comes.
"""

from agentbudget.models.anthropic.model import AnthropicModel

__all__ = ["AnthropicModel"]
