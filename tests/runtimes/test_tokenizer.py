"""Tests that tokenizers loaded without transformers behave like transformers' own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
from transformers import AutoTokenizer

from core.runtimes.tokenizer import PlainTokenizer, is_plain, load_tokenizer
from core.settings import CHECKOUT
from tests.builders import CHAT_TEMPLATE, tiny_tokenizer
from tests.waiting import PATIENCE_S

TEXTS = [
    "Where does the river go?",
    "",
    " a\n\n  b ### End x",
    "Grüße, 世界 👩‍👩‍👧‍👦",
    "<|endoftext|>x",
]
TURNS = [{"role": "user", "content": "Why & how? <b>"}]


@pytest.fixture(params=["paddock-neox", "paddock-llama", "tiny"])
def folder(request, tmp_path: Path) -> Path:
    if request.param == "tiny":
        tiny_tokenizer(tmp_path, chat_template=CHAT_TEMPLATE)
        return tmp_path
    return CHECKOUT / "core" / "embedded" / request.param


def test_tokens_text_and_prompts_equal_those_of_transformers(folder: Path):
    own, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert isinstance(own, PlainTokenizer)
    for text in TEXTS:
        for special in (True, False):
            ids = own(text, add_special_tokens=special, verbose=False)["input_ids"]
            assert ids == theirs(text, add_special_tokens=special)["input_ids"]
        for skip in (True, False):
            assert own.decode(ids, skip_special_tokens=skip) == theirs.decode(
                ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )
    assert set(own.all_special_ids) == set(theirs.all_special_ids)
    assert own.eos_token_id == theirs.eos_token_id
    assert own.get_vocab() == theirs.get_vocab()
    assert own.chat_template == theirs.chat_template
    if own.chat_template:
        how = {"tokenize": False, "add_generation_prompt": True}
        assert own.apply_chat_template(TURNS, **how) == theirs.apply_chat_template(TURNS, **how)


def test_template_can_raise_and_runs_in_a_sandbox(tmp_path: Path):
    tiny_tokenizer(tmp_path, chat_template="{{ raise_exception('only one turn') }}")
    how = {"tokenize": False, "add_generation_prompt": True}
    with pytest.raises(jinja2.TemplateError, match="only one turn"):
        load_tokenizer(tmp_path).apply_chat_template(TURNS, **how)
    tiny_tokenizer(tmp_path, chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(jinja2.TemplateError):
        load_tokenizer(tmp_path).apply_chat_template(TURNS, **how)


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}\n  {%- if loop.index > 1 %}{% break %}{% endif %}\n"
        "  {{ message | tojson }}\n{% endfor %}\n{{ bos_token }}",
        "{{ messages | tojson(indent=2, ensure_ascii=True) }}"
        "{{ {'b': 1, 'a': 2} | tojson(sort_keys=True, separators=(',', ':')) }}",
        "a\n  {% generation %}\n  {% set x = 'inside' %}{{ x }}\n  {% endgeneration %}\n{{ x }}|",
        "{{ strftime_now('%d %b %Y') }}{{ tools is none }}{{ documents is none }}",
        "{{ messages[0].get('tool_calls') }}{% if add_generation_prompt %}>{% endif %}{{ depth }}",
    ],
    ids=["loop", "json", "generation", "date", "variables"],
)
def test_templates_are_rendered_as_transformers_does(tmp_path: Path, template: str):
    tiny_tokenizer(tmp_path, chat_template=template)
    turns = [{"role": "user", "content": "<Grüße> & 世界"}, {"role": "assistant", "content": "x"}]
    how = {"tokenize": False, "add_generation_prompt": True, "depth": 3}
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(turns, **how)
    assert load_tokenizer(tmp_path).apply_chat_template(turns, **how) == theirs != ""


@pytest.mark.parametrize(
    "unusual",
    [
        {"tokenizer_class": "LlamaTokenizer"},
        {"add_bos_token": True},
        {"clean_up_tokenization_spaces": True},
        {"eos_token": {"content": "<|endoftext|>"}},
    ],
)
def test_tokenizers_with_other_settings_need_transformers(tmp_path: Path, unusual: dict):
    tiny_tokenizer(tmp_path)
    assert is_plain(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | unusual))
    assert not is_plain(tmp_path)


def test_embedded_models_are_loaded_without_transformers_and_torch():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from core.runtimes.subprocess_runtime import SubprocessRuntime\n"
        "from core.runtimes.tokenizer import load_tokenizer\n"
        "folder = Path('core/embedded/paddock-llama')\n"
        "runtime = SubprocessRuntime()\n"
        "runtime.prepare(folder)\n"
        "runtime.close()\n"
        "tokenizer = load_tokenizer(folder)\n"
        "turns = [{'role': 'user', 'content': 'x'}]\n"
        "text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)\n"
        "assert tokenizer(text)['input_ids']\n"
        "print({'torch', 'transformers', 'optimum'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.strip() == "set()", done.stderr
