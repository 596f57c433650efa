"""Policies over a dataset: what accuracy costs, per item and per success, on this ladder of models."""

from __future__ import annotations

from agentbudget.evals.economics import Economics, Outcome, Trade, economics, sweep, threshold_for, wilson
from agentbudget.evals.policies import POLICIES, USUAL, PolicyName
from agentbudget.evals.report import EvalReport
from agentbudget.evals.run import Progress, run_eval, run_eval_sync
from agentbudget.evals.tasks import DATASETS, DatasetName, Split, find_data

__all__ = [
    "DATASETS",
    "POLICIES",
    "USUAL",
    "DatasetName",
    "Economics",
    "EvalReport",
    "Outcome",
    "PolicyName",
    "Progress",
    "Split",
    "Trade",
    "economics",
    "find_data",
    "run_eval",
    "run_eval_sync",
    "sweep",
    "threshold_for",
    "wilson",
]
