"""``python -m agentbudget``: the command line."""

from agentbudget.cli import main

main()
