"""agentbudget."""
