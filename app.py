"""The Space's entry point: settings, models, page, launch. What waits for the disk and the processor goes side by side."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from pricer.errors import SetupError
from pricer.opening import Opening
from pricer.settings import ASSETS, Settings, on_zero_gpu

ADDRESS = ("HOST", "PORT", "GRADIO_SERVER_PORT", "SPACE_ID")


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    problem = ""
    try:
        settings = Settings.from_env()
    except SetupError as error:  # a wrong variable: open the page all the same, where it was to open
        settings, problem = None, str(error)
    try:
        settings = settings or Settings.from_env({k: os.environ[k] for k in ADDRESS if k in os.environ})
        opening = Opening(settings)
    except SetupError as error:  # nowhere to open it
        print(error, file=sys.stderr)
        return 1
    predictor = arenas = None
    if problem:
        pass
    elif on_zero_gpu():  # the page's part that lends the card comes before the models, and this thread has it
        import_module("pricer.ui.zero_gpu")
        predictor, problem = _load(settings)
    else:
        import_module("pricer.llama.predictor")  # here, and not in both threads at once
        with ThreadPoolExecutor(1) as beside:
            loading = beside.submit(_load, settings)
            arenas = import_module("pricer.ui").load_arenas()  # takes as long as the models do
            predictor, problem = loading.result()
    from pricer.ui import build_demo, launch

    if problem:
        print(problem, file=sys.stderr)
    demo = build_demo(predictor, problem, settings, arenas)
    opening.close()
    gc.freeze()  # what is there now stays: later collections need not look at it
    gc.enable()
    launch(demo, settings)
    return 0


def _load(settings: Settings) -> tuple[Any, str]:
    """The predictor, with the answer that the page opens with; or None and the problem."""
    from pricer.llama.predictor import load_predictor
    from pricer.llama.shared import SharedPredictor

    try:
        predictor = load_predictor(settings)
        if settings.zero_gpu:  # there no card is lent yet
            return predictor, ""
        shared = SharedPredictor(predictor)
        shared.compare(json.loads((ASSETS / "examples.json").read_text(encoding="utf-8"))[0]["text"])
    except SetupError as error:
        return None, str(error)
    return shared, ""


if __name__ == "__main__":
    gc.disable()  # until all is loaded
    sys.exit(main())
