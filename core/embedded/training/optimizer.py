"""Muon for the matrices of the layers, AdamW for everything else.

Muon (K. Jordan, https://kellerjordan.github.io/posts/muon/) replaces each matrix's momentum by
the nearest orthogonal matrix. Small transformers need noticeably fewer tokens with it, which
matters on two cores.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

MUON_RATE = 0.02
ADAM_RATE = 3e-3
MOMENTUM = 0.95
WEIGHT_DECAY = 0.02
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from the article above."""


@cache
def fast_bfloat16() -> bool:
    """Return whether this processor has bfloat16 matrix instructions.

    Without them bfloat16 is several times slower than float32.
    """
    import torch

    supported = torch.cpu.get_capabilities()
    return bool(supported.get("avx512_bf16") or supported.get("amx_bf16"))


def orthogonalized(stack: Tensor, steps: int = 5) -> Tensor:
    """Return matrices (n, rows, columns) with all singular values close to 1."""
    a, b, c = NEWTON_SCHULZ
    wide = stack.size(1) <= stack.size(2)
    x = stack if wide else stack.mT
    if fast_bfloat16():
        x = x.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(stack.dtype)


class Optimizer:
    """Muon and AdamW in one ``step``."""

    def __init__(self, network: Module) -> None:
        import torch

        shapes: dict[tuple[int, ...], list[Any]] = defaultdict(list)
        rest = []
        for name, parameter in network.named_parameters():
            if parameter.ndim == 2 and ".layers." in name:
                shapes[tuple(parameter.shape)].append(parameter)
            else:
                rest.append(parameter)
        self.groups = list(shapes.values())
        self.momenta = [torch.zeros(len(g), *g[0].shape) for g in self.groups]
        self.adam = torch.optim.AdamW(
            rest, lr=ADAM_RATE, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, foreach=True
        )

    def step(self, scale: float) -> None:
        """Update the weights with all learning rates times ``scale``, and clear the gradients."""
        import torch

        with torch.no_grad():
            for group, momentum in zip(self.groups, self.momenta, strict=True):
                gradient = torch.stack([parameter.grad for parameter in group])
                momentum.lerp_(gradient, 1 - MOMENTUM)
                update = orthogonalized(gradient.lerp(momentum, MOMENTUM))
                rows, columns = group[0].shape
                rate = MUON_RATE * scale * max(1.0, rows / columns) ** 0.5
                for parameter, delta in zip(group, update, strict=True):
                    parameter.mul_(1 - rate * WEIGHT_DECAY).add_(delta, alpha=-rate)
                    parameter.grad = None
        for settings in self.adam.param_groups:
            settings["lr"] = ADAM_RATE * scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.momenta = state["momenta"]
        self.adam.load_state_dict(state["adam"])
