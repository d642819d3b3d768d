"""The child process that fetches and converts: ``python -m core.store.worker REQUEST``.

The request is a JSON object: ``kind`` ("get", "convert" or "check"), ``model`` (what
:func:`core.store.resolver.resolve` takes), ``settings`` (fields of :class:`core.settings.Settings`)
and, to convert, ``precision``, ``models`` (where the result is to lie, or null), ``int4`` and
``int8`` (objects or null); to check a stored model with OpenVINO GenAI, ``folder`` in ``model``'s
place. How the hub is asked, the token included, stands in the environment. The
child writes JSON lines to its standard output: ``progress`` events, then one ``done`` or ``error``.
Everything that libraries print goes to standard error. Standard input is a pipe from the parent:
when that closes, for whatever reason, the child ends at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from core.catalogue import Int4Settings, Int8Settings, Precision
from core.errors import ConversionError, HubError, PaddockError
from core.settings import Settings
from core.store.genai_check import genai_check
from core.store.library_env import leave_out_needless, quieten_libraries, refuse_telemetry
from core.store.progress import Progress, ProgressCallback
from core.store.store import ModelStore
from core.workers.child import become_child, end_with_parent, leave

if TYPE_CHECKING:
    from core.store.hub import HubAccess

log = logging.getLogger(__name__)

_NICENESS = 5
"""Answers that stream meanwhile get about three times the processor time of a conversion."""

_CRIES_WOLF = "openvino.frontend.pytorch.utils"
"""Logs an error where it merely takes the model as it is, and raises where it truly fails."""


def main(argument: str) -> int:
    """Carry out one request and return the exit code."""
    channel = become_child()
    end_with_parent()
    _step_back()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger(_CRIES_WOLF).setLevel(logging.CRITICAL)
    refuse_telemetry()
    leave_out_needless()
    quieten_libraries()

    def tell(step: Progress) -> None:
        channel.say(
            event="progress",
            stage=step.stage,
            message=step.message,
            fraction=step.fraction,
            transfer=asdict(step.transfer) if step.transfer else None,
        )

    request = json.loads(argument)
    failure: PaddockError
    try:
        _work(request, tell)
    except PaddockError as error:
        failure = error
    except Exception as error:  # whatever a library raises: a broken installation, say
        log.exception("The worker failed unexpectedly")
        failure = _unexpected(error, request["kind"])
    else:
        channel.say(event="done")
        return 0
    channel.say(event="error", type=type(failure).__name__, message=str(failure))
    return failure.exit_code


def _work(request: dict[str, Any], tell: ProgressCallback) -> None:
    """
    Raises:
        PaddockError: of the fetch or the conversion; it is the parent's to show.
    """
    settings = Settings(**request["settings"])
    if request["kind"] == "check":
        genai_check(Path(request["folder"]), settings.genai_checks_file)
        return
    models = request.get("models")
    store = ModelStore(settings, Path(models) if models else None)
    source, access = store.resolve(request["model"]), _access()
    if request["kind"] == "get":
        store.fetch(source, progress=tell, access=access)
        return
    store.ensure(
        source,
        Precision(request["precision"]),
        int4=Int4Settings(**request["int4"]) if request["int4"] else None,
        int8=Int8Settings(**request["int8"]) if request["int8"] else None,
        progress=tell,
        access=access,
    )


def _unexpected(error: Exception, kind: str) -> PaddockError:
    cause: BaseException = error
    while cause.__cause__ is not None:  # what transformers says of a failed import tells nothing
        cause = cause.__cause__
    detail = " ".join(f"{type(cause).__name__}: {cause}".split())[:200]
    fetching = kind == "get"
    kept = "what came is kept" if fetching else "nothing was kept"
    return (HubError if fetching else ConversionError)(
        f"Something failed that nobody expected ({detail}); {kept}, so try again. If it fails "
        "again, install Paddock anew: a library may be missing, or of another version."
    )


def _access() -> HubAccess:
    """How the hub is asked; the token leaves the environment, so that no library finds it there."""
    from core.store.hub import HubAccess

    access = HubAccess.from_environment()
    os.environ.pop("HF_TOKEN", None)
    return access


def _step_back() -> None:
    """Let answers that stream meanwhile go before; where that is refused, do without."""
    me = psutil.Process()
    with suppress(psutil.Error, OSError):
        if sys.platform == "win32":
            me.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            me.nice(max(_NICENESS, me.nice()))


if __name__ == "__main__":
    leave(main(sys.argv[1]))
