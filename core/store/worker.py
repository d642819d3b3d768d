"""The child process that downloads and converts: ``python -m core.store.worker``.

Its request (see :mod:`core.workers.child`) has ``kind`` ("get" or "convert"), ``model`` (a name for
:func:`core.store.resolver.resolve`), ``settings`` (fields of :class:`core.settings.Settings`),
``access`` (fields of :class:`core.store.hub.HubAccess`) and, for "convert", ``precision`` and
``compression`` (an object or null). The only events before the last are ``progress``.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import psutil

from core.catalogue import Int4Settings, Int8Settings, Precision
from core.errors import ConversionError, HubError, PaddockError
from core.settings import Settings
from core.store.library_env import disable_telemetry, quieten_libraries, skip_optional_imports
from core.store.progress import Progress
from core.store.store import ModelStore
from core.workers.child import Channel, one_line, run_request

_NICENESS = 5
"""With this value, answers that stream meanwhile get about three times the CPU time of a
conversion."""

_NOISY_LOGGER = "openvino.frontend.pytorch.utils"
"""Logs an error if it uses the model unchanged, and raises an exception on a real failure."""


def _work(request: dict[str, Any], channel: Channel) -> None:
    _lower_priority()
    logging.getLogger(_NOISY_LOGGER).setLevel(logging.CRITICAL)
    disable_telemetry()
    skip_optional_imports()
    quieten_libraries()

    def report(step: Progress) -> None:
        channel.say(event="progress", **asdict(step))

    settings = Settings(**request["settings"])
    from core.store.hub import HubAccess

    store = ModelStore(settings)
    source, access = store.resolve(request["model"]), HubAccess(**request["access"])
    if request["kind"] == "get":
        store.fetch(source, report, access)
        return
    precision, given = Precision(request["precision"]), request["compression"]
    kind = Int4Settings if precision.int4 else Int8Settings
    compression = kind(**given) if given else None
    store.ensure(source, precision, compression=compression, progress=report, access=access)


def _describe(error: Exception, request: dict[str, Any]) -> PaddockError:
    """Return the error itself, or what any other exception of a library means."""
    if isinstance(error, PaddockError):
        return error
    cause: BaseException = error
    while cause.__cause__ is not None:  # transformers hides the reason of a failed import
        cause = cause.__cause__
    if request["kind"] == "get":
        error_class, what, kept = HubError, "download", "partial files were kept"
    else:
        error_class, what, kept = ConversionError, "conversion", "nothing was kept"
    return error_class(
        f"The {what} failed unexpectedly ({one_line(cause)}); {kept}. Try again. If it fails "
        "again, reinstall Paddock's requirements: a library may be missing or have another version."
    )


def _lower_priority() -> None:
    """Lower the priority of this process below that of answers, if permitted."""
    me = psutil.Process()
    with suppress(psutil.Error, OSError):
        if sys.platform == "win32":
            me.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            me.nice(max(_NICENESS, me.nice()))


if __name__ == "__main__":
    run_request(_work, _describe)
