"""Starts Streamlit with models that have no stop rule.

Answers end at the maximum length only, so that all measured runs have equal tokens. Takes the
arguments of the ``streamlit`` command: ``python -m core.benchmark.speed.endless run FILE``.
"""

import runpy

from core.catalogue.prompts import PromptFormat, StopRule


def _no_stop_rule(self: PromptFormat, tokenizer: object, end_ids: object = ()) -> StopRule:
    return StopRule(frozenset(), frozenset(), (), ())


if __name__ == "__main__":
    PromptFormat.stop_rule = _no_stop_rule  # type: ignore[method-assign]
    runpy.run_module("streamlit", run_name="__main__", alter_sys=True)
