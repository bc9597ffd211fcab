"""A live run on a tiny model: what it scores is what a plain prediction says, and a stop loses nothing."""

import threading

import numpy as np
import pandas as pd
import pytest

from pricer.arena.live import live_info, score_live
from pricer.arena.runs import Run, save_run
from pricer.errors import InputError
from pricer.scoring.engine import Task
from pricer.settings import PASSES

TEXTS = ["Cordless drill with case", "Phone case", "Brake pads for sedans, front axle", "Guitar", "Desk lamp"]


@pytest.fixture
def items():
    prices = [89.0, 9.5, 44.0, 310.0, 25.0]
    return pd.DataFrame({"index": [7, 3, 11, 5, 2], "text": TEXTS, "price_usd": prices})


@pytest.fixture
def task(tiny_settings, tiny_predictor):
    return Task(tiny_settings, PASSES, tiny_predictor.rule)


def test_scores_what_a_plain_prediction_says(tiny_predictor, items, task):
    *_, last = score_live(tiny_predictor, items, task)
    assert (last.done, last.total, last.seconds_left) == (5, 5, 0)
    for which in PASSES:
        table = last.tables[which].set_index("index")
        assert list(table.index) == [2, 3, 5, 7, 11]
        for index, text, price_usd in items.itertuples(index=False):
            plain = tiny_predictor.predict([tiny_predictor.prepare(text)], which)[0]
            # In a batch with longer texts the same sums are added up in another order.
            assert table["guess_usd"][index] == pytest.approx(
                float(plain.distribution.point(tiny_predictor.rule)), abs=0.02
            )
            assert (table["low_usd"][index], table["high_usd"][index]) == plain.interval()
            assert table["crps_usd"][index] == pytest.approx(
                float(plain.distribution.crps(price_usd)), abs=0.01
            )


def test_points_appear_one_after_the_other_and_both_passes_keep_step(tiny_predictor, items, task):
    steps = list(score_live(tiny_predictor, items, task, step_seconds=0.0))
    assert [step.done for step in steps] == [1, 2, 3, 4, 5]  # no time for more than one in a step
    for step in steps:
        done = sorted(items["index"][: step.done])
        assert [list(step.tables[which]["index"]) for which in PASSES] == [done, done]
    assert all(step.seconds_left > 0 for step in steps[:-1])


def test_a_fast_model_gets_larger_batches(tiny_predictor, items, task):
    many = pd.concat([items.assign(index=items["index"] + 100 * i) for i in range(8)], ignore_index=True)
    steps = list(score_live(tiny_predictor, many, task, step_seconds=60.0))
    assert [step.done for step in steps] == [1, 5, 21, 40]


def test_a_stop_keeps_what_is_done(tiny_predictor, items, task):
    stop, steps = threading.Event(), []
    for step in score_live(tiny_predictor, items, task, stop=stop, step_seconds=0.0):
        steps.append(step)
        if step.done == 2:
            stop.set()
    assert [step.done for step in steps] == [1, 2]
    assert [list(table["index"]) for table in steps[-1].tables.values()] == [[3, 7], [3, 7]]


def test_a_stop_before_the_first_item_and_a_closed_page(tiny_predictor, items, task):
    stop = threading.Event()
    stop.set()
    assert list(score_live(tiny_predictor, items, task, stop=stop)) == []
    running = score_live(tiny_predictor, items, task, step_seconds=0.0)
    next(running)
    running.close()  # as when the visitor leaves
    assert next(score_live(tiny_predictor, items, task)).done == 1  # the model is free again


def test_nothing_is_scored_when_a_text_cannot_be_used(tiny_predictor, items, task):
    with pytest.raises(InputError, match="no text yet"):
        next(score_live(tiny_predictor, items.assign(text=[*TEXTS[:4], "  "]), task))
    with pytest.raises(InputError, match="at least one"):
        next(score_live(tiny_predictor, items.head(0), task))


def test_the_result_is_a_run_that_names_no_path(tiny_predictor, tiny_settings, items, task, tmp_path):
    *_, last = score_live(tiny_predictor, items, task)
    for which in PASSES:
        info = live_info(tiny_settings, which, name=f"own-{which}", label="tiny, live", rule="median")
        assert save_run(
            tmp_path, Run(info, last.tables[which])
        ).is_file()  # every column is what a run may hold
        assert "/" not in f"{info.base_model} {info.adapter}"
        assert (info.adapter is None) == (which == "base")
    assert np.isfinite(last.tables["base"].to_numpy(float)).all()
