"""python -m pricer "product text": both models' answer in the terminal.

Errors go to standard error; exit code 2 for bad input, 1 for anything else.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from pricer.errors import InputError, PricerError, report
from pricer.price.distribution import INTERVAL_LEVEL, RULES
from pricer.price.prior import PRIOR_HELP
from pricer.prompt import clean
from pricer.settings import PASSES, PROFILES, Settings
from pricer.tables.lines import decode

if TYPE_CHECKING:
    from pricer.llama.prediction import Comparison


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        text = _read_text(options.text)
        comparison = compare(text, Settings.from_env(profile=options.profile, prior=options.prior))
    except PricerError as error:
        return report(error)
    answer = comparison.to_dict(options.rule)
    if options.distribution:
        for which in PASSES:
            answer[which]["distribution"] = getattr(comparison, which).distribution.probabilities.tolist()
    print(json.dumps(answer, ensure_ascii=False) if options.json or options.distribution else _table(answer))
    return 0


def compare(text: str, settings: Settings) -> Comparison:
    """Both passes over one text. Raises InputError for unusable text, SetupError when no model can be loaded."""
    clean(text, max_chars=settings.limits.text_chars)  # before loading a model for nothing
    from pricer.llama.predictor import load_predictor  # seconds

    return load_predictor(settings).compare(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pricer", description=__doc__.split("\n")[0])
    parser.add_argument("text", help="the product's text; - reads it from standard input")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--distribution", action="store_true", help="JSON with the probabilities of $1 to $999 as well"
    )
    parser.add_argument(
        "--rule", choices=RULES, help="how a distribution becomes one price; default: the adapter's"
    )
    parser.add_argument("--prior", help=PRIOR_HELP)
    parser.add_argument("--profile", choices=PROFILES, help="which pair of models; default: PRICER_PROFILE")
    return parser


def _read_text(argument: str) -> str:
    if argument != "-":
        # Bytes that are no UTF-8, as Python hands them on.
        if any("\udc80" <= c <= "\udcff" for c in argument):
            raise InputError("The text is not UTF-8: type it again, or convert it to UTF-8 first.")
        return argument
    try:
        return decode(sys.stdin.buffer.read())
    except InputError as reason:
        raise InputError(f"Standard input is {reason}: convert it to UTF-8 first.") from None


def _table(answer: dict[str, Any]) -> str:
    base, tuned = answer["base"], answer["tuned"]
    rows = [
        ("", "Base", "Fine-tuned"),
        (f"Price ({base['rule']})", *(f"${a['price_usd']:,.2f}" for a in (base, tuned))),
        (
            f"{100 * INTERVAL_LEVEL:.0f} % interval",
            *(f"${a['low_usd']:,.0f} to ${a['high_usd']:,.0f}" for a in (base, tuned)),
        ),
        ("Prices as in", "published", answer["tuned"]["prior"] or "training"),
        ("Calibrated", *("yes" if a["calibrated"] else "no" for a in (base, tuned))),
        ("Spelled no price", *(f"{100 * a['unpriced_mass']:.1f} %" for a in (base, tuned))),
        ("Seconds", *(f"{a['seconds']:.2f}" for a in (base, tuned))),
    ]
    lines = [f"{name:<20}{left:>16}{right:>16}" for name, left, right in rows]
    if answer["truncated"]:
        lines.append("The text was longer than the models read; its end was cut.")
    return "\n".join(lines)


if __name__ == "__main__":
    gc.disable()  # hardly anything becomes garbage, and to look for it takes a fifth of the time, here
    code = main()
    gc.freeze()  # and at the end
    sys.exit(code)
