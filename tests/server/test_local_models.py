"""The models of this machine for the API: their names, and the owners of the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import core.inference.engine
from core.catalogue import DEFAULT_PRECISION, Precision
from core.db import AccountStore, Origin
from core.errors import (
    AccessDeniedError,
    CorruptModelError,
    TooManyAnswersError,
    UnknownModelError,
)
from core.inference.engine import Engine
from core.inference.job import Job
from core.inference.request import GenerationRequest, User
from core.runtimes.spec import ModelSpec, RuntimeName, SamplingSettings, TokenRequest
from core.server.local_models import EngineModels
from core.settings import Settings
from core.store import Source, SourceKind, StoredModel
from core.store.manifest import Int4Record, SourceRecord, write_manifest
from tests.builders import CHAT_TEMPLATE, tiny_tokenizer
from tests.db.account_samples import add_account
from tests.fakes import FakeModel, FakeRuntime, stored_model
from tests.waiting import PATIENCE_S

EMBEDDED = ["paddock-neox", "paddock-llama"]
ADA, BOB = User("ada", "lane of ada"), User("bob", "lane of bob")
REQUEST = GenerationRequest("Why?", sampling=SamplingSettings(greedy=True, max_new_tokens=9))
SAID = "Because."


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> AutoTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder, chat_template=CHAT_TEMPLATE)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def go_on() -> threading.Event:
    """While it is cleared, generation blocks."""
    made = threading.Event()
    made.set()
    return made


@pytest.fixture
def runtime(tokenizer: AutoTokenizer, go_on: threading.Event) -> FakeRuntime:
    ids = tokenizer(SAID, add_special_tokens=False)["input_ids"]

    def script(request: TokenRequest) -> list[int]:
        assert go_on.wait(PATIENCE_S)
        return [*ids, 0]

    return FakeRuntime(lambda spec: FakeModel(tokenizer, script))


@pytest.fixture
def engine(tmp_path: Path, runtime: FakeRuntime) -> Iterator[Engine]:
    """An engine with an empty store and low limits."""
    settings = Settings(
        home=tmp_path / "home",
        memory_reserve_mib=0,
        max_new_tokens=9,
        max_characters=400,
        answers_at_once=1,
        answers_waiting=0,
    )
    made = Engine(settings, runtimes=dict.fromkeys(RuntimeName, runtime))
    add_account(made.runs.database, "ada", "bob")
    yield made
    made.close()


@pytest.fixture
def models(engine: Engine) -> EngineModels:
    return EngineModels(engine)


@pytest.fixture
def store(engine: Engine) -> Callable[..., StoredModel]:
    """Adds a model to the store that consists only of its manifest."""

    def put(
        key: str,
        kind: SourceKind,
        location: str,
        precision: Precision = DEFAULT_PRECISION,
    ) -> StoredModel:
        record = SourceRecord(kind=kind, location=location, revision=None, fingerprint=None)
        folder = engine.settings.models_dir / key / precision.value
        folder.mkdir(parents=True)
        manifest = stored_model(ModelSpec(key, precision)).manifest
        int4 = Int4Record(
            symmetric=True, group_size=-1, ratio=1.0, group_sizes={-1: 9}, four_bit_share=1.0
        )
        update = {"source": record, "int4": int4 if precision is Precision.INT4_NPU else None}
        manifest = manifest.model_copy(update=update)
        write_manifest(folder, manifest)
        return StoredModel(key, precision, folder, manifest)

    return put


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models converted for requests; conversion takes no time."""
    keys: list[str] = []

    def convert(source: object, precision: Precision, **options: object) -> StoredModel:
        keys.append(source.key)
        return stored_model(ModelSpec(source.key, precision))

    monkeypatch.setattr(core.inference.engine, "convert_in_process", convert)
    return keys


def ask(models: EngineModels, name: str, user: User = ADA) -> Job:
    job = models.start(name, REQUEST, user)
    assert job.wait(PATIENCE_S)
    assert job.answer.error is None and job.answer.text == SAID
    return job


