"""A labelled set: sentences with credentials and personal data in them, and sentences with what only looks like it.

Credentials are made up when the set is made, of the right shape and from a fixed seed: none stands in this file, and
none ever opened anything.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

ALNUM: Final = string.ascii_letters + string.digits
URLSAFE: Final = ALNUM + "-_"
HEX: Final = "0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Truth:
    """Characters of a sample that are a secret or personal data: its group, and what it is."""

    start: int
    end: int
    group: str
    kind: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A sentence and what there is to find in it; nothing, if it only looks like it."""

    text: str
    truths: tuple[Truth, ...]


Make = Callable[[random.Random], str]


def _of(letters: str, length: int, prefix: str = "", suffix: str = "") -> Make:
    return lambda chance: prefix + "".join(chance.choices(letters, k=length)) + suffix


def _jwt(chance: random.Random) -> str:
    def part(data: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    claims = {"sub": str(chance.randrange(10**9)), "name": "Ada", "iat": chance.randrange(10**9, 2 * 10**9)}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{_of(URLSAFE, 43)(chance)}"


def _pem(chance: random.Random) -> str:
    lines = [_of(ALNUM + "+/", 64)(chance) for _ in range(12)]
    return "\n".join((f"-----BEGIN RSA {'PRIVATE'} KEY-----", *lines, f"-----END RSA {'PRIVATE'} KEY-----"))


SECRETS: Final[dict[str, Make]] = {
    "github": _of(ALNUM, 36, "ghp_"),
    "github-fine": lambda c: f"github_pat_{_of(ALNUM, 22)(c)}_{_of(ALNUM, 59)(c)}",
    "gitlab": _of(URLSAFE, 20, "glpat-"),
    "slack": lambda c: f"xoxb-{_of(string.digits, 12)(c)}-{_of(string.digits, 12)(c)}-{_of(ALNUM, 24)(c)}",
    "stripe": _of(ALNUM, 24, "sk_live_"),
    "google": _of(URLSAFE, 35, "AIza"),
    "anthropic": _of(URLSAFE, 93, "sk-ant-api03-", "AA"),
    "openai": lambda c: f"sk-proj-{_of(URLSAFE, 74)(c)}T3BlbkFJ{_of(URLSAFE, 74)(c)}",
    "huggingface": _of(string.ascii_letters, 34, "hf_"),
    "npm": _of(ALNUM, 36, "npm_"),
    "pypi": _of(URLSAFE, 90, "pypi-AgEIcHlwaS5vcmc"),
    "sendgrid": lambda c: f"SG.{_of(URLSAFE, 22)(c)}.{_of(URLSAFE, 43)(c)}",
    "digitalocean": _of(HEX, 64, "dop_v1_"),
    "jwt": _jwt,
    "private key": _pem,
}

SECRET_FRAMES: Final = ("Deploy with {} from the runbook.", "token: {}", 'export TOKEN="{}"', "It is {} now.")
CONTEXT_SECRETS: Final[tuple[tuple[str, Make], ...]] = (
    ("aws_secret_access_key = {}", _of(ALNUM + "+/", 40)),
    ("postgres://admin:{}@db.internal.example:5432/prod", _of(ALNUM, 20)),
    ("https://deploy:{}@git.example.com/kettles.git", _of(ALNUM, 24)),
    ('password = "{}"', _of(ALNUM + "!%&", 16)),
    ("DB_PASSWORD={}", _of(ALNUM, 18)),
    ("The Wi-Fi password is {}, do not tell.", _of(ALNUM, 12)),
)


def _luhn(chance: random.Random, prefix: str, length: int) -> str:
    digits = [int(digit) for digit in prefix] + [chance.randrange(10) for _ in range(length - len(prefix) - 1)]
    doubled = [digit * 2 - 9 * (digit > 4) if place % 2 == 0 else digit for place, digit in enumerate(reversed(digits))]
    return "".join(map(str, [*digits, -sum(doubled) % 10]))


def _card(chance: random.Random) -> str:
    prefix, length = chance.choice((("4", 16), ("52", 16), ("37", 15)))
    number = _luhn(chance, prefix, length)
    return " ".join(number[place : place + 4] for place in range(0, length, 4)) if length == 16 else number


def _iban(chance: random.Random) -> str:
    country, length = chance.choice((("DE", 18), ("NL", 0), ("GB", 0), ("FR", 23)))
    bank = {"NL": "ABNA", "GB": "WEST"}.get(country, "")
    rest = {"NL": 10, "GB": 14}.get(country, length)
    account = bank + "".join(chance.choices(string.digits, k=rest))
    if country == "FR":  # its account carries check digits of its own
        account = "20041010050500013M02606"
    if country == "NL":
        account = "ABNA0417164300"
    digits = "".join(str(int(letter, 36)) for letter in f"{account}{country}00")
    whole = f"{country}{98 - int(digits) % 97:02d}{account}"
    if chance.random() < 0.5:
        return whole
    return " ".join(whole[place : place + 4] for place in range(0, len(whole), 4))


def _phone(chance: random.Random) -> str:
    number = [chance.randrange(10) for _ in range(7)]
    local = "".join(map(str, number))
    return chance.choice(
        (
            f"+1 212 {chance.randrange(2, 9)}{local[:2]} {local[2:6]}",
            f"(415) {chance.randrange(2, 9)}{local[:2]}-{local[2:6]}",
            f"+49 30 {local}",
            f"+44 20 7946 0{local[:3]}",
        )
    )


def _email(chance: random.Random) -> str:
    first, last = chance.choice(("ada", "grace", "alan", "jo")), chance.choice(("stoker", "li", "o-neil", "haddad"))
    return f"{first}{chance.choice(('.', '_', ''))}{last}@{chance.choice(('kettles.example', 'mail.co.uk', 'x-y.org'))}"


def _ssn(chance: random.Random) -> str:
    return f"{chance.randrange(100, 600)}-{chance.randrange(10, 99)}-{chance.randrange(1000, 9999)}"


PERSONAL: Final[dict[str, tuple[Make, tuple[str, ...]]]] = {
    "email": (_email, ("Write to {} first.", "From: <{}>", "cc {}, please")),
    "phone": (_phone, ("Call {} before noon.", "Tel. {}", "Her number, {}, has changed.")),
    "card": (_card, ("She paid with {}.", "card no {}", "charged {} twice")),
    "iban": (_iban, ("Transfer to {} by Friday.", "IBAN: {}", "from {} to ours")),
    "ssn": (_ssn, ("Her SSN is {}.", "social security number {}")),
}

NOTHING: Final = (
    "Order 1182 of 2026-05-06 came to 12,345.67 EUR.",
    "Version 1.2.3.4 replaces 1.2.3.3; see section 10.4.1.2.",
    "The commit is 9fceb02d0ae598e95dc970b74767f19372d61af8.",
    "sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "The run has the id 550e8400-e29b-41d4-a716-446655440000.",
    "ISBN 978-3-16-148410-0, second edition.",
    "Set ANTHROPIC_API_KEY to your key, as in export ANTHROPIC_API_KEY=…",
    "api_key = os.environ['OPENAI_API_KEY']",
    "password = getpass.getpass()",
    "The password must have 12 characters and one digit.",
    "postgres://user:password@localhost/test is how an address looks.",
    "Use <YOUR_TOKEN> where the token goes.",
    "A kettle costs 49.90, and 4111 were sold in 2025.",
    "In 1999 there were 281,421,906 of them; in 2010, 308,745,538.",
    "The model reads 8,192 tokens and writes 1,024.",
    "The train leaves at 12:45 from platform 3.",
    "Coordinates: 52.5200, 13.4050.",
    "Item 4111111111111112 is a part number.",
    "DE00 is no account, and GB1 is a road.",
    "The ratio is 0.618033988749894848204586834.",
    "@kettles on the network; follow #steam.",
    "def f(x): return x@y",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ public part",
    "-----BEGIN CERTIFICATE-----",
    "Rule 555-12 applies; extension 4021.",
    "Flight LH 7821, seat 12-34-56.",
    "pi is 3.14159265358979 and e is 2.71828182845905.",
    "base64: SGVsbG8sIGtldHRsZSE=",
    "The token count was 1,234,567,890.",
    "From 030 to 040, then 2026 11 27.",
)


def samples(each: int = 4, seed: int = 7) -> Iterator[Sample]:
    """`each` sentences for every kind, then those in which nothing is."""
    chance = random.Random(seed)
    for kind, make in SECRETS.items():
        for number in range(each):
            yield _framed(SECRET_FRAMES[number % len(SECRET_FRAMES)], make(chance), "secret", kind)
    for frame, make in CONTEXT_SECRETS:
        for _ in range(each):
            yield _framed(frame, make(chance), "secret", frame.partition("{")[0].strip(" =\"':").lower())
    for kind, (make, frames) in PERSONAL.items():
        for number in range(each):
            yield _framed(frames[number % len(frames)], make(chance), "personal", kind)
    for text in NOTHING:
        yield Sample(text, ())


def _framed(frame: str, value: str, group: str, kind: str) -> Sample:
    start = frame.index("{}")
    return Sample(frame.replace("{}", value, 1), (Truth(start, start + len(value), group, kind),))
