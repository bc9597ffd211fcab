"""The lean forward pass for a card, run on the CPU in its plain way: what transformers gives, for every shape of Llama."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_forward import SHAPES, adapted, rounds_of, tiny

from pricer.llama import card, plain
from pricer.llama.base import load_base
from pricer.llama.batches import Question
from pricer.llama.card import kernels_are_near, on_card, why_not_on_card
from pricer.llama.pair import load_pair
from pricer.llama.predictor import Predictor
from pricer.llama.rows import Rows
from pricer.llama.tree import Batch
from pricer.price.lattice import PriceLattice
from pricer.settings import Settings

ROOT = Path(__file__).parents[2]
IDS = [list(range(3, 60)), [3, 4, 5, 8, 44], [3, 4, 5, 9]]
send = torch.from_numpy


def three(nodes):
    """The rounds of two texts, for three."""
    return np.concatenate([nodes, nodes[:1]])


def states(batch, rounds):
    """Hidden states of the prompts' ends and of their nodes, round by round, without those of padding."""
    states = []
    for number, nodes in enumerate(rounds):
        with torch.inference_mode():
            found, real = batch.nodes(nodes) if number else batch.prompts(nodes), nodes >= 0
        if not number:
            real = np.concatenate([np.ones((len(real), 1), bool), real], axis=1)
        assert found.shape[:2] == real.shape
        states.append(found[torch.from_numpy(real)])
    return states


@pytest.mark.parametrize("shape", SHAPES)
def test_it_gives_what_transformers_gives(digit_tokenizer, shape):
    model, lattice = tiny(digit_tokenizer, **SHAPES[shape]), PriceLattice(digit_tokenizer)
    weights = on_card(copy.deepcopy(model).get_base_model())
    rounds = [three(nodes) for nodes in rounds_of(lattice)]
    for which in ("base", "tuned", "base"):
        mine = states(Rows(weights, which == "tuned", lattice, IDS, send), rounds)
        theirs = Batch(model.get_base_model(), lattice, IDS, send)
        if which == "tuned":
            pairs = zip(mine, states(theirs, rounds), strict=True)
        else:
            with model.disable_adapter():
                pairs = zip(mine, states(theirs, rounds), strict=True)
        assert all((a - b).abs().max() < 2e-5 for a, b in pairs)


def test_the_question_is_computed_once_and_changes_nothing(digit_tokenizer):
    model, lattice = tiny(digit_tokenizer), PriceLattice(digit_tokenizer)
    weights = on_card(model.get_base_model())
    question = Question(
        lambda tuned, ids, *begun: Rows(weights, tuned, lattice, ids, send, *begun), IDS[0][:3]
    )
    rounds = [three(nodes) for nodes in rounds_of(lattice)]
    for tuned in (False, True):
        alone = states(Rows(weights, tuned, lattice, IDS, send), rounds)
        batch = question.start(tuned, IDS)
        assert batch.past.tolist() == [3, 3, 3]
        assert question.start(tuned, IDS[1:]).begun is batch.begun
        for mine, theirs in zip(states(batch, rounds), alone, strict=True):
            assert (mine - theirs).abs().max() < 2e-5
    assert question.start(True, [*IDS, [7, 7, 7, 7]]).past.tolist() == [0, 0, 0, 0]  # begins otherwise
    assert question.start(True, [IDS[0][:3]]).past.tolist() == [0]  # is no longer


def test_a_beginning_of_another_length_for_each_text_gives_the_same(digit_tokenizer):
    weights, lattice = on_card(tiny(digit_tokenizer).get_base_model()), PriceLattice(digit_tokenizer)
    whole = list(range(3, 60))
    ids, past = [[*whole[:40], 9, 30, 7], [*whole[:5], 44], [50, 51]], [40, 5, 0]
    begun = Rows(weights, True, lattice, [whole], send)
    rounds = [three(nodes) for nodes in rounds_of(lattice)]
    list(states(begun, [np.empty((1, 0), int)]))
    behind = states(Rows(weights, True, lattice, ids, send, begun, past), rounds)
    for mine, theirs in zip(behind, states(Rows(weights, True, lattice, ids, send), rounds), strict=True):
        assert (mine - theirs).abs().max() < 2e-5


@pytest.mark.parametrize("shape", ["GQA", "biases"])
def test_the_model_itself_computes_with_the_shared_matrices_as_it_did(digit_tokenizer, shape):
    model = tiny(digit_tokenizer, **SHAPES[shape])
    llama, ids = model.get_base_model(), torch.arange(3, 20)[None]
    with torch.inference_mode():
        before = llama(ids).logits
        weights = on_card(llama)
        assert (llama(ids).logits - before).abs().max() < 1e-6
    k = llama.model.layers[1].self_attn.k_proj.base_layer.weight
    assert k.untyped_storage().data_ptr() == weights.layers[1].qkv[0].weight.untyped_storage().data_ptr()