def names(models: EngineModels) -> list[str]:
    return [card.id for card in models.models()]


# Which there are


def test_gguf_model_is_found_by_its_name_alone(
    models: EngineModels, store: Callable[..., StoredModel]
):
    store("mine-00c0ffee", SourceKind.GGUF, "/models/mine.gguf", Precision.STORED)
    assert names(models)[-1] == "mine-00c0ffee:STORED"
    for name in ("mine-00c0ffee", "mine-00c0ffee:stored"):
        assert models.find(name).id == "mine-00c0ffee:STORED"
        assert ask(models, name).spec.precision is Precision.STORED
    store("mine-00c0ffee", SourceKind.GGUF, "/models/mine.gguf", Precision.INT8)
    assert ask(models, "mine-00c0ffee").spec.precision is Precision.INT8


def test_embedded_models_are_first_and_answer_before_conversion(
    models: EngineModels, store: Callable[..., StoredModel], conversions: list[str]
):
    store("a-model-00c0ffee", SourceKind.CHECKPOINT, "/models/a-model")
    assert sorted(names(models)[:2]) == sorted(EMBEDDED)
    assert names(models)[2:] == ["a-model-00c0ffee"]
    card = models.models()[0]
    assert card == models.find(card.id)
    assert card.owned_by == "paddock" and card.positions > 0 and card.created > 1_600_000_000
    assert conversions == []
    ask(models, EMBEDDED[0])
    assert conversions == EMBEDDED[:1]


def test_an_embedded_model_is_listed_once_in_each_precision(
    models: EngineModels, store: Callable[..., StoredModel]
):
    store("a-model-00c0ffee", SourceKind.CHECKPOINT, "/models/a-model")
    store(EMBEDDED[0], SourceKind.EMBEDDED, "anywhere")
    store(EMBEDDED[0], SourceKind.EMBEDDED, "anywhere", Precision.INT4)
    assert sorted(names(models)[:3]) == sorted([*EMBEDDED, f"{EMBEDDED[0]}:INT4"])
    assert names(models)[3:] == ["a-model-00c0ffee"]
    assert [card.owned_by for card in models.models()] == 3 * ["paddock"] + ["local"]


def test_catalogue_model_has_its_key_as_name_and_is_found_by_its_hub_id(
    models: EngineModels, store: Callable[..., StoredModel], runtime: FakeRuntime
):
    store("dolly-v2-3b", SourceKind.HUB, "databricks/dolly-v2-3b")
    assert names(models)[-1] == "dolly-v2-3b"
    assert models.find("databricks/dolly-v2-3b").owned_by == "databricks"
    for name in ("databricks/dolly-v2-3b", "dolly-v2-3b"):
        assert ask(models, name).spec.model == "dolly-v2-3b"
    assert len(runtime.loads) == 1, "it is in memory once, however it is called"


def test_hub_model_has_its_hub_id_as_name(
    models: EngineModels, store: Callable[..., StoredModel], runtime: FakeRuntime
):
    store("org--name", SourceKind.HUB, "org/name")
    card = models.find("org/name")
    assert names(models)[-1] == card.id == "org/name" and card.owned_by == "org"
    ask(models, "org/name")
    assert [spec.model for spec in runtime.loads] == ["org/name"]  # as the pages name it
    ask(models, "org--name")
    assert len(runtime.loads) == 1, "it is the same model"


def test_local_model_has_its_key_as_name_and_never_a_path(
    models: EngineModels, store: Callable[..., StoredModel], runtime: FakeRuntime
):
    path = "/home/ada/secret/mine"
    store("mine-00c0ffee", SourceKind.CHECKPOINT, path)
    card = models.find("mine-00c0ffee")
    assert names(models)[-1] == card.id == "mine-00c0ffee" and card.owned_by == "local"
    assert all("/" not in f"{card}" for card in models.models())
    ask(models, "mine-00c0ffee")
    assert [spec.model for spec in runtime.loads] == ["mine-00c0ffee"]  # as the pages name it
    for name in (path, "mine", f"{path}:INT8", "../mine-00c0ffee"):
        with pytest.raises(UnknownModelError):
            models.find(name)


