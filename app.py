"""The Space's entry point: settings, models, page, launch."""

from __future__ import annotations

import logging
import sys

from pricer.errors import SetupError
from pricer.predictor import load_predictor
from pricer.settings import Settings
from pricer.ui import build_demo, check_port, launch


def main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        settings = Settings.from_env()
        problem = ""
    except SetupError as error:  # a wrong variable: open the page all the same, and say so on it
        settings, problem = Settings.from_env({}), str(error)
    try:
        check_port(settings)
    except SetupError as error:
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
