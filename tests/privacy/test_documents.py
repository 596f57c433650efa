"""The class of a document: rules first, its own word only to narrow, and what is found in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbudget.context import Index, open_index, retrieve
from agentbudget.context.classify import looked_through
from agentbudget.context.document import Block, Document
from agentbudget.context.embed import Embedder, Vector
from agentbudget.context.hosted import Pay
from agentbudget.errors import DataRefused
from agentbudget.prices import TokenPrice
from agentbudget.privacy import Label, Privacy
from tests.privacy.conftest import WordEmbedder, Write

RULES = Privacy(rules={"hr/*": "confidential"})
TOKEN = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"


async def index_of(folder: Path, home: Path, embedder: Embedder, privacy: Privacy) -> Index:
    index = open_index(home / "index", embedder=embedder, privacy=privacy)
    await index.update(folder)
    return index


async def class_of(index: Index, question: str, privacy: Privacy) -> Label:
    return (await retrieve(index, question, tokens=200, limit=1)).label(privacy)


@pytest.mark.parametrize(
    ("name", "head", "data_class"),
    [
        ("hr/pay.md", "---\ndata_class: public\n---\n", "confidential"),
        ("hr/pay.md", "", "confidential"),
        ("pay.md", "---\ndata_class: confidential\n---\n", "confidential"),
        ("pay.md", "---\ndata_class: public\n---\n", "internal"),
        ("pay.md", "---\ndata_class: [public, restricted]\n---\n", "restricted"),
        ("pay.md", "---\ndata_class: 3\n---\n", "restricted"),
        ("pay.md", "---\nData-Class: 'confidential'\n---\n", "confidential"),
        ("pay.txt", "Data class: confidential\n\n", "confidential"),
        ("pay.py", '"""Pay."""\n\n# data_class = restricted\n', "restricted"),
        ("pay.md", "", "internal"),
    ],
)
async def test_the_stricter_of_rule_and_claim_wins(
    write: Write, tmp_path: Path, words: WordEmbedder, name: str, head: str, data_class: str
) -> None:
    folder = write({name: f"{head}\nThe salary of the stoker is 7 coins."})
    async with await index_of(folder, tmp_path, words, RULES) as index:
        assert (await class_of(index, "salary of the stoker?", RULES)).data_class == data_class


async def test_a_class_that_nobody_knows_is_told_with_the_file_and_the_words_that_are_known(
    write: Write, tmp_path: Path, words: WordEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    text = "The salary of the stoker is 7 coins."
    folder = write({"pay.md": f"---\ndata_class: confidental\n---\n{text}", "menu.md": "data class: public\n\nSoup."})
    async with await index_of(folder, tmp_path, words, RULES) as index:
        assert (await class_of(index, "salary of the stoker?", RULES)).data_class == "restricted"
    assert [record.getMessage() for record in caplog.records if record.name.startswith("agentbudget")] == [
        "pay.md says that its data class is 'confidental', which is none of public, internal, confidential, "
        "restricted: it is taken for restricted"
    ]


async def test_a_rule_of_now_holds_for_an_index_of_before(write: Write, tmp_path: Path, words: WordEmbedder) -> None:
    folder = write({"pay.md": "The salary of the stoker is 7 coins."})
    async with await index_of(folder, tmp_path, words, Privacy()) as index:
        later = Privacy(rules={"pay.md": "confidential"})
        assert await class_of(index, "salary of the stoker?", later) == Label("confidential", ("pay.md",))


async def test_another_rule_embeds_nothing_anew(write: Write, tmp_path: Path, words: WordEmbedder) -> None:
    folder = write({"pay.md": "The salary of the stoker is 7 coins."})
    async with await index_of(folder, tmp_path, words, Privacy()):
        pass
    later = Privacy(rules={"pay.md": "confidential"})
    async with open_index(tmp_path / "index", embedder=words, privacy=later) as index:
        report = await index.update(folder)
        assert (report.embedded, report.relabelled) == (0, 1)
        assert (await class_of(index, "salary?", Privacy())).data_class == "confidential"


async def test_content_that_stands_in_two_files_has_the_narrower_class(
    write: Write, tmp_path: Path, words: WordEmbedder
) -> None:
    same = "The salary of the stoker is 7 coins."
    folder = write({"a.md": same, "hr/z.md": same})
    async with await index_of(folder, tmp_path, words, RULES) as index:
        assert await class_of(index, "salary?", RULES) == Label("confidential", ("hr/z.md",))


async def test_passages_can_be_asked_for_by_class(write: Write, tmp_path: Path, words: WordEmbedder) -> None:
    folder = write({"hr/pay.md": "The salary of the stoker is 7 coins.", "menu.md": "The stoker eats soup."})
    async with await index_of(folder, tmp_path, words, RULES) as index:
        found = await index.search("stoker", where={"data_class": ["public", "internal"]})
    assert [hit.chunk.source for hit in found.hits] == ["menu.md"]


# --- what is found in them


@pytest.mark.usefixtures("looking")
async def test_a_document_with_a_credential_is_restricted_and_one_with_an_address_confidential(
    write: Write, tmp_path: Path, words: WordEmbedder
) -> None:
    privacy = Privacy(secrets="refuse", personal="redact")
    folder = write({"key.md": f"Deploy with the token {TOKEN}.", "who.md": "Ask ada@kettles.example for a kettle."})
    async with await index_of(folder, tmp_path, words, privacy) as index:
        found = {hit.chunk.source: dict(hit.chunk.metadata) for hit in (await index.search("token kettle")).hits}
    assert {name: (known["data_class"], known["found"]) for name, known in found.items()} == {
        "key.md": ("restricted", "secret:github-pat"),
        "who.md": ("confidential", "personal:email"),
    }


@pytest.mark.usefixtures("looking")
async def test_masking_keeps_what_was_found_out_of_the_index_and_every_place_where_it_was(
    write: Write, tmp_path: Path, words: WordEmbedder
) -> None:
    text = f"Deploy with the token {TOKEN} today."
    privacy = Privacy(secrets="refuse", documents="mask")
    folder = write({"key.md": text})
    async with await index_of(folder, tmp_path, words, privacy) as index:
        (hit,) = (await index.search("deploy token")).hits
        (header, *_) = [path.read_bytes() for path in tmp_path.rglob("header.json")]
    assert hit.chunk.text == text.replace(TOKEN, "█" * len(TOKEN))
    assert hit.chunk.metadata["data_class"] == "internal"
    assert not any("ghp_" in one for one in words.embedded)
    assert b"ghp_" not in header


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("key.md", f"# Use {TOKEN}\n\nDeploy today.\n\n## And {TOKEN}\n\nDeploy tomorrow."),
        ("key.md", f"---\nowner: {TOKEN}\n---\n# Deploy\n\nDeploy today."),
        ("key.html", f"<html><head><title>Use {TOKEN}</title></head><body><p>Deploy today.</p></body></html>"),
    ],
)
async def test_headings_titles_and_metadata_are_searched_and_masked_too(
    write: Write, tmp_path: Path, words: WordEmbedder, name: str, text: str
) -> None:
    folder = write({name: text})
    narrow = Privacy(secrets="refuse")
    async with await index_of(folder, tmp_path / "narrow", WordEmbedder(), narrow) as index:
        assert (await class_of(index, "deploy", narrow)).data_class == "restricted"
    async with await index_of(folder, tmp_path, words, Privacy(secrets="refuse", documents="mask")) as index:
        hits = (await index.search("deploy")).hits
        (header, *_) = [path.read_bytes() for path in (tmp_path / "index").rglob("header.json")]
    assert {hit.chunk.metadata["data_class"] for hit in hits} == {"internal"}
    assert TOKEN not in str([hit.chunk for hit in hits])
    assert not any("ghp_" in one for one in words.embedded)
    assert b"ghp_" not in header


@pytest.mark.usefixtures("looking")
async def test_files_that_did_not_change_are_searched_when_the_rules_begin_to_look(
    write: Write, tmp_path: Path, words: WordEmbedder
) -> None:
    folder = write({"key.md": f"Deploy with the token {TOKEN}."})
    async with await index_of(folder, tmp_path, words, Privacy()) as index:
        assert (await class_of(index, "token?", Privacy())).data_class == "internal"
    async with open_index(tmp_path / "index", embedder=words, privacy=Privacy(secrets="refuse")) as index:
        await index.update(folder)
        assert (await class_of(index, "token?", Privacy())).data_class == "restricted"
    async with open_index(tmp_path / "index", embedder=words, privacy=Privacy()) as index:
        await index.update(folder)
        assert (await class_of(index, "token?", Privacy())).data_class == "internal"


@pytest.mark.usefixtures("looking")
def test_what_a_document_says_was_found_in_it_is_not_believed() -> None:
    document = Document("a.md", "Nothing here.", (Block(0, 13),), {"found": "", "_looked": "narrow:secret"})
    assert looked_through(document, Privacy()).metadata == {}
    assert looked_through(document, Privacy(secrets="refuse")).metadata == {"_looked": "narrow:secret"}


@pytest.mark.usefixtures("looking")
def test_a_masked_table_repeats_a_masked_header() -> None:
    text = f"| {TOKEN} |\n|---|\n| row |\n"
    document = Document("a.md", text, (Block(0, len(text), kind="lines", head=text[: text.index("| row")]),))
    masked = looked_through(document, Privacy(secrets="refuse", documents="mask"))
    assert TOKEN not in masked.text + masked.blocks[0].head
    assert len(masked.text) == len(text)


# --- embedding models and servers elsewhere


class Hosted(WordEmbedder):
    """An embedding model behind an API, as far as rules can tell."""

    name = "openai:hosted"
    price = TokenPrice.custom(input_usd_per_mtok="1", output_usd_per_mtok="1")

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    def paid_by(self, pay: Pay) -> Hosted:
        return self

    def embed_query(self, question: str) -> Vector:
        self.embedded.append(question)
        return super().embed_query(question)


async def test_confidential_documents_are_not_embedded_elsewhere(write: Write, tmp_path: Path) -> None:
    folder = write({"hr/pay.md": "The salary of the stoker is 7 coins.", "menu.md": "The stoker eats soup."})
    hosted = Hosted("https://api.openai.com/v1")
    with pytest.raises(DataRefused, match=r"a document is confidential \(hr/pay.md\) and may not go to openai:hosted"):
        await index_of(folder, tmp_path, hosted, RULES)
    assert hosted.embedded == []
    allowed = Privacy(rules=RULES.rules, allow={"openai:hosted": "confidential"})
    async with await index_of(folder, tmp_path / "b", hosted, allowed) as index:
        assert await index.count() == 2


async def test_an_embedding_server_on_this_machine_may_have_them(write: Write, tmp_path: Path) -> None:
    folder = write({"hr/pay.md": "The salary of the stoker is 7 coins."})
    async with await index_of(folder, tmp_path, Hosted("http://127.0.0.1:8080/v1"), RULES) as index:
        assert await index.count() == 1


async def test_confidential_documents_are_not_kept_by_a_server_elsewhere(write: Write, words: WordEmbedder) -> None:
    pytest.importorskip("qdrant_client")
    folder = write({"hr/pay.md": "The salary of the stoker is 7 coins."})
    url = "https://qdrant.invalid:6333"
    async with open_index(url, embedder=words, privacy=RULES) as index:
        with pytest.raises(DataRefused, match=r"may not go to https://qdrant\.invalid:6333"):
            await index.update(folder, rebuild=True)
