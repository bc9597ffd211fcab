"""The pair: one copy of the base, passes that never mix, and a sentence for every way loading can fail."""

import errno
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pricer.errors import SetupError
from pricer.llama import embedded
from pricer.llama import pair as model
from pricer.llama.adapter import Adapter, check_same_base, load_adapter_card
from pricer.llama.base import (
    ROOM_LEFT,
    choose_device,
    choose_precision,
    has_room_to_dequantise,
    load_base,
    loading_options,
)
from pricer.llama.embedded import EMBEDDED_BASE, prepare_embedded_base
from pricer.llama.lean import make_plain
from pricer.llama.pair import load_pair
from pricer.settings import ModelRef, Settings

ROOT = Path(__file__).parents[2]


def sentence(caught):
    """The error's message, which must be one line, end like a sentence and say what to do."""
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    assert any(word in message for word in ("set ", "copy ", "check ", "accept ", "free ", "correct ")), (
        message
    )
    assert "Traceback" not in message and len(message) < 700
    return message


def env(tiny_model_folder, **other):
    return {
        "PRICER_BASE_MODEL": str(tiny_model_folder / "base"),
        "PRICER_ADAPTER": str(tiny_model_folder / "adapter"),
        "PRICER_DEVICE": "cpu",
        **{f"PRICER_{name.upper()}": str(value) for name, value in other.items()},
    }


def refused(tiny_model_folder, **other):
    with pytest.raises(SetupError) as caught:
        load_pair(Settings.from_env(env(tiny_model_folder, **other)))
    return sentence(caught)


@pytest.fixture
def adapter_copy(tiny_model_folder, tmp_path):
    return Path(shutil.copytree(tiny_model_folder / "adapter", tmp_path / "adapter"))


@pytest.fixture
def base_copy(tiny_model_folder, tmp_path):
    return Path(shutil.copytree(tiny_model_folder / "base", tmp_path / "base"))


# --- one copy of the base ------------------------------------------------------------------------


def plain_parameters(llama):
    return {n: p for n, p in llama.named_parameters() if "lora_" not in n}


def check_one_copy(pair, folder):
    pointers = {}
    for which in ("base", "tuned"):
        with pair.use(which) as llama:
            assert isinstance(llama, LlamaForCausalLM)
            pointers[which] = {name: p.data_ptr() for name, p in plain_parameters(llama).items()}
    assert pointers["base"] == pointers["tuned"]

    alone = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    # Nothing but LoRA tensors was added, and they are small.
    llama = pair.llama
    assert sum(p.numel() for p in plain_parameters(llama).values()) == alone.num_parameters()
    added = sum(p.numel() for n, p in llama.named_parameters() if "lora_" in n)
    assert 0 < added < 0.2 * alone.num_parameters()
    assert not any(p.requires_grad for p in plain_parameters(llama).values()) and not llama.training

    ids = torch.tensor([pair.tokenizer("How much is a chair\n\nPrice is $")["input_ids"]])
    with torch.inference_mode():
        wanted = alone(ids).logits
    with pair.use("base") as llama:
        assert torch.allclose(llama(ids).logits, wanted, atol=1e-6, rtol=0)
    with pair.use("tuned") as llama:
        assert (llama(ids).logits - wanted).abs().max() > 0.01
    with pair.use("base") as llama:  # and the tuned pass left no trace
        assert torch.allclose(llama(ids).logits, wanted, atol=1e-6, rtol=0)


def test_one_copy_of_the_base_and_its_pass_is_the_plain_model(tiny_pair, tiny_model_folder):
    check_one_copy(tiny_pair, tiny_model_folder / "base")


@pytest.mark.base
def test_one_copy_of_the_embedded_base(embedded_pair):
    check_one_copy(embedded_pair, prepare_embedded_base(Settings.from_env({}).cache))


@pytest.mark.base
def test_the_embedded_base_is_what_it_says(embedded_pair):
    config = embedded_pair.llama.config
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("llama", 30, 576)
    assert embedded_pair.llama.dtype == torch.float32 and embedded_pair.device.type == "cpu"
    tokenizer = embedded_pair.tokenizer
    tail = tokenizer("Price is $")["input_ids"]
    assert [tokenizer.decode([i]) for i in tokenizer("Price is $1299")["input_ids"][len(tail) :]] == list(
        "1299"
    )
    ids = torch.tensor([tokenizer("The capital of France is")["input_ids"]])
    with embedded_pair.use("base") as llama:
        assert tokenizer.decode(llama(ids).logits[0, -1].argmax()) == " Paris"


