"""Plans: what they measure, and which are invalid."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from core.benchmark.plan import Plan
from core.catalogue import CONVERTED_PRECISIONS, Precision, catalogue
from core.errors import BadRequestError, UnknownModelError, UserError
from core.runtimes.spec import RuntimeName
from tests.benchmark.fake_work import configurations

PLAN = Plan(models=("paddock-neox",), random_models=("neox-410m",))


def test_defaults_can_be_measured():
    plan = PLAN.validated()
    assert plan == PLAN
    assert len(configurations(plan)) == 2 * 3 * 2  # models, precisions, prompt lengths


def test_targets_are_the_product_in_order():
    plan = replace(PLAN, devices=("CPU", "GPU"), precisions=(Precision.INT8, Precision.FP16))
    told = [(t.model, t.random_weights, t.precision, t.device) for t in plan.targets()]
    assert told == [
        (model, is_random, precision, device)
        for model, is_random in (("paddock-neox", False), ("neox-410m", True))
        for precision in (Precision.INT8, Precision.FP16)
        for device in ("CPU", "GPU")
    ]


def test_pytorch_runs_uncompressed_weights_once():
    plan = replace(
        PLAN,
        random_models=(),
        devices=("CPU", "GPU"),
        runtimes=(RuntimeName.OPTIMUM, RuntimeName.PYTORCH),
        precisions=CONVERTED_PRECISIONS,
    ).validated()
    baseline = [t for t in plan.targets() if t.runtime is RuntimeName.PYTORCH]
    assert [(t.precision, t.device) for t in baseline] == [
        (Precision.FP32, "CPU"),
        (Precision.FP16, "CPU"),
    ]
    assert len(plan.targets()) == 4 * 2 + 2
    assert "PyTorch" in baseline[0].label


def test_rows_record_their_conditions():
    rows = configurations(PLAN.validated())
    mine, other = rows[0], rows[-1]
    assert (mine.source, mine.random_weights) == ("embedded", False)
    assert mine.title == catalogue()["paddock-neox"].title
    assert mine.hints == {"INFERENCE_PRECISION_HINT": "f32"}
    assert (mine.prompt_tokens, mine.new_tokens, mine.repeats) == (32, 128, 5)
    assert other.random_weights
    assert other.source == "random weights" and "random weights" in other.title


def test_repeats_are_distributed_over_the_rounds():
    plan = replace(PLAN, repeats=5, rounds=3)
    assert [plan.answers_in_round(number) for number in range(3)] == [2, 2, 1]


def test_names_are_normalized():
    plan = replace(PLAN, models=(" paddock-neox ",), devices=(" cpu", "npu")).validated()
    assert plan.models == ("paddock-neox",)
    assert plan.devices == ("CPU", "NPU")


def test_json_round_trip():
    plan = replace(
        PLAN,
        precisions=(Precision.FP32,),
        runtimes=(RuntimeName.OPTIMUM, RuntimeName.PYTORCH),
        prompt_tokens=(1, 7),
        quality=True,
        memory_limit_bytes=2**33,
        keep_random_weights=True,
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert Plan.from_json(plan.to_json() | {"of_a_newer_paddock": 1}) == plan


@pytest.mark.parametrize(
    "data",
    [
        {"models": ["paddock-neox"], "precisions": ["int3"]},
        {"models": ["paddock-neox"], "prompt_tokens": 3},
        {"models": ["paddock-neox"], "repeats": "many"},
        {},
    ],
)
def test_unreadable_stored_plan_is_an_error(data):
    with pytest.raises(BadRequestError):
        Plan.from_json(data)


MISTAKES = {
    "no model": {"models": (), "random_models": ()},
    "empty name": {"models": ("",)},
    "model twice": {"models": ("paddock-neox", "paddock-neox ")},
    "no precision": {"precisions": ()},
    "precision twice": {"precisions": (Precision.INT8, Precision.INT8)},
    "no device": {"devices": ()},
    "device twice": {"devices": ("CPU", "cpu")},
    "no runtime": {"runtimes": ()},
    "no prompt": {"prompt_tokens": ()},
    "prompt of nothing": {"prompt_tokens": (0,)},
    "prompt too long": {"prompt_tokens": (10**6,)},
    "prompt twice": {"prompt_tokens": (32, 32)},
    "half a token": {"new_tokens": 1.5},
    "a truth": {"new_tokens": True},
    "no new tokens": {"new_tokens": 0},
    "too many repeats": {"repeats": 101, "rounds": 1},
    "no rounds": {"rounds": 0},
    "more rounds than repeats": {"repeats": 2, "rounds": 3},
    "tiny memory": {"memory_limit_bytes": 1000},
    "PyTorch compressed": {
        "runtimes": (RuntimeName.OPTIMUM, RuntimeName.PYTORCH),
        "precisions": (Precision.INT8,),
    },
    "PyTorch on a GPU": {
        "runtimes": (RuntimeName.PYTORCH,),
        "precisions": (Precision.FP16,),
        "devices": ("GPU",),
    },
    "far too much": {"prompt_tokens": tuple(range(1, 1001))},
}


@pytest.mark.parametrize("changes", MISTAKES.values(), ids=MISTAKES.keys())
def test_invalid_plans_are_errors(changes):
    with pytest.raises(UserError) as raised:
        replace(PLAN, **changes).validated()
    text = str(raised.value)
    assert text.endswith(".") and "\n" not in text


def test_unknown_shape_is_an_error():
    with pytest.raises(UnknownModelError, match="neox-410m"):
        replace(PLAN, random_models=("neox-411m",)).validated()
