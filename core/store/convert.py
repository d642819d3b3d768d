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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.catalogue import Int4Settings, Precision
from core.errors import ConversionError, CorruptModelError, NotAModelError, PersonMistake
from core.store.checkpoint import CheckpointInfo
from core.store.progress import Progress, ProgressCallback, Stage
from core.store.quiet import refuse_telemetry
from core.store.weights import IR_BIN, IR_XML, WeightReport, read_weights

log = logging.getLogger(__name__)

_LIBRARIES = (
    "optimum.exporters.openvino.convert",
    "optimum.intel.openvino.configuration",
    "nncf",
    "openvino_tokenizers",
)

_LARGE_MODEL = 1_000_000_000
"""Parameters above which an FP32 checkpoint is loaded as FP16 for INT8 and INT4: the scales are
FP16 anyway and it halves the memory."""

_SMALLEST_GROUP = 16
"""Smallest INT4 group size that NNCF may fall back to where a layer's channels are not divisible
by the one asked for; a scale for fewer weights costs as much as it saves."""

_TORCH_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
)
"""What transformers, Optimum, OpenVINO and NNCF raise when they cannot handle a model."""

_IR_COMPANIONS = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "openvino_tokenizer.xml",
        "openvino_tokenizer.bin",
        "openvino_detokenizer.xml",
        "openvino_detokenizer.bin",
    }
)


@dataclass(frozen=True)
class Converted:
    """What a conversion made."""

    report: WeightReport
    """The weights as read back from the result."""
    int4: Int4Settings | None
    """The settings that were given to NNCF in the end."""


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
    info: CheckpointInfo,
    target: Path,
    scratch: Path,
    precision: Precision,
    int4: Int4Settings,
    on_progress: ProgressCallback,
) -> Converted:
    """Convert a PyTorch checkpoint.

    Args:
        info: the checkpoint.
        target: existing empty folder for the result.
        scratch: existing empty folder on the same disk, for the export before compression.
        precision: of the weights in the result.
        int4: settings used when ``precision`` is INT4.
        on_progress: told before each stage.

    Raises:
        NotAModelError: the tokenizer cannot be read, or the checkpoint wants to run code.
        CorruptModelError: the weights cannot be read.
        ConversionError: export or compression failed, or did not give the precision.
    """
    compressed = precision in (Precision.INT8, Precision.INT4)
    load_libraries()
    tokenizer = load_tokenizer(info.folder)
    on_progress(Progress(Stage.EXPORTING, "Reading the checkpoint.", 0.1))
    model = _load_model(info, precision)
    on_progress(Progress(Stage.EXPORTING, "Exporting to OpenVINO.", 0.3))
    exported = scratch if compressed else target
    with _as_conversion_error("Export to OpenVINO"):
        _export(model, tokenizer, exported)
    del model
    gc.collect()
    if not compressed:
        _write_openvino_tokenizer(tokenizer, target)
        return _checked(target, precision, None)
    on_progress(Progress(Stage.COMPRESSING, f"Compressing weights to {precision.label}.", 0.6))
    used = _compress(exported, target, precision, int4)
    for path in exported.iterdir():
        if path.name not in (IR_XML, IR_BIN):
            path.replace(target / path.name)
    _write_openvino_tokenizer(tokenizer, target)
    return _checked(target, precision, used)


