"""Numbers and texts as people write them; one rule for a column, found from all its cells."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.errors import InputError
from pricer.tables.cells import Amounts, read_price, show, text_cell


@pytest.mark.parametrize(
    ("cell", "usd"),
    [
        ("1299", 1299.0),
        ("$1,299.50", 1299.5),
        ("1,299", 1299.0),
        ("12,50", 12.5),
        ("129,99", 129.99),
        ("1.299,50", 1299.5),
        (" $ 12 ", 12.0),
        ("12 USD", 12.0),
        ("US$12", 12.0),
        ("USD 12.5", 12.5),
        ("12 dollars", 12.0),
        ("$1,299.00 USD", 1299.0),
        (".5", 0.5),
        ("1 299,50", 1299.5),
        ("1\u00a0299", 1299.0),
        ("1'299.50", 1299.5),
        ("1.299.000", 1299000.0),
        ("1299.000", 1299.0),
        ("0.125", 0.125),
        ("0,125", 0.125),
        ("1.5e3", 1500.0),
        ("-3", -3.0),  # read, and refused as out of range
        ("-$3", -3.0),
        (b"12.50", 12.5),
        (12, 12.0),
        (np.float32(20.5), 20.5),
        (Decimal("12.50"), 12.5),
    ],
)
def test_prices_that_can_be_read(cell, usd):
    assert read_price(cell) == usd


@pytest.mark.parametrize(
    ("reason", "cells"),
    [
        ("no price", ["", " ", "N/A", "none", "nan", "-", "—", None, float("nan"), True]),
        ("a range of prices", ["$5 - $9", "5-9", "5 to 9", "$5–$9", "From $5", "from 12.99", "under 9", "5+", "> 5"]),
        ("no price in dollars", ["12 15", "5 99", "abc", "1,2,3", "12.3.4", "1e999", "inf", float("inf"), "0x1A"]),
        ("no price in dollars", ["1_000", "٣", "$", "--1", "€12", "12,99 €", "$5 $6", "12 345 6", [9.9], "5,"]),
        ("ambiguous: write 1299 or 1.30", ["1.299", "$1.299"]),
    ],
)  # fmt: skip
def test_prices_that_cannot_say_why(reason, cells):
    for cell in cells:
        with pytest.raises(InputError) as error:
            read_price(cell)
        assert str(error.value) == reason, cell


@pytest.mark.parametrize(
    ("column", "usd"),
    [
        (["1.299", "12,50"], [1299, 12.5]),
        (["1.299", "1.299,00"], [1299, 1299]),
        (["1.299", "12.50"], [1.299, 12.5]),
        (["1,299", "12.50"], [1299, 12.5]),
        (["1,299", "45"], [1299, 45]),
        (["1.299", "45"], [None, 45]),
        (["1,299", "12,50"], [None, 12.5]),
        (["1.299", "12.50", "12,50"], [None, 12.5, 12.5]),
        (["1.299", 12.5], [None, 12.5]),
        ([b"1.299", b"12,50"], [1299, 12.5]),
    ],
)
def test_a_column_has_one_decimal_mark(column, usd):
    amounts = Amounts(column)
    for cell, expected in zip(column, usd, strict=True):
        if expected is None:
            with pytest.raises(InputError, match="ambiguous"):
                amounts.read(cell)
        else:
            assert amounts.read(cell) == expected


@given(st.lists(st.floats(0, 1e6).map(lambda value: round(value, 2)), min_size=1))
@settings(max_examples=100)
def test_amounts_survive_every_way_of_writing_them(column):
    ways = [
        [f"${usd:,.2f}" for usd in column],
        [f"{usd:.2f} USD" for usd in column],
        [f"{usd:,.2f}".translate(str.maketrans(",.", ".,")) for usd in column],
        [f"{usd:,.2f}".translate(str.maketrans(",.", " ,")) for usd in column],
    ]
    for written in ways:
        amounts = Amounts(written)
        assert [amounts.read(cell) for cell in written] == column


@given(st.lists(st.sampled_from(["1.299", "1,299", "12.5", "12,5", "7", "1.299,00", "2,000.0", "x"])))
@settings(max_examples=100)
def test_what_is_read_never_depends_on_the_order_of_the_rows(column):
    def read(cells):
        amounts, found = Amounts(cells), {}
        for cell in cells:
            try:
                found[cell] = amounts.read(cell)
            except InputError as error:
                found[cell] = str(error)
        return found

    assert read(column) == read(column[::-1])


def test_texts():
    assert text_cell("00701") == "00701"
    assert text_cell("Röst".encode()) == "Röst"
    assert text_cell(["Big", None, "strong", b"blue"]) == "Big\nstrong\nblue"
    assert text_cell(np.array(["a", "b"], object)) == "a\nb"
    assert text_cell(None) == text_cell(float("nan")) == text_cell([]) == ""
    for cell, reason in (
        (b"Caf\xe9", "not UTF-8"),
        ("a\0b", "zero byte"),
        ("\ud800", "not UTF-8"),
        (5, "not text"),
    ):
        with pytest.raises(InputError, match=reason):
            text_cell(cell)
        with pytest.raises(InputError, match=reason):
            text_cell(["fine", cell])


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_show_is_one_short_line(words):
    shown = show(words)
    assert len(shown) <= 60 and len(shown.splitlines()) <= 1 and shown == shown.strip()
