"""``get``, ``convert``, ``delete`` and ``verify``: manage the models on disk."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import Int4Settings, Int8Settings, Precision
from core.cli.terminal import Report
from core.errors import (
    BadRequestError,
    CorruptModelError,
    PaddockError,
    StoppedError,
    UnknownModelError,
)
from core.settings import Settings
from core.store import (
    Estimate,
    ModelStore,
    Source,
    SourceKind,
    StoredModel,
    convert_in_process,
    fetch_in_process,
)
from core.store.files import folder_bytes
from core.store.manifest import read_manifest
from core.store.stored import QUANTISED_TWICE, exactness_text
from core.store.subprocesses import stopped_message
from core.store.weights_source import known_parameters
from core.units import bytes_text, duration_text, rate_text

if TYPE_CHECKING:
    from core.store.hub import HubAccess


def get(options: argparse.Namespace, settings: Settings) -> int:
    """Download a model from the Hugging Face Hub without converting it."""
    source = ModelStore(settings).resolve(options.model)
    access = _access(options)
    with _reporting(source, settings) as shown:
        folder = fetch_in_process(
            source,
            settings=settings,
            access=access,
            progress=shown.progress,
            on_memory=shown.memory,
        )
    size = folder_bytes(folder)
    if options.json:
        from core.store.hub import completed

        document = {"key": source.key, "folder": str(folder), "revision": completed(folder)}
        print(json.dumps(document | {"bytes": size}, indent=2))
    else:
        print(f"{source.title}: {bytes_text(size)} in {folder}.")
    return 0


def convert(options: argparse.Namespace, settings: Settings) -> int:
    """Convert a model to a precision after printing an estimate; do nothing if it exists."""
    store = ModelStore(settings)
    source = store.resolve(options.model)
    access = _access(options)
    precision = _chosen_precision(options) or store.default_precision(
        options.model, ask_hub=True, access=access
    )
    int4 = _int4(options, source, precision, settings)
    int8 = _int8(options, precision)
    if store.find(source, precision) is None:
        needs = _estimate(source, precision, settings, int4, access)
        speed = _speed_text(source, precision, settings, int4)
        print(_needs_text(source, precision, needs) + speed, file=sys.stderr, flush=True)
        if needs.download_bytes:
            _tell_ready(source, access)
        needs.check()
    with _reporting(source, settings) as shown:
        stored = convert_in_process(
            source,
            precision,
            settings=settings,
            compression=int4 or int8,
            access=access,
            progress=shown.progress,
            on_memory=shown.memory,
        )
    print(stored.manifest.model_dump_json(indent=2) if options.json else _result_text(stored))
    return 0


def delete(options: argparse.Namespace, settings: Settings) -> int:
    """Delete a model after confirmation: all precisions, one precision, or the download."""
    if options.random_weights:
        return _delete_random_weights(options, settings)
    if options.model is None:
        raise BadRequestError("Name the model to delete, or use --random-weights.")
    store = ModelStore(settings)
    source = store.resolve(options.model)
    everything = options.precision is None and not options.download
    chosen = [
        stored
        for stored in store.list()
        if stored.key == source.key and (everything or stored.precision is options.precision)
    ]
    downloads = [
        download
        for download in store.downloads()
        if options.download and download.key == source.key
    ]
    names = [stored.label for stored in chosen] + ["download" for _ in downloads]
    sizes = [stored.manifest.folder_bytes for stored in chosen]
    sizes += [download.bytes for download in downloads]
    if not names:
        raise UnknownModelError(_not_here(source, options.precision, download=options.download))
    what = f"{source.title} ({', '.join(names)}, {bytes_text(sum(sizes))})"
    _confirm(options, f"Delete {what}?")
    freed = sum(store.delete(stored) for stored in chosen)
    freed += sum(store.delete_download(download.key) for download in downloads)
    if options.json:
        deleted = [stored.precision.value for stored in chosen] + ["download" for _ in downloads]
        print(json.dumps({"key": source.key, "deleted": deleted, "freed_bytes": freed}, indent=2))
    else:
        print(f"Deleted {what}. {bytes_text(freed)} were freed.")
    return 0


def verify(options: argparse.Namespace, settings: Settings) -> int:
    """Verify the checksums of the stored models; return 1 if a model is damaged."""
    store, folders = ModelStore(settings), _model_folders(options, settings)
    results = [_verify_one(folder, store, quiet=options.json) for folder in folders]
    if options.json:
        print(json.dumps(results, indent=2))
    elif not results:
        print("There are no models on disk.")
    return PaddockError.exit_code if any(result["problem"] for result in results) else 0


# Download and conversion


@contextmanager
def _reporting(source: Source, settings: Settings) -> Iterator[Report]:
    """Show the progress.

    Raises:
        StoppedError: Ctrl-C was pressed; the text says what is kept.
    """
    shown = Report()
    try:
        yield shown
    except KeyboardInterrupt:
        raise StoppedError(stopped_message(source, settings)) from None
    finally:
        shown.clear()


def _access(options: argparse.Namespace) -> HubAccess | None:
    """Return the access with the token from standard input; None uses the environment's."""
    if not options.token_stdin:
        return None
    from core.store.hub import HubAccess

    if sys.stdin.isatty():
        token = getpass.getpass("Access token (not shown): ")
    else:
        token = sys.stdin.readline()
    if not token.strip():
        raise BadRequestError("Standard input has no access token. Pipe it in, or set HF_TOKEN.")
    return replace(HubAccess.from_environment(), token=token.strip())


