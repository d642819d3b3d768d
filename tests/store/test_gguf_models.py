"""GGUF models on a hub, split into several files, with SentencePiece, and through transformers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from core.catalogue import Precision
from core.errors import (
    CorruptModelError,
    GatedModelError,
    ModelFilesError,
    NotAModelError,
    UnknownModelError,
    UserError,
)
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.store import ModelStore, SourceKind, resolve
from core.store.estimate import estimate
from core.store.gguf import hub_files
from core.store.gguf.hub_files import choose, gguf_choices
from core.store.gguf.reader import THROUGH_TRANSFORMERS
from core.store.hub import HubAccess, describe, gguf_files
from core.store.names import hub_name
from tests.builders import sentencepiece_model
from tests.gguf_files import tiny_gguf, torch_gguf
from tests.store.hub_server import Hub
from tests.store.test_gguf import PROMPTS, answers, greedy

pytestmark = pytest.mark.usefixtures("online")

REPOSITORY = "some-org/tiny-GGUF"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two quantisations, one of them split, and files beside the model."""
    folder = tmp_path_factory.mktemp("repository")
    tiny_gguf(folder / "tiny-Q4_1.gguf")
    tiny_gguf(folder / "Q8_0" / "tiny-Q8_0.gguf", tensor_type="Q8_0", split=8)
    (folder / "mmproj-tiny-F16.gguf").write_bytes(b"GGUF")
    (folder / "README.md").write_text("A model.", encoding="utf-8")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with Hub() as server:
        server.add(REPOSITORY, repository)
        yield server


# On a hub


def test_the_files_of_a_repository_are_offered_by_quantisation_and_size(hub: Hub) -> None:
    access = HubAccess(endpoint=hub.url)
    choices = gguf_files(REPOSITORY, access)
    assert [choice.name for choice in choices] == ["Q4_1", "Q8_0"]
    assert len(choices[0].files) == 1 < len(choices[1].files)
    with pytest.raises(UnknownModelError, match=rf"Q4_1 \(.*Q8_0 \(.*{REPOSITORY}:Q8_0"):
        describe(REPOSITORY, access)
    with pytest.raises(UnknownModelError, match="no GGUF file 'Q5_K_M'"):
        describe(f"{REPOSITORY}:Q5_K_M", access)


