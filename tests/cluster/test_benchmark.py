"""Which node resumes which rows of a cluster's benchmark."""

from __future__ import annotations

from dataclasses import replace

from core.cluster.benchmark import shares_of
from core.cluster.connection import Node
from core.db.measurement_values import Measurement
from tests.db.measurement_samples import a_measurement


def node(name: str, id: str = "0") -> Node:
    return Node(id=id * 56, name=name, host=name, cpus=2.0, resources={}, labels={})


def row(host: str) -> Measurement:
    measured = a_measurement()
    return replace(measured, host=replace(measured.host, name=host))


def test_node_resumes_rows_with_its_name():
    ours, theirs, named = row("lab-1"), row("lab-2"), row("lab/gpu-box")
    nodes = [node("lab-1"), node("lab-3"), node("lab/gpu-box")]
    shares = shares_of([ours, theirs, named], nodes)
    assert {each.name: rows for each, rows in shares.items()} == {
        "lab-1": [ours],
        "lab/gpu-box": [named],
    }


def test_only_one_of_two_nodes_with_the_same_name_resumes_its_rows():
    rows = [row("lab/gpu-box"), row("lab/gpu-box")]
    shares = shares_of(rows, [node("lab/gpu-box", "a"), node("lab/gpu-box", "b")])
    assert [*shares.values()] == [rows]
