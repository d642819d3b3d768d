"""The command line: ``python -m core COMMAND``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from core.catalogue import DEFAULT_PRECISION, Precision
from core.cli import accounts, answers, bench, doctor, evaluate, overview, serve, store, tune
from core.cli.arguments import (
    byte_count,
    names,
    numbers,
    precision,
    precisions,
    runtime,
    runtimes,
    speculation,
)
from core.errors import BadRequestError, PaddockError
from core.runtimes.spec import ANSWERING_RUNTIMES, DEFAULT_RUNTIME, LOCAL_RUNTIMES
from core.settings import load_settings

_MODEL = "catalogue key, Hugging Face id, folder or GGUF file"
_PRECISION = f"{', '.join(Precision)} (default {DEFAULT_PRECISION}; stored for a GGUF file)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 success, 2 a mistake in the command or its input, 1 a failure. Errors are printed on
        stderr.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Print "?" for characters that the terminal's encoding lacks.
            stream.reconfigure(errors="replace")
    try:
        options = _parser().parse_args(arguments)
        code = options.run(options, load_settings())
        sys.stdout.flush()
    except PaddockError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("Stopped.", PaddockError.exit_code)
    except BrokenPipeError:
        # The reader has closed the pipe. The interpreter flushes stdout again when it exits.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        return PaddockError.exit_code
    return code


class _Parser(argparse.ArgumentParser):
    """Raises usage errors as :class:`BadRequestError`."""

    def error(self, message: str) -> NoReturn:
        sentence = message[0].upper() + message[1:]
        raise BadRequestError(f"{sentence.rstrip('.')}. See `{self.prog} --help`.")


def _parser() -> argparse.ArgumentParser:
    installed = Path(sys.argv[0]).stem == "paddock"  # the console script of the package
    prog = "paddock" if installed else "python -m core"
    parser = _Parser(prog=prog, description="Instruction-following models on OpenVINO.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for name, text, run, add_options in _COMMANDS:
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        add_options(command)
    return parser


# Options


def _option(
    group: argparse._ActionsContainer, name: str, kind: Any, metavar: str, text: str, **more: Any
) -> None:
    group.add_argument(name, type=kind, metavar=metavar, help=text, **more)


def _flag(group: argparse._ActionsContainer, name: str, text: str) -> None:
    group.add_argument(name, action="store_true", help=text)


def _switch(group: argparse._ActionsContainer, name: str, text: str) -> None:
    """Add ``--name`` and ``--no-name``; None if neither is given."""
    group.add_argument(name, action=argparse.BooleanOptionalAction, default=None, help=text)


def _add_json(command: argparse._ActionsContainer, text: str = "print JSON") -> None:
    _flag(command, "--json", text)


def _add_token(command: argparse._ActionsContainer) -> None:
    _flag(command, "--token-stdin", "read an access token from standard input (default: HF_TOKEN)")


def _add_precision(group: argparse._ActionsContainer, text: str = _PRECISION) -> None:
    _option(group, "--precision", precision, "PRECISION", text)


def _add_device_and_runtime(group: argparse._ActionsContainer, device: str = "AUTO") -> None:
    group.add_argument("--device", default=device, help=f"OpenVINO device (default {device})")
    text = f"{', '.join(ANSWERING_RUNTIMES)} (default {DEFAULT_RUNTIME})"
    group.add_argument(
        "--runtime",
        "--runtimes",
        type=runtime,
        metavar="RUNTIME",
        help=text,
        default=DEFAULT_RUNTIME,
    )


def _add_speculation(command: argparse._ActionsContainer, more: str = "") -> None:
    text = (
        "guess tokens by prompt lookup: off, on, auto, or guessed tokens and n-gram length such as "
        f"5x3 (default off{more})"
    )
    _option(command, "--speculation", speculation, "S", text)


# Commands


def _add_admin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "name", help="name of a new account, or of an existing one to make administrator and enable"
    )
    text = (
        "read the password from standard input; replaces that of an existing account "
        "(default: prompt for a new account, keep the password of an existing one)"
    )
    _flag(command, "--password-stdin", text)


def _add_get(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="catalogue key or Hugging Face id")
    _add_token(command)
    _add_json(command)


def _add_convert(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=_MODEL)
    command.add_argument(
        "precision", nargs="?", type=precision, metavar="PRECISION", help=_PRECISION
    )
    text = "the precision as an option"
    _option(command, "--precision", precision, "PRECISION", text, dest="precision_option")
    four = command.add_argument_group("INT4 (default: the settings of the recipe)")
    _option(four, "--group-size", int, "N", "weights that share a scale; -1: one scale per channel")
    _option(four, "--ratio", float, "R", "share of layers in INT4, 0 to 1")
    _switch(four, "--symmetric", "symmetric quantization, without zero points")
    text = "estimate the scales on texts generated by the model: slower, slightly more accurate"
    _switch(four, "--scale-estimation", text)
    text = "AWQ: scale important channels up before rounding; without data, or on those texts"
    _switch(four, "--awq", text)
    eight = command.add_argument_group("INT8")
    _switch(eight, "--int8-symmetric", "symmetric quantization, without zero points")
    _add_token(command)
    _add_json(command, "print the manifest as JSON")


def _add_delete(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", help=_MODEL)
    _add_precision(command, "only this precision (default: all, keeping the download)")
    _flag(command, "--download", "the files downloaded from the Hugging Face Hub")
    _flag(command, "--random-weights", "models with random weights from benchmarks")
    _flag(command, "--yes", "do not ask for confirmation")
    _add_json(command)


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", help=f"{_MODEL} (default: all)")
    _add_precision(command, "only this precision")
    _add_json(command)


def _add_generate(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=f"{_MODEL}, or remote:NAME/MODEL")
    _add_precision(command)
    command.add_argument("instruction", help="the instruction")
    command.add_argument("--context", default="", help="a text that the instruction refers to")
    _add_device_and_runtime(command)
    command.add_argument("--prompt-format", help="dolly, alpaca, plain … (default: the model's)")
    command.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    _option(command, "--temperature", float, "T", "0: greedy decoding (default: the model's)")
    _option(command, "--top-p", float, "P", "default: the model's")
    _option(command, "--top-k", int, "K", "0: off (default: the model's)")
    command.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    _add_speculation(command, "; auto helps from the second answer of a process on")
    choice = command.add_mutually_exclusive_group()
    _option(choice, "--seed", int, "N", "random seed, to reproduce a sampled answer")
    _flag(choice, "--greedy", "greedy decoding: always the most likely token")
    _add_json(command, "print one JSON object at the end")


def _add_bench(command: argparse.ArgumentParser) -> None:
    what = command.add_argument_group("what to measure (comma-separated lists)")
    _option(what, "--models", names, "A,B", "keys, ids or folders (default: the tiny demo models)")
    text = "catalogue keys, or neox-410m: the model's shape with random weights, not downloaded"
    _option(what, "--random-weights", names, "C,D", text)
    text = f"{', '.join(Precision)} (default int8,int4,fp16; for GGUF files also stored)"
    _option(what, "--precisions", precisions, "P,Q", text)
    _option(what, "--devices", names, "X,Y", "default CPU")
    text = f"{', '.join(LOCAL_RUNTIMES)} (pytorch: only FP32 and FP16); default {DEFAULT_RUNTIME}"
    _option(what, "--runtimes", runtimes, "R,S", text)
    _option(what, "--prompt-tokens", numbers, "N,M", "default 32,512")
    what.add_argument(
        "--preset",
        choices=("llama-bench",),
        help="pp512 and tg128, with llama-bench's columns on the screen and in --json and "
        "--markdown",
    )
    how = command.add_argument_group("how to measure")
    _add_speculation(how)
    _option(how, "--new-tokens", int, "N", "default 128")
    _option(how, "--repeat", int, "N", "timed answers per measurement (default 5)")
    _option(how, "--rounds", int, "N", "new processes among which they are divided (default 2)")
    _flag(how, "--quality", "compare the quality of each precision with the reference")
    text = "memory limit of each measuring process, such as 8GB; can be changed with --resume"
    _option(how, "--memory-limit", byte_count, "SIZE", text)
    _flag(how, "--keep", "keep this run's models with random weights on disk")
    where = command.add_argument_group("where to measure (default: on this machine)")
    text = "on all nodes of this Ray cluster at the same time: host:port, auto or local"
    _option(where, "--ray", str, "ADDRESS", text)
    text = "only on nodes with this resource, or with this label as KEY=VALUE"
    _option(where, "--ray-resource", str, "NAME", text)
    out = command.add_argument_group("output")
    for ending in ("json", "csv", "markdown"):
        _option(out, f"--{ending}", Path, "FILE", f"also write the results as {ending}")
    suite = command.add_argument_group("speed suite, which compares speed with fixed thresholds")
    suite.add_argument("--suite", choices=("speed",), help="run the suite instead of a benchmark")
    _flag(suite, "--quick", "fewer and shorter answers")
    text = "large, middle, embedded, page, api, start, speculation (default: all)"
    _option(suite, "--parts", names, "A,B", text)
    text = "compare with llama.cpp and PyTorch on the same GGUF file instead, or after --parts"
    _flag(suite, "--peers", text)
    earlier = command.add_argument_group("earlier benchmark runs")
    _option(earlier, "--resume", str, "ID", "measure the missing rows of a benchmark run")
    _flag(earlier, "--list", "list them, newest first")


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "set", nargs="?", metavar="SET", help="CSV, JSON or JSON lines file; examples; or held-out"
    )
    what = command.add_argument_group("cases")
    text = (
        "check of cases without their own, such as 'f1: 0.3'; may be repeated (default: the "
        "set's, or ends and f1: 0.3)"
    )
    _option(what, "--check", str, "CHECK", text, action="append")
    what.add_argument(
        "--context-only",
        action="store_true",
        default=None,
        help="only cases with a context passage",
    )
    _option(what, "--first", int, "N", "only the first N cases")
    who = command.add_argument_group("candidates")
    text = "one to eight, each as MODEL:PRECISION@DEVICE+RUNTIME or remote:NAME/MODEL"
    _option(who, "--models", names, "A,B", text)
    who.add_argument("--prompt-format", help="dolly, alpaca, plain … (default: the model's)")
    _option(who, "--system", str, "TEXT", "system prompt")
    _add_speculation(who)
    _option(who, "--max-new-tokens", int, "N", "default 256")
    _option(who, "--temperature", float, "T", "default 0: greedy decoding")
    _option(who, "--top-p", float, "P", "default 0.92")
    _option(who, "--seed", int, "N", "default 0")
    out = command.add_argument_group("output")
    text = "JSON file of an earlier run: exit with 1 if a case that passed then does not now"
    _option(out, "--baseline", Path, "FILE", text)
    _option(out, "--json", Path, "FILE", "write the run, usable as baseline")
    _option(out, "--csv", Path, "FILE", "write a row for each answer")
    _option(command, "--resume", str, "ID", "continue a run that was stopped or killed")


def _add_tune(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", help=_MODEL)
    _add_precision(command)
    _add_device_and_runtime(command, "CPU")
    text = "highest perplexity relative to the default hints (default 1.01)"
    _option(command, "--quality-limit", float, "R", text, default=1.01)
    _flag(command, "--forget", "use the default hints again")
    _flag(command, "--list", "list tuned models")
    _add_json(command, "print the result as JSON")


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="*", metavar="MODEL", help=_MODEL)
    text = "host:port, auto, or local for a cluster on this machine until Ctrl-C"
    _option(command, "--ray", str, "ADDRESS", text, required=True)
    _flag(command, "--status", "show the served models")
    _option(command, "--stop", str, "MODEL", "stop serving a model")
    how = command.add_argument_group("deployment")
    _add_precision(how)
    _add_device_and_runtime(how)
    _option(how, "--replicas", int, "N", "number of replicas (default 1)", default=1)
    for name, which in (("--min-replicas", "lowest"), ("--max-replicas", "highest")):
        text = f"autoscaling: {which} number of replicas (default: --replicas)"
        _option(how, name, int, "N", text)
    for name, load, change, seconds in (
        ("--grow-after", "high", "added", 30),
        ("--shrink-after", "low", "removed", 600),
    ):
        text = f"seconds of {load} load before replicas are {change} (default {seconds})"
        _option(how, name, float, "S", text, default=seconds)
    _option(how, "--at-once", int, "N", "concurrent answers per replica (default 8)", default=8)
    _option(
        how, "--cpus", float, "N", "CPUs that Ray reserves per replica (default 1)", default=1.0
    )
    _option(how, "--ray-resource", str, "NAME", "only on nodes with this resource")
    address = command.add_argument_group("address (set by the first `serve` on a cluster)")
    address.add_argument(
        "--host", default="127.0.0.1", help="address on the head node (default 127.0.0.1)"
    )
    address.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    text = f"one key per line (default: {serve.KEYS_VARIABLE}); not needed on loopback addresses"
    _option(address, "--api-keys", Path, "FILE", text)


_COMMANDS = (
    ("doctor", "check the installation and this machine", doctor.doctor, _add_json),
    ("models", "list the catalogue and the models on disk", overview.models, _add_json),
    ("remotes", "list remote servers and their models", overview.remotes, _add_json),
    (
        "get",
        "download a model from the Hugging Face Hub without converting it",
        store.get,
        _add_get,
    ),
    ("convert", "convert a model to a precision", store.convert, _add_convert),
    ("delete", "delete a model from disk", store.delete, _add_delete),
    ("verify", "verify the checksums of stored models", store.verify, _add_verify),
    ("generate", "generate an answer to an instruction", answers.generate, _add_generate),
    ("bench", "measure speed and memory of models", bench.bench, _add_bench),
    (
        "evaluate",
        "run a test set through models, and compare with a baseline",
        evaluate.evaluate,
        _add_evaluate,
    ),
    ("tune", "find the fastest execution hints for a model on this machine", tune.tune, _add_tune),
    ("serve", "serve models on a Ray cluster", serve.serve, _add_serve),
    ("admin", "create an administrator account", accounts.admin, _add_admin),
    ("accounts", "list accounts", accounts.accounts, _add_json),
)


def _fail(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
