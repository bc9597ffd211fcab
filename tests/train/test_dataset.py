"""Rows to batches: the labels of a price, soft targets, weights, the order of rows, and the loss."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.train.commands import prose, recipe
from train.dataset import PriceCollator, build_dataset, price_loss, row_weights
from train.recipe import LOSSES
from train.trainer import EpochSampler, PriceTrainer


@pytest.mark.parametrize("batch", [0, 4])
def test_the_order_of_rows_follows_from_seed_and_epoch(batch):
    lengths = [10 + i * 7 % 90 for i in range(64)]

    def order(seed, epoch):
        sampler = EpochSampler(lengths, batch, seed)
        sampler.epoch = epoch
        return list(sampler)

    assert sorted(order(0, 0)) == list(range(64))
    torch.manual_seed(99)
    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6
    if batch:  # texts of like length lie together
        spread = [np.ptp([lengths[i] for i in order(0, 0)[k : k + 4]]) for k in range(4, 64, 4)]
        assert np.mean(spread) < 20


# Batches --------------------------------------------------------------------------------------------------

PRICES_USD = [1.0, 7.4, 12.5, 88.0, 129.99, 500.0, 999.0, 0.5, 4000.0]


def batch_of(tokenizer, prices_usd=PRICES_USD, **fields):
    chosen = recipe(**fields)
    rows = pd.DataFrame({"text": [prose(i, 3 + i) for i in range(len(prices_usd))], "price": prices_usd})
    dataset = build_dataset(rows, row_weights(rows, None, chosen), tokenizer, chosen)
    assert len(dataset) == len(rows)
    collator = PriceCollator(tokenizer, chosen)
    return (
        collator,
        [dataset[i] for i in range(len(dataset))],
        collator([dataset[i] for i in range(len(dataset))]),
    )


@pytest.mark.parametrize("name", ["digit_tokenizer", "llama3_tokenizer"])
def test_labels_spell_the_price(request, name):
    tokenizer = request.getfixturevalue(name)
    collator, rows, batch = batch_of(tokenizer, loss="cross-entropy", tail_weight=0.25)
    assert len(batch["input_ids"]) == len(PRICES_USD)
    wanted = [1, 7, 12, 88, 130, 500, 999, 1, 999]
    for r, (row, usd) in enumerate(zip(rows, wanted, strict=True)):
        written = batch["labels"][r][batch["labels"][r] != -100].tolist()
        assert tokenizer.decode(written[:-1]) == f"{usd}.00"
        assert written[-1] == tokenizer.eos_token_id
        real = batch["input_ids"][r][batch["attention_mask"][r].bool()].tolist()
        assert real == [*row["input_ids"], *written]
        assert batch["input_ids"][r].tolist()[: len(real)] == real  # padding is behind it
        foretold = batch["input_ids"][r][batch["at"][r][: len(written)] + 1].tolist()
        assert foretold == written
        digits = len(collator.lattice.paths[usd - 1])
        weight = batch["label_weight"][r][: len(written)].tolist()
        assert weight == [1.0] * (digits + 1) + [0.25] * (len(written) - digits - 1)


def test_soft_targets_are_the_bells_shares(digit_tokenizer):
    torch.manual_seed(0)
    width = 0.3
    collator, _, batch = batch_of(digit_tokenizer, loss="soft-labels", soft_label_width=width)
    spelled = [digit_tokenizer.decode([int(column)]) for column in collator.columns]
    for r, usd in enumerate(PRICES_USD):
        centre = min(max(usd, 1), 999)
        bell = {n: math.exp(-0.5 * (math.log(n / centre) / width) ** 2) / n for n in range(1, 1000)}
        labels = batch["labels"][r]
        taught = digit_tokenizer.decode(labels[labels != -100][:-1].tolist()).removesuffix(".00")
        for depth in range(len(taught) + 1):
            share = {}
            for n, mass in bell.items():
                if str(n).startswith(taught[:depth]):
                    following = f"{n}."[depth]
                    share[following] = share.get(following, 0.0) + mass
            total = sum(share.values())
            got = dict(zip(spelled, batch["soft"][r, depth].tolist(), strict=True))
            assert sum(got.values()) == pytest.approx(1, abs=1e-5)
            assert got == pytest.approx({s: share.get(s, 0.0) / total for s in spelled}, abs=1e-5)
        assert not batch["soft"][r, len(taught) + 1 :].any()  # only the digits' places are soft


def test_soft_labels_teach_the_bell(digit_tokenizer):
    """The drawn prices are spread as the bell says: their mean log price is the bell's."""
    collator, rows, batch = batch_of(digit_tokenizer, [100.0] * 400, loss="soft-labels", soft_label_width=0.2)
    drawn = [
        float(digit_tokenizer.decode(labels[labels != -100][:-1].tolist())) for labels in batch["labels"]
    ]
    bell = collator.target(rows[:1])[0]
    expected = float((bell * np.log(np.arange(1, 1000))).sum())
    assert np.mean(np.log(drawn)) == pytest.approx(expected, abs=5 * 0.2 / math.sqrt(400))
    torch.manual_seed(99)  # what is drawn hangs on the epoch, and on nothing else
    assert torch.equal(collator(rows)["labels"], batch["labels"])
    collator.epoch = 1
    assert not torch.equal(collator(rows)["labels"], batch["labels"])


