"""Conversations: instructions with their answers, stored while and after they are generated.

An exchange is stored when its answer starts, with the text so far while it is generated, and
completed when it ends, whether a page is open or not. One without an answer and without a running
job was interrupted: the server was stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

from core.catalogue.chat_template import Role, Turn
from core.catalogue.prompts import prompt_format
from core.db import ConversationStore, ExchangeRow, Holder
from core.errors import GenerationError, RecordsError
from core.inference.answer import Answer, StopReason
from core.inference.job import Job
from core.inference.request import GenerationRequest, readable
from core.runtimes.spec import NO_SPECULATION, ModelSpec, SamplingSettings, Speculation

DEFAULT_FORMAT = "chat"
SAVE_EVERY_S = 1.0
"""Interval at which the text of a running answer is stored, for the case that the server is killed.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Details:
    """What is stored of a request apart from its texts."""

    spec: ModelSpec
    title: str
    """Display name of the model."""
    sampling: SamplingSettings
    prompt_format: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    system: str = ""
    """System prompt; empty: that of the model's chat template, if it has one."""
    follow_up: bool = False
    """Whether the earlier exchanges were sent along."""
    replaces: str | None = None
    """Id of an earlier exchange whose answer this one generates again or continues."""
    speculation: Speculation = NO_SPECULATION
    prefix: str = ""
    """The beginning of the answer, taken from the exchange that this one continues."""


@dataclass(frozen=True)
class Exchange:
    """One instruction with its answer."""

    id: str
    """That of the job."""
    asked_at: datetime
    """UTC."""
    instruction: str
    context: str
    details: Details
    answer: Answer | None = None
    """None while it is generated, or if it was interrupted."""
    run_id: str | None = None
    """Id of its row in the run table; None if it has none."""
    begun: str = ""
    """The beginning of an answer that was interrupted."""

    @property
    def text(self) -> str:
        """The whole answer: what it continues, and what was generated."""
        return self.details.prefix + (self.begun if self.answer is None else self.answer.text)

    @property
    def context_full(self) -> bool:
        """Whether the context length ended the answer, and not its maximum of new tokens."""
        answer, details = self.answer, self.details
        if answer is None or answer.timings is None or details.spec.remote:
            return False
        shorter = answer.timings.new_tokens < details.sampling.max_new_tokens
        return shorter and answer.stop_reason is StopReason.LENGTH

    def request(self, before: Iterable[Exchange] = ()) -> GenerationRequest:
        """Return the request.

        Args:
            before: the exchanges before this one in its conversation.
        """
        details = self.details
        return GenerationRequest(
            self.instruction,
            self.context,
            details.sampling,
            details.prompt_format,
            earlier=earlier_turns(before if details.follow_up else (), details.system),
            speculation=details.speculation,
            chat_template_kwargs=details.chat_template_kwargs or {},
            continues=readable(details.prefix),
            drop_earlier=True,
        )


_DETAILS, _ANSWER = TypeAdapter(Details), TypeAdapter(Answer)


def earlier_turns(exchanges: Iterable[Exchange], system: str = "") -> tuple[Turn, ...]:
    """Return the messages of these exchanges for a follow-up, without thoughts.

    Exchanges without a text, and those whose answer was generated again or continued, are left out.
    """
    exchanges = list(exchanges)
    replaced = {each.details.replaces for each in exchanges}
    turns = [Turn(Role.SYSTEM, system)] if system.strip() else []
    for each in exchanges:
        if each.id not in replaced and each.text.strip():
            turns += [Turn(Role.USER, _content(each)), Turn(Role.ASSISTANT, readable(each.text))]
    return tuple(turns)


def _content(exchange: Exchange) -> str:
    """Return the user message as it was sent, so that the prompt begins like the earlier one."""
    used = exchange.answer.prompt_format if exchange.answer is not None else None
    chosen = prompt_format(used or DEFAULT_FORMAT)
    return chosen.content(exchange.instruction, exchange.context)


