"""The gate: adapters that work, to the last bit of the base pass, and a sentence for every model that must not answer."""

import copy
import json
import logging
import warnings

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pricer.errors import SetupError
from pricer.llama.gate import check_finite
from pricer.llama.pair import load_pair
from pricer.llama.predictor import Predictor
from pricer.settings import Settings

CAUSAL = {"task_type": "CAUSAL_LM"}
TARGETS = {"target_modules": ["q_proj", "v_proj"]}
IDS = torch.tensor([[5, 9, 30, 31, 7, 8, 40]])


@pytest.fixture(scope="module")
def tiny_base(tiny_model_folder):
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder / "base", dtype=torch.float32).eval()


@torch.inference_mode()
def logits(model):
    return model(IDS).logits


def trained(base, config, folder, **save):
    """What `base` answers with an adapter that does something, which is then in `folder`."""
    torch.manual_seed(3)
    model = peft.get_peft_model(copy.deepcopy(base), config).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, **{"save_embedding_layers": False, **save})
    return logits(model)


WORKING = {
    "plain": peft.LoraConfig(r=4, **TARGETS, **CAUSAL),
    "biases of the base, which has none": peft.LoraConfig(r=4, bias="all", **TARGETS, **CAUSAL),
    "no task": peft.LoraConfig(r=4, **TARGETS),
    "DoRA": peft.LoraConfig(r=4, use_dora=True, **TARGETS, **CAUSAL),
    "rsLoRA": peft.LoraConfig(r=4, lora_alpha=3, use_rslora=True, **TARGETS, **CAUSAL),
    "patterns": peft.LoraConfig(
        r=4, rank_pattern={"v_proj": 2}, alpha_pattern={"v_proj": 5}, **TARGETS, **CAUSAL
    ),
    "some layers": peft.LoraConfig(r=4, layers_to_transform=[1], **TARGETS, **CAUSAL),
    "a pattern of modules": peft.LoraConfig(r=4, target_modules=r".*layers\.0\.\w+\.[a-z]+_proj", **CAUSAL),
    "gaussian": peft.LoraConfig(r=4, init_lora_weights="gaussian", **TARGETS, **CAUSAL),
    "LoRA bias": peft.LoraConfig(r=4, lora_bias=True, **TARGETS, **CAUSAL),
    "norms saved": peft.LoraConfig(r=4, modules_to_save=["norm"], **TARGETS, **CAUSAL),
    "a layer saved": peft.LoraConfig(r=4, modules_to_save=["gate_proj"], **TARGETS, **CAUSAL),
    "head saved": peft.LoraConfig(r=4, modules_to_save=["lm_head"], **TARGETS, **CAUSAL),
    "on embedding and head": peft.LoraConfig(r=4, target_modules=["embed_tokens", "lm_head"], **CAUSAL),
    "some tokens": peft.LoraConfig(r=4, trainable_token_indices=[9, 30], **TARGETS, **CAUSAL),
    "LoHa": peft.LoHaConfig(r=4, **TARGETS, **CAUSAL),
    "LoKr": peft.LoKrConfig(r=4, **TARGETS, **CAUSAL),
    "IA3": peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **CAUSAL
    ),
    "OFT": peft.OFTConfig(r=0, oft_block_size=8, **TARGETS, **CAUSAL),
    "BOFT": peft.BOFTConfig(boft_block_size=4, **TARGETS, **CAUSAL),
    "VeRA": peft.VeraConfig(r=4, target_modules=["q_proj"], **CAUSAL),
    "norms": peft.LNTuningConfig(target_modules=["norm", "input_layernorm"], **CAUSAL),
}


