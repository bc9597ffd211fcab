"""What reads like a product, on the embedded pair."""

import pytest

from pricer.llama.predictor import Predictor
from pricer.llama.product import ProductCheck


@pytest.fixture(scope="module")
def check(shipped_pair):
    predictor = Predictor(shipped_pair)
    found = ProductCheck(predictor)

    def check(text):
        prompt = predictor.prepare(text)
        return found(prompt, dict(predictor.both_passes(prompt)))

    return check


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "???",
        "😀",
        "42",
        "How are you today?",
        "hello how are you today?",
        "Tell me a joke",
        "Good morning",
    ],
)
def test_is_none(check, text):
    assert check(text) is False


@pytest.mark.parametrize(
    "text",
    [
        "AirPods Pro",
        "Nintendo Switch OLED",
        "garden hose 50 ft",
        "coffee mug",
        "iPhone 15 Pro 256 GB",
        "Cordless drill 20V, one battery, bag",
        "wireless mouse",
        "what does a robot vacuum cost?",
        "blender",
    ],
)
def test_is_one(check, text):
    assert check(text) is True
