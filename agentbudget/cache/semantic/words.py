"""What a question says apart from its wording: its words, numbers, names, negations and times, in several languages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, count
from typing import Final, Literal

Difference = Literal["number", "name", "negation", "time"]
"""In what two questions differ that makes another answer right, however alike they look."""

_WORD: Final = re.compile(r"(?:(?<!\S)-)?\d+(?:[.,:/]\d+)*|\w+(?:[’']\w+)*", re.UNICODE)
_HALF_OF_DAY: Final = re.compile(r"(?<=\d)\s?([ap])\.m\.", re.IGNORECASE)
_THOUSANDS: Final = re.compile(r",(?=\d{3}(?!\d))")
"""A comma that groups digits: any other is that of a decimal fraction, as most of Europe writes it."""

_CURRENCIES: Final = frozenset("$€£¥₹₽₩")
_UNSPACED: Final = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]")
"""Scripts that put no spaces between words: each character counts as a word."""

_SENTENCE_END: Final = frozenset('.?!:\n"“”(«»;')


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEGATIONS: Final = _set(
    # English, German, French, Spanish, Italian, Portuguese, Dutch, Russian, Chinese and Japanese characters
    "not no never none nobody nothing neither nor cannot without non unable except "
    "nicht kein keine keinen keinem keiner nie niemals ohne nichts "
    "ne pas jamais sans aucun aucune "
    "nunca jamás sin ningún ninguna nadie nada tampoco "
    "mai senza nessun nessuna nessuno não sem nenhum nenhuma "
    "niet geen nooit zonder не нет никогда без 不 没 無 非 未"
)

TIMES: Final = _set(
    "today yesterday tomorrow tonight now currently nowadays before after ago recently last next previous current "
    "monday tuesday wednesday thursday friday saturday sunday "
    "january february march april june july august september october november december "
    "heute gestern morgen jetzt nach vor montag dienstag mittwoch donnerstag freitag samstag sonntag "
    "januar februar märz mai juni juli oktober dezember "
    "aujourd'hui hier demain maintenant avant après lundi mardi mercredi jeudi vendredi samedi dimanche "
    "hoy ayer mañana ahora antes después lunes martes miércoles jueves viernes sábado domingo "
    "oggi ieri domani adesso prima dopo hoje ontem amanhã agora depois vandaag gisteren "
    "сегодня вчера завтра сейчас"
)

_SPANS: Final = {
    word: span
    for span, *others in (
        row.split()
        for row in (
            "minute minutes",
            "hour hours hourly",
            "day days daily everyday",
            "week weeks weekly",
            "weekend weekends",
            "month months monthly",
            "year years yearly annual annually",
            "morning mornings",
            "noon",
            "afternoon afternoons",
            "evening evenings",
            "night nights",
            "midnight",
            "spring",
            "summer",
            "autumn",
            "winter",
            "tag tage tagen täglich",
            "woche wochen wöchentlich",
            "monat monate monaten monatlich",
            "jahr jahre jahren jährlich",
        )
    )
    for word in (span, *others)
}
"""Spans and parts of time. Two questions that each name others ("a month", "a year") differ; one that names none may
mean what the other one says."""

ASKING: Final = _set(
    "what how why when who whom whose which where was wie warum wieso wann wer wen welche welcher welches wo "
    "que quoi comment pourquoi quand qui quel quelle où qué cómo por cuándo quién cuál dónde "
    "cosa come perché quando chi quale dove como quem qual onde wat hoe waarom wanneer wie waar "
    "что как почему когда кто где"
)

_NUMERALS: Final = (
    {
        word: str(number)
        for row in (
            "zero _ two three four five six seven eight nine ten eleven twelve",
            "null _ zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
            "_ _ deux trois quatre cinq _ sept huit neuf dix onze douze",
            "cero _ dos tres cuatro cinco seis siete ocho nueve diez once doce",
        )
        for number, word in enumerate(row.split())
        if word != "_"
    }
    | {
        word: str(number)
        for words, first, step in (
            ("thirteen fourteen fifteen sixteen seventeen eighteen nineteen", 13, 1),
            ("twenty thirty forty fifty sixty seventy eighty ninety hundred", 20, 10),
            ("dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn", 13, 1),
            ("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert", 20, 10),
            ("二 三 四 五 六 七 八 九 十", 2, 1),
        )
        for number, word in zip(count(first, step), words.split(), strict=False)
    }
    | {"thousand": "1000", "million": "1000000", "两": "2", "百": "100", "千": "1000", "万": "10000"}
)

_JOINING: Final = _set("and or vs versus und oder et ou y o e en и или 和 或 と")

_ARTICLES: Final = _set("a an the")

_COMMON_CAPITALS: Final = _set("i i'm i've i'd i'll ok")


@dataclass(frozen=True, slots=True)
class Reading:
    """A question as it is compared: ``words`` in order and casefolded; ``names`` are words written as names."""

    words: tuple[str, ...]
    bag: frozenset[str]
    numbers: tuple[str, ...]
    names: frozenset[str]
    negations: int
    times: frozenset[str]
    spans: frozenset[str]
    currencies: frozenset[str]
    asking: str


def read(text: str) -> Reading:
    """Read a question: Unicode-normalised (NFKC), so that what looks the same is the same."""
    plain = unicodedata.normalize("NFKC", text).replace("’", "'").replace("−", "-").strip()
    plain = _HALF_OF_DAY.sub(r" \1m", plain)
    words: list[str] = []
    numbers: list[str] = []
    names: set[str] = set()
    times: set[str] = set()
    for word, begins in _words(plain):
        folded = word.casefold()
        number = _number(folded)
        if number is not None:
            numbers.append(number)
        elif _is_name(word, begins=begins):
            names.add(_stem(folded))
        if folded in TIMES or (folded in ("am", "pm") and words and _number(words[-1]) is not None):
            times.add(folded)
        words.append(folded)
    return Reading(
        tuple(words),
        frozenset(words),
        tuple(sorted(numbers)),
        frozenset(names),
        sum(_negates(word) for word in words),
        frozenset(times),
        frozenset(_SPANS[word] for word in words if word in _SPANS),
        _CURRENCIES.intersection(plain),
        next((word for word in words if word in ASKING), ""),
    )


def differences(asked: Reading, known: Reading) -> tuple[Difference, ...]:
    """In what two questions differ that no likeness makes good.

    A name counts only where the other question lacks the word in any case of letters, or has two names in
    each other's part: from Paris to London is not from London to Paris.
    """
    found: list[Difference] = []
    if asked.numbers != known.numbers or _apart(asked.currencies, known.currencies):
        found.append("number")
    if _lacks(asked.names, known) or _lacks(known.names, asked) or _turned_round(asked, known):
        found.append("name")
    if asked.negations != known.negations:
        found.append("negation")
    if asked.times != known.times or _apart(asked.spans, known.spans):
        found.append("time")
    return tuple(found)


def _lacks(names: Iterable[str], other: Reading) -> bool:
    stems = {_stem(word) for word in other.bag}
    return any(name not in stems for name in names)


@dataclass(slots=True)
class _Place:
    """Where a name first stands, and the words right before it, wherever it stands."""

    at: int
    after: set[str]


def _turned_round(asked: Reading, known: Reading) -> bool:
    """Whether two names come in another order, and each after other words: then they have changed their parts.

    Names side by side have none to change: A and B are B and A.
    """
    names = asked.names | known.names
    if len(names) < 2:
        return False
    one, other = _places(asked.words, names), _places(known.words, names)
    moved = [name for name in one.keys() & other.keys() if one[name].after.isdisjoint(other[name].after)]
    return any((one[a].at - one[b].at) * (other[a].at - other[b].at) < 0 for a, b in combinations(moved, 2))


def _places(words: Iterable[str], names: frozenset[str]) -> dict[str, _Place]:
    """The names; those between which there is nothing but an "and" or "or" stand in one place."""
    places: dict[str, _Place] = {}
    at, before = 0, ""
    for word in words:
        name = _stem(word)
        if name in names:
            places.setdefault(name, _Place(at, set())).after.add(before)
        elif word not in _JOINING:
            at += 1
        if word not in _ARTICLES:
            before = word
    return places


def _apart(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether each has something that the other lacks."""
    return bool(one - other and other - one)


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """The words as they are written, and whether each begins a sentence."""
    for found in _WORD.finditer(text):
        before = text[: found.start()].rstrip(" ")
        begins = not before or before[-1] in _SENTENCE_END
        word = found[0]
        if _UNSPACED.search(word):
            yield from ((character, True) for character in word)
        else:
            yield word, begins


def _number(word: str) -> str | None:
    """A number in one spelling; an ordinal's or a unit's letters are left off (2nd, 10kg)."""
    if word in _NUMERALS:  # "one" is not among them: it is seldom a number
        return _NUMERALS[word]
    digits = re.match(r"-?\d[\d.,:/]*", word)
    return _THOUSANDS.sub("", digits[0]).replace(",", ".") if digits else None


def _is_name(word: str, *, begins: bool) -> bool:
    """Whether a word is written as a name: a capital inside a sentence, or capitals inside a word (iPhone, NASA)."""
    if not word[0].isalpha() or word.casefold() in _COMMON_CAPITALS:
        return False
    inside = any(letter.isupper() for letter in word[1:])
    return inside or (word[0].isupper() and not begins)


def _negates(word: str) -> bool:
    return word in NEGATIONS or (word.endswith(("n't", "nt")) and word[:-2].rstrip("'n") in _AUXILIARIES)


_AUXILIARIES: Final = _set("do does did is are was were ca wo would should could has have had must")


def _stem(word: str) -> str:
    """A word without a possessive or plural ending: enough to tell a name from its inflection."""
    for ending in ("'s", "s'", "'"):
        word = word.removesuffix(ending)
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
