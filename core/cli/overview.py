"""``models`` and ``remotes``: the catalogue with the models on disk, remote servers."""

from __future__ import annotations

import argparse
import json
from typing import Any

from core.catalogue import catalogue
from core.settings import Settings
from core.units import bytes_text, parameters_text


def remotes(options: argparse.Namespace, settings: Settings) -> int:
    """Request the model lists of all remote servers at the same time, and print them."""
    from core.remotes import Directory, RemoteRegistry, model_name

    directory = Directory(RemoteRegistry(settings), settings)
    requests = [(remote, directory.ask(remote)) for remote in directory.book.list()]
    rows: list[dict[str, Any]] = []
    for remote, future in requests:
        found = future.result()
        rows.append(
            {
                "name": remote.name,
                "url": remote.url,
                "has_key": remote.has_key,
                "reachable": found.reachable,
                "error": None if found.error is None else str(found.error),
                "server": found.software,
                "connect_ms": found.connect_ms,
                "round_trip_ms": found.round_trip_ms,
                "models": [model_name(remote.name, model) for model in found.models],
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(f"{row['name']}  {row['url']}  {row['error'] or row['server'] or ''}".rstrip())
        for name in row["models"]:
            print(f"  {name}")
    if not rows:
        print("There are no remote servers. Add one on the Models page or in PADDOCK_REMOTES.")
    return 0


def models(options: argparse.Namespace, settings: Settings) -> int:
    """Print the catalogue and the models on disk."""
    from core.store import ModelStore, StoredModel

    store = ModelStore(settings)
    on_disk: dict[str, list[StoredModel]] = {}
    for stored in store.list():
        on_disk.setdefault(stored.name, []).append(stored)
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
            "thinking": row.thinking,
            "good_for": row.good_for or None,
            "sources": dict(row.sources),
        }
        for row in catalogue().values()
    ]
    rows += [
        {"key": key, "title": store.title(key), "source": "yours"}
        for key in on_disk
        if key not in catalogue()
    ]
    for row in rows:
        here = on_disk.get(row["key"], ())
        row["on_disk"] = {each.precision.value: each.manifest.folder_bytes for each in here}
        row["weights"] = {each.precision.value: each.mix for each in here}
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        size = parameters_text(row["parameters"]) if "parameters" in row else "—"
        sizes = [
            f"{name} {bytes_text(size)} ({row['weights'][name]})"
            for name, size in row["on_disk"].items()
        ]
        disk = ", ".join(sizes) or "not on disk"
        print(f"{row['key']:30} {size:>8}  {row.get('licence', ''):27} {disk}")
    return 0
