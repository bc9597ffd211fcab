"""What a Llama does between its products, one pass over memory for each, on a card: the functions of `pricer.llama.plain`
in Triton, which comes with torch for CUDA.

Heads are as wide as a power of two. Computed in fp32, rounded once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 1024  # numbers of a row that one program takes


@triton.jit
def _gated(gate, up, out, gate_row, up_row, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    g = tl.load(gate + row * gate_row + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + row * up_row + at, mask=inside, other=0.0).to(tl.float32)
    product = g / (1.0 + tl.exp(-g)) * u
    tl.store(out + row * width + at, product.to(out.dtype.element_ty), mask=inside)


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    n, width = gate.shape
    grid = (n, triton.cdiv(width, _BLOCK))
    _gated[grid](gate, up, out, gate.stride(0), up.stride(0), width, BLOCK=_BLOCK)
    return out


@triton.jit
def _turn(
    q, k, v, cos, sin, keys, values, place, q_row, k_row, v_row,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, MANY: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    to = tl.load(place + row) * (KV * 2 * HALF)
    half = tl.arange(0, HALF)
    c = tl.load(cos + row * HALF + half).to(tl.float32)[None, :]
    s = tl.load(sin + row * HALF + half).to(tl.float32)[None, :]

    head = tl.arange(0, MANY)
    inside = (head < HEADS)[:, None]
    at = q + row * q_row + head[:, None] * (2 * HALF) + half[None, :]
    a = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(at + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(at, (a * c - b * s).to(q.dtype.element_ty), mask=inside)
    tl.store(at + HALF, (b * c + a * s).to(q.dtype.element_ty), mask=inside)

    head = tl.arange(0, FEW)
    inside = (head < KV)[:, None]
    own = head[:, None] * (2 * HALF) + half[None, :]
    a = tl.load(k + row * k_row + own, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(k + row * k_row + own + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(keys + to + own, (a * c - b * s).to(keys.dtype.element_ty), mask=inside)
    tl.store(keys + to + own + HALF, (b * c + a * s).to(keys.dtype.element_ty), mask=inside)
    a = tl.load(v + row * v_row + own, mask=inside, other=0.0)
    b = tl.load(v + row * v_row + own + HALF, mask=inside, other=0.0)
    tl.store(values + to + own, a, mask=inside)
    tl.store(values + to + own + HALF, b, mask=inside)


def turn(q, k, v, cos, sin, keys, values, place) -> torch.Tensor:
    n, heads, width = q.shape
    sizes = {"HEADS": heads, "KV": k.shape[1], "HALF": width // 2}
    padded = {"MANY": triton.next_power_of_2(heads), "FEW": triton.next_power_of_2(k.shape[1])}
    rows = (x.stride(0) for x in (q, k, v))
    _turn[(n,)](q, k, v, cos, sin, keys, values, place, *rows, **sizes, **padded)
    return q


@triton.jit(do_not_specialize=["count"])
def _join(
    found, sums, q, keys, values, seen, q_row, count, scale,
    KV: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, MANY: tl.constexpr, SEEN: tl.constexpr,
):  # fmt: skip
    row, kv = tl.program_id(0).to(tl.int64), tl.program_id(1)
    one, wide = tl.arange(0, MANY), tl.arange(0, WIDTH)
    head = kv * GROUP + one  # those that read this one's keys
    inside = one < GROUP
    both = inside[:, None] & (wide >= 0)[None, :]
    own = head[:, None] * WIDTH + wide[None, :]
    at = found + row * (KV * GROUP * WIDTH) + own
    mixed = tl.load(at, mask=both, other=0.0).to(tl.float32)
    query = tl.load(q + row * q_row + own, mask=both, other=0.0).to(tl.float32) * scale
    most = tl.load(sums + head.to(tl.int64) * count + row, mask=inside, other=0.0)
    whole = tl.full((MANY,), 1.0, tl.float32)
    for i in tl.static_range(SEEN):
        place = tl.load(seen + row * SEEN + i)
        there = tl.maximum(place, 0) * (KV * WIDTH) + kv * WIDTH + wide
        key, value = tl.load(keys + there).to(tl.float32), tl.load(values + there).to(tl.float32)
        score = tl.where(place >= 0, tl.sum(query * key[None, :], axis=1), float("-inf"))
        higher = tl.maximum(most, score)
        before, weight = tl.exp(most - higher), tl.exp(score - higher)
        mixed = mixed * before[:, None] + value[None, :] * weight[:, None]
        whole = whole * before + weight
        most = higher
    tl.store(at, (mixed / whole[:, None]).to(found.dtype.element_ty), mask=both)


def join(found, sums, q, keys, values, seen) -> torch.Tensor:
    (n, heads, width), kv_heads = q.shape, keys.shape[1]
    group = heads // kv_heads
    sizes = {"KV": kv_heads, "GROUP": group, "WIDTH": width, "SEEN": seen.shape[1]}
    _join[(n, kv_heads)](
        found, sums, q, keys, values, seen, q.stride(0), n, width**-0.5,
        **sizes, MANY=triton.next_power_of_2(group), num_warps=1,
    )  # fmt: skip
    return found


@triton.jit
def _log_sums(logits, out, stride, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    whole = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, WIDTH, BLOCK):
        at = first + lane
        x = tl.load(logits + row * stride + at, mask=at < WIDTH, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(most, x)
        level = tl.where(higher == float("-inf"), 0.0, higher)  # nothing yet: exp(-inf - 0) is 0, and not NaN
        whole = whole * tl.exp(most - level) + tl.exp(x - level)
        most = higher
    top = tl.max(most, axis=0)
    tl.store(out + row, top + tl.log(tl.sum(whole * tl.exp(most - top), axis=0)))


def log_sums(logits: torch.Tensor) -> torch.Tensor:
    out = torch.empty(len(logits), 1, dtype=torch.float32, device=logits.device)
    _log_sums[(len(logits),)](logits, out, logits.stride(0), WIDTH=logits.shape[1], BLOCK=2 * _BLOCK)
    return out
