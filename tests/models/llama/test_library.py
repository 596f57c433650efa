"""What is to be known of the library before it is used."""

from __future__ import annotations

import pytest

from agentbudget.models.llama.library import breaks_amx


@pytest.mark.parametrize(
    ("said", "breaks"),
    [
        (b"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0", True),
        (b"GCC: (GNU) 11.4.0", True),
        (b"GCC: (Ubuntu 13.2.0-23ubuntu4) 13.2.0", True),
        (b"GCC: (GNU) 12.4.0", False),
        (b"GCC: (Ubuntu 13.3.0-6ubuntu2) 13.3.0", False),
        (b"GCC: (Debian 14.2.0-19) 14.2.0", False),
        (b"clang version 18.1.3", False),
        (b"", False),
    ],
)
def test_compilers_that_break_amx_are_known(said: bytes, breaks: bool) -> None:
    assert breaks_amx(b"\x00rest\x00" + said + b"\x00") is breaks
