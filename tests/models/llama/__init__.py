"""The parts of llama.cpp's engine, and what tests of local models share."""

from __future__ import annotations

from decimal import Decimal

from agentbudget.prices import ComputePrice

PRICE = ComputePrice(Decimal("0.10"), 370, 160)
"""What SmolLM2's seconds cost in tests."""

TEMPLATE = (
    "{%- if tools %}<|im_start|>system\nTools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\nCall one as "
    '<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call><|im_end|>\n{% endif %}'
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's own way of writing turns, with tools as Qwen2.5 has them."""
