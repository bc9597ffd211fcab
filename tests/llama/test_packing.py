"""Packed products give what torch gives; where torch's private operations are gone or wrong, the plain ones serve."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from pricer.llama import packing
from pricer.llama.packing import MKL, ONEDNN, fastest_order, pack, product

BACKENDS = {MKL: torch.backends.mkl, ONEDNN: torch.backends.mkldnn}
PACKED = [order for order, backend in BACKENDS.items() if backend.is_available()]
ORDERS = [None, *PACKED]
needs_onednn = pytest.mark.skipif(ONEDNN not in PACKED, reason="no oneDNN in this torch")


def named(order):
    return order.name if order else "plain"


@pytest.fixture
def afresh():
    fastest_order.cache_clear()
    yield
    fastest_order.cache_clear()


def only_right(monkeypatch, *orders):
    """The others are taken to give something else."""
    real = packing._is_right
    monkeypatch.setattr(packing, "_is_right", lambda order: order in orders and real(order))


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("order", PACKED, ids=named)
def test_this_torch_still_has_the_private_operations(monkeypatch, order):
    only_right(monkeypatch, order)
    assert fastest_order() is order


@pytest.mark.parametrize("order", ORDERS, ids=named)
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (300, 48), (1100, 48), (2, 5, 48), (0, 48)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_is_a_linear_layers(monkeypatch, order, shape, with_bias):
    monkeypatch.setattr(packing, "fastest_order", lambda: order)
    weight, bias = torch.randn(33, 48), torch.randn(33) if with_bias else None
    x = torch.randn(*shape)
    torch.testing.assert_close(product(weight, bias)(x), F.linear(x, weight, bias), atol=1e-4, rtol=1e-4)


@needs_onednn
@pytest.mark.parametrize("rows", [5, 16, 1024])
def test_a_product_by_onednn_takes_rows_that_lie_apart(monkeypatch, rows):
    monkeypatch.setattr(packing, "fastest_order", lambda: ONEDNN)
    weight, x = torch.randn(33, 48), torch.randn(2 * rows, 96)[::2, 48:]
    torch.testing.assert_close(product(weight)(x), F.linear(x, weight), atol=1e-4, rtol=1e-4)


@needs_onednn
def test_onednn_is_asked_for_few_numbers_of_rows(monkeypatch):
    """It keeps a kernel for each."""
    asked, real = set(), torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda x, *rest: asked.add(len(x)) or real(x, *rest)
    )
    own = packing._packed(ONEDNN, torch.randn(3, 4))
    for rows in range(1, 1200):
        assert len(own(torch.randn(rows, 4))) == rows
    assert len(asked) < 40


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_in_bf16_is_a_linear_layers_to_eight_bits(with_bias):
    weight, bias = torch.randn(33, 48), torch.randn(33) if with_bias else None
    x = torch.randn(2, 5, 48)
    found, exact = product(weight, bias, "bf16")(x), F.linear(x, weight, bias)
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert 0 < (found - exact).abs().max() < 2**-6 * exact.abs().max()


@pytest.mark.parametrize("order", ORDERS, ids=named)
@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_a_packed_layer_computes_as_before_and_keeps_no_second_copy(monkeypatch, order, precision, off):
    monkeypatch.setattr(packing, "fastest_order", lambda: order)
    layer = torch.nn.Linear(48, 33).requires_grad_(False)
    x = torch.randn(4, 48)
    before = layer(x)
    own = pack(layer, precision=precision)
    torch.testing.assert_close(layer(x), before, atol=off, rtol=off)
    assert layer.weight.shape == (33, 48)
    kept = layer.weight.untyped_storage()
    assert kept.nbytes() == 4 or kept.data_ptr() == own.matrix.untyped_storage().data_ptr()


@pytest.mark.skipif(len(PACKED) < 2, reason="one order alone in this torch")
@pytest.mark.parametrize(
    ("seconds", "found"),
    [(0.5, ONEDNN), (0.97, ONEDNN), (1.03, MKL), (2, MKL)],
    ids=["0.5", "0.97", "1.03", "2"],
)
def test_the_faster_order_is_taken(monkeypatch, seconds, found):
    """A trial beside other work takes longer, now and then: the shortest ones count."""
    taken, threads = iter(range(1000)), torch.get_num_threads()

    def fake(own, x):
        return (1 if own.order is MKL else seconds) * (7 if next(taken) % 3 else 1)

    monkeypatch.setattr(packing, "_seconds", fake)
    assert packing._faster(MKL, ONEDNN) is found
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("afresh")
def test_operations_that_give_something_else_are_not_used(monkeypatch):
    for order in ("MKL", "ONEDNN"):
        real = getattr(packing, order)
        off = dataclasses.replace(
            real, multiply=lambda x, *own, real=real: real.multiply(x, *own) + (len(x) == 7)
        )
        monkeypatch.setattr(packing, order, off)
    assert fastest_order() is None
    assert product(torch.randn(3, 4)).order is None


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("broken", ["gone", "takes something else"])
def test_operations_that_are_gone_or_take_something_else_are_not_used(monkeypatch, broken):
    def pack(weight):
        return torch.ops.mkl._gone(weight) if broken == "gone" else torch.ops.aten.add(weight)

    for order in ("MKL", "ONEDNN"):
        monkeypatch.setattr(packing, order, dataclasses.replace(getattr(packing, order), pack=pack))
    assert fastest_order() is None
