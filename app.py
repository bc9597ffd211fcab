"""The Space's entry point: settings, models, page, launch."""

from __future__ import annotations

import logging
import os
import sys

from pricer.errors import SetupError
from pricer.llama.predictor import load_predictor
from pricer.settings import Settings
from pricer.ui import build_demo, check_port, launch

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
        check_port(settings)
    except SetupError as error:  # nowhere to open it
        print(error, file=sys.stderr)
        return 1
    predictor = None
    if not problem:
        try:
            predictor = load_predictor(settings)
        except SetupError as error:
            problem = str(error)
    if problem:
        print(problem, file=sys.stderr)
    launch(build_demo(predictor, problem, settings), settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
