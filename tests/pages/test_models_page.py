"""The Models page in AppTest: its list, texts, actions and errors."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from filelock import FileLock

from core.benchmark.random_models import random_settings
from core.catalogue import (
    Int4Settings,
    Int8Settings,
    Precision,
    catalogue,
    int4_settings,
    published_scores,
)
from core.catalogue.recipes import TITLES
from core.inference.engine import Engine
from core.settings import Settings, load_settings
from core.store import ModelStore, Progress, Stage, StoredModel, resolve
from core.store.progress import Transfer
from core.store.tasks import TaskQueue, TaskRequest, TaskState, TaskView
from core.ui.widgets.resources import shared_engine
from core.ui.widgets.safe_text import safe_inline
from core.units import parameters_text
from tests.builders import tiny_checkpoint
from tests.gguf_files import tiny_gguf
from tests.pages.app import PATIENCE_S, button, charts, open_page, seen, texts
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


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    """A model that is not in the catalogue, in INT8 in another home folder."""
    store = ModelStore(Settings(home=tmp_path_factory.mktemp("converted"), memory_reserve_mib=0))
    folder = tiny_checkpoint("gpt_neox", tmp_path_factory.mktemp("original") / "mine")
    return store.ensure(store.resolve(str(folder)), Precision.INT8)


@pytest.fixture
def stored(converted: StoredModel) -> Iterator[StoredModel]:
    """That model, in the home folder."""
    home = load_settings().home
    shutil.copytree(converted.folder.parents[2], home, dirs_exist_ok=True)
    folder = home / converted.folder.relative_to(converted.folder.parents[2])
    yield replace(converted, folder=folder)
    (Path(converted.manifest.source.location) / "chat_template.jinja").unlink(missing_ok=True)


def free_memory(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    monkeypatch.setattr("core.store.estimate.available_memory_bytes", lambda: int(size))


def rows(app: Any) -> dict[str, list[str]]:
    """Return the columns of the listed models by key."""
    keys = [each.key.removeprefix("details_") for each in app.button if _is_row(each)]
    bodies = [each.proto.body for each in app.get("html")]
    facts = [body.split("<span title") for body in bodies if '<div class="facts">' in body]
    columns = [[re.sub("<.*?>|^.*?>", "", cell) for cell in cells[1:]] for cells in facts]
    return dict(zip(keys, columns, strict=True))


def _is_row(button: Any) -> bool:
    return str(button.key).startswith("details_")


# The list


def test_every_model_of_the_catalogue_has_one_row_with_one_button() -> None:
    app = open_page("models")
    listed = rows(app)
    assert set(listed) == set(catalogue())
    for key, row in catalogue().items():
        parameters, size, here, _, released = listed[key]
        assert parameters == parameters_text(row.parameters) and released == (row.released or "—")
        assert (size.endswith("INT8") and here.startswith("fits up to ")) or "does not fit" in here
    labels = [each.label for each in app.button]
    gated = [label for label in labels if ":material/lock:" in label]
    assert len(gated) == sum(row.gated for row in catalogue().values())
    assert "Get :gray[Dolly 2.0 3B]" in labels and len(set(labels)) == len(labels)


def test_a_row_tells_what_fits_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    free_memory(monkeypatch, 5e9)
    app = measured(open_page("models"))
    listed = rows(app)
    assert listed["dolly-v2-12b"][2:4] == ["does not fit", "—"]
    assert listed["smollm2-360m-instruct"][2] == "fits up to FP32"
    speeds = [float(listed[key][3].split()[1]) for key in ("qwen3-0.6b", "qwen3-1.7b")]
    assert speeds[0] > 1.5 * speeds[1]


def measured(app: Any) -> Any:
    """Run the page until the speeds are known."""
    deadline = time.monotonic() + PATIENCE_S
    while not any("tokens/s" in each.proto.body for each in app.get("html")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
        app.run()
    return app


def test_the_details_show_facts_limits_and_scores() -> None:
    row = catalogue()["dolly-v2-3b"]
    app = open_page("models", open=row.key)
    shown = texts(app)
    assert row.licence_note in shown and "32 layers of width 2560" in shown
    for limit in row.known_limits:
        assert limit in shown
    traces = charts(app)[0]["data"]
    others, this = traces
    assert this["name"] == row.title
    assert this["x"] == list(dict(row.scores).values())
    assert {name for (name,) in others["customdata"]} == set(published_scores()) - {row.key}
    assert len(others["x"]) == 8 * len(row.scores)


def test_details_without_scores_say_so() -> None:
    app = open_page("models", open="phi-2")
    assert "No published score is recorded." in texts(app)
    assert "None is recorded." in texts(app)
    assert not app.get("plotly_chart")


def test_details_open_at_a_click_or_by_the_url() -> None:
    app = open_page("models")
    assert not app.table
    button(app, "Phi-2").click().run()
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
            {key for key, row in catalogue().items() if row.architecture == "llama"},
        ),
        ({"size": "large"}, {"dolly-v2-12b", "gpt-oss-20b"}),
        (
            {"licence": "MIT"},
            {
                "phi-2",
                "phi-4-mini-instruct",
                "deepseek-r1-distill-qwen-1.5b",
                "deepseek-r1-distill-qwen-7b",
            },
        ),
        ({"access": "gated"}, {key for key, row in catalogue().items() if row.gated}),
        ({"family": "GPT-NeoX", "licence": "Apache-2.0"}, {"red-pajama-3b-instruct"}),
        ({"state": "on-disk"}, set()),
    ],
)
def test_a_link_filters(link: dict[str, str], expected: set[str]) -> None:
    app = open_page("models", **link)
    assert set(rows(app)) == expected
    assert ("No model matches the search and filters." in texts(app)) == (not expected)


def test_a_filter_is_written_to_the_url() -> None:
    app = open_page("models")
    app.text_input(key="search").set_value("dolly")
    next(each for each in app.get("button_group") if each.key == "size").set_value(["large"])
    app.run()
    assert app.query_params["search"] == "dolly"
    assert app.query_params["size"] == "large"
    button(app, "Show all").click().run()
    assert not {"search", "size"} & set(app.query_params)
    assert "phi-2" in rows(app)


def test_models_that_do_not_fit_can_be_filtered_out(monkeypatch: pytest.MonkeyPatch) -> None:
    free_memory(monkeypatch, 8e9)
    shown = rows(open_page("models", state="fits"))
    assert "dolly-v2-3b" in shown and "dolly-v2-12b" not in shown


# Requirements


def test_the_table_shows_requirements_by_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free_memory(monkeypatch, 9e9)
    app = measured(open_page("models", open="dolly-v2-3b"))
    table = app.table[0].value.set_index("Precision")
    assert list(table.index) == ["**FP32**", "**FP16**", "**INT8**", "**INT4**"]
    int4 = table.loc["**INT4**"]
    assert "The download is **5.6 GB**." in texts(app)
    assert float(int4["On disk"].split()[0]) < 2.8 < float(table.loc["**FP16**"]["On disk"][:3])
    assert "fits" in int4["Status"] and "about" in int4["Time"]
    assert "not enough memory" in table.loc["**FP32**"]["Status"].replace("\u00a0", " ")
    assert "**9.0 GB** of memory" in texts(app)
    rates = [float(text.replace("\u00a0", " ").split()[1]) for text in table["Speed"]]
    assert rates == sorted(rates) and 1.5 < rates[-1] / rates[0] < 8
    assert "Speeds are estimates" in texts(app)


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
    app.selectbox(key="int4_recipe_paddock-neox").set_value(Precision.INT4_CUSTOM).run()
    app.selectbox(key="int4_group_paddock-neox").set_value(64)
    app.slider(key="int4_ratio_paddock-neox").set_value(0.5)
    app.toggle(key="int4_symmetric_paddock-neox").set_value(True)
    app.toggle(key="int4_awq_paddock-neox").set_value(True)
    app.toggle(key="int4_scale_paddock-neox").set_value(True).run()
    button(app, "Convert to INT4 custom").click().run()
    assert not app.exception
    request = queued[0]
    assert request.model == "paddock-neox"
    assert request.precision is Precision.INT4_CUSTOM
    assert request.compression == Int4Settings(True, 64, 0.5, True, True)
    button(app, "Recommended settings").click().run()
    button(app, "Convert to INT4 custom").click().run()
    assert queued[1].compression == int4_settings(Precision.INT4, catalogue()["paddock-neox"])


def test_a_recipe_is_chosen_with_its_settings_told(queued: list[TaskRequest]) -> None:
    app = open_page("models", open="smollm2-360m-instruct")
    pick(app, "smollm2-360m-instruct", Precision.INT4)
    recipe = app.selectbox(key="int4_recipe_smollm2-360m-instruct")
    assert TITLES[Precision.INT4_SCALE] not in recipe.options, "the recommended one has it already"
    recipe.set_value(Precision.INT4_GROUP128).run()
    shown = texts(app)
    assert "asymmetric, group size 128, ratio 1" in shown
    assert "layers of width 960 get groups of 64" in shown
    button(app, "Download and convert to INT4 group 128").click().run()
    assert (queued[0].precision, queued[0].compression) == (Precision.INT4_GROUP128, None)


def test_int8_and_fp16_have_their_own_settings(queued: list[TaskRequest]) -> None:
    app = open_page("models", open="paddock-neox")
    app.toggle(key="int8_symmetric_paddock-neox").set_value(True).run()
    button(app, "Convert to INT8").click().run()
    assert queued[0].compression == Int8Settings(symmetric=True)
    pick(app, "paddock-neox", Precision.FP16)
    assert "FP16 has no settings" in texts(app)
    button(app, "Convert to FP16").click().run()
    assert (queued[1].precision, queued[1].compression) == (Precision.FP16, None)


def test_download_only_does_not_convert(queued: list[TaskRequest]) -> None:
    app = open_page("models", open="tiny-llama-1b-chat")
    button(app, "Download only").click().run()
    assert queued[0].precision is None


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
    shown = texts(open_page("models", open="llama-3-8b-instruct"))
    assert safe_inline("http://127.0.0.1:9") in shown
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
    assert safe_inline("[model](x)") in texts(app) and "[model](" not in texts(app), "no link"
    assert len(app.table) == 1, "its details are open"
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
    choice.set_value(str(tmp_path / "b.gguf"))
    button(app, "Use this file").click().run()
    assert not app.exception
    assert app.table[0].value["Precision"].iloc[-1].startswith("**INT8 · GGUF")


def test_a_gguf_repository_on_the_hub_offers_a_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queued: list[TaskRequest]
) -> None:
    for kind in ("Q4_0", "Q8_0"):
        tiny_gguf(tmp_path / f"tiny-{kind}.gguf", tensor_type=kind)
    with Hub() as hub:
        hub.add("some-org/tiny-GGUF", tmp_path)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        app = open_page("models")
        add(app, "some-org/tiny-GGUF")
        choice = app.selectbox(key="add_gguf")
        assert [option.split(" ")[0] for option in choice.options] == ["Q4_0", "Q8_0"]
        choice.set_value("some-org/tiny-GGUF:Q8_0")
        button(app, "Use this file").click().run()
        assert not app.exception and not app.error
    line = app.table[0].value.iloc[-1]
    assert line["Precision"].startswith("**INT8 · GGUF")
    assert re.search(r"The download is \*\*[\d.]+ MB\*\*", texts(app))
    button(app, "Download and convert as stored").click().run()
    assert (queued[0].model, queued[0].precision) == ("some-org/tiny-GGUF:Q8_0", Precision.STORED)


def test_an_ir_folder_offers_the_possible_precisions(stored: StoredModel) -> None:
    app = open_page("models")
    add(app, str(stored.folder))
    here = app.table[0].value.set_index("Precision")["Status"]
    assert "fits" in here["**INT8**"]
    assert "not available from these weights" in here["**FP16**"]


def test_ready_weights_are_offered_before_a_conversion(
    queued: list[TaskRequest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready_id, row = "OpenVINO/SmolLM2-360M-Instruct-int8-ov", "smollm2-360m-instruct"
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.add(ready_id, tiny_checkpoint("llama", tmp_path / "tiny"))
        app = open_page("models", open=row)
        deadline = time.monotonic() + PATIENCE_S
        while ready_id not in texts(app) and time.monotonic() < deadline:
            app.run()
        next(each for each in app.button if each.key == f"ready_{ready_id}").click().run()
        assert not app.exception
    (request,) = queued
    assert (request.model, request.precision) == (ready_id, Precision.INT8)


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
        assert re.search(r"The download is \*\*[\d.]+ kB\*\*", texts(app))
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
    assert "**INT8** · " in shown and " on disk · 20" in shown
    chart = charts(app)[0]["data"]
    share = {each["name"].partition(" · ")[0]: each["x"][0] for each in chart}
    assert share["INT8"] > 90 and sum(share.values()) == pytest.approx(100)
    links = {link.proto.label: link.proto for link in app.get("page_link")}
    title = shared_engine().store.title(stored.name)
    assert set(links) == {
        f"Try it :gray[{title}]",
        f"Try it :gray[{title} INT8]",
        "Compare precisions",
    }, "a screen reader tells them apart"
    assert links[f"Try it :gray[{title}]"].page == "instruct"
    query = links["Compare precisions"].query_string
    assert "left_precision=int4" in query and "right_precision=int8" in query
    assert f"left_model={stored.name}" in query


def test_a_changed_source_is_told_and_made_anew(
    stored: StoredModel, queued: list[TaskRequest]
) -> None:
    app = open_page("models", open=stored.key)
    assert "have changed since the conversion" not in texts(app)
    template = Path(stored.manifest.source.location) / "chat_template.jinja"
    template.write_text("{{ messages }}", encoding="utf-8")
    app = open_page("models", open=stored.key)
    assert "have changed since the conversion" in texts(app)
    button(app, "Make anew").click().run()
    (request,) = queued
    assert request.precision is Precision.INT8
    assert request.compression == Int8Settings()


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
    assert "openvino_model.bin has been altered" in app.error[0].value


def test_delete_frees_the_disk(stored: StoredModel) -> None:
    app = open_page("models", open=stored.key)
    assert "This frees **" in texts(app)
    button(app, "Delete it").click().run()
    assert not stored.folder.exists()
    assert stored.key not in rows(app)
    assert " freed." in app.toast[0].value


def test_delete_fails_during_the_conversion(stored: StoredModel) -> None:
    app = open_page("models", open=stored.key)
    lock = stored.folder.parent.parent / ".work" / f"{stored.key}.int8.lock"
    with FileLock(lock):
        button(app, "Delete it").click().run()
        assert "is being converted" in app.toast[0].value
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
    assert not made.exists() and "Random weights for benchmarks" not in texts(app)
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
    next(each for each in app.button if each.key == "sweep").click().run()
    assert not left.exists()
    assert not [each for each in app.button if seen(each.label) in ("Remove", "Clean up")]


# Tasks


def a_task(number: int = 1, **changes: Any) -> TaskView:
    view = TaskView(
        id=number,
        request=TaskRequest("paddock-neox", Precision.INT4),
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
        request=TaskRequest("dolly-v2-3b"),
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
