"""The endpoint for programs: `/predict`, the same answer as `python -m pricer --json`."""

from __future__ import annotations

import gradio as gr

from pricer.errors import InputError
from pricer.llama.predictor import Predictor
from pricer.price.prior import SHIPPED
from pricer.ui.guard import RequestLimit


def add_api(predictor: Predictor | None, problem: str, limit: RequestLimit) -> None:
    """Inside the page's Blocks. Without a predictor each call ends in the problem."""
    usual = predictor.prior.name if predictor and predictor.prior else SHIPPED[0]

    def predict(request: gr.Request, product_text: str, rule: str | None = None, prior: str = usual) -> dict:
        """Price a product's text with both models; `rule` is one of log-mean, median, mean, mode, best-hit, top-3 (by
        default the adapter's), `prior` what prices the fine-tuned one is to expect: shop or benchmark."""
        if predictor is None:
            raise gr.Error(problem, print_exception=False)
        try:
            limit.check(request)
            chosen = predictor.prior_named(prior)
            return predictor.compare(product_text).under(chosen).to_dict(rule)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.api(predict, api_name="predict", concurrency_id="model")
