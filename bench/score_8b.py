"""Scoring in the shape of Llama 3.1 8B on one card, against the seed's way and against the card's arithmetic.

    python -m bench.score_8b --tokenizer FOLDER --out out/score-8b

FOLDER holds a Llama 3 tokenizer. The base is of random weights in NF4, with a random LoRA adapter (r 32 on the
attention's four layers, like the seed's): one layer is quantised and serves 32 times, each with its own copy. Prompts
are made up, of 75 to 180 tokens.

Random weights know nothing of prices, and what the lattice costs depends on that. So the output layer's rows of price
tokens, comma and full stop are set such that the two passes do as real ones: behind the prompt nearly all
probability lies on prices, spread like a tuned model's; behind a price the tuned pass stops but once in 10,000 times,
and the base pass goes on, with a digit or a comma, in 1 of 5. `nodes` in the results says how many lattice nodes
per item that made.

Share of the limit: 2 * weights of the layers * tokens / seconds, over what this card gives in a matrix product of
8192 x 8192 x 8192 in bf16, in the same run. `share` counts the prompts' own tokens, `share_with_nodes` the lattice's
too; padding counts as nothing, and so does LoRA's own arithmetic.

Prints a line of JSON per measurement as it is done, into results.jsonl as well, then a Markdown table. What does not
fit into --seconds is left out, and said to be.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import peft
import psutil
import torch
from peft.tuners.lora import Linear as LoraLinear
from torch.nn import functional as F
from transformers import AutoTokenizer, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from bench.products import products
from bench.train_8b import GIB, SHAPES, clear, distance, random_base, say
from pricer.batches import Work, token_batches
from pricer.distribution import PriceDistribution
from pricer.lattice import PRICES
from pricer.model import PASSES, LlamaPair, load_pair
from pricer.predictor import Predictor
from pricer.prompt import Prompt
from pricer.quantised import dequantise_once
from pricer.settings import Limits, ModelRef, Settings
from train.finetune import versions

BUDGET = 16384  # tokens in one forward pass, where nothing else is said
BUDGETS = (8192, 32768, 65536)
RANK, ALPHA = 32, 64
LORA_STD = 0.02  # of LoRA's B: its part is a tenth of a layer's output
DISTINCT = 1000  # made-up products; longer inputs repeat them
CHECKED = 32  # items whose distributions are compared between variants
CALIBRATED_ON = 64  # prompts
RIDGE = 0.01


# --- a model that costs what a real one does -----------------------------------------------------


def deep_base(shape: dict[str, Any], device: str, precision: str, folder: Path) -> LlamaForCausalLM:
    """A random base whose layers are copies of one: made and quantised in a fraction of the time."""
    base = random_base(shape | {"num_hidden_layers": 1}, device, precision, folder)
    first, layers = base.model.layers[0], shape["num_hidden_layers"]
    for index in range(1, layers):
        layer = copy.deepcopy(first, {id(base.config): base.config})
        layer.self_attn.layer_idx = index
        base.model.layers.append(layer)
    base.config.num_hidden_layers = layers
    base.config.save_pretrained(folder)
    return base.eval().requires_grad_(False)


def save_random_adapter(base: LlamaForCausalLM, folder: Path) -> LlamaForCausalLM:
    """A LoRA adapter whose B is not zero, in `folder`; gives the base back, bare."""
    names = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=LORA_STD)
    model.peft_config["default"].base_model_name_or_path = base.name_or_path
    model.save_pretrained(folder, save_embedding_layers=False)
    return model.unload()


class Rig:
    """Sets the output layer such that a pass does as a real model's, see the module's docstring.

    How: price tokens get nearly the same embedding, so that the hidden state behind any of them is much like behind
    the others. Two directions are fitted to hidden states behind prompts and behind prices, each reading 1 at its
    own place and 0 at the other; the rows are sums of the two.
    """

    def __init__(self, pair: LlamaPair, predictor: Predictor, prompts: Sequence[Prompt]):
        self.pair, lattice = pair, predictor.lattice
        self.prices = [path[0] for path in lattice.paths]  # the first token of each
        self.comma = int(lattice.watched[lattice.comma])
        self.stop = pair.tokenizer(".", add_special_tokens=False)["input_ids"][0]
        self.changed = torch.tensor([*lattice.watched.tolist(), self.stop], device=pair.device)
        self.rows: dict[str, torch.Tensor] = {}
        embeddings, numbers = pair.llama.get_input_embeddings().weight, self.changed[:-2]
        rows = embeddings[numbers].float()
        embeddings[numbers] = (rows[:1] + 0.2 * (rows - rows[:1])).to(embeddings.dtype)
        ids = pair.tokenizer([prompt.text for prompt in prompts[:CALIBRATED_ON]])["input_ids"]
        shown = islice(cycle(self.prices[9::37]), len(ids))
        self.ids = [[*row, price] for row, price in zip(ids, shown, strict=True)]

    @torch.no_grad()
    def set(self, which: str) -> None:
        """For a pass that is about to be measured."""
        if which not in self.rows:
            self.rows[which] = self._rows(which)
        self.pair.llama.lm_head.weight[self.changed] = self.rows[which]

    def _rows(self, which: str) -> torch.Tensor:
        """The output layer's rows of `changed`."""
        with self.pair.use(which) as llama:
            hidden = [
                llama.model(torch.tensor([row], device=self.pair.device)).last_hidden_state[0, -2:].float()
                for row in self.ids
            ]
            behind = torch.cat([torch.stack(hidden)[:, place] for place in (0, 1)])  # prompts, then prices
            logits = llama.lm_head(behind[:: len(hidden)].to(llama.dtype)).float()
        logits = logits.index_fill(1, self.changed, -torch.inf)  # of all the other tokens
        # Ridge regression of which of the two places it is on the hidden state.
        places = torch.zeros(len(behind), 2).to(behind)
        places[: len(hidden), 0] = places[len(hidden) :, 1] = 1
        gram = behind @ behind.T
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
        directions = torch.linalg.solve(gram + ridge, places).T @ behind  # (2, hidden)
        height = logits.logsumexp(-1).max() + 5  # which leaves the other tokens under 1 %
        liked = (PRICES % 10 == 9) | (PRICES % 5 == 0)  # by shops
        spread = 1.5 * liked - np.log(PRICES) - (np.log(PRICES) - np.log(60)) ** 2 / (2 * 0.7**2)
        spread = torch.from_numpy(spread).to(height).log_softmax(0)
        at = {id_: i for i, id_ in enumerate(self.changed.tolist())}
        digit, comma = (5e-5, 5e-5) if which == "tuned" else (0.05, 0.15)
        rows = torch.zeros(len(at), 2).to(height)
        rows[:, 1] = height + np.log(digit / len(at))
        rows[[at[price] for price in self.prices], 0] = height + spread
        rows[at[self.comma], 1] = height + np.log(comma)
        rows[at[self.stop], 1] = height
        return (rows @ directions).to(self.pair.llama.dtype)


