"""Fast layers, in training and in inference, and weights that are dequantised once: the same numbers."""

from contextlib import nullcontext

import numpy as np
import peft
import pytest
import torch
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from pricer.llama.lean import make_lean, make_plain
from pricer.llama.quantised import dequantise_once
from train.lean import lean_layers
from train.recipe import ALL_LINEAR

HIDDEN, MIDDLE, RANK, LAYERS = 128, 448, 4, 2
SHAPE = LlamaConfig(
    vocab_size=300,
    hidden_size=HIDDEN,
    intermediate_size=MIDDLE,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=1,
    tie_word_embeddings=False,
)
IDS = torch.randint(0, 300, (3, 40), generator=torch.Generator().manual_seed(2))


def base(dtype=torch.float32):
    torch.manual_seed(0)
    return LlamaForCausalLM(SHAPE).to(dtype).requires_grad_(False)


def nf4_base():
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    options = {"dtype": torch.bfloat16, "quantization_config": quantisation}
    state = base(torch.bfloat16).state_dict()
    model = LlamaForCausalLM.from_pretrained(None, config=SHAPE, state_dict=state, **options)
    return model.requires_grad_(False)


def adapted(model, modules=ALL_LINEAR):
    """With an adapter in fp32 that does something, in training mode."""
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=modules, init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, config).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def trained(model, lean, checkpointing=False):
    """Loss and the adapter's gradients, under autocast as a trainer with bf16 has it where the base is bf16."""
    model.zero_grad()
    model.enable_input_require_grads()
    llama = model.get_base_model()
    for layer in llama.model.layers:
        layer.gradient_checkpointing = False
    if checkpointing:
        llama.gradient_checkpointing_enable()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=llama.dtype == torch.bfloat16)
    with lean_layers(model) if lean else nullcontext(), autocast:
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def off_by(gradients, reference):
    """Each tensor's relative distance."""
    assert gradients.keys() == reference.keys()
    return [float((gradients[n] - reference[n]).norm() / reference[n].norm()) for n in reference]


@pytest.mark.parametrize("modules", [ALL_LINEAR, ALL_LINEAR[:4], ["down_proj"], ["q_proj", "gate_proj"]])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lean_layers_have_pefts_loss_and_gradients(modules, checkpointing):
    model = adapted(base(), modules)
    loss, gradients = trained(model, lean=False)
    lean_loss, lean_gradients = trained(model, lean=True, checkpointing=checkpointing)
    torch.testing.assert_close(lean_loss, loss)
    assert max(off_by(lean_gradients, gradients)) < 1e-5


def test_in_bf16_they_round_no_worse_than_peft():
    """Both against the same weights in fp32."""
    model = adapted(base(torch.bfloat16))
    _, rounded = trained(model, lean=False)
    _, lean = trained(model, lean=True)
    _, exact = trained(model.float(), lean=False)
    assert 1e-3 < np.mean(off_by(rounded, exact)) < 0.1  # so that the comparison says something
    assert np.mean(off_by(lean, exact)) < 1.2 * np.mean(off_by(rounded, exact))


@pytest.mark.parametrize("lean", [False, True])
def test_dequantised_once_trains_on_the_very_numbers_of_nf4(lean):
    loss, gradients = trained(adapted(nf4_base()), lean)
    once = dequantise_once(nf4_base())
    assert {type(m).__name__ for n, m in once.named_modules() if n.endswith("_proj")} == {"Linear"}
    assert not any(parameter.requires_grad for parameter in once.parameters())
    assert not getattr(once, "is_quantized", False) and not once.is_loaded_in_4bit
    assert dequantise_once(once) is once
    once_loss, once_gradients = trained(adapted(once), lean)
    assert torch.equal(once_loss, loss)
    assert all(torch.equal(once_gradients[name], gradient) for name, gradient in gradients.items())


def test_what_they_keep_is_what_their_page_says():
    """Norms apart, which run as one kernel on CUDA alone: there their input is 4 of the 13 d."""
    kept = {}
    for lean in (False, True):
        model = adapted(base(torch.bfloat16))
        frozen = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        found = {}

        def keep(tensor, frozen=frozen, found=found):
            storage = tensor.untyped_storage()
            if tensor.dtype == torch.bfloat16 and storage.data_ptr() not in frozen:
                found[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            lean_layers(model) if lean else nullcontext(),
            torch.autocast("cpu", torch.bfloat16),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            hidden = model.get_base_model().model(input_ids=IDS, use_cache=False)
        kept[lean] = sum(found.values()) / IDS.numel() / LAYERS
        del hidden
    per_token = 9 * HIDDEN + 4 * MIDDLE + 7 * 2 * RANK
    assert per_token <= kept[True] < 1.05 * per_token  # and the angles of the positions, once
    assert kept[True] < 0.6 * kept[False]


def test_evaluation_goes_pefts_way_and_nothing_is_left_behind():
    model = adapted(base()).eval()
    with torch.no_grad():
        wanted = model(input_ids=IDS).logits
        with lean_layers(model):
            assert torch.equal(model(input_ids=IDS).logits, wanted)
    with pytest.raises(KeyboardInterrupt), lean_layers(model):
        raise KeyboardInterrupt
    assert not any("forward" in vars(module) for module in model.modules())


# --- in inference --------------------------------------------------------------------------------


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def counted(monkeypatch, kind):
    calls = []
    real = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *a, **k: calls.append(self) or real(self, *a, **k))
    return calls


@pytest.mark.parametrize("modules", [ALL_LINEAR, ALL_LINEAR[:4], ["down_proj"]])
def test_in_inference_they_give_pefts_numbers_with_the_adapter_on_and_off(modules, monkeypatch):
    plain_norms = counted(monkeypatch, LlamaRMSNorm)
    plain_lora = counted(monkeypatch, peft.tuners.lora.Linear)
    model = adapted(base(), modules).eval()
    wanted = logits(model)
    with model.disable_adapter():
        bare = logits(model)
    assert not torch.allclose(wanted, bare, atol=1e-2)
    assert plain_norms and plain_lora
    plain_norms.clear(), plain_lora.clear()
    make_lean(model)
    torch.testing.assert_close(logits(model), wanted, rtol=1e-5, atol=1e-5)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), bare, rtol=1e-5, atol=1e-5)
    assert not plain_norms and not plain_lora  # none went the plain way
    make_plain(model)
    assert torch.equal(logits(model), wanted) and plain_lora


def test_in_inference_over_nf4_they_give_what_the_numbers_in_it_give():
    def lean_logits(model):
        model = adapted(model).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
        return logits(make_lean(model)).float()

    packed, once = lean_logits(nf4_base()), lean_logits(dequantise_once(nf4_base()))
    assert (packed - once).abs().max() < 0.02 * once.abs().max()


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}])
def test_what_is_more_than_two_matrices_is_left_to_peft(options):
    config = peft.LoraConfig(
        r=RANK,
        target_modules=["q_proj", "down_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
        **options,
    )
    torch.manual_seed(1)
    model = peft.get_peft_model(base(), config).eval()
    wanted = logits(model)
    torch.testing.assert_close(logits(make_lean(model)), wanted, rtol=1e-5, atol=1e-5)