def test_the_seeds_loss_is_that_of_a_completion_only_collator(llama3_pair):
    """transformers' own loss over labels that begin behind 'Price is $' and have no end token."""
    tokenizer = llama3_pair.tokenizer
    collator, _, batch = batch_of(tokenizer, loss="completion", tail_weight=1.0)
    labels = torch.full_like(batch["input_ids"], -100)
    for r, usd in enumerate((1, 7, 12, 88, 130, 500, 999, 1, 999)):
        end = int(batch["attention_mask"][r].sum())
        assert tokenizer.decode(batch["input_ids"][r, end - 3 : end]) == f"{usd}.00"
        labels[r, end - 3 : end] = batch["input_ids"][r, end - 3 : end]
    with llama3_pair.use("tuned") as llama:
        wanted = llama(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels)
    got = trainers_loss(llama3_pair, collator, batch)
    assert collator.positions == 3
    assert got == pytest.approx(float(wanted.loss), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["tiny_pair", "llama3_pair"])
def test_padding_changes_no_loss(request, name, loss):
    """Against each row by itself, through the whole model, and against padding on the left behind a mask."""
    pair = request.getfixturevalue(name)
    collator, rows, batch = batch_of(pair.tokenizer, loss=loss)
    columns = torch.from_numpy(collator.columns)
    assert (batch["attention_mask"] == 0).any()
    alone, left = [], []
    for row in rows:
        one = collator([row])
        with pair.use("tuned") as llama:
            logits = llama(input_ids=one["input_ids"]).logits[:, one["at"][0]]
            padding = torch.zeros_like(one["input_ids"][:, :5])
            logits_left = llama(
                input_ids=torch.cat([padding, one["input_ids"]], dim=1),
                attention_mask=torch.cat([padding, one["attention_mask"]], dim=1),
            ).logits[:, one["at"][0] + 5]
        alone.append(float(price_loss(logits, one, columns)))
        left.append(float(price_loss(logits_left, one, columns)))
    got = trainers_loss(pair, collator, batch)
    assert got == pytest.approx(np.mean(alone), abs=1e-5)
    assert got == pytest.approx(np.mean(left), abs=1e-5)


def trainers_loss(pair, collator, batch) -> float:
    """What PriceTrainer makes of a batch, without a trainer around it."""
    with pair.use("tuned") as llama:
        trainer = SimpleNamespace(model=llama, columns=torch.from_numpy(collator.columns))
        return float(PriceTrainer.compute_loss(trainer, llama, batch))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "completion"])
def test_price_loss_by_hand(digit_tokenizer, loss):
    torch.manual_seed(0)
    collator, _, batch = batch_of(digit_tokenizer, loss=loss, tail_weight=0.5)
    logits = torch.randn(len(PRICES_USD), collator.positions, len(digit_tokenizer))
    total = 0.0
    for r in range(len(PRICES_USD)):
        for k in range(collator.positions):
            if batch["labels"][r, k] == -100:
                continue
            scores = logits[r, k].double().numpy()
            logp = scores - math.log(np.exp(scores).sum())
            if loss == "soft-labels" and batch["soft"][r, k].any():
                nats = -sum(
                    p * logp[c] for p, c in zip(batch["soft"][r, k].tolist(), collator.columns, strict=True)
                )
            else:
                nats = -logp[int(batch["labels"][r, k])]
            total += float(batch["label_weight"][r, k]) * nats
    got = price_loss(logits, batch, torch.from_numpy(collator.columns))
    assert float(got) == pytest.approx(total / len(PRICES_USD), rel=1e-5)


def test_row_weights():
    rows = pd.DataFrame(
        {"price": [10.0] * 90 + [400.0] * 10, "target_like": [False, True] * 50, "weight": [1.0] * 100}
    )
    target = np.array([400.0] * 50 + [10.0] * 50)
    plain = row_weights(rows.drop(columns="target_like"), target, recipe())
    assert plain.tolist() == [1.0] * 100
    matched = row_weights(rows, target, recipe(match_prices=True, target_like_weight=2.0))
    assert matched.mean() == pytest.approx(1)
    assert (matched > 0).all()
    assert matched[90:].mean() > matched[:90].mean()
    assert matched[1] == pytest.approx(2 * matched[0])
