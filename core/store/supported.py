"""Decide whether a model is supported from its list of files and its small files.

The one check for repositories on a hub and for folders, before weights are downloaded or read.
GGUF files have no configuration beside them: :mod:`core.store.gguf.summary` checks their header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NoReturn

from core.errors import CorruptModelError
from core.store.architectures import EXPORTED, cannot_export, known_to_transformers
from core.store.model_files import (
    IR_TOKENIZER_FILES,
    SMALL_FILES,
    TOKENIZERS,
    ModelFiles,
    other_format,
    other_tokenizer,
)
from core.store.names import is_model, part_names
from core.store.weights import IR_BIN, IR_XML

_CHECKPOINTS = (("model", ".safetensors"), ("pytorch_model", ".bin"))
_CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
_EMBEDDING = "an embedding model, which returns vectors and does not write text"
_RERANKING = "a classification or reranking model, which scores texts and does not write any"
_SPEECH = "a speech or audio model, which does not answer in text"
_OTHER_TASKS = {
    "feature-extraction": _EMBEDDING,
    "sentence-similarity": _EMBEDDING,
    "text-ranking": _RERANKING,
    "text-to-speech": _SPEECH,
    "text-to-audio": _SPEECH,
    "automatic-speech-recognition": _SPEECH,
    "audio-to-audio": _SPEECH,
}
"""Kinds of models that write no answers, by the task on their card."""
_ADAPTER = re.compile(
    r"(.*/)?adapter_(config|model)\..+|(pytorch_lora_weights|lora)\.(safetensors|bin)"
)
_WHOLE_MODEL = re.compile(
    r"(pytorch_)?model(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?|openvino_model\.xml"
)
_GGUF = re.compile(r"\.gguf([.-](part|split)[^/]*)?$", re.IGNORECASE)
"""A GGUF file, or a piece of one that was cut into pieces without headers."""
_VISION = ("vision_config", "vision_tower", "mm_vision_tower", "img_processor", "visual")
_VISION += ("embd_layer",)  # of Phi-4 multimodal
_QUANTISER_FILES = {
    "quantization_config.json": "an unnamed method",
    "quantize_config.json": "gptq",
    "quant_config.json": "awq",
    "hf_quant_config.json": "modelopt",
}
"""Files in which older tools and NVIDIA's ModelOpt describe a quantisation instead."""
_CLASS_STEMS = {"hunyuan_v1_dense": "hunyuandensev1"}
"""Where the class of an architecture is not named like its ``model_type``."""


@dataclass(frozen=True)
class Selection:
    """A supported model, and the files of it that are needed."""

    weights: tuple[str, ...]
    """Weight files; for an IR, its XML file first."""
    others: tuple[str, ...]
    """Configuration, tokenizer, and the index of the weights."""
    config: dict[str, Any] | None
    """``config.json``; None if it may not be read yet, or is too large."""

    @property
    def safetensors(self) -> bool:
        """Whether the weights are safetensors."""
        return self.weights[0].endswith(".safetensors")


def check_supported(files: ModelFiles) -> Selection:
    """Return the needed files of a model, or say why it is not supported.

    Raises:
        NotAModelError: it is another kind of model, in another format, quantised, an adapter, of
            an architecture that cannot be exported, or requires its own code.
        CorruptModelError: a file is damaged, or the weights are incomplete.
    """
    names = files.names
    _check_not_an_adapter(files)
    check_kind(files)
    weights, index, problem = _weights(files)
    if not weights and _irs(names):
        _refuse_other_ir(files)
    if "config.json" not in names:
        _refuse_incomplete(files, has_weights=bool(weights))
    config = files.json("config.json")
    is_ir = bool(weights) and weights[0] == IR_XML
    if config is not None:
        _check_config(files, config, is_ir=is_ir)
        _check_tokenizer_code(files, config)
    if problem is not None:
        raise problem
    if not weights:
        _refuse_incomplete(files, has_weights=False)
    _check_tokenizer(files, config)
    others = _others(files, is_ir=is_ir) | index
    return Selection(weights, tuple(sorted(others)), config)


