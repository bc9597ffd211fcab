"""What a student learns of a text: neighbours' prices, moved distributions, titles alone, labels in one pass."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pricer.llama.adapter import Adapter
from pricer.llama.predictor import Predictor
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PRICES
from tests.conftest import tiny_llama
from train.neighbours import moved, neighbour_prices
from train.prompts import keep_tokens, prompt_ids
from train.quick_labels import QuickLabels
from train.recipe import Recipe
from train.rows import taught, title_copies, to_label
from train.whole import WholeModel

TEXTS = ["a lamp", "a lamp made of oak and steel", "two red cups for the garden", "drill " * 15]


def test_moved_distributions_are_the_same_at_other_prices():
    bell = np.exp(-0.5 * ((np.log(PRICES) - np.log(100)) / 0.3) ** 2)[None] / PRICES
    bell /= bell.sum()
    twice = moved(bell, np.array([np.log(2)]))
    assert twice.sum() == pytest.approx(1)
    before, after = PriceDistribution(bell), PriceDistribution(twice)
    for level in (0.1, 0.5, 0.9):
        assert float(after.quantile(level)[0]) == pytest.approx(2 * float(before.quantile(level)[0]), abs=2)
    np.testing.assert_allclose(moved(bell, np.zeros(1)), bell, atol=1e-12)
    far = moved(bell, np.array([5.0]))  # beyond $999 everything stays at the edge
    assert far.sum() == pytest.approx(1) and far[0, -1] > 0.99


def test_neighbours_are_not_of_the_own_group(tmp_path):
    rows = pd.DataFrame(
        {
            "text": [
                "oak lamp tall",
                "oak lamp tall wide",
                "steel drill",
                "steel drill strong",
                "red cup",
                "red cup big",
            ],
            "price": [10.0, 20.0, 200.0, 400.0, 5.0, 6.0],
            "weight": 1.0,
            "group": [1.0, 2.0, 3.0, 3.0, 4.0, 5.0],
        }
    )
    log_price, likeness = neighbour_prices(rows, rows[["text", "group"]], tmp_path)
    assert np.exp(log_price[0]) == pytest.approx(20, rel=0.2)
    assert np.exp(log_price[1]) == pytest.approx(10, rel=0.2)
    assert likeness[2] < 0.1 < likeness[0]  # the one that is like it is of its own group
    (kept,) = tmp_path.glob("neighbours-*.npz")
    before = kept.stat().st_mtime_ns
    again, _ = neighbour_prices(rows, rows[["text", "group"]], tmp_path)
    assert kept.stat().st_mtime_ns == before and (again == log_price).all()
    kept.write_bytes(kept.read_bytes()[:99])
    assert (neighbour_prices(rows, rows[["text", "group"]], tmp_path)[0] == log_price).all()


def test_titles_alone_are_copies_that_learn_the_whole_texts_lesson():
    rows = pd.DataFrame({"text": ["oak lamp tall\nmade of oak", "cup\nred", "steel drill set\nstrong"] * 4})
    rows = rows.assign(price=100.0, weight=1.0, part="unlabelled_rows", teacher_weight=0.7)
    rows["taught_by"], rows["title_alone"] = np.arange(12), False
    copies = title_copies(rows, 0.5, seed=0)
    assert len(copies) == 4 and set(copies["text"]) <= {
        "oak lamp tall",
        "steel drill set",
    }  # one word is no title
    both = pd.concat([rows, copies], ignore_index=True)
    assert to_label(both).tolist() == rows["text"].tolist()
    teacher = np.full((12, 999), 1 / 999)
    teacher[::3] = np.eye(999)[99]
    recipe = Recipe("b", "d", "o", loss="soft-labels", teachers=["x"], match_prices=True)
    weight = taught(both.assign(weight=0.0), teacher, np.array([100.0] * 9 + [500.0]), recipe)["weight"]
    for copy, whole in enumerate(copies["taught_by"]):
        assert weight[12 + copy] == weight[whole]
    flat = Recipe("b", "d", "o", loss="soft-labels", teachers=["x"], match_prices=True, match_texts=0)
    weight = taught(both.assign(weight=0.0), teacher, np.array([100.0]), flat)["weight"]
    assert weight.nunique() == 1


@pytest.mark.parametrize("budget", [200, 10_000])
def test_quick_labels_are_what_the_model_says_token_by_token(digit_tokenizer, budget):
    """Of $1 to $99 what is written and then ends, of $100 to $999 what is written."""
    llama = tiny_llama(digit_tokenizer, likely="0123456789", strength=3.0)
    lattice = Predictor(WholeModel(llama, digit_tokenizer, Adapter(Path(), "", "How?", 60))).lattice
    ids = prompt_ids(TEXTS, digit_tokenizer, question="How?", max_text_tokens=60)
    found = QuickLabels(llama, lattice).score(ids, budget).astype(float)
    np.testing.assert_allclose(found.sum(1), 1, atol=5e-3)  # it is kept in float16

    def following(tokens):
        with torch.no_grad():
            return llama(torch.tensor([tokens])).logits[0, -1].double().softmax(-1)

    digits = lattice.watched[lattice.digits]
    for row, prompt in enumerate(ids):
        exact = {}
        for price in (1, 7, 10, 42, 99, 100, 507, 999):
            tokens, p = prompt.tolist(), 1.0
            for token in lattice.paths[price - 1]:
                p *= float(following(tokens)[token])
                tokens.append(token)
            exact[price] = p * (1 - float(following(tokens)[digits].sum()) if price < 100 else 1)
        likeliest = max(exact, key=exact.get)
        for price, p in exact.items():
            share = found[row, price - 1] / found[row, likeliest - 1]
            assert share == pytest.approx(p / exact[likeliest], rel=5e-3, abs=1e-4)


def test_quick_labels_need_digits_one_by_one(llama3_tokenizer):
    llama = tiny_llama(llama3_tokenizer)
    predictor = Predictor(WholeModel(llama, llama3_tokenizer, Adapter(Path(), "", "How?", 60)))
    with pytest.raises(ValueError, match="digit by digit"):
        QuickLabels(llama, predictor.lattice)


def test_kept_tokens_are_the_same_and_of_this_prompt_only(digit_tokenizer, tmp_path, monkeypatch):
    prompt = {"question": "How?", "max_text_tokens": 20}
    fresh = prompt_ids(TEXTS, digit_tokenizer, **prompt)
    keep_tokens(tmp_path / "tokens.npz", TEXTS[:3], digit_tokenizer, **prompt)
    asked = []
    work_out = prompt_ids.__globals__["_work_out"]
    monkeypatch.setitem(
        prompt_ids.__globals__,
        "_work_out",
        lambda texts, *rest: asked.extend(texts) or work_out(texts, *rest),
    )
    kept = prompt_ids(TEXTS, digit_tokenizer, **prompt, kept=tmp_path / "tokens.npz")
    assert [row.tolist() for row in kept] == [row.tolist() for row in fresh]
    assert asked == TEXTS[3:]
    other = prompt_ids(
        TEXTS, digit_tokenizer, question="What?", max_text_tokens=20, kept=tmp_path / "tokens.npz"
    )
    assert asked == TEXTS[3:] + TEXTS and other[0].tolist() != fresh[0].tolist()
    torn = tmp_path / "torn.npz"
    torn.write_bytes((tmp_path / "tokens.npz").read_bytes()[:99])
    again = prompt_ids(TEXTS, digit_tokenizer, **prompt, kept=torn)
    keep_tokens(torn, TEXTS[:3], digit_tokenizer, **prompt)
    assert [row.tolist() for row in again] == [row.tolist() for row in fresh]
    assert np.load(torn)["keys"].shape == (3,)
