"""The endpoints for programs, through Gradio's own client and as MCP tools."""

import asyncio
import importlib.metadata
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import gradio_client
import pytest
from packaging.requirements import Requirement

from pricer.errors import InputError
from pricer.llama.explain import leave_each_out
from pricer.scoring.engine import Task, score_texts
from pricer.settings import PASSES, Limits
from pricer.ui import build_demo, page_options, theme

ROOT = Path(__file__).parents[2]
NAMES = ["/predict", "/predict_batch", "/explain"]
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
def client(tiny_url):
    return gradio_client.Client(tiny_url, verbose=False)


@pytest.fixture(scope="module")
def calibrated_client(calibrated_url):
    return gradio_client.Client(calibrated_url, verbose=False)


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


def test_a_calibrated_adapter_gives_its_interval_and_its_rule(calibrated_client, calibrated_predictor):
    answer = calibrated_client.predict(TEXT, api_name="/predict")
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


def test_public_endpoints_are_these_with_every_argument_typed_and_documented(client):
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert list(endpoints["named_endpoints"]) == NAMES and not endpoints["unnamed_endpoints"]
    for name, endpoint in endpoints["named_endpoints"].items():
        assert endpoint["description"].endswith("."), name
        for argument in [*endpoint["parameters"], *endpoint["returns"]]:
            assert argument["python_type"]["type"] not in ("", "Any"), (name, argument)
            assert argument["python_type"]["description"], (name, argument)
    rule = endpoints["named_endpoints"]["/predict"]["parameters"][1]
    assert rule["parameter_name"] == "rule" and "median" in str(rule["type"])


# Many texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("models", "passes"), [("tuned", ("tuned",)), ("both", PASSES)])
def test_a_batch_has_the_figures_of_the_scoring_engine(client, tiny_predictor, tiny_settings, models, passes):
    texts = [f"{TEXT} {'and a charger ' * n}" for n in range(9)]
    answer = client.predict(texts, models, "median", api_name="/predict_batch")
    columns = score_texts(tiny_predictor, texts, Task(tiny_settings, passes, "median"))
    assert [set(row) for row in answer] == [set(columns)] * len(texts)
    for name, values in columns.items():
        assert [row[name] for row in answer] == pytest.approx(values, abs=0.011), name


def test_a_batch_may_be_under_another_prior(calibrated_client):
    client = calibrated_client
    for prior in ("shop", "benchmark"):
        [row] = client.predict([TEXT], "tuned", "mean", prior, api_name="/predict_batch")
        one = client.predict(TEXT, "mean", prior, api_name="/predict")["tuned"]
        assert [row["tuned_usd"], row["low_usd"]] == pytest.approx(
            [one["price_usd"], one["low_usd"]], abs=0.011
        )
    with pytest.raises(Exception, match="choose one of shop, benchmark"):
        client.predict([TEXT], "tuned", "mean", "none", api_name="/predict_batch")


def test_a_text_that_cannot_be_used_has_its_reason_and_the_others_their_figures(client):
    bad, good, number = client.predict([" ", TEXT, 5], api_name="/predict_batch")
    assert bad == {"error": "There is no text yet; paste a product's title or description first."}
    assert good["tuned_usd"] > 0 and "base_usd" not in good
    assert list(number) == ["error"]


@pytest.mark.parametrize("bad", [[], "a text", None, {"a": "b"}])
def test_a_batch_that_is_no_list_is_one_sentence(client, bad):
    with pytest.raises(Exception, match="texts must be a list of at least one text"):
        client.predict(bad, api_name="/predict_batch")


def test_a_batch_is_limited_and_says_what_to_do(tiny_predictor, tiny_settings, serve):
    settings = replace(tiny_settings, limits=Limits(batch_rows=2))
    demo = theme.silence(build_demo(tiny_predictor, "", settings))
    client = gradio_client.Client(serve(demo, **page_options(), show_error=True), verbose=False)
    assert len(client.predict([TEXT] * 2, api_name="/predict_batch")) == 2
    with pytest.raises(Exception, match="3 texts are more than the 2 .* python -m pricer.score"):
        client.predict([TEXT] * 3, api_name="/predict_batch")


@pytest.mark.parametrize("bad", ["", " \n\t", "\u200b"])
def test_unusable_text_is_one_sentence(client, tiny_predictor, bad):
    with pytest.raises(InputError) as expected:
        tiny_predictor.compare(bad)
    with pytest.raises(Exception, match="There is no text yet") as error:
        client.predict(bad, api_name="/predict")
    assert str(expected.value) in str(error.value)
    assert "Traceback" not in str(error.value)


