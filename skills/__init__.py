"""Reference skills: typed, priced, and written with agentbudget's public names only."""

from skills.answer import answer
from skills.extract import Facts, extract
from skills.plan import Plan, plan
from skills.summarise import summarise
from skills.synthesise import Conclusion, synthesise
from skills.triage import triage
from skills.verify import Finding, verify

__all__ = [
    "Conclusion",
    "Facts",
    "Finding",
    "Plan",
    "answer",
    "extract",
    "plan",
    "summarise",
    "synthesise",
    "triage",
    "verify",
]