# How they are to run


def test_precision_device_and_runtime_are_suffixes_of_the_name(
    models: EngineModels, store: Callable[..., StoredModel]
):
    store("org--name", SourceKind.HUB, "org/name", Precision.INT4)
    assert names(models)[-1] == "org/name:INT4"
    assert models.find("org/name:int4@cpu+optimum").id == "org/name:INT4@CPU+optimum"
    spec = ask(models, "org/name:int4@cpu+optimum").spec
    wanted = ModelSpec("org/name", Precision.INT4, "CPU", RuntimeName.OPTIMUM, prefix_cache=True)
    assert spec == wanted
    with pytest.raises(UnknownModelError):
        models.find("org/name")  # which is INT8, and that is not here


def test_name_that_ends_like_a_suffix_is_found(
    models: EngineModels, store: Callable[..., StoredModel]
):
    store("a+optimum", SourceKind.CHECKPOINT, "/models/a")
    assert ask(models, "a+optimum").spec.runtime is RuntimeName.GENAI
    assert ask(models, "a+optimum+optimum").spec.runtime is RuntimeName.OPTIMUM


# Which there are not


@pytest.mark.parametrize("name", ["dolly-v2-3b", "org/name", "paddock-neox:INT9", "", "remote:a/b"])
def test_models_not_on_this_machine_are_unknown_and_not_downloaded(
    name: str, models: EngineModels, engine: Engine, conversions: list[str]
):
    with pytest.raises(UnknownModelError):
        models.find(name)
    with pytest.raises(UnknownModelError):
        models.start(name, REQUEST, ADA)
    assert conversions == [] and engine.state().waiting == 0


def test_long_unknown_name_is_shortened_in_the_error(models: EngineModels):
    with pytest.raises(UnknownModelError) as caught:
        models.find("x" * 100 + "y" * 100_000)
    assert "'" + "x" * 100 + "'" in str(caught.value) and "y" * 9 not in str(caught.value)


def test_model_whose_source_changed_is_not_converted_again_for_a_request(
    models: EngineModels,
    store: Callable[..., StoredModel],
    tmp_path: Path,
    conversions: list[str],
):
    folder = tmp_path / "checkpoint"
    store("mine-00c0ffee", SourceKind.CHECKPOINT, str(folder))
    assert names(models)[-1] == "mine-00c0ffee", "what was made of a folder that is gone stays good"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert sorted(names(models)) == sorted(EMBEDDED)
    with pytest.raises(UnknownModelError):
        models.start("mine-00c0ffee", REQUEST, ADA)
    assert conversions == []


def test_converted_model_is_usable_if_its_source_cannot_be_read(
    models: EngineModels, store: Callable[..., StoredModel], tmp_path: Path
):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(tmp_path / "gone")
    store("mine-00c0ffee", SourceKind.CHECKPOINT, str(folder))
    assert names(models)[-1] == "mine-00c0ffee"
    assert models.find("mine-00c0ffee").id == "mine-00c0ffee"


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), CorruptModelError("Broken.")])
def test_stored_model_that_cannot_be_read_does_not_hide_others(
    models: EngineModels,
    store: Callable[..., StoredModel],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
):
    for key in ("broken-00c0ffee", "good-00c0ffee"):
        store(key, SourceKind.CHECKPOINT, f"/models/{key}")
    get = engine.store.get

    def failing(source: Source, precision: Precision) -> StoredModel | None:
        if source.key.startswith("broken"):
            raise error
        return get(source, precision)

    monkeypatch.setattr(engine.store, "get", failing)
    assert sorted(names(models)) == sorted([*EMBEDDED, "good-00c0ffee"])
    assert models.find("good-00c0ffee").id == "good-00c0ffee"
    with pytest.raises(UnknownModelError):
        models.find("broken-00c0ffee")


