"""The benchmark of a card still runs: its load on a tiny pair, its answers held against direct predictions."""

import copy
from dataclasses import replace
from itertools import islice

import pytest

from bench import card
from bench.load import orders_of
from pricer.llama.shared import SharedPredictor


@pytest.fixture(scope="module")
def visited(llama3_pair):
    return card.Visited(llama3_pair)


@pytest.fixture(scope="module")
def loaded(visited):
    orders = [islice(texts, 4) for texts in orders_of(3, visited, 2)]  # a new one and a repeated one, twice
    return card.put_load(SharedPredictor(visited), orders, 300)


def test_every_client_is_answered_and_the_answers_are_those_of_its_text(loaded, visited):
    assert {one.client for one in loaded.answered} == {0, 1, 2} and not loaded.failed
    assert {one.new for one in loaded.answered} == {True, False}
    card.check(loaded, visited)
    assert not loaded.wrong


def test_an_answer_with_another_price_is_wrong(loaded, visited):
    one = loaded.answered[0]
    other = copy.deepcopy(one.answer)
    other["base"]["rules"]["mean"] *= 1.05
    load = card.Load(answered=[one, replace(one, answer=other)])
    card.check(load, visited)
    assert len(load.wrong) == 1


def test_one_that_is_lost_is_counted(visited):
    class Broken:
        def compare(self, text):
            raise RuntimeError("gone")

    load = card.put_load(Broken(), [iter([("a lamp", True), ("a chair", True)])], 60)
    assert not load.answered and load.failed == ["client 0: RuntimeError: gone"] * 2


def test_a_part_that_fails_is_said_and_keeps_none_of_the_others(capsys):
    assert not card.attempt("load", lambda: 1 / 0) and card.attempt("growth", lambda: None)
    assert "load FAILED" in capsys.readouterr().out
