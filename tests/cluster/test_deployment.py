"""Options passed to Ray Serve, and invalid options."""

from __future__ import annotations

from typing import Any

import pytest

from core.catalogue import Precision
from core.cluster.serving import Serving
from core.errors import BadRequestError
from core.runtimes.spec import ModelSpec

SPEC = ModelSpec("paddock-neox", Precision.INT8, "CPU")
CODE = {"py_modules": ["gcs://code.zip"]}


def test_fixed_and_automatic_number_of_replicas():
    assert (
        Serving(spec=SPEC, min_replicas=2, max_replicas=2).options(CODE, one_more=False)[
            "num_replicas"
        ]
        == 2
    )
    options = Serving(spec=SPEC, max_replicas=4, grow_after_s=5, shrink_after_s=60).options(
        CODE, one_more=False
    )
    assert "num_replicas" not in options
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (1, 4)
    assert (scaling["upscale_delay_s"], scaling["downscale_delay_s"]) == (5, 60)
    assert scaling["target_ongoing_requests"] == 4  # half of what a replica answers at once


def test_surge_replica_only_if_there_is_room():
    serving = Serving(spec=SPEC)
    assert serving.options(CODE, one_more=True)["max_surge_percent"] == 1
    assert serving.options(CODE, one_more=False)["max_surge_percent"] == 0


def test_reserved_resources():
    assert Serving(spec=SPEC, cpus=2).reserved == {"CPU": 2}
    assert Serving(spec=SPEC, cpus=0).reserved == {}
    on_npus = Serving(spec=SPEC, resource="npu")
    assert set(on_npus.reserved) == {"CPU", "npu"}
    actor = on_npus.options(CODE, one_more=False)["ray_actor_options"]
    assert actor["resources"] == {"npu": on_npus.reserved["npu"]} and actor["runtime_env"] == CODE


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_replicas": 0},
        {"min_replicas": 2},
        {"min_replicas": 1001, "max_replicas": 1001},
        {"at_once": 0},
        {"at_once": 65},
        {"cpus": -1.0},
        {"grow_after_s": -1.0},
        {"shrink_after_s": 1e9},
    ],
    ids=str,
)
def test_invalid_options_are_refused(wrong: dict[str, Any]):
    with pytest.raises(BadRequestError):
        Serving(**{"spec": SPEC} | wrong).validated()
