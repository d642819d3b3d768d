"""Downloads from a small local hub, which can fail in each way a real hub does.

The client is the real ``huggingface_hub``. After each failure the download is not complete, and the
next attempt works.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from core.catalogue import Precision
from core.errors import (
    DiskFullError,
    GatedModelError,
    HubError,
    NotAModelError,
    UnknownModelError,
)
from core.settings import CHECKOUT, Settings
from core.store import ModelStore, Progress, resolve
from core.store import download as download_module
from core.store import hub as hub_module
from core.store.files import folder_bytes
from core.store.hub import HubAccess, completed, fetch
from core.store.progress import Stage, Transfer, ignore_progress
from tests.store.hub_server import REVISION, Hub
from tests.waiting import PATIENCE_S, eventually

REPOSITORY = "some-org/tiny.model"
WEIGHTS = "model.safetensors"
TOKEN = "hf_readsTheGatedModel"
MOVED = "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _online_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(download_module, "RETRY_WAITS_S", (0.02, 0.02))


@pytest.fixture
def repository(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> Path:
    """A GPT-NeoX checkpoint with further files that must not be downloaded."""
    folder = Path(shutil.copytree(checkpoint_of("gpt_neox"), tmp_path / "repository"))
    for name in ("modeling_evil.py", "pytorch_model.bin", "README.md", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not wanted")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with Hub() as server:
        server.add(REPOSITORY, repository)
        yield server


@pytest.fixture
def access(hub: Hub) -> HubAccess:
    return HubAccess(endpoint=hub.url)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Folder of the download."""
    return tmp_path / "there"


def fails(there: Path, access: HubAccess, kind: type[Exception], words: str) -> str:
    """Download, check the error, and check that the download is not complete."""
    with pytest.raises(kind, match=words) as caught:
        fetch(REPOSITORY, there, ignore_progress, access=access)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert completed(there) is None
    return str(caught.value)


def breaks_off(hub: Hub, there: Path, access: HubAccess) -> str:
    """Download until the connection breaks after 20 000 bytes of the weights, without retries."""
    hub.cut_after(20_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download_module, "RETRY_WAITS_S", ())
        text = fails(there, access, HubError, "connection broke")
    hub.heal()
    assert next(there.glob(f"{WEIGHTS}.*.part")).stat().st_size == 20_000
    return text


def works(there: Path, access: HubAccess, repository: Path) -> None:
    """Download, and compare each file with the repository."""
    done = fetch(REPOSITORY, there, ignore_progress, access=access)
    assert done == completed(there)
    fetched = {path.name for path in there.iterdir()} - {hub_module.COMPLETE_MARK}
    assert fetched >= {WEIGHTS, "tokenizer.json", "config.json"}
    for name in fetched:
        assert (there / name).read_bytes() == (repository / name).read_bytes(), name


# Successful downloads


