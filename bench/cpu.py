"""The embedded pair on a CPU, beside every other way to ask it: one process, the same products, turn by turn.

    python -m bench.cpu [--items 16] [--rounds 3]

Ours gives the whole distribution, of the base and of the tuned model. Beside it stand

    generate             the seed's way: each model, item by item, greedily, at most 5 tokens: one number
    100 samples          a distribution from 100 sampled answers, as `generate(num_return_sequences=100)` makes it,
                         which reads the prompt 100 times over; prompt shared: read once, its keys and values copied
    llama.cpp            reading the prompt only, the base only, by the GGUF file that our base comes from
    plain forward        the same prompts through transformers, each prompt's last logits and nothing else: what
                         anything must cost that asks the model at all

All but llama.cpp run in transformers and peft as they come, with weights of their own.

A round goes over --singles items, each by every way that takes one item, and then over all items by the ways that
take batches, in another order each time; so a bad minute of the machine hits all alike. Between them a product of
two 2048 x 2048 matrices, the best of which is this machine's fp32 rate. Share of it: 2 * weights of the layers
(without embeddings and output) * prompt tokens / seconds; with nodes: the lattice's tokens count as well.
Ratios compare sums over the same round; the median of the rounds is given.

Prints a line of JSON per measurement as it is done, then a Markdown table. llama.cpp is left out where it is missing.
It compiles for 10 to 20 minutes; no other part of the project needs it, so keep it in a folder of its own:

    CMAKE_ARGS="-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF" pip install --target FOLDER --no-deps \
        llama-cpp-python diskcache
    PYTHONPATH=FOLDER python -m bench.cpu

Should it crash on a virtual machine that claims AMX and has none, add -DGGML_NATIVE=OFF and -DGGML_AVX512=ON
-DGGML_AVX512_VNNI=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_BF16=ON -DGGML_BMI2=ON -DGGML_FMA=ON -DGGML_F16C=ON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from peft import PeftModel
from transformers import DynamicCache

from bench.machine import MatrixProduct, about, peak_memory, sentence
from bench.products import products
from pricer.errors import PricerError, report
from pricer.llama.adapter import load_adapter_card
from pricer.llama.base import load_base
from pricer.llama.batches import Work, token_batches
from pricer.llama.embedded import _GGUF_FILE, _GGUF_PACKAGE
from pricer.llama.pair import LlamaPair
from pricer.llama.predictor import BATCH_TOKENS, Predictor, load_predictor
from pricer.prompt import Prompt
from pricer.settings import PASSES, Settings

PACKAGES = ("torch", "transformers", "peft", "llama_cpp_python")
SAMPLES, NEW_TOKENS = 100, 5
OURS, OURS_BATCH = "ours, one at a time", "ours, in batches"
SEED = "generate, greedy, one at a time (a)"
SAMPLED, SAMPLED_SHARED = "100 samples (b)", "100 samples, prompt shared (b)"
LLAMA_CPP = "llama.cpp, prompt only (c)"
PLAIN, PLAIN_BATCH = "plain forward, one at a time (d)", "plain forward, in batches (d)"


# --- the other ways ------------------------------------------------------------------------------


def plain_predictor(settings: Settings) -> Predictor:
    """The same models as transformers and peft compute them. Raises SetupError with what to do."""
    adapter = load_adapter_card(settings)
    base, tokenizer = load_base(settings, "cpu", "fp32")
    model = PeftModel.from_pretrained(base, adapter.folder).eval().requires_grad_(False)
    return Predictor(LlamaPair(model, tokenizer, adapter), settings.limits)


def plain_forward(pair: LlamaPair, prompts: Sequence[Prompt], which: str, budget: int) -> torch.Tensor:
    """(prompts, vocabulary) logits behind each prompt: batches like ours, padded on the left, as transformers' users
    do it."""
    ids = pair.tokenizer([prompt.text for prompt in prompts])["input_ids"]
    logits = torch.empty(len(ids), pair.llama.config.vocab_size)
    for indices in token_batches([len(i) for i in ids], budget):
        width = max(len(ids[i]) for i in indices)
        tokens, mask = torch.zeros(2, len(indices), width, dtype=torch.long)
        for row, i in enumerate(indices):
            tokens[row, width - len(ids[i]) :] = torch.tensor(ids[i])
            mask[row, width - len(ids[i]) :] = 1
        with pair.use(which) as llama:
            found = llama(input_ids=tokens, attention_mask=mask, logits_to_keep=1, use_cache=False)
        logits[indices] = found.logits[:, -1]
    return logits


def sample(pair: LlamaPair, prompt: Prompt, which: str, shared: bool) -> list[str]:
    """100 sampled continuations. `shared`: the prompt is read once; else as often as there are samples."""
    tokenizer = pair.tokenizer
    ids = torch.tensor([tokenizer(prompt.text)["input_ids"]])
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": NEW_TOKENS}
    how["pad_token_id"] = tokenizer.pad_token_id or tokenizer.eos_token_id
    with pair.use(which) as llama:
        if shared:
            cache = DynamicCache(config=llama.config)
            llama.model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(SAMPLES)
            ids = ids.expand(SAMPLES, -1)
            how["past_key_values"] = cache
        else:
            how["num_return_sequences"] = SAMPLES
        out = llama.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)
    return tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)


def llama_cpp_reader(tokenizer: Any) -> Callable[[Sequence[Prompt]], None]:
    """Reads prompts by llama.cpp. Raises ImportError with the reason where it cannot be had."""
    import llama_cpp

    spec = importlib.util.find_spec(_GGUF_PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(f"the package {_GGUF_PACKAGE} is not installed")
    llama = llama_cpp.Llama(
        str(Path(spec.origin).with_name(_GGUF_FILE)),
        n_ctx=1024,
        n_batch=512,
        n_threads=psutil.cpu_count(),
        n_threads_batch=psutil.cpu_count(),
        logits_all=False,
        verbose=False,
    )

    def read(prompts: Sequence[Prompt]) -> None:
        for prompt in prompts:
            llama.reset()
            llama.eval(tokenizer(prompt.text)["input_ids"])
            llama._ctx.get_logits()  # waits for them

    return read


# --- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    name: str
    run: Callable[[Sequence[Prompt], str], Any]  # one pass over prompts
    batched: bool = False
    passes: tuple[str, ...] = PASSES
    both: Callable[[Sequence[Prompt]], Any] | None = None  # both passes side by side, where that way does it


@dataclass(frozen=True)
class Measured:
    """One way over some items. By pass: the lattice's nodes, and seconds; of passes side by side, half for each."""

    round: int
    way: str
    items: int
    tokens: int  # of the prompts
    nodes: dict[str, int]
    seconds: dict[str, float]