# --- what is tried beside the library's own way --------------------------------------------------


def predict_mixed(predictor: Predictor, prompts: Sequence[Prompt]) -> int:
    """Both passes in one batch, by peft's adapter names; how many items that were."""
    pair = predictor.pair
    ids = pair.tokenizer([prompt.text for prompt in prompts])["input_ids"]
    for indices in token_batches([len(i) for i in ids], predictor.limits.batch_tokens // 2):
        names = ["__base__"] * len(indices) + ["default"] * len(indices)
        hooks = pair._peft_model.base_model._enable_peft_forward_hooks(adapter_names=names)
        with pair.use("tuned") as llama, hooks:
            for _ in predictor._score(llama, [ids[i] for i in indices] * 2):
                pass
    return len(prompts)


@contextmanager
def fused_layers(pair: LlamaPair) -> Iterator[None]:
    """RMSNorm as torch's one kernel, and LoRA added inside the matrix product, over plain (not NF4) layers."""

    def norm(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)

    def linear(self, x):
        out = self.base_layer(x)
        if not self.disable_adapters:
            low = self.lora_A["default"](x).mul_(self.scaling["default"])
            out.flatten(0, -2).addmm_(low.flatten(0, -2), self.lora_B["default"].weight.t())
        return out

    kinds = {LlamaRMSNorm: norm, LoraLinear: linear}
    changed = [(m, f) for m in pair.llama.modules() for kind, f in kinds.items() if type(m) is kind]
    for module, forward in changed:
        module.forward = MethodType(forward, module)
    try:
        yield
    finally:
        for module, _ in changed:
            del module.forward


# --- measuring -----------------------------------------------------------------------------------


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_rate(device: torch.device) -> float:
    """What a large matrix product reaches, in operations a second."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    wait()
    start, times = time.perf_counter(), 10
    for _ in range(times):
        a @ b
    wait()
    return times * 2 * n**3 / (time.perf_counter() - start)


@dataclass
class Bench:
    """One pair for all measurements, and where the results go."""

    pair: LlamaPair
    rig: Rig
    prompts: list[Prompt]
    weights: int  # of the layers, without embeddings and output
    limit: float  # operations a second
    file: Path
    until: float  # perf_counter at which nothing more is begun
    results: list[dict[str, Any]] = field(default_factory=list)
    checked: dict[str, PriceDistribution] = field(default_factory=dict)

    def add(self, result: dict[str, Any]) -> dict[str, Any]:
        self.results.append(result)
        line = json.dumps(result)
        say(line)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return result

    def time_left_for(self, variant: str, seconds: float = 0) -> bool:
        if fits := time.perf_counter() + seconds < self.until:
            return True
        self.add({"variant": variant, "left_out": "no time"})
        return fits

    def predictor(self, budget: int = BUDGET, in_flight: int = 1) -> Predictor:
        return Predictor(self.pair, Limits(batch_tokens=budget), in_flight=in_flight)

    def passes(self, variant: str, which: Sequence[str] = PASSES, **options: Any) -> None:
        """Each pass over all prompts with its whole distributions."""
        if not self.time_left_for(variant):
            return
        predictor = self.predictor(**options)
        seconds = {name: self.one_pass(variant, predictor, name)["seconds"] for name in which}
        if len(seconds) == len(PASSES):
            both = len(self.prompts) / sum(seconds.values())
            self.add({"variant": variant, "pass": "both", "items_per_second": round(both, 2)})

    def one_pass(
        self, variant: str, predictor: Predictor, which: str, items: int = 0, stops: str = ""
    ) -> dict[str, Any]:
        """`stops`: the pass that numbers end like, where it is another."""
        prompts = list(islice(cycle(self.prompts), items or len(self.prompts)))
        self.rig.set(stops or which)
        found = predictor.predict(self.prompts[:CHECKED], which)  # warms up
        distributions = PriceDistribution.stack([p.distribution for p in found])
        off = distance(self.checked.setdefault(which + stops, distributions), distributions)
        predictor.work = Work()
        clear()
        wait()
        start = time.perf_counter()
        done = sum(len(indices) for indices, _ in predictor.predict_batches(prompts, which))
        wait()
        seconds, work = time.perf_counter() - start, predictor.work
        assert done == len(prompts)
        result = {
            "variant": variant,
            "pass": which,
            "items": done,
            "budget": predictor.limits.batch_tokens,
            "in_flight": predictor.in_flight,
            "seconds": round(seconds, 3),
            "items_per_second": round(done / seconds, 2),
            "tokens_per_second": round(work.prompt_tokens / seconds, 1),
            "share": round(self.share(work.prompt_tokens, seconds), 4),
            "share_with_nodes": round(self.share(work.prompt_tokens + work.nodes, seconds), 4),
            "padding": round(work.padding_share, 4),
            "nodes": round(work.nodes / done, 1),
            "node_padding": round(work.node_padding / done, 1),
            "forward_passes": work.forward_passes,
            "on_prices": round(float(1 - distributions.unpriced_mass.mean()), 3),
            "off_by": float(f"{off:.1e}"),
            "resident_gib": round(psutil.Process().memory_info().rss / GIB, 2),
        }
        return self.add(result | peak())

    def share(self, tokens: int, seconds: float) -> float:
        return 2 * self.weights * tokens / seconds / self.limit

    def mixed(self, variant: str) -> None:
        if not self.time_left_for(variant):
            return
        predictor = self.predictor()
        self.rig.set("tuned")  # one output layer for both halves
        predict_mixed(predictor, self.prompts[:CHECKED])
        clear()
        wait()
        start = time.perf_counter()
        items = predict_mixed(predictor, self.prompts)
        wait()
        rate = items / (time.perf_counter() - start)
        self.add({"variant": variant, "pass": "both", "items_per_second": round(rate, 2)} | peak())
        two = [self.one_pass(f"{variant}: in two", predictor, w, stops="tuned")["seconds"] for w in PASSES]
        rate = items / sum(two)
        self.add({"variant": f"{variant}: in two", "pass": "both", "items_per_second": round(rate, 2)})

    def seed(self, items: int) -> None:
        """The seed's way: `generate`, greedily, item by item."""
        variant = "seed's generate"
        if not self.time_left_for(variant):
            return
        predictor, rates = self.predictor(), {}
        for which in PASSES:
            self.rig.set(which)
            predictor.greedy_text(self.prompts[0], which)
            clear()
            wait()
            start = time.perf_counter()
            for prompt in self.prompts[:items]:
                predictor.greedy_text(prompt, which)
            wait()
            rates[which] = items / (time.perf_counter() - start)
            one = {"variant": variant, "pass": which, "items": items}
            self.add(one | {"items_per_second": round(rates[which], 2)} | peak())
        both = 1 / sum(1 / rate for rate in rates.values())
        self.add({"variant": variant, "pass": "both", "items_per_second": round(both, 2)})

    def growth(self, counts: Sequence[int], **options: Any) -> None:
        """Time and memory of the tuned pass over more and more items."""
        predictor, rate = self.predictor(**options), None
        for items in counts:
            if not self.time_left_for(f"growth to {items:,}", items / rate if rate else 0):
                return
            rate = self.one_pass("growth", predictor, "tuned", items)["items_per_second"]


def peak() -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    return {"peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2)}


def measure(options: argparse.Namespace) -> Bench:
    cuda = torch.cuda.is_available()
    device, precision = ("cuda:0", "nf4") if cuda else ("cpu", "fp32")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.jsonl"
    file.unlink(missing_ok=True)
    until = time.perf_counter() + options.seconds
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    torch.manual_seed(0)
    shape = SHAPES[options.shape]
    base = deep_base(shape, device, precision, options.out / "base")
    clear()
    say(f"{options.shape} base of {base.get_memory_footprint() / GIB:.2f} GiB in {precision}")
    weights = sum(
        module.in_features * module.out_features
        for module in base.model.modules()
        if isinstance(module, torch.nn.Linear)
    )
    base = save_random_adapter(base, options.out / "adapter")
    settings = Settings(
        ModelRef(base.name_or_path),
        ModelRef(str(options.out / "adapter")),
        "",
        precision=precision,
        dequantise=False,
    )
    pair = load_pair(settings, (base, tokenizer))
    limit = matrix_rate(pair.device)
    say(f"matrix product: {limit / 1e12:.1f}e12 operations/s; {weights / 1e9:.3f}e9 weights in the layers")
    predictor = Predictor(pair)
    prompts = [predictor.prepare(text) for text in products(min(DISTINCT, options.items), tokenizer)["text"]]
    lengths = [len(i) for i in tokenizer([prompt.text for prompt in prompts])["input_ids"]]
    say(
        f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.1f} on average"
    )
    prompts = list(islice(cycle(prompts), options.items))
    bench = Bench(pair, Rig(pair, predictor, prompts), prompts, weights, limit, file, until)
    about = {
        "shape": options.shape,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "precision": precision,
        "python": platform.python_version(),
        "versions": versions(),
        "cuda": torch.version.cuda,
        "date": date.today().isoformat(),
        "limit_tflops": round(limit / 1e12, 2),
    }
    bench.add({"variant": "about"} | about)
    measure_all(bench, settings, base, tokenizer, options)
    return bench


def measure_all(bench: Bench, settings: Settings, base: Any, tokenizer: Any, options: Any) -> None:
    bench.passes("nf4")
    bench.passes("nf4, two in flight", in_flight=2)
    bench.seed(options.seed_items)
    lora = [p for name, p in bench.pair.llama.named_parameters() if ".lora_" in name]
    dtype = lora[0].dtype
    for parameter in lora:
        parameter.data = parameter.data.float()
    bench.passes("nf4, adapter in fp32", ["tuned"])
    for parameter in lora:
        parameter.data = parameter.data.to(dtype)

    bench.pair._peft_model.unload()
    start = time.perf_counter()
    base = dequantise_once(base)
    wait()
    seconds, footprint = time.perf_counter() - start, base.get_memory_footprint() / GIB
    say(f"dequantised in {seconds:.1f} s, {footprint:.2f} GiB")
    bench.pair = bench.rig.pair = load_pair(settings, (base, tokenizer))
    bench.passes("dequantised")
    bench.passes("dequantised, two in flight", in_flight=2)
    for budget in options.budgets:
        bench.passes(f"dequantised, {budget // 1024}k tokens", ["tuned"], budget=budget, in_flight=2)
    with fused_layers(bench.pair):
        bench.passes("dequantised, fused layers", in_flight=2)
    bench.mixed("dequantised, mixed batch")
    bench.growth(options.growth, in_flight=2)


# --- the report ----------------------------------------------------------------------------------


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: the machine, then a row for each measurement."""
    about = results[0]
    numbers = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        f"{about['device']}, base in {about['precision']}, {about['limit_tflops']:g} TFLOP/s in a matrix product; "
        f"Python {about['python']}, {numbers}, CUDA {about['cuda']}; {about['date']}. Random weights in the shape "
        f"{about['shape']}.",
        "",
        "| way | pass | items | items/s | share of the limit (with nodes) | padding | nodes per item | off by "
        "| peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results[1:]:
        if "left_out" in r:
            lines.append(f"| {r['variant']} | left out: {r['left_out']} | | | | | | | |")
            continue
        share = f"{r['share']:.0%} ({r['share_with_nodes']:.0%})" if "share" in r else ""
        padding = f"{r['padding']:.1%}" if "padding" in r else ""
        nodes = f"{r['nodes']:.0f}" if "nodes" in r else ""
        off = f"{r['off_by']:.0e}" if "off_by" in r else ""
        memory = f"{r['peak_gib']:.1f} GiB" if "peak_gib" in r else ""
        items = f"{r['items']:,}" if "items" in r else ""
        lines.append(
            f"| {r['variant']} | {r['pass']} | {items} | {r['items_per_second']:.1f} | {share} | {padding} | {nodes} "
            f"| {off} | {memory} |"
        )
    both = {
        r["variant"]: r["items_per_second"]
        for r in results
        if r.get("pass") == "both" and "mixed" not in r["variant"]
    }
    if seed := both.pop("seed's generate", None):
        best = max(both, key=both.get)
        lines += ["", f"Both models: {both[best] / seed:.0f} times the seed's rate ({best})."]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.score_8b", description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seed-items", type=int, default=24, help="of the seed's way, which is slow")
    parser.add_argument("--growth", type=int, nargs="*", default=[100, 1000, 10_000], help="items")
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS, help="tokens in a forward pass")
    parser.add_argument("--seconds", type=float, default=200, help="after which nothing more is begun")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama 3 tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    bench = measure(parser.parse_args(argv))
    print(table(bench.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
