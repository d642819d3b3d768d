"""Score the embedded models: ``python -m core.demo.evaluate [MODEL …] [--precision …] [--json]``.

Greedy answers to held-out instances of the corpus (full names, combinations of words, item sets,
wordings and foreign instructions that training never sees), judged by rules: see
:class:`core.demo.corpus.Check`. The models run through OpenVINO in the precision asked for,
converted by the store like any other model. Arithmetic is float32, so that what differs between
the precisions is the weights. ``--checkpoint FOLDER`` scores PyTorch weights instead, for use
during training; ``--foreign FILE`` reports how many of other people's instructions (JSON lines
with ``instruction`` and ``instances[].input``) are answered rather than turned away.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import Precision
from core.demo.corpus import CATEGORIES, Example, Split, examples, is_refusal
from core.demo.models import DEMO_MODELS, DemoModel, end_ids, prompt_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SEED = 4
PER_CATEGORY = 100
MAX_NEW_TOKENS = 320
PRECISIONS = (Precision.FP16, Precision.INT8, Precision.INT4)
BATCH = 16
"""Answers written together, of prompts of similar length."""


@dataclass(frozen=True)
class Judged:
    """An example, the answer a model gave, and whether that is right."""

    example: Example
    answer: str
    ended: bool
    """Whether the answer ended by itself."""

    @property
    def right(self) -> bool:
        return self.ended and self.example.check.passes(self.answer)


class Answerer:
    """A loaded model that answers greedily, or by sampling with a seed."""

    def __init__(self, model: DemoModel, network: Any, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model = model
        self.network = network
        self.tokenizer = tokenizer
        self.end_ids = end_ids(model, tokenizer)

    @classmethod
    def from_checkpoint(cls, model: DemoModel, folder: Path) -> Answerer:
        """The PyTorch weights of a folder, in float32."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return cls(model, network, AutoTokenizer.from_pretrained(folder))

    @classmethod
    def from_store(cls, model: DemoModel, precision: Precision) -> Answerer:
        """The model in OpenVINO, converted first where it is not on disk."""
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
        self, asked: Sequence[tuple[str, str]], seed: int | None = None
    ) -> Iterator[tuple[int, str, bool]]:
        """(index, answer, whether it ended) for (instruction, context) pairs, in any order.

        Args:
            seed: sample with Paddock's defaults (temperature 0.8, top-p 0.92) instead of greedily.
        """
        prompts = [prompt_text(self.model, *pair) for pair in asked]
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
        written = self.network.generate(
            **encoded,
            generation_config=GenerationConfig(
                max_new_tokens=MAX_NEW_TOKENS,
                eos_token_id=self.end_ids,
                pad_token_id=self.tokenizer.pad_token_id,
                **sampling,
            ),
        )[:, encoded["input_ids"].shape[1] :].tolist()
        results = []
        for ids in written:
            ends = [position for position, token in enumerate(ids) if token in self.end_ids]
            kept = ids[: ends[0]] if ends else ids
            results.append((self.tokenizer.decode(kept, skip_special_tokens=True), bool(ends)))
        return results


def held_out(category: str, count: int) -> list[Example]:
    """The held-out instances that scores are taken on."""
    return list(islice(examples(SEED, Split.HELD_OUT, category), count))


def judge(answerer: Answerer, chosen: Sequence[Example], seed: int | None = None) -> list[Judged]:
    """The model's answers to the examples, in their order."""
    asked = [(one.instruction, one.context) for one in chosen]
    found = sorted(answerer.answers(asked, seed))
    return [
        Judged(example, answer, ended)
        for example, (_, answer, ended) in zip(chosen, found, strict=True)
    ]


def accuracy(judged: Sequence[Judged]) -> float:
    """Share of right answers, 0 to 1."""
    return sum(one.right for one in judged) / len(judged)


def scores(
    answerer: Answerer,
    count: int,
    categories: Sequence[str] = CATEGORIES,
    show: Callable[[Judged], None] | None = None,
) -> dict[str, float]:
    """Accuracy per category.

    Args:
        show: called with every answer, for reading them.
    """
    result = {}
    for category in categories:
        judged = judge(answerer, held_out(category, count))
        result[category] = round(accuracy(judged), 4)
        for one in judged if show else ():
            show(one)
    return result


def turned_away(judged: Sequence[Judged]) -> float:
    """Share of instructions within reach that were refused."""
    inside = [one for one in judged if not one.example.check.refusal]
    return sum(is_refusal(one.answer) for one in inside) / len(inside)


def foreign_instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, input) of each line of a JSON-lines file."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    return [(row["instruction"], row["instances"][0].get("input", "")) for row in rows]


def _report(name: str, result: dict[str, float]) -> None:
    print(f"{name}")
    for category, value in result.items():
        print(f"  {category:24}{value:7.1%}")


def _show(one: Judged) -> None:
    mark = "ok   " if one.right else "WRONG"
    context = f" || {one.example.context}" if one.example.context else ""
    print(f"{mark} [{one.example.category}] {one.example.instruction}{context}\n  => {one.answer}")


def _foreign(answerer: Answerer, file: Path, verbose: bool) -> float:
    asked = foreign_instructions(file)
    fitting = [(text, given[:2000]) for text, given in asked]
    answered = 0
    for index, answer, _ in answerer.answers(fitting):
        if not is_refusal(answer):
            answered += 1
            if verbose:
                print(f"ANSWERED {fitting[index][0]} || {fitting[index][1][:200]}\n  => {answer}")
    return answered / len(asked)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the evaluation."""
    parser = argparse.ArgumentParser(prog="python -m core.demo.evaluate", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(DEMO_MODELS))
    parser.add_argument("--precision", nargs="+", choices=[one.value for one in PRECISIONS])
    parser.add_argument("--category", nargs="+", choices=CATEGORIES, default=CATEGORIES)
    parser.add_argument("--json", action="store_true", help="print one JSON object and no more")
    parser.add_argument("--count", type=int, default=PER_CATEGORY, help="instances per category")
    parser.add_argument("--checkpoint", type=Path, help="score these PyTorch weights instead")
    parser.add_argument("--foreign", type=Path, help="JSON lines of other people's instructions")
    parser.add_argument("--show", action="store_true", help="print every answer")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.models) - set(DEMO_MODELS)
    if unknown:
        parser.error(f"unknown model {', '.join(sorted(unknown))}; choose {', '.join(DEMO_MODELS)}")
    if chosen.checkpoint and len(chosen.models) != 1:
        parser.error("name the one model whose weights --checkpoint holds")
    result: dict[str, dict[str, dict[str, float]]] = {}
    for key in chosen.models or list(DEMO_MODELS):
        model = DEMO_MODELS[key]
        result[key] = {}
        names = ["checkpoint"] if chosen.checkpoint else chosen.precision or list(PRECISIONS)
        for name in names:
            answerer = (
                Answerer.from_checkpoint(model, chosen.checkpoint)
                if chosen.checkpoint
                else Answerer.from_store(model, Precision(name))
            )
            if chosen.foreign:
                share = _foreign(answerer, chosen.foreign, chosen.show)
                print(f"{key} {name}: {share:.1%} of {chosen.foreign.name} answered")
                continue
            loud = _show if chosen.show and not chosen.json else None
            result[key][str(name)] = scores(answerer, chosen.count, chosen.category, loud)
            if not chosen.json:
                _report(f"{key} · {name}", result[key][str(name)])
    if chosen.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
