"""The output layer in parts gives what the whole gives, nearly, and each text what it gives alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pricer.llama import head as head_module
from pricer.llama.forward import EVERY
from pricer.llama.head import Head
from pricer.llama.packing import product
from pricer.llama.plain import log_sums
from pricer.price.lattice import PriceLattice

VOCABULARY, WIDTH = 4096, 24


@pytest.fixture
def asked(digit_tokenizer, monkeypatch):
    """A head whose vocabulary's first tokens are the tokenizer's, one of the whole, and the rows the first was asked for."""
    monkeypatch.setattr(head_module, "LIKELIEST", 256)
    torch.manual_seed(0)
    embedding, rows = torch.randn(VOCABULARY, WIDTH), []
    lattice = PriceLattice(digit_tokenizer)
    weights = SimpleNamespace(embedding=embedding, tied=True, some=product(embedding[::EVERY].contiguous()))
    whole = product(embedding)

    def lm_head(hidden):
        rows.append(hidden.numel() // WIDTH)
        return whole(hidden)

    def make(**changed):
        given = SimpleNamespace(**vars(weights) | changed)
        return head(lm_head, given)

    def head(own, given=None):
        llama = SimpleNamespace(lm_head=own, config=SimpleNamespace(vocab_size=VOCABULARY))
        return Head(llama, log_sums, lattice, torch.from_numpy(lattice.watched), given)

    return make, head(whole), rows, lattice


def rounds(lattice, texts):
    """(nodes, hidden): the first round, and further nodes, of every other text fewer. A text's states are alike."""
    first = np.tile(np.concatenate([[0], lattice.first, lattice.samples]), (texts, 1))
    later = np.tile(lattice.price_node[[128, 198, 298]], (texts, 1))
    later[::2, 1:] = -1
    own = torch.randn(texts, 1, WIDTH)
    for nodes in (first, later):
        yield nodes, own + 0.3 * torch.randn(*nodes.shape, WIDTH)


def test_parts_give_nearly_what_the_whole_gives_and_ask_the_whole_for_few_nodes(asked):
    make, whole, rows, lattice = asked
    head = make()
    for nodes, hidden in rounds(lattice, 3):
        found, wanted = head(hidden, nodes), whole(hidden, nodes)
        real = torch.from_numpy(nodes >= 0)
        assert found.shape == wanted.shape and (found[~real] == 0).all()
        off = (found - wanted)[real].abs() / wanted[real].amax(-1, keepdim=True)
        assert off.max() < 0.05 and off.mean() < 0.005
    assert sum(rows) == 3 * (1 + 9 + len(lattice.samples))


def test_a_text_gets_in_a_batch_what_it_gets_alone(asked, monkeypatch):
    make, _, _, lattice = asked
    given = list(rounds(lattice, 3))
    monkeypatch.setattr(head_module, "_LOGITS", 1)
    together = make()
    alone = [make() for _ in range(3)]
    for nodes, hidden in given:
        found = together(hidden, nodes)
        for text, own in enumerate(alone):
            mine = own(hidden[text : text + 1], nodes[text : text + 1])[0]
            torch.testing.assert_close(found[text], mine, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_asked_in_parts_is_asked_as_a_whole(asked):
    make, whole, _, lattice = asked
    head = make(tied=False)
    for nodes, hidden in rounds(lattice, 1):
        assert torch.equal(head(hidden, nodes), whole(hidden, nodes))
