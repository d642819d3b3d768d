"""Resolution of model names, and refusal of unsupported folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.catalogue import catalogue
from core.errors import CorruptModelError, NotAModelError, UnknownModelError
from core.store import SourceKind, resolve

CheckpointOf = Callable[[str], Path]


@pytest.fixture
def folder(checkpoint_of: CheckpointOf, tmp_path: Path) -> Path:
    """A checkpoint that the test may change."""
    return Path(shutil.copytree(checkpoint_of("gpt_neox"), tmp_path / "My model!"))


def _edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


@pytest.mark.parametrize("key", list(catalogue()))
def test_every_catalogue_key_resolves_to_its_row(key: str) -> None:
    source = resolve(key)
    assert source.key == key
    assert source.model is catalogue()[key]
    assert source.kind is (SourceKind.EMBEDDED if source.model.embedded else SourceKind.HUB)


def test_hub_id_of_a_catalogue_model_resolves_to_it_in_any_case() -> None:
    assert resolve("DataBricks/Dolly-v2-3B") == resolve("dolly-v2-3b")


def test_other_hub_id_gets_a_key_that_is_a_folder_name() -> None:
    source = resolve("EleutherAI/pythia-70m")
    assert (source.kind, source.key) == (SourceKind.HUB, "EleutherAI--pythia-70m")
    assert source.location == "EleutherAI/pythia-70m"
    assert source.model is None


@pytest.mark.parametrize("ending", ["", "/", "/tree/main"])
def test_url_of_a_model_page_resolves_to_its_id(ending: str) -> None:
    assert resolve(f"https://huggingface.co/EleutherAI/pythia-70m{ending}") == resolve(
        "EleutherAI/pythia-70m"
    )
    assert resolve(f"https://hf.co/databricks/dolly-v2-3b{ending}") == resolve("dolly-v2-3b")


@pytest.mark.parametrize(
    "name",
    [
        "https://huggingface.co/EleutherAI/pythia-70m/tree/other",
        "https://huggingface.co/datasets/EleutherAI/pile",
        "https://example.org/EleutherAI/pythia-70m",
        "https://huggingface.co/pythia-70m",
    ],
)
def test_other_urls_are_not_models(name: str) -> None:
    with pytest.raises(UnknownModelError):
        resolve(name)


def test_folder_gets_a_safe_key_of_its_own(folder: Path, checkpoint_of: CheckpointOf) -> None:
    source = resolve(str(folder))
    assert source.kind is SourceKind.CHECKPOINT
    assert source.location == folder
    assert source.key.startswith("My-model-")
    assert source.key != resolve(str(checkpoint_of("gpt_neox"))).key
    assert source == resolve(f"  {folder}/../{folder.name}  ")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "no-such-model",
        "a/b/c",
        "../..--",
        "org/a--b",
        "x" * 5000,
        "a\0b",
        "/no/such/dir",
    ],
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UnknownModelError, match="catalogue key") as caught:
        resolve(name)
    assert len(str(caught.value)) < 700


def test_similar_catalogue_keys_are_suggested() -> None:
    with pytest.raises(UnknownModelError, match="Did you mean smollm2-135m-instruct or "):
        resolve("SmolLM2-135M")


def test_empty_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(NotAModelError, match=r"no config\.json"):
        resolve(str(tmp_path))


def test_missing_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NotAModelError, match="no tokenizer"):
        resolve(str(folder))


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotAModelError, match=r"nor openvino_model\.xml"):
        resolve(str(folder))


def test_truncated_weights_are_found_by_their_header(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CorruptModelError, match=r"model\.safetensors .* truncated"):
        resolve(str(folder))


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]"])
def test_garbage_in_place_of_weights_is_named(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptModelError, match=r"model\.safetensors"):
        resolve(str(folder))


def test_missing_shard_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(CorruptModelError, match="model-00002-of-00002"):
        resolve(str(folder))


def test_index_that_points_outside_the_folder_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": {"a": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptModelError, match="outside of the model"):
        resolve(str(folder))


def test_other_architecture_is_not_a_causal_language_model(folder: Path) -> None:
    _edit_config(folder, architectures=["BertForMaskedLM"], model_type="bert")
    with pytest.raises(NotAModelError, match="BertForMaskedLM, not a causal language model"):
        resolve(str(folder))


def test_damaged_config_is_corrupt(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CorruptModelError, match=r"config\.json"):
        resolve(str(folder))


def test_model_that_requires_custom_code_is_refused(folder: Path) -> None:
    code = {"AutoConfig": "configuration_evil.EvilConfig"}
    _edit_config(folder, model_type="evil", auto_map=code)
    with pytest.raises(NotAModelError, match="trust_remote_code"):
        resolve(str(folder))


def test_auto_map_of_a_model_that_transformers_supports_is_accepted(folder: Path) -> None:
    _edit_config(folder, auto_map={"AutoConfig": "configuration_gpt_neox.Config"})
    assert resolve(str(folder)).kind is SourceKind.CHECKPOINT
