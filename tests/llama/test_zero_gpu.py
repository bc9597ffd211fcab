"""On ZeroGPU every pass asks for a GPU, once per question, and what travels between the processes can travel."""

import inspect
import pickle
import runpy
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pricer.errors import InputError, SetupError
from pricer.llama.pair import load_pair
from pricer.llama.predictor import Predictor
from pricer.settings import PASSES, PROFILES, Settings
from pricer.ui import build_demo, zero_gpu

TEXT = "cordless drill with two batteries"


class FakeSpaces:
    """The package `spaces` as far as it matters: a decorated function's arguments and results are pickled, calls
    inside one that has the GPU go through, and an exception arrives without its sentence."""

    def __init__(self):
        self.requests, self.inside = [], False

    def GPU(self, task, *, duration):
        def across(value):
            return pickle.loads(pickle.dumps(value))

        def run(arguments):
            """The results of the task, one by one, with the GPU held."""
            self.inside = True
            try:
                result = task(*across(arguments))
                yield from map(across, result) if inspect.isgeneratorfunction(task) else [across(result)]
            except Exception as error:
                raise RuntimeError(type(error).__name__) from None
            finally:
                self.inside = False

        def generator(*arguments):
            if self.inside:
                yield from task(*arguments)
            else:
                self.requests.append((task.__name__, duration))
                yield from run(arguments)

        def function(*arguments):
            if self.inside:
                return task(*arguments)
            self.requests.append((task.__name__, duration))
            return next(run(arguments))

        return generator if inspect.isgeneratorfunction(task) else function


@pytest.fixture
def spaces(monkeypatch):
    fake = FakeSpaces()
    monkeypatch.setattr(zero_gpu, "spaces", fake)
    return fake


@pytest.fixture
def shared(spaces, tiny_pair):
    """A predictor whose model runs only while a GPU is held."""
    pair_use = tiny_pair.use

    def use(which):
        assert spaces.inside, "the model ran without a GPU"
        return pair_use(which)

    guarded = SimpleNamespace(
        tokenizer=tiny_pair.tokenizer,
        adapter=tiny_pair.adapter,
        device=tiny_pair.device,
        weights=None,  # transformers' own pass
        card=None,
        use=use,
    )
    guarded.whole = guarded
    return zero_gpu.share_gpu(Predictor(guarded), seconds=17)


def test_one_request_serves_both_passes(shared, spaces, tiny_predictor):
    answer = dict(shared.both_passes(shared.prepare(TEXT)))
    assert spaces.requests == [("both_passes", 17)]
    direct = tiny_predictor.compare(TEXT)
    for which in PASSES:
        got, wanted = answer[which].distribution, getattr(direct, which).distribution
        assert got.probabilities == pytest.approx(wanted.probabilities, abs=1e-6)
    assert shared.compare(TEXT).to_dict()["base"]["price_usd"] == direct.to_dict()["base"]["price_usd"]
    assert spaces.requests == [("both_passes", 17)] * 2


def test_a_list_of_texts_and_the_raw_text_ask_too(shared, spaces, tiny_predictor):
    prompts = [shared.prepare(f"{TEXT} {i}") for i in range(3)]
    done = []
    found = shared.predict(prompts, "tuned", done.append)
    assert [p.distribution.point() for p in found] == pytest.approx(
        [p.distribution.point() for p in tiny_predictor.predict(prompts, "tuned")], rel=1e-4
    )
    assert done[-1] == 3
    assert shared.greedy_text(prompts[0], "base") == tiny_predictor.greedy_text(prompts[0], "base")
    assert [name for name, _ in spaces.requests] == ["predict_batches", "greedy_text"]


def test_bad_input_asks_for_no_gpu_and_keeps_its_sentence(shared, spaces):
    with pytest.raises(InputError):
        list(shared.both_passes(shared.prepare("   ")))
    with pytest.raises(InputError):
        shared.compare("")
    assert not spaces.requests


def test_the_page_is_built_without_a_gpu(shared, spaces, tiny_settings):
    demo = build_demo(shared, "", replace(tiny_settings, zero_gpu=True, gpu_seconds=9))
    assert not spaces.requests
    assert demo is not None


def test_elsewhere_a_page_opens_with_an_answer(tiny_pair, tiny_settings, spaces):
    build_demo(Predictor(tiny_pair), "", tiny_settings)
    assert not spaces.requests


def test_everything_is_loaded_as_on_a_cpu_and_then_moved(tiny_settings, monkeypatch):
    import peft
    import torch

    moved = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(peft.PeftModel, "to", lambda self, device: moved.append(device))
    settings = replace(tiny_settings, device=None, precision="bf16", zero_gpu=True)
    pair = load_pair(settings)
    assert moved == ["cuda"]
    assert {parameter.device.type for parameter in pair.llama.parameters()} == {"cpu"}
    assert pair.llama.dtype == torch.bfloat16


@pytest.mark.parametrize("name", PROFILES)
def test_the_seconds_follow_the_profile_and_are_a_setting(name):
    assert Settings.from_env({}, profile=name).gpu_seconds == PROFILES[name].gpu_seconds
    assert Settings.from_env({"PRICER_GPU_SECONDS": "45"}, profile=name).gpu_seconds == 45


@pytest.mark.parametrize("value", ["0", "-3", "1e3", "121", "soon"])
def test_seconds_that_are_none(value):
    with pytest.raises(SetupError, match="PRICER_GPU_SECONDS"):
        Settings.from_env({"PRICER_GPU_SECONDS": value})


@pytest.mark.parametrize(("value", "holds"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_zero_gpu_is_read_as_spaces_reads_it(value, holds):
    assert Settings.from_env({"SPACES_ZERO_GPU": value}).zero_gpu is holds


@pytest.mark.parametrize(("value", "wanted"), [("", None), ("true", "the package")])
def test_spaces_is_used_on_zero_gpu_only(tmp_path, monkeypatch, value, wanted):
    (tmp_path / "spaces.py").write_text("GPU = 'the package'")
    monkeypatch.setenv("SPACES_ZERO_GPU", value)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    found = runpy.run_path(zero_gpu.__file__)["spaces"]
    sys.modules.pop("spaces", None)
    assert getattr(found, "GPU", None) == wanted
