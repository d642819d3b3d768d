"""Write a model card: ``python -m core.embedded.training.card MODEL``.

Scores the model in every precision and writes ``README.md`` beside its weights.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

from core.catalogue import Precision
from core.embedded.tasks import CATEGORIES
from core.embedded.training.average import AVERAGED
from core.embedded.training.build import read_json
from core.embedded.training.corpus.text import data
from core.embedded.training.evaluate import PER_CATEGORY, PRECISIONS, Answerer, scores
from core.embedded.training.models import EMBEDDED_MODELS, EmbeddedModel

SCORES_FILE = "scores.json"
"""Written beside the weights: {precision: {category: accuracy}}."""

_TEXT = """---
license: cc-by-4.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# {key}

A tiny instruction-following model that is included with Paddock, so that a fresh clone works
offline. {architecture}, {parameters:.1f} million parameters, FP16 weights ({size:.1f} MB), a
byte-level BPE vocabulary of {vocabulary} tokens, a context length of {context_length} tokens.

## What it can do

- Open QA: {topics} topics, and the capitals of forty countries.
- Closed QA, information extraction and summarization of short passages about people, cafés and
  bakeries, festivals and concerts, rivers, companies, novels, towers, courses, trains, animals,
  clubs and meetings.
- Brainstorming: a requested number of ideas on {pools} subjects.
- Classification: items into groups, the sentiment of a review, the kind of a message.
- Creative writing: haiku, rhymes, stories, letters, tweets, slogans and recipes.

It declines other instructions with the answer that it is a tiny demonstration model.

## Prompt

{prompt}

## Training data

A synthetic corpus, generated from a seed during training by `core/embedded/training/corpus/`. It
contains no text by third parties and no data about real persons: names are drawn at random from
lists of common first names and surnames and of word parts. The lists and sentences that it is
generated from are in `core/embedded/training/corpus/data/`.

## Training

`python -m core.embedded.training.train {key}` trains such a model from scratch on two CPU cores,
with Muon and AdamW. It uses bfloat16 autocast if the processor supports bfloat16, else float32.

{history}

## Scores

Accuracy of greedy answers to {count} held-out tasks of each category, scored by rules; OpenVINO on
a CPU. Full names, combinations of words, item sets, wordings and families of out-of-scope
instructions are held out: they do not occur in training, but the words in them do.

{table}

{verdict}

## Limits

The model has no general knowledge, cannot calculate, program or translate, and does not understand
other kinds of passages. When asked whether a statement about a passage is true, it repeats what the
passage says, without yes or no. It sometimes miscopies long unfamiliar names and confuses two
entities of the same kind in a passage. It may give a wrong answer where it should decline, and
decline where it could answer. Answers on its topics are memorized. Not for production use.

## Licence

Weights, tokenizer and corpus: CC BY 4.0. Code: Apache-2.0, like the rest of Paddock.
"""
_HISTORY = (
    "{steps} steps, {tokens:.1f} million tokens (padding included), seed {seed}, final answer "
    "loss {loss:.3f} per token, {minutes:.0f} minutes on a shared machine."
)
_CONTINUED_HISTORY = (
    "These weights were trained in several runs. The corpus changed between them: each run decayed "
    "its learning rate to zero, and the next continued from its weights (`--from-weights`), the "
    "last one after long out-of-scope instructions with made-up words had been added. In total "
    "{steps} steps, {tokens:.1f} million tokens (padding included), {latest:.1f} million of them "
    "in the last run, seed {seed}, final answer loss {loss:.3f} per token, {minutes:.0f} minutes "
    "on a shared machine. A run from scratch with the present corpus has not been completed."
)
_MEAN_HISTORY = (
    " The included weights are the mean (`python -m core.embedded.training.average`) of the "
    "weights after {points} million tokens, which answers better than any of them."
)
_PROMPTS = {
    "gpt_neox": "Dolly's prompt format, byte for byte; `### End` ends an answer.",
    "llama": "The chat template of its tokenizer; `<|end|>` ends an answer.",
}
_NAMES = {"gpt_neox": "GPT-NeoX", "llama": "Llama"}


def table(results: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table of accuracies, categories by precisions."""
    names = list(results)
    rows = ["| category | " + " | ".join(Precision(name).label for name in names) + " |"]
    rows.append("|---|" + "---|" * len(names))
    rows += [
        f"| {category.replace('_', ' ')} | "
        + " | ".join(f"{results[name][category]:.0%}" for name in names)
        + " |"
        for category in CATEGORIES
    ]
    return "\n".join(rows)


def history(training: dict[str, Any]) -> str:
    """Describe the training run recorded in ``training.json``, wrapped to 100 columns."""
    text = (_CONTINUED_HISTORY if training.get("first_tokens") else _HISTORY).format(
        steps=training["step"],
        tokens=training["tokens"] / 1e6,
        latest=(training["tokens"] - training.get("first_tokens", 0)) / 1e6,
        seed=training["seed"],
        loss=training["loss"],
        minutes=training["seconds"] / 60,
    )
    points = [
        f"{each['tokens'] / 1e6:.1f} (seed {each['seed']})" for each in training.get(AVERAGED, ())
    ]
    if points:
        text += _MEAN_HISTORY.format(points=" and ".join(points))
    return textwrap.fill(text, 100, break_on_hyphens=False, break_long_words=False)


def card(
    model: EmbeddedModel, results: dict[str, dict[str, float]], count: int, verdict: str
) -> str:
    """Return the text of the model card."""
    from safetensors import safe_open

    config: dict[str, Any] = read_json(model.folder / "config.json")
    training: dict[str, Any] = read_json(model.folder / "training.json")
    weights = model.folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    return _TEXT.format(
        key=model.key,
        architecture=_NAMES[model.architecture],
        parameters=parameters / 1e6,
        size=weights.stat().st_size / 1e6,
        vocabulary=config["vocab_size"],
        context_length=config["max_position_embeddings"],
        topics=len(data("topics")["topic"]),
        pools=len(data("ideas")["pool"]),
        prompt=_PROMPTS[model.architecture],
        history=history(training),
        count=count,
        table=table(results),
        verdict=textwrap.fill(verdict, 100, break_on_hyphens=False),
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m core.embedded.training.card", description=__doc__
    )
    parser.add_argument("model", choices=list(EMBEDDED_MODELS))
    parser.add_argument("--count", type=int, default=PER_CATEGORY, help="tasks per category")
    parser.add_argument("--scores", type=Path, help="read the scores from this file instead")
    parser.add_argument("--verdict", default="", help="text below the table of scores")
    options = parser.parse_args(arguments)
    model = EMBEDDED_MODELS[options.model]
    if options.scores:
        results = read_json(options.scores)
    else:
        results = {
            precision.value: scores(Answerer.from_store(model, precision), options.count)
            for precision in PRECISIONS
        }
    text = json.dumps(results, indent=2) + "\n"
    (model.folder / SCORES_FILE).write_text(text, encoding="utf-8")
    (model.folder / "README.md").write_text(
        card(model, results, options.count, options.verdict), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
