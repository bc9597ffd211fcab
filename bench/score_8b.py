"""Scoring in the shape of Llama 3.1 8B on one card, against the seed's way and against the card's arithmetic.

    python -m bench.score_8b --tokenizer FOLDER --out out/score-8b

FOLDER holds a Llama 3 tokenizer. The base is of random weights in NF4, with a random LoRA adapter (r 32 on the
attention's four layers, like the seed's): one layer is quantised and serves 32 times, each with its own copy. Prompts
are made up, of 75 to 180 tokens.

Random weights know nothing of prices, and what the lattice costs depends on that. So the model computes all that it is
asked for, and then other probabilities are put in the place of its own: behind the prompt all of it lies on prices,
spread like a tuned model's; behind a price the tuned pass stops but once in 10,000 times, and the base pass goes on, with
a digit or a comma, in 1 of 5. `nodes` in the results says how many lattice nodes per item that made. That the variants
agree (`off_by`) is seen on the model's own probabilities, prompts and nodes, of 32 items.

Share of the limit: 2 * weights of the layers * tokens / seconds, over what this card gives in a matrix product of
8192 x 8192 x 8192 in bf16 kept up for 2 seconds, in the same run. `share` counts the prompts' own tokens, `share_with_nodes` the lattice's
too; padding counts as nothing, and so does LoRA's own arithmetic. `known` are tokens of an item's prompt that it shares with
all, which `pricer.llama.rows` computes once; they count as the prompt's own.

`dequantised` and `nf4` run as the library does on a card (`pricer.llama.rows`); "transformers' pass" is its forward pass
with our lean layers, "plain layers" with its own and peft's. On a CPU, for a try, our pass runs in its plain way.

Prints a line of JSON per measurement as it is done, into results.jsonl as well, then a Markdown table. What does not
fit into --seconds is left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from bench.machine import about as about_machine
from bench.products import products
from bench.shape_8b import (
    GIB,
    SHAPES,
    Rehearsal,
    clear,
    cudnn_attention,
    deep_base,
    distance,
    save_random_adapter,
    say,
)
from pricer.llama.batches import Work, token_batches
from pricer.llama.card import on_card
from pricer.llama.lean import make_lean, make_plain
from pricer.llama.pair import LlamaPair, load_pair
from pricer.llama.predictor import Predictor
from pricer.llama.quantised import dequantise_once
from pricer.price.distribution import PriceDistribution
from pricer.prompt import Prompt
from pricer.settings import PASSES, Limits, ModelRef, Settings

BUDGET = 16384  # tokens in one forward pass, where nothing else is said
BUDGETS = (8192, 32768, 65536)
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
SEED = "seed's generate"
TRANSFORMERS = "dequantised, transformers' pass"
DISTINCT = 1000  # made-up products; longer inputs repeat them
CHECKED = 32  # items whose distributions are compared between variants
CHECKED_NODES = 16  # of each of them


# --- a model that costs what a real one does -----------------------------------------------------


GOES_ON = {"base": (0.05, 0.15), "tuned": Rehearsal.goes_on}


# --- what is tried beside the library's own way --------------------------------------------------


def predict_both(predictor: Predictor, prompts: Sequence[Prompt], mixed: bool) -> None:
    """Both passes: one after the other, or in one batch by peft's adapter names. Numbers end as in a tuned pass."""
    pair = predictor.pair
    ids = pair.tokenizer([prompt.text for prompt in prompts])["input_ids"]
    budget = predictor.limits.batch_tokens
    for indices in token_batches([len(i) for i in ids], budget // 2 if mixed else budget):
        batch = [ids[i] for i in indices]
        if mixed:
            names = ["__base__"] * len(batch) + ["default"] * len(batch)
            hooks = pair._peft_model.base_model._enable_peft_forward_hooks(adapter_names=names)
            with pair.use("tuned") as llama, hooks:
                deque(predictor._score(llama, batch * 2, "tuned"), maxlen=0)
            continue
        for which in PASSES:
            with pair.use(which) as llama:
                deque(predictor._score(llama, batch, "tuned"), maxlen=0)


@contextmanager
def transformers_pass(pair: LlamaPair) -> Iterator[None]:
    """Meanwhile transformers' forward pass serves."""
    own, pair.card = pair.card, None
    try:
        yield
    finally:
        pair.card = own


@contextmanager
def plain_layers(pair: LlamaPair) -> Iterator[None]:
    """Meanwhile it serves, and the layers run as peft and transformers have them."""
    make_plain(pair._peft_model)
    try:
        with transformers_pass(pair):
            yield
    finally:
        make_lean(pair._peft_model)


def loaded(settings: Settings, base: Any, tokenizer: Any) -> LlamaPair:
    pair = load_pair(settings, (base, tokenizer))
    if pair.device.type == "cpu":
        pair.card = on_card(pair.llama)
    return pair


# --- measuring -----------------------------------------------------------------------------------


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_rate(device: torch.device) -> float:
    """What a large matrix product reaches, in operations a second, when the card is warm."""
    n, dtype, seconds = (8192, torch.bfloat16, 2) if device.type == "cuda" else (1024, torch.float32, 0.1)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    start, times = time.perf_counter(), 0
    while (took := time.perf_counter() - start) < seconds:
        for _ in range(10):
            a @ b
        wait()
        times += 10
    return times * 2 * n**3 / took


@dataclass
class Bench:
    """One pair for all measurements, and where the results go."""

    pair: LlamaPair
    prompts: list[Prompt]
    weights: int  # of the layers, without embeddings and output
    limit: float  # operations a second
    file: Path
    until: float  # perf_counter at which nothing more is begun
    only: Sequence[str] = ()  # variants; none: all
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
        if self.only and variant not in self.only:
            return False
        if fits := time.perf_counter() + seconds < self.until:
            return True
        self.add({"variant": variant, "left_out": "no time"})
        return fits

    def predictor(self, which: str, budget: int = BUDGET, in_flight: int | None = None) -> Rehearsal:
        predictor = Rehearsal(self.pair, Limits(batch_tokens=budget), in_flight=in_flight)
        predictor.goes_on = GOES_ON[which]
        return predictor

    def passes(self, variant: str, **options: Any) -> None:
        """Each pass over the prompts with its whole distributions. One that fails leaves the others theirs."""
        if not self.time_left_for(variant):
            return
        try:
            seconds = [self.one_pass(variant, self.predictor(w, **options), w)["seconds"] for w in PASSES]
        except Exception as error:
            traceback.print_exc()
            self.add({"variant": variant, "left_out": f"{type(error).__name__}: {error}"[:200]})
            return
        both = round(len(self.prompts) / sum(seconds), 2)
        self.add({"variant": variant, "pass": "both", "items_per_second": both})

    def one_pass(self, variant: str, predictor: Predictor, which: str, items: int = 0) -> dict[str, Any]:
        prompts = list(islice(cycle(self.prompts), items or len(self.prompts)))
        off = self.off_by(which)
        predictor.predict(self.prompts[:CHECKED], which)  # warms up
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
            "known": round(work.known / done, 1),
            "nodes": round(work.nodes / done, 1),
            "node_padding": round(work.node_padding / done, 1),
            "forward_passes": work.forward_passes,
            "off_by": float(f"{off:.1e}"),
            "resident_gib": round(psutil.Process().memory_info().rss / GIB, 2),
        }
        return self.add(result | peak())

    def off_by(self, which: str) -> float:
        """How far the pass is from the first variant's, by the model's own probabilities: 16 nodes each, likely or
        not."""
        own = Predictor(self.pair, Limits(batch_tokens=BUDGET), tolerance=0, max_edges=CHECKED_NODES)
        found = own.predict(self.prompts[:CHECKED], which)
        distributions = PriceDistribution.stack([prediction.distribution for prediction in found])
        return distance(self.checked.setdefault(which, distributions), distributions)

    def share(self, tokens: int, seconds: float) -> float:
        return 2 * self.weights * tokens / seconds / self.limit

    def mixed(self) -> None:
        """One batch for both passes, against two. In plain layers: peft knows which row is whose only in its own."""
        for mixed, variant in ((True, "both in one batch, plain layers"), (False, "in two, plain layers")):
            if not self.time_left_for(variant):
                return
            predictor = self.predictor("tuned")
            with plain_layers(self.pair):
                predict_both(predictor, self.prompts[:CHECKED], mixed)
                clear()
                wait()
                start = time.perf_counter()
                predict_both(predictor, self.prompts, mixed)
                wait()
            rate = len(self.prompts) / (time.perf_counter() - start)
            self.add({"variant": variant, "pass": "both", "items_per_second": round(rate, 2)} | peak())

    def seed(self, items: int, variant: str = SEED) -> None:
        """The seed's way: `generate`, greedily, item by item."""
        if not self.time_left_for(variant):
            return
        rates = {}
        for which in PASSES:
            predictor = self.predictor(which)
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
        predictor, rate = self.predictor("tuned", **options), None
        for items in counts:
            if not self.time_left_for(f"growth to {items:,}", items / rate if rate else 0):
                return
            rate = self.one_pass("growth", predictor, "tuned", items)["items_per_second"]


