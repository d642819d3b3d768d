"""Read a GGUF file as a PyTorch model, with the weights that ``transformers`` dequantises.

``transformers`` maps the metadata to a configuration and the tensors to parameters. What it leaves
out and would compute differently without a word (rotary base, partial rotary embedding, soft caps)
is set from the metadata here, and every tensor and parameter must have found its counterpart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import ConversionError, NotAModelError
from core.store.gguf.reader import THROUGH_TRANSFORMERS, GgufFile, shape_of
from core.store.library_env import LIBRARY_ERRORS
from core.workers.child import one_line

_FIELDS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention.layer_norm_epsilon": "norm_epsilon",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
"""Metadata that ``transformers`` does not read, by the name in the configuration."""


def load(path: Path, file: GgufFile, dtype: Any) -> Any:
    """Return the ``transformers`` model of a file with dequantised weights.

    Args:
        file: its content; of an architecture in
            :data:`core.store.gguf.reader.THROUGH_TRANSFORMERS`.
        dtype: ``torch`` dtype of the weights.

    Raises:
        NotAModelError: the model is split into several files.
        ConversionError: ``transformers`` cannot read it completely.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    if int(file.metadata.get("split.count", 1)) > 1:
        raise NotAModelError(
            f"{file.name} is a split model of the architecture {file.architecture}, which can only "
            "be read in one file. Join the parts with `llama-gguf-split --merge`."
        )
    try:
        config = _config(load_gguf_checkpoint(str(path))["config"], file)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config)
        state = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)["tensors"]
        for name in state:
            state[name] = state[name].to(dtype)
            if not torch.isfinite(state[name]).all():
                raise ConversionError(
                    f"The weight {name} of {file.name} exceeds the range of FP16. Convert it "
                    "to FP32 instead."
                )
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        loaded = model.load_state_dict(state, strict=False)
    except LIBRARY_ERRORS as error:
        raise ConversionError(
            f"{file.name} cannot be read by transformers ({one_line(error)}). Use the model's "
            "safetensors instead."
        ) from error
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    missing = sorted(set(loaded.missing_keys) - (tied if config.tie_word_embeddings else set()))
    if missing or loaded.unexpected_keys:
        raise ConversionError(
            f"{file.name} has other weights than {config.model_type} in transformers "
            f"({(missing or loaded.unexpected_keys)[0]}). Use the model's safetensors instead."
        )
    model.tie_weights()
    return model.eval()


def _config(read: dict[str, Any], file: GgufFile) -> Any:
    """Return the configuration that transformers read, completed from the metadata."""
    from transformers import AutoConfig

    fields = dict(read) | {"architectures": None}
    fields.pop("_model_name_or_path", None)
    fields["model_type"] = THROUGH_TRANSFORMERS[file.architecture]
    shape = shape_of(file)
    theta, width = shape.rope_theta, shape.head_width
    rotated = file.value("{arch}.rope.dimension_count", int, width)
    for key, name in _FIELDS.items():
        if (value := file.metadata.get(f"{file.architecture}.{key}")) is not None:
            fields[name] = value
    fields.pop("rope_theta", None)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    rope = dict(config.rope_parameters or {})
    if any(isinstance(each, dict) for each in rope.values()):  # one for each kind of layer
        rope["full_attention"] = dict(rope["full_attention"]) | {"rope_theta": theta}
    else:
        rope |= {"rope_type": "default", "rope_theta": theta}
        if rotated != width:
            rope["partial_rotary_factor"] = rotated / width
            config.partial_rotary_factor = rotated / width
    config.rope_parameters = rope
    return config
