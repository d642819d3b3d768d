"""Loads a stored model as Optimum Intel's ``OVModelForCausalLM``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load_optimum_model(folder: Path, device: str, properties: Mapping[str, Any]) -> Any:
    """The model in ``folder``, not compiled yet; nothing is asked of a hub.

    Raises:
        Exception: of the libraries beneath, of any kind.
    """
    from optimum.intel import OVModelForCausalLM

    for chatty in ("optimum", "transformers"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    model = OVModelForCausalLM.from_pretrained(
        str(folder),
        device=device,
        ov_config=dict(properties),
        export=False,
        local_files_only=True,
        compile=False,
    )
    if model.config.model_type == "phi3":
        _recompute_at_switch(model)
    return model


def _recompute_at_switch(model: Any) -> None:
    """Read the text anew where Phi-3's longrope goes over to its long factors.

    Keys that were cached with the short factors do not fit the long ones. ``transformers`` does the
    same; Optimum 2.1's own method wants a ``cache_position``, which ``transformers`` 5.5 no longer
    gives it, and fails.
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
