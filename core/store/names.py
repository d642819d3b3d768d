"""Names of models on a hub, and what the name of a GGUF file says: part and quantisation."""

from __future__ import annotations

import re
from urllib.parse import unquote

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}", re.ASCII)
_PAGE = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(?P<path>[^?#]+?)"
    r"(?:/tree/main|/discussions(?:/.*)?|/commits/main)?/?"
    r"(?:\?(?:.*&)?show_file_info=(?P<file>[^&#]+\.gguf).*|[?#].*)?",
    re.ASCII,
)
"""URL of a page of the hub, as copied from a browser, or its name in other programs."""
_ON_HUB = re.compile(
    rf"(?P<id>{_HUB_ID.pattern})"
    r"(?::(?P<quantisation>[\w.\-]{1,128})"
    r"|/(?:(?:blob|resolve)/main/)?(?P<folders>(?:[\w.\-]+/)*)"
    r"(?P<file>[\w.\-]{1,200}\.gguf)(?:\?.*)?)?",
    re.ASCII | re.IGNORECASE,
)
"""A model on the hub: org/name, org/name:quantisation, or the path or page of a GGUF file in it."""
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_BESIDE_A_MODEL = re.compile(r"mmproj|imatrix|(^|[-_.])lora($|[-_.])", re.IGNORECASE)
"""GGUF files beside the model: vision projectors, calibration data, adapters."""

_NAME = r"(?:UD-)?(?:I?Q\d\w*|TQ\d_\d|MXFP4(?:_MOE)?|BF16|F16|FP16|F32|FP32)"
"""Of a quantisation, as llama.cpp and the publishers of GGUF files write it."""
_QUANTISATION = re.compile(rf"(?:^|[-._])({_NAME})$", re.IGNORECASE)
"""At the end of a file's name."""


def part_names(name: str) -> list[str]:
    """Return the names of all files of a split model from the name of one, or just that name."""
    found = _PART.fullmatch(name)
    if found is None or not 1 <= int(found["number"]) <= int(found["count"]):
        return [name]
    count = int(found["count"])
    return [f"{found['stem']}-{at:05}-of-{count:05}.gguf" for at in range(1, count + 1)]


def is_model(name: str) -> bool:
    """Return whether a GGUF file with this name is a model, not a file beside one."""
    return _BESIDE_A_MODEL.search(name[: -len(".gguf")]) is None


def stem_of(name: str) -> str:
    """Return a file's name without the suffix and the number of its part."""
    found = _PART.fullmatch(name)
    return found["stem"] if found else name[: -len(".gguf")]


def quantisation_of(stem: str) -> str | None:
    """Return the quantisation at the end of a file's name without suffix, such as Q4_K_M."""
    found = _QUANTISATION.search(stem)
    return found[1] if found else None


def hub_name(name: str) -> tuple[str, str | None] | None:
    """Return the Hugging Face id and the chosen GGUF file; None if the name is neither.

    A file is named by quantisation, or by its folders and name without suffix, joined by hyphens.
    """
    page = _PAGE.fullmatch(name)
    if page is not None:
        name = page["path"] + (f"/{unquote(page['file'])}" if page["file"] else "")
    found = _ON_HUB.fullmatch(name)
    if found is None or ".." in found["id"] or "--" in found["id"]:
        return None
    if found["file"] is not None:
        return found["id"], found["folders"].replace("/", "-") + stem_of(found["file"])
    chosen = found["quantisation"]
    if chosen is not None and re.fullmatch(_NAME, chosen, re.IGNORECASE):
        chosen = chosen.upper()  # so that it has one key
    return found["id"], chosen
