"""Phrases, and predictions without each of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.deletion import nearness
from pricer.llama import predictor as asking
from pricer.llama.explain import MOST_PHRASES, leave_each_out, phrases, without
from pricer.llama.predictor import Predictor
from pricer.price.prior import load_prior
from pricer.prompt import frame, product_text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Red lamp, glass, 20 W", ["Red lamp, ", "glass, ", "20 W"]),
        (
            "Drill\nTwo gears. One case! New; boxed",
            ["Drill\n", "Two gears. ", "One case! ", "New; ", "boxed"],
        ),
        ("One word", ["One word"]),
        ("", []),
    ],
)
def test_sentences_lines_and_list_items(text, parts):
    assert [text[p.start : p.end] for p in phrases(text)] == parts


@given(st.text(alphabet="ab ,.\n", max_size=120))
@settings(max_examples=40)
def test_phrases_are_in_order_and_few(text):
    found = phrases(text)
    assert len(found) <= MOST_PHRASES
    assert all(a.end <= b.start for a, b in zip(found, found[1:], strict=False))
    assert "".join(text[p.start : p.end] for p in found).split() == text.split()


@pytest.mark.parametrize("pair", ["tiny_pair", "llama3_pair"])
@pytest.mark.parametrize("way", ["lean", "transformers"])
@pytest.mark.parametrize("which", ["base", "tuned"])
def test_a_shared_beginning_gives_the_same_distributions(request, monkeypatch, pair, way, which):
    predictor = Predictor(request.getfixturevalue(pair))
    assert predictor.pair.weights is not None
    # With the whole lattice, so that nothing else is compared than where the beginning comes from.
    monkeypatch.setattr(asking, "Alike", lambda whole, batch: predictor._growth(which, batch))
    if way == "transformers":
        monkeypatch.setattr(predictor.pair, "weights", None)
    prompt = predictor.prepare("Red lamp, of glass, 20 W, new. For a desk")
    text = product_text(prompt.text)
    parts, found = phrases(text), {}
    assert len(parts) == 5
    for indices, predictions in leave_each_out(predictor, prompt, which):
        found |= dict(zip(indices, predictions, strict=True))
    assert sorted(found) == list(range(5))
    for i, part in enumerate(parts):
        alone = predictor.prepare(without(text, [part]))
        assert alone.text == frame(without(text, [part]), predictor.pair.adapter.question)
        expected = predictor.predict([alone], which)[0]
        np.testing.assert_allclose(found[i].own.probabilities, expected.own.probabilities, atol=1e-4)


@pytest.mark.parametrize(("which", "mean", "most"), [("tuned", 0.01, 0.03), ("base", 0.02, 0.05)])
def test_few_nodes_say_nearly_the_same_price(shipped_pair, which, mean, most):
    """Of the shipped models: what is shown differs from the exact effect by that share of the price, as measured on
    listings in bench/README.md."""
    predictor = Predictor(shipped_pair, prior=load_prior("shop"))
    text = "Cordless drill, 20 V, brushless. Two batteries and a charger. Hard case with 30 bits. For wood and metal."
    off = nearness(predictor, predictor.prepare(text), which, ("log-mean", "median"))
    assert off.shape == (4, 2)
    assert (off.mean(axis=0) < mean).all() and off.max() < most
