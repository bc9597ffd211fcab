"""What other programs may call, over HTTP, with Gradio's client or as MCP tools: see "From other programs" in README.md.

    /predict         one text, both models: the same answer as `python -m pricer --json`
    /predict_batch   many texts: the same figures as `python -m pricer.score`
    /explain         one text, phrase by phrase: what each adds to the price

Gradio checks no types of its own here, so every argument is looked at; whatever is wrong ends in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Literal, TypedDict, get_type_hints

import gradio as gr
from gradio.context import get_blocks_context
from gradio.utils import get_function_description
from gradio_client.utils import python_type_to_json_schema

from pricer.errors import InputError
from pricer.llama.explain import leave_each_out, phrases
from pricer.llama.prediction import Prediction, default_rule
from pricer.llama.shared import NOBODY_WAITS, SharedPredictor
from pricer.price.distribution import RULES
from pricer.price.prior import SHIPPED, PricePrior
from pricer.prompt import product_text as read_text
from pricer.scoring.engine import Task
from pricer.scoring.steps import score_in_steps
from pricer.settings import PASSES, Settings
from pricer.ui import text
from pricer.ui.compare.text import WHY_ONE_PHRASE
from pricer.ui.guard import (
    BATCH_QUEUE,
    BATCHES_AT_ONCE,
    PARTS_QUEUE,
    RequestLimit,
    in_line,
    still_wanted,
)

Rule = Literal[RULES]
Models = Literal["both", "tuned"]
Model = Literal["tuned", "base"]


class PassAnswer(TypedDict):
    """What one model says; prices in US dollars. `low_usd` to `high_usd` is the 90 % interval."""

    price_usd: float
    low_usd: float
    high_usd: float
    calibrated: bool
    prior: str | None
    rule: str
    rules: dict[str, float]
    unpriced_mass: float
    seconds: float


class Answer(TypedDict):
    truncated: bool
    base: PassAnswer
    tuned: PassAnswer


class PhraseEffect(TypedDict):
    """`adds_usd`: the price of the whole text minus that of the text without the phrase; `share`: of the price."""

    phrase: str
    adds_usd: float
    share: float


class Explanation(TypedDict):
    price_usd: float
    rule: str
    prior: str | None
    phrases: list[PhraseEffect]


class BatchRow(TypedDict, total=False):
    """Of one text: its figures, or `error`."""

    base_usd: float
    tuned_usd: float
    low_usd: float
    high_usd: float
    unpriced_mass: float
    text_cut: bool
    error: str


def add_api(predictor: SharedPredictor | None, problem: str, settings: Settings, limit: RequestLimit) -> None:
    """Inside the page's Blocks. Without a predictor each call ends in the problem."""
    usual = predictor.prior.name if predictor and predictor.prior else SHIPPED[0]
    most = settings.limits.rows_at_once(predictor.pair.device.type) if predictor else 0

    def predict(
        request: gr.Request, product_text: str, rule: Rule | None = None, prior: str = usual
    ) -> Answer:
        """Say what a product costs in US dollars, judged from its text alone, by the base and by the fine-tuned Llama.

        Parameters:
            product_text: What a shop says about the product: its title and description, without the price.
            rule: How the distribution over prices becomes one price: log-mean, median, mean, mode, best-hit or top-3; by default the one that did best for this model.
            prior: What prices the fine-tuned model expects before it reads: shop (most things are cheap) or benchmark (all prices alike).

        Returns:
            An object: "tuned" and "base" with "price_usd", the 90 % interval "low_usd" to "high_usd", the price by every other rule in "rules", and "unpriced_mass", the probability of no price from $1 to $999; "truncated" says whether the text was cut.
        """
        _check_one_of("rule", rule, (None, *RULES))
        chosen = predictor.prior_named(prior)
        return predictor.compare(product_text, still_wanted()).under(chosen).to_dict(rule)

    def predict_batch(
        request: gr.Request,
        texts: list[str],
        models: Models = "tuned",
        rule: Rule | None = None,
        prior: str = usual,
    ) -> list[BatchRow]:
        """Say what many products cost in US dollars, judged from their texts alone.

        Parameters:
            texts: One text per product, without its price. For files of any length there is python -m pricer.score.
            models: Whether the fine-tuned model answers alone or the base as well, which takes twice as long.
            rule: How the distribution over prices becomes one price: log-mean, median, mean, mode, best-hit or top-3; by default the one that did best for this model.
            prior: What prices the fine-tuned model expects before it reads: shop (most things are cheap) or benchmark (all prices alike).

        Returns:
            A list with one object per text, in order: "tuned_usd" (and "base_usd"), the 90 % interval "low_usd" to "high_usd", "unpriced_mass", and whether the text was cut in "text_cut"; or "error" with the reason for a text that cannot be used.
        """
        if not isinstance(texts, list) or not texts:
            raise InputError(text.API_NO_LIST)
        if len(texts) > most:
            raise InputError(text.API_TOO_MANY_TEXTS.format(most=most, given=len(texts)))
        _check_one_of("models", models, ("both", "tuned"))
        _check_one_of("rule", rule, (None, *RULES))
        chosen = predictor.prior_named(prior)
        rule = rule or default_rule(predictor.pair.adapter, chosen)
        return _score(
            predictor, texts, Task(settings, PASSES if models == "both" else ("tuned",), rule), chosen
        )

    def explain(
        request: gr.Request,
        product_text: str,
        model: Model = "tuned",
        rule: Rule | None = None,
        prior: str = usual,
    ) -> Explanation:
        """Say why a model prices a product as it does: each phrase of the text is left out in turn, and the price asked again.

        Parameters:
            product_text: What a shop says about the product: its title and description, without the price.
            model: Which of the two is asked, the fine-tuned one or the base.
            rule: How the distribution over prices becomes one price: log-mean, median, mean, mode, best-hit or top-3; by default the one that did best for this model.
            prior: What prices the fine-tuned model expects before it reads: shop (most things are cheap) or benchmark (all prices alike).

        Returns:
            An object: "price_usd" of the whole text, and "phrases", at most 16 in the text's order, each with "adds_usd", what it adds to the price in dollars (negative: takes away), to within some 2 % of the price, and "share", that as a share of the price.
        """
        _check_one_of("model", model, ("tuned", "base"))
        _check_one_of("rule", rule, (None, *RULES))
        chosen = predictor.prior_named(prior)
        return _explain(
            predictor, product_text, model, rule or default_rule(predictor.pair.adapter, chosen), chosen
        )

    answered = _answering(predictor, problem, limit)
    _endpoint(answered(predict), **in_line(settings))
    _endpoint(answered(predict_batch), concurrency_id=BATCH_QUEUE, concurrency_limit=BATCHES_AT_ONCE)
    _endpoint(answered(explain), concurrency_id=PARTS_QUEUE)