def test_files_beside_a_model_do_not_hide_it(hub: Hub, repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    shutil.copy(repository / "tiny-Q4_1.gguf", folder)
    for name in ("training_args.bin", "adapter_model.safetensors", "mmproj-tiny-F16.gguf"):
        (folder / name).write_bytes(b"GGUF")
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    hub.add("some-org/beside", folder)
    assert [each.name for each in gguf_files("some-org/beside", HubAccess(endpoint=hub.url))] == [
        "Q4_1"
    ]
    assert resolve(str(folder)).location == folder / "tiny-Q4_1.gguf"


@pytest.mark.parametrize("name", ["some-org/embedding", "some-org/embedding:Q4_1"])
def test_the_task_on_the_card_of_a_repository_counts(name: str, hub: Hub, repository: Path) -> None:
    hub.add("some-org/embedding", repository, task="feature-extraction")
    with pytest.raises(NotAModelError, match="is an embedding model"):
        describe(name, HubAccess(endpoint=hub.url))


@pytest.mark.parametrize("quantisation", ["Q4_1", "Q8_0"])
def test_a_file_is_described_by_its_header_and_converted(
    quantisation: str, hub: Hub, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_files, "_FIRST_READ", 4096)
    access = HubAccess(endpoint=hub.url)
    source = resolve(f"{REPOSITORY}:{quantisation}")
    assert (source.kind, source.is_gguf) == (SourceKind.HUB, True)
    about = describe(str(source.location), access)
    assert about.gguf is not None and about.gguf.recipe == quantisation
    ranges = [asked.range for asked in hub.fetched(".gguf")]
    assert ranges[:2] == ["bytes=0-4095", "bytes=0-16383"]
    read = max(int(each.rpartition("-")[2]) for each in ranges if each)
    assert read < about.total_bytes / 4
    needs = estimate(source, Precision.STORED, store.settings, hub=about)
    assert needs.download_bytes == about.total_bytes
    stored = store.ensure(source, source.default_precision, access=access)
    assert stored.label.endswith(f"GGUF {quantisation}")
    assert stored.name == f"{REPOSITORY}:{quantisation}"


def test_a_gated_file_requires_access(hub: Hub, repository: Path) -> None:
    hub.add("some-org/gated-GGUF", repository, gated=True, token="hf_access")
    with pytest.raises(GatedModelError, match=r"at http://[^/]*/some-org/gated-GGUF, "):
        describe("some-org/gated-GGUF:Q4_1", HubAccess(endpoint=hub.url))
    described = describe("some-org/gated-GGUF:Q4_1", HubAccess("hf_access", hub.url))
    assert described.gguf is not None


@pytest.mark.parametrize(
    ("architecture", "tensor", "word"),
    [("mamba", 0, "architecture 'mamba'"), ("llama", 40, "type NVFP4")],
)
def test_what_is_not_supported_is_named_before_the_download(
    architecture: str, tensor: int, word: str, hub: Hub, tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "odd-Q4_0.gguf", architecture)
    kind = gguf.GGMLQuantizationType(tensor)
    raw = np.zeros((2**17, 36), np.uint8) if tensor else np.zeros((4096, 256), np.float32)
    writer.add_tensor("token_embd.weight", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    hub.add("some-org/odd-GGUF", tmp_path)
    with pytest.raises(ModelFilesError, match=word):
        describe("some-org/odd-GGUF:Q4_0", HubAccess(endpoint=hub.url))
    ranges = [asked.range for asked in hub.fetched("odd-Q4_0.gguf")]
    assert ranges == [f"bytes=0-{hub_files._FIRST_READ - 1}"]


@pytest.mark.parametrize(
    "name",
    [
        f"{REPOSITORY}:Q8_0",
        f"hf.co/{REPOSITORY}:Q8_0",
        f"{REPOSITORY}/Q8_0/tiny-Q8_0-00001-of-00003.gguf",
        f"https://huggingface.co/{REPOSITORY}/blob/main/Q8_0/tiny-Q8_0-00001-of-00003.gguf",
        f"https://huggingface.co/{REPOSITORY}/resolve/main/tiny-Q4_1.gguf?download=true",
        f"https://huggingface.co/{REPOSITORY}?show_file_info=tiny-Q4_1.gguf",
    ],
)
def test_a_file_is_named_by_quantisation_path_or_page(name: str, hub: Hub) -> None:
    assert describe(str(resolve(name).location), HubAccess(endpoint=hub.url)).gguf is not None


def test_files_of_one_name_are_told_apart_by_their_folders() -> None:
    sizes = {
        "Q4_0/model.gguf": 1,
        "Q8_0/model.gguf": 2,
        "a/model-F16.gguf": 3,
        "b/model-F16.gguf": 4,
    }
    choices = gguf_choices(sizes)
    assert [each.name for each in choices] == ["Q4_0", "Q8_0", "a-model-F16", "b-model-F16"]
    assert choose("org/m", "q8_0", choices).files == ("Q8_0/model.gguf",)
    with pytest.raises(UnknownModelError, match="several GGUF files 'model'"):
        choose("org/m", "model", choices)
    assert choose("org/m", "F16", choices).files == ("a/model-F16.gguf",)


def test_a_path_names_one_of_several_files_of_one_name() -> None:
    paths = ["x/q4/m-Q4_K_M.gguf", "y/q4/m-Q4_K_M.gguf", "Q4_0/model.gguf", "Q8_0/model.gguf"]
    choices = gguf_choices(dict.fromkeys(paths, 1))
    for path in paths:
        _, selector = hub_name(f"https://huggingface.co/org/m/blob/main/{path}") or ("", "")
        assert choose("org/m", selector or "", choices).files == (path,)
    assert choose("org/m", "Q4_K_M", choices).files == (paths[0],)


@pytest.mark.parametrize(
    "page", ["?library=transformers", "#usage", "/discussions/3", "/tree/main"]
)
def test_pages_of_a_repository_name_it(page: str) -> None:
    assert resolve(f"https://huggingface.co/{REPOSITORY}{page}").location == REPOSITORY


def test_a_quantisation_has_one_key_however_it_is_written() -> None:
    assert resolve(f"{REPOSITORY}:q4_k_m") == resolve(f"{REPOSITORY}:Q4_K_M")


# Split models


def test_a_split_model_is_one_model_whichever_part_is_named(
    repository: Path, store: ModelStore
) -> None:
    parts = sorted((repository / "Q8_0").iterdir())
    assert len(parts) > 2
    sources = {resolve(str(path)) for path in (*parts, repository / "Q8_0")}
    assert len(sources) == 1
    source = sources.pop()
    assert source.title == "tiny-Q8_0"
    stored = store.ensure(source, Precision.STORED)
    whole = tiny_gguf(store.settings.home / "whole.gguf", tensor_type="Q8_0")
    wanted = [greedy(whole.model, prompt) for prompt in PROMPTS]
    assert answers(GenAIRuntime(), stored.folder) == wanted


def test_a_missing_part_is_named(repository: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(repository / "Q8_0", tmp_path / "parts"))
    missing = max(folder.iterdir())
    missing.unlink()
    with pytest.raises(CorruptModelError, match=missing.name):
        resolve(str(min(folder.iterdir())))


# SentencePiece


def test_a_sentencepiece_tokenizer_has_the_ids_of_the_package(
    tmp_path: Path, store: ModelStore
) -> None:
    import openvino_genai
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

    sentencepiece_model(tmp_path / "tokenizer.model")
    theirs = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    kinds = {0: 2, 1: 3, 2: 3}
    tokens = [
        (
            theirs.id_to_piece(at),
            theirs.get_score(at),
            6 if theirs.is_byte(at) else kinds.get(at, 1),
        )
        for at in range(theirs.get_piece_size())
    ]
    file = tiny_gguf(tmp_path / "spm.gguf", sentencepiece=tokens, template=None).path
    stored = store.ensure(resolve(str(file)), Precision.STORED)
    ours = Tokenizer.from_file(str(stored.folder / "tokenizer.json"))
    genai = openvino_genai.Tokenizer(str(stored.folder))
    for text in ("the river in the other", "  two  spaces ", "naïve 日本 🙂", "a\n\tb", "therrer"):
        wanted = theirs.encode(text)
        assert ours.encode(text, add_special_tokens=False).ids == wanted, text
        found = genai.encode(text, add_special_tokens=False).input_ids.data
        assert found.flatten().tolist() == wanted, text
        assert ours.decode(wanted) == text
    assert ours.encode("a").ids[0] == 1


# Through transformers


@pytest.mark.parametrize("architecture", ["gemma2"])
def test_the_dequantised_weights_answer_as_transformers_does(
    architecture: str, tmp_path: Path, store: ModelStore
) -> None:
    """The other architectures are in ``check_gguf_architectures.py``."""
    check_answers(architecture, tmp_path, store)


def check_answers(architecture: str, tmp_path: Path, store: ModelStore) -> None:
    """Compare the answers of a GGUF file on both runtimes with those of transformers."""
    made = torch_gguf(tmp_path / "tiny.gguf", architecture, THROUGH_TRANSFORMERS[architecture])
    source = resolve(str(made.path))
    assert source.default_precision is Precision.INT8
    with pytest.raises(UserError, match="only be dequantised"):
        store.ensure(source, Precision.STORED)
    with torch.inference_mode():
        wanted = [greedy(made.model, prompt) for prompt in PROMPTS]
    stored = store.ensure(source, Precision.FP32)
    assert stored.label == "FP32 from F16"
    assert answers(OptimumRuntime(), stored.folder) == wanted
    assert answers(GenAIRuntime(), stored.folder) == wanted