class Conversations:
    """Stores the exchanges of conversations, and finds them again with their running jobs."""

    def __init__(
        self, store: Callable[[], ConversationStore], job: Callable[[str], Job | None]
    ) -> None:
        """
        Args:
            store: returns the store; raises RecordsError if the database cannot be opened.
            job: returns the running or just ended job with this id.
        """
        self._open_store = store
        self._find_job = job
        self._storing: dict[str, Job] = {}
        """Jobs whose answers are not stored yet."""

    @property
    def store(self) -> ConversationStore:
        """The store.

        Raises:
            RecordsError: the database cannot be opened.
        """
        return self._open_store()

    def begin(self, conversation: str | None, exchange: Exchange, job: Job, holder: Holder) -> str:
        """Store an exchange whose job was started, and its answer when it ends.

        Returns:
            The id of the conversation, which may be a new one.

        Raises:
            RecordsError: the database failed; the job continues.
        """
        row = ExchangeRow(
            id=exchange.id,
            asked_at=exchange.asked_at,
            instruction=exchange.instruction,
            context=exchange.context,
            request=asdict(exchange.details),
        )
        conversation = self.store.add(conversation, row, holder)
        self._storing[job.id] = job
        threading.Thread(target=self._keep, args=(job,), name="store answer", daemon=True).start()
        return conversation

    def _keep(self, job: Job) -> None:
        """Store the text of a running answer every second, and the answer when it has ended.

        This has a thread of its own: the database may wait for another process, and the model must
        not wait for the database.
        """
        stored = ""
        while not job.wait(SAVE_EVERY_S):
            if (text := job.text) != stored:
                self._store(job, text)
                stored = text
        if (answer := job.answer) is not None:
            self._store(job, answer.text, answer_to_json(answer))
        del self._storing[job.id]

    def _store(self, job: Job, text: str, answer: Mapping[str, Any] | None = None) -> None:
        try:
            self.store.finish(job.id, run=job.run_id, text=text, answer=answer)
        except RecordsError as error:
            logger.warning("An answer was not added to its conversation: %s", error)

    def read(self, conversation: str, holder: Holder) -> list[Exchange] | None:
        """Return the exchanges of a conversation, oldest first; None if there is none.

        Raises:
            RecordsError: the database failed.
        """
        rows = self.store.exchanges(conversation, holder)
        return None if rows is None else self.with_answers(map(_exchange, rows))

    def with_answers(self, exchanges: Iterable[Exchange]) -> list[Exchange]:
        """Add the answers that have ended since the exchanges were read."""
        return [self._with_answer(each) for each in exchanges]

    def _with_answer(self, exchange: Exchange) -> Exchange:
        if exchange.answer is not None:
            return exchange
        if (job := self._job(exchange.id)) is not None:
            ended = job.answer is not None
            return replace(exchange, answer=job.answer, run_id=job.run_id) if ended else exchange
        row = None
        with suppress(RecordsError):  # its answer may have been stored since it was read
            row = self.store.exchange(exchange.id)
        return exchange if row is None else _exchange(row)

    def job_of(self, exchanges: Sequence[Exchange]) -> Job | None:
        """Return the job of the newest exchange if it is still running."""
        if not exchanges or exchanges[-1].answer is not None:
            return None
        return self._job(exchanges[-1].id)

    def _job(self, job_id: str) -> Job | None:
        return self._storing.get(job_id) or self._find_job(job_id)


def started(exchange: Exchange, job: Job) -> Exchange:
    """Return the exchange with the id of its job, and with the seed that the job uses."""
    details = replace(exchange.details, sampling=job.request.sampling)
    return replace(exchange, id=job.id, details=details)


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """Return what is stored of an answer.

    The times of its tokens are stored only if they show accepted guesses, rounded to microseconds.
    """
    times = answer.token_times_ms if answer.accepted_guesses else ()
    rounded = tuple(round(each, 3) for each in times)
    plain = asdict(replace(answer, token_times_ms=rounded, error=None))
    return plain | {"error_sentence": answer.error_sentence}


def answer_from_json(plain: Mapping[str, Any]) -> Answer:
    """Return the answer that :func:`answer_to_json` wrote."""
    values = dict(plain)
    sentence = values.pop("error_sentence", None)
    answer = _ANSWER.validate_python(values)
    return answer if sentence is None else replace(answer, error=GenerationError(sentence))


def _exchange(row: ExchangeRow) -> Exchange:
    return Exchange(
        row.id,
        row.asked_at,
        row.instruction,
        row.context,
        _DETAILS.validate_python(row.request),
        None if row.answer is None else answer_from_json(row.answer),
        row.run,
        row.text or "",
    )
