"""The endpoint for programs, through Gradio's own client."""

import gradio_client
import pytest

from pricer.errors import InputError
from pricer.settings import Settings
from pricer.ui import build_demo, page_options, theme

TEXT = "Cordless drill with two batteries"
FIELDS = {
    "price_usd",
    "low_usd",
    "high_usd",
    "calibrated",
    "prior",
    "rule",
    "rules",
    "unpriced_mass",
    "seconds",
}


@pytest.fixture(scope="module")
def client(tiny_predictor, tiny_settings, serve):
    demo = theme.silence(build_demo(tiny_predictor, "", tiny_settings))
    return gradio_client.Client(serve(demo, **page_options(), show_error=True), verbose=False)


def without_seconds(answer):
    return {k: v if k == "truncated" else {f: v[f] for f in FIELDS - {"seconds"}} for k, v in answer.items()}


def test_answers_as_the_predictor_does(client, tiny_predictor):
    answer = client.predict(TEXT, "median", api_name="/predict")
    assert set(answer) == {"base", "tuned", "truncated"}
    assert answer["truncated"] is False
    for which in ("base", "tuned"):
        assert set(answer[which]) == FIELDS
        assert answer[which]["rule"] == "median"
        assert answer[which]["seconds"] > 0
    expected = tiny_predictor.compare(TEXT).to_dict("median")
    assert without_seconds(answer) == without_seconds(expected)


def test_rule_may_be_left_out(client):
    answer = client.predict(TEXT, api_name="/predict")
    assert answer["base"]["rule"] == "log-mean"
    assert answer["base"]["price_usd"] == answer["base"]["rules"]["log-mean"]


def test_a_calibrated_adapter_gives_its_interval_and_its_rule(calibrated_predictor, tiny_settings, serve):
    demo = theme.silence(build_demo(calibrated_predictor, "", tiny_settings))
    client = gradio_client.Client(serve(demo, **page_options(), show_error=True), verbose=False)
    answer = client.predict(TEXT, api_name="/predict")
    assert without_seconds(answer) == without_seconds(calibrated_predictor.compare(TEXT).to_dict("median"))
    assert (answer["base"]["calibrated"], answer["tuned"]["calibrated"]) == (False, True)


def test_another_prior_is_a_parameter(client, tiny_predictor):
    shop = client.predict(TEXT, "median", "shop", api_name="/predict")
    expected = tiny_predictor.compare(TEXT).under(tiny_predictor.prior_named("shop")).to_dict("median")
    assert without_seconds(shop) == without_seconds(expected) and shop["tuned"]["prior"] == "shop"
    with pytest.raises(Exception, match="choose one of shop, benchmark"):
        client.predict(TEXT, "median", "/etc/passwd", api_name="/predict")


def test_long_text_is_reported_as_cut(client):
    assert client.predict("a long description " * 100, api_name="/predict")["truncated"] is True


def test_is_the_only_public_endpoint(client):
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert list(endpoints["named_endpoints"]) == ["/predict"]
    assert not endpoints["unnamed_endpoints"]


@pytest.mark.parametrize("bad", ["", " \n\t", "\u200b"])
def test_unusable_text_is_one_sentence(client, tiny_predictor, bad):
    with pytest.raises(InputError) as expected:
        tiny_predictor.compare(bad)
    with pytest.raises(Exception, match="There is no text yet") as error:
        client.predict(bad, api_name="/predict")
    assert str(expected.value) in str(error.value)
    assert "Traceback" not in str(error.value)


def test_unknown_rule_is_one_sentence(client):
    with pytest.raises(Exception, match="log-mean"):
        client.predict(TEXT, "nonsense", api_name="/predict")


def test_without_models_says_why(serve):
    problem = "There is no adapter at /nowhere: set PRICER_ADAPTER."
    demo = theme.silence(build_demo(None, problem, Settings.from_env({})))
    client = gradio_client.Client(serve(demo, **page_options(), show_error=True), verbose=False)
    with pytest.raises(Exception, match="There is no adapter at /nowhere"):
        client.predict(TEXT, api_name="/predict")
