"""Score the embedded models: ``python -m core.embedded.training.evaluate [MODEL …]``.

Greedy answers to held-out examples of the corpus (full names, combinations of words, item sets,
wordings and out-of-scope instructions that do not occur in training), scored by rules: see
:class:`core.embedded.tasks.Check`. The models run through OpenVINO in each requested precision,
converted by the store like any other model. Arithmetic is float32, so that precisions differ only
in their weights. ``--checkpoint FOLDER`` scores PyTorch weights instead, for use during training.
``--foreign FILE`` reports the share of instructions from elsewhere (JSON lines with
``instruction`` and ``instances[].input``) that are answered instead of declined.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import Precision
from core.embedded.tasks import (
    CATEGORIES,
    MAX_NEW_TOKENS,
    ScoredAnswer,
    Task,
    accuracy,
    is_refusal,
)
from core.embedded.training.held_out import held_out
from core.embedded.training.models import EMBEDDED_MODELS, EmbeddedModel, end_ids, prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PER_CATEGORY = 100
"""Examples of each category for the scores in the model cards."""
PRECISIONS = (Precision.FP16, Precision.INT8, Precision.INT4)
BATCH = 16
"""Prompts of similar length that are answered in one batch."""
FOREIGN_CHARACTERS = 2000
"""An input of ``--foreign`` is cut off here."""


class Answerer:
    """A loaded model that answers greedily, or by sampling with a seed."""

    def __init__(
        self, model: EmbeddedModel, network: Any, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        self.model = model
        self.network = network
        self.tokenizer = tokenizer
        self.end_ids = end_ids(model, tokenizer)

    @classmethod
    def from_checkpoint(cls, model: EmbeddedModel, folder: Path) -> Answerer:
        """Load the PyTorch weights of a folder, in float32."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return cls(model, network, AutoTokenizer.from_pretrained(folder))

    @classmethod
    def from_store(cls, model: EmbeddedModel, precision: Precision) -> Answerer:
        """Load the OpenVINO model, converting it first if it is not on disk."""
        from optimum.intel import OVModelForCausalLM
        from transformers import AutoTokenizer

        from core.settings import load_settings
        from core.store import ModelStore, resolve

        stored = ModelStore(load_settings()).ensure(resolve(model.key), precision)
        network = OVModelForCausalLM.from_pretrained(
            str(stored.folder),
            export=False,
            ov_config={"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
        )
        return cls(model, network, AutoTokenizer.from_pretrained(str(stored.folder)))

    def answers(
        self, requests: Sequence[tuple[str, str]], seed: int | None = None
    ) -> Iterator[tuple[int, str, bool]]:
        """Yield (index, answer, whether it ended) for (instruction, context) pairs, in any order.

        Args:
            seed: sample with Paddock's defaults (temperature 0.8, top-p 0.92) instead of greedily.
        """
        prompts = [prompt_text(self.model, *pair) for pair in requests]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            texts = self._batch([prompts[index] for index in chosen], seed)
            for index, (text, ended) in zip(chosen, texts, strict=True):
                yield index, text, ended

    def _batch(self, prompts: list[str], seed: int | None) -> list[tuple[str, bool]]:
        import torch
        from transformers import GenerationConfig

        encoded = self.tokenizer(
            prompts,
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        encoded.pop("token_type_ids", None)
        sampling: dict[str, Any] = {"do_sample": False}
        if seed is not None:
            torch.manual_seed(seed)
            sampling = {"do_sample": True, "temperature": 0.8, "top_p": 0.92, "top_k": 0}
        generated = self.network.generate(
            **encoded,
            generation_config=GenerationConfig(
                max_new_tokens=MAX_NEW_TOKENS,
                eos_token_id=self.end_ids,
                pad_token_id=self.tokenizer.pad_token_id,
                **sampling,
            ),
        )[:, encoded["input_ids"].shape[1] :].tolist()
        results = []
        for ids in generated:
            ends = [position for position, token in enumerate(ids) if token in self.end_ids]
            kept = ids[: ends[0]] if ends else ids
            results.append((self.tokenizer.decode(kept, skip_special_tokens=True), bool(ends)))
        return results


def score(answerer: Answerer, tasks: Sequence[Task], seed: int | None = None) -> list[ScoredAnswer]:
    """Return the model's scored answers, in the order of the tasks."""
    found = sorted(answerer.answers([(task.instruction, task.context) for task in tasks], seed))
    return [
        ScoredAnswer(task, answer, ended)
        for task, (_, answer, ended) in zip(tasks, found, strict=True)
    ]


def scores(
    answerer: Answerer,
    count: int,
    categories: Sequence[str] = CATEGORIES,
    show: Callable[[ScoredAnswer], None] | None = None,
) -> dict[str, float]:
    """Return the accuracy per category.

    Args:
        count: held-out examples of each category.
        show: called with every answer.
    """
    result = {}
    for category in categories:
        scored = score(answerer, held_out(category, count))
        result[category] = round(accuracy(scored), 4)
        for each in scored if show else ():
            show(each)
    return result


def refusal_rate(scored: Sequence[ScoredAnswer]) -> float:
    """Return the share of refusals among the tasks that the model should answer."""
    answerable = [each for each in scored if not each.task.check.refusal]
    return sum(is_refusal(each.answer) for each in answerable) / len(answerable)


def _print_scores(name: str, result: dict[str, float]) -> None:
    print(f"{name}")
    for category, value in result.items():
        print(f"  {category:24}{value:7.1%}")


def _print_answer(scored: ScoredAnswer) -> None:
    mark = "ok   " if scored.correct else "WRONG"
    task = scored.task
    context = f" || {task.context}" if task.context else ""
    print(f"{mark} [{task.category}] {task.instruction}{context}\n  => {scored.answer}")


def _answered_share(answerer: Answerer, file: Path, show: bool) -> float:
    """Return the share of a file's instructions that are answered instead of declined."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    requests = [
        (row["instruction"], row["instances"][0].get("input", "")[:FOREIGN_CHARACTERS])
        for row in rows
    ]
    answered = 0
    for index, answer, _ in answerer.answers(requests):
        if not is_refusal(answer):
            answered += 1
            if show:
                print(f"ANSWERED {requests[index][0]} || {requests[index][1][:200]}\n  => {answer}")
    return answered / len(requests)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m core.embedded.training.evaluate", description=__doc__
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(EMBEDDED_MODELS))
    parser.add_argument("--precision", nargs="+", choices=[each.value for each in PRECISIONS])
    parser.add_argument("--category", nargs="+", choices=CATEGORIES, default=CATEGORIES)
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    parser.add_argument("--count", type=int, default=PER_CATEGORY, help="examples per category")
    parser.add_argument("--checkpoint", type=Path, help="score these PyTorch weights instead")
    parser.add_argument("--foreign", type=Path, help="JSON lines of instructions from elsewhere")
    parser.add_argument("--show", action="store_true", help="print every answer")
    options = parser.parse_args(arguments)
    unknown = set(options.models) - set(EMBEDDED_MODELS)
    if unknown:
        parser.error(
            f"unknown model {', '.join(sorted(unknown))}; choose {', '.join(EMBEDDED_MODELS)}"
        )
    if options.checkpoint and len(options.models) != 1:
        parser.error("--checkpoint requires exactly one model")
    result: dict[str, dict[str, dict[str, float]]] = {}
    for key in options.models or list(EMBEDDED_MODELS):
        model = EMBEDDED_MODELS[key]
        result[key] = {}
        names = ["checkpoint"] if options.checkpoint else options.precision or list(PRECISIONS)
        for name in names:
            answerer = (
                Answerer.from_checkpoint(model, options.checkpoint)
                if options.checkpoint
                else Answerer.from_store(model, Precision(name))
            )
            if options.foreign:
                share = _answered_share(answerer, options.foreign, options.show)
                print(f"{key} {name}: {share:.1%} of {options.foreign.name} answered")
                continue
            show = _print_answer if options.show and not options.json else None
            result[key][str(name)] = scores(answerer, options.count, options.category, show)
            if not options.json:
                _print_scores(f"{key} · {name}", result[key][str(name)])
    if options.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
