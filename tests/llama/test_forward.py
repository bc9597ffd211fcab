"""The lean forward pass: what transformers gives, for every shape of Llama that it takes, and the rest left to them."""

import copy
import logging
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pricer.llama import packing
from pricer.llama.forward import Texts, freeze, why_not
from pricer.llama.pair import LlamaPair, load_pair
from pricer.llama.predictor import Predictor
from pricer.llama.tree import Batch
from pricer.price.lattice import PriceLattice
from pricer.settings import Settings

SHAPES = {
    "GQA": {},
    "MHA": {"num_key_value_heads": 4},
    "one head for all": {"num_key_value_heads": 1},
    "wide heads": {"head_dim": 16},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "Llama 3's positions": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
    "linear positions": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
}


def tiny(tokenizer, **shape):
    """A random Llama with a random adapter on all of its linear layers."""
    torch.manual_seed(0)
    config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    model = LlamaForCausalLM(LlamaConfig(**config | shape)).eval()
    for name, parameter in model.named_parameters():
        if "bias" in name:
            parameter.data.normal_(0, 0.2)
    return adapted(model)


def adapted(model, **options):
    options = {"target_modules": "all-linear", "r": 3, "lora_alpha": 5, **options}
    lora = peft.LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options)
    return peft.get_peft_model(model, lora).eval().requires_grad_(False)


def passes(weights, peft_model, lattice, ids, rounds, which):
    """Hidden states of the prompts and of each round of nodes, by the lean pass and by transformers'."""
    lean = Texts(weights, which == "tuned", lattice, ids)
    own = Batch(peft_model.get_base_model(), lattice, ids, torch.from_numpy)
    for number, nodes in enumerate(rounds):
        with torch.inference_mode():
            mine = lean.nodes(nodes) if number else lean.prompts(nodes)
            if which == "tuned":
                theirs = own.nodes(nodes) if number else own.prompts(nodes)
            else:
                with peft_model.disable_adapter():
                    theirs = own.nodes(nodes) if number else own.prompts(nodes)
        real = nodes >= 0
        if not number:
            real = np.concatenate([np.ones((len(ids), 1), bool), real], axis=1)
        yield mine[torch.from_numpy(real)], theirs[torch.from_numpy(real)]


def rounds_of(lattice):
    """Nodes as a pass asks for them: a first round with children beside their parents, then deeper ones, of each text
    others."""
    node = dict(enumerate(lattice.price_node, start=1))
    first = np.array([[node[1], node[2], node[7], node[12]], [node[1], node[3], -1, -1]])
    second = np.array([[node[129], node[72], -1], [node[13], node[139], node[31]]])
    third = np.array([[node[721]], [-1]])
    return first, second, third


@pytest.mark.parametrize("order", [packing.MKL, packing.ONEDNN, None], ids=["MKL", "oneDNN", "plain"])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_gives_what_transformers_gives(digit_tokenizer, monkeypatch, shape, order):
    backend = {packing.MKL: torch.backends.mkl, packing.ONEDNN: torch.backends.mkldnn}.get(order)
    if backend and not backend.is_available():
        pytest.skip("not in this torch")
    monkeypatch.setattr(packing, "fastest_order", lambda: order)
    model = tiny(digit_tokenizer, **SHAPES[shape])
    lattice = PriceLattice(digit_tokenizer)
    ids = [list(range(3, 60)), [9, 30, 7, 8, 44]]
    assert why_not(model.get_base_model()) == ""
    weights = freeze(copy.deepcopy(model).get_base_model())
    for which in ("base", "tuned", "base"):
        for mine, theirs in passes(weights, model, lattice, ids, rounds_of(lattice), which):
            assert (mine - theirs).abs().max() < 2e-5


def test_in_bf16_both_passes_are_near(digit_tokenizer):
    model, lattice = tiny(digit_tokenizer, **SHAPES["GQA"]), PriceLattice(digit_tokenizer)
    weights = freeze(copy.deepcopy(model).get_base_model(), "bf16")
    ids = [list(range(3, 60)), [9, 30, 7, 8, 44]]
    for which in ("base", "tuned"):
        for mine, theirs in passes(weights, model, lattice, ids, rounds_of(lattice), which):
            assert 0 < (mine - theirs).abs().max() < 0.05 * theirs.abs().max()


@pytest.mark.parametrize("shape", ["GQA", "MHA"])
def test_a_beginning_that_was_computed_with_another_text_gives_the_same(digit_tokenizer, shape):
    weights, lattice = (
        freeze(tiny(digit_tokenizer, **SHAPES[shape]).get_base_model()),
        PriceLattice(digit_tokenizer),
    )
    whole = list(range(3, 60))
    ids, past = [[*whole[:40], 9, 30, 7], [*whole[:5], 44]], [40, 5]
    begun = Texts(weights, True, lattice, [whole])
    alone, behind = Texts(weights, True, lattice, ids), Texts(weights, True, lattice, ids, begun, past)
    with torch.inference_mode():
        begun.prompts(np.empty((1, 0), int))
        for number, nodes in enumerate(rounds_of(lattice)):
            mine, theirs = (one.nodes(nodes) if number else one.prompts(nodes) for one in (behind, alone))
            assert (mine - theirs).abs().max() < 2e-5


