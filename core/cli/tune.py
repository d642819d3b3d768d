"""``tune``: find the fastest execution hints for a model on this machine, and store them."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

from core.cli.terminal import follow, say
from core.errors import BadRequestError
from core.settings import Settings

if TYPE_CHECKING:
    from core.inference.engine import Engine
    from core.runtimes.tuned_hints import Tuned


def tune(options: argparse.Namespace, settings: Settings) -> int:
    """Tune a model, list the tuned models, or return one to the default hints."""
    from core.inference.engine import Engine

    with closing(Engine(settings)) as engine:
        if options.list:
            for tuned in engine.tuned.all():
                print(_line(tuned))
            return 0
        if options.model is None:
            raise BadRequestError("Name the model to tune, or use --list.")
        return _forget(options, engine) if options.forget else _tune(options, engine)


def _tune(options: argparse.Namespace, engine: Engine) -> int:
    from core.benchmark.tuning import TuningService, wording
    from core.inference.contention import MONITOR
    from core.runtimes.spec import ModelSpec

    precision = options.precision or engine.store.default_precision(options.model, ask_hub=True)
    spec = ModelSpec(options.model, precision, options.device, options.runtime)
    with closing(TuningService(engine.settings, engine.keep_tuned, MONITOR.running)) as tuning:
        run = tuning.start(spec, options.quality_limit)
        follow(run.wait, run.cancel, lambda: (f"{run.share:.0%}", run.message))
    for trial in run.trials:
        quality = (
            "" if trial.perplexity_ratio is None else f", perplexity × {trial.perplexity_ratio:.4f}"
        )
        say(
            f"{'kept' if trial.kept else 'rejected':8}  × {trial.gain:.2f}{quality}  "
            f"{wording(trial.hints)}"
        )
    if run.speculation is not None:
        say(run.speculation)
    if run.error is not None:
        raise run.error
    if run.result is None:  # stopped
        say(run.message)
        return 1
    print(json.dumps(asdict(run.result)) if options.json else _line(run.result))
    return 0


def _forget(options: argparse.Namespace, engine: Engine) -> int:
    from core.hardware.devices import require_device
    from core.runtimes.tuned_hints import TuningKey

    source = engine.store.resolve(options.model)
    key = TuningKey.here(
        source.key,
        options.precision or engine.store.default_precision(options.model),
        require_device(options.device),
        options.runtime,
    )
    known = engine.forget_tuned(key)
    print("The default hints are used again." if known else "This model was not tuned.")
    return 0


def _line(tuned: Tuned) -> str:
    from core.benchmark.tuning import wording

    key = tuned.key
    rates = f"{tuned.usual_tokens_per_s:,.1f} → {tuned.tokens_per_s:,.1f} tokens/s"
    return (
        f"{key.model} · {key.precision.label} · {key.device} · {key.runtime}: "
        f"× {tuned.gain:.2f} ({rates}), "
        f"perplexity × {tuned.perplexity_ratio:.4f}, {wording(tuned.hints)} [{key.host}]"
    )
