"""Linear layers on a CPU, in the order in which MKL reads a matrix fastest.

MKL brings a matrix into that order at every product, which for a few hundred rows takes a quarter of the time. torch can keep
it so, but does it only when it freezes a compiled graph, by two operations of its own (`torch.ops.mkl._mkl_linear`). Here
they serve in plain PyTorch; where they are missing or give something else than `torch.mm`, that serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

_ROWS = 256  # that a matrix is packed for; it then serves any number
_TRIED = (1, 2, 7, 16, 60, 256, 400)


@dataclass(frozen=True)
class Product:
    """x (..., in) -> x W' + b (..., out). Plain: `matrix` is W' (in, out). Packed: MKL's own form of it, and `like`
    says W's shape (out, in)."""

    matrix: torch.Tensor
    like: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.like is not None:
            rows = x.numel() // x.shape[-1]
            return torch.ops.mkl._mkl_linear(x, self.matrix, self.like, self.bias, rows)
        out = torch.mm(x.reshape(-1, x.shape[-1]), self.matrix)
        return (out if self.bias is None else out.add_(self.bias)).view(*x.shape[:-1], -1)


def product(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    """A linear layer's product. weight: (out, in), in fp32 on the CPU; bias: (out,)."""
    if can_pack():
        return Product(_packed(weight), _shape_of(weight), bias)
    return Product(weight.t().contiguous(), None, bias)


def pack(layer: torch.nn.Linear, shared: bool = False) -> Product:
    """The layer's product, from now on its forward pass as well, in inference. There is one copy of its weight: where
    that is packed, the layer's own keeps its shape and reads as NaN. `shared`: others read it too, so it stays. Raises
    ValueError the second time."""
    if isinstance(layer.forward, Product):
        raise ValueError("a layer cannot be packed twice")
    found = product(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
    if not shared:
        layer.weight.data = found.matrix.t() if found.like is None else found.like
    layer.forward = found
    return found


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