def peak() -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    return {"peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2)}


def prepare(options: argparse.Namespace) -> tuple[Bench, Settings, LlamaForCausalLM, Any]:
    """The bench, and the settings, the base and the tokenizer of its pair."""
    cuda = torch.cuda.is_available()
    device, precision = ("cuda:0", options.precision) if cuda else ("cpu", "fp32")
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
    pair = loaded(settings, base, tokenizer)
    limit = matrix_rate(pair.device)
    say(f"matrix product: {limit / 1e12:.1f}e12 operations/s; {weights / 1e9:.3f}e9 weights in the layers")
    predictor = Predictor(pair)
    prompts = [predictor.prepare(text) for text in products(min(DISTINCT, options.items), tokenizer)["text"]]
    lengths = [len(i) for i in tokenizer([prompt.text for prompt in prompts])["input_ids"]]
    say(
        f"{len(prompts)} prompts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.1f} on average"
    )
    prompts = list(islice(cycle(prompts), options.items))
    bench = Bench(pair, prompts, weights, limit, file, until, options.only)
    about = {
        "shape": options.shape,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "precision": precision,
        "python": platform.python_version(),
        "versions": about_machine(PACKAGES)["versions"],
        "cuda": torch.version.cuda,
        "date": date.today().isoformat(),
        "limit_tflops": round(limit / 1e12, 2),
    }
    bench.add({"variant": "about"} | about)
    return bench, settings, base, tokenizer


def measure_all(bench: Bench, settings: Settings, base: Any, tokenizer: Any, options: Any) -> None:
    with plain_layers(bench.pair):
        with cudnn_attention():
            bench.seed(options.seed_items)
        bench.seed(options.seed_items, f"{SEED}, without cuDNN's attention")
    bench.passes("nf4")
    bench.passes("nf4, one in flight", in_flight=1)

    bench.pair._peft_model.unload()
    start = time.perf_counter()
    base = dequantise_once(base)
    wait()
    seconds, footprint = time.perf_counter() - start, base.get_memory_footprint() / GIB
    say(f"dequantised in {seconds:.1f} s, {footprint:.2f} GiB")
    bench.pair = loaded(settings, base, tokenizer)
    bench.passes("dequantised")
    bench.passes("dequantised, one in flight", in_flight=1)
    bench.passes("dequantised, three in flight", in_flight=3)
    with plain_layers(bench.pair):
        bench.passes("dequantised, plain layers")
    with transformers_pass(bench.pair):
        bench.passes(TRANSFORMERS)
        with cudnn_attention():
            bench.passes(f"{TRANSFORMERS}, cuDNN's attention")
    for budget in options.budgets:
        bench.passes(f"dequantised, {budget // 1024}k tokens", budget=budget)
    bench.mixed()
    bench.growth(options.growth)


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
        "| way | pass | items | items/s | share of the limit (with nodes) | padding | known, nodes per item | off by "
        "| peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results[1:]:
        if "left_out" in r:
            lines.append(f"| {r['variant']} | left out: {r['left_out']} | | | | | | | |")
            continue
        share = f"{r['share']:.0%} ({r['share_with_nodes']:.0%})" if "share" in r else ""
        padding = f"{r['padding']:.1%}" if "padding" in r else ""
        nodes = f"{r['known']:.0f}, {r['nodes']:.0f}" if "nodes" in r else ""
        off = f"{r['off_by']:.0e}" if "off_by" in r else ""
        memory = f"{r['peak_gib']:.1f} GiB" if "peak_gib" in r else ""
        items = f"{r['items']:,}" if "items" in r else ""
        lines.append(
            f"| {r['variant']} | {r['pass']} | {items} | {r['items_per_second']:.1f} | {share} | {padding} | {nodes} "
            f"| {off} | {memory} |"
        )
    both = {r["variant"]: r["items_per_second"] for r in results if r.get("pass") == "both"}
    seed = max((rate for variant, rate in both.items() if variant.startswith(SEED)), default=None)
    if seed and "dequantised" in both:
        times = both["dequantised"] / seed
        lines += ["", f"Both models, dequantised: {times:.0f} times the seed's rate, the better of its two."]
    return "\n".join(lines)


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--only", nargs="*", default=(), help="variants, by their names in the table")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--seed-items", type=int, default=24, help="of the seed's way, which is slow")
    parser.add_argument("--growth", type=int, nargs="*", default=[100, 1000, 10_000], help="items")
    parser.add_argument("--budgets", type=int, nargs="*", default=BUDGETS, help="tokens in a forward pass")
    parser.add_argument("--seconds", type=float, default=200, help="after which nothing more is begun")
    parser.add_argument("--precision", choices=("nf4", "bf16"), default="nf4", help="of the base on a card")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Llama 3 tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.score_8b", description=__doc__.split("\n")[0])
    options = arguments(parser).parse_args(argv)
    bench, *rest = prepare(options)
    measure_all(bench, *rest, options)
    print(table(bench.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
