"""The same recipe on one GPU and on several: time per step and tokens per second, at the same batch per GPU.

    python -m bench.train_gpus train/recipes/smollm2-135m.yaml --out out/bench-gpus --data out/data [--gpus 1 2]

Runs `accelerate launch -m train.finetune` as the README names it, once for each number of processes, and takes the
time of each step from its TensorBoard log. Any further --field value goes to the recipe. Prints a Markdown table.
Without a card the processes run on the CPU (gloo in place of NCCL), which shows only that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

WARM_UP = 5  # steps that are not timed
# Validation would take its own time; each step is logged, so that it can be timed.
FIELDS = "--eval_strategy no --save_strategy no --load_best_model_at_end False --report_to tensorboard --logging_steps 1"


def launch(recipe: Path, processes: int, out: Path, fields: list[str]) -> dict:
    """Train in so many processes; the record that metrics.json holds. Raises CalledProcessError."""
    shutil.rmtree(out, ignore_errors=True)  # else it would go on from its last checkpoint
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command += ["--multi_gpu"] if processes > 1 else []
    command += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    command += ["-m", "train.finetune", str(recipe), "--output", str(out), *fields]
    # The version line shows that it is NCCL that the processes talk through.
    subprocess.run(command, check=True, env={"NCCL_DEBUG": "VERSION", **os.environ})
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def seconds_per_step(checkpoints: Path) -> float:
    """Mean over the steps behind the warm-up, from the times at which their losses were logged."""
    (events,) = (checkpoints / "runs").rglob("events.*")
    logged = EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload().Scalars("train/loss")
    first, last = logged[WARM_UP - 1], logged[-1]
    return (last.wall_time - first.wall_time) / (last.step - first.step)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.train_gpus", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    parser.add_argument("--steps", type=int, default=60, help=f"the first {WARM_UP} are not timed")
    options, fields = parser.parse_known_args(argv)
    if options.steps <= WARM_UP:
        parser.error(f"--steps must be above {WARM_UP}: so many are not timed")
    fields = [*FIELDS.split(), "--max_steps", str(options.steps), *fields]
    found = []
    for processes in options.gpus:
        out = options.out / f"on-{processes}"
        record = launch(options.recipe, processes, out, fields)
        step = seconds_per_step(out / "checkpoints")
        found.append((record, step, record["tokens"] / record["steps"] / step))
    record, _, alone = found[0]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    print(f"{record['device']}, {torch.cuda.device_count()} of them; {versions}; {record['date']}.\n")
    print("| processes | steps | s/step | tokens/s | of the first row's | peak memory of one |")
    print("|---|---|---|---|---|---|")
    for record, step, tokens in found:
        memory = f"{record['peak_gpu_memory_gib']:.1f} GiB" if "peak_gpu_memory_gib" in record else "-"
        print(
            f"| {record['processes']} | {record['steps']} | {step:.3f} | {tokens:,.0f} | {tokens / alone:.2f} | {memory} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
