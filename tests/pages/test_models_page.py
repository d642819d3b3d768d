"""The Models page in AppTest: its list, texts, actions and errors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from filelock import FileLock

from core.benchmark.random_models import random_settings
from core.catalogue import Int4Settings, Int8Settings, Precision, catalogue, published_scores
from core.inference.engine import Engine
from core.settings import load_settings
from core.store import Progress, Stage, StoredModel, resolve
from core.store.progress import Transfer
from core.store.tasks import TaskKind, TaskQueue, TaskRequest, TaskState, TaskView
from core.ui.models.filter import SizeClass
from core.ui.widgets.resources import shared_engine
from tests.builders import tiny_checkpoint
from tests.gguf_files import tiny_gguf
from tests.pages.app import button, open_page, texts
from tests.store.hub_server import Hub

TOKEN = "hf_aTokenThatNobodyMaySee"
SMOLLM2 = "smollm2-135m-instruct"


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[TaskRequest]:
    """Task requests of the page."""
    requests: list[TaskRequest] = []

    def submit(queue: TaskQueue, request: TaskRequest) -> int:
        requests.append(request)
        return len(requests)

    monkeypatch.setattr(TaskQueue, "submit", submit)
    return requests


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    """A model that is not in the catalogue, in INT8 in the home folder."""
    engine = Engine(load_settings())
    folder = tiny_checkpoint("gpt_neox", tmp_path / "mine")
    return engine.store.ensure(engine.store.resolve(str(folder)), Precision.INT8)


def free_memory(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr("core.store.estimate.available_memory_bytes", lambda: int(size))


# The catalogue


def test_every_model_of_the_catalogue_is_listed() -> None:
    shown = texts(open_page("models"))
    for row in catalogue().values():
        assert f"**{row.title}**" in shown
        assert row.summary in shown
        assert row.licence in shown
    assert shown.count("gated]") == sum(row.gated for row in catalogue().values())


def test_an_open_card_shows_facts_limits_and_scores() -> None:
    row = catalogue()["dolly-v2-3b"]
    app = open_page("models", open=row.key)
    shown = texts(app)
    assert row.licence_note in shown and "32 layers of width 2560" in shown
    for limit in row.known_limits:
        assert limit in shown
    traces = json.loads(app.get("plotly_chart")[0].proto.spec)["data"]
    others, this = traces
    assert this["name"] == row.title
    assert this["x"] == list(dict(row.scores).values())
    assert set(others["customdata"]) == set(published_scores()) - {row.key}
    assert len(others["x"]) == 8 * len(row.scores)


def test_a_card_without_scores_says_so() -> None:
    app = open_page("models", open="phi-2")
    assert "No published score is recorded." in texts(app)
    assert "None is recorded." in texts(app)
    assert not app.get("plotly_chart")


def test_cards_are_closed_by_default_and_open_ones_are_in_the_url() -> None:
    app = open_page("models")
    assert not app.table
    app.session_state["card_phi-2"] = True
    app.run()
    assert len(app.table) == 1
    assert app.query_params["open"] == "phi-2"


# Filter and search


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ({"search": "mistral"}, {"mistral-7b"}),
        ({"search": "2.0 dolly 12"}, {"dolly-v2-12b"}),
        (
            {"family": "Llama"},
            {"paddock-llama", SMOLLM2, "tiny-llama-1b-chat", "llama-3-8b-instruct"},
        ),
        ({"size": "large"}, {"dolly-v2-12b"}),
        ({"size": "tiny,large"}, {"paddock-neox", "paddock-llama", SMOLLM2, "dolly-v2-12b"}),
        ({"licence": "MIT"}, {"phi-2"}),
        ({"access": "gated"}, {"llama-3-8b-instruct"}),
        ({"family": "GPT-NeoX", "licence": "Apache-2.0"}, {"red-pajama-3b-instruct"}),
        ({"state": "on-disk"}, set()),
    ],
)
def test_a_link_filters(link: dict[str, str], expected: set[str]) -> None:
    app = open_page("models", **link)
    shown = texts(app)
    assert {key for key, row in catalogue().items() if row.summary in shown} == expected
    assert ("No model matches the search and filters." in shown) == (not expected)


def test_a_filter_is_written_to_the_url() -> None:
    app = open_page("models")
    app.text_input(key="search").set_value("dolly")
    next(each for each in app.get("button_group") if each.key == "size").set_value(
        [SizeClass.LARGE]
    )
    app.run()
    assert app.query_params["search"] == "dolly"
    assert app.query_params["size"] == "large"
    button(app, "Show all").click().run()
    assert not {"search", "size"} & set(app.query_params)
    assert catalogue()["phi-2"].summary in texts(app)


def test_models_that_do_not_fit_can_be_filtered_out(monkeypatch: pytest.MonkeyPatch) -> None:
    free_memory(monkeypatch, 8e9)
    shown = texts(open_page("models", state="fits"))
    assert catalogue()["dolly-v2-3b"].summary in shown
    assert catalogue()["dolly-v2-12b"].summary not in shown


# Requirements


def test_the_table_shows_requirements_by_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free_memory(monkeypatch, 9e9)
    app = open_page("models", open="dolly-v2-3b")
    table = app.table[0].value.set_index("Precision")
    assert list(table.index) == ["**FP32**", "**FP16**", "**INT8**", "**INT4**"]
    int4 = table.loc["**INT4**"]
    assert int4["Download"] == "5.6 GB"
    assert float(int4["On disk"].split()[0]) < 2.8 < float(table.loc["**FP16**"]["On disk"][:3])
    assert "fits" in int4["Status"] and "about" in int4["Time"]
    assert "not enough memory" in table.loc["**FP32**"]["Status"].replace("\u00a0", " ")
    assert "**9.0 GB** of memory" in texts(app)


def test_a_conversion_that_does_not_fit_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, queued: list[TaskRequest]
) -> None:
    free_memory(monkeypatch, 1e9)
    app = open_page("models", open="dolly-v2-3b")
    assert button(app, "Download and convert to INT8").disabled
    assert "needs" in app.warning[0].value and "1.0 GB are free" in app.warning[0].value


def test_a_precision_on_disk_is_not_converted_again(stored: StoredModel) -> None:
    app = open_page("models", open=stored.key)
    table = app.table[0].value.set_index("Precision")
    assert "on disk" in table.loc["**INT8**"]["Status"].replace("\u00a0", " ")
    pick(app, stored.key, Precision.INT8)
    assert button(app, "Convert to INT8").disabled
    pick(app, stored.key, Precision.INT4)
    assert not button(app, "Convert to INT4").disabled


def pick(app: Any, key: str, precision: Precision) -> None:
    next(each for each in app.get("button_group") if each.key == f"precision_{key}").set_value(
        precision
    ).run()


# Download and convert


def test_convert_uses_the_settings(queued: list[TaskRequest]) -> None:
    app = open_page("models", open="paddock-neox")
    pick(app, "paddock-neox", Precision.INT4)
    app.selectbox(key="int4_group_paddock-neox").set_value(64)
    app.slider(key="int4_ratio_paddock-neox").set_value(0.5)
    app.toggle(key="int4_symmetric_paddock-neox").set_value(True)
    app.toggle(key="int4_scale_paddock-neox").set_value(True).run()
    button(app, "Convert to INT4").click().run()
    assert not app.exception
    request = queued[0]
    assert (request.model, request.kind) == ("paddock-neox", TaskKind.CONVERT)
    assert request.precision is Precision.INT4
    assert request.int4 == Int4Settings(True, 64, 0.5, True)
    button(app, "Default settings").click().run()
    button(app, "Convert to INT4").click().run()
    assert queued[1].int4 == catalogue()["paddock-neox"].int4


def test_int8_and_fp16_have_their_own_settings(queued: list[TaskRequest]) -> None:
    app = open_page("models", open="paddock-neox")
    app.toggle(key="int8_symmetric_paddock-neox").set_value(True).run()
    button(app, "Convert to INT8").click().run()
    assert queued[0].int8 == Int8Settings(symmetric=True)
    pick(app, "paddock-neox", Precision.FP16)
    assert "FP16 has no settings" in texts(app)
    button(app, "Convert to FP16").click().run()
    assert (queued[1].precision, queued[1].int4, queued[1].int8) == (
        Precision.FP16,
        None,
        None,
    )


def test_download_only_does_not_convert(queued: list[TaskRequest]) -> None:
    app = open_page("models", open="tiny-llama-1b-chat")
    button(app, "Download only").click().run()
    assert (queued[0].kind, queued[0].precision) == (TaskKind.GET, None)


def test_offline_downloads_nothing(queued: list[TaskRequest]) -> None:
    app = open_page("models", open="tiny-llama-1b-chat")
    app.toggle(key="hub_offline").set_value(True).run()
    assert (
        button(app, "Download and convert to INT8").disabled
        and button(app, "Download only").disabled
    )
    assert "Offline is on" in app.warning[0].value
    # Models that need no network can still be converted.
    app = open_page("models", open="paddock-neox")
    app.toggle(key="hub_offline").set_value(True).run()
    button(app, "Convert to INT8").click().run()
    assert queued[0].access is not None and queued[0].access.offline


# The token


def everything_sent(app: Any) -> str:
    return repr(app.main) + repr(app.sidebar) + texts(app) + str(dict(app.query_params))


def test_an_entered_token_is_used_and_never_shown(queued: list[TaskRequest]) -> None:
    app = open_page("models", open="llama-3-8b-instruct")
    assert "accept the licence" in texts(app) and "No token is set yet." in texts(app)
    app.text_input(key="hub_token").set_value(TOKEN).run()
    assert "A token is set." in texts(app)
    button(app, "Download only").click().run()
    assert queued[0].access is not None and queued[0].access.token == TOKEN
    app.text_input(key="hub_token").set_value("").run()
    assert TOKEN not in everything_sent(app)
    assert TOKEN not in repr(queued[0])


def test_tokens_from_the_environment_and_the_secrets_are_used(
    queued: list[TaskRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page("models", open="tiny-llama-1b-chat")
    app.secrets["HF_TOKEN"] = "hf_ofTheSecrets"
    app.run()
    assert "Streamlit's secrets" in texts(app)
    button(app, "Download only").click().run()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    app.run()
    assert "The token from `HF_TOKEN` is used." in texts(app)
    button(app, "Download only").click().run()
    assert [request.access.token for request in queued if request.access] == [
        "hf_ofTheSecrets",
        TOKEN,
    ]
    assert TOKEN not in everything_sent(app) and "hf_ofTheSecrets" not in everything_sent(app)


def test_the_hub_url_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://somebody:secret@127.0.0.1:9")
    shown = texts(open_page("models", open="llama-3-8b-instruct")).replace("\u2060", "")
    assert "http://127.0.0.1:9" in shown
    assert "secret@" not in shown


# Add a model


def add(app: Any, name: str) -> None:
    app.text_input(key="add").set_value(name)
    button(app, "Look up").click().run()
    assert not app.exception


def test_an_unknown_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("no such model", str(tmp_path / "empty"), "acme/unreachable"):
        app = open_page("models")
        add(app, name)
        assert len(app.error) == 1, name
        assert not app.table


def test_a_folder_is_added(tmp_path: Path, queued: list[TaskRequest]) -> None:
    folder = tiny_checkpoint("llama", tmp_path / "my [model](x)")
    app = open_page("models")
    add(app, str(folder))
    assert "model](" in texts(app) and "[model](" not in texts(app), "no link"
    assert len(app.table) == 1, "its card is open"
    button(app, "Convert to INT8").click().run()
    assert queued[0].model == resolve(str(folder)).name


def test_a_gguf_file_is_kept_as_stored(tmp_path: Path, queued: list[TaskRequest]) -> None:
    file = tiny_gguf(tmp_path / "mine.gguf").path
    app = open_page("models")
    add(app, str(tmp_path))
    assert list(app.table[0].value["Precision"]) == [
        "**FP32 from Q4_1**",
        "**FP16 from Q4_1**",
        "**INT8 from Q4_1**",
        "**INT4 from Q4_1**",
        "**INT4 · GGUF Q4_1**",
    ]
    assert "Quantising twice costs accuracy" in texts(app)
    button(app, "Convert as stored").click().run()
    assert (queued[0].model, queued[0].precision) == (
        resolve(str(file)).name,
        Precision.STORED,
    )


def test_a_folder_with_several_gguf_files_offers_a_selection(tmp_path: Path) -> None:
    for name, kind in (("a", "Q4_0"), ("b", "Q8_0")):
        tiny_gguf(tmp_path / f"{name}.gguf", tensor_type=kind)
    app = open_page("models")
    add(app, str(tmp_path))
    assert not app.error and not app.table
    choice = app.selectbox(key="add_gguf")
    assert [option.split(" ")[0] for option in choice.options] == ["a.gguf", "b.gguf"]
    choice.set_value(tmp_path / "b.gguf")
    button(app, "Use this file").click().run()
    assert not app.exception
    assert app.table[0].value["Precision"].iloc[-1].startswith("**INT8 · GGUF")


def test_an_ir_folder_offers_the_possible_precisions(stored: StoredModel) -> None:
    app = open_page("models")
    add(app, str(stored.folder))
    here = app.table[0].value.set_index("Precision")["Status"]
    assert "fits" in here["**INT8**"]
    assert "not available from these weights" in here["**FP16**"]


def test_a_hub_model_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queued: list[TaskRequest]
) -> None:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add("acme/tiny", tiny_checkpoint("llama", tmp_path / "tiny"))
        hub.add("acme/gated", tiny_checkpoint("phi", tmp_path / "gated"), gated=True, token=TOKEN)
        app = open_page("models")
        add(app, "acme/tiny")
        assert "From the Hugging Face Hub: llama, 5 files" in texts(app)
        assert not hub.fetched(".safetensors"), "weights are not downloaded for the lookup"
        table = app.table[0].value.set_index("Precision")
        assert table.loc["**INT4**"]["Download"].endswith("kB")
        add(app, "acme/gated")
        assert "gated]" in texts(app)
        button(app, "Download and convert to INT8").click().run()
    assert queued[0].model == "acme/gated"


# Models on disk


def test_the_result_of_a_conversion_is_shown(stored: StoredModel) -> None:
    manifest = stored.manifest
    app = open_page("models", open=stored.key)
    shown = texts(app)
    assert f"**{manifest.source_bytes / manifest.weight_bytes:.2f} ×**" in shown
    assert "**INT8** mine" in shown
    chart = json.loads(app.get("plotly_chart")[0].proto.spec)["data"]
    share = {each["name"].partition(" · ")[0]: each["x"][0] for each in chart}
    assert share["8 bits"] > 90 and sum(share.values()) == pytest.approx(100)
    links = {link.proto.label: link.proto for link in app.get("page_link")}
    assert set(links) == {"Try it", "Compare precisions"}
    assert links["Try it"].page == "instruct"
    query = links["Compare precisions"].query_string
    assert "left_precision=int4" in query and "right_precision=int8" in query
    assert f"left_model={stored.name}" in query


def test_without_the_original_the_stored_model_is_converted(tmp_path: Path) -> None:
    engine = Engine(load_settings())
    folder = tiny_checkpoint("gpt_neox", tmp_path / "mine")
    stored = engine.store.ensure(engine.store.resolve(str(folder)), Precision.FP16)
    shutil.rmtree(folder)
    here = open_page("models", open=stored.key).table[0].value.set_index("Precision")["Status"]
    assert "fits" in here["**INT4**"] and "fits" in here["**INT8**"]
    assert "not available from these weights" in here["**FP32**"]


def test_verify_reads_everything(stored: StoredModel) -> None:
    app = open_page("models", open=stored.key)
    button(app, "Verify").click().run()
    assert f"All {len(stored.manifest.files)} files match their checksums" in app.success[0].value
    weights = stored.folder / "openvino_model.bin"
    content = bytearray(weights.read_bytes())
    state = weights.stat()
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    button(app, "Verify").click().run()
    assert "openvino_model.bin has been altered" in app.error[0].value.replace("\u2060", "")


def test_delete_frees_the_disk(stored: StoredModel) -> None:
    app = open_page("models", open=stored.key)
    assert "This frees **" in texts(app)
    button(app, "Delete it").click().run()
    assert not stored.folder.exists()
    assert "mine" not in texts(app)
    assert " freed." in app.toast[0].value


def test_delete_fails_during_the_conversion(stored: StoredModel) -> None:
    app = open_page("models", open=stored.key)
    lock = stored.folder.parent.parent / ".work" / f"{stored.key}.int8.lock"
    with FileLock(lock):
        button(app, "Delete it").click().run()
        assert "is being converted" in app.error[0].value
    assert stored.folder.exists()


def test_random_weights_of_benchmarks_can_be_removed() -> None:
    made = random_settings(load_settings()).home / "checkpoints" / "dolly-v2-3b"
    app = open_page("models")
    assert "Random weights" not in texts(app)
    made.mkdir(parents=True)
    (made / "model.safetensors").write_bytes(bytes(3_000_000))
    app = open_page("models")
    assert "Random weights for benchmarks · 3.0 MB" in texts(app)
    button(app, "Remove").click().run()
    assert not made.exists() and "Random weights" not in texts(app)
    assert "3.0 MB freed" in app.toast[0].value


def test_int4_for_an_npu_can_be_removed() -> None:
    left = load_settings().npu_models_dir / "mine" / "int4"
    app = open_page("models")
    assert "INT4 for an NPU" not in texts(app)
    left.mkdir(parents=True)
    (left / "openvino_model.bin").write_bytes(bytes(3_000_000))
    app = open_page("models")
    assert "INT4 for an NPU, compressed on first use · 3.0 MB" in texts(app)
    button(app, "Remove").click().run()
    assert not left.exists() and "INT4 for an NPU" not in texts(app)
    assert "3.0 MB freed" in app.toast[0].value


def test_downloads_and_leftovers_can_be_removed() -> None:
    settings = load_settings()
    broken = settings.downloads_dir / "acme--broken"
    broken.mkdir(parents=True)
    (broken / "model.safetensors.part").write_bytes(bytes(3_000_000))
    left = settings.models_dir / ".work" / "phi-2.int4.12345678"
    left.mkdir(parents=True)
    (left / "openvino_model.bin").write_bytes(bytes(2_000_000))
    app = open_page("models")
    assert "acme/broken · 3.0 MB · :orange[incomplete" in texts(app)
    button(app, "Remove").click().run()
    assert not broken.exists()
    button(app, "Clean up").click().run()
    assert not left.exists()
    assert not [each for each in app.button if each.label in ("Remove", "Clean up")]


# Tasks


def a_task(number: int = 1, **changes: Any) -> TaskView:
    view = TaskView(
        id=number,
        request=TaskRequest("paddock-neox", TaskKind.CONVERT, Precision.INT4),
        key="paddock-neox",
        title="Convert Paddock NeoX to INT4",
        state=TaskState.RUNNING,
        place=None,
        progress=Progress(Stage.COMPRESSING, "Compressing the weights.", 0.6),
        created=datetime.now(UTC),
        elapsed_s=83.0,
        memory_bytes=int(3.2e9),
        peak_memory_bytes=int(4.1e9),
        log=("0:01 first", "0:02 last"),
        error=None,
        stored=None,
    )
    return replace(view, **changes)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> dict[int, TaskView]:
    """Tasks in the queue, by id."""
    by_id: dict[int, TaskView] = {}
    queue = TaskQueue
    monkeypatch.setattr(queue, "list", lambda self: list(reversed(by_id.values())))
    monkeypatch.setattr(queue, "get", lambda self, number: by_id.get(number))
    monkeypatch.setattr(
        queue, "active", lambda self: any(not view.state.final for view in by_id.values())
    )

    def stop(self: TaskQueue, number: int) -> None:
        by_id[number] = replace(by_id[number], state=TaskState.STOPPED)

    monkeypatch.setattr(queue, "stop", stop)
    monkeypatch.setattr(queue, "dismiss", lambda self, number: by_id.pop(number))
    return by_id


def test_a_running_conversion_shows_its_progress(tasks: dict[int, TaskView]) -> None:
    tasks[1] = a_task()
    app = open_page("models")
    shown = texts(app)
    for part in (
        "**Convert Paddock NeoX to INT4**",
        ":green[✓] Export → **Compress** → :gray[Check]",
        "1 min 23 s elapsed",
        "memory **3.2 GB**",
        "peak 4.1 GB",
    ):
        assert part in shown
    progress = app.get("progress")[0].proto
    assert (progress.value, progress.text) == (60, "Compressing the weights.")
    assert "0:01 first\n0:02 last" in [code.value for code in app.code]


def test_a_download_shows_bytes_rate_and_remaining_time(tasks: dict[int, TaskView]) -> None:
    transfer = Transfer(done=int(1.4e9), total=int(5.6e9), rate=42e6)
    tasks[1] = a_task(
        request=TaskRequest("dolly-v2-3b", TaskKind.GET),
        progress=Progress(Stage.FETCHING, "Fetching it.", None, transfer),
    )
    app = open_page("models")
    assert "**1.4 GB** of 5.6 GB · 42 MB/s · 1 min 40 s left" in texts(app)
    assert app.get("progress")[0].proto.value == 25


def test_a_waiting_task_shows_its_position(tasks: dict[int, TaskView]) -> None:
    tasks[1] = a_task()
    tasks[2] = a_task(2, state=TaskState.WAITING, place=1, progress=None, memory_bytes=None)
    tasks[3] = a_task(3, state=TaskState.WAITING, place=3, progress=None, memory_bytes=None)
    shown = texts(open_page("models"))
    assert "Next in the queue." in shown and "2 ahead of it in the queue." in shown


def test_stop_and_dismiss(tasks: dict[int, TaskView]) -> None:
    tasks[1] = a_task()
    app = open_page("models")
    button(app, "Stop").click().run()
    assert tasks[1].state is TaskState.STOPPED
    assert "the conversion was discarded" in texts(app)
    button(app, "Dismiss").click().run()
    assert not tasks


def test_a_failed_task_shows_its_error_and_can_be_repeated(
    tasks: dict[int, TaskView], queued: list[TaskRequest]
) -> None:
    sentence = "The Hugging Face Hub has no model ![x](http://evil/x.png). Check the spelling."
    tasks[1] = a_task(state=TaskState.FAILED, error=sentence, title="Download [a](http://b)")
    app = open_page("models")
    assert "The Hugging Face Hub has no model" in app.error[0].value
    assert "[a](" not in texts(app) and "![x]" not in app.error[0].value
    app.text_input(key="hub_token").set_value(TOKEN).run()
    button(app, "Try again").click().run()
    assert queued[0].precision is Precision.INT4
    assert queued[0].access is not None and queued[0].access.token == TOKEN
    assert not tasks


def test_a_running_conversion_is_not_started_twice(tasks: dict[int, TaskView]) -> None:
    tasks[1] = a_task()
    app = open_page("models", open="paddock-neox")
    pick(app, "paddock-neox", Precision.INT4)
    assert button(app, "Convert to INT4").disabled
    assert "INT4 is being converted." in texts(app)
    pick(app, "paddock-neox", Precision.INT8)
    assert not button(app, "Convert to INT8").disabled


def test_only_the_most_recent_finished_tasks_are_shown(tasks: dict[int, TaskView]) -> None:
    for number in range(1, 7):
        tasks[number] = a_task(number, state=TaskState.DONE, title=f"Task {number}")
    app = open_page("models")
    shown = texts(app)
    assert [f"Task {number}" in shown for number in range(1, 7)] == [False] * 3 + [True] * 3
    button(app, "Clear finished (6)").click().run()
    assert not tasks


def test_tasks_belong_to_the_engine_of_all_tabs() -> None:
    open_page("models")
    assert isinstance(shared_engine().tasks, TaskQueue)
