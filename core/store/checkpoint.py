"""Inspect a local model folder without loading the model: its kind, size and usability.

Reads only JSON and file headers, so it is fast enough for a page.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue import Precision, Shape
from core.catalogue.shapes import known_shape, parameters_of_config
from core.errors import CorruptModelError, NotAModelError
from core.store.model_files import ModelFiles
from core.store.supported import Selection, check_supported
from core.store.weights import IR_XML

if TYPE_CHECKING:
    from core.store.manifest import Manifest

TORCH_DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
LARGE_MODEL = 1_000_000_000
"""Number of parameters above which an FP32 checkpoint is loaded as FP16 for INT8 and INT4: the
scales are FP16 anyway, and it halves the memory."""
_SAFETENSORS_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CONTEXT_LENGTHS = (
    *("max_position_embeddings", "n_positions"),
    *("max_seq_len", "n_ctx", "seq_length", "max_sequence_length"),  # MPT, DBRX and others
)
"""Names of the context length in a ``config.json``."""
_LARGEST_PACKED_SHARE = 0.1
"""Largest share of integers and 8-bit floats among the parameters of a checkpoint that is not
quantised: masks and index tables."""


@dataclass(frozen=True)
class Origin:
    """Source weights of a conversion."""

    parameters: int
    """Exact for safetensors, IR and GGUF; estimated from the file size otherwise."""
    weight_bytes: int
    """Size of the weight files."""
    shape: Shape | None
    """None if the configuration does not specify all sizes."""
    folder: Path | None = None
    """Folder, or the file of a GGUF model; None if it is still to be downloaded."""
    weight_files: tuple[Path, ...] = ()
    """Of a PyTorch checkpoint: safetensors, or pickle files (``pytorch_model.bin``)."""
    is_ir: bool = False
    """True for an OpenVINO IR, False for a PyTorch checkpoint or a GGUF file."""
    is_gguf: bool = False
    precision: Precision | None = None
    """Of the weights of an IR or GGUF file; None for others such as BF16, and for a checkpoint."""
    dtype: str = ""
    """Name of the ``torch`` dtype of most weights of a checkpoint; unused for an IR."""
    kept: bool = True
    """Whether the weights can be kept as stored: those of an IR, and of some GGUF files."""
    formats: dict[str, int] = field(default_factory=dict)
    """Parameters of an IR by format; empty for others."""
    fetch_bytes: int = 0
    """Size of the whole download, including files from an earlier attempt."""
    manifest: Manifest | None = field(default=None, repr=False)
    """Of the stored model, if this is one; None for the original."""

    def load_dtype(self, precision: Precision) -> str:
        """Return the name of the ``torch`` dtype in which a checkpoint is loaded for a precision.

        For FP16 it is FP16: ``save_model(compress_to_fp16=True)`` would also round the rotary
        frequencies and so shift positions late in a long text.
        """
        if precision is Precision.FP32:
            return "float32"
        if precision is Precision.FP16:
            return "float16"
        if self.dtype in ("float16", "bfloat16"):
            return self.dtype
        return "float16" if self.parameters > LARGE_MODEL else "float32"

    def loaded_bytes(self, precision: Precision) -> int:
        """Return the size of a checkpoint's weights in that dtype."""
        return self.parameters * TORCH_DTYPE_BYTES[self.load_dtype(precision)]


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model folder.

    Raises:
        CorruptModelError: the file is not readable, not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, f"cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise _damaged(path, "is not a JSON object")
    return content


def _damaged(path: Path, what: str) -> CorruptModelError:
    return CorruptModelError(f"{path.name} in {path.parent} {what}. Download or copy it again.")


def is_ir(folder: Path) -> bool:
    """Return whether the folder contains an OpenVINO IR."""
    return (folder / IR_XML).is_file()


def context_length(config: dict[str, Any]) -> int | None:
    """Return the context length in tokens from a ``config.json``, or None if not specified."""
    for name in CONTEXT_LENGTHS:
        if isinstance(config.get(name), int):
            return int(config[name])
    return None