def convert_ir(
    folder: Path,
    target: Path,
    precision: Precision,
    int4: Int4Settings,
    on_progress: ProgressCallback,
) -> Converted:
    """Take over an IR: linked or copied in the same precision, compressed to a lower one.

    An FP32 IR becomes FP16 by OpenVINO's own means, which round every constant.

    Raises:
        PersonMistake: the IR's weights are lower than the precision asked for, or compressed
            already, so that another precision cannot be had from it.
        CorruptModelError: the IR cannot be read.
        ConversionError: compression failed, or did not give the precision.
    """
    present = read_weights(folder)
    if present.precision is not precision:
        _check_reachable(folder, present, precision)
    load_libraries()
    tokenizer = load_tokenizer(folder)
    for path in sorted(folder.iterdir()):
        if path.name in _IR_COMPANIONS and path.is_file():
            shutil.copyfile(path, target / path.name)
    if not (target / "openvino_tokenizer.xml").is_file():
        _write_openvino_tokenizer(tokenizer, target)
    if present.precision is precision:
        on_progress(Progress(Stage.SAVING, "Taking over the OpenVINO model as it is.", 0.5))
        shutil.copyfile(folder / IR_XML, target / IR_XML)
        _link_or_copy(folder / IR_BIN, target / IR_BIN)
        return _checked(target, precision, _int4_of(present) if precision == "int4" else None)
    on_progress(Progress(Stage.COMPRESSING, f"Compressing weights to {precision.label}.", 0.3))
    if precision is Precision.FP16:
        with _as_conversion_error("Compression to FP16"):
            import openvino

            model = openvino.Core().read_model(folder / IR_XML)
            openvino.save_model(model, target / IR_XML, compress_to_fp16=True)
        return _checked(target, precision, None)
    used = _compress(folder, target, precision, int4)
    return _checked(target, precision, used)


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in ``folder``; code that comes with it is never run.

    Raises:
        NotAModelError: there is none, or it cannot be read.
    """
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, *_TORCH_ERRORS) as error:
        raise NotAModelError(
            f"The tokenizer in {folder} cannot be read ({_first_line(error)}); fetch or copy the "
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
    except (SafetensorError, OSError, *_TORCH_ERRORS) as error:
        if not info.safetensors and "weights_only" in str(error).lower():
            raise _unreadable_pickle(info, error) from error
        raise CorruptModelError(
            f"The checkpoint in {info.folder} cannot be loaded ({_first_line(error)}); fetch or "
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
        f"{names} in {info.folder} cannot be read ({_first_line(error)}); fetch or copy it again."
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
    return torch.float16 if info.parameters > _LARGE_MODEL else torch.float32


def _export(model: Any, tokenizer: Any, target: Path) -> None:
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


def _compress(
    source: Path, target: Path, precision: Precision, int4: Int4Settings
) -> Int4Settings | None:
    """Compress the IR in ``source`` into ``target``; returns the INT4 settings that were used."""
    if precision is Precision.INT8:
        _compress_once(source, target, None)
        return None
    attempts = (
        int4,
        # Models so small or oddly shaped that no layer can take the settings as they are.
        replace(int4, ratio=1.0),
        replace(int4, ratio=1.0, group_size=-1),
    )
    for attempt in attempts:
        _compress_once(source, target, attempt)
        if read_weights(target).four_bit_share > 0:
            return attempt
        log.warning("no layer became INT4 with %s", attempt)
    raise ConversionError(
        "No layer of this model can be compressed to INT4; convert it to INT8 instead."
    )


def _compress_once(source: Path, target: Path, int4: Int4Settings | None) -> None:
    import nncf
    import openvino

    nncf_errors = (
        nncf.InternalError,
        nncf.InvalidGroupSizeError,
        nncf.ParameterNotSupportedError,
        nncf.UnsupportedModelError,
        nncf.ValidationError,
    )
    with _as_conversion_error("Weight compression", nncf_errors):
        model = openvino.Core().read_model(source / IR_XML)
        if int4 is None:
            compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
        else:
            modes = nncf.CompressWeightsMode
            compressed = nncf.compress_weights(
                model,
                mode=modes.INT4_SYM if int4.symmetric else modes.INT4_ASYM,
                group_size=int4.group_size,
                ratio=int4.ratio,
                advanced_parameters=_group_fallback(),
            )
        _let_runtime_choose_kv_precision(compressed)
        openvino.save_model(compressed, target / IR_XML, compress_to_fp16=False)


def _group_fallback() -> Any:
    from nncf.quantization.advanced_parameters import (
        AdvancedCompressionParameters,
        GroupSizeFallbackMode,
    )

    return AdvancedCompressionParameters(
        group_size_fallback_mode=GroupSizeFallbackMode.ADJUST,
        min_adjusted_group_size=_SMALLEST_GROUP,
    )


def _let_runtime_choose_kv_precision(model: Any) -> None:
    """Drop the exporter's wish for an FP16 KV cache, as Optimum does when it compresses."""
    if model.has_rt_info(["runtime_options", "KV_CACHE_PRECISION"]):
        options = model.get_rt_info("runtime_options").value
        options.pop("KV_CACHE_PRECISION")
        model.set_rt_info(options, "runtime_options")


def _write_openvino_tokenizer(tokenizer: Any, target: Path) -> None:
    """Write the tokenizer as IR too, which OpenVINO GenAI needs; skipped where it cannot be."""
    try:
        import openvino
        from openvino_tokenizers import convert_tokenizer

        models = convert_tokenizer(tokenizer, with_detokenizer=True)
    except (NotImplementedError, OSError, *_TORCH_ERRORS) as error:
        log.warning("no OpenVINO tokenizer for this model: %s", _first_line(error))
        return
    with _as_conversion_error("Saving the tokenizer"):
        for model, name in zip(models, ("tokenizer", "detokenizer"), strict=True):
            openvino.save_model(model, target / f"openvino_{name}.xml", compress_to_fp16=False)


def _checked(target: Path, precision: Precision, int4: Int4Settings | None) -> Converted:
    """Read the weights back: what is not really in the precision asked for is not let through."""
    report = read_weights(target)
    if not report.is_really(precision):
        raise ConversionError(
            f"The result does not have {precision.label} weights but {report.types}; this is a "
            "fault of the export, so choose another precision."
        )
    return Converted(report, int4)


def _check_reachable(folder: Path, present: WeightReport, wanted: Precision) -> None:
    have = present.precision.label if present.precision else "BF16"
    from_floats = present.precision in (Precision.FP32, Precision.FP16, None)
    if from_floats and wanted in (Precision.INT8, Precision.INT4):
        return
    if present.precision is Precision.FP32 and wanted is Precision.FP16:
        return
    raise PersonMistake(
        f"The OpenVINO model in {folder} has {have} weights, from which {wanted.label} cannot be "
        "made; choose its own precision, or give the original checkpoint."
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


@contextmanager
def _as_conversion_error(what: str, further: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    try:
        yield
    except (*_TORCH_ERRORS, *further) as error:
        log.debug("%s failed", what, exc_info=True)
        raise ConversionError(
            f"{what} failed ({_first_line(error)}); the model may be of a kind that cannot be "
            "converted."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
