"""Convert a checkpoint, an IR or a GGUF file to an OpenVINO IR with weights of one precision.

A checkpoint is loaded in its own 16-bit dtype (and converted to FP32 only if FP32 is requested),
exported by Optimum Intel as a stateful IR, and for INT8 and INT4 read back memory-mapped and
compressed by NNCF, without a data set. Optimum's ``main_export`` is not used on purpose: it
quantises large models to INT8 by default, ignores ``ov_config`` and contacts the hub.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.catalogue import Compression, Int4Settings, Precision, RecommendedSampling
from core.errors import ConversionError, CorruptModelError, NotAModelError
from core.store.architectures import WITHOUT_VERSION_LIMIT
from core.store.checkpoint import Origin, inspect_checkpoint, is_ir
from core.store.compress import compress_to_fit, generate_texts
from core.store.formats import mix_text
from core.store.library_env import (
    LIBRARY_ERRORS,
    as_conversion_error,
    disable_telemetry,
    quick_imports,
)
from core.store.manifest import GgufRecord
from core.store.model_files import IR_TOKENIZER_FILES, SMALL_FILES, TOKENIZERS
from core.store.progress import Progress, ProgressCallback, Stage
from core.store.weights import IR_BIN, IR_XML, read_weights
from core.workers.child import one_line

log = logging.getLogger(__name__)

_LIBRARIES = (
    "optimum.exporters.openvino.convert",
    "optimum.intel.openvino.configuration",
    "nncf",
    "openvino_tokenizers",
)

_NOT_WEIGHTS = re.compile(
    r"(inv_freq|masked_bias|att\w*\.bias|causal_mask|position_ids|embed_positions\.weights|version)$"
    r"|^v_head\."
)
"""Masks and tables that earlier versions of transformers stored, and the value head of training."""


def load_libraries() -> None:
    """Import the conversion libraries, which takes seconds: most of the time for a small model."""
    disable_telemetry()
    with quick_imports():
        for name in _LIBRARIES:
            importlib.import_module(name)


def convert(
    source: Path,
    work: Path,
    precision: Precision,
    settings: Compression | None,
    on_progress: ProgressCallback,
    sampling: RecommendedSampling | None = None,
) -> tuple[Compression | None, GgufRecord | None]:
    """Convert a checkpoint's or an IR's folder, or a GGUF file, into ``work/model``.

    The weights of an IR are only compressed or, from FP32 to FP16, rounded. Those of a GGUF file
    are kept as stored or dequantised; INT8 and INT4 are compressed from the dequantised weights in
    FP16, so they are less accurate than a conversion of the original checkpoint.

    Args:
        work: with the empty folders ``model`` and ``export``, for the export before compression.
        precision: one that the source can be converted to; see
            :func:`core.store.weights_source.find_origin`.
        settings: for INT8 and INT4.
        sampling: recommended by the model card, for the ``generation_config.json`` of a GGUF file.

    Returns:
        The settings that NNCF used, None without compression; and the description of a GGUF file.

    Raises:
        NotAModelError: the tokenizer cannot be read, the checkpoint could run code, or it has
            weights that its architecture does not have.
        CorruptModelError: the weights cannot be read.
        ConversionError: export or compression failed, or the result has another precision.
    """
    target, gguf, used = work / "model", None, None
    exported, fraction = (work / "export" if precision.compressed else target), 0.6
    if source.is_file():
        gguf = _export_gguf(source, precision, exported, on_progress, sampling)
    elif is_ir(source):
        _copy_companions(source, target)
        if precision in (read_weights(source).precision, Precision.STORED):
            on_progress(Progress(Stage.SAVING, "Copying the OpenVINO model.", 0.5))
            shutil.copyfile(source / IR_XML, target / IR_XML)
            _link_or_copy(source / IR_BIN, target / IR_BIN)
            return None, None
        exported, fraction = source, 0.3
        if precision is Precision.FP16:
            on_progress(Progress(Stage.COMPRESSING, "Compressing weights to FP16.", fraction))
            with as_conversion_error("Compression to FP16"):
                import openvino

                model = openvino.Core().read_model(source / IR_XML)
                openvino.save_model(model, target / IR_XML, compress_to_fp16=True)
    else:
        _export_checkpoint(inspect_checkpoint(source), precision, exported, on_progress)
    if settings is not None:
        texts: tuple[str, ...] = ()
        if isinstance(settings, Int4Settings) and settings.scale_estimation:
            message = "Generating texts for scale estimation."
            on_progress(Progress(Stage.COMPRESSING, message, fraction))
            texts = generate_texts(exported)
        message = f"Compressing weights to {precision.label}."
        on_progress(Progress(Stage.COMPRESSING, message, fraction))
        used = compress_to_fit(exported, target, settings, texts)
        for path in exported.iterdir() if exported != source else ():
            if path.name not in (IR_XML, IR_BIN):
                path.replace(target / path.name)
    report = read_weights(target)
    if precision is not Precision.STORED and not report.is_really(precision):
        raise ConversionError(
            f"The export produced {mix_text(report.formats)} instead of {precision.label} weights. "
            "Choose another precision."
        )
    return used, gguf


def _export_checkpoint(
    origin: Origin, precision: Precision, target: Path, on_progress: ProgressCallback
) -> None:
    load_libraries()
    tokenizer = load_tokenizer(origin.folder)
    on_progress(Progress(Stage.EXPORTING, "Reading the checkpoint.", 0.1))
    model = _load_model(origin, precision)
    on_progress(Progress(Stage.EXPORTING, "Exporting to OpenVINO.", 0.3))
    with as_conversion_error("Export to OpenVINO"):
        export(model, tokenizer, target)
    del model
    gc.collect()
    write_openvino_tokenizer(tokenizer, target)


def _copy_companions(folder: Path, target: Path) -> None:
    """Copy an IR's configuration and tokenizer, with the tokenizer as OpenVINO models."""
    load_libraries()
    tokenizer = load_tokenizer(folder)
    for path in sorted(folder.iterdir()):
        if path.name in SMALL_FILES | IR_TOKENIZER_FILES and path.is_file():
            shutil.copyfile(path, target / path.name)
    if not (target / "openvino_tokenizer.xml").is_file():
        write_openvino_tokenizer(tokenizer, target)


