"""The pair: one copy of the base, and passes that never mix."""

import threading
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from pricer.llama import pair as model
from pricer.llama.base import (
    ROOM_LEFT,
    has_room_to_dequantise,
    loading_options,
)
from pricer.llama.embedded import prepare_embedded_base
from pricer.llama.lean import make_plain
from pricer.llama.pair import load_pair
from pricer.settings import Settings


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
    # Packed weights sum in another order; either is some 8e-5 from what fp64 gives.
    with pair.use("base") as llama:
        assert torch.allclose(llama(ids).logits, wanted, atol=3e-4, rtol=0)
    with pair.use("tuned") as llama:
        assert (llama(ids).logits - wanted).abs().max() > 0.01
    with pair.use("base") as llama:  # and the tuned pass left no trace
        assert torch.allclose(llama(ids).logits, wanted, atol=3e-4, rtol=0)


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


def test_on_a_cpu_what_only_costs_time_is_never_imported_and_peft_works_afterwards(
    tiny_env, in_another_process
):
    out = in_another_process(
        """
import sys
from pricer.llama.predictor import load_predictor
from pricer.settings import Settings

predictor = load_predictor(Settings.from_env())
slow = {"bitsandbytes", "datasets", "gradio", "pandas", "plotly", "pyarrow", "sklearn"}
print(slow.isdisjoint(sys.modules) or slow & sys.modules.keys())
import peft, peft.import_utils
from importlib.util import find_spec
print(peft.import_utils.is_bnb_available() == (find_spec("bitsandbytes") is not None))
from transformers import LlamaForCausalLM
import os
fresh = LlamaForCausalLM.from_pretrained(os.environ["PRICER_BASE_MODEL"])
lora = peft.get_peft_model(fresh, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
print(sum(p.requires_grad for p in lora.parameters()))
""",
        **tiny_env(),
    )
    assert out.splitlines() == ["True", "True", "4"]
