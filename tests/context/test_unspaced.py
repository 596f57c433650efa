from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from agentbudget.context import FastEmbedder, open_index, retrieve
from agentbudget.context.readings import stems
from agentbudget.context.unspaced import spaced
from tests.context.conftest import Write

SHOP = {
    "returns.md": "退货期限是三十天。大件商品需要上门取件。内衣和泳衣不能退货。",
    "shipping.md": "标准运费是五欧元。超过五十欧元的订单免运费。快递需要两天。",
    "warranty.md": "所有电器享有两年保修。电池的保修期是六个月。",
    "payment.md": "我们接受信用卡、支付宝和银行转账。发票在发货后寄出。",
    "privacy.md": "我们保存客户数据十年。您可以随时要求删除您的数据。",
    "ja/returns.md": "返品は到着後三十日以内に可能です。下着は返品できません。",
    "ja/shipping.md": "送料は五百円です。五千円以上のご注文は送料無料です。",
    "ja/hours.md": "営業時間は月曜日から金曜日の午前九時から午後六時までです。",
    "ko/returns.md": "환불은 삼십일 이내에 가능합니다. 속옷은 환불되지 않습니다.",
    "ko/shipping.md": "배송비는 오천원입니다. 배송은 이틀 걸립니다.",
}


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("plain words", "plain words"),
        ("Größe, naïve", "Größe, naïve"),
        ("退货期限 is 30", " 退货 货期 期限  is 30"),
        ("价", " 价 "),
        ("iPhone的价格", "iPhone 的价 价格 "),
        ("Gro\u0308ße", "Größe"),
        ("\u1112\u116a\u11ab\u1107\u116e\u11af", " 환불 "),
    ],
)
def test_only_what_has_no_spaces_is_cut(text: str, cut: str) -> None:
    assert spaced(text) == cut


def test_a_sentence_without_spaces_has_words_that_a_question_can_meet() -> None:
    assert {"退货", "期限"} <= set(stems("退货期限是三十天"))


SHUTS = "# Filialen\n\nDie Filiale in Köln schließt am Samstag um sechs Uhr. Die Filiale in München schließt früher.\n"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_a_document_is_found_by_its_words_however_its_letters_are_written(
    write: Write, tmp_path: Path, minilm: FastEmbedder, form: Literal["NFC", "NFD"]
) -> None:
    other = {
        f"{n}.md": f"# Anderes {n}\n\nDie Lieferung dauert {n} Tage. Geräte über zwölf Kilo sind größer.\n"
        for n in range(8)
    }
    docs = {name: unicodedata.normalize(form, text) for name, text in (other | {"a.md": SHUTS}).items()}
    async with open_index(tmp_path / "index", embedder=minilm) as index:
        await index.update(write(docs))
        for asked in ("NFC", "NFD"):
            question = unicodedata.normalize(asked, "Wann schließt die Filiale in Köln?")
            found = await retrieve(index, question, tokens=40)
            assert "sechs Uhr" in found.text
            assert found.passages[0].chunk.text in docs["a.md"], "it is quoted as it stands there"


async def test_what_is_written_twice_in_other_letters_is_bought_once(
    write: Write, tmp_path: Path, minilm: FastEmbedder
) -> None:
    async with open_index(tmp_path / "index", embedder=minilm) as index:
        await index.update(write({"a.md": SHUTS, "b.md": unicodedata.normalize("NFD", SHUTS)}))
        found = await retrieve(index, "Wann schließt die Filiale in Köln?", tokens=300)
        assert found.text.count("sechs Uhr") == 1


ASKED = {
    "退货期限是多久？": "returns.md",
    "可以用支付宝付款吗？": "payment.md",
    "运费是多少？": "shipping.md",
    "怎么删除我的数据？": "privacy.md",
    "返品はいつまでできますか": "ja/returns.md",
    "送料はいくらですか": "ja/shipping.md",
    "환불이 가능한가요?": "ko/returns.md",
    "배송비가 얼마예요?": "ko/shipping.md",
}


async def test_what_is_written_without_spaces_is_found_by_its_words(
    write: Write, tmp_path: Path, minilm: FastEmbedder
) -> None:
    async with open_index(tmp_path / "index", embedder=minilm) as index:
        await index.update(write(SHOP))
        found = {question: await retrieve(index, question, tokens=60) for question in ASKED}
    assert {question: got.passages[0].chunk.source for question, got in found.items()} == ASKED
