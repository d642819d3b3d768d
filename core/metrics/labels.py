"""Names of configurations for charts, tables and selection lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from core.metrics.rows import LOOKUP, Point, PointSource, Subject
from core.remotes import is_remote
from core.runtimes.spec import RuntimeName

RUNTIMES = {"optimum": "OpenVINO (Optimum)", "genai": "OpenVINO GenAI", "pytorch": "PyTorch"}
"""Display names of runtimes."""

MAX_LABEL = 34
"""Maximum length of a line of a label in a chart."""


def runtime_label(name: str) -> str:
    """Return the display name of a runtime."""
    runtime = name.removesuffix(LOOKUP)
    mark = " with prompt lookup" if runtime != name else ""
    return RUNTIMES.get(runtime, runtime) + mark


def short_runtime(name: str) -> str:
    """Return the one-word name of a runtime, for narrow places."""
    runtime = name.removesuffix(LOOKUP)
    mark = ", lookup" if runtime != name else ""
    return (RuntimeName(runtime).short_name if runtime in set(RuntimeName) else runtime) + mark


def model_names(subjects: Sequence[Subject]) -> list[str]:
    """Return the name of each subject's model, with what else tells it apart from the others.

    That is the key of one of several models with the same title, the host if there are several,
    with the processor if they have the same name, and where the figures are from. Random weights
    and models of remote servers get no key: each server is a separate device.
    """
    machines = {(each.host, each.machine) for each in subjects}
    hosts = Counter(host for host, _ in machines)
    local = {each for each in subjects if not each.random and not is_remote(each.model)}
    models = Counter(
        (name, machine) for name, machine, _ in {(s.name, s.machine, s.model) for s in local}
    )
    own = {(s.name, s.machine) for s in subjects if s.source is not PointSource.IMPORTED}
    names = []
    for each in subjects:
        name = each.name
        if each in local and models[each.name, each.machine] > 1:
            name = each.name_with_key
        if len(machines) > 1:
            name += f" · {each.machine if hosts[each.host] > 1 else each.host}"
        if each.source is PointSource.IMPORTED and (each.name, each.machine) in own:
            name += " · imported"
        names.append(name)
    return names


def configuration_names(subjects: Sequence[Subject]) -> list[str]:
    """Return the precision of each subject, and device and runtime if these differ."""
    several_runtimes = len({each.runtime for each in subjects}) > 1
    several_devices = {each.device_label for each in subjects} != {"CPU"}
    names = []
    for subject in subjects:
        parts = [subject.weights]
        if several_devices:
            parts.append(subject.device_label)
        if several_runtimes:
            parts.append(short_runtime(subject.runtime))
        names.append(" · ".join(parts))
    return names


def shortened(text: str, length: int = MAX_LABEL) -> str:
    """Shorten a long text in the middle, because names often differ at the end."""
    end = length // 3
    return text if len(text) <= length else f"{text[: length - end - 1]}…{text[-end:]}"


def point_label(point: Point, *, name_host: bool = False) -> str:
    """Return a configuration as one line of plain text; imported ones include the host."""
    subject = point.subject
    parts = [subject.name, subject.weights, subject.device_label, short_runtime(subject.runtime)]
    parts.append(f"{point.prompt_tokens}-token prompt" if point.measured else "answers")
    if subject.source is PointSource.IMPORTED:
        parts.append(f"imported from {subject.host}")
    elif name_host:
        parts.append(f"on {subject.host}")
    if subject.contended:
        parts.append("measured while busy")
    return " · ".join(parts)