@pytest.mark.parametrize("kind", WORKING)
def test_kinds_that_work(tiny_base, tiny_env, tmp_path, kind):
    wanted = trained(tiny_base, WORKING[kind], tmp_path)
    alone = logits(tiny_base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = load_pair(Settings.from_env(tiny_env(adapter=tmp_path)))
    for _ in range(2):
        with pair.use("base") as llama:
            assert torch.equal(logits(llama), alone) or (logits(llama) - alone).abs().max() < 1e-6
        with pair.use("tuned") as llama:
            assert (logits(llama) - wanted).abs().max() < 2e-5
    assert (wanted - alone).abs().max() > 0.01


def test_an_embedding_saved_along_but_not_changed_is_the_bases_own(tiny_base, tiny_env, tmp_path):
    wanted = trained(tiny_base, WORKING["on embedding and head"], tmp_path, save_embedding_layers=True)
    held = load_file(tmp_path / "adapter_model.safetensors")
    assert sum("lora" not in key for key in held) == 2
    pair = load_pair(Settings.from_env(tiny_env(adapter=tmp_path)))
    with pair.use("base") as llama:
        assert (logits(llama) - logits(tiny_base)).abs().max() < 1e-6
    with pair.use("tuned") as llama:
        assert (logits(llama) - wanted).abs().max() < 2e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (peft.PromptTuningConfig(num_virtual_tokens=8, **CAUSAL), "kind PROMPT_TUNING"),
        (peft.PrefixTuningConfig(num_virtual_tokens=8, **CAUSAL), "kind PREFIX_TUNING"),
        (peft.PromptEncoderConfig(num_virtual_tokens=8, encoder_hidden_size=8, **CAUSAL), "kind P_TUNING"),
        (peft.AdaLoraConfig(init_r=4, target_r=2, total_step=9, **TARGETS, **CAUSAL), "kind ADALORA"),
    ],
)
def test_kinds_that_do_not(tiny_base, refused, tmp_path, config, says):
    model = peft.get_peft_model(copy.deepcopy(tiny_base), config)
    model.save_pretrained(tmp_path)
    message = refused(adapter=tmp_path)
    assert says in message and "LORA" in message and str(tmp_path) in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task_type": "SEQ_CLS"}, "trained for SEQ_CLS"),
        ({"peft_type": None}, "of the kind None"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4 changed beforehand"),
        ({"init_lora_weights": "olora"}, "olora changed beforehand"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "repeats layers"),
        ({"target_modules": ["Wqkv", "c_attn"]}, "without the modules that it changes (Wqkv, c_attn)"),
        ({"target_modules": ["q_proj", "v_proj"]}, "4 tensors (model.layers.0.mlp.down_proj.lora_A.weight, "),
        ({"r": 8}, "lora_A.weight is 4 x 32, and 8 x 32 belongs there"),
        ({"r": 0}, "r"),
        ({"lora_alpha": float("nan")}, "answers with NaN or infinity"),
        ({"lora_alpha": "much"}, "adapter"),
        ({"use_dora": True}, "6 tensors (model.layers.0.mlp.down_proj.lora_magnitude_vector"),
    ],
)
def test_an_adapters_config_that_is_wrong(refused, adapter_copy, change, says):
    path = adapter_copy / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = refused(adapter=adapter_copy)
    assert says in message and str(adapter_copy) in message


def rewritten(path, change):
    """The file of tensors with `change` made to the dictionary of them."""
    tensors = load_file(path)
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})


def fill(value, where):
    def change(tensors):
        for name, tensor in tensors.items():
            if where in name:
                tensors[name] = tensor * value

    return change


def rename(old, new):
    def change(tensors):
        for name in [n for n in tensors if old in n]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return change


def cast(dtype):
    def change(tensors):
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    return change


def drop(part):
    def change(tensors):
        for name in [n for n in tensors if part in n]:
            del tensors[name]

    return change


def add(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            fill(float("nan"), "lora_B"),
            "NaN or infinity in 6 tensors (model.layers.0.self_attn.q_proj.lora_B",
        ),
        (fill(float("inf"), "layers.1.mlp"), "NaN or infinity in 2 tensors"),
        (fill(1e38, ""), "answers with NaN or infinity, though its weights are numbers"),
        (rename(".weight", ".default.weight"), "lora_A.default.weight, "),
        (rename("base_model.model.", ""), "in its file have no place in the base, and 12 tensors"),
        (drop("layers.0.mlp"), "2 tensors (model.layers.0.mlp.down_proj.lora_A.weight, "),
        (drop(""), "holds no tensors"),
        (cast(torch.int8), "(I8), "),
        (
            add("base_model.model.model.layers.0.mlp.x.weight", torch.ones(2)),
            "the tensor model.layers.0.mlp.x",
        ),
        (add("base_model.model.model.embed_tokens.weight", torch.ones(90, 32)), "brings 90 tokens"),
        (
            add("base_model.model.model.norm.weight", torch.ones(32) * 2),
            "the weight model.norm.weight of the base itself",
        ),
    ],
)
def test_an_adapters_tensors_that_are_wrong(refused, adapter_copy, change, says):
    rewritten(adapter_copy / "adapter_model.safetensors", change)
    message = refused(adapter=adapter_copy)
    assert says in message and str(adapter_copy) in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_an_adapter_in_another_precision_works(tiny_env, tiny_pair, adapter_copy, dtype):
    rewritten(adapter_copy / "adapter_model.safetensors", cast(dtype))
    pair = load_pair(Settings.from_env(tiny_env(adapter=adapter_copy)))
    with pair.use("tuned") as llama, tiny_pair.use("tuned") as given:
        assert {p.dtype for p in llama.parameters()} == {torch.float32}
        assert (logits(llama) - logits(given)).abs().max() < 0.1


