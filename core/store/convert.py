"""Convert a checkpoint, an IR or a GGUF file to an OpenVINO IR with weights of one precision.

A checkpoint is loaded in its own 16-bit dtype (and converted to FP32 only if FP32 is requested),
exported by Optimum Intel as a stateful IR, and for INT8 and INT4 read back memory-mapped and
compressed by NNCF, without a data set. Optimum's ``main_export`` is not used on purpose: it
quantises large models to INT8 by default, ignores ``ov_config`` and contacts the hub.
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
    generate_texts,
)
from core.store.estimate import LARGE_MODEL
from core.store.library_env import disable_telemetry
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

    The garbage collector is disabled meanwhile: imports create no garbage, and looking for it takes
    a fifth of the time. The imported objects are then frozen, so that the collections that Optimum
    runs around each export skip them.
    """
    if all(name in sys.modules for name in _LIBRARIES):
        return
    disable_telemetry()
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
        target: requested result.
        scratch: existing empty folder on the same disk, for the export before compression.
        on_progress: called before each stage.

    Raises:
        NotAModelError: the tokenizer cannot be read, or the checkpoint could run code.
        CorruptModelError: the weights cannot be read.
        ConversionError: export or compression failed, or the result has another precision.
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
    """Import an IR: link or copy it if the precision is the same, otherwise compress it.

    FP32 is converted to FP16 by ``openvino.save_model``, which rounds every constant.

    Raises:
        UserError: the IR's weights have a lower precision than requested, or are compressed
            already, so that they cannot be converted to another precision.
        CorruptModelError: the IR cannot be read.
        ConversionError: compression failed, or the result has another precision.
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
        on_progress(Progress(Stage.SAVING, "Copying the OpenVINO model.", 0.5))
        shutil.copyfile(folder / IR_XML, target.folder / IR_XML)
        _link_or_copy(folder / IR_BIN, target.folder / IR_BIN)
        used = _int4_settings(present) if target.precision is Precision.INT4 else None
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
    """Convert a GGUF file: keep its weights as stored, or convert them to another precision.

    INT8 and INT4 are compressed from the dequantised weights in FP16. Quantised twice, they are
    less accurate than a conversion of the original checkpoint.

    Args:
        path: the file.
        target: requested result.
        scratch: existing empty folder on the same disk, for the FP16 model before compression.
        on_progress: called before each stage.
        sampling: recommended by the model card, for ``generation_config.json``.

    Raises:
        NotAModelError, CorruptModelError: the file cannot be used.
        ConversionError: saving or compression failed, or the result has another precision.
    """
    disable_telemetry()
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
        result = convert_ir(scratch, target, on_progress)
    else:
        result = _checked(target, None, "gguf", summary.bytes)
    return replace(result, source_of_weights="gguf", source_bytes=summary.bytes, gguf=record)


def _compress(
    source: Path, target: Target, once: Compress, on_progress: ProgressCallback, fraction: float
) -> Int4Settings | Int8Settings:
    texts: tuple[str, ...] = ()
    if target.precision is Precision.INT4 and target.int4.scale_estimation:
        message = "Generating texts for scale estimation."
        on_progress(Progress(Stage.COMPRESSING, message, fraction))
        texts = generate_texts(source)
    message = f"Compressing weights to {target.precision.label}."
    on_progress(Progress(Stage.COMPRESSING, message, fraction))
    if target.precision is Precision.INT8:
        compress_to_int8(source, target.folder, target.int8, once)
        return target.int8
    return compress_to_int4(source, target.folder, target.int4, once, texts)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in ``folder`` without running its custom code.

    Raises:
        NotAModelError: there is no tokenizer, or it cannot be read.
    """
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, *LIBRARY_ERRORS) as error:
        raise NotAModelError(
            f"The tokenizer in {folder} cannot be read ({first_line(error)}). Download or copy "
            "the model's tokenizer files again."
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
            f"The export produced {report.types} instead of {target.precision.label} weights. "
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
    return Int4Settings(report.symmetric, common, round(report.four_bit_share, 3))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(source, target)
