"""Records answers in the run table."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from core.db import GUEST, Origin, RunResult, RunStart, RunStore
from core.errors import RecordsError
from core.hardware.devices import host_facts, library_versions
from core.inference.answer import Answer
from core.inference.job import Job, JobObserver
from core.remotes import MARK, split_name
from core.store import Manifest, SourceKind

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
"""Recorded for facts that a remote server does not report."""

GROWTH_IN_PROCESS = "growth of the app's process over load and warm-up"
"""Scope of the memory figures of a run outside a benchmark."""


@dataclass
class RunRecorder(JobObserver):
    """Writes a row when an answer starts and completes it when it ends.

    If the database fails, the row is lost, but not the answer.
    """

    runs: RunStore
    origin: Origin
    session: str | None = None
    owner: str = GUEST
    run_id: str | None = None
    """Id of the row; None before work starts, or if the database failed."""
    _start: RunStart | None = None

    def started(self, job: Job) -> None:
        self._start = self._describe(job)
        try:
            self.run_id = self.runs.start(self._start)
        except RecordsError as error:
            logger.warning("The start of an answer was not recorded: %s", error)

    def ended(self, job: Job, answer: Answer) -> None:
        assert self._start is not None, "an answer ends after it has started"
        result = run_result(answer)
        try:
            if self.run_id is None:
                self.run_id = self.runs.add(self._start, result)
            else:
                self.runs.finish(self.run_id, result)
        except RecordsError as error:
            logger.warning("The end of an answer was not recorded: %s", error)

    def _describe(self, job: Job) -> RunStart:
        assert job.lease is not None, "work starts after the model was leased"
        stored, host = job.lease.stored, host_facts()
        conditions = job.lease.model.conditions
        remote_host = conditions.host  # its processor and operating system are unknown
        return RunStart(
            origin=self.origin,
            session=self.session,
            owner=self.owner,
            instruction=job.request.instruction,
            context=job.request.whole_context,
            prompt_format=job.prompt_format or "",
            **vars(job.request.sampling),
            options=job.request.options.used,
            speculation=job.request.speculation.text,
            model=stored.name if stored else job.spec.model,
            title=stored.title if stored else split_name(job.spec.model).model,
            source=_source(stored.manifest) if stored else f"{MARK}{job.spec.device}",
            precision=job.spec.precision_name,
            weights=stored.special_label if stored else None,
            device=job.spec.device,
            runtime=conditions.runtime or job.spec.runtime.value,
            hints=dict(conditions.hints),
            versions=library_versions(),
            host_name=remote_host or host.name,
            host_cpu=UNKNOWN if remote_host else host.cpu,
            host_os=UNKNOWN if remote_host else host.os,
        )


def _source(manifest: Manifest) -> str:
    embedded = manifest.source.kind == SourceKind.EMBEDDED
    return str(SourceKind.EMBEDDED) if embedded else manifest.source.location


_TIMED = (
    *("prompt_tokens", "new_tokens", "cached_tokens", "draft_tokens", "accepted_tokens"),
    *("queue_ms", "ttft_ms", "tpot_ms", "total_ms"),
    *("decode_tokens_per_s", "end_to_end_tokens_per_s", "prefill_tokens_per_s"),
)
"""Figures of :class:`core.inference.timing.Timings` that are recorded."""


def run_result(answer: Answer) -> RunResult:
    """Return the columns of the run table for an answer that has ended."""
    timings, conditions, facts = answer.timings, answer.conditions, answer.facts
    return RunResult(
        text=answer.text,
        stop_reason=answer.stop_reason.value,
        error=answer.error_sentence,
        execution_precision=conditions.execution_precision if conditions else None,
        kv_precision=conditions.kv_cache_precision if conditions else None,
        devices_used=conditions.devices_used if conditions else (),
        threads=conditions.threads if conditions else None,
        contended=answer.contended,
        **{name: getattr(timings, name, None) for name in _TIMED},
        load_s=facts.load_s if facts else None,
        memory_private_bytes=facts.memory.private_bytes if facts else None,
        memory_file_backed_bytes=facts.memory.file_backed_bytes if facts else None,
        memory_scope=GROWTH_IN_PROCESS if facts else None,
        token_times_ms=answer.token_times_ms,
    )
