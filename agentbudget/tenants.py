"""Tenants: those whose answers, documents, memories and purses are kept apart from others'."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

DEFAULT_TENANT: Final = "default"
"""Whose everything is where nobody else is named."""


def payers(tenant: str, *, user: str | None = None, feature: str | None = None) -> tuple[str, ...]:
    """The accounts that pay beside a run's own: ``user/42`` and ``feature/support``.

    A named tenant has an account, too, and users and features of its own: ``tenant/acme``, ``tenant/acme/user/42``. Its
    name is percent-encoded, so that no tenant can be called like another's account.
    """
    whose = "" if tenant == DEFAULT_TENANT else f"tenant/{quote(tenant, safe='')}"
    named = [f"{kind}/{name}" for kind, name in (("user", user), ("feature", feature)) if name]
    return (whose, *(f"{whose}/{name}" for name in named)) if whose else tuple(named)