def test_only_base_and_tuned_are_passes(tiny_pair):
    with pytest.raises(ValueError, match="base"), tiny_pair.use("both"):
        pass


def logits(llama):
    return llama(torch.arange(3, 20)[None]).logits


def test_a_failing_pass_leaves_the_pair_as_it_was(tiny_pair):
    with tiny_pair.use("tuned") as llama:
        tuned = logits(llama)
    for which in ("base", "tuned"):
        with pytest.raises(RuntimeError, match="boom"), tiny_pair.use(which):
            raise RuntimeError("boom")
        with tiny_pair.use("tuned") as llama:
            assert torch.equal(logits(llama), tuned)


def test_a_pass_waits_for_the_other_to_end(tiny_pair):
    inside, answers = threading.Event(), []

    def base_pass():
        with tiny_pair.use("base") as llama:
            inside.set()
            answers.append(logits(llama))

    with tiny_pair.use("tuned") as llama:
        before = logits(llama)
        thread = threading.Thread(target=base_pass)
        thread.start()
        assert not inside.wait(0.2)  # it stands at the door
        assert torch.equal(logits(llama), before)
    thread.join(30)
    assert inside.is_set() and not torch.equal(answers[0], before)


# --- device and precision ------------------------------------------------------------------------


def with_card(monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)


def test_the_device_is_cuda_when_there_is_one(monkeypatch):
    settings = Settings.from_env({})
    with_card(monkeypatch, False)
    assert choose_device(settings) == "cpu"
    assert choose_device(replace(settings, device="cpu")) == "cpu"
    with pytest.raises(SetupError) as caught:
        choose_device(replace(settings, device="cuda"))
    assert "PRICER_DEVICE" in sentence(caught)
    with_card(monkeypatch, True)
    assert choose_device(settings).startswith("cuda")
    assert choose_device(replace(settings, device="cpu")) == "cpu"


@pytest.mark.parametrize("profile", ["embedded", "llama-8b", "llama-3b"])
def test_a_cpu_computes_in_fp32_and_nothing_else(monkeypatch, profile):
    with_card(monkeypatch, False)
    settings = Settings.from_env({}, profile=profile)
    assert choose_precision(settings, "cpu") == "fp32"
    assert choose_precision(replace(settings, precision="fp32"), "cpu") == "fp32"
    for precision in ("nf4", "bf16"):
        with pytest.raises(SetupError) as caught:
            choose_precision(replace(settings, precision=precision), "cpu")
        message = sentence(caught)
        assert f"PRICER_PRECISION={precision}" in message and "CUDA" in message and "fp32" in message


def test_loading_in_nf4_on_a_cpu_is_refused(tiny_model_folder):
    assert "CUDA" in refused(tiny_model_folder, precision="nf4")
    assert "CUDA" in refused(tiny_model_folder, precision="bf16")


def test_precision_on_a_card_goes_by_settings_then_by_profile(monkeypatch):
    with_card(monkeypatch, True)
    small, large = (Settings.from_env({}, profile=name) for name in ("embedded", "llama-8b"))
    assert choose_precision(small, "cuda") == "fp32"
    assert choose_precision(large, "cuda") == "nf4"
    for precision in ("fp32", "bf16", "nf4"):
        assert choose_precision(replace(small, precision=precision), "cuda") == precision
        assert choose_precision(replace(large, precision=precision), "cuda") == precision


