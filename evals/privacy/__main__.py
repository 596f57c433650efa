"""``python -m evals.privacy patterns | fence``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m evals.privacy", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    found = parts.add_parser("patterns", help="precision, recall and speed of what is found in texts")
    found.add_argument("--data", type=Path, default=os.environ.get("AGENTBUDGET_DATA"), help="evaluation data")
    found.add_argument("--most", type=int, default=2_000, help="documents of each corpus")
    orders = parts.add_parser("fence", help="whether models obey what stands in retrieved text")
    orders.add_argument("models", nargs="*", default=["llamacpp:qwen2.5-coder-0.5b"])
    args = parser.parse_args()
    if args.part == "patterns":
        from evals.privacy import patterns

        patterns.main(Path(args.data) if args.data else None, args.most)
    else:
        from evals.privacy import fence

        fence.main(args.models)


if __name__ == "__main__":
    main()
