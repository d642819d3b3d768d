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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.catalogue import Int4Settings, Int8Settings, Precision, RecommendedSampling
from core.errors import ConversionError, CorruptModelError, NotAModelError, UserError
from core.store.architectures import WITHOUT_VERSION_LIMIT
from core.store.checkpoint import CheckpointInfo
from core.store.compress import compress, compress_to_int4, generate_texts
from core.store.estimate import LARGE_MODEL
from core.store.library_env import (
    LIBRARY_ERRORS,
    as_conversion_error,
    disable_telemetry,
    first_line,
    quick_imports,
)
from core.store.manifest import GgufRecord
from core.store.model_files import IR_TOKENIZER_FILES, SMALL_FILES, TOKENIZERS
from core.store.progress import Progress, ProgressCallback, Stage
from core.store.weights import IR_BIN, IR_XML, WeightReport, check_cache, read_weights
from core.store.weights_source import check_reachable, not_kept

log = logging.getLogger(__name__)

_LIBRARIES = (
    "optimum.exporters.openvino.convert",
    "optimum.intel.openvino.configuration",
    "nncf",
    "openvino_tokenizers",
)

_IR_COMPANIONS = SMALL_FILES | IR_TOKENIZER_FILES

_NOT_WEIGHTS = re.compile(
    r"(inv_freq|masked_bias|att\w*\.bias|causal_mask|position_ids|embed_positions\.weights|version)$"
    r"|^v_head\."
)
"""Masks and tables that earlier versions of transformers stored, and the value head of training."""


@dataclass(frozen=True)
class Converted:
    """Result of a conversion."""

    report: WeightReport
    """The weights, read back from the result."""
    int4: Int4Settings | None
    """Settings that NNCF used; None for another precision."""
    int8: Int8Settings | None
    """Likewise; None also if the source was an INT8 IR already."""
    source_of_weights: Literal["checkpoint", "ir", "gguf"]
    source_bytes: int
    """Size of the source's weight files."""
    gguf: GgufRecord | None = None
    """None if the source is not a GGUF file."""


@dataclass(frozen=True)
class Target:
    """Requested result of a conversion."""

    folder: Path
    """Existing empty folder for the result."""
    precision: Precision
    int4: Int4Settings
    """Only used for INT4."""
    int8: Int8Settings
    """Only used for INT8."""


def load_libraries() -> None:
    """Import the conversion libraries, which takes seconds: most of the time for a small model.

    The imported objects are frozen, so that the collections that Optimum runs around each export
    skip them.
    """
    disable_telemetry()
    with quick_imports():
        for name in _LIBRARIES:
            importlib.import_module(name)
    gc.freeze()


def convert_checkpoint(
    info: CheckpointInfo, target: Target, scratch: Path, on_progress: ProgressCallback
) -> Converted:
    """Convert a PyTorch checkpoint.

    Args:
        scratch: existing empty folder on the same disk, for the export before compression.

    Raises:
        NotAModelError: the tokenizer cannot be read, the checkpoint could run code, or it has
            weights that its architecture does not have.
        CorruptModelError: the weights cannot be read.
        ConversionError: export or compression failed, or the result has another precision.
    """
    load_libraries()
    tokenizer = load_tokenizer(info.folder)
    on_progress(Progress(Stage.EXPORTING, "Reading the checkpoint.", 0.1))
    model = _load_model(info, target.precision)
    on_progress(Progress(Stage.EXPORTING, "Exporting to OpenVINO.", 0.3))
    exported = scratch if target.precision.compressed else target.folder
    with as_conversion_error("Export to OpenVINO"):
        export(model, tokenizer, exported)
    del model
    gc.collect()
    write_openvino_tokenizer(tokenizer, exported)
    size = sum(path.stat().st_size for path in info.weight_files)
    return _finished(exported, target, "checkpoint", size, on_progress)


def convert_ir(folder: Path, target: Target, on_progress: ProgressCallback) -> Converted:
    """Import an IR: link or copy it if it has the precision already, otherwise compress it.

    Whatever mix of formats its weights have, an imported IR is not changed.

    FP32 is converted to FP16 by ``openvino.save_model``, which rounds every constant.

    Raises:
        UserError: the IR's weights have a lower precision than requested, or are compressed
            already, so that they cannot be converted to another precision.
        NotAModelError: it was exported without a cache.
        CorruptModelError: the IR cannot be read.
        ConversionError: compression failed, or the result has another precision.
    """
    present = read_weights(folder)
    check_cache(folder, present)
    check_reachable(folder, present.formats, target.precision)
    load_libraries()
    tokenizer = load_tokenizer(folder)
    for path in sorted(folder.iterdir()):
        if path.name in _IR_COMPANIONS and path.is_file():
            shutil.copyfile(path, target.folder / path.name)
    if not (target.folder / "openvino_tokenizer.xml").is_file():
        write_openvino_tokenizer(tokenizer, target.folder)
    if target.precision in (present.precision, Precision.STORED):
        on_progress(Progress(Stage.SAVING, "Copying the OpenVINO model.", 0.5))
        shutil.copyfile(folder / IR_XML, target.folder / IR_XML)
        _link_or_copy(folder / IR_BIN, target.folder / IR_BIN)
        int4 = _int4_settings(present) if target.precision is Precision.INT4 else None
        return Converted(read_weights(target.folder), int4, None, "ir", present.bytes)
    used: Int4Settings | Int8Settings | None = None
    if target.precision is Precision.FP16:
        message = f"Compressing weights to {target.precision.label}."
        on_progress(Progress(Stage.COMPRESSING, message, 0.3))
        with as_conversion_error("Compression to FP16"):
            import openvino

            model = openvino.Core().read_model(folder / IR_XML)
            openvino.save_model(model, target.folder / IR_XML, compress_to_fp16=True)
    else:
        used = _compress(folder, target, on_progress, 0.3)
    return _checked(target, used, "ir", present.bytes)