def _export_gguf(
    path: Path,
    precision: Precision,
    target: Path,
    on_progress: ProgressCallback,
    sampling: RecommendedSampling | None,
) -> GgufRecord:
    disable_telemetry()
    import openvino

    from core.store.gguf import network, reader, torch_model
    from core.store.gguf.companions import write_companions
    from core.store.gguf.summary import summary

    on_progress(Progress(Stage.EXPORTING, "Reading the GGUF file.", 0.1))
    about, file = summary(path), reader.read_gguf(path)
    kept, full = precision is Precision.STORED, precision is Precision.FP32
    if kept and not about.kept:  # replaced since it was chosen
        raise ConversionError(f"{path.name} can only be dequantised, not kept as stored.")
    deviation = None
    write_companions(file, target, sampling)
    from transformers import PreTrainedTokenizerFast  # AutoTokenizer takes a second longer

    tokenizer = PreTrainedTokenizerFast.from_pretrained(target, local_files_only=True)
    on_progress(Progress(Stage.EXPORTING, "Building the OpenVINO model.", 0.2))
    if file.architecture in reader.BUILT:
        model, deviation = network.build(file, None if kept else "f32" if full else "f16")
        with as_conversion_error("Saving the model"):
            openvino.save_model(model, target / IR_XML, compress_to_fp16=False)
        config = json.dumps(network.config_of(file), indent=2)
        (target / "config.json").write_text(config, encoding="utf-8")
    else:
        load_libraries()
        import torch
        from transformers import GenerationConfig

        model = torch_model.load(path, file, torch.float32 if full else torch.float16)
        model.generation_config = GenerationConfig.from_pretrained(target, local_files_only=True)
        with as_conversion_error("Export to OpenVINO"):
            export(model, tokenizer, target)
    del file, model
    gc.collect()
    on_progress(Progress(Stage.EXPORTING, "Converting the tokenizer.", 0.5))
    write_openvino_tokenizer(tokenizer, target)
    return GgufRecord(
        recipe=about.recipe,
        tensor_types=about.types,
        weights=about.weights.label if about.weights else about.recipe,
        deviation=deviation if kept else None,
    )


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in ``folder`` without running its custom code.

    Raises:
        NotAModelError: there is no tokenizer, or it cannot be read.
    """
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        # Given files that its class does not read, it has a few special tokens and no error.
        ids = tokenizer("the rain in Rome 1 的", add_special_tokens=False)["input_ids"]
        if set(ids) <= {tokenizer.unk_token_id}:
            raise ValueError(f"it has only {len(tokenizer)} tokens and knows no word")
        return tokenizer
    except (OSError, *LIBRARY_ERRORS) as error:
        found = [name for name in TOKENIZERS if (folder / name).is_file()]
        kind = f" ({found[0]}: {TOKENIZERS[found[0]]})" if found else ""
        raise NotAModelError(
            f"The tokenizer in {folder}{kind} cannot be read ({one_line(error)}). Download or "
            "copy the model's tokenizer files again, and install Paddock's requirements."
        ) from error


def _load_model(origin: Origin, precision: Precision) -> Any:
    import pickle

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    safetensors = origin.weight_files[0].suffix == ".safetensors"
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            origin.folder,
            output_loading_info=True,
            dtype=getattr(torch, origin.load_dtype(precision)),
            use_safetensors=safetensors,
            weights_only=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (pickle.UnpicklingError, EOFError) as error:
        raise _unreadable_pickle(origin, error) from error
    except (SafetensorError, OSError, *LIBRARY_ERRORS) as error:
        if not safetensors and "weights_only" in str(error).lower():
            raise _unreadable_pickle(origin, error) from error
        raise CorruptModelError(
            f"The checkpoint in {origin.folder} cannot be loaded ({one_line(error)}). Download or "
            "copy it again."
        ) from error
    if loading["missing_keys"]:  # transformers initialises them with random numbers
        raise CorruptModelError(
            f"The checkpoint in {origin.folder} lacks the weight {min(loading['missing_keys'])}. "
            "Download or copy it again."
        )
    unexpected = [key for key in loading["unexpected_keys"] if not _NOT_WEIGHTS.search(key)]
    if unexpected:
        raise NotAModelError(
            f"The checkpoint in {origin.folder} has the weight {min(unexpected)}, which the "
            f"architecture {model.config.model_type!r} in its config.json does not have. Choose "
            "the original model, or one whose architecture is part of transformers."
        )
    if precision is Precision.FP16:
        for name, tensor in model.named_parameters():
            if not torch.isfinite(tensor).all():
                raise ConversionError(
                    f"The weight {name} exceeds the range of FP16. Convert the model to FP32, "
                    "INT8 or INT4 instead."
                )
    return model.eval()


def _unreadable_pickle(origin: Origin, error: Exception) -> Exception:
    """Return the error for a pickle that would run code, or for one that is damaged."""
    names = ", ".join(path.name for path in origin.weight_files)
    text = str(error)
    if "Unsupported global" in text or "weights_only" in text.lower():
        return NotAModelError(
            f"{names} in {origin.folder} contains Python objects other than weights, which could "
            "run code when loaded, so it was not loaded. Use a safetensors version of the model."
        )
    return CorruptModelError(
        f"{names} in {origin.folder} cannot be read ({one_line(error)}). Download or copy it again."
    )


def export(model: Any, tokenizer: Any, target: Path) -> None:
    import torch
    from optimum.exporters.openvino.convert import export_from_model
    from optimum.intel.openvino.configuration import OVConfig

    with _without_version_limit(model.config.model_type), warnings.catch_warnings():
        # Tracing warns about each branch in the model's code, even if it does not depend on inputs.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        export_from_model(
            model,
            target,
            task="text-generation-with-past",
            stateful=True,
            # "fp32" keeps every constant in the dtype it was loaded in: it only means that
            # nothing is rounded while saving.
            ov_config=OVConfig(dtype="fp32"),
            preprocessors=[tokenizer],
            patch_16bit_model=model.dtype in (torch.float16, torch.bfloat16),
        )


@contextmanager
def _without_version_limit(model_type: str) -> Iterator[None]:
    """Lift Optimum's upper limit of transformers' version for architectures verified without it."""
    from optimum.exporters.tasks import TasksManager

    if model_type not in WITHOUT_VERSION_LIMIT:
        yield
        return
    exporter = TasksManager.get_exporter_config_constructor(
        "openvino", model_type=model_type, task="text-generation-with-past"
    ).func
    highest = exporter.MAX_TRANSFORMERS_VERSION
    exporter.MAX_TRANSFORMERS_VERSION = None
    try:
        yield
    finally:  # classes of other architectures inherit it
        exporter.MAX_TRANSFORMERS_VERSION = highest


def write_openvino_tokenizer(tokenizer: Any, target: Path) -> None:
    """Convert the tokenizer to OpenVINO models, which OpenVINO GenAI needs.

    Logs a warning and writes nothing if the tokenizer is not supported.
    """
    try:
        import openvino
        from openvino_tokenizers import convert_tokenizer

        models = convert_tokenizer(tokenizer, with_detokenizer=True)
    except (NotImplementedError, OSError, *LIBRARY_ERRORS) as error:
        log.warning("The tokenizer cannot be converted to OpenVINO: %s", one_line(error))
        return
    with as_conversion_error("Saving the tokenizer"):
        for model, name in zip(models, ("tokenizer", "detokenizer"), strict=True):
            openvino.save_model(model, target / f"openvino_{name}.xml", compress_to_fp16=False)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)  # in Hugging Face's cache the files are symbolic links
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)
