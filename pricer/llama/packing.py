"""Linear layers on a CPU, in the order in which MKL reads a matrix fastest.

MKL brings a matrix into that order at every product, which for a few hundred rows takes a quarter of the time. torch can keep
it so, but does it only when it freezes a compiled graph, by two operations of its own (`torch.ops.mkl._mkl_linear`). Here
they serve in plain PyTorch; where they are missing or give something else than `torch.mm`, that serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional as F

_ROWS = 256  # that a matrix is packed for; it then serves any number
_TRIED = (1, 2, 7, 16, 60, 256, 400)


@dataclass(frozen=True)
class Product:
    """x (..., in) -> x W' + b (..., out). Plain: `matrix` is W' (in, out). Packed: MKL's own form of it, and `like`
    says W's shape (out, in). Plain in bf16: x is rounded as well, and what comes out is fp32 again."""

    matrix: torch.Tensor
    like: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.matrix.dtype == torch.bfloat16:
            return F.linear(x.bfloat16(), self.matrix.t(), self.bias).float()
        if self.like is not None:
            rows = x.numel() // x.shape[-1]
            return torch.ops.mkl._mkl_linear(x, self.matrix, self.like, self.bias, rows)
        out = torch.mm(x.reshape(-1, x.shape[-1]), self.matrix)
        return (out if self.bias is None else out.add_(self.bias)).view(*x.shape[:-1], -1)


def product(weight: torch.Tensor, bias: torch.Tensor | None = None, precision: str = "fp32") -> Product:
    """A linear layer's product. weight: (out, in), in fp32 on the CPU; bias: (out,). precision: "bf16" rounds weight
    and x to 8 significant bits, which a CPU with AMX multiplies two to three times as fast."""
    if precision == "bf16":
        return Product(weight.bfloat16().t(), None, None if bias is None else bias.bfloat16())
    if can_pack():
        return Product(_packed(weight), _shape_of(weight), bias)
    return Product(weight.t().contiguous(), None, bias)


@dataclass(frozen=True)
class Part:
    """Some columns of a product of several layers, computed as a whole: what one of them gives."""

    whole: Product
    columns: slice

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.whole(x)[..., self.columns]


def pack(*layers: torch.nn.Linear, shared: bool = False, precision: str = "fp32") -> Product:
    """The product of layers that read the same, their outputs side by side; from now on their forward pass as well, in
    inference. There is one copy of their weights: where that is packed, a layer's own keeps its shape and reads as NaN.
    `shared`: others read it too, so it stays. Raises ValueError the second time."""
    if any(isinstance(layer.forward, Product | Part) for layer in layers):
        raise ValueError("a layer cannot be packed twice")
    weights, biases = [layer.weight.detach() for layer in layers], [layer.bias for layer in layers]
    found = product(*joined(weights, biases), precision)
    first = 0
    for layer, weight in zip(layers, weights, strict=True):
        columns = slice(first, first := first + len(weight))
        if not shared:
            layer.weight.data = found.matrix[:, columns].t() if found.like is None else _shape_of(weight)
        layer.forward = found if len(layers) == 1 else Part(found, columns)
    return found


def joined(
    weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights (out, in) and biases (out,) of layers that read the same, as of one; those without a bias have none or 0."""
    if len(weights) == 1:
        return weights[0], None if biases[0] is None else biases[0].detach()
    if all(bias is None for bias in biases):
        return torch.cat(list(weights)), None
    own = [
        weight.new_zeros(len(weight)) if bias is None else bias.detach()
        for weight, bias in zip(weights, biases, strict=True)
    ]
    return torch.cat(list(weights)), torch.cat(own)


@cache
def can_pack() -> bool:
    """Whether this torch has the two operations and they do, for any number of rows, what `torch.mm` does."""
    if not torch.backends.mkl.is_available() or not hasattr(torch.ops.mkl, "_mkl_linear"):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(192, 576, generator=generator), torch.randn(max(_TRIED), 576, generator=generator)
    wanted = x @ weight.t()
    try:
        own = Product(_packed(weight), _shape_of(weight))
        return all(torch.allclose(own(x[:n]), wanted[:n], atol=1e-3) for n in _TRIED)
    except (RuntimeError, TypeError):  # they take other arguments
        return False


def _packed(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkl._mkl_reorder_linear_weight(weight.contiguous(), _ROWS)


def _shape_of(weight: torch.Tensor) -> torch.Tensor:
    return torch.full((1,), torch.nan, dtype=weight.dtype).expand(weight.shape)
