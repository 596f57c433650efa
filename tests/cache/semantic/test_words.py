from __future__ import annotations

import pytest

from agentbudget.cache.semantic.words import Difference, differences, read


def differ(asked: str, known: str) -> tuple[Difference, ...]:
    return differences(read(asked), read(known))


@pytest.mark.parametrize(
    ("asked", "known", "difference"),
    [
        ("What did we sell in 2019?", "What did we sell in 2020?", "number"),
        ("Can I pay with two cards?", "Can I pay with three cards?", "number"),
        ("Is it open at 5:30?", "Is it open at 6:30?", "number"),
        ("Kann ich mit zwei Karten zahlen?", "Kann ich mit drei Karten zahlen?", "number"),
        ("Darf ein Brief 1,5 kg wiegen?", "Darf ein Brief 15 kg wiegen?", "number"),
        ("What grows at 5 degrees?", "What grows at -5 degrees?", "number"),
        ("What grows at 5 degrees?", "What grows at −5 degrees?", "number"),
        ("Is thirty days enough?", "Is sixty days enough?", "number"),
        ("Reichen dreißig Tage?", "Reichen vierzig Tage?", "number"),
        ("退货期限是三十天吗", "退货期限是四十天吗", "number"),
        ("How do I invest £10000?", "How do I invest $10000?", "number"),
        ("How big is Paris?", "How big is London?", "name"),
        ("Is Java better than Python?", "Is Python better than Java?", "name"),
        ("When is the next flight from Paris to London?", "When is the next flight from London to Paris?", "name"),
        ("Who owns order A-17 of Smith?", "Who owns order A-17 of Jones?", "name"),
        ("How do I update my iPhone?", "How do I update my phone?", "name"),
        ("Is it possible?", "Is it not possible?", "negation"),
        ("Can I cancel?", "Can't I cancel?", "negation"),
        ("Ist das möglich?", "Ist das nicht möglich?", "negation"),
        ("¿Puedo pagar con tarjeta?", "¿Puedo pagar sin tarjeta?", "negation"),
        ("Puis-je payer ?", "Puis-je jamais payer ?", "negation"),
        ("我喜欢苹果", "我不喜欢苹果", "negation"),
        ("What happened yesterday?", "What happened today?", "time"),
        ("Are you open on monday?", "Are you open on tuesday?", "time"),
        ("Hast du morgen Zeit?", "Hast du heute Zeit?", "time"),
        ("Are you open at 5am?", "Are you open at 5pm?", "time"),
        ("Are you open at 5 a.m.?", "Are you open at 5 PM?", "time"),
        ("What does it cost per month?", "What does it cost per year?", "time"),
        ("Can I return it within a week?", "Can I return it within a month?", "time"),
        ("Are you open in the morning?", "Are you open in the evening?", "time"),
    ],
)
def test_near_misses_differ(asked: str, known: str, difference: Difference) -> None:
    assert difference in differ(asked, known)
    assert difference in differ(known, asked)


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("How do I reset my password?", "How can I reset my password"),
        ("price of the iPhone 12", "Price of the iphone 12?"),
        ("What is 10kg in pounds?", "what is 10 kg in pounds"),
        ("What is Anna's address?", "what is the address of anna"),
        ("Won't it work?", "Will it not work?"),
        ("Two cards?", "2 cards?"),
        ("What about 1,000 dollars?", "What about 1000 dollars?"),
        ("What about 1,500,000 dollars?", "What about 1500000 dollars?"),
        ("Are you open at 5pm?", "Are you open at 5 p.m.?"),
        ("What does it cost each month?", "What does it cost monthly?"),
        ("Is thirty enough?", "Is 30 enough?"),
        ("Should I learn French and German?", "Should I learn German and French?"),
        ("Is Java better than Python?", "What is better, Python or Java?"),
        ("What is the weather like during June in Slovenia?", "What is the weather like in Slovenia during June?"),
        ("Is there a flight from Paris to London?", "Is there a flight to London from Paris?"),
        ("Is it 20 degrees?", "How is it, 20 degrees?"),
        ("Wie ändere ich mein Passwort?", "Wie kann ich mein Passwort ändern?"),
    ],
)
def test_other_words_for_the_same_do_not_differ(asked: str, known: str) -> None:
    assert differ(asked, known) == ()


def test_what_looks_the_same_is_read_the_same() -> None:
    assert read("Ｗｈａｔ’s ﬁne？").words == read("What's fine?").words
