"""Controls of the sidebar: ranges, defaults, help texts and URL parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.catalogue import Precision, catalogue
from core.runtimes.spec import ModelSpec, SamplingSettings
from core.ui.widgets.link import LONGEST, number_in, one_of
from tests.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path))


def sampling_script() -> None:
    import streamlit as st

    from core.runtimes.spec import SamplingSettings
    from core.ui.widgets.sampling import pick_sampling

    st.session_state["picked"] = pick_sampling(SamplingSettings())


def model_script() -> None:
    import streamlit as st

    from core.settings import load_settings
    from core.store import ModelStore
    from core.ui.widgets.pickers import pick_model

    picked = pick_model(ModelStore(load_settings()))
    st.session_state["picked"] = (picked.spec, picked.prompt_format)


def both_script() -> None:
    import streamlit as st

    from core.runtimes.sampling import default_sampling
    from core.settings import load_settings
    from core.store import ModelStore
    from core.ui.widgets.pickers import pick_model
    from core.ui.widgets.sampling import pick_sampling

    store = ModelStore(load_settings())
    st.session_state["picked"] = pick_sampling(
        default_sampling(store, pick_model(store).spec.model)
    )


def text_script() -> None:
    import streamlit as st

    from core.ui.widgets.link import link_texts

    link_texts("words")
    st.text_area("Words", key="words")


def run(script: Any, **link: str) -> AppTest:
    """Run the script with these URL parameters."""
    app = AppTest.from_function(script, default_timeout=PATIENCE_S)
    for name, value in link.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    return app


@pytest.mark.parametrize(
    ("label", "low", "high", "step", "default"),
    [
        ("Temperature", 0.1, 5.0, 0.1, 0.8),
        ("Top-p", 0.05, 1.0, 0.01, 0.92),
        ("Top-k", 0, 100, 1, 0),
    ],
)
def test_sampling_ranges_and_defaults(
    label: str, low: float, high: float, step: float, default: float
) -> None:
    (slider,) = [each for each in run(sampling_script).slider if each.label == label]
    assert (slider.min, slider.max, slider.step, slider.value) == (low, high, step, default)


def test_maximum_of_new_tokens_is_not_below_any_context_length() -> None:
    app = run(sampling_script)
    tokens = app.number_input(key="tokens")
    assert (tokens.min, tokens.step, tokens.value) == (1, 1, 256)
    tokens.set_value(131_072).run()
    assert app.session_state["picked"].max_new_tokens == 131_072


def test_unchanged_controls_give_the_defaults() -> None:
    assert run(sampling_script).session_state["picked"] == SamplingSettings()


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("Temperature", ["(0.2) almost always selects *playing*", "1.0 keeps", "2.0 evens"]),
        ("Top-p", ["0.5 leaves *playing*", "0.8 leaves *playing*, *sleeping* and *eating*"]),
        ("Top-k", ["3 leaves *playing*, *sleeping* and *eating*", "0 disables top-k"]),
        ("Repetition penalty", ["1.0 disables the penalty"]),
    ],
)
def test_help_texts_use_the_example(label: str, said: list[str]) -> None:
    (slider,) = [each for each in run(sampling_script).slider if each.label == label]
    chances = "playing 50 %, sleeping 25 %, eating 15 %, driving 5 %, flying 5 %"
    assert "The cat is" in slider.help and chances in slider.help
    assert [text for text in said if text not in slider.help] == []


def test_greedy_disables_settings_without_effect() -> None:
    app = run(sampling_script)
    app.number_input(key="seed").set_value(7).run()
    assert app.session_state["picked"].seed == 7
    app.toggle[0].set_value(True).run()
    off = {slider.label for slider in app.slider if slider.disabled}
    assert off == {"Temperature", "Top-p", "Top-k"}
    assert app.number_input(key="seed").disabled
    assert app.session_state["picked"].greedy and app.session_state["picked"].seed is None


def test_link_sets_and_follows_the_controls() -> None:
    app = run(sampling_script, temperature="1.5", top_k="40", greedy="true", seed="12")
    picked = app.session_state["picked"]
    assert (picked.temperature, picked.top_k, picked.greedy) == (1.5, 40, True)
    app.toggle[0].set_value(False).run()
    assert app.session_state["picked"].seed == 12
    assert "greedy" not in app.query_params
    app.number_input(key="tokens").set_value(10).run()
    assert app.query_params["tokens"] in ("10", ["10"])


@pytest.mark.parametrize(
    "value", ["0", "1000001", "x", "", "nan", "1e3", "-5", "256;drop", "9" * 5000]
)
def test_out_of_range_values_in_a_link_are_ignored(value: str) -> None:
    assert run(sampling_script, tokens=value).session_state["picked"] == SamplingSettings()


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0.0", "5.1"])
def test_invalid_temperatures_in_a_link_are_ignored(value: str) -> None:
    assert run(sampling_script, temperature=value).session_state["picked"] == SamplingSettings()


def test_readers() -> None:
    assert number_in(0.05, 1.0)("0.92") == 0.92
    with pytest.raises(ValueError):
        number_in(0, 50)("51")
    assert one_of(["AUTO", "CPU"])(" cpu ") == "CPU"
    with pytest.raises(ValueError):
        one_of(["AUTO", "CPU"])("GPU")


def test_model_selector_lists_the_catalogue() -> None:
    app = run(model_script)
    model, device = app.selectbox
    embedded = [row.title for row in catalogue().values() if row.embedded]
    others = [row.title for row in catalogue().values() if not row.embedded]
    assert [option.partition(" · ")[0] for option in model.options] == [
        "— On this machine —",
        *embedded,
        "— To download —",
        *others,
    ]
    assert "Dolly 2.0 3B · 5.6 GB" in model.options
    assert device.options[0].startswith("AUTO — ")
    assert any(option.startswith("CPU — ") for option in device.options)
    assert app.session_state["picked"] == (ModelSpec(next(iter(catalogue()))), None)


def test_heading_cannot_be_selected() -> None:
    app = run(model_script, model="— To download —")
    assert app.selectbox(key="model").value == "paddock-neox"
    app.selectbox(key="model").set_value("phi-2").run()
    app.selectbox(key="model").set_value("— On this machine —").run()
    assert app.selectbox(key="model").value == "phi-2"
    assert app.session_state["picked"][0].model == "phi-2"


def test_sampling_follows_the_model_until_a_control_changes() -> None:
    app = run(both_script, model="smollm2-135m-instruct")
    picked = app.session_state["picked"]
    assert (picked.temperature, picked.top_p) == (0.2, 0.9)
    assert not {"temperature", "top_p"} & set(app.query_params)
    app.selectbox(key="model").set_value("phi-2").run()
    picked = app.session_state["picked"]
    assert (picked.temperature, picked.top_p) == (0.8, 0.92)
    app.slider(key="temperature").set_value(1.1).run()
    app.selectbox(key="model").set_value("smollm2-135m-instruct").run()
    picked = app.session_state["picked"]
    assert (picked.temperature, picked.top_p) == (1.1, 0.92), "the user's values stay"
    assert app.query_params["temperature"] in ("1.1", ["1.1"])
    assert app.query_params["top_p"] in ("0.92", ["0.92"])


def test_setting_in_a_link_stops_following_the_model() -> None:
    app = run(both_script, model="smollm2-135m-instruct", top_p="0.5")
    assert app.session_state["picked"].temperature == 0.2
    app.selectbox(key="model").set_value("phi-2").run()
    assert app.session_state["picked"].top_p == 0.5


def test_link_selects_the_model_and_ignores_an_unknown_device() -> None:
    app = run(model_script, model="phi-2", precision="INT4", device="GPU.7")
    assert app.session_state["picked"] == (ModelSpec("phi-2", Precision.INT4, "AUTO"), None)
    assert "2.78 B parameters, 5.6 GB to download" in app.caption[0].value


def test_unknown_model_shows_an_error() -> None:
    app = run(model_script, model="no such model")
    assert app.warning[0].value.startswith("There is no model 'no such model'")


def test_model_outside_the_catalogue_offers_prompt_formats() -> None:
    app = run(model_script, model="some-org/some-model", format="alpaca")
    spec, prompt_format = app.session_state["picked"]
    assert (spec.model, prompt_format) == ("some-org/some-model", "alpaca")
    assert app.selectbox(key="format").options == ["Dolly", "Alpaca", "Plain text"]
    assert app.caption[0].value.startswith(":material/download:")


def test_only_short_texts_are_in_the_url() -> None:
    app = run(text_script, words="from the link")
    assert app.text_area[0].value == "from the link"
    app.text_area[0].set_value("x" * LONGEST).run()
    assert app.query_params["words"] in ("x" * LONGEST, ["x" * LONGEST])
    app.text_area[0].set_value("x" * (LONGEST + 1)).run()
    assert "words" not in app.query_params
    app.text_area[0].set_value("я" * (LONGEST // 6)).run()  # %D1%8F
    assert "words" in app.query_params
    app.text_area[0].set_value("я" * (LONGEST // 6 + 1)).run()
    assert "words" not in app.query_params