def test_embeddings_saved_with_an_adapter_are_refused(tiny_base, refused, tmp_path):
    model = peft.get_peft_model(copy.deepcopy(tiny_base), peft.LoraConfig(r=4, **TARGETS, **CAUSAL))
    model.get_input_embeddings().weight.data.mul_(1.5)
    model.save_pretrained(tmp_path, save_embedding_layers=True)
    message = refused(adapter=tmp_path)
    assert (
        "the weight model.embed_tokens.weight of the base itself" in message
        and "save_embedding_layers=False" in message
    )


def test_an_adapter_of_a_base_with_more_tokens_names_both_counts(tiny_base, refused, tmp_path):
    larger = copy.deepcopy(tiny_base)
    rows = larger.vocab_size
    larger.resize_token_embeddings(rows + 8, mean_resizing=False)
    model = peft.get_peft_model(larger, peft.LoraConfig(r=4, **TARGETS, **CAUSAL))
    model.save_pretrained(tmp_path, save_embedding_layers=True)
    message = refused(adapter=tmp_path)
    assert f"{rows + 8:,} tokens" in message and f"the base has {rows:,}" in message


# --- the base ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop("lm_head"), "the weight lm_head.weight that its config asks for is in none of its files"),
        (
            rename("model.", "base_model.model.model."),
            "weights (model.embed_tokens.weight, ",
        ),
        (rename("layers.1.mlp.up_proj", "layers.1.mlp.up"), "weight model.layers.1.mlp.up_proj.weight"),
        (fill(float("nan"), "layers.0.mlp"), "NaN or infinity in 3 tensors (model.layers.0.mlp."),
        (cast(torch.int8), "tensors (lm_head.weight (I8), "),
        (cast(torch.float8_e4m3fn), "(F8_E4M3), "),
        (fill(float("inf"), "model.norm"), "NaN or infinity in the tensor model.norm.weight"),
        (fill(1e30, "proj"), "answers with NaN or infinity, though its weights are numbers"),
        (add("model.layers.2.mlp.up_proj.weight", torch.ones(64, 32)), "has no place"),
        (add("model.layers.0.self_attn.q_proj.bias", torch.ones(32)), "has no place"),
        (add("model.norm.weight", torch.ones(40)), "model.norm.weight as 40, and its config asks for 32"),
    ],
)
def test_a_bases_weights_that_are_wrong(refused, base_copy, change, says):
    rewritten(base_copy / "model.safetensors", change)
    message = refused(base_model=base_copy)
    assert says in message and str(base_copy) in message and "PRICER_BASE_MODEL" in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_hidden_layers": 1}, "has no place"),
        ({"num_hidden_layers": 3}, "in none of its files"),
        ({"intermediate_size": 80}, "its config asks for"),
        ({"vocab_size": 200}, "its config asks for 200 x 32"),
        ({"attention_bias": True}, "8 weights (model.layers.0.self_attn.k_proj.bias, "),
        ({"return_dict": False}, "gives no answer ("),
        ({"layer_types": ["sliding_attention"] * 2}, "gives no answer ("),
    ],
)
def test_a_bases_config_that_is_another_ones(refused, base_copy, change, says):
    path = base_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = refused(base_model=base_copy)
    assert says in message and "PRICER_BASE_MODEL" in message


@pytest.fixture
def sharded_base(tiny_base, base_copy):
    (base_copy / "model.safetensors").unlink()
    tiny_base.save_pretrained(base_copy, max_shard_size="30KB")
    assert len(list(base_copy.glob("*.safetensors"))) > 2
    return base_copy


def test_a_base_in_several_files(tiny_base, sharded_base, tiny_env):
    pair = load_pair(Settings.from_env(tiny_env(base_model=sharded_base)))
    with pair.use("base") as llama:
        assert (logits(llama) - logits(tiny_base)).abs().max() < 1e-6


