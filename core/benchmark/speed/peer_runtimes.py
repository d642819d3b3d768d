"""Other programs that answer the same prompts, for :mod:`core.benchmark.speed.paired_worker`.

llama.cpp runs the GGUF file itself, through ``xllamacpp`` (``requirements-checks.txt``); PyTorch
runs its weights without compression, as ``transformers`` reads them. Both get Paddock's token ids.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import GenerationError

LLAMA_CPP, PYTORCH = "llama.cpp", "pytorch"

NGRAM_KINDS = ("NGRAM_SIMPLE", "NGRAM_MOD", "NGRAM_MAP_K")
"""llama.cpp's speculation without a draft model."""

Answer = Callable[[tuple[int, ...], int], list[float]]
"""Answers a prompt with a forced number of tokens; returns the start time and the time of each
token."""


def llama_cpp(gguf: Path, kind: str | None, slots: int) -> Answer:
    """Load a GGUF file with llama.cpp, with as many threads as Paddock's runtimes have.

    Args:
        kind: one of :data:`NGRAM_KINDS`; None: no speculation.
        slots: answers that may run at once.

    Raises:
        GenerationError: ``xllamacpp`` is not installed.
    """
    try:
        import xllamacpp
    except ImportError:
        raise GenerationError(
            "xllamacpp is not installed, so there is no comparison with llama.cpp. Install "
            "requirements-checks.txt."
        ) from None
    from core.hardware.devices import host_facts

    host = host_facts()
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 2048 * slots, slots, 0
    params.cpuparams.n_threads = host.physical_cores or host.logical_cores
    params.cpuparams_batch.n_threads = params.cpuparams.n_threads
    params.cache_prompt, params.verbosity = False, 0
    if kind is not None:
        kinds = xllamacpp.common_speculative_type
        params.speculative.types = [getattr(kinds, f"COMMON_SPECULATIVE_TYPE_{kind}")]
    server = xllamacpp.Server(params)

    def answer(ids: tuple[int, ...], new_tokens: int) -> list[float]:
        stamps = [time.perf_counter()]
        problems: list[str] = []

        def take(chunk: Any) -> bool:
            stamps.append(time.perf_counter())
            if "error" in chunk:
                problems.append(str(chunk["error"]))
            return False

        body = {"prompt": list(ids), "max_tokens": new_tokens, "temperature": 0, "stream": True}
        server.handle_completions(body | {"ignore_eos": True, "cache_prompt": False}, take)
        if problems or len(stamps) < 3:
            raise GenerationError(f"llama.cpp did not answer ({', '.join(problems)}).")
        # A chunk may have several tokens or none: only the first and the last time matter.
        began, first, last = stamps[0], stamps[1], stamps[-1]
        return [began, first, *[last] * (new_tokens - 1)]

    return answer


def pytorch(gguf: Path, lookup: bool) -> Answer:
    """Load the weights of a GGUF file with PyTorch, in bfloat16.

    Args:
        lookup: whether ``transformers`` guesses tokens by prompt lookup.

    Raises:
        GenerationError: ``accelerate``, which that needs, is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        network = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=torch.bfloat16, local_files_only=True
        ).eval()
    except ImportError as error:
        raise GenerationError(
            "accelerate is not installed, so there is no comparison with PyTorch. Install "
            "requirements-checks.txt."
        ) from error
    guesses: dict[str, int] = {}
    if lookup:  # it compares with an end token, and none must end an answer
        guesses = {"prompt_lookup_num_tokens": 5, "max_matching_ngram_size": 3, "eos_token_id": -1}
    lock = threading.Lock()  # one answer at a time

    class Streamer:
        """Records the time of each group of tokens; the prompt comes first."""

        def __init__(self) -> None:
            self.stamps: list[float] = []
            self._prompt = True

        def put(self, value: Any) -> None:
            if not self._prompt:
                self.stamps += [time.perf_counter()] * value.numel()
            self._prompt = False

        def end(self) -> None:
            pass

    def answer(ids: tuple[int, ...], new_tokens: int) -> list[float]:
        with lock:
            began, streamer, prompt = time.perf_counter(), Streamer(), torch.tensor([ids])
            network.generation_config = GenerationConfig()
            network.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=GenerationConfig(
                    max_new_tokens=new_tokens, do_sample=False, pad_token_id=0, **guesses
                ),
                streamer=streamer,
            )
        return [began, *streamer.stamps]

    return answer