def needed_files(files: ModelFiles) -> list[str]:
    """Return the files that a conversion reads, without a check that the model is supported.

    Raises:
        CorruptModelError: the index of the weights cannot be read.
    """
    weights, index, _ = _weights(files)
    return sorted({*weights, *_others(files, is_ir=IR_XML in weights), *index})


def _others(files: ModelFiles, *, is_ir: bool) -> frozenset[str]:
    return files.names & (SMALL_FILES | IR_TOKENIZER_FILES if is_ir else SMALL_FILES)


def has_whole_model(names: Iterable[str]) -> bool:
    """Return whether there are weights of a whole model under one of their usual names."""
    return any(_WHOLE_MODEL.fullmatch(name) for name in names)


# Other kinds of models, by their files


def _check_not_an_adapter(files: ModelFiles) -> None:
    names = files.names
    found = sorted(name for name in names if _ADAPTER.fullmatch(name))
    if not found or has_whole_model(names):
        return
    if "config.json" in names and "adapter_config.json" not in names:
        return
    described = next((name for name in found if name.endswith("config.json")), None)
    adapter = (files.json(described) if described else None) or {}
    base = str(adapter.get("base_model_name_or_path") or adapter.get("model_name") or "")
    if base.count("/") != 1 or base.startswith((".", "/")):  # a folder of its maker
        base = _original(files) or base
    kind = str(adapter.get("peft_type") or ("AdapterHub" if "model_name" in adapter else "LORA"))
    advice = f"Use its base model{base and f' {base}'}"
    if "LORA" in kind.upper() or kind == "IA3":
        advice += ", or a version with the adapter merged into it"
    kind = "LoRA" if kind.upper() == "LORA" else kind
    files.refuse(f"is an adapter ({kind}), not a whole model", f"{advice}.")


def check_kind(files: ModelFiles) -> None:
    """Raise NotAModelError if the model writes no text by its card or its files."""
    names, card = files.names, files.card()
    task, library = str(card.get("pipeline_tag")), card.get("library_name")
    kind = _OTHER_TASKS.get(task)
    if library == "sentence-transformers":
        kind = _RERANKING if task in ("text-ranking", "text-classification") else _EMBEDDING
    if "model_index.json" in names and "config.json" not in names:
        kind = "a Diffusers pipeline, which makes images or sounds"
    elif kind is None and (
        names & {"modules.json", "config_sentence_transformers.json"}
        or any(name.startswith("1_Pooling/") for name in names)
    ):
        kind = _EMBEDDING
    if kind is not None:
        files.refuse(f"is {kind}", "Choose an instruction model.")


def _irs(names: frozenset[str]) -> list[str]:
    """Return the OpenVINO models among these files that are no tokenizers."""
    return sorted(
        name
        for name in names
        if name.endswith(".xml")
        and (PurePosixPath(name).name.startswith("openvino_") or f"{name[:-4]}.bin" in names)
        and PurePosixPath(name).name not in IR_TOKENIZER_FILES
    )


def _refuse_other_ir(files: ModelFiles) -> NoReturn:
    irs = _irs(files.names)
    kind = _other_kind(files.json("config.json") or {}, files.names)
    if kind is not None:
        files.refuse(f"is {kind}, not a causal language model", "Choose a text-only model.")
    if IR_XML in irs:
        raise CorruptModelError(
            f"{IR_BIN} is missing in {files.name}. Convert or copy the model again."
        )
    if len(irs) > 1:
        files.refuse(
            f"consists of several OpenVINO models ({irs[0]}, {irs[1]}), so it is not a causal "
            "language model",
            f"Choose a model with one {IR_XML}.",
        )
    files.refuse(
        f"contains an OpenVINO model under another name ({irs[0]})",
        f"Paddock reads {IR_XML} and {IR_BIN} at the top of a folder: copy them there under "
        "these names.",
    )