def test_both_ways_give_the_same_prices(tiny_env, llama3_pair):
    for pair in (load_pair(Settings.from_env(tiny_env())), llama3_pair):
        assert pair.weights is not None
        lean, plain = Predictor(pair), Predictor(LlamaPair(pair._peft_model, pair.tokenizer, pair.adapter))
        prompts = [lean.prepare(text) for text in ("a lamp", "Table, six chairs, oak. " * 12, "x")]
        for which in ("base", "tuned"):
            for mine, theirs in zip(lean.predict(prompts, which), plain.predict(prompts, which), strict=True):
                difference = mine.distribution.probabilities - theirs.distribution.probabilities
                assert np.abs(difference).max() < 1e-5


def test_the_base_gives_the_same_bits_after_the_tuned_pass(tiny_predictor):
    prompt = tiny_predictor.prepare("a lamp")
    base, tuned, again = (
        tiny_predictor.predict([prompt], which)[0].distribution.probabilities
        for which in ("base", "tuned", "base")
    )
    assert np.array_equal(base, again) and not np.allclose(base, tuned)


def test_the_base_pass_does_not_read_the_adapter(digit_tokenizer):
    model = tiny(digit_tokenizer)
    alone = copy.deepcopy(model).unload()
    lattice = PriceLattice(digit_tokenizer)
    nodes = rounds_of(lattice)[0]
    ids = [[5, 6, 7, 8], [9, 10]]
    with torch.inference_mode():
        base = Texts(freeze(model.get_base_model()), False, lattice, ids).prompts(nodes)
        bare = Texts(freeze(alone), True, lattice, ids).prompts(nodes)
    assert torch.equal(base, bare)


@pytest.mark.parametrize("shape", ["biases", "tied", "GQA"])
def test_the_model_itself_computes_with_the_packed_weights_as_it_did(digit_tokenizer, shape):
    model = tiny(digit_tokenizer, **SHAPES[shape])
    llama = model.get_base_model()
    ids = torch.arange(3, 20)[None]
    embedding = llama.model.embed_tokens.weight.clone()
    with torch.inference_mode():
        before = llama(ids).logits
        with model.disable_adapter():
            base = llama(ids).logits
        freeze(llama)
        assert (llama(ids).logits - before).abs().max() < 2e-5
        with model.disable_adapter():
            assert (llama(ids).logits - base).abs().max() < 2e-5
    assert torch.equal(llama.model.embed_tokens.weight, embedding)
    q = llama.model.layers[1].self_attn.q_proj.base_layer
    assert q.weight.shape == (q.out_features, q.in_features) and q.weight.untyped_storage().nbytes() == 4
    with pytest.raises(ValueError, match="twice"):
        freeze(llama)


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ({"hidden_act": "gelu"}, {}, "the activation gelu"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {}, "the position scaling dynamic"),
        ({}, {"use_dora": True}, "more than two matrices"),
        ({}, {"modules_to_save": ["norm"]}, "a layer of the adapter's own"),
        ({}, {"target_modules": ["embed_tokens"]}, "more than two matrices (model.embed_tokens)"),
    ],
)
def test_what_it_does_not_know_it_says(digit_tokenizer, shape, options, says):
    model = adapted(tiny(digit_tokenizer, **shape).unload(), **options)
    assert says in why_not(model.get_base_model())


def test_then_transformers_own_pass_serves_and_one_line_says_so(
    tiny_env, adapter_copy, base_copy, caplog, tiny_pair
):
    config = base_copy / "config.json"
    config.write_text(config.read_text().replace('"silu"', '"gelu"'))
    with caplog.at_level(logging.WARNING):
        pair = load_pair(Settings.from_env(tiny_env(base_model=base_copy)))
    assert [r.getMessage() for r in caplog.records if "lean forward" in r.getMessage()] == [
        "Slower than it could be: the lean forward pass does not know the activation gelu."
    ]
    assert pair.weights is None
    assert Predictor(pair).compare("a lamp").base.distribution.probabilities.sum() > 0


def test_a_text_beyond_the_tables_goes_through_transformers(tiny_pair, monkeypatch):
    predictor = Predictor(tiny_pair)
    prompt = predictor.prepare("a lamp, " * 9)
    wanted = predictor.predict([prompt], "tuned")[0].distribution.probabilities
    own = tiny_pair.weights
    monkeypatch.setattr(tiny_pair, "weights", replace(own, cos=own.cos[:20], sin=own.sin[:20]))
    started = []
    monkeypatch.setattr("pricer.llama.predictor.Texts", lambda *_: started.append(1))
    got = predictor.predict([prompt], "tuned")[0].distribution.probabilities
    assert not started and np.abs(got - wanted).max() < 1e-5