@dataclass
class Bench:
    predictor: Predictor
    plain: Predictor
    prompts: list[Prompt]
    product: MatrixProduct
    left_out: dict[str, str] = field(default_factory=dict)  # way -> why
    measured: list[Measured] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # operations a second

    def ways(self) -> list[Way]:
        predictor, pair = self.predictor, self.plain.pair
        budget = predictor.limits.batch_tokens or BATCH_TOKENS["cpu"]

        def plain(prompts, which):
            plain_forward(pair, prompts, which, budget)

        def both(prompts):
            deque(predictor.both(prompts), maxlen=0)

        ways = [
            Way(OURS, predictor.predict, both=both),
            Way(SEED, lambda prompts, which: self.plain.greedy_text(prompts[0], which)),
            Way(PLAIN, plain),
            Way(OURS_BATCH, predictor.predict, batched=True, both=both),
            Way(PLAIN_BATCH, plain, batched=True),
        ]
        try:
            read = llama_cpp_reader(predictor.pair.tokenizer)
            ways.append(Way(LLAMA_CPP, lambda prompts, which: read(prompts), passes=("base",)))
        except ImportError as error:
            self.left_out[LLAMA_CPP] = str(error)
        return ways

    def measure(self, ways: Sequence[Way], rounds: int, singles: int) -> None:
        one = [way for way in ways if not way.batched]
        many = [way for way in ways if way.batched]
        for way in one:  # the first time is slower
            for which in way.passes:
                way.run(self.prompts[:1], which)
        for number in range(rounds):
            for k in range(singles):
                prompt = self.prompts[(number * singles + k) % len(self.prompts)]
                for way in turned(one, number * singles + k):
                    self.time(number, way, [prompt])
                self.rates.append(self.product.rate())
            for way in turned(many, number):
                self.time(number, way, self.prompts)
                self.rates.append(self.product.rate())

    def sample(self, items: int) -> None:
        """Beside the rounds, whose memory and seconds it would spoil."""
        pair, rounds = self.plain.pair, max(m.round for m in self.measured) + 1
        for number, prompt in enumerate(self.prompts[:items]):
            for name, shared in ((SAMPLED_SHARED, True), (SAMPLED, False)):
                way = Way(name, lambda prompts, which, shared=shared: sample(pair, prompts[0], which, shared))
                self.time(number % rounds, way, [prompt])

    def time(self, number: int, way: Way, prompts: Sequence[Prompt]) -> None:
        ids = self.predictor.pair.tokenizer([prompt.text for prompt in prompts])["input_ids"]
        nodes, seconds = {}, {}
        runs = [way.passes] if way.both else [(which,) for which in way.passes]
        for passes in runs:
            self.predictor.work = Work()
            start = time.perf_counter()
            way.both(prompts) if way.both else way.run(prompts, *passes)
            took = time.perf_counter() - start
            seconds |= dict.fromkeys(passes, round(took / len(passes), 4))
            nodes |= dict.fromkeys(passes, self.predictor.work.nodes // len(passes))
        tokens = sum(len(i) for i in ids)
        self.measured.append(Measured(number, way.name, len(prompts), tokens, nodes, seconds))
        print(json.dumps(asdict(self.measured[-1])), flush=True)

    def rows(self, weights: int) -> Iterator[dict[str, Any]]:
        """What the table says of each way. `weights`: numbers that every token is multiplied with."""
        for name in dict.fromkeys(m.way for m in self.measured):
            rounds = per_item(self.measured, name).values()
            row = {
                "way": name,
                "seconds_per_item": median(rounds),
                "best": min(rounds),
                "base_tokens_per_second": 1 / median(per_token(self.measured, name, ["base"]).values()),
            }
            if name in (OURS, OURS_BATCH, PLAIN, PLAIN_BATCH):
                for key, nodes in (("share", False), ("share_with_nodes", True)):
                    fastest = min(per_token(self.measured, name, PASSES, nodes).values())
                    row[key] = 2 * weights / fastest / max(self.rates)
            for ours in (OURS, OURS_BATCH):
                row[f"times_{ours}"] = ratio(self.measured, name, ours)
            yield row


def turned(ways: Sequence[Way], by: int) -> list[Way]:
    by %= max(1, len(ways))
    return [*ways[by:], *ways[:by]]


def _rounds(measured: Sequence[Measured], way: str) -> Iterator[tuple[int, list[Measured]]]:
    for number in sorted({m.round for m in measured if m.way == way}):
        yield number, [m for m in measured if m.way == way and m.round == number]


def per_item(measured: Sequence[Measured], way: str) -> dict[int, float]:
    """Round -> seconds an item took, in all passes of that way together."""
    return {
        number: sum(sum(m.seconds.values()) for m in found) / sum(m.items for m in found)
        for number, found in _rounds(measured, way)
    }


def per_token(
    measured: Sequence[Measured], way: str, passes: Sequence[str], nodes: bool = False
) -> dict[int, float]:
    """Round -> seconds a token of a prompt took, on average over these passes; `nodes`: the lattice's tokens count
    as well."""
    return {
        number: sum(m.seconds[which] for m in found for which in passes)
        / sum(m.tokens + nodes * m.nodes[which] for m in found for which in passes)
        for number, found in _rounds(measured, way)
    }


def ratio(measured: Sequence[Measured], way: str, ours: str) -> float:
    """How many times as long as ours it took, over the passes that it has: the median of the rounds."""
    passes = list(next(m.seconds for m in measured if m.way == way))
    other, own = per_token(measured, way, passes), per_token(measured, ours, passes)
    return median(other[number] / own[number] for number in other)


# --- the report ----------------------------------------------------------------------------------


def table(bench: Bench, found: dict[str, Any]) -> str:
    """Markdown: the machine, a row for each way, and the aims."""
    rows = {row["way"]: row for row in found["rows"]}
    lines = [
        f"{sentence(found['about'])} Prompts of {found['tokens_per_prompt']:.0f} tokens; {found['rounds']} rounds of "
        f"{found['singles']} items one at a time and {found['items']} in batches; {max(bench.rates) / 1e9:.0f} GFLOP/s "
        f"in a matrix product at best, {median(bench.rates) / 1e9:.0f} in the median; "
        f"at most {found['peak_gb']:.2f} GB resident before the samples, both copies of the weights among them.",
        "",
        "| way | seconds per item, both models (best) | tokens/s of the base's prompts | share of the matrix rate "
        "(with nodes) | times ours, one at a time | times ours, in batches |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        share = f"{row['share']:.0%} ({row['share_with_nodes']:.0%})" if "share" in row else ""
        seconds = f"{row['seconds_per_item']:.2f} ({row['best']:.2f})"
        if name == LLAMA_CPP:
            seconds += ", base only"
        lines.append(
            f"| {name} | {seconds} | {row['base_tokens_per_second']:.0f} | {share} "
            f"| {row[f'times_{OURS}']:.2f} | {row[f'times_{OURS_BATCH}']:.2f} |"
        )
    lines += [f"| {name} | left out: {why} | | | | |" for name, why in bench.left_out.items()]
    return "\n".join([*lines, "", *aims(rows)])


def aims(rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for each aim: what it says, and what was found one at a time and in batches."""

    def times(name: str, ours: str = OURS) -> str:
        return f"{rows[name][f'times_{ours}']:.2f}" if name in rows else "not measured"

    seconds = f"{rows[OURS]['seconds_per_item']:.2f} (best {rows[OURS]['best']:.2f})"
    yield f"- both models' whole distributions, aim at most 0.7 s: {seconds}."
    for name, aim in ((SEED, "1.5"), (SAMPLED, "20"), (SAMPLED_SHARED, "8"), (LLAMA_CPP, "2")):
        yield f"- {name}, aim {aim} times ours: {times(name)} one at a time, {times(name, OURS_BATCH)} in batches."
    shares = [f"{rows[ours]['share_with_nodes']:.0%}" for ours in (OURS, OURS_BATCH)]
    yield f"- of the matrix rate with nodes, aim 55%: {shares[0]} one at a time, {shares[1]} in batches."


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__.split("\n")[0])
    parser.add_argument("--items", type=int, default=16, help="of a batch")
    parser.add_argument("--singles", type=int, default=4, help="of a round's items that go one at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sampled", type=int, default=1, help="items that are asked 100 times, which is slow"
    )
    parser.add_argument(
        "--text-tokens", type=int, default=200, help="of a product's text, and up to a sentence more"
    )
    options = parser.parse_args(argv)
    try:
        settings = Settings.from_env(profile="embedded")
        predictor, plain = load_predictor(settings), plain_predictor(settings)
    except PricerError as error:
        return report(error)
    pair = predictor.pair
    wanted = (options.text_tokens, options.text_tokens)
    prompts = [
        predictor.prepare(text) for text in products(options.items, pair.tokenizer, tokens=wanted)["text"]
    ]
    lengths = [len(ids) for ids in pair.tokenizer([prompt.text for prompt in prompts])["input_ids"]]
    bench = Bench(predictor, plain, prompts, MatrixProduct())
    with peak_memory() as resident:
        bench.measure(bench.ways(), options.rounds, options.singles)
    bench.sample(options.sampled)
    found = vars(options) | {
        "about": about(PACKAGES),
        "tokens_per_prompt": sum(lengths) / len(lengths),
        "peak_gb": max(resident) / 1e9,
        "matrix_gflops": {"best": max(bench.rates) / 1e9, "median": median(bench.rates) / 1e9},
        "rows": list(bench.rows(layer_weights(plain.pair))),
        "left_out": bench.left_out,
    }
    print(json.dumps(found))
    print(table(bench, found))
    return 0


def layer_weights(pair: LlamaPair) -> int:
    """Numbers in the matrices of the layers, without embeddings, output and adapter."""
    return sum(
        parameter.numel()
        for name, parameter in pair.llama.model.layers.named_parameters()
        if parameter.dim() == 2 and ".lora_" not in name
    )


if __name__ == "__main__":
    sys.exit(main())
