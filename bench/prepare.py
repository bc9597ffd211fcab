"""Time and peak memory of train/prepare.py on made-up raw listings.

    python -m bench.prepare --rows 100000 400000

The listings have the fields of raw McAuley metadata and words drawn by Zipf's law; one in ten is a filled-in
seller template, one in twenty a copy, one in a thousand a broken line. Prints a row of a Markdown table for
each size: memory should grow by the hashes alone, 512 bytes a row, and what sorting them takes.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS, BLOCK = 30_000, 10_000
SYLLABLES = [consonant + vowel for consonant in "bdklmnrst" for vowel in "aeiou"]


def vocabulary(generator: np.random.Generator) -> np.ndarray:
    """WORDS made-up words; every tenth is capitalised, as brands are."""
    words = ["".join(generator.choice(SYLLABLES, size)) for size in generator.integers(2, 5, WORDS)]
    return np.array([word.title() if number % 10 == 0 else word for number, word in enumerate(words)])


def write_listings(path: Path, rows: int, seed: int = 0) -> None:
    """A .jsonl file of `rows` lines."""
    generator = np.random.default_rng(seed)
    words = vocabulary(generator)
    chance = 1 / np.arange(3, WORDS + 3)
    chance /= chance.sum()
    templates = [" ".join(generator.choice(words, 90, p=chance)) for _ in range(200)]
    line = ""
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, rows, BLOCK):
            drawn = words[generator.choice(WORDS, (BLOCK, 110), p=chance)]
            kind = generator.random(BLOCK)
            price_usd = np.exp(generator.normal(4, 1.2, BLOCK)).round(2)
            for row in range(min(BLOCK, rows - start)):
                if kind[row] < 0.001:
                    file.write('{"title": "broken\n')
                    continue
                if kind[row] > 0.05 or not line:
                    body = " ".join(drawn[row, 12:])
                    if kind[row] > 0.9:
                        body = f"{templates[start % 50 + row % 150]} {drawn[row, 0]} {row % 40} inches"
                    line = json.dumps(
                        {
                            "main_category": "Synthetic",
                            "title": f"{' '.join(drawn[row, :12])} {start + row:07d}",
                            "features": [body[:300], body[300:]],
                            "description": [],
                            "price": float(price_usd[row]),
                            "details": {
                                "Item Weight": f"{row % 90} ounces",
                                "Date First Available": "May 3, 2019",
                            },
                        }
                    )
                file.write(line + "\n")


def measure(rows: int) -> str:
    """Prepare so many rows in a fresh process; a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "listings.jsonl"
        write_listings(path, rows)
        megabytes = path.stat().st_size / 1e6
        began = time.perf_counter()
        command = [sys.executable, "-m", "train.prepare", str(path), "--out", str(Path(folder) / "out")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        counts = json.loads((Path(folder) / "out" / "data_card.json").read_text())["counts"]
    # The largest of all children so far: sizes are run from the smallest to the largest.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return (
        f"| {rows:,} | {megabytes:.0f} MB | {seconds:.0f} s | {rows / seconds:,.0f} | {peak:,.0f} MiB "
        f"| {counts['exact_and_near_duplicates']:,} | {counts['groups']:,} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 400_000], help="sizes to measure")
    sizes = sorted(parser.parse_args().rows)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print("| rows | file | time | rows/s | peak memory | duplicates left out | groups |")
    print("|---|---|---|---|---|---|---|")
    for rows in sizes:
        print(measure(rows), flush=True)


if __name__ == "__main__":
    main()
