"""Reference skills: typed, priced, and written with agentbudget's public names only."""

from skills.answer import Finding, answer
from skills.extract import Facts, extract
from skills.plan import Plan, Question, plan
from skills.summarise import summarise
from skills.synthesise import synthesise
from skills.triage import triage
from skills.verify import verify

__all__ = [
    "Facts",
    "Finding",
    "Plan",
    "Question",
    "answer",
    "extract",
    "plan",
    "summarise",
    "synthesise",
    "triage",
    "verify",
]
