"""What answers at the app's address while the models load."""

import socket
import threading
from dataclasses import replace

import httpx
import pytest

from pricer.errors import SetupError
from pricer.opening import Opening
from pricer.settings import Settings


@pytest.fixture
def settings():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return replace(Settings.from_env({}), port=probe.getsockname()[1])


def test_it_says_that_the_models_are_loading_and_is_not_taken_for_the_app(settings):
    opening = Opening(settings)
    try:
        for path in ("/", "/?text=lamp", "/gradio_api/info"):
            answer = httpx.get(f"http://127.0.0.1:{settings.port}{path}", trust_env=False)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "models are loading" in answer.text and "location.reload()" in answer.text
            assert "http" not in answer.text  # it fetches nothing from elsewhere
    finally:
        opening.close()


def test_a_taken_port_is_one_sentence_and_a_closed_one_is_free_again(settings):
    opening = Opening(settings)
    with pytest.raises(SetupError) as refused:
        Opening(settings)
    assert f"Port {settings.port}" in str(refused.value) and "PORT=" in str(refused.value)
    silent = socket.create_connection(("127.0.0.1", settings.port))  # that asks nothing and does not go
    before = threading.active_count()
    opening.close()
    assert threading.active_count() <= before
    Opening(settings).close()
    silent.close()
