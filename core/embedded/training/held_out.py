"""Freeze the held-out tasks: ``python -m core.embedded.training.held_out``.

Writes the two files that :mod:`core.embedded.tasks` reads. They change only where the corpus's
held-out split changes.
"""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import islice
from pathlib import Path

from core.embedded.tasks import CATEGORIES, TASKS_FILE, TEXTS_FILE, Check, Task
from core.embedded.training.corpus import Example, Split, examples

SEED = 4
TASKS_PER_CATEGORY = 25
"""200 tasks in all. Every precision is scored on the same ones, so that a difference of a few per
cent means something."""
TEXTS_PER_CATEGORY = 4
"""The examples that follow them."""


def held_out(category: str, count: int) -> list[Example]:
    """Return the first ``count`` held-out examples of a category."""
    return list(islice(examples(SEED, Split.HELD_OUT, category), count))


def frozen_files() -> dict[Path, str]:
    """Return the content of each file, generated from the corpus."""
    tasks, texts = [], []
    for category in CATEGORIES:
        drawn = held_out(category, TASKS_PER_CATEGORY + TEXTS_PER_CATEGORY)
        tasks += drawn[:TASKS_PER_CATEGORY]
        texts += drawn[TASKS_PER_CATEGORY:]
    return {
        file: "".join(f"{_line(example)}\n" for example in chosen)
        for file, chosen in ((TASKS_FILE, tasks), (TEXTS_FILE, texts))
    }


def _line(task: Task) -> str:
    """Return the task as one line of JSON; rules that require nothing are left out."""
    row = {each.name: getattr(task, each.name) for each in fields(Task)}
    row["check"] = {
        each.name: value
        for each in fields(Check)
        if (value := getattr(task.check, each.name)) != each.default
    }
    return json.dumps(row, ensure_ascii=False)


if __name__ == "__main__":
    for file, content in frozen_files().items():
        file.write_text(content, encoding="utf-8", newline="\n")
