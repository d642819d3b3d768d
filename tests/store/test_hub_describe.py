"""Description of a model before its download, and access to a hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.catalogue import Precision
from core.errors import (
    GatedModelError,
    HubError,
    NotAModelError,
    UnknownModelError,
    UserError,
)
from core.store import hub_listing
from core.store.hub import HubAccess, describe, find_ready
from core.store.model_files import ModelFiles
from core.store.supported import check_supported
from tests.store.hub_server import REVISION, Hub

pytestmark = pytest.mark.usefixtures("online")

REPOSITORY = "some-org/tiny.model"
TOKEN = "hf_readsTheGatedModel"


@pytest.fixture
def repository(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_of("gpt_neox"), tmp_path / "repository"))


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with Hub() as server:
        server.add(REPOSITORY, repository)
        yield server


def test_model_is_described_by_its_files_and_configuration(hub: Hub, repository: Path) -> None:
    (repository / "README.md").write_text("not wanted")
    about = describe(REPOSITORY, HubAccess(endpoint=hub.url))
    assert (about.hub_id, about.revision, about.gated) == (REPOSITORY, REVISION, False)
    assert about.files["model.safetensors"] == (repository / "model.safetensors").stat().st_size
    assert "README.md" not in about.files
    assert about.total_bytes == sum(about.files.values())
    assert about.config == json.loads((repository / "config.json").read_text())
    asked = [each.path.rsplit("/", 1)[1] for each in hub.asked]
    assert asked == ["tiny.model", "config.json", "tokenizer_config.json"]


def test_ready_openvino_repositories_are_found_by_the_name_of_the_original(
    hub: Hub, repository: Path, tmp_path: Path
) -> None:
    ready = Path(shutil.copytree(repository, tmp_path / "ready"))
    (ready / "model.safetensors").unlink()
    (ready / "openvino_model.xml").write_text("<net><layers/><edges/></net>")
    (ready / "openvino_model.bin").write_bytes(b"0" * 5000)
    hub.add("OpenVINO/tiny.model-int4-ov", ready)
    access = HubAccess(endpoint=hub.url)
    found = find_ready(REPOSITORY, access)
    assert list(found) == [Precision.INT4]
    assert found[Precision.INT4].hub_id == "OpenVINO/tiny.model-int4-ov"
    assert found[Precision.INT4].total_bytes >= 5000
    assert not hub.fetched(".bin")
    assert find_ready("some-org/other", access) == {}
    assert find_ready("OpenVINO/tiny.model-int4-ov", access) == {}


def test_gated_model_can_be_described_before_its_licence_is_accepted(
    hub: Hub, repository: Path
) -> None:
    hub.add(REPOSITORY, repository, gated=True, token=TOKEN)
    hub.know("hf_withoutAccess")
    for token in (None, "hf_withoutAccess"):
        about = describe(REPOSITORY, HubAccess(token=token, endpoint=hub.url))
        assert about.gated and about.config is None
        assert about.total_bytes > 0
    about = describe(REPOSITORY, HubAccess(token=TOKEN, endpoint=hub.url))
    assert about.gated and about.config is not None


def test_sizes_are_requested_from_a_mirror_that_lists_only_names(
    hub: Hub, repository: Path
) -> None:
    whole = describe(REPOSITORY, HubAccess(endpoint=hub.url))
    hub.tell_no_sizes()
    assert describe(REPOSITORY, HubAccess(endpoint=hub.url)) == whole


def test_too_large_configuration_is_not_read(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_listing, "LARGEST_JSON", 100)
    assert describe(REPOSITORY, HubAccess(endpoint=hub.url)).config is None
    assert not hub.fetched("config.json")


def test_access_from_the_environment(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPOSITORY, repository, private=True, token=TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/")
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    assert describe(REPOSITORY).files
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UnknownModelError):
        describe(REPOSITORY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    with pytest.raises(HubError, match="offline"):
        describe(REPOSITORY)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "{", "not readable"),
        ("config.json", "[]", "not readable"),
        ("config.json", None, r"no config\.json"),
        ("tokenizer.json", None, "no tokenizer"),
        ("model.safetensors", None, r"neither model\.safetensors"),
        ("config.json", '{"architectures": ["BertForMaskedLM"]}', "BertForMaskedLM"),
        (
            "config.json",
            '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}',
            "trust_remote_code",
        ),
    ],
)
def test_unsupported_model_is_refused_with_the_reason(
    hub: Hub, repository: Path, name: str, content: str | None, words: str
) -> None:
    if content is None:
        (repository / name).unlink()
    else:
        (repository / name).write_text(content)
    with pytest.raises(NotAModelError, match=words) as caught:
        describe(REPOSITORY, HubAccess(endpoint=hub.url))
    assert "\n" not in str(caught.value)


def test_auto_map_of_a_model_that_transformers_supports_is_accepted(
    hub: Hub, repository: Path
) -> None:
    config = json.loads((repository / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_gpt_neox.Config"}
    (repository / "config.json").write_text(json.dumps(config))
    assert describe(REPOSITORY, HubAccess(endpoint=hub.url)).config == config


@pytest.mark.parametrize(
    ("access", "kind", "words"),
    [
        (HubAccess(token="hf_wrong"), GatedModelError, "rejected the token"),
        (HubAccess(token="hf_né"), UserError, "invalid characters"),
        (HubAccess(token="hf_two words"), UserError, "invalid characters"),
        (HubAccess(token="hf_with\r\nX-Header: 1"), UserError, "invalid characters"),
        (HubAccess(endpoint="hub.example"), UserError, "HF_ENDPOINT"),
        (HubAccess(endpoint="file:///etc"), UserError, "HF_ENDPOINT"),
        (HubAccess(endpoint="http://[broken"), UserError, "HF_ENDPOINT"),
        (HubAccess(endpoint="http://user:secret@127.0.0.1:9"), HubError, r"at 127\.0\.0\.1:9 "),
    ],
)
def test_invalid_access_is_refused(
    hub: Hub, access: HubAccess, kind: type[Exception], words: str
) -> None:
    if access.endpoint is None:
        access = HubAccess(access.token, hub.url)
    with pytest.raises(kind, match=words) as caught:
        describe(REPOSITORY, access)
    assert "hf_" not in str(caught.value) and "secret" not in str(caught.value)


def test_token_is_not_shown() -> None:
    assert TOKEN not in repr(HubAccess(token=TOKEN))
    assert HubAccess(token=" \n") == HubAccess()


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        (
            ["model.safetensors", "pytorch_model.bin", "config.json"],
            ["config.json", "model.safetensors"],
        ),
        (
            ["pytorch_model.bin", "config.json", "training_args.bin"],
            ["config.json", "pytorch_model.bin"],
        ),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "consolidated.safetensors",
            ],
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
        (
            ["openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "openvino.py"],
            ["openvino_model.bin", "openvino_model.xml", "openvino_tokenizer.xml"],
        ),
        (["model.safetensors", "openvino_model.xml", "openvino_model.bin"], ["model.safetensors"]),
        (
            ["original/model.safetensors", "pytorch_model.bin", "../model.safetensors"],
            ["pytorch_model.bin"],
        ),
        (["model.safetensors.index.json", "pytorch_model.bin"], ["pytorch_model.bin"]),
        (
            [
                "model-00001-of-00002.safetensors",
                "model.safetensors.index.json",
                "pytorch_model.bin",
            ],
            ["pytorch_model.bin"],
        ),
        (
            [
                "model.safetensors",
                "model-00001-of-00001.safetensors",
                "model.safetensors.index.json",
            ],
            ["model.safetensors"],
        ),
    ],
)
@pytest.mark.parametrize("gated", [False, True])
def test_only_needed_files_are_wanted(present: list[str], wanted: list[str], gated: bool) -> None:
    """A gated repository's files are chosen by their names alone."""
    shards = {f"layer.{at}": f"model-0000{at}-of-00002.safetensors" for at in (1, 2)}
    contents = {
        "config.json": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
        "model.safetensors.index.json": {"weight_map": shards},
    }
    names = frozenset({*present, "config.json", "tokenizer.json"})
    files = ModelFiles("some-org/model", names, lambda name: None if gated else contents[name])
    found = check_supported(files)
    assert {*found.weights, *found.others} == {*wanted, "config.json", "tokenizer.json"}