def convert_gguf(
    path: Path,
    target: Target,
    scratch: Path,
    on_progress: ProgressCallback,
    sampling: RecommendedSampling | None = None,
) -> Converted:
    """Convert a GGUF file: keep its weights as stored, or convert them to another precision.

    INT8 and INT4 are compressed from the dequantised weights in FP16. Quantised twice, they are
    less accurate than a conversion of the original checkpoint.

    Args:
        scratch: existing empty folder on the same disk, for the FP16 model before compression.
        sampling: recommended by the model card, for ``generation_config.json``.

    Raises:
        NotAModelError, CorruptModelError: the file cannot be used.
        UserError: its weights cannot be kept as stored.
        ConversionError: saving or compression failed, or the result has another precision.
    """
    disable_telemetry()
    import openvino

    from core.store.gguf import network, reader, torch_model
    from core.store.gguf.companions import (
        load_companion_tokenizer,
        write_companions,
    )
    from core.store.gguf.summary import summary

    on_progress(Progress(Stage.EXPORTING, "Reading the GGUF file.", 0.1))
    about, file = summary(path), reader.read_gguf(path)
    kept = target.precision is Precision.STORED
    if kept and not about.kept:
        raise UserError(not_kept(path.name))
    full = target.precision is Precision.FP32
    folder = scratch if target.precision.compressed else target.folder
    write_companions(file, folder, sampling)
    tokenizer = load_companion_tokenizer(folder)
    on_progress(Progress(Stage.EXPORTING, "Building the OpenVINO model.", 0.2))
    deviation = None
    if file.architecture in reader.BUILT:
        built = network.build(file, None if kept else "f32" if full else "f16")
        with as_conversion_error("Saving the model"):
            openvino.save_model(built.model, folder / IR_XML, compress_to_fp16=False)
        config = json.dumps(network.config_of(file), indent=2)
        (folder / "config.json").write_text(config, encoding="utf-8")
        deviation = built.deviation if kept else None
        del built
    else:
        load_libraries()
        import torch

        model = torch_model.load(path, file, torch.float32 if full else torch.float16)
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        with as_conversion_error("Export to OpenVINO"):
            export(model, tokenizer, folder)
        del model
    record = GgufRecord(
        recipe=about.recipe,
        tensor_types=about.types,
        weights=about.weights.label if about.weights else about.recipe,
        deviation=deviation,
    )
    del file
    gc.collect()
    on_progress(Progress(Stage.EXPORTING, "Converting the tokenizer.", 0.5))
    write_openvino_tokenizer(tokenizer, folder)
    return replace(_finished(folder, target, "gguf", about.bytes, on_progress), gguf=record)


def _finished(
    exported: Path,
    target: Target,
    source_of_weights: Literal["checkpoint", "gguf"],
    source_bytes: int,
    on_progress: ProgressCallback,
) -> Converted:
    """Compress the IR in a scratch folder if requested, and check the result."""
    used = None
    if target.precision.compressed:
        used = _compress(exported, target, on_progress, 0.6)
        for path in exported.iterdir():
            if path.name not in (IR_XML, IR_BIN):
                path.replace(target.folder / path.name)
    return _checked(target, used, source_of_weights, source_bytes)


def _compress(
    source: Path, target: Target, on_progress: ProgressCallback, fraction: float
) -> Int4Settings | Int8Settings:
    texts: tuple[str, ...] = ()
    if target.precision.int4 and target.int4.scale_estimation:
        message = "Generating texts for scale estimation."
        on_progress(Progress(Stage.COMPRESSING, message, fraction))
        texts = generate_texts(source)
    message = f"Compressing weights to {target.precision.label}."
    on_progress(Progress(Stage.COMPRESSING, message, fraction))
    if target.precision.int4:
        return compress_to_int4(source, target.folder, target.int4, texts)
    compress(source, target.folder, target.int8)
    return target.int8


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
            f"The tokenizer in {folder}{kind} cannot be read ({first_line(error)}). Download or "
            "copy the model's tokenizer files again, and install Paddock's requirements."
        ) from error


