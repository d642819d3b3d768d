"""The shape of a catalogue row."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from core.units import int4_text


@dataclass(frozen=True)
class Int4Settings:
    """How INT4 weight compression is done: NNCF's ``compress_weights`` in data-free mode."""

    symmetric: bool
    group_size: int
    """Weights that share one scale along the input channel; −1 means one scale per channel."""
    ratio: float
    """Share of the compressible layers that become INT4; the rest become INT8."""
    scale_estimation: bool = False
    """Choose the scales by least squares on texts that the model itself writes: slower, and
    usually a little more accurate."""

    @property
    def text(self) -> str:
        """Words for people: "asymmetric, group size 128, ratio 0.8"."""
        return int4_text(**asdict(self))

    def suits(self, wanted: Int4Settings) -> bool:
        """Whether weights of these settings run where the wanted ones do: how their scales were
        found does not matter to a device."""
        return replace(self, scale_estimation=wanted.scale_estimation) == wanted


@dataclass(frozen=True)
class Int8Settings:
    """How INT8 weight compression is done; one scale per output channel."""

    symmetric: bool = False
    """Without a zero point: a little faster on some devices, a little less accurate."""


@dataclass(frozen=True)
class Shape:
    """Size of a decoder-only transformer, named as in its ``config.json``."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    positions: int
    """Longest sequence, prompt and answer together, in tokens."""
    rotary_fraction: float = 1.0
    """Share of each head's width that is rotated."""
    rope_theta: float = 10_000.0
    parallel_residual: bool = False
    """GPT-NeoX only: attention and feed-forward read the same input."""
    tied_embeddings: bool = False


@dataclass(frozen=True)
class RecommendedSampling:
    """Sampling parameters that a model's card recommends; None where it recommends none."""

    temperature: float | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class PackageFile:
    """A GGUF file inside a Python package (``requirements-models.txt``)."""

    name: str
    """Of the package, for ``pip install``."""
    file: str
    """Import name of the package, a slash, and the path of the file within it."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CatalogueModel:
    """One model Paddock knows by name."""

    key: str
    title: str
    architecture: str
    """``model_type`` of the configuration: gpt_neox, llama, phi, mistral."""
    hub_id: str | None
    """Hugging Face id; None for the models that Paddock embeds."""
    prompt_format: str
    """Name of a :class:`core.catalogue.prompts.PromptFormat`."""
    shape: Shape
    parameters: int
    licence: str
    licence_note: str
    gated: bool
    int4: Int4Settings
    summary: str
    known_limits: tuple[str, ...]
    """Empty where none is recorded."""
    scores: tuple[tuple[str, float], ...]
    """Published benchmark scores, (task, value from 0 to 1); empty where none is recorded."""
    scores_source: str | None
    sampling: RecommendedSampling | None = None
    """None where no recommendation is recorded."""
    package: PackageFile | None = None
    """Where the weights lie if this Python package is installed; the hub has them otherwise."""

    @property
    def embedded(self) -> bool:
        """Whether the weights come with Paddock itself."""
        return self.hub_id is None
