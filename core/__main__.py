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
    command.set_defaults(run=overview.doctor)

    command = commands.add_parser("models", help="the catalogue and what is on disk")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=overview.models)

    command = commands.add_parser("remotes", help="the servers elsewhere and their models")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=overview.remotes)

    _add_get(commands.add_parser("get", help="fetch a model from the hub, convert nothing"))
    _add_convert(commands.add_parser("convert", help="have a model on disk in one precision"))
    _add_delete(commands.add_parser("delete", help="remove a model from disk"))
    _add_verify(commands.add_parser("verify", help="compare stored models with their checksums"))
    _add_generate(commands.add_parser("generate", help="answer one instruction"))
    _add_bench(commands.add_parser("bench", help="measure speed and memory on this machine"))
    _add_tune(commands.add_parser("tune", help="find the hints that make a model fast here"))
    _add_serve(commands.add_parser("serve", help="models on a Ray cluster, behind one address"))
    _add_admin(commands.add_parser("admin", help="make an administrator"))

    command = commands.add_parser("accounts", help="who may sign in")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=accounts.accounts)
    return parser


def _add_admin(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "name", help="of a new account, or of one that is to be raised (and enabled)"
    )
    command.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input; an account that is there gets it anew "
        "(default: ask for a new account's, leave the other's)",
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
        help="the same by name",
    )
    four = command.add_argument_group("INT4 (by default as the catalogue recommends)")
    four.add_argument(
        "--group-size", type=int, metavar="N", help="weights that share a scale; -1: a channel's"
    )
    four.add_argument("--ratio", type=float, metavar="R", help="share of layers in INT4, 0 to 1")
    four.add_argument(
        "--symmetric",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="scales without zero points",
    )
    four.add_argument(
        "--scale-estimation",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="fit the scales on texts the model writes: slower, a little more accurate",
    )
    eight = command.add_argument_group("INT8")
    eight.add_argument(
        "--int8-symmetric",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="scales without zero points",
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
        help="this precision alone (default: all, the download stays)",
    )
    command.add_argument("--download", action="store_true", help="what was fetched from the hub")
    command.add_argument(
        "--random-weights",
        action="store_true",
        help="what benchmarks made with random weights, and INT4 that was made for an NPU",
    )
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=store.delete)


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", nargs="?", help=f"{_MODEL} (default: all)")
    command.add_argument(
        "--precision", type=_precision, metavar="PRECISION", help="this precision alone"
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
    command.add_argument("instruction", help="what the model is to do")
    command.add_argument("--context", default="", help="a passage the instruction is about")
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
        "--temperature", type=float, metavar="T", help="0 means greedy (default: the model's)"
    )
    command.add_argument("--top-p", type=float, metavar="P", help="(default: the model's)")
    command.add_argument(
        "--top-k", type=int, metavar="K", help="0 switches it off (default: the model's)"
    )
    command.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    choice = command.add_mutually_exclusive_group()
    choice.add_argument("--seed", type=int, metavar="N", help="reproduces a sampled answer")
    choice.add_argument("--greedy", action="store_true", help="always the likeliest token")
    command.add_argument("--json", action="store_true", help="print one JSON object at the end")
    command.set_defaults(run=answers.generate)


