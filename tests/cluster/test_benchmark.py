"""Which node resumes which rows of a cluster's benchmark."""

from __future__ import annotations

from dataclasses import replace

from core.cluster.benchmark import assign_rows
from core.cluster.connection import Node
from core.db.measurement_values import Measurement
from tests.db.measurement_samples import a_measurement


def node(own: str, host: str | None = None) -> Node:
    """A machine of that name; with a host, one of several nodes on it with that id."""
    name = own if host is None else f"{host}/{own}"
    return Node(id=own * 7, name=name, host=host or own, cpus=2.0, resources={}, labels={})


def row(host: str) -> Measurement:
    measured = a_measurement()
    return replace(measured, host=replace(measured.host, name=host))


def test_node_resumes_rows_with_its_name():
    ours, theirs = row("lab-1"), row("lab-2")
    shares, orphans = assign_rows([ours, theirs], [node("lab-1"), node("lab-3")])
    assert {each.name: rows for each, rows in shares.items()} == {"lab-1": (ours,)}
    assert orphans == (theirs,)


def test_restarted_unnamed_node_resumes_its_rows():
    kept, left = row("lab/aaaaaaaa"), row("lab/bbbbbbbb")
    nodes = [node("cccccccc", "lab"), node("aaaaaaaa", "lab"), node("dddddddd", "other")]
    shares, orphans = assign_rows([left, kept], nodes)
    assert {each.name: rows for each, rows in shares.items()} == {
        "lab/aaaaaaaa": (kept,),
        "lab/cccccccc": (left,),
    }
    assert orphans == ()


def test_rows_of_a_named_node_wait_for_it():
    left = row("lab/gpu-box")
    shares, orphans = assign_rows([left], [node("cccccccc", "lab")])
    assert (shares, orphans) == ({}, (left,))
    shares, _ = assign_rows([left], [replace(node("cccccccc", "lab"), name="lab/gpu-box")])
    assert [*shares.values()] == [(left,)]
