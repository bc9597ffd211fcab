"""What the Compare tab answers, and how it is read: numbers and sentences, no HTML and no Gradio."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from pricer.errors import InputError
from pricer.llama.prediction import Prediction
from pricer.llama.product import ProductCheck
from pricer.llama.shared import Place, SharedPredictor
from pricer.price.calibration import Calibration
from pricer.price.distribution import DEFAULT_RULE, INTERVAL_LEVEL, PriceDistribution
from pricer.price.named import named_prices, without_prices
from pricer.price.prior import PricePrior
from pricer.price.sureness import sureness
from pricer.prompt import Prompt, product_text
from pricer.settings import ASSETS
from pricer.tables.cells import read_price
from pricer.ui.compare import text as words
from pricer.ui.parts import percent

NAMED_CHARS = 20_000  # of a text, in which named prices are looked for; the models read less
MUCH, FAR = 2.0, 4.0  # from twice as much on, and from 300 % off on, "times" says it better than percent


@dataclass(frozen=True)
class Answer:
    """What both models said of a text: `text` as it stood in the box, `given` as the models got it, before it was cut; the
    prices that it names and whether they were `hidden` from the models, its `place` in the line until it is its turn, and as far as they are done `predictions` and
    the `raw` texts that they would write.
    `is_product`: whether it reads like one, None while that is open."""

    text: str
    given: str
    prompt: Prompt
    named_usd: tuple[float, ...] = ()
    hidden: bool = False
    place: Place | None = None
    predictions: dict[str, Prediction] = field(default_factory=dict)
    is_product: bool | None = None
    raw: dict[str, str] = field(default_factory=dict)

    @property
    def read(self) -> str:
        """What the models read of the text."""
        return product_text(self.prompt.text)

    @property
    def named_actual(self) -> str:
        """The actual price that the text gives: the only one that it names, where the models have not read it."""
        return f"{self.named_usd[0]:.2f}" if self.hidden and len(self.named_usd) == 1 else ""

    @property
    def done(self) -> bool:
        return len(self.predictions) == 2


@dataclass(frozen=True)
class View:
    """How an answer is read: the point rule, the price prior, the axis, the actual price if the visitor knows it."""

    rule: str = DEFAULT_RULE
    prior: PricePrior | None = None
    log_axis: bool = True
    actual_usd: float | None = None


@dataclass(frozen=True)
class Reading:
    """One model's answer under a view, in dollars."""

    distribution: PriceDistribution
    price_usd: float
    wide_usd: tuple[float, float]  # the 90 % range
    half_usd: tuple[float, float]  # the 50 % range
    calibration: Calibration | None
    seconds: float

    @property
    def sureness(self) -> str:
        return sureness(*self.wide_usd)


class Reader:
    """Asks the predictor, whose kept answers make Back, reload and a second look cost nothing."""

    def __init__(self, predictor: SharedPredictor):
        self.predictor = predictor
        self.is_product = ProductCheck(predictor)

    def read(
        self, text: str, hide: bool = True, wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[Answer]:
        """The answer as it grows: with its place in the line, with the fine-tuned model's, with both; at once with both
        where they are kept. `hide`: the prices in the text from the models. Raises InputError, also when the answer is
        not `wanted` any more."""
        named = named_prices(text[:NAMED_CHARS]) if isinstance(text, str) else []
        visible = without_prices(text, named) if named and hide else text
        hidden = bool(named and hide and visible)
        given = visible if hidden else text
        prompt = self.predictor.prepare(given)
        answer = Answer(text, given, prompt, tuple(dict.fromkeys(price.usd for price in named)), hidden)
        for found in self.predictor.ask(prompt, wanted):
            if isinstance(found, Place):
                answer = replace(answer, place=found if found.before else None)
            else:
                answer = replace(answer, place=None, predictions=answer.predictions | dict(found))
            if not answer.done:
                yield answer
        yield replace(answer, is_product=self.is_product(prompt, answer.predictions))


def read_prediction(prediction: Prediction, view: View) -> Reading:
    prediction = prediction.under(view.prior)
    return Reading(
        distribution=prediction.distribution,
        price_usd=float(prediction.distribution.point(view.rule)),
        wide_usd=prediction.interval(INTERVAL_LEVEL),
        half_usd=prediction.interval(0.5),
        calibration=prediction.calibration,
        seconds=prediction.seconds,
    )


def read_answer(answer: Answer, view: View) -> dict[str, Reading]:
    return {which: read_prediction(prediction, view) for which, prediction in answer.predictions.items()}


def read_usd(written: str) -> float | None:
    """A price as a person writes it, None where nothing is written. Raises InputError with what to write."""
    if not (written or "").strip():
        return None
    try:
        usd = read_price(written)
    except InputError:
        usd = 0.0
    if not 0 < usd < 1e9:
        raise InputError(words.ACTUAL_BAD)
    return usd


def compared(price_usd: float, other_usd: float) -> str | None:
    """`34 % more than`, `2.5 times as much as`; None where they are about the same."""
    change = price_usd / other_usd - 1
    if abs(change) < 0.02:
        return None
    if change + 1 >= MUCH:
        times = f"{change + 1:.1f}".removesuffix(".0") if change + 1 < 10 else f"{change + 1:.0f}"
        return words.FAR_MORE.format(times=times)
    return (words.MORE if change > 0 else words.LESS).format(share=percent(abs(change)))


def off_by(share: float) -> str:
    """How far a guess is off, as a share of the price."""
    return words.TIMES.format(share=share) if share > FAR - 1 else percent(share)


def load_examples() -> list[dict[str, str]]:
    """label, text, and `typical`: what it typically costs, in words."""
    return json.loads((ASSETS / "examples.json").read_text(encoding="utf-8"))
