"""The command line: ``python -m core COMMAND``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from core.catalogue import DEFAULT_PRECISION, Precision
from core.cli import accounts, answers, bench, overview, serve, store, tune
from core.errors import BadRequestError, PaddockError
from core.runtimes.spec import ANSWERING_RUNTIMES, DEFAULT_RUNTIME, LOCAL_RUNTIMES, RuntimeName
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
    parser = _Parser(prog="python -m core", description="Instruction-following models on OpenVINO.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    command = commands.add_parser("doctor", help="check the installation and this machine")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=overview.doctor)

    command = commands.add_parser("models", help="list the catalogue and the models on disk")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=overview.models)

    command = commands.add_parser("remotes", help="list remote servers and their models")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=overview.remotes)

    _add_get(
        commands.add_parser(
            "get", help="download a model from the Hugging Face Hub without converting it"
        )
    )
    _add_convert(commands.add_parser("convert", help="convert a model to a precision"))
    _add_delete(commands.add_parser("delete", help="delete a model from disk"))
    _add_verify(commands.add_parser("verify", help="verify the checksums of stored models"))
    _add_generate(commands.add_parser("generate", help="generate an answer to an instruction"))
    _add_bench(commands.add_parser("bench", help="measure speed and memory of models"))
    _add_tune(
        commands.add_parser(
            "tune", help="find the fastest execution hints for a model on this machine"
        )
    )
    _add_serve(commands.add_parser("serve", help="serve models on a Ray cluster"))
    _add_admin(commands.add_parser("admin", help="create an administrator account"))

    command = commands.add_parser("accounts", help="list accounts")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=accounts.accounts)
    return parser


def _add_admin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "name", help="name of a new account, or of an existing one to make administrator and enable"
    )
    command.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input; replaces that of an existing account "
        "(default: prompt for a new account, keep the password of an existing one)",
    )
    command.set_defaults(run=accounts.admin)


def _add_get(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="catalogue key or Hugging Face id")
    _add_token(command)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=store.get)


def _add_convert(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=_MODEL)
    command.add_argument(
        "precision", nargs="?", type=_precision, metavar="PRECISION", help=_PRECISION
    )
    command.add_argument(
        "--precision",
        dest="precision_option",
        type=_precision,
        metavar="PRECISION",
        help="the precision as an option",
    )
    four = command.add_argument_group("INT4 (default: the settings recommended for the model)")
    four.add_argument(
        "--group-size",
        type=int,
        metavar="N",
        help="weights that share a scale; -1: one scale per channel",
    )
    four.add_argument("--ratio", type=float, metavar="R", help="share of layers in INT4, 0 to 1")
    four.add_argument(
        "--symmetric",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="symmetric quantization, without zero points",
    )
    four.add_argument(
        "--scale-estimation",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="estimate the scales on texts generated by the model: slower, slightly more accurate",
    )
    eight = command.add_argument_group("INT8")
    eight.add_argument(
        "--int8-symmetric",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="symmetric quantization, without zero points",
    )
    _add_token(command)
    command.add_argument("--json", action="store_true", help="print the manifest as JSON")
    command.set_defaults(run=store.convert)


def _add_delete(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", help=_MODEL)
    command.add_argument(
        "--precision",
        type=_precision,
        metavar="PRECISION",
        help="only this precision (default: all, keeping the download)",
    )
    command.add_argument(
        "--download", action="store_true", help="the files downloaded from the Hugging Face Hub"
    )
    command.add_argument(
        "--random-weights",
        action="store_true",
        help="models with random weights from benchmarks, and INT4 models converted for an NPU",
    )
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=store.delete)


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", help=f"{_MODEL} (default: all)")
    command.add_argument(
        "--precision", type=_precision, metavar="PRECISION", help="only this precision"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=store.verify)


def _add_generate(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=f"{_MODEL}, or remote:NAME/MODEL")
    command.add_argument(
        "--precision",
        type=_precision,
        metavar="PRECISION",
        help=_PRECISION,
    )
    command.add_argument("instruction", help="the instruction")
    command.add_argument("--context", default="", help="a text that the instruction refers to")
    command.add_argument("--device", default="AUTO", help="OpenVINO device (default AUTO)")
    command.add_argument(
        "--runtime",
        "--runtimes",
        type=_runtime,
        default=DEFAULT_RUNTIME,
        metavar="RUNTIME",
        help=f"{', '.join(ANSWERING_RUNTIMES)} (default {DEFAULT_RUNTIME})",
    )
    command.add_argument("--prompt-format", help="dolly, alpaca, plain … (default: the model's)")
    command.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    command.add_argument(
        "--temperature", type=float, metavar="T", help="0: greedy decoding (default: the model's)"
    )
    command.add_argument("--top-p", type=float, metavar="P", help="default: the model's")
    command.add_argument("--top-k", type=int, metavar="K", help="0: off (default: the model's)")
    command.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument(
        "--seed", type=int, metavar="N", help="random seed, to reproduce a sampled answer"
    )
    choice.add_argument(
        "--greedy", action="store_true", help="greedy decoding: always the most likely token"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object at the end")
    command.set_defaults(run=answers.generate)


def _add_bench(command: argparse.ArgumentParser) -> None:
    what = command.add_argument_group("what to measure (comma-separated lists)")
    what.add_argument(
        "--models",
        type=bench.names,
        metavar="A,B",
        help="keys, ids or folders (default: the tiny demo models)",
    )
    what.add_argument(
        "--random-weights",
        type=bench.names,
        metavar="C,D",
        help="catalogue keys, or neox-410m: the model's shape with random weights, not downloaded",
    )
    what.add_argument(
        "--precisions",
        type=bench.precisions,
        metavar="P,Q",
        help=f"{', '.join(Precision)} (default int8,int4,fp16; for GGUF files also stored)",
    )
    what.add_argument("--devices", type=bench.names, metavar="X,Y", help="default CPU")
    what.add_argument(
        "--runtimes",
        type=bench.names,
        metavar="R,S",
        help=f"{', '.join(LOCAL_RUNTIMES)} (pytorch: only FP32 and FP16); "
        f"default {DEFAULT_RUNTIME}",
    )
    what.add_argument("--prompt-tokens", type=bench.numbers, metavar="N,M", help="default 32,512")
    how = command.add_argument_group("how to measure")
    how.add_argument("--new-tokens", type=int, metavar="N", help="default 128")
    how.add_argument(
        "--repeat", type=int, metavar="N", help="timed answers per measurement (default 5)"
    )
    how.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="new processes among which they are divided (default 2)",
    )
    how.add_argument(
        "--quality",
        action="store_true",
        help="compare the quality of each precision with the reference",
    )
    how.add_argument(
        "--memory-limit",
        type=bench.byte_count,
        metavar="SIZE",
        help="memory limit of each measuring process, such as 8GB; can be changed with --resume",
    )
    how.add_argument(
        "--keep",
        action="store_true",
        help="keep the models with random weights on disk until they are deleted",
    )
    where = command.add_argument_group("where to measure (default: on this machine)")
    where.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="on all nodes of this Ray cluster at the same time: host:port, auto or local",
    )
    where.add_argument(
        "--ray-resource",
        metavar="NAME",
        help="only on nodes with this resource, or with this label as KEY=VALUE",
    )
    out = command.add_argument_group("output")
    for ending in ("json", "csv", "markdown"):
        out.add_argument(
            f"--{ending}", type=Path, metavar="FILE", help=f"also write the results as {ending}"
        )
    suite = command.add_argument_group("speed suite, which compares speed with fixed thresholds")
    suite.add_argument("--suite", choices=("speed",), help="run the suite instead of a benchmark")
    suite.add_argument("--quick", action="store_true", help="fewer and shorter answers")
    suite.add_argument(
        "--parts",
        type=bench.names,
        metavar="A,B",
        help="large, middle, embedded, page, api, start (default: all)",
    )
    earlier = command.add_argument_group("earlier benchmark runs")
    earlier.add_argument(
        "--resume", metavar="ID", help="measure the missing rows of a benchmark run"
    )
    earlier.add_argument("--list", action="store_true", help="list them, newest first")
    command.set_defaults(run=bench.bench)


def _add_tune(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", help=_MODEL)
    command.add_argument(
        "--precision",
        type=_precision,
        metavar="PRECISION",
        help=_PRECISION,
    )
    command.add_argument("--device", default="CPU", help="OpenVINO device (default CPU)")
    command.add_argument(
        "--runtime",
        type=_runtime,
        default=DEFAULT_RUNTIME,
        metavar="RUNTIME",
        help=f"{', '.join(ANSWERING_RUNTIMES)} (default {DEFAULT_RUNTIME})",
    )
    command.add_argument(
        "--quality-limit",
        type=float,
        default=1.01,
        metavar="R",
        help="highest perplexity relative to the default hints (default 1.01)",
    )
    command.add_argument("--forget", action="store_true", help="use the default hints again")
    command.add_argument("--list", action="store_true", help="list tuned models")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.set_defaults(run=tune.tune)


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="*", metavar="MODEL", help=_MODEL)
    command.add_argument(
        "--ray",
        required=True,
        metavar="ADDRESS",
        help="host:port, auto, or local for a cluster on this machine until Ctrl-C",
    )
    command.add_argument("--status", action="store_true", help="show the served models")
    command.add_argument("--stop", metavar="MODEL", help="stop serving a model")
    how = command.add_argument_group("deployment")
    how.add_argument(
        "--precision",
        type=_precision,
        metavar="PRECISION",
        help=_PRECISION,
    )
    how.add_argument("--device", default="AUTO", help="OpenVINO device (default AUTO)")
    how.add_argument(
        "--runtime",
        type=_runtime,
        default=RuntimeName.GENAI,
        metavar="RUNTIME",
        help=f"{', '.join(ANSWERING_RUNTIMES)} (default {RuntimeName.GENAI})",
    )
    how.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="number of replicas (default 1)"
    )
    how.add_argument(
        "--min-replicas",
        type=int,
        metavar="N",
        help="autoscaling: lowest number of replicas (default: --replicas)",
    )
    how.add_argument(
        "--max-replicas",
        type=int,
        metavar="N",
        help="autoscaling: highest number of replicas (default: --replicas)",
    )
    how.add_argument(
        "--grow-after",
        type=float,
        default=30,
        metavar="S",
        help="seconds of high load before replicas are added (default 30)",
    )
    how.add_argument(
        "--shrink-after",
        type=float,
        default=600,
        metavar="S",
        help="seconds of low load before replicas are removed (default 600)",
    )
    how.add_argument(
        "--at-once",
        type=int,
        default=8,
        metavar="N",
        help="concurrent answers per replica (default 8)",
    )
    how.add_argument(
        "--cpus",
        type=float,
        default=1.0,
        metavar="N",
        help="CPUs that Ray reserves per replica (default 1)",
    )
    how.add_argument("--ray-resource", metavar="NAME", help="only on nodes with this resource")
    address = command.add_argument_group("address (set by the first `serve` on a cluster)")
    address.add_argument(
        "--host", default="127.0.0.1", help="address on the head node (default 127.0.0.1)"
    )
    address.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    address.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        help=f"one key per line (default: {serve.KEYS_VARIABLE}); not needed on loopback addresses",
    )
    command.set_defaults(run=serve.serve)


def _add_token(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--token-stdin",
        action="store_true",
        help="read an access token from standard input (default: HF_TOKEN)",
    )


def _precision(text: str) -> Precision:
    try:
        return Precision(text.lower())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"unknown precision {text!r}; choose {', '.join(Precision)}"
        ) from None


def _runtime(text: str) -> RuntimeName:
    if text.lower() not in ANSWERING_RUNTIMES:
        raise argparse.ArgumentTypeError(
            f"unknown runtime {text!r}; choose {', '.join(ANSWERING_RUNTIMES)}"
        )
    return RuntimeName(text.lower())


def _fail(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
