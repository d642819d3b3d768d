"""``serve``: models on the nodes of a Ray cluster, behind one OpenAI-compatible address."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BadRequestError
from core.settings import Settings

if TYPE_CHECKING:
    from core.cluster.serving import ServedModels

KEYS_VARIABLE = "PADDOCK_SERVE_KEYS"
"""API keys with commas or white space between them."""

SHORTEST_KEY = 16
"""Characters: their hash is a fast one, so they must not be guessed."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(options: argparse.Namespace, settings: Settings) -> int:
    """Serve models, or tell of those that are served, or take one down.

    On a cluster that goes on without this command it ends when they are ready; a cluster that is
    started for it (``--ray local``) lasts until Ctrl-C. The last line on stdout is a JSON object.
    """
    from core.cluster.connection import LOCAL, connected
    from core.cluster.serving import ServedModels

    keys = _keys(options.api_keys)
    _check(options, keys)
    with connected(options.ray) as ray:
        served = ServedModels(ray)
        if options.status:
            return _tell(served)
        if options.stop:
            served.stop(options.stop)
            return _tell(served)
        address = served.listen(options.host, options.port)
        served.deploy_gateway(keys, address)
        _deploy(options, served, settings)
        code = _tell(served, f"{address}/v1")
        if options.ray == LOCAL:
            _until_stopped()
        return code


def _check(options: argparse.Namespace, keys: tuple[str, ...]) -> None:
    """
    Raises:
        BadRequestError: options that do not go together.
    """
    asked = bool(options.models) + bool(options.status) + bool(options.stop)
    if asked != 1:
        raise BadRequestError("Name the models to serve, or give --status, or --stop MODEL.")
    if options.models and options.host not in _LOOPBACK and not keys:
        raise BadRequestError(
            f"At {options.host} others could use it, so it needs an API key: put one of at least "
            f"{SHORTEST_KEY} characters into {KEYS_VARIABLE}, or several into a file for "
            "--api-keys."
        )


def _keys(file: Path | None) -> tuple[str, ...]:
    """
    Raises:
        BadRequestError: the file cannot be read, or a key is too short.
    """
    text = os.environ.get(KEYS_VARIABLE, "").replace(",", " ")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequestError(
                f"{file} cannot be read; give a file with one API key a line."
            ) from error
    keys = tuple(dict.fromkeys(text.split()))
    if file is not None and not keys:
        raise BadRequestError(f"{file} holds no API key; write one a line.")
    if any(len(key) < SHORTEST_KEY for key in keys):
        raise BadRequestError(f"An API key must have at least {SHORTEST_KEY} characters.")
    return keys


def _deploy(options: argparse.Namespace, served: ServedModels, settings: Settings) -> None:
    from core.cluster.deployment import Serving
    from core.runtimes.spec import ModelSpec
    from core.store import ModelStore

    least = options.replicas if options.min_replicas is None else options.min_replicas
    most = max(least, options.replicas) if options.max_replicas is None else options.max_replicas
    for model in options.models:
        precision = options.precision or ModelStore(settings).default_precision(model)
        spec = ModelSpec(model, precision, options.device, options.runtime)
        print(
            f"Starting {model}; a node converts it first where it does not have it.",
            file=sys.stderr,
            flush=True,
        )
        served.deploy(
            Serving(
                spec=spec,
                min_replicas=least,
                max_replicas=most,
                grow_after_s=options.grow_after,
                shrink_after_s=options.shrink_after,
                at_once=options.at_once,
                cpus=options.cpus,
                resource=options.ray_resource,
            )
        )


def _tell(served: ServedModels, address: str | None = None) -> int:
    models = served.status()
    for each in models:
        print(f"{each.model}  {each.state}  replicas: {each.replicas}  {each.message}".rstrip())
    found = [{"model": m.model, "state": m.state, "replicas": m.replicas} for m in models]
    print(json.dumps({"models": found} | ({"address": address} if address else {})), flush=True)
    return 0


def _until_stopped() -> None:
    print("Serving until Ctrl-C.", file=sys.stderr, flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