def chat_template(folder: Path) -> str:
    """Return the source of the chat template of the tokenizer in the folder; empty without one."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8", errors="replace")
    settings = folder / "tokenizer_config.json"
    return str((read_json(settings).get("chat_template") if settings.is_file() else None) or "")


def check_folder(folder: Path) -> Selection:
    """Return :func:`core.store.supported.check_supported` of the files in a folder."""
    return check_supported(model_files(folder))


def model_files(folder: Path) -> ModelFiles:
    """Return the files of a folder, and of the folders in it."""
    names = set()
    for path in folder.iterdir():
        if path.is_file():
            names.add(path.name)
        elif path.is_dir():
            names.add(f"{path.name}/")
            with suppress(OSError):  # not readable, and no model needs it
                names |= {
                    f"{path.name}/{inner.name}" for inner in path.iterdir() if inner.is_file()
                }
    return ModelFiles(
        str(folder),
        frozenset(names),
        read=lambda name: read_json(folder / name),
        card=lambda: _card(folder / "README.md"),
        ir_first=True,
    )


def _card(path: Path) -> dict[str, Any]:
    """Return the metadata of a model card: YAML between two lines of hyphens at its start."""
    import yaml

    try:
        _, head, _ = path.read_text(encoding="utf-8").split("---\n", 2)
        content = yaml.safe_load(head)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def inspect_checkpoint(folder: Path) -> Origin:
    """Describe the PyTorch checkpoint in ``folder``.

    Raises:
        NotAModelError: see :func:`check_folder`, or the weights are quantised.
        CorruptModelError: a weight file is missing or truncated.
    """
    selection = check_folder(folder)
    config = selection.config or {}
    paths = tuple(folder / name for name in selection.weights)
    if selection.safetensors:
        types: Counter[str] = Counter()
        for path in paths:
            types.update(_safetensors_types(path))
        check_not_packed(folder, types)
        common = types.most_common(1)[0][0] if types else "F32"
        dtype, parameters = _SAFETENSORS_DTYPES.get(common, "float32"), types.total()
        size = sum(path.stat().st_size for path in paths)
    else:
        size = sum(path.stat().st_size for path in paths)
        dtype = dtype_of(config, size)
        parameters = size // TORCH_DTYPE_BYTES[dtype]
    return Origin(
        folder=folder,
        weight_files=paths,
        weight_bytes=size,
        parameters=parameters,
        dtype=dtype,
        shape=known_shape(config),
        kept=False,
    )


def check_not_packed(name: Path | str, types: Mapping[str, int]) -> None:
    """Raise NotAModelError if the weights are quantised, which a configuration may not say."""
    packed = {dtype: types[dtype] for dtype in types if re.match(r"F[48]|[IU]\d+$", dtype)}
    if sum(packed.values()) > _LARGEST_PACKED_SHARE * sum(types.values()):
        raise NotAModelError(
            f"{name} has quantised weights ({', '.join(sorted(packed))}), which cannot be "
            "converted. Use a version of it that is not quantised, if there is one."
        )


def may_be_packed(config: dict[str, Any], weight_bytes: int) -> bool:
    """Return whether weights of this size may have less than 16 bits; True if their number is not
    known."""
    count = parameters_of_config(config)
    return count is None or weight_bytes < 1.6 * count


def dtype_of(config: dict[str, Any], weight_bytes: int) -> str:
    """Return the name of the ``torch`` dtype of a checkpoint's weights without reading them.

    Derived from the file size if the parameter count of the architecture is known; otherwise the
    dtype in the configuration, which is sometimes the dtype used in training.
    """
    declared = config.get("dtype") or config.get("torch_dtype")
    declared = declared if declared in TORCH_DTYPE_BYTES else None
    count = parameters_of_config(config)
    if count is None:
        return declared or "float32"
    wide = weight_bytes > 3 * count
    if declared is not None and (TORCH_DTYPE_BYTES[declared] > 2) is wide:
        return declared
    return "float32" if wide else "float16"


def tensor_types(header: Mapping[str, Any]) -> Counter[str]:
    """Count the parameters of a safetensors header by dtype, without biases: GPT-2 and its
    successors store their masks of bytes as such.

    Raises:
        KeyError, TypeError: it is not such a header.
    """
    types: Counter[str] = Counter()
    for name, tensor in header.items():
        if name != "__metadata__" and not (name.endswith("bias") and tensor["dtype"] == "U8"):
            types[tensor["dtype"]] += math.prod(tensor["shape"])
    return types


def _safetensors_types(path: Path) -> Counter[str]:
    """Count the parameters of a safetensors file by dtype, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_slice(name) for name in list(file.keys())}
            header = {
                name: {"dtype": each.get_dtype(), "shape": each.get_shape()}
                for name, each in tensors.items()
            }
    except (OSError, SafetensorError) as error:
        raise _damaged(path, f"is truncated or damaged ({error})") from error
    return tensor_types(header)
