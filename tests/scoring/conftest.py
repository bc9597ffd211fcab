"""A table to score, and the tiny pair that scores it."""

from collections import Counter

import pandas as pd
import pytest

from pricer.llama.predictor import Predictor
from pricer.scoring import engine as score
from pricer.tables import stream as table_stream
from tests.scoring.commands import words

PART_ROWS = 8


@pytest.fixture
def tiny(tiny_environment, tiny_predictor, monkeypatch):
    """Parts of eight rows, and the tiny pair without loading it again."""
    monkeypatch.setattr(score, "load_predictor", lambda settings: tiny_predictor)
    monkeypatch.setattr(table_stream, "PART_ROWS", PART_ROWS)


@pytest.fixture
def goods(tmp_path):
    """A CSV of 20 rows: an id, a text and a note."""
    path = tmp_path / "in.csv"
    pd.DataFrame({"id": range(20), "text": words(20), "note": "x"}).to_csv(path, index=False)
    return path


@pytest.fixture
def scored(monkeypatch):
    """Counts (pass, prompt) of every forward pass whose result was taken."""
    count, batches = Counter(), Predictor.predict_batches

    def spy(self, prompts, which):
        for indices, answers in batches(self, prompts, which):
            yield indices, answers
            count.update((which, prompts[i].text) for i in indices)

    monkeypatch.setattr(Predictor, "predict_batches", spy)
    return count
