"""Counting of the prompt tokens that come from GenAI's prefix cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random

from core.inference.engine import Engine, find_stored
from core.runtimes.batching import PrefixCache
from core.runtimes.spec import ModelSpec


def test_count_is_what_genai_does_not_compute(
    engine: Engine, spec_of: Callable[..., ModelSpec]
) -> None:
    """The pipeline reads one token of the prompt in each step, so that steps can be counted."""
    import numpy
    import openvino
    import openvino_genai as genai

    folder = str(find_stored(engine.store, spec_of("llama")).folder)
    scheduler = genai.SchedulerConfig()
    scheduler.max_num_batched_tokens, scheduler.enable_prefix_caching = 1, True
    tokenizer = genai.Tokenizer(folder)
    pipeline = genai.ContinuousBatchingPipeline(folder, tokenizer, scheduler, "CPU")
    config = genai.GenerationConfig(max_new_tokens=8, ignore_eos=True, apply_chat_template=False)
    cache, numbers, random = PrefixCache(), itertools.count(), Random(0)

    def check(prompt: list[int]) -> list[int]:
        counted = cache.cached_tokens(prompt)
        ids = openvino.Tensor(numpy.asarray([prompt], dtype=numpy.int64))
        handle = pipeline.add_request(next(numbers), ids, config)
        found: list[int] = []
        computed = 0
        while handle.get_status() == genai.GenerationStatus.RUNNING:
            pipeline.step()
            computed += not found
            while handle.can_read():
                found += handle.read()[0].generated_ids
        assert counted == len(prompt) - computed
        cache.keep([*prompt, *found])
        return [*prompt, *found]

    def some(count: int) -> list[int]:
        return [random.randrange(1, 300) for _ in range(count)]

    first = check(some(100))
    check(first + some(10))  # a follow-up
    check(first[:100])  # the same again
    check(first[:40] + some(20))  # the same beginning
    longer = check(some(150))
    check(first + some(2))  # overwritten in the meantime
    for length in (50, 100, 120):
        check(some(length))
    check(longer + some(2))