def test_model_is_downloaded_converted_and_then_needs_no_hub(
    hub: Hub, store: ModelStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    source = resolve(REPOSITORY)
    steps: list[Progress] = []
    made = store.ensure(source, Precision.INT8, progress=steps.append)
    assert made.key == "some-org--tiny.model"
    assert made.manifest.source.kind == "hub"
    assert made.manifest.source.location == REPOSITORY
    assert made.manifest.source.revision == REVISION
    fetched = {path.name for path in (settings.downloads_dir / source.key).iterdir()}
    assert fetched >= {WEIGHTS, "tokenizer.json", "config.json"}
    assert fetched.isdisjoint({"modeling_evil.py", "pytorch_model.bin", "README.md", "onnx"})
    stages = [step.stage for step in steps]
    assert stages.index(Stage.FETCHING) < stages.index(Stage.EXPORTING)

    asked = len(hub.asked)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert store.ensure(source, Precision.FP16).manifest.source.revision == REVISION
    assert len(hub.asked) == asked


def test_huggingface_hub_downloads_the_same_files_from_the_test_hub(
    hub: Hub, repository: Path, tmp_path: Path
) -> None:
    """``huggingface_hub`` accepts the test hub as a hub."""
    from huggingface_hub import snapshot_download

    folder = tmp_path / "snapshot"
    snapshot_download(REPOSITORY, local_dir=folder, endpoint=hub.url, token=False)
    for name in (WEIGHTS, "config.json", "onnx/model.onnx"):
        assert (folder / name).read_bytes() == (repository / name).read_bytes()


def test_progress_counts_every_byte(
    hub: Hub, access: HubAccess, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "_RATE_WINDOW_S", PATIENCE_S)  # the rate of the whole
    hub.delay(0.02)
    steps: list[Progress] = []
    began = time.monotonic()
    fetch(REPOSITORY, there, steps.append, access=access)
    seconds = time.monotonic() - began
    transfers = [step.transfer for step in steps if step.transfer]
    total = folder_bytes(there) - (there / hub_module.COMPLETE_MARK).stat().st_size
    assert {transfer.total for transfer in transfers} == {total}
    done = [transfer.done for transfer in transfers]
    assert done == sorted(done) and done[-1] == total
    assert len(set(done)) >= 5
    assert all(step.stage is Stage.FETCHING for step in steps)
    known = [transfer for transfer in transfers if transfer.rate]
    assert known and 0.2 < known[-1].rate * seconds / total < 5
    assert transfers[-1].seconds_left in (0.0, None)
    assert known[0].seconds_left > 0
    assert len(steps) <= seconds / download_module._REPORT_INTERVAL_S + 3


def test_the_endpoint_is_used(
    repository: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub() as first, Hub() as second:
        second.add(REPOSITORY, repository)
        monkeypatch.setenv("HF_ENDPOINT", first.url)
        works(there, HubAccess(endpoint=f"{second.url}/"), repository)
        assert not first.asked


def test_mirror_that_lists_names_only(hub: Hub, access: HubAccess, there: Path, repository) -> None:
    hub.tell_no_sizes()
    works(there, access, repository)
    hub.corrupt(WEIGHTS)
    shutil.rmtree(there)
    fails(there, access, HubError, "checksum")


def test_a_changed_repository_is_not_mixed_with_an_older_partial_file(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    breaks_off(hub, there, access)
    content = (repository / WEIGHTS).read_bytes()
    (repository / WEIGHTS).write_bytes(content[:-4] + b"\x01\x02\x03\x04")
    (repository / "generation_config.json").write_text("{}")
    hub.add(REPOSITORY, repository, revision=MOVED)
    before = len(hub.asked)
    works(there, access, repository)
    assert completed(there) == MOVED
    asked = [one.range for one in hub.asked[before:] if one in hub.fetched(WEIGHTS)]
    assert asked == [None]


def test_weights_under_other_names_are_removed(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    works(there, access, repository)
    (there / hub_module.COMPLETE_MARK).unlink()
    (there / "pytorch_model.bin").write_bytes(b"of an older revision")
    works(there, access, repository)
    assert not (there / "pytorch_model.bin").exists()


# Refusals


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (401, "RepoNotFound", UnknownModelError, "has no model some-org/tiny.model"),
        (404, "RepoNotFound", UnknownModelError, "has no model some-org/tiny.model"),
        (403, "GatedRepo", GatedModelError, "Accept its licence"),
        (500, "", HubError, "status 500"),
        (403, "", HubError, "status 403"),
    ],
)
def test_refusal_of_the_hub_is_reported(
    hub: Hub,
    access: HubAccess,
    there: Path,
    repository: Path,
    status: int,
    code: str,
    kind: type[Exception],
    words: str,
) -> None:
    hub.refuse(status, code)
    fails(there, access, kind, words)
    hub.heal()
    works(there, access, repository)


def test_gated_model_requires_a_token_of_an_account_with_access(
    hub: Hub, there: Path, repository: Path
) -> None:
    hub.add(REPOSITORY, repository, gated=True, token=TOKEN)
    hub.know("hf_withoutAccess")
    text = fails(there, HubAccess(endpoint=hub.url), GatedModelError, "HF_TOKEN")
    assert f"Accept its licence at {hub.url}/{REPOSITORY}" in text
    other = HubAccess(token="hf_withoutAccess", endpoint=hub.url)
    assert "no access yet" in fails(there, other, GatedModelError, "licence")
    assert not hub.fetched(WEIGHTS)
    works(there, HubAccess(token=TOKEN, endpoint=hub.url), repository)


def test_private_model_is_unknown_to_others(hub: Hub, there: Path, repository: Path) -> None:
    hub.add(REPOSITORY, repository, private=True, token=TOKEN)
    hub.know("hf_withoutAccess")
    fails(there, HubAccess(endpoint=hub.url), UnknownModelError, "or it is private")
    other = HubAccess(token="hf_withoutAccess", endpoint=hub.url)
    fails(there, other, UnknownModelError, "or it is private")
    works(there, HubAccess(token=TOKEN, endpoint=hub.url), repository)


def test_wrong_token_is_distinguished_from_a_missing_model(
    hub: Hub, there: Path, repository
) -> None:
    wrong = HubAccess(token="hf_nobodyHasThis", endpoint=hub.url)
    text = fails(there, wrong, GatedModelError, "rejected the token")
    assert "hf_nobodyHasThis" not in text
    works(there, HubAccess(endpoint=hub.url), repository)


def test_missing_model(hub: Hub, access: HubAccess, there: Path) -> None:
    hub.repositories.clear()
    fails(there, access, UnknownModelError, "Check the spelling")


def test_a_server_that_is_not_a_hub(there: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.store.hub_server._Handler._listing", lambda *_: ["not", "a", "hub"])
    fails(there, HubAccess(endpoint=hub.url), HubError, "Check HF_ENDPOINT")


# The network


def test_broken_connection_is_resumed(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    hub.cut_after(20_000)
    works(there, access, repository)
    assert [asked.range for asked in hub.fetched(WEIGHTS)] == [None, "bytes=20000-"]


def test_partial_download_is_resumed_by_the_next_attempt(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    assert "resumes where it stopped" in breaks_off(hub, there, access)
    left = folder_bytes(there)
    assert left > 20_000

    before = len(hub.asked)
    steps: list[Transfer] = []
    fetch(
        REPOSITORY,
        there,
        lambda step: steps.append(step.transfer) if step.transfer else None,
        access=access,
    )
    asked = hub.asked[before:]
    contents = [one for one in asked if one in hub.fetched() and one.method == "GET"]
    assert [one.range for one in contents if one.path.endswith(WEIGHTS)] == ["bytes=20000-"]
    others = [one.path for one in contents if not one.path.endswith((WEIGHTS, "config.json"))]
    assert others == []
    assert min(step.done for step in steps) >= left
    works(there, access, repository)


def test_retries_end_if_the_connection_always_breaks(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    hub.cut_after(0, times=99)
    steps: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download_module, "RETRY_WAITS_S", (0.5, 0.5))
        with pytest.raises(HubError, match="connection broke"):
            fetch(REPOSITORY, there, steps.append, access=access)
    assert any("Retrying" in step.message for step in steps)
    assert len(hub.fetched(WEIGHTS)) == 3
    hub.heal()
    works(there, access, repository)


def test_download_of_a_killed_process_is_resumed(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    hub.delay(0.05)
    program = (
        "import sys; from pathlib import Path; from core.store.hub import *\n"
        f"fetch({REPOSITORY!r}, Path(sys.argv[1]), lambda step: None,"
        " access=HubAccess(endpoint=sys.argv[2]))"
    )
    child = subprocess.Popen([sys.executable, "-c", program, there, hub.url], cwd=CHECKOUT)
    try:
        eventually(lambda: any(there.glob(f"{WEIGHTS}.*.part")) and folder_bytes(there) >= 40_000)
    finally:
        child.kill()
        child.wait()
    assert completed(there) is None
    size = next(there.glob(f"{WEIGHTS}.*.part")).stat().st_size
    assert 0 < size < (repository / WEIGHTS).stat().st_size
    hub.heal()
    works(there, access, repository)
    assert hub.fetched(WEIGHTS)[-1].range == f"bytes={size}-"


def test_server_without_range_requests(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    hub.cut_after(20_000)
    hub.ignore_ranges()
    works(there, access, repository)


def test_damaged_partial_file_is_downloaded_again(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    breaks_off(hub, there, access)
    part = next(there.glob("*.part"))
    part.write_bytes(b"\0" * part.stat().st_size)
    works(there, access, repository)


def test_damaged_finished_file_is_downloaded_again(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    breaks_off(hub, there, access)
    content = (there / "tokenizer.json").read_bytes()
    (there / "tokenizer.json").write_bytes(b" " + content[1:])
    works(there, access, repository)


@pytest.mark.parametrize("name", [WEIGHTS, "generation_config.json"])
def test_file_with_a_wrong_checksum_is_deleted(
    hub: Hub, access: HubAccess, there: Path, repository: Path, name: str
) -> None:
    hub.corrupt(name)
    fails(there, access, HubError, f"{name} of {REPOSITORY} does not match the checksum")
    assert not list(there.glob(f"{name}*"))
    hub.heal()
    works(there, access, repository)


def test_more_bytes_than_listed_are_refused(
    hub: Hub, access: HubAccess, there: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = (repository / WEIGHTS).read_bytes() + b"more"

    def listing(handler, repo_id, about):
        answer = original(handler, repo_id, about)
        (repository / WEIGHTS).write_bytes(longer)  # changes between the list and the file
        return answer

    original = sys.modules["tests.store.hub_server"]._Handler._listing
    monkeypatch.setattr("tests.store.hub_server._Handler._listing", listing)
    fails(there, access, HubError, "does not match the checksum")
    assert folder_bytes(there) < len(longer)


def test_exception_in_the_progress_callback_ends_the_download(
    hub: Hub, access: HubAccess, there: Path
) -> None:
    hub.delay(0.05)

    def interrupted(step: Progress) -> None:
        if step.transfer:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(REPOSITORY, there, interrupted, access=access)
    size = folder_bytes(there)
    time.sleep(0.4)
    assert folder_bytes(there) == size


def test_missing_network_is_reported_at_once(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "RETRY_WAITS_S", (float("inf"),))  # no retries
    with pytest.raises(HubError, match=r"some-org/tiny\.model is not on this machine"):
        store.ensure(resolve(REPOSITORY), Precision.INT8)
    assert store.list() == []


def test_hub_that_closes_during_the_download(
    hub: Hub, access: HubAccess, there: Path, repository: Path
) -> None:
    hub.delay(0.02)
    closing: list[threading.Thread] = []

    def close_when_the_weights_come(step: Progress) -> None:
        if not closing and step.transfer and WEIGHTS in step.message:
            closing.append(threading.Thread(target=hub.close))
            closing[0].start()

    with pytest.raises(HubError, match=r"connection broke|cannot be reached"):
        fetch(REPOSITORY, there, close_when_the_weights_come, access=access)
    closing[0].join()
    assert completed(there) is None
    fails(there, access, HubError, f"the hub at {hub.url.removeprefix('http://')}")
    with Hub() as another:
        another.add(REPOSITORY, repository)
        works(there, HubAccess(endpoint=another.url), repository)


def test_offline_sends_no_request(hub: Hub, there: Path, repository: Path) -> None:
    fails(there, HubAccess(endpoint=hub.url, offline=True), HubError, "HF_HUB_OFFLINE")
    assert not hub.asked
    works(there, HubAccess(endpoint=hub.url), repository)
    asked = len(hub.asked)
    again = fetch(REPOSITORY, there, ignore_progress, access=HubAccess(offline=True))
    assert again == REVISION
    assert len(hub.asked) == asked


def test_offline_by_the_environment(
    hub: Hub, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        store.ensure(resolve(REPOSITORY), Precision.INT8)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # as it was when the app started
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        store.ensure(resolve(REPOSITORY), Precision.INT8)
    assert not hub.asked


# The disk


def test_download_that_does_not_fit_is_not_started(
    hub: Hub, access: HubAccess, there: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(hub_module, "free_bytes", lambda _path: 1000)
        fails(there, access, DiskFullError, "Free disk space")
    assert not hub.fetched(WEIGHTS)
    works(there, access, repository)


def test_downloaded_files_need_no_free_space(
    hub: Hub, access: HubAccess, there: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks_off(hub, there, access)
    rest = (repository / WEIGHTS).stat().st_size - 20_000
    monkeypatch.setattr(hub_module, "free_bytes", lambda _path: rest)
    works(there, access, repository)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, DiskFullError, "Free disk space"),
        (errno.EROFS, HubError, "Check the permissions"),
    ],
)
def test_disk_error_during_the_download(
    hub: Hub,
    access: HubAccess,
    there: Path,
    repository: Path,
    number: int,
    kind: type[Exception],
    words: str,
) -> None:
    set_size = download_module.Meter.set_size

    def fail(meter: download_module.Meter, name: str, size: int, received: int = 0) -> None:
        if name == WEIGHTS and size > 10_000:
            raise OSError(number, "the disk says no")
        set_size(meter, name, size, received)

    with pytest.MonkeyPatch.context() as patch:
        hub.cut_after(10**9, times=99)  # small chunks
        patch.setattr(download_module.Meter, "set_size", fail)
        fails(there, access, kind, words)
    hub.heal()
    works(there, access, repository)


def test_folder_that_cannot_be_written(
    hub: Hub, access: HubAccess, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HubError, match="PADDOCK_HOME"):
        fetch(REPOSITORY, tmp_path / "file" / "there", ignore_progress, access=access)
    works(tmp_path / "there", access, repository)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / WEIGHTS).unlink(),
        lambda folder: (folder / WEIGHTS).write_bytes(b"short"),
        lambda folder: (folder / hub_module.COMPLETE_MARK).write_text("{"),
        lambda folder: (folder / hub_module.COMPLETE_MARK).unlink(),
    ],
    ids=["gone", "short", "broken mark", "no mark"],
)
def test_damaged_download_is_not_complete_and_is_repaired(
    hub: Hub, access: HubAccess, there: Path, repository: Path, spoil: Callable[[Path], None]
) -> None:
    works(there, access, repository)
    spoil(there)
    assert completed(there) is None
    before = len(hub.fetched("tokenizer.json"))
    works(there, access, repository)
    assert len(hub.fetched("tokenizer.json")) == before


def test_download_of_a_version_that_noted_no_sizes_is_complete(
    access: HubAccess, there: Path, repository: Path
) -> None:
    works(there, access, repository)
    mark = there / hub_module.COMPLETE_MARK
    noted = json.loads(mark.read_text(encoding="utf-8"))
    mark.write_text(json.dumps(noted | {"files": list(noted["files"])}), encoding="utf-8")
    assert completed(there) == noted["revision"]


# Which files are downloaded


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4])
def test_repository_with_pytorch_bin_alone(
    hub: Hub, repository: Path, store: ModelStore, access: HubAccess, precision: Precision
) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(repository / WEIGHTS), repository / "pytorch_model.bin")
    (repository / WEIGHTS).unlink()
    made = store.ensure(resolve(REPOSITORY), precision, access=access)
    assert made.manifest.weight_bytes > 0
    assert not hub.fetched(".py")


def test_repository_of_an_openvino_model(
    hub: Hub, store: ModelStore, settings: Settings, access: HubAccess, converted
) -> None:
    hub.add(REPOSITORY, converted("gpt_neox", Precision.FP16).folder)
    made = store.ensure(resolve(REPOSITORY), Precision.INT8, access=access)
    assert made.manifest.source.revision == REVISION
    assert made.manifest.source_of_weights == "ir"
    fetched = settings.downloads_dir / made.key
    assert (fetched / "openvino_tokenizer.xml").is_file()
    assert not (fetched / "paddock.json").exists()


@pytest.mark.parametrize("asked_for_by", ["the model", "the tokenizer"])
def test_repository_that_requires_custom_code_is_refused_before_its_weights_are_downloaded(
    hub: Hub, access: HubAccess, there: Path, repository: Path, asked_for_by: str
) -> None:
    if asked_for_by == "the model":
        path, code = repository / "config.json", {"AutoConfig": "configuration_evil.Evil"}
        changes = {"model_type": "evil", "auto_map": code}
    else:
        path, code = repository / "tokenizer_config.json", {"AutoTokenizer": ["evil.Evil", None]}
        changes = {"tokenizer_class": "EvilTokenizer", "auto_map": code}
        config = json.loads((repository / "config.json").read_text())
        # Known, but without a tokenizer of its own.
        config |= {"model_type": "bloom", "architectures": ["BloomForCausalLM"]}
        (repository / "config.json").write_text(json.dumps(config))
    original = path.read_text()
    path.write_text(json.dumps(json.loads(original) | changes))
    fails(there, access, NotAModelError, "trust_remote_code")
    assert not hub.fetched(WEIGHTS)
    assert not hub.fetched(".py")
    path.write_text(original)
    hub.add(REPOSITORY, repository, revision=MOVED)
    works(there, access, repository)


# The token


def test_token_goes_to_the_hub_and_nowhere_else(
    hub: Hub,
    there: Path,
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    library = tmp_path / "library"
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(library / "token"))
    monkeypatch.setattr(constants, "HF_DEBUG", True)
    caplog.set_level(logging.DEBUG)
    hub.add(REPOSITORY, repository, gated=True, token=TOKEN)
    access = HubAccess(token=TOKEN, endpoint=hub.url)
    steps: list[Progress] = []
    hub.cut_after(20_000)
    fetch(REPOSITORY, there, steps.append, access=access)
    assert all(asked.token == TOKEN for asked in hub.asked if not asked.storage)
    assert hub.fetched(WEIGHTS)
    assert {asked.token for asked in hub.asked if asked.storage} == {None}
    assert "127.0.0.1" in caplog.text
    told = [caplog.text, *capfd.readouterr(), repr(access), repr(steps)]
    assert not any(TOKEN in text for text in told)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)
    assert not library.exists()


def test_stored_token_of_the_library_is_not_used(
    hub: Hub, there: Path, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("hf_storedByTheLibrary")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "hf_ofTheEnvironment")
    works(there, HubAccess(endpoint=hub.url), repository)
    assert {asked.token for asked in hub.asked} == {None}


def test_no_telemetry_is_sent(hub: Hub, there: Path, access, repository) -> None:
    works(there, access, repository)
    for asked in hub.asked:
        assert REPOSITORY in asked.path
        assert "torch/" not in asked.agent and "agent/" not in asked.agent