def test_model_compressed_for_another_device_is_not_compressed_again_for_a_request(
    models: EngineModels, store: Callable[..., StoredModel]
):
    store("org--name", SourceKind.HUB, "org/name", Precision.INT4)
    assert models.find("org/name:INT4@CPU").id == "org/name:INT4@CPU"
    with pytest.raises(UnknownModelError):
        models.find("org/name:INT4@NPU")


@pytest.mark.usefixtures("an_npu")
def test_model_compressed_for_an_npu_is_used_there_only(
    engine: Engine,
    models: EngineModels,
    store: Callable[..., StoredModel],
    conversions: list[str],
):
    stored = store("org--name", SourceKind.HUB, "org/name", Precision.INT4_NPU)
    assert names(models)[-1] == "org/name:INT4@NPU"
    card = models.find("org/name:INT4@npu")
    assert card == models.models()[-1] and card.owned_by == "org"
    ask(models, card.id)
    (loaded,) = engine.pool.loaded()
    assert loaded.stored.folder == stored.folder and conversions == []
    for name in ("org/name:INT4", "org/name:INT4@CPU", "org/name:INT8@NPU"):
        with pytest.raises(UnknownModelError):
            models.start(name, REQUEST, ADA)
    store("org--name", SourceKind.HUB, "org/name", Precision.INT4)
    assert names(models)[-2:] == ["org/name:INT4", "org/name:INT4@NPU"]
    assert models.find("org/name:INT4").id == "org/name:INT4"


# Who asks, and how much


def test_answer_is_recorded_with_origin_api_and_its_owner(
    models: EngineModels, engine: Engine, conversions: list[str]
):
    ask(models, EMBEDDED[0])
    (run,) = engine.runs.recent()
    assert (run.start.origin, run.start.owner, run.start.session) == (Origin.API, "ada", None)
    assert (run.start.model, run.result.text) == (EMBEDDED[0], SAID)


def test_answers_are_limited_per_user(
    models: EngineModels, conversions: list[str], go_on: threading.Event
):
    def start(user: User) -> Job:
        return models.start(EMBEDDED[0], REQUEST, user)

    go_on.clear()
    jobs = [start(ADA), start(BOB)]
    with pytest.raises(TooManyAnswersError):
        start(ADA)
    go_on.set()
    assert all(job.wait(PATIENCE_S) and job.answer.error is None for job in jobs)


def test_disabled_or_deleted_user_gets_no_answers(
    models: EngineModels, engine: Engine, conversions: list[str]
):
    ask(models, EMBEDDED[0])
    accounts = AccountStore(engine.runs.database)
    accounts.change("ada", disabled=True)
    with pytest.raises(AccessDeniedError, match="cannot request answers"):
        models.start(EMBEDDED[0], REQUEST, ADA)
    accounts.change("ada", disabled=False)
    ask(models, EMBEDDED[0])
    accounts.delete("ada")
    with pytest.raises(AccessDeniedError):
        models.start(EMBEDDED[0], REQUEST, ADA)
    assert models.start(EMBEDDED[0], REQUEST, BOB).wait(PATIENCE_S), "others go on"


# A kiosk, and settings left out


def test_kiosk_mode_converts_nothing_for_a_request(engine: Engine, runtime: FakeRuntime) -> None:
    engine.settings = engine.settings.model_copy(update={"kiosk": True})
    models = EngineModels(engine)
    assert models.models() == []
    for attempt in (lambda: models.find("paddock-neox"), lambda: ask(models, "paddock-neox")):
        with pytest.raises(AccessDeniedError, match="in kiosk mode"):
            attempt()
    assert not runtime.loads


def test_default_sampling_settings_are_the_models(models: EngineModels) -> None:
    assert models.sampling("paddock-neox") == SamplingSettings()
    assert models.sampling("no such model") == SamplingSettings()
