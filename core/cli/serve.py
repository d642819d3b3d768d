"""``serve``: serve models on a Ray cluster with one OpenAI-compatible address."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from core.cli.terminal import say
from core.errors import BadRequestError
from core.settings import Settings

if TYPE_CHECKING:
    from core.cluster.serving import ServedModels

KEYS_VARIABLE = "PADDOCK_SERVE_KEYS"
"""API keys, separated by commas or white space."""

MIN_KEY_LENGTH = 16
"""In characters. Keys are hashed with a fast hash, so they must be hard to guess."""


def serve(options: argparse.Namespace, settings: Settings) -> int:
    """Serve models, show the served models, or stop serving one.

    On an existing cluster, return when the models are ready. A cluster started by this command
    (``--ray local``) runs until Ctrl-C. The last line on stdout is a JSON object.
    """
    from core.cluster.connection import LOCAL, connected
    from core.cluster.serving import ServedModels

    keys = _keys(options.api_keys)
    _check(options, keys)
    with connected(options.ray) as ray:
        served = ServedModels(ray)
        if options.status:
            return _print_status(served)
        if options.stop:
            served.stop(options.stop)
            return _print_status(served)
        address = served.listen(options.host, options.port)
        served.deploy_gateway(keys, address)
        _deploy(options, served, settings)
        code = _print_status(served, f"{address}/v1")
        if options.ray == LOCAL:
            say("Serving until Ctrl-C.")
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                say("Stopped.")
        return code


def _check(options: argparse.Namespace, keys: tuple[str, ...]) -> None:
    from core.auth.permissions import is_loopback

    actions = bool(options.models) + bool(options.status) + bool(options.stop)
    if actions != 1:
        raise BadRequestError("Name the models to serve, or use either --status or --stop MODEL.")
    if options.models and not is_loopback(options.host) and not keys:
        raise BadRequestError(
            f"{options.host} can be reached from other machines, so an API key is required. Put a "
            f"key of at least {MIN_KEY_LENGTH} characters into {KEYS_VARIABLE}, or several into a "
            "file for --api-keys."
        )


def _keys(file: Path | None) -> tuple[str, ...]:
    text = os.environ.get(KEYS_VARIABLE, "").replace(",", " ")
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadRequestError(
                f"{file} cannot be read. Name a file with one API key per line."
            ) from error
    keys = tuple(dict.fromkeys(text.split()))
    if file is not None and not keys:
        raise BadRequestError(f"{file} contains no API key. Write one per line.")
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise BadRequestError(f"An API key must have at least {MIN_KEY_LENGTH} characters.")
    return keys


def _deploy(options: argparse.Namespace, served: ServedModels, settings: Settings) -> None:
    from core.cluster.serving import Serving
    from core.runtimes.spec import ModelSpec
    from core.store import ModelStore

    least = options.replicas if options.min_replicas is None else options.min_replicas
    most = max(least, options.replicas) if options.max_replicas is None else options.max_replicas
    for model in options.models:
        precision = options.precision or ModelStore(settings).default_precision(model, ask_hub=True)
        spec = ModelSpec(model, precision, options.device, options.runtime)
        say(f"Starting {model}. Nodes that do not have the model convert it first.")
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


def _print_status(served: ServedModels, address: str | None = None) -> int:
    models = served.status()
    for each in models:
        print(f"{each.model}  {each.state}  replicas: {each.replicas}  {each.message}".rstrip())
    found = [{"model": m.model, "state": m.state, "replicas": m.replicas} for m in models]
    print(json.dumps({"models": found} | ({"address": address} if address else {})), flush=True)
    return 0