def _chosen_precision(options: argparse.Namespace) -> Precision | None:
    given = {options.precision, options.precision_option} - {None}
    if len(given) > 1:
        raise BadRequestError("Two different precisions were given. Name one.")
    return given.pop() if given else None


def _int4(
    options: argparse.Namespace, source: Source, precision: Precision, settings: Settings
) -> Int4Settings | None:
    """Return the recipe's settings with the given ones; None if no setting was given."""
    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("group_size", "ratio", "symmetric", "scale_estimation", "awq")
        if getattr(options, name) is not None
    }
    if not given:
        return None
    if not precision.int4:
        raise BadRequestError(
            "Group size, ratio, symmetric, AWQ and scale estimation are settings of INT4, not of "
            f"{precision.label}. Leave them out, or convert to int4."
        )
    size, share = given.get("group_size"), given.get("ratio")
    if size is not None and size != -1 and size < 1:
        raise BadRequestError(
            f"The group size cannot be {size}. Use a number of weights, such as 128, or -1 for one "
            "scale per channel."
        )
    if share is not None and not 0 <= share <= 1:
        raise BadRequestError(f"The ratio cannot be {share:g}. Use a number from 0 to 1.")
    return replace(source.int4_settings(precision, known_parameters(source, settings)), **given)


def _int8(options: argparse.Namespace, precision: Precision) -> Int8Settings | None:
    if options.int8_symmetric is None:
        return None
    if precision is not Precision.INT8:
        raise BadRequestError(
            f"--int8-symmetric is a setting of INT8, not of {precision.label}. Leave it out, or "
            "convert to int8."
        )
    return Int8Settings(symmetric=options.int8_symmetric)


def _estimate(
    source: Source,
    precision: Precision,
    settings: Settings,
    int4: Int4Settings | None,
    access: HubAccess | None,
) -> Estimate:
    """Estimate a conversion; request the model's size from the hub if it is not known locally."""
    from core.store import hub
    from core.store.estimate import estimate
    from core.store.weights_source import original_folder, stored_ir

    description = None
    if (
        source.kind is SourceKind.HUB
        and source.model is None
        and original_folder(source, settings) is None
        and stored_ir(source, precision, settings) is None
    ):
        description = hub.describe(str(source.location), access)
    return estimate(source, precision, settings, int4=int4, hub=description)


def _needs_text(source: Source, precision: Precision, needs: Estimate) -> str:
    disk = needs.disk_bytes + needs.scratch_bytes + needs.download_bytes
    parts = [
        f"about {duration_text(needs.seconds)}",
        f"{bytes_text(needs.memory_bytes)} of memory ({bytes_text(needs.free_memory)} free)",
        f"{bytes_text(disk)} of disk ({bytes_text(needs.free_disk)} free)",
    ]
    if needs.download_bytes:
        parts.append(f"a download of {bytes_text(needs.download_bytes)} first")
    return (
        f"Converting {source.title} {precision.aim} takes {', '.join(parts)}. The result has "
        f"{bytes_text(needs.disk_bytes)}."
        + (f" Recipe: {needs.int4.text}." if needs.int4 is not None else "")
        + (f" {needs.note}" if needs.note is not None else "")
    )


def _speed_text(
    source: Source, precision: Precision, settings: Settings, int4: Int4Settings | None
) -> str:
    """Return a sentence with the expected decode rate; empty if the model's size is not known."""
    from core.benchmark.decode_rate import DecodeRates
    from core.inference.engine import Engine
    from core.store.weights_source import find_origin

    try:
        origin = find_origin(source, precision, settings)
        chosen = int4 or source.int4_settings(precision, origin.parameters)
        with closing(Engine(settings)) as engine:
            rate = DecodeRates.of_this_machine(engine).expected(origin, precision, chosen)
    except PaddockError:
        return ""
    return f" About {rate_text(rate)} are expected on this machine's CPU."