def test_zerogpu_has_no_bitsandbytes_so_it_computes_in_bf16(monkeypatch):
    with_card(monkeypatch, True)
    zero = {"SPACES_ZERO_GPU": "true"}
    assert choose_precision(Settings.from_env(zero, profile="llama-8b"), "cuda") == "bf16"
    assert choose_precision(Settings.from_env(zero), "cuda") == "fp32"
    with pytest.raises(SetupError) as caught:
        choose_precision(Settings.from_env(zero | {"PRICER_PRECISION": "nf4"}), "cuda")
    assert "PRICER_PRECISION" in sentence(caught) and "bf16" in sentence(caught)


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_card_without_bf16_computes_nf4_in_fp16(monkeypatch, native, dtype):
    with_card(monkeypatch, True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    options = loading_options("cuda", "nf4")
    assert options["dtype"] == options["quantization_config"].bnb_4bit_compute_dtype == dtype
    assert loading_options("cuda", "bf16")["dtype"] == torch.bfloat16  # as asked


def test_the_adapter_has_the_dtype_that_the_base_computes_in(tiny_settings, monkeypatch):
    import peft

    def lora(pair):
        return {name: p for name, p in pair.llama.named_parameters() if ".lora_" in name}

    exact = load_pair(tiny_settings)
    assert {p.dtype for p in lora(exact).values()} == {torch.float32}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(peft.PeftModel, "to", lambda self, device: self)
    pair = load_pair(replace(tiny_settings, device=None, precision="bf16", zero_gpu=True))
    assert {p.dtype for p in lora(pair).values()} == {torch.bfloat16}
    # What that rounds off is little beside what bf16 rounds off the base.
    ids = torch.tensor([pair.tokenizer("How much is a chair\n\nPrice is $")["input_ids"]])
    with exact.use("tuned") as llama:
        wanted = llama(ids).logits.softmax(-1)
    with pair.use("tuned") as llama:
        got = llama(ids).logits.float().softmax(-1)
        for name, parameter in lora(pair).items():
            parameter.data = lora(exact)[name].data
        make_plain(llama)  # peft's own layers take both dtypes
        with_fp32_adapter = llama(ids).logits.float().softmax(-1)
    assert (got - with_fp32_adapter).abs().max() < 2 * (with_fp32_adapter - wanted).abs().max()


@pytest.fixture
def nf4_base(tiny_model_folder, monkeypatch):
    """The tiny base in NF4. On a CPU bitsandbytes packs weights anew for some processors, where they are first used;
    not here, since on a card it does not."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    made = bitsandbytes.nn.Linear4bit.__init__

    def unpacked(self, *args, **options):
        made(self, *args, **options)
        self.support_avx512bf16_for_cpu = False

    monkeypatch.setattr(bitsandbytes.nn.Linear4bit, "__init__", unpacked)
    options = loading_options("cpu", "nf4")
    return LlamaForCausalLM.from_pretrained(tiny_model_folder / "base", **options).eval()


def nf4_pair(base, settings, tokenizer, monkeypatch, **changes):
    monkeypatch.setattr(model, "choose_precision", lambda settings, device: "nf4")
    return load_pair(replace(settings, **changes), (base, tokenizer))


def test_a_dequantised_base_gives_what_the_nf4_one_gives(nf4_base, tiny_settings, tiny_pair, monkeypatch):
    ids = torch.tensor([tiny_pair.tokenizer("How much is a chair\n\nPrice is $")["input_ids"]])
    packed = nf4_pair(nf4_base, tiny_settings, tiny_pair.tokenizer, monkeypatch)
    wanted = {}
    for which in ("base", "tuned"):
        with packed.use(which) as llama:
            wanted[which] = llama(ids).logits
    kinds = {type(module).__name__ for module in packed.llama.modules()}
    assert "Linear4bit" in kinds  # a base that was handed in stays as it is, unless told otherwise
    base = packed._peft_model.unload()
    small = base.get_memory_footprint()
    pair = nf4_pair(base, tiny_settings, tiny_pair.tokenizer, monkeypatch, dequantise=True)
    assert "Linear4bit" not in {type(module).__name__ for module in pair.llama.modules()}
    assert pair.llama.get_memory_footprint() > small
    assert {p.dtype for p in pair.llama.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in pair.llama.parameters())
    for which in ("base", "tuned"):
        with pair.use(which) as llama:
            assert torch.equal(llama(ids).logits, wanted[which])
    assert not torch.equal(wanted["base"], wanted["tuned"])


def test_the_card_must_have_room_for_dequantising(nf4_base, tiny_settings, monkeypatch):
    packed = [m for m in nf4_base.modules() if type(m).__name__ == "Linear4bit"]
    weights = sum(m.in_features * m.out_features for m in packed)
    more = 2 * weights - sum(m.weight.nbytes for m in packed)
    assert 1.4 * weights < more < 1.6 * weights  # 16 bits in place of 4
    assert not has_room_to_dequantise(nf4_base)  # on a CPU it stays as it is
    monkeypatch.setattr(LlamaForCausalLM, "device", torch.device("cuda"))
    for free, enough in ((ROOM_LEFT + more, True), (ROOM_LEFT + more - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80 * 2**30))
        assert has_room_to_dequantise(nf4_base) is enough
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * 2**30, 80 * 2**30))
    fresh = LlamaForCausalLM(AutoConfig.from_pretrained(tiny_settings.base.name))
    assert not has_room_to_dequantise(fresh)  # there is nothing to work out


def in_another_process(script, *arguments, **variables):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_on_a_cpu_bitsandbytes_is_never_imported_and_peft_works_afterwards(tiny_model_folder):
    out = in_another_process(
        """
import sys
from pricer.llama.pair import load_pair
from pricer.settings import Settings

pair = load_pair(Settings.from_env())
print("bitsandbytes" in sys.modules)
import peft, peft.import_utils
from importlib.util import find_spec
print(peft.import_utils.is_bnb_available() == (find_spec("bitsandbytes") is not None))
from transformers import LlamaForCausalLM
import os
fresh = LlamaForCausalLM.from_pretrained(os.environ["PRICER_BASE_MODEL"])
lora = peft.get_peft_model(fresh, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
print(sum(p.requires_grad for p in lora.parameters()))
""",
        **env(tiny_model_folder),
    )
    assert out.split() == ["False", "True", "4"]


# --- the adapter ---------------------------------------------------------------------------------


def test_the_adapters_folder_says_what_it_was_trained_on(tiny_model_folder, adapter_copy):
    settings = Settings.from_env(
        env(tiny_model_folder, adapter=adapter_copy, question="Asked by the profile?")
    )
    (adapter_copy / "pricer.json").write_text('{"question": "Asked in training?", "max_text_tokens": 77}')
    card = load_adapter_card(settings)
    assert (card.question, card.max_text_tokens) == ("Asked in training?", 77)
    assert card.base_model == str(tiny_model_folder / "base") and card.folder == adapter_copy
    (adapter_copy / "pricer.json").unlink()  # an adapter of others has none: the settings' word counts
    card = load_adapter_card(settings)
    assert (card.question, card.max_text_tokens) == ("Asked by the profile?", 160)


@pytest.mark.parametrize("place", ["/nowhere/adapter", "./nowhere", "~/nowhere-at-all", "adapter", "a/b/c"])
def test_no_adapter_there(tiny_model_folder, place):
    message = refused(tiny_model_folder, adapter=place)
    assert place in message and "PRICER_ADAPTER" in message and "train" in message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter(tiny_model_folder, adapter_copy, name):
    (adapter_copy / name).unlink()
    # The old pickle form is no substitute: it is never loaded.
    (adapter_copy / "adapter_model.bin").write_bytes(b"pickle")
    message = refused(tiny_model_folder, adapter=adapter_copy)
    assert name in message and "PRICER_ADAPTER" in message


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "\x00\xff"])
@pytest.mark.parametrize("name", ["adapter_config.json", "pricer.json"])
def test_a_corrupted_json_file(tiny_model_folder, adapter_copy, name, content):
    (adapter_copy / name).write_bytes(content.encode("latin-1"))
    message = refused(tiny_model_folder, adapter=adapter_copy)
    assert name in message and "copy the adapter again" in message


@pytest.mark.parametrize("content", ["{}", '{"peft_type": "NONSENSE"}', '{"peft_type": "LORA", "r": "x"}'])
def test_an_adapter_config_that_is_json_but_no_adapter(tiny_model_folder, adapter_copy, content):
    (adapter_copy / "adapter_config.json").write_text(content)
    assert "adapter" in refused(tiny_model_folder, adapter=adapter_copy)


@pytest.mark.parametrize(
    "card",
    [{"max_text_tokens": v} for v in ("many", None, 0, -3, 1.5, True, [160])]
    + [{"question": v} for v in (None, 7)],
)
def test_a_card_with_wrong_values(tiny_model_folder, adapter_copy, card):
    (adapter_copy / "pricer.json").write_text(json.dumps(card))
    assert "pricer.json" in refused(tiny_model_folder, adapter=adapter_copy)


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_a_cut_short_adapter(tiny_model_folder, adapter_copy, keep):
    file = adapter_copy / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    message = refused(tiny_model_folder, adapter=adapter_copy)
    assert str(adapter_copy) in message and "copy it again" in message


def test_an_adapter_of_another_base_by_name():
    def card(name):
        return Adapter(Path("my-adapter"), name, "?", 160)

    with pytest.raises(SetupError) as caught:
        check_same_base(ModelRef(EMBEDDED_BASE), card("meta-llama/Llama-3.1-8B"))
    message = sentence(caught)
    assert "PRICER_BASE_MODEL=meta-llama/Llama-3.1-8B" in message and EMBEDDED_BASE in message
    with pytest.raises(SetupError):
        check_same_base(ModelRef("meta-llama/Llama-3.1-8B-Instruct"), card("meta-llama/Llama-3.1-8B"))
    for other_name in (
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Meta-Llama-3.1-8B",
        "unsloth/Meta-Llama-3.1-8B-bnb-4bit",
        "unsloth/llama-3.1-8b-unsloth-bnb-4bit",
        "",  # not said
    ):
        check_same_base(ModelRef("meta-llama/Llama-3.1-8B", "rev"), card(other_name))


def test_another_base_by_name_is_found_out_before_the_base_is_loaded(
    tiny_model_folder, adapter_copy, monkeypatch
):
    config = json.loads((adapter_copy / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "meta-llama/Llama-3.1-8B"
    (adapter_copy / "adapter_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(model, "load_base", lambda *_: pytest.fail("loaded"))
    message = refused(tiny_model_folder, adapter=adapter_copy, base_model=EMBEDDED_BASE)
    assert "was trained on meta-llama/Llama-3.1-8B" in message


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")  # peft only warns
@pytest.mark.parametrize(
    "change", [{"hidden_size": 48, "head_dim": 12}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}]
)
def test_an_adapter_of_another_base_by_shape(tiny_model_folder, base_copy, change):
    config = AutoConfig.from_pretrained(base_copy)
    for name, value in change.items():
        setattr(config, name, value)
    LlamaForCausalLM(config).save_pretrained(base_copy)
    message = refused(tiny_model_folder, base_model=base_copy)
    assert "made for another base model" in message and "PRICER_BASE_MODEL" in message


# --- the base ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/nowhere/base", "./nowhere", "~/nowhere-at-all", "x" * 300])
def test_no_base_folder_there(tiny_model_folder, place):
    message = refused(tiny_model_folder, base_model=place)
    assert place in message and "PRICER_BASE_MODEL" in message


def test_an_empty_base_folder(tiny_model_folder, tmp_path):
    message = refused(tiny_model_folder, base_model=tmp_path)
    assert str(tmp_path) in message and "PRICER_BASE_MODEL" in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_damaged_base_folder(tiny_model_folder, base_copy, name, damage):
    file = base_copy / name
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size // 2)
    message = refused(tiny_model_folder, base_model=base_copy)
    assert str(base_copy) in message and "PRICER_BASE_MODEL" in message


def test_a_base_that_is_no_llama(tiny_model_folder, base_copy):
    config = json.loads((base_copy / "config.json").read_text())
    (base_copy / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    message = refused(tiny_model_folder, base_model=base_copy)
    assert "is a gpt2 model" in message and "Llama" in message and "PRICER_BASE_MODEL" in message


def test_a_card_too_small_says_so_and_leaves_the_prepared_base_alone(fake_embedded, monkeypatch):
    settings, conversions = fake_embedded
    load_base(settings, "cpu", "fp32")

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(SetupError) as caught:
        load_base(settings, "cpu", "fp32")
    assert "too little memory" in sentence(caught)
    assert len(conversions) == 1 and prepared(settings).is_dir()


# --- the Hub -------------------------------------------------------------------------------------

HUB_ANSWERS = {  # name of the model: status, error code, message
    "gated": (403, "GatedRepo", "Access to model owner/gated is restricted."),
    "unknown": (404, "RepoNotFound", "Repository not found"),
    "norev": (404, "RevisionNotFound", "Invalid rev id"),
    "token": (401, None, "Invalid credentials in Authorization header"),
    "broken": (500, None, "Internal error"),
}


@pytest.fixture
def fake_hub():
    """A server on this machine that refuses as the Hub does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = next((name for name in HUB_ANSWERS if f"/{name}" in self.path), "unknown")
            status, code, message = HUB_ANSWERS[name]
            body = json.dumps({"error": message}).encode()
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_the_hub_refuses_is_said_with_what_to_do(fake_hub, tiny_model_folder, tmp_path):
    """The real huggingface_hub against a server that answers as the Hub does, for base and adapter."""
    cases = [(v, name) for name in HUB_ANSWERS for v in ("BASE_MODEL", "ADAPTER")]
    cases.remove(("BASE_MODEL", "broken"))  # transformers tries for 20 seconds
    out = in_another_process(
        """
import json, os, sys
from pricer.errors import SetupError
from pricer.llama.pair import load_pair
from pricer.settings import Settings

answers = []
for variable, name in json.loads(sys.argv[1]):
    try:
        load_pair(Settings.from_env({**os.environ, f"PRICER_{variable}": f"owner/{name}"}))
    except SetupError as error:
        answers.append(str(error))
print(json.dumps(answers))
""",
        json.dumps(cases),
        **env(tiny_model_folder),
        HF_ENDPOINT=fake_hub,
        HF_HUB_OFFLINE="0",
        HF_HOME=str(tmp_path),
        HF_TOKEN="hf_wrong",
    )
    answers = dict(zip(cases, json.loads(out.splitlines()[-1]), strict=True))
    for (variable, name), message in answers.items():
        assert "\n" not in message and message.endswith("."), message
        assert f"owner/{name}" in message
        if name == "gated":
            assert message == "No access to owner/gated: accept its licence on its page, then set HF_TOKEN."
        elif name == "token":
            assert "HF_TOKEN" in message
        else:
            assert f"PRICER_{variable}" in message
            assert ("does not answer" if name == "broken" else "knows no") in message


def test_the_hub_does_not_answer(tiny_model_folder):
    # HF_HUB_OFFLINE is set for all tests: the same error class as a Hub out of reach.
    for variable in ("base_model", "adapter"):
        message = refused(tiny_model_folder, **{variable: "owner/llama@v1"})
        assert (
            "does not answer" in message and "network" in message and f"PRICER_{variable.upper()}" in message
        )


def hub_errors():
    import httpx
    from huggingface_hub import errors

    request = httpx.Request("GET", "https://huggingface.co/api/models/owner/llama")

    def http_error(kind, status):
        return kind(f"{status} Client Error.\n\nDetails", response=httpx.Response(status, request=request))

    return [
        (http_error(errors.GatedRepoError, 403), "accept its licence"),
        (http_error(errors.RepositoryNotFoundError, 404), "knows no owner/llama"),
        (http_error(errors.RevisionNotFoundError, 404), "knows no owner/llama"),
        (errors.LocalEntryNotFoundError("not in the cache"), "does not answer"),
        (errors.OfflineModeIsEnabled("offline"), "does not answer"),
        (TimeoutError("timed out"), "does not answer"),
        (ConnectionResetError(104, "reset"), "does not answer"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space"),
        (RuntimeError("something else\nwith details"), "something else"),
        (ValueError(""), "ValueError"),
    ]


@pytest.mark.parametrize("case", range(10))
def test_errors_while_fetching_an_adapter(tiny_model_folder, monkeypatch, case):
    error, says = hub_errors()[case]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert says in refused(tiny_model_folder, adapter="owner/llama")


@pytest.mark.parametrize("case", range(8))
def test_errors_while_fetching_a_base(tiny_model_folder, monkeypatch, case):
    error, says = hub_errors()[case]

    def fail(*_, **__):  # transformers wraps what the Hub's client raises
        raise OSError("You are trying to access a model.\nMake sure that ...") from error

    monkeypatch.setattr(AutoConfig, "from_pretrained", fail)
    assert says in refused(tiny_model_folder, base_model="owner/llama")


def test_only_an_adapters_own_files_are_fetched(tiny_model_folder, monkeypatch):
    asked = {}

    def fetch(repo, **options):
        asked.update(options, repo=repo)
        return str(tiny_model_folder / "adapter")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    load_adapter_card(Settings.from_env({"PRICER_ADAPTER": "owner/llama@v2"}))
    assert (asked["repo"], asked["revision"]) == ("owner/llama", "v2")
    assert not any(
        Path(name).match(p) for p in asked["allow_patterns"] for name in ("training_args.bin", "x.py")
    )


# --- preparing the embedded base -----------------------------------------------------------------


def prepared(settings):
    return settings.cache / embedded._CACHE_NAME


@pytest.fixture
def fake_embedded(monkeypatch, tmp_path, tiny_model_folder):
    """Settings with an empty cache, and a conversion that takes no time: it copies the tiny base."""
    conversions = []

    def convert(source, target):
        conversions.append(target)
        shutil.copytree(tiny_model_folder / "base", target, dirs_exist_ok=True)

    monkeypatch.setattr(embedded, "_GGUF_PACKAGE", "json")  # any package that is installed
    monkeypatch.setattr(embedded, "_convert_gguf", convert)
    settings = Settings.from_env({"PRICER_CACHE": str(tmp_path / "a" / "cache"), "PRICER_DEVICE": "cpu"})
    return settings, conversions


def leftovers(settings):
    return [path.name for path in settings.cache.iterdir() if path != prepared(settings)]


def test_the_base_is_prepared_once(fake_embedded):
    settings, conversions = fake_embedded
    for _ in range(3):
        base, tokenizer = load_base(settings, "cpu", "fp32")
        assert isinstance(base, LlamaForCausalLM) and tokenizer("Price")["input_ids"]
    assert len(conversions) == 1 and leftovers(settings) == []


def test_without_the_package_the_hub_is_asked(fake_embedded, monkeypatch):
    settings, conversions = fake_embedded
    monkeypatch.setattr(embedded, "_GGUF_PACKAGE", "no_such_package")
    assert prepare_embedded_base(settings.cache) is None
    with pytest.raises(SetupError) as caught:
        load_base(settings, "cpu", "fp32")
    assert EMBEDDED_BASE in sentence(caught) and "does not answer" in str(caught.value)
    assert conversions == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_corrupted_prepared_base_is_prepared_again(fake_embedded, name, damage):
    settings, conversions = fake_embedded
    load_base(settings, "cpu", "fp32")
    file = prepared(settings) / name
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size // 2)
    base, _ = load_base(settings, "cpu", "fp32")
    assert isinstance(base, LlamaForCausalLM)
    assert len(conversions) == 2 and leftovers(settings) == []


def test_an_empty_prepared_folder_is_prepared_again(fake_embedded):
    settings, conversions = fake_embedded
    prepared(settings).mkdir(parents=True)
    load_base(settings, "cpu", "fp32")
    assert len(conversions) == 1


def test_a_conversion_that_is_broken_itself_ends_with_a_sentence(fake_embedded, monkeypatch):
    settings, _ = fake_embedded
    monkeypatch.setattr(
        embedded, "_convert_gguf", lambda source, target: (target / "config.json").write_text("{")
    )
    with pytest.raises(SetupError) as caught:
        load_base(settings, "cpu", "fp32")
    sentence(caught)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        # What safetensors and tokenizers raise when the disk is full:
        safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        Exception("No space left on device (os error 28)"),
    ],
)
def test_a_full_disk(fake_embedded, monkeypatch, error):
    settings, _ = fake_embedded

    def full(source, target):
        (target / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(embedded, "_convert_gguf", full)
    with pytest.raises(SetupError) as caught:
        load_base(settings, "cpu", "fp32")
    message = sentence(caught)
    assert str(settings.cache) in message and "600 MB" in message and "PRICER_CACHE" in message
    assert ("No space" in message) or ("quota" in message)
    assert not prepared(settings).exists() and leftovers(settings) == []


@pytest.mark.parametrize("where", ["a file", "under a file", "too long a name"])
def test_a_cache_that_cannot_be_written(fake_embedded, tmp_path, where):
    settings, conversions = fake_embedded
    (tmp_path / "file").touch()
    cache = {
        "a file": tmp_path / "file",
        "under a file": tmp_path / "file" / "cache",
        "too long a name": tmp_path / ("x" * 300),
    }[where]
    with pytest.raises(SetupError) as caught:
        load_base(replace(settings, cache=cache), "cpu", "fp32")
    message = sentence(caught)
    assert str(cache) in message and "PRICER_CACHE" in message
    assert conversions == []


def test_a_cache_of_somebody_else(fake_embedded, tmp_path):
    """Neither listed nor written: tried as another user, for root may do anything."""
    settings, _ = fake_embedded
    settings.cache.mkdir(parents=True)
    settings.cache.chmod(0o700)
    tmp_path.chmod(0o755)

    def as_nobody():
        if os.getuid() == 0:
            os.setuid(65534)
        else:
            settings.cache.chmod(0)
        with pytest.raises(SetupError) as caught:
            prepare_embedded_base(settings.cache)
        assert "PRICER_CACHE" in sentence(caught)

    assert finished(fork(as_nobody)) == 0
    settings.cache.chmod(0o700)


def fork(function):
    """A second process as it is at this moment, for `function` alone; its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        function()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def finished(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def half_then_wait(files, told, go):
    """A conversion that writes half its files, tells so, and waits for `go` to be closed."""

    def convert(source, target):
        names = sorted(path.name for path in files.iterdir())
        for name in names[: len(names) // 2]:
            shutil.copy(files / name, target)
        os.write(told, b"x")
        os.read(go, 1)
        for name in names[len(names) // 2 :]:
            shutil.copy(files / name, target)

    return convert


def test_two_processes_preparing_at_once(fake_embedded, tiny_model_folder, monkeypatch):
    settings, _ = fake_embedded
    (heard, told), (go, going) = os.pipe(), os.pipe()
    monkeypatch.setattr(embedded, "_convert_gguf", half_then_wait(tiny_model_folder / "base", told, go))

    def prepare():
        os.close(going)
        assert prepare_embedded_base(settings.cache) == prepared(settings)

    pids = [fork(prepare) for _ in range(3)]
    for _ in pids:  # all three are in the middle
        assert os.read(heard, 1) == b"x"
    assert not prepared(settings).exists() and len(leftovers(settings)) == 3
    os.close(going)
    assert [finished(pid) for pid in pids] == [0, 0, 0]
    assert leftovers(settings) == []
    monkeypatch.setattr(embedded, "_convert_gguf", lambda *_: pytest.fail("it is there already"))
    assert isinstance(load_base(settings, "cpu", "fp32")[0], LlamaForCausalLM)


def test_a_kill_in_the_middle_leaves_no_broken_cache(fake_embedded, tiny_model_folder, monkeypatch):
    settings, conversions = fake_embedded
    (heard, told), (go, _going) = os.pipe(), os.pipe()
    quick = embedded._convert_gguf
    monkeypatch.setattr(embedded, "_convert_gguf", half_then_wait(tiny_model_folder / "base", told, go))
    pid = fork(lambda: prepare_embedded_base(settings.cache))
    assert os.read(heard, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    assert finished(pid) == -signal.SIGKILL
    assert not prepared(settings).exists()
    (left,) = leftovers(settings)

    monkeypatch.setattr(embedded, "_convert_gguf", quick)
    assert isinstance(load_base(settings, "cpu", "fp32")[0], LlamaForCausalLM)
    assert len(conversions) == 1
    assert leftovers(settings) == [left]  # young: it might be another process at work
    os.utime(settings.cache / left, (0, 0))
    shutil.rmtree(prepared(settings))
    load_base(settings, "cpu", "fp32")
    assert leftovers(settings) == []  # old: swept up


def test_what_another_process_sweeps_up_meanwhile_is_no_error(fake_embedded, monkeypatch):
    settings, _ = fake_embedded
    settings.cache.mkdir(parents=True)
    listed = Path.glob

    def glob(self, pattern):
        found = list(listed(self, pattern))
        return [*found, self / ".preparing-gone"]

    monkeypatch.setattr(Path, "glob", glob)
    assert prepare_embedded_base(settings.cache) == prepared(settings)


def test_the_conversion_keeps_the_weights(monkeypatch, tmp_path, digit_tokenizer):
    """`_convert_gguf` without its slow reading: a model read from GGUF is saved as a plain Llama."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=80, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    read = LlamaForCausalLM(config)
    read.config.quantization_config = {"quant_method": "gguf"}
    monkeypatch.setattr(embedded.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: read)
    monkeypatch.setattr(embedded.AutoTokenizer, "from_pretrained", lambda *_, **__: digit_tokenizer)
    pre_tokenizer = digit_tokenizer.backend_tokenizer.pre_tokenizer
    try:
        embedded._convert_gguf(tmp_path, tmp_path)
    finally:
        digit_tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    plain = LlamaForCausalLM.from_pretrained(tmp_path)
    assert not hasattr(plain.config, "quantization_config")
    for name, tensor in read.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor), name
