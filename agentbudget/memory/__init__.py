"""What was learned of users, kept in Qdrant: recalled within a token allowance, and forgotten when asked."""

from __future__ import annotations

from agentbudget.memory.memories import Memories, Recalled, Remembered
from agentbudget.memory.opening import open_memories
from agentbudget.memory.record import Memory, Owner, Source

__all__ = ["Memories", "Memory", "Owner", "Recalled", "Remembered", "Source", "open_memories"]
