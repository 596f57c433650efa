"""What an index costs over a history of edits, and how fast it is built and searched."""