def _tell_ready(source: Source, access: HubAccess | None) -> None:
    """Name repositories that need no conversion, if the hub has some."""
    from core.store.hub import find_ready

    try:
        ready = find_ready(str(source.location), access)
    except PaddockError:  # the download will tell
        return
    for precision, hub in ready.items():
        print(
            f"{hub.hub_id} has {precision.label} weights ready, {bytes_text(hub.total_bytes)} and "
            "no conversion. To take them, stop and run "
            f"`python -m core convert {hub.hub_id} --precision {precision.value}`.",
            file=sys.stderr,
            flush=True,
        )


def _result_text(stored: StoredModel) -> str:
    manifest = stored.manifest
    before, smaller = manifest.source_bytes, ""
    if before is not None and before > 1.1 * manifest.weight_bytes:
        times = before / manifest.weight_bytes
        smaller = f", {times:.1f} times smaller than the source's {bytes_text(before)}"
    settings = f"; {stored.int4.text}" if stored.int4 is not None else ""
    sentence = (
        f"{stored.title} in {stored.label}: {bytes_text(manifest.weight_bytes)} of weights"
        f"{smaller} ({stored.mix}{settings}), {bytes_text(manifest.folder_bytes)} on disk, "
        f"converted in {duration_text(manifest.duration_s)} with a peak of "
        f"{bytes_text(manifest.peak_memory_bytes)} of memory."
        + (f" {manifest.genai.remark}" if manifest.genai and manifest.genai.remark else "")
    )
    gguf = manifest.gguf
    if gguf is not None and gguf.deviation is not None:
        sentence += f" {exactness_text(gguf.deviation)}"
    elif gguf is not None and stored.precision.compressed:
        sentence += f" {QUANTISED_TWICE}"
    return sentence


# Deletion and verification


def _delete_random_weights(options: argparse.Namespace, settings: Settings) -> int:
    """Delete random weights after confirmation."""
    from core.benchmark.random_models import delete_random_weights, random_weights_bytes

    if options.model is not None or options.precision is not None or options.download:
        raise BadRequestError(
            "--random-weights deletes all random weights. Leave out the model and other options."
        )
    size = random_weights_bytes(settings)
    if size:
        _confirm(options, f"Delete random weights ({bytes_text(size)})?")
    freed = delete_random_weights(settings)
    if options.json:
        print(json.dumps({"deleted": ["random weights"], "freed_bytes": freed}, indent=2))
    elif freed:
        print(f"Deleted the random weights. {bytes_text(freed)} were freed.")
    else:
        print("There are no random weights on disk.")
    return 0


def _confirm(options: argparse.Namespace, question: str) -> None:
    """Ask before a deletion, unless ``--yes`` was given.

    Raises:
        StoppedError: the answer is no.
    """
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise BadRequestError(f"{question} Standard input is not a terminal. Use --yes to confirm.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise StoppedError("Nothing was deleted.")


def _not_here(source: Source, precision: Precision | None, *, download: bool) -> str:
    what = " or ".join(
        [
            *([f"in {precision.label}"] if precision else []),
            *(["as a download"] if download else []),
        ]
    )
    return (
        f"{source.title} is not on disk{f' {what}' if what else ''}. `python -m core models` lists "
        "the models on disk."
    )


def _verify_one(folder: Path, store: ModelStore, *, quiet: bool) -> dict[str, Any]:
    """Verify one stored model and print the result, unless ``quiet``."""
    started, size, problem = time.monotonic(), 0, None
    try:
        manifest = read_manifest(folder)
        size = manifest.folder_bytes
        stored = StoredModel(folder.parent.name, manifest.precision, folder, manifest)
        store.verify(stored, full=True)
    except CorruptModelError as error:
        problem = str(error)
    if not quiet:
        took = duration_text(time.monotonic() - started)
        verified = f"{bytes_text(size)} verified ({took})."
        print(problem or f"{stored.title} {stored.precision.phrase}: {verified}", flush=True)
    return {
        "key": folder.parent.name,
        "precision": folder.name,
        "folder": str(folder),
        "bytes": size,
        "problem": problem,
    }


def _model_folders(options: argparse.Namespace, settings: Settings) -> list[Path]:
    """Return the model folders to verify, including those without a manifest.

    Raises:
        UnknownModelError: the named model is not on disk.
    """
    source = ModelStore(settings).resolve(options.model) if options.model else None
    found = [
        folder
        for folder in sorted(settings.models_dir.glob("[!.]*/*"))
        if folder.name in set(Precision)
        and options.precision in (None, folder.name)
        and (source is None or folder.parent.name == source.key)
    ]
    if source is not None and not found:
        raise UnknownModelError(_not_here(source, options.precision, download=False))
    return found