def _refuse_gguf(files: ModelFiles) -> None:
    """Raise CorruptModelError or NotAModelError if there are GGUF files: none can be used."""
    found = sorted(name for name in files.names if _GGUF.search(name))
    for name in found:
        if not name.lower().endswith(".gguf"):  # .gguf.part1of2, .gguf-split-a
            files.refuse(
                f"contains a GGUF file in pieces ({name})",
                "Join the pieces in their order into one file, for example with cat.",
            )
        path = PurePosixPath(name)
        parts = [str(path.with_name(part)) for part in part_names(path.name)]
        if missing := sorted(set(parts) - files.names):
            raise CorruptModelError(
                f"{missing[0]}, a part of {name}, is missing in {files.name}. Download or copy it "
                "again."
            )
    if found and not any(is_model(PurePosixPath(name).name) for name in found):
        files.refuse(
            f"contains a projector, calibration data or an adapter ({found[0]}), but no model",
            "Add the GGUF file of the model, or choose the model's repository.",
        )
    if found:
        files.refuse(f"contains a GGUF file ({found[0]})", "Specify the path of that file.")


def _refuse_incomplete(files: ModelFiles, *, has_weights: bool) -> NoReturn:
    """Say why the configuration or the weights cannot be found."""
    _refuse_gguf(files)
    names, has_config = sorted(files.names), "config.json" in files.names
    formats = [(text, name) for name in names if (text := other_format(name))]
    unlisted = [n for n in names if n.endswith(".safetensors") and other_format(n) is None]
    if has_config and unlisted:
        files.refuse(
            f"contains safetensors, such as {unlisted[0]}, that are neither named "
            "model.safetensors nor listed in a model.safetensors.index.json",
            "Choose the original repository of the model, or add the index.",
        )
    if formats and not has_weights:
        text, name = formats[0]
        files.refuse(
            f"contains only {text} ({name}), which is not supported",
            "Choose a repository or folder with safetensors, an OpenVINO model or a GGUF file.",
        )
    if not has_config:
        files.refuse(
            "contains no config.json, so it is not a supported model",
            "Specify the folder or the original repository with the model's config.json and "
            "weights.",
        )
    files.refuse(
        "contains neither safetensors, nor pytorch_model.bin, nor OpenVINO weights",
        "Choose the original repository of the model, or copy the weights into the folder.",
    )


def _check_tokenizer(files: ModelFiles, config: dict[str, Any] | None) -> None:
    names = files.names
    if names & {"tokenizer.json", "tokenizer.model"}:
        return
    found = sorted(names & TOKENIZERS.keys())
    if found and config is None:  # it may not be read yet
        return
    kind, read = _tokenizer_class(files, config or {}) if found else ("", set())
    if read and read <= names & SMALL_FILES:
        return
    advice = "Use a version of the model with a tokenizer.json, or copy that file into it."
    if found:
        reads = f"reads {', '.join(sorted(read))}" if read else "does not read it"
        why = f"its tokenizer class {kind} {reads}" if kind else "it names no tokenizer class"
        files.refuse(f"has a tokenizer in {TOKENIZERS[found[0]]} ({found[0]}), but {why}", advice)
    for name in sorted(names):
        if (text := other_tokenizer(name)) is not None:
            files.refuse(f"has a tokenizer in {text} ({name}), which is not supported", advice)
    files.refuse(
        "contains no tokenizer",
        "Copy the model's tokenizer.json (or tokenizer.model) and tokenizer_config.json into it, "
        "or choose the original repository.",
    )


