"""Packed products give what torch gives; where torch's private operations are gone or wrong, the plain ones serve."""

import pytest
import torch
from torch.nn import functional as F

from pricer.llama import packing
from pricer.llama.packing import can_pack, pack, product


@pytest.fixture
def afresh():
    can_pack.cache_clear()
    yield
    can_pack.cache_clear()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="no MKL in this torch")
def test_this_torch_still_has_the_private_operations():
    assert can_pack()


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (300, 48), (2, 5, 48)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_is_a_linear_layers(monkeypatch, packs, shape, with_bias):
    monkeypatch.setattr(packing, "can_pack", lambda: packs and torch.backends.mkl.is_available())
    weight, bias = torch.randn(33, 48), torch.randn(33) if with_bias else None
    x = torch.randn(*shape)
    torch.testing.assert_close(product(weight, bias)(x), F.linear(x, weight, bias), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("with_bias", [True, False])
def test_a_product_in_bf16_is_a_linear_layers_to_eight_bits(with_bias):
    weight, bias = torch.randn(33, 48), torch.randn(33) if with_bias else None
    x = torch.randn(2, 5, 48)
    found, exact = product(weight, bias, "bf16")(x), F.linear(x, weight, bias)
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert 0 < (found - exact).abs().max() < 2**-6 * exact.abs().max()


@pytest.mark.parametrize(("precision", "off"), [("fp32", 1e-5), ("bf16", 0.05)])
def test_a_packed_layer_computes_as_before_and_keeps_no_second_copy(precision, off):
    layer = torch.nn.Linear(48, 33).requires_grad_(False)
    x = torch.randn(4, 48)
    before = layer(x)
    own = pack(layer, precision=precision)
    torch.testing.assert_close(layer(x), before, atol=off, rtol=off)
    assert layer.weight.shape == (33, 48)
    kept = layer.weight.untyped_storage()
    assert kept.nbytes() == 4 or kept.data_ptr() == own.matrix.untyped_storage().data_ptr()


@pytest.mark.usefixtures("afresh")
def test_operations_that_give_something_else_are_not_used(monkeypatch):
    real = packing.Product.__call__
    monkeypatch.setattr(packing.Product, "__call__", lambda self, x: real(self, x) + (len(x) == 7))
    assert not can_pack()
    assert product(torch.randn(3, 4)).like is None


@pytest.mark.usefixtures("afresh")
def test_operations_that_take_something_else_are_not_used(monkeypatch):
    monkeypatch.setattr(packing, "_packed", lambda weight: torch.ops.aten.add(weight))
    assert not can_pack()


@pytest.mark.usefixtures("afresh")
def test_without_mkl_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not can_pack()
