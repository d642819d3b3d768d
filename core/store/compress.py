"""Compress the weights of an IR to INT8 or INT4 with NNCF.

No external data set is used. Scale estimation, which needs activations, runs the model on texts
that it has generated itself, and AWQ uses the same texts, or no data.
"""

from __future__ import annotations

import gc
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.catalogue import Compression, Int8Settings
from core.errors import ConversionError
from core.hardware.memory import mapped_files_released
from core.store.estimate import SMALLEST_GROUP
from core.store.library_env import as_conversion_error
from core.store.optimum_model import load_optimum_model
from core.store.weights import IR_XML, read_weights

log = logging.getLogger(__name__)

TEXTS = 32
"""Number of texts generated for scale estimation; NNCF keeps a few numbers per channel of them."""

TEXT_TOKENS = 32
"""Tokens of each text, as in NNCF's own text generator."""

_TEXTS_BATCH = 8
_TEXTS_SEED = 7


def compress_to_fit(
    source: Path, target: Path, settings: Compression, texts: tuple[str, ...] = ()
) -> Compression:
    """Compress the IR in ``source`` and return the settings that were used: for INT4 others than
    given if no layer supports those.

    Args:
        texts: from :func:`generate_texts`; required for scale estimation.

    Raises:
        ConversionError: compression failed, or no layer can be compressed to INT4.
    """
    if isinstance(settings, Int8Settings):
        compress(source, target, settings)
        return settings
    attempts = (
        settings,
        # For small or unusually shaped models in which no layer supports the settings as given.
        replace(settings, ratio=1.0),
        replace(settings, ratio=1.0, group_size=-1),
    )
    for attempt in attempts:
        compress(source, target, attempt, texts)
        if read_weights(target).four_bit_share > 0:
            return attempt
        log.warning("No layer was compressed to INT4 with %s", attempt)
    raise ConversionError(
        "No layer of this model can be compressed to INT4. Convert it to INT8 instead."
    )


def compress(
    source: Path, target: Path, settings: Compression, texts: tuple[str, ...] = ()
) -> None:
    """Compress the IR in ``source`` and write the result to ``target``.

    The weights are those of Optimum Intel's ``OVWeightQuantizationConfig``.

    Raises:
        ConversionError: compression failed.
    """
    import nncf

    errors = (
        nncf.InternalError,
        nncf.InvalidGroupSizeError,
        nncf.ParameterNotSupportedError,
        nncf.UnsupportedModelError,
        nncf.ValidationError,
    )
    with mapped_files_released(source), as_conversion_error("Weight compression", errors):
        import openvino
        from nncf.quantization.advanced_parameters import (
            AdvancedCompressionParameters,
            GroupSizeFallbackMode,
        )

        model = openvino.Core().read_model(source / IR_XML)
        modes = nncf.CompressWeightsMode
        if isinstance(settings, Int8Settings):
            mode = modes.INT8_SYM if settings.symmetric else modes.INT8_ASYM
            compressed = nncf.compress_weights(model, mode=mode)
        else:
            data = _inputs(source, model, texts) if texts else None
            compressed = nncf.compress_weights(
                model,
                mode=modes.INT4_SYM if settings.symmetric else modes.INT4_ASYM,
                group_size=settings.group_size,
                ratio=settings.ratio,
                dataset=nncf.Dataset(data) if data else None,
                subset_size=max(len(texts), 1),
                scale_estimation=bool(data),
                awq=settings.awq,
                advanced_parameters=AdvancedCompressionParameters(
                    group_size_fallback_mode=GroupSizeFallbackMode.ADJUST,
                    min_adjusted_group_size=SMALLEST_GROUP,
                ),
            )
        # Optimum removes the exporter's request for an FP16 KV cache, too, when it compresses.
        if compressed.has_rt_info(["runtime_options", "KV_CACHE_PRECISION"]):
            options = compressed.get_rt_info("runtime_options").value
            options.pop("KV_CACHE_PRECISION")
            compressed.set_rt_info(options, "runtime_options")
        openvino.save_model(compressed, target / IR_XML, compress_to_fp16=False)


def generate_texts(folder: Path, count: int = TEXTS) -> tuple[str, ...]:
    """Generate short texts with the model in ``folder``, each starting with a different token.

    The first tokens are spread over the whole vocabulary and the rest is sampled, so that the
    texts resemble the model's answers. The seed is fixed: a model always gives the same texts.

    Raises:
        ConversionError: the model cannot be run, or generates nothing.
    """
    with as_conversion_error("Generating texts for scale estimation"):
        import torch
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = load_optimum_model(folder, "CPU", {})
        firsts = torch.linspace(0, len(tokenizer) - 1, count).long().unsqueeze(1)
        texts: list[str] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_TEXTS_SEED)
            for first in firsts.split(_TEXTS_BATCH):
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
        usable = tuple(text for text in texts if text.strip() and tokenizer(text)["input_ids"])
    if not usable:
        raise ConversionError(
            "The model generated no text for scale estimation. Convert it without scale estimation."
        )
    return usable


def _inputs(folder: Path, model: Any, texts: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the inputs of the IR ``model`` for each text; arrays have the shape (1, tokens)."""
    import numpy as np
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    names = {name for port in model.inputs for name in port.names}
    inputs = []
    for text in texts:
        ids = np.asarray(tokenizer(text)["input_ids"], dtype=np.int64)[None]
        values = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        inputs.append({name: value for name, value in values.items() if name in names})
    return inputs
