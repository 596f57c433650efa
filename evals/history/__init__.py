"""What compaction saves of an agent's input tokens, and what it keeps of what later actions need."""
