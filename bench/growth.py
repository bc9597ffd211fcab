"""How time and memory of scoring a file grow with its length, on a CPU.

    python -m bench.growth                                    # simulated: 1,000 to 100,000 items
    python -m bench.growth --profile embedded 25 50 100 200   # the embedded pair

Each length is one file of made-up products that goes through all of pricer.score: read in parts, scored by one pass
with the whole distribution, kept in finished parts, joined and written. The simulated model is a random Llama of two
layers, 64 wide, with one token per character: what is left beside the model's arithmetic, and grows with the file if
anything does. Memory is this process's, looked at 50 times a second; models are loaded before. The processor's seconds (of all its
cores) hold on a busy machine as well.

Prints a line of JSON per length as it is done, then a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import string
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd
import peft
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bench.machine import about, peak_memory, sentence
from bench.products import products
from pricer.errors import PricerError, report
from pricer.llama.adapter import load_adapter_card
from pricer.llama.loading import bitsandbytes_hidden
from pricer.llama.predictor import Predictor
from pricer.price.distribution import DEFAULT_RULE
from pricer.scoring.__main__ import score_file
from pricer.scoring.engine import PlainEngine, Task
from pricer.scoring.store import Store
from pricer.settings import Settings
from pricer.tables.stream import open_source

PACKAGES = ("torch", "transformers", "peft", "numpy", "pyarrow")
DISTINCT = 1000  # made-up products; longer files repeat them
SIMULATED_TOKENS = (24, 40)  # of a text, one per character
WIDTH, LAYERS = 64, 2


def character_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {character: i for i, character in enumerate(string.printable, len(vocabulary))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def simulated(folder: Path) -> Settings:
    """A random pair in `folder`: its numbers are no prices, and it costs next to nothing."""
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    llama = LlamaForCausalLM(config)
    llama.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    with bitsandbytes_hidden():
        adapter = peft.get_peft_model(llama, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    adapter.peft_config["default"].base_model_name_or_path = str(folder / "base")
    adapter.save_pretrained(folder / "adapter", save_embedding_layers=False)
    (folder / "adapter" / "pricer.json").write_text(json.dumps({"max_text_tokens": SIMULATED_TOKENS[1]}))
    return Settings.from_env(
        {
            "PRICER_BASE_MODEL": str(folder / "base"),
            "PRICER_ADAPTER": str(folder / "adapter"),
            "PRICER_DEVICE": "cpu",
        }
    )


class LoadedEngine(PlainEngine):
    """Loads its models once for all files."""

    def start(self) -> None:
        if self._predictor is None:
            super().start()


def grow(
    settings: Settings,
    tokens: tuple[int, int],
    lengths: Sequence[int],
    folder: Path,
    predictor: Predictor | None = None,
) -> Iterator[dict[str, Any]]:
    """What each length took: seconds, of them the processor's, and resident bytes at most. `tokens`: of a text, in the
    fewest and the most; `predictor`: that of the settings where none is given."""
    task = Task(settings, ("tuned",), DEFAULT_RULE)
    engine, adapter = LoadedEngine(task), load_adapter_card(settings)
    engine._predictor = predictor
    engine.start()
    texts = list(
        products(min(DISTINCT, max(lengths)), engine._predictor.pair.tokenizer, tokens=tokens)["text"]
    )
    engine._predictor.compare(texts[0])  # the first one warms up
    for items in lengths:
        path, out = folder / f"{items}.parquet", folder / f"{items}-priced.parquet"
        pd.DataFrame({"text": list(islice(cycle(texts), items))}).to_parquet(path)
        with peak_memory() as resident:
            start, start_cpu = time.perf_counter(), time.process_time()
            source = open_source(path, max_chars=settings.limits.text_chars)
            scored, _ = score_file(source, Store(out), task, adapter, engine, restart=True)
            seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
        assert scored == items
        yield {
            "items": items,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2),
            "seconds_per_1000": round(1000 * seconds / items, 2),
            "cpu_seconds_per_1000": round(1000 * cpu / items, 2),
            "peak_mb": round(max(resident) / 1e6),
        }


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| items | seconds (processor's) | per 1,000 items (processor's) | peak memory |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['items']:,} | {row['seconds']:,.1f} ({row['cpu_seconds']:,.1f}) | {row['seconds_per_1000']:.2f} "
            f"({row['cpu_seconds_per_1000']:.2f}) | {row['peak_mb']:,} MB |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__.split("\n")[0])
    parser.add_argument("lengths", type=int, nargs="*", help="items of the files")
    parser.add_argument("--profile", choices=["embedded"], help="default: a simulated model")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        try:
            if options.profile:
                settings, tokens = Settings.from_env(profile=options.profile), (200, 200)
                lengths = options.lengths or [25, 50, 100, 200]
            else:
                settings, tokens = simulated(Path(folder)), SIMULATED_TOKENS
                lengths = options.lengths or [1000, 10_000, 100_000]
            rows = []
            for row in grow(settings, tokens, sorted(lengths), Path(folder)):
                rows.append(row)
                print(json.dumps(row), flush=True)
        except PricerError as error:
            return report(error)
    print(sentence(about(PACKAGES)))
    print()
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
