"""Tokenizers in other files than tokenizer.json work, or the error says which files are read."""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.errors import NotAModelError, PaddockError
from core.store import ModelStore, resolve
from core.store.hub import HubAccess, describe
from tests.builders import edit_json, sentencepiece_model
from tests.store.hub_server import Hub

pytestmark = pytest.mark.usefixtures("online")

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n"
BYTES = [base64.b64encode(bytes([byte])).decode() for byte in range(256)]


@pytest.fixture
def without_sentencepiece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate that the package is not installed."""
    monkeypatch.setitem(sys.modules, "sentencepiece", None)


@pytest.fixture
def bare(checkpoint_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama checkpoint without a tokenizer; its path contains no word that a test searches."""
    folder = tmp_path_factory.mktemp("folder") / "model"
    shutil.copytree(checkpoint_of("llama"), folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    return folder


def refusal(store: ModelStore, folder: Path) -> str | None:
    """The error message if the model cannot be converted; None if it can."""
    try:
        store.ensure(resolve(str(folder)), Precision.FP32)
    except PaddockError as error:
        return str(error).lower()
    return None


def name_special_tokens(folder: Path) -> None:
    """Settings for a folder with a tokenizer.model."""
    edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class="LlamaTokenizer",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


# SentencePiece


@pytest.mark.parametrize("unigram", [False, True], ids=["BPE", "unigram"])
@pytest.mark.parametrize("with_settings", [True, False], ids=["with settings", "alone"])
def test_a_sentencepiece_tokenizer_works_where_the_package_is_installed(
    with_settings: bool, unigram: bool, bare: Path
) -> None:
    pytest.importorskip("sentencepiece")
    from core.store.convert import load_tokenizer

    sentencepiece_model(bare / "tokenizer.model", unigram=unigram)
    if with_settings:
        name_special_tokens(bare)
    tokenizer = load_tokenizer(bare)
    text = "the rain in the river"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert 0 < len(ids) < len(text)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("with_settings", [True, False], ids=["with settings", "alone"])
def test_without_the_package_a_sentencepiece_tokenizer_is_named(
    with_settings: bool, store: ModelStore, bare: Path, without_sentencepiece: None
) -> None:
    sentencepiece_model(bare / "tokenizer.model")
    if with_settings:
        name_special_tokens(bare)
    said = refusal(store, bare)
    assert said is None or "sentencepiece" in said


# Other formats


FORMATS: dict[str, tuple[Callable[[Path], None], str]] = {
    "spiece.model": (lambda to: sentencepiece_model(to / "spiece.model"), "sentencepiece"),
    "sentencepiece.bpe.model": (
        lambda to: sentencepiece_model(to / "sentencepiece.bpe.model"),
        "sentencepiece",
    ),
    "tekken.json": (lambda to: edit_json(to / "tekken.json", vocab=[]), "no tokenizer.json"),
    "tokenizer.model.v3": (
        lambda to: sentencepiece_model(to / "tokenizer.model.v3"),
        "no tokenizer.json and no tokenizer.model",
    ),
}
"""Function that writes the file, and the words of the refusal."""


@pytest.mark.parametrize("name", FORMATS)
def test_another_format_is_refused(name: str, store: ModelStore, bare: Path) -> None:
    write, words = FORMATS[name]
    write(bare)
    assert words in (refusal(store, bare) or "")


def vocabulary_with_merges(folder: Path, checkpoint: Path) -> None:
    model = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("spiece.model", "LlamaTokenizer", "sentencepiece"),
        ("sentencepiece.bpe.model", "XGLMTokenizer", "sentencepiece"),
        ("vocab.txt", "LlamaTokenizer", "wordpiece"),
        ("vocab.json", "LlamaTokenizer", "byte-level bpe"),
        ("vocab.json", None, "names no tokenizer class"),
    ],
)
def test_a_vocabulary_that_the_tokenizer_class_ignores_is_named(
    name: str,
    kind: str | None,
    words: str,
    hub: Hub,
    store: ModelStore,
    bare: Path,
    checkpoint_of: Callable[[str], Path],
) -> None:
    if name == "vocab.json":
        vocabulary_with_merges(bare, checkpoint_of("llama"))
    elif name == "vocab.txt":
        (bare / name).write_text("[UNK]\nthe\nrain", encoding="utf-8")
    else:
        sentencepiece_model(bare / name)
    edit_json(bare / "tokenizer_config.json", tokenizer_class=kind)
    hub.add("some-org/model", bare)
    with pytest.raises(NotAModelError, match=f"(?i){words}"):
        describe("some-org/model", HubAccess(endpoint=hub.url))
    assert words in (refusal(store, bare) or "")
    from core.store.convert import load_tokenizer

    with pytest.raises(NotAModelError, match="knows no word"):
        load_tokenizer(bare)


def test_a_vocabulary_without_its_merges_is_named(
    store: ModelStore, bare: Path, checkpoint_of: Callable[[str], Path]
) -> None:
    vocabulary_with_merges(bare, checkpoint_of("llama"))
    (bare / "merges.txt").unlink()
    edit_json(bare / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    assert "reads merges.txt, vocab.json" in (refusal(store, bare) or "")


@pytest.mark.parametrize(
    ("name", "kind"), [("spiece.model", "XLNetTokenizer"), ("vocab.txt", "BertTokenizer")]
)
def test_a_vocabulary_that_the_tokenizer_class_reads_works(
    name: str, kind: str, bare: Path
) -> None:
    from core.store.convert import load_tokenizer

    if name == "vocab.txt":
        (bare / name).write_text("[UNK]\nthe\nrain", encoding="utf-8")
    else:
        sentencepiece_model(bare / name, unigram=True)
    edit_json(bare / "tokenizer_config.json", tokenizer_class=kind)
    resolve(str(bare))
    tokenizer = load_tokenizer(bare)
    ids = tokenizer("the rain", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == "the rain"


@pytest.mark.parametrize("name", FORMATS)
def test_another_format_on_the_hub_is_refused(name: str, hub: Hub, bare: Path) -> None:
    write, words = FORMATS[name]
    write(bare)
    hub.add("some-org/model", bare)
    with pytest.raises(NotAModelError, match=f"(?i){words}"):
        describe("some-org/model", HubAccess(endpoint=hub.url))


def test_a_tiktoken_vocabulary_works(store: ModelStore, bare: Path) -> None:
    pytest.importorskip("tiktoken")
    lines = "\n".join(f"{token} {rank}" for rank, token in enumerate(BYTES))
    (bare / "tokenizer.model").write_text(lines, encoding="utf-8")
    edit_json(bare / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    assert refusal(store, bare) is None


def test_a_vocabulary_with_merges_works(
    store: ModelStore, bare: Path, checkpoint_of: Callable[[str], Path]
) -> None:
    vocabulary_with_merges(bare, checkpoint_of("llama"))
    edit_json(bare / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    assert refusal(store, bare) is None


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_git_lfs_pointer_instead_of_the_file_is_reported(
    name: str, store: ModelStore, bare: Path
) -> None:
    (bare / name).write_text(LFS_POINTER, encoding="utf-8")
    name_special_tokens(bare)
    said = refusal(store, bare)
    assert said is not None and "cannot be read" in said and str(bare).lower() in said