def _load_model(info: CheckpointInfo, precision: Precision) -> Any:
    import pickle

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            info.folder,
            output_loading_info=True,
            dtype=_load_dtype(info, precision),
            use_safetensors=info.safetensors,
            weights_only=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (pickle.UnpicklingError, EOFError) as error:
        raise _unreadable_pickle(info, error) from error
    except (SafetensorError, OSError, *LIBRARY_ERRORS) as error:
        if not info.safetensors and "weights_only" in str(error).lower():
            raise _unreadable_pickle(info, error) from error
        raise CorruptModelError(
            f"The checkpoint in {info.folder} cannot be loaded ({first_line(error)}). Download or "
            "copy it again."
        ) from error
    if loading["missing_keys"]:  # transformers initialises them with random numbers
        raise CorruptModelError(
            f"The checkpoint in {info.folder} lacks the weight {min(loading['missing_keys'])}. "
            "Download or copy it again."
        )
    unexpected = [key for key in loading["unexpected_keys"] if not _NOT_WEIGHTS.search(key)]
    if unexpected:
        raise NotAModelError(
            f"The checkpoint in {info.folder} has the weight {min(unexpected)}, which the "
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


def _unreadable_pickle(info: CheckpointInfo, error: Exception) -> Exception:
    """Return the error for a pickle that would run code, or for one that is damaged."""
    names = ", ".join(path.name for path in info.weight_files)
    text = str(error)
    if "Unsupported global" in text or "weights_only" in text.lower():
        return NotAModelError(
            f"{names} in {info.folder} contains Python objects other than weights, which could "
            "run code when loaded, so it was not loaded. Use a safetensors version of the model."
        )
    return CorruptModelError(
        f"{names} in {info.folder} cannot be read ({first_line(error)}). Download or copy it again."
    )


def _load_dtype(info: CheckpointInfo, precision: Precision) -> Any:
    """Return the dtype to load a checkpoint in.

    For FP16 the checkpoint is loaded as FP16. ``save_model(compress_to_fp16=True)`` would also
    round the rotary frequencies and so shift positions late in a long text.
    """
    import torch

    if precision is Precision.FP32:
        return torch.float32
    if precision is Precision.FP16:
        return torch.float16
    if info.dtype in ("float16", "bfloat16"):
        return getattr(torch, info.dtype)
    return torch.float16 if info.parameters > LARGE_MODEL else torch.float32


def export(model: Any, tokenizer: Any, target: Path) -> None:
    import torch
    from optimum.exporters.openvino.convert import export_from_model
    from optimum.intel.openvino.configuration import OVConfig

    _lift_version_limit(model.config.model_type)
    with warnings.catch_warnings():
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


def _lift_version_limit(model_type: str) -> None:
    """Lift Optimum's upper limit of transformers' version for architectures verified without it."""
    from optimum.exporters.tasks import TasksManager

    if model_type in WITHOUT_VERSION_LIMIT:
        exporter = TasksManager.get_exporter_config_constructor(
            "openvino", model_type=model_type, task="text-generation-with-past"
        ).func
        exporter.MAX_TRANSFORMERS_VERSION = None


def write_openvino_tokenizer(tokenizer: Any, target: Path) -> None:
    """Convert the tokenizer to OpenVINO models, which OpenVINO GenAI needs.

    Logs a warning and writes nothing if the tokenizer is not supported.
    """
    try:
        import openvino
        from openvino_tokenizers import convert_tokenizer

        models = convert_tokenizer(tokenizer, with_detokenizer=True)
    except (NotImplementedError, OSError, *LIBRARY_ERRORS) as error:
        log.warning("The tokenizer cannot be converted to OpenVINO: %s", first_line(error))
        return
    with as_conversion_error("Saving the tokenizer"):
        for model, name in zip(models, ("tokenizer", "detokenizer"), strict=True):
            openvino.save_model(model, target / f"openvino_{name}.xml", compress_to_fp16=False)


def _checked(
    target: Target,
    used: Int4Settings | Int8Settings | None,
    source_of_weights: Literal["checkpoint", "ir", "gguf"],
    source_bytes: int,
) -> Converted:
    """Read the weights back and refuse a result that does not have the requested precision."""
    report = read_weights(target.folder)
    if target.precision is not Precision.STORED and not report.is_really(target.precision):
        raise ConversionError(
            f"The export produced {report.mix} instead of {target.precision.label} weights. "
            "Choose another precision."
        )
    return Converted(
        report=report,
        int4=used if isinstance(used, Int4Settings) else None,
        int8=used if isinstance(used, Int8Settings) else None,
        source_of_weights=source_of_weights,
        source_bytes=source_bytes,
    )


def _int4_settings(report: WeightReport) -> Int4Settings:
    """Return the INT4 settings of an IR, derived from its weights."""
    common = max(report.group_sizes, key=report.group_sizes.__getitem__)
    return Int4Settings(report.symmetric, common, round(report.layer_share, 2))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)  # in Hugging Face's cache the files are symbolic links
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)
