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
from core.store.model_files import IR_TOKENIZER_FILES, SMALL_FILES, TOKENIZERS, ModelFiles
from core.store.names import is_model
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
_NO_WEIGHTS = ("", ".json", ".md", ".py", ".txt")
"""Suffixes of files that a refusal does not list, as they contain no weights."""
_VISION = ("vision_config", "vision_tower", "mm_vision_tower", "img_processor", "visual")
_VISION += ("embd_layer",)  # of Phi-4 multimodal
_QUANTISATION_FIELDS = ("quantization_config", "compression_config", "quantization", "quip_params")
_QUANTISATION_FILES = frozenset(
    f"{name}.json"
    for name in ("quantization_config", "quantize_config", "quant_config", "hf_quant_config")
)
"""Where a quantisation is described: fields of ``config.json``, and files of older tools and of
NVIDIA's ModelOpt."""
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
        _refuse_incomplete(files)
    config = files.json("config.json")
    is_ir = bool(weights) and weights[0] == IR_XML
    if config is not None:
        _check_config(files, config, is_ir=is_ir)
        _check_tokenizer_code(files, config)
    if problem is not None:
        raise problem
    if not weights:
        _refuse_incomplete(files)
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
    described = next((name for name in found if name.endswith("config.json")), "")
    base = str((files.json(described) or {}).get("base_model_name_or_path") or "")
    if base.count("/") != 1 or base.startswith((".", "/")):  # a folder of its maker
        base = _original(files) or base
    files.refuse(
        "is an adapter, not a whole model",
        f"Use its base model{base and f' {base}'}, or a version with the adapter merged into it.",
    )


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
    files.refuse(
        f"contains OpenVINO models ({', '.join(irs[:2])}), but not {IR_XML} and {IR_BIN} at the "
        "top",
        "If it is a causal language model, copy its two files there under these names.",
    )


def _refuse_incomplete(files: ModelFiles) -> NoReturn:
    """Say which of configuration and weights is missing, and what there is instead."""
    names = [n for n in sorted(files.names) if PurePosixPath(n).suffix not in _NO_WEIGHTS]
    for name in names:
        if name.lower().endswith(".gguf") and is_model(PurePosixPath(name).name):
            files.refuse(f"contains a GGUF file ({name})", "Specify the path of that file.")
    missing = "no config.json"
    if "config.json" in files.names:
        missing = f"neither model.safetensors nor its index, nor pytorch_model.bin, nor {IR_XML}"
    files.refuse(
        f"contains {missing}{', but ' if names else ''}{', '.join(names[:5])}",
        "Choose the model's original repository, or a folder or repository with its config.json "
        "and safetensors, with an OpenVINO model, or with a GGUF file.",
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
    files.refuse("contains no tokenizer.json and no tokenizer.model", advice)


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
    found = next((config[name] for name in _QUANTISATION_FIELDS if config.get(name)), None)
    if found is None and not _QUANTISATION_FILES & files.names:
        return
    method = found.get("quant_method") if isinstance(found, dict) else found
    original = _original(files)
    files.refuse(
        f"is quantised{f' with {str(method)[:40]}' if method else ''}, and these weights cannot be "
        "converted",
        f"Use {original}, the model from which it was made."
        if original
        else "Use a version of it that is not quantised, if there is one, or one that is published "
        "as an OpenVINO model or a GGUF file.",
    )


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
