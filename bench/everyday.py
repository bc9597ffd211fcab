"""Sixteen products whose price everyone knows, as people paste them: what both models make of them.

python -m bench.everyday [--profile embedded] [--adapter FOLDER]

The texts are written for this table; the typical price is what such a thing costs in a shop, not any one offer. Nothing
is chosen on them. The last lines count the hits (within $40 or 20 %) and the guesses within a factor of 1.5.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from pricer.arena.metrics import outcome
from pricer.llama.predictor import load_predictor
from pricer.price.prior import SHIPPED
from pricer.settings import PROFILES, ModelRef, Settings

# (what it is, typical price in USD, text)
PRODUCTS = (
    ("USB-C cable", 9, "USB C to USB C Charging Cable, 60 W, 6 ft, braided nylon, black"),
    ("Clear phone case", 12, "Clear case for 6.1 inch phone, shockproof corners, slim, does not yellow"),
    ("60 ballpoint pens", 7, "Ballpoint pens, medium point, black ink, box of 60"),
    ("48 AA batteries", 15, "AA alkaline batteries, 48 count, long lasting, 1.5 V"),
    (
        "Wireless mouse",
        14,
        "Wireless mouse for laptop, 2.4 GHz with USB receiver, 5 buttons, quiet click, gray",
    ),
    ("5 toy cars", 6, "5-pack of die-cast toy cars, 1:64 scale, for kids 3 and up"),
    ("Brake pads", 45, "Ceramic front brake pads for mid-size sedan, set of 4 with hardware kit"),
    (
        "Fridge water filter",
        40,
        "Replacement refrigerator water filter, certified to reduce chlorine and lead, 1 pack",
    ),
    (
        "Cordless drill kit",
        99,
        "20V cordless drill driver kit with 2 batteries, charger and bag, 1/2 inch chuck",
    ),
    (
        "Microwave",
        260,
        "Over-the-range microwave oven, 1.7 cu. ft., 1000 watts, stainless steel, with vent fan",
    ),
    (
        "Action camera",
        350,
        "Waterproof action camera, 5.3K video, 27 MP photos, image stabilization, touch screen",
    ),
    (
        "Electric guitar",
        800,
        "Solid body electric guitar, mahogany body with maple top, two humbuckers, made in Mexico",
    ),
    (
        "Mechanical keyboard",
        70,
        "Mechanical gaming keyboard, RGB backlit, 87 keys, hot-swappable red switches, wired",
    ),
    ("Garden hose", 30, "Garden hose 50 ft, 5/8 inch, heavy duty rubber, kink resistant, brass fittings"),
    (
        "Robot vacuum",
        250,
        "Robot vacuum cleaner with mapping, Wi-Fi and app, works on carpet and hard floors",
    ),
    ("Office chair", 150, "Ergonomic mesh office chair, adjustable lumbar support, armrests, swivel, black"),
)
NEAR_FACTOR = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.everyday", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", choices=PROFILES)
    parser.add_argument("--adapter", help="another adapter than the profile's")
    options = parser.parse_args()
    settings = Settings.from_env(profile=options.profile)
    if options.adapter:
        settings = replace(settings, adapter=ModelRef.parse(options.adapter))
    predictor = load_predictor(settings)
    columns = ("base", *(f"tuned, {name}" for name in SHIPPED))
    print(f"| product | typical | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    hits, near = dict.fromkeys(columns, 0), dict.fromkeys(columns, 0)
    for product, typical_usd, text in PRODUCTS:
        answer = predictor.compare(text)
        read = {"base": (answer.base, predictor.rule)}
        for name in SHIPPED:
            under = answer.under(predictor.prior_named(name))
            read[f"tuned, {name}"] = (under.tuned, under.rule)
        guesses = {name: float(found.distribution.point(rule)) for name, (found, rule) in read.items()}
        for name, guess in guesses.items():
            hits[name] += outcome([typical_usd], [guess])[0] == "hit"
            near[name] += max(guess / typical_usd, typical_usd / guess) <= NEAR_FACTOR
        print(
            f"| {product} | ${typical_usd} | {' | '.join(f'${guess:,.0f}' for guess in guesses.values())} |"
        )
    print(f"| hits | | {' | '.join(str(hits[name]) for name in columns)} |")
    print(f"| within a factor of {NEAR_FACTOR} | | {' | '.join(str(near[name]) for name in columns)} |")


if __name__ == "__main__":
    main()
