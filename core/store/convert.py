"""Turns a checkpoint, or another IR, into an OpenVINO IR whose weights have one precision.

The way of a checkpoint: it is loaded in its own 16-bit type (never blown up to FP32 unless that is
asked for), exported by Optimum Intel as a stateful IR, and for INT8 and INT4 read back
memory-mapped and compressed by NNCF, without data. Optimum's ``main_export`` is avoided on purpose:
it quantises large models to INT8 unasked, ignores ``ov_config`` and asks the hub.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shutil
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.catalogue import Int4Settings, Int8Settings, Precision, RecommendedSampling
from core.errors import ConversionError, CorruptModelError, NotAModelError
from core.store.checkpoint import IR_TOKENIZER_FILES, SMALL_FILES, CheckpointInfo
from core.store.compress import (
    Compress,
    by_nncf,
    by_optimum,
    compress_to_int4,
    compress_to_int8,
    write_texts,
)
from core.store.estimate import LARGE_MODEL
from core.store.library_env import refuse_telemetry
from core.store.library_errors import LIBRARY_ERRORS, as_conversion_error, first_line
from core.store.manifest import GgufRecord
from core.store.progress import Progress, ProgressCallback, Stage
from core.store.weights import IR_BIN, IR_XML, WeightReport, read_weights
from core.store.weights_source import check_reachable

log = logging.getLogger(__name__)

_LIBRARIES = (
    "optimum.exporters.openvino.convert",
    "optimum.intel.openvino.configuration",
    "nncf",
    "openvino_tokenizers",
)

_IR_COMPANIONS = SMALL_FILES | IR_TOKENIZER_FILES


@dataclass(frozen=True)
class Converted:
    """What a conversion made."""

    report: WeightReport
    """The weights as read back from the result."""
    int4: Int4Settings | None
    """The settings that were given to NNCF in the end; None for another precision."""
    int8: Int8Settings | None
    """Likewise; None also for an IR that came in INT8."""
    source_of_weights: Literal["checkpoint", "ir", "gguf"]
    source_bytes: int
    """Size of the weight files before."""
    gguf: GgufRecord | None = None
    """None where the weights were in no GGUF file."""


@dataclass(frozen=True)
class Target:
    """What is wanted."""

    folder: Path
    """Existing empty folder for the result."""
    precision: Precision
    int4: Int4Settings
    """Used for INT4 alone."""
    int8: Int8Settings
    """Used for INT8 alone."""


def load_libraries() -> None:
    """Import what a conversion needs: some seconds, most of the time of a small model.

    The garbage collector rests meanwhile: nothing that an import makes is garbage, and looking for
    it takes a fifth of the time. What was imported is then frozen, so that the collections that
    Optimum asks for around each export do not go through it again.
    """
    if all(name in sys.modules for name in _LIBRARIES):
        return
    refuse_telemetry()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for name in _LIBRARIES:
            importlib.import_module(name)
        gc.freeze()
    finally:
        if collecting:
            gc.enable()


def convert_checkpoint(
    info: CheckpointInfo, target: Target, scratch: Path, on_progress: ProgressCallback
) -> Converted:
    """Convert a PyTorch checkpoint.

    Args:
        info: the checkpoint.
        target: what is wanted.
        scratch: existing empty folder on the same disk, for the export before compression.
        on_progress: told before each stage.

    Raises:
        NotAModelError: the tokenizer cannot be read, or the checkpoint wants to run code.
        CorruptModelError: the weights cannot be read.
        ConversionError: export or compression failed, or did not give the precision.
    """
    compressed = target.precision in (Precision.INT8, Precision.INT4)
    load_libraries()
    tokenizer = load_tokenizer(info.folder)
    on_progress(Progress(Stage.EXPORTING, "Reading the checkpoint.", 0.1))
    model = _load_model(info, target.precision)
    on_progress(Progress(Stage.EXPORTING, "Exporting to OpenVINO.", 0.3))
    exported = scratch if compressed else target.folder
    with as_conversion_error("Export to OpenVINO"):
        export(model, tokenizer, exported)
    del model
    gc.collect()
    used = None
    if compressed:
        used = _compress(exported, target, by_optimum, on_progress, 0.6)
        for path in exported.iterdir():
            if path.name not in (IR_XML, IR_BIN):
                path.replace(target.folder / path.name)
    write_openvino_tokenizer(tokenizer, target.folder)
    size = sum(path.stat().st_size for path in info.weight_files)
    return _checked(target, used, "checkpoint", size)


def convert_ir(folder: Path, target: Target, on_progress: ProgressCallback) -> Converted:
    """Take over an IR: linked or copied in the same precision, compressed to a lower one.

    An FP32 IR becomes FP16 by OpenVINO's own means, which round every constant.

    Raises:
        PersonMistake: the IR's weights are lower than the precision asked for, or compressed
            already, so that another precision cannot be had from it.
        CorruptModelError: the IR cannot be read.
        ConversionError: compression failed, or did not give the precision.
    """
    present = read_weights(folder)
    check_reachable(folder, present.precision, target.precision)
    load_libraries()
    tokenizer = load_tokenizer(folder)
    for path in sorted(folder.iterdir()):
        if path.name in _IR_COMPANIONS and path.is_file():
            shutil.copyfile(path, target.folder / path.name)
    if not (target.folder / "openvino_tokenizer.xml").is_file():
        write_openvino_tokenizer(tokenizer, target.folder)
    used: Int4Settings | Int8Settings | None = None
    if present.precision is target.precision:
        on_progress(Progress(Stage.SAVING, "Taking over the OpenVINO model as it is.", 0.5))
        shutil.copyfile(folder / IR_XML, target.folder / IR_XML)
        _link_or_copy(folder / IR_BIN, target.folder / IR_BIN)
        used = _int4_of(present) if target.precision is Precision.INT4 else None
    elif target.precision is Precision.FP16:
        message = f"Compressing weights to {target.precision.label}."
        on_progress(Progress(Stage.COMPRESSING, message, 0.3))
        with as_conversion_error("Compression to FP16"):
            import openvino

            model = openvino.Core().read_model(folder / IR_XML)
            openvino.save_model(model, target.folder / IR_XML, compress_to_fp16=True)
    else:
        used = _compress(folder, target, by_nncf, on_progress, 0.3)
    return _checked(target, used, "ir", present.bytes)


def convert_gguf(
    path: Path,
    target: Target,
    scratch: Path,
    on_progress: ProgressCallback,
    sampling: RecommendedSampling | None = None,
) -> Converted:
    """Convert a GGUF file: its weights as they are, or another precision of what they stand for.

    INT8 and INT4 are compressed from the dequantised weights in FP16: quantised twice, they are
    less accurate than what is made from the model's original.

    Args:
        path: the file.
        target: what is wanted.
        scratch: existing empty folder on the same disk, for the FP16 model before compression.
        on_progress: told before each stage.
        sampling: what the model's card recommends, for its generation configuration.

    Raises:
        NotAModelError, CorruptModelError: the file cannot be used.
        ConversionError: writing or compression failed, or did not give the precision.
    """
    refuse_telemetry()
    import openvino

    from core.store.gguf import network, reader
    from core.store.gguf.companions import (
        check_chat_template,
        load_companion_tokenizer,
        write_companions,
    )

    on_progress(Progress(Stage.EXPORTING, "Reading the GGUF file.", 0.1))
    summary, file = reader.summary(path), reader.read_gguf(path)
    compressed = target.precision in (Precision.INT8, Precision.INT4)
    kept = target.precision is Precision.STORED
    dequantised = None if kept else "f32" if target.precision is Precision.FP32 else "f16"
    folder = scratch if compressed else target.folder
    write_companions(file, folder, sampling)
    on_progress(Progress(Stage.EXPORTING, "Building the OpenVINO model.", 0.2))
    built = network.build(file, dequantised)
    with as_conversion_error("Saving the model"):
        openvino.save_model(built.model, folder / IR_XML, compress_to_fp16=False)
    record = GgufRecord(
        recipe=summary.recipe,
        tensor_types=summary.types,
        weights=summary.weights.label if summary.weights else summary.recipe,
        deviation=built.deviation if kept else None,
    )
    del built, file
    gc.collect()
    on_progress(Progress(Stage.EXPORTING, "Converting the tokenizer.", 0.5))
    tokenizer = load_companion_tokenizer(folder)
    check_chat_template(tokenizer, path.name)
    write_openvino_tokenizer(tokenizer, folder)
    if compressed:
        made = convert_ir(scratch, target, on_progress)
    else:
        made = _checked(target, None, "gguf", summary.bytes)
    return replace(made, source_of_weights="gguf", source_bytes=summary.bytes, gguf=record)


def _compress(
    source: Path, target: Target, once: Compress, on_progress: ProgressCallback, fraction: float
) -> Int4Settings | Int8Settings:
    texts: tuple[str, ...] = ()
    if target.precision is Precision.INT4 and target.int4.scale_estimation:
        message = "The model writes texts for scale estimation."
        on_progress(Progress(Stage.COMPRESSING, message, fraction))
        texts = write_texts(source)
    message = f"Compressing weights to {target.precision.label}."
    on_progress(Progress(Stage.COMPRESSING, message, fraction))
    if target.precision is Precision.INT8:
        compress_to_int8(source, target.folder, target.int8, once)
        return target.int8
    return compress_to_int4(source, target.folder, target.int4, once, texts)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in ``folder``; code that comes with it is never run.

    Raises:
        NotAModelError: there is none, or it cannot be read.
    """
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, *LIBRARY_ERRORS) as error:
        raise NotAModelError(
            f"The tokenizer in {folder} cannot be read ({first_line(error)}); fetch or copy the "
            "model's tokenizer files again."
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
            f"The checkpoint in {info.folder} cannot be loaded ({first_line(error)}); fetch or "
            "copy it again."
        ) from error
    if loading["missing_keys"]:  # transformers fills them with random numbers
        raise CorruptModelError(
            f"The checkpoint in {info.folder} lacks {min(loading['missing_keys'])}; fetch or copy "
            "it again."
        )
    if precision is Precision.FP16:
        for name, tensor in model.named_parameters():
            if not torch.isfinite(tensor).all():
                raise ConversionError(
                    f"Weight {name} does not fit the range of FP16; convert the model to FP32, "
                    "INT8 or INT4 instead."
                )
    return model.eval()


