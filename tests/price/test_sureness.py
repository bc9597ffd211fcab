"""How sure, by the range."""

import pytest

from pricer.price.sureness import WITHIN_TWICE, may_exceed, sureness


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(20, 30, "sure"), (10, 60, "sure"), (10, 61, "fair"), (10, 121, "unsure"), (1, 999, "unsure")],
)
def test_a_wider_range_is_less_sure(low, high, word):
    assert sureness(low, high) == word
    assert WITHIN_TWICE["sure"] > WITHIN_TWICE["fair"] > WITHIN_TWICE["unsure"]


def test_a_range_that_reaches_the_end_may_exceed_it():
    assert [may_exceed(high) for high in (899, 900, 999)] == [False, True, True]
