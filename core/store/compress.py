"""Compresses the weights of an IR to INT8 or INT4.

Two ways lead to the same arithmetic: Optimum Intel's ``OVWeightQuantizationConfig`` for an export
that has its configuration beside it, and ``nncf.compress_weights`` for any IR. No data from outside
is used. Scale estimation, which needs activations, takes them from texts that the model itself
writes.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.catalogue import Int4Settings, Int8Settings
from core.errors import ConversionError
from core.hardware.memory import mapped_files_released
from core.store.library_errors import as_conversion_error
from core.store.weights import IR_XML, read_weights

log = logging.getLogger(__name__)

Compress = Callable[[Path, Path, "Recipe"], None]
"""Compresses the IR in the first folder into the second."""

_SMALLEST_GROUP = 16
"""Smallest INT4 group size that NNCF may fall back to where a layer's channels are not divisible
by the one asked for; a scale for fewer weights costs as much as it saves."""

TEXTS = 32
"""Texts that a model writes for scale estimation; NNCF keeps a few numbers per channel of them."""

TEXT_TOKENS = 32
"""Length of each, as in NNCF's own generator of texts."""

_TEXTS_AT_ONCE = 8
_TEXTS_SEED = 7


@dataclass(frozen=True)
class Recipe:
    """One attempt at compression."""

    settings: Int4Settings | Int8Settings
    texts: tuple[str, ...] = ()
    """What scale estimation runs the model on."""


def compress_to_int8(source: Path, target: Path, settings: Int8Settings, once: Compress) -> None:
    """Compress the IR in ``source`` to INT8.

    Raises:
        ConversionError: NNCF cannot.
    """
    with mapped_files_released(source):
        once(source, target, Recipe(settings))


def compress_to_int4(
    source: Path,
    target: Path,
    settings: Int4Settings,
    once: Compress,
    texts: tuple[str, ...] = (),
) -> Int4Settings:
    """Compress the IR in ``source`` to INT4 and return the settings that were used in the end.

    Args:
        texts: from :func:`write_texts`; needed for scale estimation.

    Raises:
        ConversionError: NNCF cannot, or no layer can become INT4.
    """
    attempts = (
        settings,
        # Models so small or oddly shaped that no layer can take the settings as they are.
        replace(settings, ratio=1.0),
        replace(settings, ratio=1.0, group_size=-1),
    )
    for attempt in attempts:
        with mapped_files_released(source):
            once(source, target, Recipe(attempt, texts))
        if read_weights(target).four_bit_share > 0:
            return attempt
        log.warning("no layer became INT4 with %s", attempt)
    raise ConversionError(
        "No layer of this model can be compressed to INT4; convert it to INT8 instead."
    )


def by_optimum(source: Path, target: Path, recipe: Recipe) -> None:
    """Compress through Optimum Intel; ``source`` holds configuration and tokenizer too."""
    with as_conversion_error("Weight compression", _nncf_errors()):
        import openvino
        from optimum.intel import OVModelForCausalLM

        model = OVModelForCausalLM.from_pretrained(
            str(source),
            export=False,
            compile=False,
            trust_remote_code=False,
            quantization_config=_optimum_configuration(source, recipe),
        )
        openvino.save_model(model.model, target / IR_XML, compress_to_fp16=False)


def by_nncf(source: Path, target: Path, recipe: Recipe) -> None:
    """Compress through NNCF alone."""
    with as_conversion_error("Weight compression", _nncf_errors()):
        import nncf
        import openvino

        model = openvino.Core().read_model(source / IR_XML)
        settings = recipe.settings
        modes = nncf.CompressWeightsMode
        if isinstance(settings, Int8Settings):
            mode = modes.INT8_SYM if settings.symmetric else modes.INT8_ASYM
            compressed = nncf.compress_weights(model, mode=mode)
        else:
            data = _inputs(source, model, recipe.texts) if recipe.texts else None
            compressed = nncf.compress_weights(
                model,
                mode=modes.INT4_SYM if settings.symmetric else modes.INT4_ASYM,
                group_size=settings.group_size,
                ratio=settings.ratio,
                dataset=nncf.Dataset(data) if data else None,
                subset_size=max(len(recipe.texts), 1),
                scale_estimation=bool(data),
                advanced_parameters=_group_fallback(),
            )
        _let_runtime_choose_kv_precision(compressed)
        openvino.save_model(compressed, target / IR_XML, compress_to_fp16=False)


def write_texts(folder: Path, count: int = TEXTS) -> tuple[str, ...]:
    """Have the model in ``folder`` write short texts, each begun with another token.

    The first tokens are spread over the whole vocabulary and the rest is sampled, so that the
    texts lie where the model's own answers lie. The same model writes the same texts again.

    Raises:
        ConversionError: the model cannot be run, or writes nothing.
    """
    with as_conversion_error("Writing texts for scale estimation"):
        import torch
        from optimum.intel import OVModelForCausalLM
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = OVModelForCausalLM.from_pretrained(
            str(folder), export=False, device="CPU", trust_remote_code=False
        )
        firsts = torch.linspace(0, len(tokenizer) - 1, count).long().unsqueeze(1)
        texts: list[str] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_TEXTS_SEED)
            for first in firsts.split(_TEXTS_AT_ONCE):
                ids = model.generate(
                    first,
                    attention_mask=torch.ones_like(first),
                    do_sample=True,
                    top_k=0,
                    min_new_tokens=TEXT_TOKENS,
                    max_new_tokens=TEXT_TOKENS,
                    pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
                )
                texts += tokenizer.batch_decode(ids, skip_special_tokens=True)
        del model
        gc.collect()
        written = tuple(text for text in texts if text.strip() and tokenizer(text)["input_ids"])
    if not written:
        raise ConversionError(
            "The model wrote no text to estimate scales on; convert it without scale estimation."
        )
    return written


def _optimum_configuration(source: Path, recipe: Recipe) -> Any:
    from optimum.intel import OVWeightQuantizationConfig

    settings = recipe.settings
    if isinstance(settings, Int8Settings):
        return OVWeightQuantizationConfig(bits=8, sym=settings.symmetric)
    data = {}
    if recipe.texts:
        data = {
            "dataset": list(recipe.texts),
            "num_samples": len(recipe.texts),
            "tokenizer": str(source),
            "scale_estimation": True,
        }
    return OVWeightQuantizationConfig(
        bits=4,
        sym=settings.symmetric,
        group_size=settings.group_size,
        ratio=settings.ratio,
        advanced_parameters=_group_fallback(),
        **data,
    )


def _inputs(folder: Path, model: Any, texts: tuple[str, ...]) -> list[dict[str, Any]]:
    """What the IR ``model`` takes in, once per text; arrays are (1, tokens)."""
    import numpy as np
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    names = {name for port in model.inputs for name in port.names}
    made = []
    for text in texts:
        ids = np.asarray(tokenizer(text)["input_ids"], dtype=np.int64)[None]
        every = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        made.append({name: value for name, value in every.items() if name in names})
    return made


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


def _nncf_errors() -> tuple[type[Exception], ...]:
    import nncf

    return (
        nncf.InternalError,
        nncf.InvalidGroupSizeError,
        nncf.ParameterNotSupportedError,
        nncf.UnsupportedModelError,
        nncf.ValidationError,
    )
