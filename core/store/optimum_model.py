"""Load a stored model as Optimum Intel's ``OVModelForCausalLM``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load_optimum_model(folder: Path, device: str, properties: Mapping[str, Any]) -> Any:
    """Load the model in ``folder`` without compiling it and without contacting a hub.

    Raises:
        Exception: any exception of the libraries.
    """
    from optimum.intel import OVModelForCausalLM

    for name in ("optimum", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    model = OVModelForCausalLM.from_pretrained(
        str(folder),
        device=device,
        ov_config=dict(properties),
        export=False,
        local_files_only=True,
        compile=False,
    )
    if model.config.model_type == "phi3":
        _recompute_at_longrope_switch(model)
    return model


def _recompute_at_longrope_switch(model: Any) -> None:
    """Compute the KV cache again where Phi-3's longrope switches to its long factors.

    Keys cached with the short factors are not valid with the long ones. ``transformers`` does the
    same; Optimum 2.1's own method requires a ``cache_position``, which ``transformers`` 5.5 no
    longer passes, and fails.
    """
    from optimum.intel import OVModelForCausalLM

    switch = getattr(model.config, "original_max_position_embeddings", None)

    def prepare(input_ids: Any, past_key_values: Any = None, **kwargs: Any) -> dict[str, Any]:
        if switch and past_key_values and input_ids.shape[1] > switch >= model._past_length:
            past_key_values, kwargs["position_ids"] = None, None
        return OVModelForCausalLM.prepare_inputs_for_generation(
            model, input_ids, past_key_values, **kwargs
        )

    model.prepare_inputs_for_generation = prepare
