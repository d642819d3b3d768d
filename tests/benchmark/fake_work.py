"""Stand-ins for what a run carries out: for failures, waiting and other work, hard to
provoke."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.benchmark import runner
from core.benchmark.artifacts import Artifact, PreparedArtifact
from core.benchmark.child import Job, Outcome
from core.benchmark.plan import Plan
from core.db.measurement_values import Configuration, Quality, Round, Sample
from core.errors import StoppedError
from core.runtimes.base import Conditions
from core.runtimes.spec import ModelSpec
from core.settings import Settings
from tests.waiting import PATIENCE_S

BANDWIDTH = 20e9


def a_round(
    answers: int,
    new_tokens: int,
    *,
    tpot_ms: float = 10.0,
    core_distance_ns: float | None = None,
) -> Round:
    """Return a round with that many equal answers."""
    times = tuple(50.0 + tpot_ms * number for number in range(new_tokens))
    sample = Sample(
        ttft_ms=50.0,
        tpot_ms=tpot_ms if new_tokens > 1 else None,
        total_ms=times[-1],
        token_times_ms=times,
        core_distance_ns=core_distance_ns,
    )
    return Round(
        load_s=2.0,
        compile_s=1.5,
        memory_private_bytes=100,
        memory_file_backed_bytes=200,
        memory_private_peak_bytes=110,
        memory_file_backed_peak_bytes=210,
        cpu_cores=1.9,
        other_cpu_cores=0.05,
        contended=False,
        samples=(sample,) * answers,
    )


def an_outcome(job: Job, core_distance_ns: float | None = None, **changes: Any) -> Outcome:
    """Return what a process measures for this job."""
    outcome = Outcome(
        rounds={
            prompt: a_round(answers, job.new_tokens, core_distance_ns=core_distance_ns)
            for prompt, answers in job.prompts
        },
        conditions=Conditions("f32", "u8", ("CPU",), 2, {}),
        weight_bytes=10_000_000,
        kv_bytes_per_position=1_000,
    )
    return replace(outcome, **changes)


@dataclass
class FakeWork:
    """Measures nothing; records the calls, and does what a test adds."""

    before: Callable[[Job], None] = lambda job: None
    """Called by each measuring process; raises, waits, or disturbs."""
    make: Callable[[Artifact], None] = lambda artifact: None
    """Called for each model that is to be prepared."""
    positions: int | None = 4096
    jobs: list[Job] = field(default_factory=list)
    made: list[Artifact] = field(default_factory=list)
    judged: list[ModelSpec] = field(default_factory=list)
    on_prompt: Callable[[int | None], None] | None = None
    """Callback of the current measuring process."""
    devices_used: tuple[str, ...] = ("CPU",)
    bandwidth: Callable[[], float] = lambda: BANDWIDTH
    core_latency: Callable[[Job], float | None] = lambda job: None
    """Of all answers of a measuring process, in nanoseconds."""

    def install(self, set_attribute: Callable[[Any, str, Any], None] = setattr) -> FakeWork:
        """Replace the functions of a run by these; a test gives ``monkeypatch.setattr``."""
        set_attribute(runner, "prepare_artifact", self.prepare)
        set_attribute(runner, "measure_in_process", self._measure)
        set_attribute(runner, "read_bandwidth_apart", lambda: self.bandwidth())
        set_attribute(runner, "quality_in_process", lambda *a, **how: self.judge(*a, **how))
        return self

    def prepare(self, artifact: Artifact, settings: Settings, **_how: Any) -> PreparedArtifact:
        self.made.append(artifact)
        self.make(artifact)
        return PreparedArtifact(Path("nowhere") / artifact.model, 5_000, 4_000, self.positions)

    def _measure(
        self, job: Job, *, on_prompt: Callable[[int | None], None], **_how: Any
    ) -> Outcome:
        self.jobs.append(job)
        self.on_prompt = on_prompt
        self.before(job)
        return an_outcome(
            job,
            self.core_latency(job),
            conditions=Conditions("f32", "u8", self.devices_used, 2, {}),
        )

    def judge(
        self, folder: Path, spec: ModelSpec, reference: Any, **_how: Any
    ) -> tuple[Quality, Any]:
        self.judged.append(spec)
        quality = Quality(
            reference="fp16",
            perplexity=8.0,
            perplexity_ratio=1.0 if reference is None else 1.02,
            top1_agreement=1.0 if reference is None else 0.98,
            first_divergent_token=64.0,
            divergent_share=0.0,
            tokens=100,
        )
        return quality, reference or spec


def configurations(plan: Plan) -> list[Configuration]:
    """Return what the rows of a plan measure, in order."""
    return [
        plan.configuration(target, prompt_tokens)
        for target in plan.targets()
        for prompt_tokens in plan.prompt_tokens
    ]


def wait_for_cancel(cancel: threading.Event) -> None:
    """Block a step until it is cancelled."""
    assert cancel.wait(PATIENCE_S), "not cancelled in time"
    raise StoppedError("Stopped.")
