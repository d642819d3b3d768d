"""Process that runs one variant for as long as it gets commands: ``python -m`` this module.

Two of them run at the same time and get commands in turns, so that other load on the machine
affects both. The first request (see :mod:`core.workers.child`) has the variant, the folder and the
spec; every further one is a command. The response is one ``done``. Commands::

    {"do": "answer", "prompt_tokens": 32, "new_tokens": 64}       → ttft_ms, tokens_per_s …
    {"do": "together", "count": 8, "prompt_tokens": …, …}         → tokens_per_s of all
    {"do": "tasks", "model": …, "together": 8}                    → accuracy, answers
    {"do": "perplexity", "model": …}                              → nll, tokens

With ``model`` and ``kind`` the prompt is an instruction (:func:`instruction_ids`). A runtime also
takes ``speculation``, ``temperature`` (0: greedy) and ``seed``. A variant is a runtime, the
notebook, or a peer (:mod:`core.benchmark.speed.peer_runtimes`).

The notebook variant is the code of the demo that Paddock replaces: Optimum with all defaults,
``generate`` in a thread, and a ``TextIteratorStreamer``; but tokens are counted by their ids.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from core.benchmark import scoring
from core.benchmark.prompts import prompt_ids
from core.benchmark.speed.peer_runtimes import LLAMA_CPP, PYTORCH, Answer, llama_cpp, pytorch
from core.benchmark.worker import RUNTIMES
from core.hardware.devices import process_memory
from core.inference.timing import accepted
from core.runtimes.base import LoadedModel, StampedId
from core.runtimes.optimum import conditions_of
from core.runtimes.spec import (
    NO_SPECULATION,
    ModelSpec,
    SamplingSettings,
    Speculation,
    TokenRequest,
)
from core.runtimes.tokenizer import load_tokenizer
from core.store.library_env import disable_telemetry, quieten_libraries
from core.workers.child import from_json, open_channel

NOTEBOOK, RUNTIME = "notebook", "runtime"

PASSAGE = {
    "rewriting": "Rewrite this text so that it is easier to read, and keep all facts.",
    "summary": "Summarise this text in a few sentences.",
    "extraction": "List the persons, places and numbers in this text, with what it says of them.",
    "closed question": "What is this text about, and what does it say about the captain?",
}
"""Kinds of instruction with a passage."""

OPEN = {
    "open question": "Why is the sky blue? Explain it in detail.",
    "ideas": "Give me ten ideas for a weekend with the family.",
    "letter": "Write a letter to a best friend whom you have not seen for years.",
}
"""Kinds without."""


def main() -> NoReturn:
    """Run commands until the parent closes standard input."""
    channel = open_channel()
    request = channel.receive()
    disable_telemetry()
    quieten_libraries()
    folder, variant = Path(request["folder"]), request["variant"]
    model = execution = None
    if variant == LLAMA_CPP:
        answer = llama_cpp(Path(request["gguf"]), request["speculation"], request["slots"])
    elif variant == PYTORCH:
        answer = pytorch(Path(request["gguf"]), bool(request["speculation"]))
    elif variant == NOTEBOOK:
        answer, execution = _notebook(folder)
    else:
        spec = from_json(ModelSpec, request["spec"])
        runtime = RUNTIMES[spec.runtime]()
        runtime.prepare(folder)
        model = runtime.load(folder, spec)
        answer, execution = _of_runtime(model), model.conditions.execution_precision
    tokenizer = load_tokenizer(folder) if model is None else model.tokenizer
    answer(prompt_ids(tokenizer, 8), 4)
    channel.say(event="done", execution=execution)
    while True:
        channel.say(event="done", **_run(channel.receive(), answer, model, tokenizer))


def _run(
    command: dict[str, Any], answer: Answer, model: LoadedModel | None, tokenizer: Any
) -> dict[str, Any]:
    if command["do"] == "tasks":
        assert model is not None, "the notebook answers one at a time"
        accuracy, answers = scoring.accuracy_at_once(command["model"], model, command["together"])
        return {"accuracy": accuracy, "answers": answers}
    if command["do"] == "perplexity":
        assert model is not None, "the notebook only answers"
        return scoring.negative_log_likelihood(model, command["model"])
    if command["do"] == "memory":
        return asdict(process_memory())
    tokens, new_tokens = command["prompt_tokens"], command["new_tokens"]
    if "kind" in command:
        ids = instruction_ids(tokenizer, command["model"], command["kind"], tokens)
    else:
        ids = tuple(prompt_ids(tokenizer, tokens))
    if model is not None and "speculation" in command:
        speculation = from_json(Speculation, command["speculation"])
        sampling = command.get("temperature", 0), command.get("seed", 0)
        answer = _of_runtime(model, *sampling, speculation)
    if command["do"] == "together":
        return _together(answer, ids, new_tokens, command["count"])
    began, *stamps = answer(ids, new_tokens)
    decode_s, further = stamps[-1] - stamps[0], len(stamps) - 1
    return {
        "tokens": len(stamps),
        "ttft_ms": 1000 * (stamps[0] - began),
        "total_ms": 1000 * (stamps[-1] - began),
        "ms_per_token": 1000 * decode_s / further,
        "tokens_per_s": further / decode_s if decode_s else 0.0,
        "tokens_per_step": len(stamps) / (len(stamps) - sum(accepted(stamps))),
    }


def instruction_ids(tokenizer: Any, key: str, kind: str, tokens: int) -> tuple[int, ...]:
    """Return the prompt of an instruction, with a passage that makes it this long.

    Args:
        key: the model, whose prompt format is used, if it has one.
        kind: of :data:`PASSAGE` or :data:`OPEN`.
        tokens: length of the prompt; the passage is cut, so it may differ by a token or two.
            Instructions without a passage keep their length.
    """
    chosen = scoring.format_of(key, tokenizer)
    if kind in OPEN:
        return scoring.tokenized(tokenizer, chosen, OPEN[kind], "")
    ids = partial(scoring.tokenized, tokenizer, chosen, PASSAGE[kind])
    room = tokens - len(ids("The"))
    return ids(tokenizer.decode(list(prompt_ids(tokenizer, max(1, room)))))


def _together(answer: Answer, ids: tuple[int, ...], new_tokens: int, count: int) -> dict[str, Any]:
    began = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        stamps = list(pool.map(lambda _: answer(ids, new_tokens)[1:], range(count)))
    tokens = sum(len(each) for each in stamps)
    return {"tokens": tokens, "tokens_per_s": tokens / (time.perf_counter() - began)}


def _of_runtime(
    model: LoadedModel,
    temperature: float = 0,
    seed: int = 0,
    speculation: Speculation = NO_SPECULATION,
) -> Answer:
    def answer(ids: tuple[int, ...], new_tokens: int) -> list[float]:
        sampling = SamplingSettings(max_new_tokens=new_tokens, greedy=True)
        if temperature:
            sampling = SamplingSettings(new_tokens, temperature, 0.92, seed=seed)
        stamps = [time.perf_counter()]
        clock = time.perf_counter

        def stamp(token_id: int) -> bool:
            stamps.append(token_id.stamp_s if isinstance(token_id, StampedId) else clock())
            return True

        model.generate(TokenRequest(ids, sampling, speculation=speculation), stamp)
        return stamps

    return answer


def _notebook(folder: Path) -> tuple[Answer, str | None]:
    """Return the notebook's function, and the precision in which the plugin executes."""
    import torch
    from optimum.intel import OVModelForCausalLM
    from transformers import AutoTokenizer, TextIteratorStreamer

    model = OVModelForCausalLM.from_pretrained(
        str(folder), device="CPU", ov_config={"CACHE_DIR": ""}
    )
    tokenizer = AutoTokenizer.from_pretrained(str(folder))

    class Streamer(TextIteratorStreamer):
        """Records the time of each token before it is decoded; the prompt comes first."""

        stamps: list[float]

        def put(self, value: Any) -> None:
            if not self.next_tokens_are_prompt:
                self.stamps.append(time.perf_counter())
            super().put(value)

    def answer(ids: tuple[int, ...], new_tokens: int) -> list[float]:
        streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        prompt = torch.tensor([ids])
        streamer.stamps = [time.perf_counter()]

        def generate() -> None:
            try:
                model.generate(
                    input_ids=prompt,
                    attention_mask=torch.ones_like(prompt),
                    streamer=streamer,
                    max_new_tokens=new_tokens,
                    min_new_tokens=new_tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            finally:
                streamer.end()  # otherwise its reader waits forever after an error

        thread = threading.Thread(target=generate)
        thread.start()
        for _ in streamer:
            pass
        thread.join()
        return streamer.stamps

    compiled = model.request.get_compiled_model()
    return answer, conditions_of(compiled, {}).execution_precision


if __name__ == "__main__":
    main()
