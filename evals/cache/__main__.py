"""What the caches take and save: `python -m evals.cache COMMAND`."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Final

COMMANDS: Final = {
    "speed": "evals.cache.speed",
    "bound": "evals.cache.bound",
    "qqp": "evals.cache.qqp",
    "prior": "evals.cache.qqp_prior",
    "semantic-speed": "evals.cache.semantic_speed",
}
"""Each names a module whose ``main(arguments)`` measures and prints."""


def main() -> None:
    """Hand over to the sub-command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    given = parser.parse_args(sys.argv[1:2])
    importlib.import_module(COMMANDS[given.command]).main(sys.argv[2:])


if __name__ == "__main__":
    main()
