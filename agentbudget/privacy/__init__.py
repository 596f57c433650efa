"""What may go where: data classes of documents, skills and runs, and what is found in a text before it leaves."""

from __future__ import annotations

from agentbudget.privacy.classes import CLASSES, METADATA_KEY, DataClass, Label, Mark
from agentbudget.privacy.policy import Action, Destination, Privacy

__all__ = ["CLASSES", "METADATA_KEY", "Action", "DataClass", "Destination", "Label", "Mark", "Privacy"]