def _endpoint(answer: Callable, **queue: Any) -> None:
    """`gr.api`, with the docstring's words on parameters and answer on the API page too, not for MCP clients alone."""
    made = gr.api(answer, api_name=answer.__name__, **queue)
    function = get_blocks_context().fns[made["id"]]
    _, parameters, returns = get_function_description(answer)
    names = [name for name in parameters if name != "request"]
    for name, component in zip(names, function.inputs, strict=True):
        component.label = name
        component._api_info["additional_description"] = parameters[name]
    [output] = function.outputs
    output.label = "answer"
    schema = python_type_to_json_schema(get_type_hints(answer)["return"])
    output._api_info = schema | {"description": " ".join(returns)}


def _score(predictor: SharedPredictor, texts: Sequence[Any], task: Task, prior: PricePrior) -> list[BatchRow]:
    """For each text its figures, or why it has none."""
    answers: list[BatchRow] = []
    usable: list[int] = []
    for at, given in enumerate(texts):
        try:
            predictor.prepare(given)
            answers.append({})
            usable.append(at)
        except InputError as error:
            answers.append({"error": str(error)})
    columns: dict[str, list] = {}
    wanted = still_wanted()
    for step in score_in_steps(predictor, [texts[at] for at in usable], task, prior=prior):
        columns = step.columns
        _check_wanted(wanted)
    for i, at in enumerate(usable):
        answers[at] = {name: values[i] for name, values in columns.items()}
    return answers


def _explain(
    predictor: SharedPredictor, product_text: str, model: str, rule: str, prior: PricePrior
) -> Explanation:
    prompt = predictor.prepare(product_text)
    read = read_text(prompt.text)
    parts = phrases(read)
    if len(parts) < 2:
        raise InputError(WHY_ONE_PHRASE)

    def price(prediction: Prediction) -> float:
        return float(prediction.under(prior).distribution.point(rule))

    [whole] = predictor.predict([prompt], model)
    price_usd, adds, wanted = price(whole), {}, still_wanted()
    for indices, predictions in leave_each_out(predictor, prompt, model):
        adds |= {i: price_usd - price(one) for i, one in zip(indices, predictions, strict=True)}
        _check_wanted(wanted)
    effects = [
        PhraseEffect(
            phrase=read[part.start : part.end].strip(),
            adds_usd=round(adds[i], 2),
            share=round(adds[i] / price_usd, 4),
        )
        for i, part in enumerate(parts)
    ]
    named = prior.name if model == "tuned" else None
    return Explanation(price_usd=round(price_usd, 2), rule=rule, prior=named, phrases=effects)


def _answering(
    predictor: SharedPredictor | None, problem: str, limit: RequestLimit
) -> Callable[[Callable], Callable]:
    """Count the request first, and let every error that is written for users reach them as its sentence."""

    def decorate(answer: Callable) -> Callable:
        @wraps(answer)
        def answered(request: gr.Request, *arguments: Any) -> Any:
            if predictor is None:
                raise gr.Error(problem, print_exception=False)
            try:
                limit.check(request)
                return answer(request, *arguments)
            except InputError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return answered

    return decorate


def _check_wanted(wanted: Callable[[], bool]) -> None:
    """Raises InputError, which nobody will read, to spare the model the rest."""
    if not wanted():
        raise InputError(NOBODY_WAITS)


def _check_one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(text.API_UNKNOWN.format(name=name, allowed=", ".join(filter(None, allowed))))