def _add_bench(command: argparse.ArgumentParser) -> None:
    what = command.add_argument_group("what is measured (lists with commas)")
    what.add_argument(
        "--models",
        type=bench.names,
        metavar="A,B",
        help="keys, ids or folders (default: the embedded models)",
    )
    what.add_argument(
        "--random-weights",
        type=bench.names,
        metavar="C,D",
        help="catalogue keys, or neox-410m: the shape with random weights, without a download",
    )
    what.add_argument(
        "--precisions",
        type=bench.precisions,
        metavar="P,Q",
        help=f"{', '.join(Precision)} (default int8,int4,fp16; stored too for GGUF files)",
    )
    what.add_argument("--devices", type=bench.names, metavar="X,Y", help="default CPU")
    what.add_argument(
        "--runtimes",
        type=bench.names,
        metavar="R,S",
        help=f"{', '.join(LOCAL_RUNTIMES)} (pytorch: FP32 and FP16 alone); "
        f"default {DEFAULT_RUNTIME}",
    )
    what.add_argument("--prompt-tokens", type=bench.numbers, metavar="N,M", help="default 32,512")
    how = command.add_argument_group("how")
    how.add_argument("--new-tokens", type=int, metavar="N", help="default 128")
    how.add_argument("--repeat", type=int, metavar="N", help="timed answers each (default 5)")
    how.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="fresh processes over which they are spread (default 2)",
    )
    how.add_argument(
        "--quality", action="store_true", help="compare each precision with the reference"
    )
    how.add_argument(
        "--memory-limit",
        type=bench.byte_count,
        metavar="SIZE",
        help="of each measuring process, such as 8GB; --resume takes another",
    )
    how.add_argument(
        "--keep",
        action="store_true",
        help="keep these random weights on disk until they are deleted",
    )
    where = command.add_argument_group("where (default: on this machine)")
    where.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="on every node of this Ray cluster at once: host:port, auto or local",
    )
    where.add_argument(
        "--ray-resource",
        metavar="NAME",
        help="on those nodes alone that have this resource, or this label as KEY=VALUE",
    )
    out = command.add_argument_group("what comes out")
    for ending in ("json", "csv", "markdown"):
        out.add_argument(f"--{ending}", type=Path, metavar="FILE", help=f"write {ending} too")
    suite = command.add_argument_group("the suite that holds the speed against bars")
    suite.add_argument("--suite", choices=("speed",), help="run it, instead of all above")
    suite.add_argument("--quick", action="store_true", help="fewer and shorter answers")
    suite.add_argument(
        "--parts",
        type=bench.names,
        metavar="A,B",
        help="large, middle, embedded, page, api, start (default: all)",
    )
    earlier = command.add_argument_group("earlier benchmarks")
    earlier.add_argument("--resume", metavar="ID", help="measure what is missing of one")
    earlier.add_argument("--list", action="store_true", help="print them, the newest first")
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
        help="perplexity to that of the usual hints, at most (default 1.01)",
    )
    command.add_argument("--forget", action="store_true", help="use the usual hints again")
    command.add_argument("--list", action="store_true", help="print what is kept")
    command.add_argument("--json", action="store_true", help="print what was found as JSON")
    command.set_defaults(run=tune.tune)


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="*", metavar="MODEL", help=_MODEL)
    command.add_argument(
        "--ray",
        required=True,
        metavar="ADDRESS",
        help="host:port, auto, or local for a cluster on this machine until Ctrl-C",
    )
    command.add_argument("--status", action="store_true", help="tell what is served")
    command.add_argument("--stop", metavar="MODEL", help="take a model down")
    how = command.add_argument_group("how the models are served")
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
    how.add_argument("--replicas", type=int, default=1, metavar="N", help="default 1")
    how.add_argument(
        "--min-replicas", type=int, metavar="N", help="as few where little is asked (default 1)"
    )
    how.add_argument(
        "--max-replicas", type=int, metavar="N", help="up to as many where much is asked"
    )
    how.add_argument(
        "--grow-after", type=float, default=30, metavar="S", help="seconds of that (default 30)"
    )
    how.add_argument(
        "--shrink-after", type=float, default=600, metavar="S", help="of less (default 600)"
    )
    how.add_argument(
        "--at-once", type=int, default=8, metavar="N", help="answers of a replica (default 8)"
    )
    how.add_argument(
        "--cpus", type=float, default=1.0, metavar="N", help="that Ray reserves (default 1)"
    )
    how.add_argument("--ray-resource", metavar="NAME", help="on nodes alone that have it")
    door = command.add_argument_group("the address (of the first `serve` on a cluster)")
    door.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1, on the head node")
    door.add_argument("--port", type=int, default=8000, help="default 8000")
    door.add_argument(
        "--api-keys",
        type=Path,
        metavar="FILE",
        help=f"one a line (default: {serve.KEYS_VARIABLE}); needed beyond this machine",
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
            f"there is no precision {text!r}; choose {', '.join(Precision)}"
        ) from None


def _runtime(text: str) -> RuntimeName:
    if text.lower() not in ANSWERING_RUNTIMES:
        raise argparse.ArgumentTypeError(
            f"there is no runtime {text!r} for answers; choose {', '.join(ANSWERING_RUNTIMES)}"
        )
    return RuntimeName(text.lower())


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
