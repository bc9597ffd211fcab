"""What a trained model says of very many texts: one forward pass each, nothing on the CPU.

`pricer.llama.predictor` follows a lattice round by round and asks whether three-digit numbers end, since a base may go on to
thousands. A model that was trained on prices up to $999 does not, so for labels that question is left out: every node of $1
to $99 goes through the model behind the prompt, three digits are a whole price, and the sums are done on the card.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LlamaForCausalLM

from pricer.llama.batches import token_batches
from pricer.price.lattice import PRICES, ROOT, PriceLattice


class QuickLabels:
    """Distributions over whole dollars, given that a price is spelled.

    Raises ValueError for a tokenizer that does not write prices digit by digit.
    """

    def __init__(self, llama: LlamaForCausalLM, lattice: PriceLattice):
        if len(lattice.first) != 99 or any(
            len(path) != len(str(n)) for n, path in enumerate(lattice.paths, 1)
        ):
            raise ValueError("quick labels are for tokenizers that write prices digit by digit")
        self.llama, device = llama, llama.device
        digit = np.array([lattice.paths[d - 1][0] for d in range(1, 10)])  # tokens of 1..9
        zero = lattice.paths[9][1]
        self.digits = torch.tensor([zero, *digit], device=device)
        self.goes_on = torch.tensor(
            lattice.watched[lattice.digits], device=device
        )  # all that begin with a digit
        # Nodes in the order $1 .. $99: their tokens, depths, and which of each other they see.
        order = {int(lattice.price_node[n - 1]): n - 1 for n in range(1, 100)}
        nodes = sorted(order, key=order.get)
        sees = np.eye(99, dtype=bool)
        for k, node in enumerate(nodes):
            parent = int(lattice.parent[node])
            if parent != ROOT:
                sees[k, order[parent]] = True
        self.token = torch.tensor(lattice.token[nodes], device=device)
        self.depth = torch.tensor(lattice.depth[nodes], device=device)
        self.sees = torch.tensor(sees, device=device)

    @torch.inference_mode()
    def batch(self, ids: Sequence[np.ndarray]) -> torch.Tensor:
        """(batch, 999) float32 on the device."""
        device, lengths = self.llama.device, torch.tensor([len(row) for row in ids])
        width = int(lengths.max())
        width += -(width + 99) % 8  # which attention's kernel wants
        tokens = torch.zeros(len(ids), width, dtype=torch.long)
        for r, row in enumerate(ids):
            tokens[r, : len(row)] = torch.from_numpy(np.asarray(row, np.int64))
        tokens, lengths = tokens.to(device), lengths.to(device)
        size = width + 99
        mask = torch.zeros(len(ids), size, size, dtype=torch.bool, device=device)
        mask[:, :width, :width] = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        mask[:, width:, :width] = (torch.arange(width, device=device) < lengths[:, None])[:, None]
        mask[:, width:, width:] = self.sees
        hidden = self.llama.model(
            input_ids=torch.cat([tokens, self.token.expand(len(ids), -1)], dim=1),
            position_ids=torch.cat(
                [torch.arange(width, device=device).expand(len(ids), -1), lengths[:, None] - 1 + self.depth],
                dim=1,
            ),
            attention_mask=mask[:, None],
            use_cache=False,
        ).last_hidden_state
        at = (lengths - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        hidden = torch.cat([hidden.gather(1, at), hidden[:, width:]], dim=1)
        logits = self.llama.lm_head(hidden).float()
        logits -= logits.logsumexp(-1, keepdim=True)
        digit, goes_on = logits[..., self.digits].exp(), logits[..., self.goes_on].exp().sum(-1)
        one = digit[:, 0, 1:]  # (batch, 9) P of $1 .. $9 and what begins so
        two = (one[..., None] * digit[:, 1:10]).flatten(1)  # 10 .. 99
        three = (two[..., None] * digit[:, 10:]).flatten(1)  # 100 .. 999
        reach = torch.cat([one, two], dim=1)
        found = torch.cat([reach * (1 - goes_on[:, 1:]).clamp(min=0), three], dim=1)
        assert found.shape[1] == len(PRICES)
        return found / found.sum(-1, keepdim=True)

    def score(self, ids: Sequence[np.ndarray], budget: int) -> np.ndarray:
        """(texts, 999) float16, in order; at most `budget` tokens at once, with the nodes'."""
        out = np.zeros((len(ids), len(PRICES)), np.float16)
        for some in token_batches([len(row) + 99 for row in ids], budget):
            out[some] = self.batch([ids[i] for i in some]).half().cpu().numpy()
        return out