def test_unknown_rule_is_one_sentence(client):
    with pytest.raises(Exception, match="rule must be one of log-mean"):
        client.predict(TEXT, "nonsense", api_name="/predict")
    with pytest.raises(Exception, match="models must be one of both, tuned"):
        client.predict([TEXT], "base", api_name="/predict_batch")


def test_without_models_says_why(without_models):
    client = gradio_client.Client(without_models[0], verbose=False)
    with pytest.raises(Exception, match="There is no adapter at /nowhere"):
        client.predict(TEXT, api_name="/predict")


# Why -----------------------------------------------------------------------------------------------------

PHRASES = ["Cordless drill.", "Two batteries.", "A hard case."]


@pytest.mark.parametrize("model", PASSES)
def test_an_explanation_is_the_price_against_that_without_each_phrase(client, tiny_predictor, model):
    answer = client.predict(" ".join(PHRASES), model, "mean", "benchmark", api_name="/explain")
    assert [one["phrase"] for one in answer["phrases"]] == PHRASES
    prior = tiny_predictor.prior_named("benchmark")
    prompt = tiny_predictor.prepare(" ".join(PHRASES))

    def price(prediction):
        return float(prediction.under(prior).distribution.point("mean"))

    [whole] = tiny_predictor.predict([prompt], model)
    assert answer["price_usd"] == pytest.approx(price(whole), abs=0.02)
    for indices, without in leave_each_out(tiny_predictor, prompt, model):
        for i, one in zip(indices, without, strict=True):
            said = answer["phrases"][i]
            assert said["adds_usd"] == pytest.approx(price(whole) - price(one), abs=0.05)
            assert said["share"] == pytest.approx(said["adds_usd"] / answer["price_usd"], abs=0.001)


def test_an_explanation_that_cannot_be_given_is_one_sentence(client):
    for arguments, said in (
        (["lamp"], "phrase"),
        ([" "], "no text"),
        ([TEXT, "both"], "model must be one of tuned, base"),
    ):
        with pytest.raises(Exception, match=said):
            client.predict(*arguments, api_name="/explain")


# As MCP tools --------------------------------------------------------------------------------------------


def mcp_session(url, *calls):
    """The tools by name, and what each of the calls (tool, arguments) brings: (whether it failed, its text)."""
    mcp = pytest.importorskip("mcp")
    from mcp.client.streamable_http import streamable_http_client

    async def ask():
        async with (
            streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            answers = [await session.call_tool(*call) for call in calls]
        return tools, [(answer.isError, answer.content[0].text) for answer in answers]

    with ThreadPoolExecutor(
        1
    ) as thread:  # where browser tests ran before, this one has an event loop already
        return thread.submit(lambda: asyncio.run(ask())).result()


def test_the_endpoints_are_mcp_tools_that_answer_in_json(client, tiny_predictor):
    tools, answers = mcp_session(
        client.src,
        ("predict", {"product_text": TEXT, "rule": "median"}),
        ("predict_batch", {"texts": [TEXT, ""]}),
        ("predict", {"product_text": " "}),
        ("explain", {"product_text": " ".join(PHRASES)}),
    )
    assert [f"/{name}" for name in tools] == NAMES
    for tool in tools.values():
        for name, about in tool.inputSchema["properties"].items():
            assert about["description"] and {"type", "enum", "oneOf"} & set(about), (tool.name, name)
    (failed, one), (_, many), (refused, sentence), (_, why) = answers
    assert not failed
    assert without_seconds(json.loads(one)) == without_seconds(tiny_predictor.compare(TEXT).to_dict("median"))
    assert [sorted(row)[0] for row in json.loads(many)] == ["high_usd", "error"]
    assert [part["phrase"] for part in json.loads(why)["phrases"]] == PHRASES
    assert refused and sentence.startswith("There is no text yet")


def test_the_pins_go_with_what_mcp_asks_for():
    """What gradio's extra `mcp` would not: it holds pydantic back."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    asked, seen = [Requirement("mcp>=1.21,<2")], set()
    assert str(asked[0]) in {
        str(Requirement(line))
        for line in (ROOT / "requirements-mcp.txt").read_text().splitlines()
        if line.startswith("mcp")
    }
    while asked:
        wanted = asked.pop()
        name = wanted.name.lower().replace("_", "-")
        assert wanted.specifier.contains(pins[name]), f"{wanted}, pinned to {pins[name]}"
        if name not in seen:
            seen.add(name)
            extras = wanted.extras or {""}
            for line in importlib.metadata.requires(name) or ():
                further = Requirement(line)
                if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in extras):
                    asked.append(further)
    assert {"mcp", "pydantic", "starlette", "cryptography"} <= seen