def test_layers_in_nf4_are_asked_one_by_one(digit_tokenizer):
    from bitsandbytes.nn import Linear4bit

    model = tiny(digit_tokenizer, hidden_size=64, intermediate_size=64).unload()
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    packed = Linear4bit(
                        linear.in_features, linear.out_features, bias=False, compute_dtype=torch.float32
                    )
                    packed.support_avx512bf16_for_cpu = False  # which rounds, by the shape of its input
                    packed.load_state_dict(linear.state_dict())
                    setattr(part, name, packed.to("cpu"))
    model = adapted(model)
    lattice = PriceLattice(digit_tokenizer)
    rounds = [three(nodes) for nodes in rounds_of(lattice)]
    wanted = states(Batch(model.get_base_model(), lattice, IDS, send), rounds)
    weights = on_card(model.get_base_model())
    assert len(weights.layers[0].qkv) == 3 and all(
        product.weight is None for product in weights.layers[0].gate_up
    )
    for mine, theirs in zip(states(Rows(weights, True, lattice, IDS, send), rounds), wanted, strict=True):
        assert (mine - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["llama3_pair", "tiny_pair"])
def test_a_predictor_gives_the_same_prices_and_phrases(name, request):
    """With a tokenizer of whole prices and with one of digits."""
    own = request.getfixturevalue(name)
    settings = Settings.from_env(
        {
            "PRICER_BASE_MODEL": str(own.adapter.folder.parent / "base"),
            "PRICER_ADAPTER": str(own.adapter.folder),
            "PRICER_DEVICE": "cpu",
        }
    )
    on_its_own = load_pair(settings, load_base(settings, "cpu", "fp32"))
    on_its_own.card = on_card(on_its_own.llama)
    lean, plainly = Predictor(on_its_own, in_flight=2), Predictor(own)
    prompts = [lean.prepare(text) for text in ("a lamp", "Table, six chairs, oak. " * 5, "x")]

    def same(mine, theirs):
        difference = mine.distribution.probabilities - theirs.distribution.probabilities
        return np.abs(difference).max() < 1e-5

    for which in ("base", "tuned"):
        assert all(map(same, lean.predict(prompts, which), plainly.predict(prompts, which)))
    assert lean._question.ids and lean._question._computed.keys() == {False, True}
    assert lean.work.prompt_padding == lean.work.node_padding == 0 < lean.work.known
    assert lean.log_likelihood(prompts[1]) == pytest.approx(plainly.log_likelihood(prompts[1]), abs=1e-4)
    variants = [prompts[1].text.replace(word, "", 1) for word in ("oak", "six", "chairs")]
    mine, theirs = (by_index(one.leave_out(prompts[1].text, variants, "tuned")) for one in (lean, plainly))
    assert all(same(mine[i], theirs[i]) for i in range(3))


def by_index(batches):
    return {i: found for rows, predictions in batches for i, found in zip(rows, predictions, strict=True)}


def test_a_text_beyond_the_tables_goes_through_transformers(digit_tokenizer):
    weights, lattice = on_card(tiny(digit_tokenizer).get_base_model()), PriceLattice(digit_tokenizer)
    assert weights.reach(IDS, lattice)
    assert not replace(weights, cos=weights.cos[:20]).reach(IDS, lattice)


def test_what_it_does_not_know_it_says(digit_tokenizer):
    model = tiny(digit_tokenizer).get_base_model()
    assert why_not_on_card(model) == "torch.float32 on cpu"


@pytest.fixture
def on_a_card(digit_tokenizer):
    """As much of a model as is looked at before its weights are."""
    llama = tiny(digit_tokenizer).get_base_model().bfloat16()
    return SimpleNamespace(
        device=SimpleNamespace(type="cuda"), dtype=llama.dtype, config=llama.config, model=llama.model
    )


def test_a_card_without_attention_for_texts_side_by_side_is_none_for_it(on_a_card, monkeypatch):
    monkeypatch.setattr(card, "unknown", lambda llama: "")
    assert "this card's attention" in why_not_on_card(on_a_card)


def test_kernels_that_give_something_else_are_not_used(digit_tokenizer):
    llama = tiny(digit_tokenizer).get_base_model()
    assert kernels_are_near(plain, llama)
    for name in ("gated", "turn", "join", "log_sums"):
        ways = SimpleNamespace(gated=plain.gated, turn=plain.turn, join=plain.join, log_sums=plain.log_sums)
        own = getattr(plain, name)
        setattr(
            ways,
            name,
            lambda *inputs, own=own: own(*(-one if i < 2 else one for i, one in enumerate(inputs))),
        )
        assert not kernels_are_near(ways, llama), name


def test_the_kernels_give_what_the_plain_way_gives():
    """In Triton's interpreter, where Triton is installed, as it is with torch for CUDA."""
    pytest.importorskip("triton")
    script = """
from types import SimpleNamespace as Some
import torch
from pricer.llama.card import kernels_are_near
from pricer.llama import kernels
for heads, kv_heads, width in ((9, 3, 64), (4, 4, 16), (8, 2, 128)):
    for kind in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        layers = [Some(self_attn=Some(head_dim=width))]
        config = Some(num_attention_heads=heads, num_key_value_heads=kv_heads)
        like = Some(device=torch.device("cpu"), dtype=kind, config=config, model=Some(layers=layers))
        assert kernels_are_near(kernels, like), (heads, kind)
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, check=True)
