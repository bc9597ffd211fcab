"""The app under load, as bench/load.py puts it: a tiny model, twenty clients, a few seconds."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bench import load
from pricer.settings import Limits

CLIENTS, SECONDS, QUEUE = 20, 4, 8


def put_load(*arguments):
    """In a thread of its own: where browser tests ran before, this one has an event loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(load.put_load(*arguments))).result()


TEXTS = [f"Lamp {'made of wood ' * (n % 7)}in {n} sizes" for n in range(CLIENTS)]


@pytest.fixture(scope="module")
def app(tiny_model_folder):
    variables = (
        {name: "" for name in os.environ if name.startswith("PRICER_")}
        | {
            "PRICER_BASE_MODEL": str(tiny_model_folder / "base"),
            "PRICER_ADAPTER": str(tiny_model_folder / "adapter"),
            "PRICER_DEVICE": "cpu",
            "PRICER_QUEUE": str(QUEUE),
            "PRICER_PRIOR": "benchmark",  # what the adapter is taken to be trained under: answers as the model gives them
        }
    )
    with load.running_app(**variables) as running:
        yield running


def test_every_request_gets_its_own_answer_or_a_sentence_and_memory_is_bounded(app, tiny_predictor):
    url, process, log = app
    found = put_load(url, load.orders_of(CLIENTS, tiny_predictor), SECONDS, process)
    expected = load.expected_answers(tiny_predictor, (one.text for one in found.answered))
    found.check(expected)
    assert found.complaints() == []
    new = [one.text for one in found.answered if one.new]
    assert len(new) == len(set(new)) and 0 < len(new) < len(found.answered)
    for new_ones in (True, False):  # how fast is the benchmark's to say
        assert 0 < found.percentile(50, new_ones) <= found.percentile(95, new_ones)
    assert found.refused and found.refusals
    assert all("try again in" in sentence for sentence in found.refusals)
    assert "Traceback" not in log.read_text()
    row = load.table(found, "tiny", CLIENTS, SECONDS).splitlines()[-1]
    assert f"| {len(found.answered)} | {len(new)} | {found.refused} | 0 | 0 |" in row


def test_answers_that_are_mixed_up_would_be_noticed(tiny_predictor):
    expected = load.expected_answers(tiny_predictor, TEXTS)
    answers = list(expected.values())
    found = load.Load([load.Answered(0, t, True, a, 1.0) for t, a in zip(TEXTS, answers, strict=True)])
    found.check(expected)
    assert found.complaints() == []
    mixed_up = dict(zip(TEXTS, answers[1:] + answers[:1], strict=True))
    found.check(mixed_up)
    assert "another text" in found.complaints()[0]


def test_memory_that_grows_would_be_noticed():
    level, step, answer = 600_000_000, 1_000_000, load.Answered(0, "a lamp", True, {}, 1.0)
    flat = load.Load(answered=[answer], memory=[level + step * (i % 3) for i in range(200)])
    begun = load.Load(answered=[answer], memory=[level // 2, *[level] * 199])  # only at the start
    growing = load.Load(answered=[answer], memory=[level + step * i for i in range(200)])
    assert flat.complaints() == begun.complaints() == []
    assert growing.complaints() == ["memory grew by 100 MB"]
    assert np.isnan(load.Load().grown[0]) and load.Load().complaints() == ["no request was answered"]


def test_one_visitor_cannot_fill_the_queue():
    limits = Limits()
    assert 0 < limits.requests_per_minute < limits.queue
