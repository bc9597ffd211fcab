"""Scoring while somebody waits: the engine's figures in steps, a stop, and others who get the model in between."""

import threading

import pytest

from pricer.scoring.engine import Task, score_texts
from pricer.scoring.steps import score_in_steps
from pricer.settings import PASSES

TEXTS = [f"Lamp {'made of wood ' * (n % 5)}" for n in range(12)]


@pytest.fixture(scope="module")
def task(tiny_settings):
    return Task(tiny_settings, PASSES, "median")


def test_steps_have_the_engines_figures(tiny_predictor, task):
    *_, last = steps = list(score_in_steps(tiny_predictor, TEXTS, task, step_seconds=0.05))
    assert steps[0].done == 1 and len(steps) > 2 and last.done == last.total == len(TEXTS)
    assert last.seconds_left == 0 < steps[0].seconds_left
    for name, values in score_texts(tiny_predictor, TEXTS, task).items():
        assert last.columns[name] == pytest.approx(values, abs=0.011), name
        assert steps[0].columns[name] == last.columns[name][:1]  # what was shown does not change


def test_a_stop_keeps_what_is_done(tiny_predictor, task):
    stop, seen = threading.Event(), []
    for step in score_in_steps(tiny_predictor, TEXTS, task, stop=stop, step_seconds=0.01):
        seen.append(step.done)
        if step.done >= 3:
            stop.set()
    assert 3 <= seen[-1] < len(TEXTS)
    assert list(score_in_steps(tiny_predictor, TEXTS, task, stop=stop)) == []


def test_a_single_question_does_not_wait_behind_a_whole_batch(tiny_predictor, task):
    """It asks while the batch has the model, and has its answer before the batch is at its end."""
    begun, done = threading.Event(), threading.Event()

    def batch():
        for _ in score_in_steps(tiny_predictor, TEXTS * 20, task, stop=done, step_seconds=0.01):
            begun.set()

    thread = threading.Thread(target=batch)
    thread.start()
    try:
        assert begun.wait(60)
        for _ in range(3):
            tiny_predictor.compare("a single lamp")
        assert thread.is_alive()
    finally:
        done.set()
        thread.join(60)