def _unreadable_pickle(info: CheckpointInfo, error: Exception) -> Exception:
    """Tell a pickle that wants code run from one that is merely broken."""
    names = ", ".join(path.name for path in info.weight_files)
    text = str(error)
    if "Unsupported global" in text or "weights_only" in text.lower():
        return NotAModelError(
            f"{names} in {info.folder} holds Python objects other than weights, which could run "
            "code when loaded; Paddock refuses it, so use a safetensors version of the model."
        )
    return CorruptModelError(
        f"{names} in {info.folder} cannot be read ({first_line(error)}); fetch or copy it again."
    )


def _load_dtype(info: CheckpointInfo, precision: Precision) -> Any:
    """Type to load a checkpoint in.

    FP16 is made by loading as FP16, not by ``save_model(compress_to_fp16=True)``, which would
    also round the rotary frequencies and so shift positions far into a long text.
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

    with warnings.catch_warnings():
        # Tracing warns about each branch in the models' code that is the same for every input.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        export_from_model(
            model,
            target,
            task="text-generation-with-past",
            stateful=True,
            # "fp32" keeps every constant in the type it was loaded in: it only means that
            # nothing is rounded while saving.
            ov_config=OVConfig(dtype="fp32"),
            preprocessors=[tokenizer],
            patch_16bit_model=model.dtype in (torch.float16, torch.bfloat16),
        )


def write_openvino_tokenizer(tokenizer: Any, target: Path) -> None:
    """Write the tokenizer as IR too, which OpenVINO GenAI needs; skipped where it cannot be."""
    try:
        import openvino
        from openvino_tokenizers import convert_tokenizer

        models = convert_tokenizer(tokenizer, with_detokenizer=True)
    except (NotImplementedError, OSError, *LIBRARY_ERRORS) as error:
        log.warning("no OpenVINO tokenizer for this model: %s", first_line(error))
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
    """Read the weights back: what is not really in the precision asked for is not let through."""
    report = read_weights(target.folder)
    if target.precision is not Precision.STORED and not report.is_really(target.precision):
        raise ConversionError(
            f"The result does not have {target.precision.label} weights but {report.types}; this "
            "is a fault of the export, so choose another precision."
        )
    return Converted(
        report=report,
        int4=used if isinstance(used, Int4Settings) else None,
        int8=used if isinstance(used, Int8Settings) else None,
        source_of_weights=source_of_weights,
        source_bytes=source_bytes,
    )


def _int4_of(report: WeightReport) -> Int4Settings:
    """The INT4 settings of an IR that came compressed, as its weights show them."""
    common = max(report.group_sizes, key=report.group_sizes.__getitem__)
    return Int4Settings(report.symmetric, common, round(report.four_bit_share, 3))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)