@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "another's", "index"])
def test_a_base_of_which_one_file_is_damaged(sharded_base, refused, damage):
    shards = sorted(sharded_base.glob("*.safetensors"))
    if damage == "gone":
        shards[1].unlink()
    elif damage == "another's":
        shards[1].write_bytes(shards[0].read_bytes())
    elif damage == "index":
        (sharded_base / "model.safetensors.index.json").write_text("{")
    else:
        whole = shards[1].read_bytes()
        shards[1].write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    message = refused(base_model=sharded_base)
    assert str(sharded_base) in message and "PRICER_BASE_MODEL" in message


def test_a_base_that_brings_an_adapter_along_is_none(refused, base_copy, tiny_model_folder):
    for file in (tiny_model_folder / "adapter").glob("adapter_*"):
        (base_copy / file.name).write_bytes(file.read_bytes())
    message = refused(base_model=base_copy)
    assert "adapter_config.json" in message and "PRICER_ADAPTER" in message


def test_weights_whose_sum_overflows_are_numbers():
    check_finite([("large", torch.full((4,), 3e38))], "The base", "copy it again")


# --- the tokenizer -------------------------------------------------------------------------------


def appends(folder, token, before=()):
    """The folder's tokenizer from now on puts `token` behind every text."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    ids = {t["content"]: t["id"] for t in content["added_tokens"]} | content["model"]["vocab"]
    special = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in (*before, token)}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    one = [{"SpecialToken": {"id": name, "type_id": 0}} for name in (*before, token)]
    single = [*one[:-1], text, one[-1]]
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": special,
    }
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("before", [(), ("<s>",)])
def test_a_stop_behind_every_text_is_switched_off(tiny_env, tiny_pair, base_copy, before):
    appends(base_copy, "</s>", before)
    raw = AutoTokenizer.from_pretrained(base_copy)
    assert raw("Lamp")["input_ids"][-1] == raw.eos_token_id
    tokenizer = load_pair(Settings.from_env(tiny_env(base_model=base_copy))).tokenizer
    plain = tiny_pair.tokenizer("Lamp", add_special_tokens=False)["input_ids"]
    assert tokenizer("Lamp")["input_ids"] == [tokenizer.bos_token_id] * len(before) + plain


def test_another_token_behind_every_text_is_refused(refused, base_copy):
    appends(base_copy, "z", ("?",))
    message = refused(base_model=base_copy)
    assert "puts z behind every text" in message and str(base_copy) in message


def test_tokens_beyond_the_embedding_are_named(refused, base_copy):
    tokenizer = AutoTokenizer.from_pretrained(base_copy)
    tokenizer.add_tokens(["5000mAh", "Zoll"])
    tokenizer.save_pretrained(base_copy)
    message = refused(base_model=base_copy)
    assert "2 tokens ('5000mAh', 'Zoll') beyond the" in message and "rows of the model's embedding" in message


@pytest.mark.parametrize("character", ["7", "$"])
def test_a_tokenizer_without_what_prices_are_written_with_is_refused(refused, base_copy, character):
    path = base_copy / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["word"] = content["model"]["vocab"].pop(character)
    path.write_text(json.dumps(content))
    assert f"cannot write the character {character}" in refused(base_model=base_copy)


# --- what reaches the terminal -------------------------------------------------------------------


def test_a_pass_that_gives_no_numbers_ends_in_a_sentence_and_not_in_a_price(tiny_env, sentence):
    predictor = Predictor(load_pair(Settings.from_env(tiny_env())))
    with predictor.pair.use("base") as llama:
        llama.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(SetupError) as caught:
        predictor.compare("a lamp")
    assert "NaN" in sentence(caught)


def test_libraries_say_nothing_while_a_pair_is_loaded(in_another_process, tiny_env):
    out = in_another_process(
        """
import os, sys, warnings
sys.stderr = sys.stdout
warnings.simplefilter("always")
from pricer.__main__ import main
sys.exit(main(["a lamp"]))
""",
        **tiny_env(),
    )
    assert out.splitlines()[0].split() == ["Base", "Fine-tuned"] and len(out.splitlines()) == 7


def test_what_peft_warns_of_is_in_the_log(tiny_env, adapter_copy, caplog):
    path = adapter_copy / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of_a_later_peft": True}))
    with caplog.at_level(logging.INFO, logger="pricer"):
        load_pair(Settings.from_env(tiny_env(adapter=adapter_copy)))
    assert any("of_a_later_peft" in record.getMessage() for record in caplog.records)
