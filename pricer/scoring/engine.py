"""How rows are scored: the task, the columns that scoring adds, and the engine that works in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pricer.errors import InputError
from pricer.llama.base import choose_device
from pricer.llama.prediction import Prediction
from pricer.llama.predictor import Predictor, load_predictor
from pricer.price.prior import PricePrior
from pricer.scoring.store import Journal, Store
from pricer.settings import Settings
from pricer.tables.stream import Part, Source

_FIGURES = ("usd", "low_usd", "high_usd", "unpriced_mass")  # of one pass over one text


@dataclass(frozen=True)
class Task:
    """How rows are scored: the models and the price prior, the passes in the order of PASSES, and the point rule."""

    settings: Settings
    passes: tuple[str, ...]
    rule: str

    @property
    def fields(self) -> list[pa.Field]:
        """The columns that scoring adds."""
        numbers = [*(f"{which}_usd" for which in self.passes), "low_usd", "high_usd", "unpriced_mass"]
        return [*(pa.field(name, pa.float64()) for name in numbers), pa.field("text_cut", pa.bool_())]

    def check_columns(self, names: Sequence[str], file_name: str) -> None:
        """Raise InputError when a file has one of these columns already."""
        added = {field.name for field in self.fields}
        if taken := [name for name in names if name in added]:
            raise InputError(
                f"{file_name} has a column {taken[0]} already, as scoring adds one: rename or remove it."
            )


def score_texts(
    predictor: Predictor,
    texts: Sequence[str],
    task: Task,
    journal: Journal | None = None,
    on_done: Callable[[int], None] = lambda scores: None,
    prior: PricePrior | None = None,
    on_answer: Callable[[str, int, Prediction], None] = lambda which, at, prediction: None,
) -> dict[str, list]:
    """The added columns for the texts of one part, in their order. What the journal holds is not scored again;
    `on_done` is told of every batch how many scores it brought (one per text and pass), `on_answer` of every answer:
    pass, place among `texts`, and all that the model said. `prior`: another one than the predictor's."""
    journal = journal or Journal()
    prompts = [predictor.prepare(text) for text in texts]
    for which in task.passes:
        todo = [at for at in range(len(texts)) if at not in journal.done[which]]
        on_done(len(texts) - len(todo))
        for indices, predictions in predictor.predict_batches([prompts[at] for at in todo], which):
            if prior is not None:
                predictions = [prediction.under(prior) for prediction in predictions]
            places = [todo[i] for i in indices]
            for at, prediction in zip(places, predictions, strict=True):
                on_answer(which, at, prediction)
            figures = [_figures(prediction, task.rule) for prediction in predictions]
            journal.add(which, dict(zip(places, figures, strict=True)))
            on_done(len(indices))
    columns = {
        f"{which}_usd": [journal.done[which][at][0] for at in range(len(texts))] for which in task.passes
    }
    last = journal.done[task.passes[-1]]
    columns |= {
        name: [last[at][i] for at in range(len(texts))] for i, name in enumerate(_FIGURES) if name != "usd"
    }
    return columns | {"text_cut": [prompt.truncated for prompt in prompts]}


def _figures(prediction: Prediction, rule: str) -> list[float]:
    low, high = prediction.interval()
    distribution = prediction.distribution
    return [round(float(distribution.point(rule)), 2), low, high, round(float(distribution.unpriced_mass), 6)]


class PlainEngine:
    """In this process, part after part."""

    def __init__(self, task: Task):
        self.task, self.device = task, choose_device(task.settings)
        self._predictor: Predictor | None = None

    def start(self) -> None:
        self._predictor = load_predictor(self.task.settings)

    def score(
        self, source: Source, store: Store, on_done: Callable[[int], None]
    ) -> Iterator[tuple[Part, dict[str, list]]]:
        """The parts that `store` lacks with their added columns; `on_done` is told of the scores as they come."""
        for part in source.parts(store.done):
            journal = Journal(store.journal_path(part.number))
            yield part, score_texts(self._predictor, part.texts, self.task, journal, on_done)
