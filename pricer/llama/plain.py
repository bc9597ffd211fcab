"""What a Llama does between its products, in plain PyTorch: for a CPU, and where the kernels of `pricer.llama.kernels`, which
give the same in fewer passes over memory, do not run."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, each (n, inner). gate may be written over."""
    return F.silu(gate, inplace=True).mul_(up)


def turn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    place: torch.Tensor,
) -> torch.Tensor:
    """q (n, heads, width) turned by position; k, turned, and v (n, kv_heads, width) go to the rows `place` (n) of keys and
    values. cos, sin: (n, width / 2). q may be written over."""
    keys.index_copy_(0, place, _turned(k, cos, sin))
    values.index_copy_(0, place, v)
    return _turned(q, cos, sin)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def join(
    found: torch.Tensor,
    sums: torch.Tensor,
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    seen: torch.Tensor,
) -> torch.Tensor:
    """What n tokens took from the keys that they saw first, `found` (n, heads, width), with the logarithms of those weights'
    sums, `sums` (heads, n); and with what they take from a few more: rows `seen` (n, few) of keys and values, -1 for none.
    found may be written over."""
    n, heads, width = q.shape
    own, kind = seen.clamp(min=0), found.dtype
    k, v = (part[own].float() for part in (keys, values))  # (n, few, kv_heads, width)
    q = q.float().view(n, k.shape[2], -1, width)
    scores = torch.einsum("nkgw,nfkw->nkgf", q, k) * width**-0.5
    scores.masked_fill_((seen < 0)[:, None, None], -torch.inf)
    sums = sums.t().reshape(n, k.shape[2], -1, 1)
    most = torch.maximum(sums, scores.amax(-1, keepdim=True))
    before, weights = (sums - most).exp(), (scores - most).exp()
    mixed = found.float().view_as(q) * before + torch.einsum("nkgf,nfkw->nkgw", weights, v)
    return (mixed / (before + weights.sum(-1, keepdim=True))).view(n, heads, width).to(kind)


def log_sums(logits: torch.Tensor) -> torch.Tensor:
    """log sum exp of each row, (n, vocabulary) -> (n, 1) in fp32."""
    return logits.float().logsumexp(-1, keepdim=True)


def attend(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    q_ends: torch.Tensor,
    k_ends: torch.Tensor,
    most_q: int,
    most_k: int,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention within each of several texts that lie one behind the other, without padding.

    q: (n, heads, width); keys, values: (m, kv_heads, width); q_ends, k_ends: (1 + texts), where each begins and the last
    ends; most_q, most_k: of one text, at most. causal: a text's last token sees all of its keys, the one before it all but
    one, and so on. Gives what each token takes, (n, heads, width), and the logarithms of its weights' sums, (heads, n)."""
    found, sums = torch.empty_like(q), q.new_empty(q.shape[1], len(q), dtype=torch.float32)
    group = q.shape[1] // keys.shape[1]
    q_ends, k_ends = q_ends.tolist(), k_ends.tolist()
    for i in range(len(q_ends) - 1):
        own, theirs = slice(q_ends[i], q_ends[i + 1]), slice(k_ends[i], k_ends[i + 1])
        k, v = (x[theirs].repeat_interleave(group, dim=1).transpose(0, 1).float() for x in (keys, values))
        scores = q[own].transpose(0, 1).float() @ k.transpose(1, 2) * q.shape[-1] ** -0.5
        if causal:
            here, there = scores.shape[1:]
            sees = torch.ones(here, there, dtype=torch.bool, device=q.device).tril(there - here)
            scores.masked_fill_(~sees, -torch.inf)
        sums[:, own] = scores.logsumexp(-1)
        found[own] = (scores.softmax(-1) @ v).transpose(0, 1).to(found.dtype)
    return found, sums
