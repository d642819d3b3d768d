"""The command line: ``python -m core COMMAND``."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from core.catalogue import DEFAULT_PRECISION, Precision, catalogue
from core.errors import BadRequestError, PaddockError
from core.settings import Settings, load_settings
from core.units import bytes_text, parameters_text

if TYPE_CHECKING:
    from core.generation.answer import Answer
    from core.generation.job import Job


_LOOK_EVERY_S = 0.02
"""How often the terminal is brought up to date while an answer comes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 2 the person's mistake, 1 a failure. Errors are one sentence on stderr.
    """
    _print_what_can_be_printed()
    try:
        options = _parser().parse_args(arguments)
        code = options.run(options, load_settings())
        sys.stdout.flush()
    except PaddockError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("Stopped.", PaddockError.exit_code)
    except BrokenPipeError:
        _discard_output()  # the reader has gone; nobody is left to tell
        return PaddockError.exit_code
    return code


def doctor(options: argparse.Namespace, settings: Settings) -> int:
    """Print what is there, what is wrong and how to mend it."""
    from core import doctor as examination

    report = examination.examine(settings)
    print(examination.to_json(report) if options.json else examination.to_text(report))
    return report.exit_code


def models(options: argparse.Namespace, settings: Settings) -> int:
    """Print the catalogue and what is on disk."""
    from core.store import ModelStore

    on_disk: dict[str, dict[str, int]] = {}
    titles: dict[str, str] = {}
    for stored in ModelStore(settings).list():
        on_disk.setdefault(stored.key, {})[stored.precision.value] = stored.manifest.folder_bytes
        titles[stored.key] = stored.manifest.title
    rows: list[dict[str, Any]] = [
        {
            "key": row.key,
            "title": row.title,
            "source": row.hub_id or "embedded",
            "parameters": row.parameters,
            "licence": row.licence,
            "gated": row.gated,
            "prompt_format": row.prompt_format,
            "positions": row.shape.positions,
            "on_disk": on_disk.pop(row.key, {}),
        }
        for row in catalogue().values()
    ]
    rows += [
        {"key": key, "title": titles[key], "source": "yours", "on_disk": sizes}
        for key, sizes in on_disk.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        size = parameters_text(row["parameters"]) if "parameters" in row else "—"
        sizes = [f"{name} {bytes_text(size)}" for name, size in row["on_disk"].items()]
        disk = ", ".join(sizes) or "not on disk"
        print(f"{row['key']:24} {size:>8}  {row.get('licence', ''):26} {disk}")
    return 0


def convert(options: argparse.Namespace, settings: Settings) -> int:
    """Convert a model to one precision, unless it is there already."""
    from core.store import convert_in_process

    line = _Line()
    try:
        stored = convert_in_process(
            options.model, options.precision, settings=settings, progress=line.progress
        )
    finally:
        line.clear()
    if options.json:
        print(stored.manifest.model_dump_json(indent=2))
    else:
        manifest = stored.manifest
        print(
            f"{manifest.title} in {stored.precision.label}: {bytes_text(manifest.folder_bytes)}, "
            f"converted in {manifest.duration_s:.0f} s with a peak of "
            f"{bytes_text(manifest.peak_memory_bytes)} of memory."
        )
    return 0


def generate(options: argparse.Namespace, settings: Settings) -> int:
    """Answer one instruction, streaming it to the terminal."""
    from core.engine import Engine
    from core.generation.answer import StopReason
    from core.generation.request import GenerationRequest
    from core.records import Origin
    from core.runtimes.spec import ModelSpec, SamplingSettings

    sampling = SamplingSettings(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        top_k=options.top_k,
        repetition_penalty=options.repetition_penalty,
        greedy=options.greedy or options.temperature == 0,
        seed=options.seed,
    )
    request = GenerationRequest(
        options.instruction, options.context, sampling, options.prompt_format
    ).validated()
    engine = Engine(settings)
    spec = ModelSpec(options.model, options.precision, options.device)
    job = engine.answer(engine.pool.handle(spec), request, origin=Origin.CLI)
    answer = _stream(job, quiet=options.json)
    if job.text and not options.json:
        print()
    if answer.error is not None:
        raise answer.error
    if options.json:
        print(json.dumps(_as_json(job, answer), indent=2))
    else:
        print(_summary(answer), file=sys.stderr)
    stopped = answer.stop_reason is StopReason.CANCELLED
    return PaddockError.exit_code if stopped else 0


def _stream(job: Job, *, quiet: bool) -> Answer:
    """Print an answer as it comes, unless ``quiet``; Ctrl-C ends it and keeps what is there."""
    line = _Line()
    read = 0
    try:
        while not job.wait(_LOOK_EVERY_S):
            read = _print_new(job, read, line, quiet=quiet)
    except KeyboardInterrupt:
        line.clear()
    finally:  # an answer does not outlive whoever reads it; one that has ended does not mind
        job.cancel()
        job.wait()
    _print_new(job, read, line, quiet=quiet)
    line.clear()
    assert job.answer is not None, "the job has ended"
    return job.answer


def _as_json(job: Job, answer: Answer) -> dict[str, Any]:
    from core.devices import host_facts, library_versions
    from core.recording import GROWTH_IN_PROCESS

    spec, timings, conditions = job.spec, answer.timings, answer.conditions
    facts, host = answer.facts, host_facts()
    return {
        "text": answer.text,
        "tokens": len(answer.token_ids),
        "prompt_tokens": timings.prompt_tokens if timings else None,
        "ttft_ms": timings.ttft_ms if timings else None,
        "tpot_ms": timings.tpot_ms if timings else None,
        "tokens_per_s": timings.decode_tokens_per_s if timings else None,
        "stop_reason": answer.stop_reason.value,
        "load_s": facts.load_s if facts else None,
        "memory": {
            "private_bytes": facts.memory.private_bytes,
            "file_backed_bytes": facts.memory.file_backed_bytes,
            "scope": GROWTH_IN_PROCESS,
        }
        if facts
        else None,
        "conditions": {
            "model": spec.model,
            "precision": spec.precision.value,
            "execution_precision": conditions.execution_precision if conditions else None,
            "kv_cache_precision": conditions.kv_cache_precision if conditions else None,
            "device": spec.device,
            "devices_used": list(conditions.devices_used) if conditions else [],
            "runtime": spec.runtime.value,
            "threads": conditions.threads if conditions else None,
            "hints": dict(conditions.hints) if conditions else {},
            "prompt_format": answer.prompt_format,
            "seed": answer.seed,
            "greedy": job.request.sampling.greedy,
            "contended": answer.contended,
            "versions": library_versions(),
            "host": {"name": host.name, "cpu": host.cpu, "os": host.os},
        },
    }


def _summary(answer: Answer) -> str:
    timings = answer.timings
    parts = [answer.stop_reason.value]
    if timings is not None:
        parts.insert(0, f"{timings.new_tokens} tokens")
        if timings.decode_tokens_per_s:
            parts.insert(0, f"{timings.decode_tokens_per_s:.1f} tokens/s")
        if timings.ttft_ms is not None:
            parts.insert(0, f"first token after {timings.ttft_ms:.0f} ms")
    if answer.seed is not None:
        parts.append(f"seed {answer.seed}")
    return " · ".join(parts)


def _print_new(job: Job, read: int, line: _Line, *, quiet: bool) -> int:
    from core.generation.job import Phase

    snapshot = job.snapshot()
    if snapshot.phase in (Phase.PREPARING, Phase.QUEUED):
        line.show(snapshot.message)
    pieces, read = job.read(read)
    text = "".join(pieces)
    if text and not quiet:
        line.clear()
        print(text, end="", flush=True)
    return read


class _Line:
    """Progress on stderr: one line rewritten in a terminal.

    Nothing where stderr is a file or a pipe, so that a script finds nothing there but an error.
    """

    def __init__(self) -> None:
        self._told: str | None = None
        self._terminal = sys.stderr.isatty()

    def progress(self, progress: Any) -> None:
        """Show a step of a conversion."""
        share = "" if progress.fraction is None else f" ({progress.fraction:.0%})"
        self.show(progress.message + share)

    def show(self, message: str) -> None:
        """Show a message, once."""
        if self._terminal and message != self._told:
            print(f"\r\x1b[K{message}", end="", file=sys.stderr, flush=True)
            self._told = message

    def clear(self) -> None:
        """Make room for other output."""
        if self._told is not None:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._told = None


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        sentence = message[0].upper() + message[1:]
        raise BadRequestError(f"{sentence.rstrip('.')}; see `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m core", description="Instruction-following models on OpenVINO.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    command = commands.add_parser("doctor", help="what is there, what is wrong, how to mend it")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=doctor)

    command = commands.add_parser("models", help="the catalogue and what is on disk")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=models)

    command = commands.add_parser("convert", help="convert a model to OpenVINO in one precision")
    _add_model(command)
    command.add_argument("--json", action="store_true", help="print the manifest as JSON")
    command.set_defaults(run=convert)

    command = commands.add_parser("generate", help="answer one instruction")
    _add_model(command)
    command.add_argument("instruction", help="what the model is to do")
    command.add_argument("--context", default="", help="a passage the instruction is about")
    command.add_argument("--device", default="AUTO", help="OpenVINO device (default AUTO)")
    command.add_argument("--prompt-format", help="dolly, alpaca, plain … (default: the model's)")
    command.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    command.add_argument(
        "--temperature", type=float, default=0.8, metavar="T", help="0 means greedy"
    )
    command.add_argument("--top-p", type=float, default=0.92, metavar="P")
    command.add_argument("--top-k", type=int, default=0, metavar="K", help="0 switches it off")
    command.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--seed", type=int, metavar="N", help="reproduces a sampled answer")
    choice.add_argument("--greedy", action="store_true", help="always the likeliest token")
    command.add_argument("--json", action="store_true", help="print one JSON object at the end")
    command.set_defaults(run=generate)
    return parser


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="catalogue key, Hugging Face id or folder")
    command.add_argument(
        "--precision",
        type=_precision,
        default=DEFAULT_PRECISION,
        metavar="PRECISION",
        help=f"{', '.join(Precision)} (default {DEFAULT_PRECISION})",
    )


def _precision(text: str) -> Precision:
    try:
        return Precision(text.lower())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"there is no precision {text!r}; choose {', '.join(Precision)}"
        ) from None


def _print_what_can_be_printed() -> None:
    """Let a terminal that has not all characters show a question mark for those it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Point stdout to nowhere: the interpreter flushes it once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _fail(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
