"""Prices in a text: which are US dollars, and what is left when they are taken out."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.price.named import named_prices, without_prices


@pytest.mark.parametrize(
    ("text", "usd"),
    [
        ("Drill, $89.95", [89.95]),
        ("Drill $1,299 with case", [1299]),
        ("USD 89.95 drill", [89.95]),
        ("US$ 20", [20]),
        ("usd20.00", [20]),
        ("a drill for 89.95 USD, new", [89.95]),
        ("only 20 dollars", [20]),
        ("89.95$", [89.95]),
        ("was $129.99, now $89.95.", [129.99, 89.95]),
        ("89,95 €", []),
        ("€89.95 or £20", []),
        ("C$90, A$90, HK$ 90, R$ 90", []),
        ("20V drill, 3.5 lbs, 1/2 inch", []),
        ("$20V", []),
        ("$5k and $3M", []),
        ("$0 shipping", []),
        ("$$$ cheap $$$", []),
        ("$89.955", []),
        ("$89,95", []),
        ("Model S$20", []),
        ("MXN $200, $200 MXN, 30$ CAD", []),
        ("save $10 today, $5 off", []),
        ("$3.50/oz, $4 each, 9 dollars per pair", [3.5, 4, 9]),
    ],
)
def test_finds_us_dollars_and_nothing_else(text, usd):
    assert [price.usd for price in named_prices(text)] == usd


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Cordless drill, Price: $89.95, two batteries", "Cordless drill, two batteries"),
        ("Drill\nPrice: $89.95\nTwo batteries", "Drill\n\nTwo batteries"),
        ("$89.95 Drill", "Drill"),
        ("Drill now only $89.95", "Drill"),
        ("Drill (was $129.99, now $89.95).", "Drill."),
        ("Drill [$89.95], new", "Drill, new"),
        ("Drill (new, $89.95)", "Drill (new)"),
        ("Was $129.99, now $89.95! New", "New"),
        ("Tea, from $5.99 to $9.99 each, green", "Tea, green"),
        ("Tea $5-$10/lb. Green", "Tea. Green"),
        ("costs $19.99. Free shipping", "Free shipping"),
        ("**Price is $5** Drill", "Drill"),
        ("Drill\n**Price:** $89.95\nTwo batteries", "Drill\n\nTwo batteries"),
        ("Drill for only **$89.95**, new", "Drill, new"),
        ("Drill, ~~was $129.99~~ *now $89.95*, new", "Drill, new"),
        ("**Drill, $5, for all**", "**Drill, for all**"),
        ("5 * $20 * 3", "5 * * 3"),
        ("Drill", "Drill"),
        ("$89.95", ""),
    ],
)
def test_takes_prices_out_with_their_labels(text, left):
    assert without_prices(text, named_prices(text)) == left


@given(st.text(alphabet="$USD €,.0159 \nab*~:", max_size=40))
def test_any_text_is_left_without_a_price_and_otherwise_as_it_was(text):
    named = named_prices(text)
    assert all(0 <= a.start < a.end <= b.start for a, b in zip(named, [*named[1:]], strict=False))
    left = without_prices(text, named)
    outside = "".join(
        text[a:b]
        for a, b in zip([0, *(p.end for p in named)], [*(p.start for p in named), None], strict=True)
    )
    assert re.sub(r"\W", "", left) == re.sub(r"\W", "", outside)
