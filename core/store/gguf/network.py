"""Build the OpenVINO model of a GGUF file (Llama, Qwen2 and Qwen3) with its weights as stored.

OpenVINO GenAI's own reader rounds each minimum of a Q4_1 or Q4_K group to an integer zero point,
which increases SmolLM2's perplexity by 19 %. Here a minimum becomes a zero point in FP16, and only
scales and zero points are rounded, to FP16. The graph is stateful, with the patterns for rotary
embedding, KV cache and attention that OpenVINO's plugins fuse and GenAI's paged attention
recognises.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset15 as ops
from openvino.op.util import Variable, VariableInfo

from core.catalogue.shapes import transformers_config
from core.errors import CorruptModelError, NotAModelError
from core.store.gguf.blocks import Floats, Groups
from core.store.gguf.reader import GgufFile, Tensor, shape_of

_LARGEST_HALF = float(np.finfo(np.float16).max)


def build(file: GgufFile, dequantised: str | None = None) -> tuple[ov.Model, float]:
    """Build the OpenVINO model of a file.

    Args:
        dequantised: None keeps the weights as stored; ``f16`` or ``f32`` writes the dequantised
            weights in this type.

    Returns:
        The model, and the largest difference between one of its weights and the dequantised value,
        as a share of the largest weight of the matrix.

    Raises:
        NotAModelError: the file has tensors that are not part of its architecture.
        CorruptModelError: a tensor is missing, or has an impossible shape.
    """
    builder = _Builder(file, dequantised)
    return builder.build(), builder.deviation


def config_of(file: GgufFile) -> dict[str, Any]:
    """Return ``config.json``, which the graph does not need, but transformers and Optimum do.

    Raises:
        CorruptModelError: a value is missing or impossible.
    """
    return transformers_config(file.architecture, shape_of(file)) | {
        "architectures": [f"{file.architecture.capitalize()}ForCausalLM"],
        "hidden_act": "silu",
        "rms_norm_eps": file.value("{arch}.attention.layer_norm_rms_epsilon", float),
        "bos_token_id": file.metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id"),
    }


class _Builder:
    def __init__(self, file: GgufFile, dequantised: str | None) -> None:
        self.file = file
        self.dequantised = dequantised
        self.shape = shape_of(file)
        self.deviation = 0.0
        self.unused = set(file.tensors)
        self.sinks: list[Any] = []
        self.head_width = self.shape.head_width
        self.epsilon = file.value("{arch}.attention.layer_norm_rms_epsilon", float)

    def build(self) -> ov.Model:
        input_ids = _parameter("input_ids", ov.Type.i64, 2)
        attention_mask = _parameter("attention_mask", ov.Type.i64, 2)
        position_ids = _parameter("position_ids", ov.Type.i64, 2)
        beam_idx = _parameter("beam_idx", ov.Type.i32, 1)
        self.beam_idx = beam_idx
        self.batch = ops.gather(ops.shape_of(input_ids), _integers([0]), _integers([0]))

        embeddings = self._matrix("token_embd.weight", (self.shape.vocabulary, self.shape.hidden))
        hidden = ops.gather(embeddings, ops.convert(input_ids, "i32"), _integers(0, "int32"))
        self.cos, self.sin = self._rotary(position_ids)
        self.mask = None
        for layer in range(self.shape.layers):
            hidden = self._layer(layer, hidden, input_ids, attention_mask)
        hidden = self._norm(hidden, "output_norm.weight", self.shape.hidden)
        head = embeddings
        if not self.shape.tied_embeddings:
            head = self._matrix("output.weight", (self.shape.vocabulary, self.shape.hidden))
        logits = ops.result(ops.matmul(hidden, head, False, True))
        logits.output(0).get_tensor().set_names({"logits"})
        logits.set_friendly_name("logits")
        if self.unused:
            raise NotAModelError(
                f"{self.file.name} has tensors that are not part of its architecture "
                f"({min(self.unused)[:80]}). Use the model's safetensors instead."
            )
        parameters = [input_ids, attention_mask, position_ids, beam_idx]
        return ov.Model([logits], self.sinks, parameters, "gguf")

    # Layers

    def _layer(self, layer: int, hidden: Any, input_ids: Any, attention_mask: Any) -> Any:
        shape, width = self.shape, self.head_width
        block = f"blk.{layer}."
        normed = self._norm(hidden, block + "attn_norm.weight", shape.hidden)
        query = self._heads(normed, block + "attn_q", shape.heads)
        key = self._heads(normed, block + "attn_k", shape.kv_heads)
        value = self._heads(normed, block + "attn_v", shape.kv_heads)
        key = self._cached(self._rotate(key), layer, "key")
        value = self._cached(value, layer, "value")
        if self.mask is None:
            self.mask = _causal_mask(input_ids, attention_mask)
        attended = ops.scaled_dot_product_attention(
            self._rotate(query), self._repeated(key), self._repeated(value), self.mask
        )
        joined = ops.reshape(
            ops.transpose(attended, _integers([0, 2, 1, 3], "int32")),
            _integers([0, 0, shape.heads * width]),
            special_zero=True,
        )
        hidden = ops.add(hidden, self._linear(joined, block + "attn_output", shape.hidden))
        normed = self._norm(hidden, block + "ffn_norm.weight", shape.hidden)
        gate = ops.swish(self._linear(normed, block + "ffn_gate", shape.intermediate))
        inner = ops.multiply(gate, self._linear(normed, block + "ffn_up", shape.intermediate))
        return ops.add(hidden, self._linear(inner, block + "ffn_down", shape.hidden))

    def _heads(self, hidden: Any, name: str, heads: int) -> Any:
        """Return a projection split into heads: (batch, heads, tokens, head width)."""
        rotated = not name.endswith("attn_v")
        order = None
        if rotated and self.file.architecture == "llama":
            order = _halves_order(heads, self.head_width)
        flat = self._linear(hidden, name, heads * self.head_width, order)
        split = ops.reshape(flat, _integers([0, 0, heads, self.head_width]), special_zero=True)
        norm = f"{name}_norm.weight"
        if norm in self.file.tensors:  # Qwen3
            split = self._norm(split, norm, self.head_width)
        return ops.transpose(split, _integers([0, 2, 1, 3], "int32"))

    def _linear(self, hidden: Any, name: str, rows: int, order: Any = None) -> Any:
        columns = hidden.output(0).get_partial_shape()[2].get_length()
        weights = self._matrix(f"{name}.weight", (rows, columns), order)
        product = ops.matmul(hidden, weights, False, True)
        if f"{name}.bias" not in self.file.tensors:
            return product
        bias = self._vector(f"{name}.bias", rows)
        bias = bias if order is None else bias[order]
        return ops.add(product, ops.constant(bias.reshape(1, 1, rows)))

    def _norm(self, hidden: Any, name: str, width: int) -> Any:
        """RMS norm with a weight for each channel."""
        rank = len(hidden.output(0).get_partial_shape())
        ones = (1,) * rank
        square = ops.power(hidden, ops.constant(np.full(ones, 2, np.float32)))
        mean = ops.reduce_mean(square, _integers([-1], "int32"), keep_dims=True)
        root = ops.sqrt(ops.add(mean, ops.constant(np.full(ones, self.epsilon, np.float32))))
        normed = ops.multiply(ops.divide(ops.constant(np.ones(ones, np.float32)), root), hidden)
        weight = self._vector(name, width).reshape(*ones[1:], width)
        return ops.multiply(normed, ops.constant(weight))

    # Attention

    def _rotary(self, position_ids: Any) -> tuple[Any, Any]:
        """Return cosine and sine of every position: (batch, 1, tokens, head width)."""
        half = self.head_width // 2
        exponents = np.arange(half, dtype=np.float32) / np.float32(half)
        frequencies = (1.0 / self.shape.rope_theta**exponents).astype(np.float32)
        if "rope_freqs.weight" in self.file.tensors:  # Llama 3.1 and later
            frequencies = frequencies / self._vector("rope_freqs.weight", half)
        if self.file.value("{arch}.rope.scaling.type", str, "none") == "linear":
            frequencies /= self.file.value("{arch}.rope.scaling.factor", float)
        constant = ops.constant(frequencies.reshape(1, half, 1).astype(np.float32))
        places = ops.convert(ops.unsqueeze(position_ids, _integers(1)), "f32")
        spread = ops.broadcast(
            constant, ops.concat([self.batch, _integers([1, 1])], 0), broadcast_spec="BIDIRECTIONAL"
        )
        angles = ops.transpose(
            ops.matmul(spread, places, False, False), _integers([0, 2, 1], "int32")
        )
        both = ops.concat([angles, angles], -1)
        return ops.unsqueeze(ops.cos(both), _integers(1)), ops.unsqueeze(
            ops.sin(both), _integers(1)
        )

    def _rotate(self, heads: Any) -> Any:
        half, end, axis, step = (
            self.head_width // 2,
            np.iinfo(np.int64).max,
            _integers([3]),
            _integers([1]),
        )
        second = ops.slice(heads, _integers([half]), _integers([end]), step, axis)
        first = ops.slice(heads, _integers([0]), _integers([half]), step, axis)
        minus = ops.constant(np.full((1, 1, 1, 1), -1, np.float32))
        turned = ops.concat([ops.multiply(second, minus), first], -1)
        return ops.add(ops.multiply(heads, self.cos), ops.multiply(turned, self.sin))

    def _cached(self, now: Any, layer: int, what: str) -> Any:
        """Append ``now`` to the KV cache, and return all: (batch, heads, all tokens, width)."""
        heads, width = self.shape.kv_heads, self.head_width
        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, heads, -1, width])
        info.data_type = ov.Type.f32
        info.variable_id = f"past_key_values.{layer}.{what}present.{layer}.{what}"
        variable = Variable(info)
        empty = ops.broadcast(
            ops.constant(np.float32(0)), ops.concat([self.batch, _integers([heads, 0, width])], 0)
        )
        past = ops.gather(ops.read_value(empty, variable), self.beam_idx, _integers(0))
        whole = ops.concat([past, now], 2)
        self.sinks.append(ops.assign(whole, variable))
        return whole

    def _repeated(self, heads: Any) -> Any:
        """Repeat key or value heads for the query heads that share them."""
        shape, width = self.shape, self.head_width
        times = shape.heads // shape.kv_heads
        if times == 1:
            return heads
        target = ops.concat([self.batch, _integers([shape.kv_heads, times, 1, width])], 0)
        spread = ops.broadcast(
            ops.unsqueeze(heads, _integers(2)), target, broadcast_spec="BIDIRECTIONAL"
        )
        return ops.reshape(spread, _integers([0, shape.heads, -1, width]), special_zero=True)

    # Weights

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        tensor = self.file.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            state = "is missing" if tensor is None else f"has the shape {tensor.shape}"
            raise CorruptModelError(
                f"The tensor {name} of {self.file.name} {state}; expected shape {shape}. "
                "Download or copy the file again."
            )
        self.unused.discard(name)
        return tensor

    def _vector(self, name: str, length: int) -> Floats:
        return self._take(name, (length,)).floats()

    def _matrix(self, name: str, shape: tuple[int, int], order: Any = None) -> Any:
        """Return a matrix as a float32 node that is decompressed at run time."""
        tensor = self._take(name, shape)
        if self.dequantised is not None:
            return _float_node(tensor.floats(), order, self.dequantised)
        if tensor.type.unpack is None:
            kept = {"F32": "f32", "F16": "f16", "BF16": "bf16"}[tensor.type.name]
            return _float_node(tensor.floats(), order, kept)
        groups = tensor.groups()
        if order is not None:
            groups = groups.reordered(order)
        rows, count, size = groups.integers.shape
        integers, scale, zero_point = constants = _constants(groups)
        self.deviation = max(self.deviation, _deviation(groups, *constants))
        if zero_point is not None:
            zero_point = ops.constant(zero_point)
        if tensor.type.bits == 4:
            packed = (integers[..., 0::2] & 15) | ((integers[..., 1::2] & 15) << 4)
            kind = ov.Type.u4 if groups.minimum is not None else ov.Type.i4
            weights = _constant_of(packed.view(np.uint8), [rows, count, size], kind)
        elif groups.minimum is not None:
            weights = ops.constant(integers.view(np.uint8))
        else:
            # Unsigned with a zero point of 128: 6 % more tokens/s than signed (SmolLM2's output
            # layer in Q8_0, on a CPU).
            weights = ops.constant(integers.view(np.uint8) + np.uint8(128))
            zero_point = ops.convert(ops.constant(np.full((1, 1, 1), 128, np.uint8)), "f16")
        node = ops.convert(weights, "f16")
        if zero_point is not None:
            node = ops.subtract(node, zero_point)
        node = ops.multiply(node, ops.constant(scale))
        node = ops.reshape(node, _integers(list(shape)), special_zero=False)
        return ops.convert(node, "f32")


def _constants(groups: Groups) -> tuple[Any, Any, Any]:
    """Return integers, scale and zero point (None if symmetric) as stored in the model:
    ``weight = (integer - zero_point) * scale``."""
    integers, scale = groups.integers, groups.scale.astype(np.float16)
    if groups.minimum is None:
        return integers, scale, None
    with np.errstate(divide="ignore", invalid="ignore"):
        # Divided by the rounded scale, so that its rounding does not shift the minimum.
        zero_point = -groups.minimum / scale.astype(np.float32)
    flat = ~(np.abs(zero_point) <= _LARGEST_HALF)
    if flat.any():  # (nearly) equal weights: the scale is negligible compared with the minimum
        scale = np.where(flat, np.float16(1), scale)
        zero_point = np.where(flat, -groups.minimum, zero_point)
        integers = np.where(flat, np.uint8(0), integers)
    return integers, scale, zero_point.astype(np.float16)


def _deviation(groups: Groups, integers: Any, scale: Any, zero_point: Any) -> float:
    """Return the deviation, see :func:`build`, of these constants.

    Within a group it is linear in the integer, so only the extremes are compared.
    """
    largest = worst = 0.0
    for extreme in (np.min, np.max):
        integer = extreme(groups.integers, axis=2, keepdims=True).astype(np.float32)
        wanted = integer * groups.scale
        if groups.minimum is not None:
            wanted += groups.minimum
        now = extreme(integers, axis=2, keepdims=True).astype(np.float32)
        if zero_point is not None:
            now -= zero_point.astype(np.float32)
        now *= scale.astype(np.float32)
        largest = max(largest, float(np.abs(wanted).max()))
        worst = max(worst, float(np.abs(now - wanted).max()))
    return worst / largest if largest else 0.0


def _float_node(weights: Floats, order: Any, kind: str) -> Any:
    weights = weights if order is None else weights[order]
    if kind == "f32":
        return ops.constant(weights)
    if kind == "bf16":
        upper = (weights.view(np.uint32) >> 16).astype(np.uint16)
        return ops.convert(_constant_of(upper, list(weights.shape), ov.Type.bf16), "f32")
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    return ops.convert(ops.constant(half), "f32")


def _constant_of(raw: Any, shape: list[int], kind: ov.Type) -> Any:
    """Return a constant of a type that NumPy does not have, from its bytes."""
    return ops.constant(ov.Tensor(raw, ov.Shape(shape), kind), shared_memory=False)


def _halves_order(heads: int, width: int) -> Any:
    """Return the order of rows for rotary embedding of the two halves of a head: llama.cpp rotates
    neighbouring channels instead."""
    return np.arange(heads * width).reshape(heads, width // 2, 2).swapaxes(1, 2).reshape(-1)


def _causal_mask(input_ids: Any, attention_mask: Any) -> Any:
    """Return the mask with −65504 for hidden tokens: (batch, 1, new tokens, all tokens)."""
    new = ops.gather(ops.shape_of(input_ids), _integers(1), _integers(0))
    whole = ops.gather(ops.shape_of(attention_mask), _integers(1), _integers(0))
    columns = ops.range(_integers(0), whole, _integers(1), "i64")
    rows = ops.unsqueeze(
        ops.range(ops.subtract(whole, new), whole, _integers(1), "i64"), _integers(1)
    )
    ahead = ops.greater(ops.unsqueeze(columns, _integers(0)), rows)
    padding = ops.equal(attention_mask, _integers(0))
    hidden = ops.logical_or(
        ops.unsqueeze(ops.unsqueeze(ahead, _integers(0)), _integers(0)),
        ops.unsqueeze(ops.unsqueeze(padding, _integers(1)), _integers(1)),
    )
    lowest, nothing = ops.constant(np.float32(-65504)), ops.constant(np.float32(0))
    return ops.select(hidden, lowest, nothing)


def _parameter(name: str, kind: ov.Type, rank: int) -> Any:
    node = ops.parameter([-1] * rank, kind, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def _integers(values: int | list[int], kind: str = "int64") -> Any:
    return ops.constant(np.array(values, dtype=kind))
