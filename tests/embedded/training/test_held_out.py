"""The frozen tasks are the corpus's own."""

from __future__ import annotations

from core.embedded.tasks import held_out_tasks, held_out_texts
from core.embedded.training.held_out import frozen_files


def test_the_frozen_files_are_what_the_corpus_generates() -> None:
    for file, content in frozen_files().items():
        assert file.read_text(encoding="utf-8") == content, file.name
    assert (len(held_out_tasks()), len(held_out_texts())) == (200, 32)
