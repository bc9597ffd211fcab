"""Linear layers on a CPU, in the order in which the library that is fastest here reads a matrix.

A library brings a matrix into an order of its own at every product, which for a few hundred rows takes up to a quarter of the
time. torch can keep it so, but does it only where it freezes a compiled graph, by operations of its own: for MKL, which was
faster on the Intel processor that we measured, and for oneDNN, which was on an AMD one. Here they serve in plain PyTorch: a
short trial finds the faster one, and where they are missing or give something else than `torch.mm`, that serves.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional as F

log = logging.getLogger(__name__)

_TRIED = (1, 2, 7, 16, 60, 256, 520)  # rows
_TRIAL_ROWS, _TRIALS = 112, 24
_ROWS = 256  # that a matrix is packed for; it then serves any number
# oneDNN makes a kernel for each number of rows and of threads, and keeps it: half a megabyte. So it gets no others than these.
_SIZES = (1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, *range(64, 256, 16), *range(256, 513, 32))


@dataclass(frozen=True)
class Order:
    """One that a library reads a matrix in. pack: W (out, in) in it; multiply: x (rows, in) and W in this order, its shape
    (out, in) and b (out,) or None -> x W' + b."""

    name: str
    pack: Callable[[torch.Tensor], torch.Tensor]
    multiply: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


def _by_mkl(x, matrix, like, bias) -> torch.Tensor:
    return torch.ops.mkl._mkl_linear(x, matrix, like, bias, len(x))


def _by_onednn(x, matrix, like, bias) -> torch.Tensor:
    if len(x) > _SIZES[-1]:
        return torch.cat([_by_onednn(part, matrix, like, bias) for part in x.split(_SIZES[-1])])
    more = _SIZES[bisect_left(_SIZES, len(x))] - len(x)
    padded = F.pad(x, (0, 0, 0, more)) if more else x
    return torch.ops.mkldnn._linear_pointwise(padded, matrix, bias, "none", [], "")[: len(x)]


MKL = Order("MKL", lambda weight: torch.ops.mkl._mkl_reorder_linear_weight(weight, _ROWS), _by_mkl)
ONEDNN = Order("oneDNN", lambda weight: torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS), _by_onednn)


@dataclass(frozen=True)
class Product:
    """x (..., in) -> x W' + b (..., out). Plain: `matrix` is W' (in, out). Packed: W in `order`, and `like` says W's shape
    (out, in). Plain in bf16: x is rounded as well, and what comes out is fp32 again."""

    matrix: torch.Tensor
    bias: torch.Tensor | None = None
    order: Order | None = None
    like: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.matrix.dtype == torch.bfloat16:
            return F.linear(x.bfloat16(), self.matrix.t(), self.bias).float()
        rows = x.reshape(-1, x.shape[-1])
        if self.order:
            out = self.order.multiply(rows, self.matrix, self.like, self.bias)
        else:
            out = torch.mm(rows, self.matrix)
            out = out if self.bias is None else out.add_(self.bias)
        return out.view(*x.shape[:-1], out.shape[-1])


def product(weight: torch.Tensor, bias: torch.Tensor | None = None, precision: str = "fp32") -> Product:
    """A linear layer's product. weight: (out, in), in fp32 on the CPU; bias: (out,). precision: "bf16" rounds weight
    and x to 8 significant bits, which a CPU with AMX multiplies two to three times as fast."""
    if precision == "bf16":
        return Product(weight.bfloat16().t(), None if bias is None else bias.bfloat16())
    if order := fastest_order():
        return _packed(order, weight, bias)
    return Product(weight.t().contiguous(), bias)


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
            layer.weight.data = _shape_of(weight) if found.order else found.matrix[:, columns].t()
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
def fastest_order() -> Order | None:
    """Of the orders that this torch has operations for which do, for any number of rows, what `torch.mm` does."""
    right = [order for order in (MKL, ONEDNN) if _is_right(order)]
    found = _faster(*right) if len(right) > 1 else next(iter(right), None)
    log.info(
        "On this CPU linear layers are multiplied %s.", f"by {found.name}" if found else "as torch does it"
    )
    return found


def _is_right(order: Order) -> bool:
    weight, x, bias = _random(96, 576), _random(max(_TRIED), 576), _random(96)
    wanted = torch.addmm(bias, x, weight.t())
    try:
        own = _packed(order, weight, bias)
        return all(torch.allclose(own(x[:rows]), wanted[:rows], atol=1e-3) for rows in _TRIED)
    except (AttributeError, RuntimeError, TypeError):  # they are missing, or take other arguments
        return False


def _faster(first: Order, second: Order) -> Order:
    """By trials turn by turn, on one thread: beside other work several wait for each other."""
    weight, x = _random(576, 576), _random(_TRIAL_ROWS, 576)
    products = [_packed(order, weight) for order in (first, second)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trials = [[_seconds(own, x) for own in products] for _ in range(_TRIALS)]
    torch.set_num_threads(threads)
    own, other = (min(seconds) for seconds in zip(*trials, strict=True))
    return first if own < other else second


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _seconds(own: Product, x: torch.Tensor) -> float:
    start = time.perf_counter()
    own(x)
    return time.perf_counter() - start


def _packed(order: Order, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    return Product(order.pack(weight.contiguous()), bias, order, _shape_of(weight))


def _shape_of(weight: torch.Tensor) -> torch.Tensor:
    return torch.full((1,), torch.nan, dtype=weight.dtype).expand(weight.shape)