def _tokenizer_class(files: ModelFiles, config: Mapping[str, Any]) -> tuple[str, set[str]]:
    """Return the tokenizer's class, empty if it is not named, and the files that it reads."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    settings = files.json("tokenizer_config.json") or {}
    given = settings.get("tokenizer_class") or config.get("tokenizer_class")
    given = str(given or TOKENIZER_MAPPING_NAMES.get(config["model_type"]) or "")
    kind = _transformers_class(given)
    read = set(kind.vocab_files_names.values()) if kind is not None else set()
    return given, read - {"tokenizer.json"}


def _transformers_class(name: str) -> Any:
    """Return the tokenizer class of transformers with this name, or None."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    stem = name.removesuffix("Fast")
    return tokenizer_class_from_name(stem) or tokenizer_class_from_name(f"{stem}Fast")


# The configuration


def _check_config(files: ModelFiles, config: dict[str, Any], *, is_ir: bool) -> None:
    architectures = _architectures(config)
    causal = any(each.endswith(_CAUSAL_ENDINGS) for each in architectures)
    kind = _other_kind(config, files.names)
    code = config.get("auto_map")
    if isinstance(code, dict) and "AutoModelForCausalLM" in code:  # ChatGLM has ChatGLMModel
        causal = True
    if kind is not None or (architectures and not causal):
        kind = kind or f"a {architectures[0]}"
        files.refuse(
            f"is {kind}, not a causal language model",
            "Choose a text-only model whose architecture ends in ForCausalLM.",
        )
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        files.refuse(
            "has a config.json without model_type, so it is not a supported language model",
            "Choose a model that transformers supports.",
        )
    if not is_ir:
        _check_not_quantised(files, config)
    exported = model_type in EXPORTED
    if config.get("auto_map") and not exported and not known_to_transformers(model_type):
        files.refuse(
            "requires its own Python code (trust_remote_code), which Paddock never runs",
            "Choose a model whose architecture is part of transformers.",
        )
    if not is_ir and not exported:
        files.refuse(
            f"has the architecture {model_type!r}, which {cannot_export(model_type)}",
            "Choose another model, or one that is published as an OpenVINO model.",
        )
    if not is_ir and architectures and not has_class_of(model_type, architectures):
        files.refuse(
            f"has the class {architectures[0]}, which is not that of its architecture "
            f"{model_type!r} in transformers",
            "Choose a model whose architecture is part of transformers.",
        )


def has_class_of(model_type: str, architectures: Iterable[str]) -> bool:
    """Return whether one of the classes is that of an architecture in transformers, in any
    spelling: ``LLaMAForCausalLM``."""
    wanted = _CLASS_STEMS.get(model_type, model_type.removesuffix("_text").replace("_", ""))
    return any(
        re.sub("(text)?(forcausallm|lmheadmodel)$", "", each.lower().replace("_", "")) == wanted
        for each in architectures
    )


def _architectures(config: Mapping[str, Any]) -> list[str]:
    given = config.get("architectures") or []
    return [str(each) for each in (given if isinstance(given, list) else [given])]


def _other_kind(config: Mapping[str, Any], names: frozenset[str]) -> str | None:
    """Return the kind of a model that is no causal language model, or None."""
    architectures = _architectures(config)
    which = f" ({architectures[0]})" if architectures else ""
    irs = {PurePosixPath(name).name for name in _irs(names)}
    if any(config.get(key) is not None for key in _VISION) or any(
        "vision" in name or name == "openvino_language_model.xml" for name in irs
    ):
        return f"a vision-language model{which}"
    if config.get("is_encoder_decoder") or any("encoder_model" in name for name in irs):
        return f"an encoder-decoder model{which}"
    if config.get("audio_config") is not None or any("audio" in name for name in irs):
        return f"an audio model{which}"
    if any("ForSequenceClassification" in each for each in architectures):
        return f"a classification or reranking model{which}"
    return None


