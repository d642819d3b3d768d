"""The child process that converts: ``python -m core.store.worker REQUEST``.

The request is a JSON object: ``model`` (what :func:`core.store.sources.resolve` takes),
``precision``, ``home`` and ``int4`` (an object or null). The child writes JSON lines to its
standard output: ``progress`` events, then one ``done`` or ``error``. Everything that libraries
print goes to standard error. Standard input is a pipe from the parent: when that closes, for
whatever reason, the child ends at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any

from core.catalogue import Int4Settings, Precision
from core.errors import PaddockError
from core.settings import Settings
from core.store.progress import Progress
from core.store.quiet import leave_out_scikit_learn, quieten_libraries, refuse_telemetry
from core.store.sources import resolve
from core.store.store import ModelStore


def main(argument: str) -> int:
    """Carry out one request and return the exit code."""
    channel = _take_over_stdout()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    refuse_telemetry()
    leave_out_scikit_learn()
    quieten_libraries()
    request = json.loads(argument)
    settings = Settings(home=Path(request["home"]))
    int4 = Int4Settings(**request["int4"]) if request["int4"] else None

    def tell(step: Progress) -> None:
        _say(
            channel,
            event="progress",
            stage=step.stage,
            message=step.message,
            fraction=step.fraction,
        )

    try:
        source = resolve(request["model"])
        ModelStore(settings).ensure(
            source, Precision(request["precision"]), int4=int4, progress=tell
        )
    except PaddockError as error:
        _say(channel, event="error", type=type(error).__name__, message=str(error))
        return error.exit_code
    _say(channel, event="done")
    return 0


def _take_over_stdout() -> IO[str]:
    """Keep standard output for the protocol and send what libraries print to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _say(channel: IO[str], **event: Any) -> None:
    channel.write(json.dumps(event) + "\n")
    channel.flush()


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: tearing down torch and OpenVINO takes a second, and all is written.
    os._exit(code)