def _check_not_quantised(files: ModelFiles, config: Mapping[str, Any]) -> None:
    found = config.get("quantization_config") or config.get("compression_config")
    own = next((name for name in _QUANTISER_FILES if name in files.names), None)
    method = None
    if isinstance(found, dict) and found:
        method = _quantiser(found, "MLX" if config.get("quantization") else "an unnamed method")
    elif found:
        method = str(found)[:40]
    elif config.get("quantization"):
        method = "MLX"
    elif config.get("quip_params"):
        method = "QuIP#"
    elif own is not None:
        method = _quantiser(files.json(own) or {}, _QUANTISER_FILES[own])
    if method is None:
        return
    original = _original(files)
    files.refuse(
        f"is quantised with {method}, and these weights cannot be converted",
        f"Use {original}, the model from which it was made."
        if original
        else "Use a version of it that is not quantised, if there is one, or one that is published "
        "as an OpenVINO model or a GGUF file.",
    )


def _quantiser(settings: Mapping[str, Any], default: str) -> str:
    signs = {
        "load_in_4bit": "bitsandbytes",
        "load_in_8bit": "bitsandbytes",
        "quant_algo": "modelopt",
        "config_groups": "compressed-tensors",
    }
    unnamed = next((signs[key] for key in signs if settings.get(key)), default)
    return str(settings.get("quant_method") or unnamed)


def _original(files: ModelFiles) -> str | None:
    """Return the Hugging Face id of the model from which another one was made, if known."""
    base = files.card().get("base_model") or []
    found = [base] if isinstance(base, str) else list(base)
    return str(found[0]) if found else None


def _check_tokenizer_code(files: ModelFiles, config: Mapping[str, Any]) -> None:
    settings = files.json("tokenizer_config.json") or {}
    code = settings.get("auto_map")
    if isinstance(code, dict):
        code = code.get("AutoTokenizer")
    if not code:
        return
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    # Transformers has tokenizers for some models that also come with code for one.
    own = TOKENIZER_MAPPING_NAMES.get(config["model_type"])
    if not own and _transformers_class(str(settings.get("tokenizer_class"))) is None:
        files.refuse(
            "has a tokenizer that requires its own Python code (trust_remote_code), which Paddock "
            "never runs",
            "Choose a model whose tokenizer is part of transformers.",
        )


# The weights


def _weights(files: ModelFiles) -> tuple[tuple[str, ...], set[str], CorruptModelError | None]:
    """Return the weight files, their index, and the error if a set of shards is incomplete.

    Safetensors are preferred to pickles, and a checkpoint to an IR, which has one precision.
    """
    names, problem = files.names, None
    has_ir = {IR_XML, IR_BIN} <= names
    if has_ir and files.ir_first:
        return (IR_XML, IR_BIN), set(), None
    for stem, ending in _CHECKPOINTS:
        whole, index = f"{stem}{ending}", f"{stem}{ending}.index.json"
        if whole in names:
            return (whole,), set(), None
        if index in names:
            shards = _shards(files, index) or _usual_shards(names, stem, ending)
            missing = sorted(shards - names)
            if shards and not missing:
                return tuple(sorted(shards)), {index}, None
            first = missing[0] if missing else f"{stem}-00001-of-…{ending}"
            problem = problem or CorruptModelError(
                f"{first}, which {index} lists, is missing in {files.name}. Download or copy "
                "it again."
            )
    if has_ir:
        return (IR_XML, IR_BIN), set(), None
    return (), set(), problem


def _shards(files: ModelFiles, index: str) -> set[str]:
    """Return the weight files that an index lists; none if it may not be read yet."""
    content = files.json(index)
    if content is None:
        return set()
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptModelError(f"{index} of {files.name} lists no weights. Download it again.")
    shards = {str(name) for name in weight_map.values()}
    for name in shards:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise CorruptModelError(
                f"{index} of {files.name} lists {name[:80]!r}, which is outside of the model. "
                "Choose the original repository of the model."
            )
    return shards


def _usual_shards(names: frozenset[str], stem: str, ending: str) -> set[str]:
    """Return the names of a set of shards of which the first is among these names."""
    for name in names:
        if found := re.fullmatch(rf"{stem}-00001-of-(\d{{5}}){re.escape(ending)}", name):
            count = int(found[1])
            return {f"{stem}-{at:05}-of-{count:05}{ending}" for at in range(1, count + 1)}
    return set()
