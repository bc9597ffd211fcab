"""python -m pricer.score in.csv out.csv: every row of a file of any length gets its price.

The columns of the input are kept, and behind them come

    tuned_usd (base_usd)   the price by the rule, for each of --passes
    low_usd, high_usd      its 90 % interval       (of the tuned pass; of the base where that runs alone)
    unpriced_mass          the probability that no price from $1 to $999 was meant
    text_cut               whether the text was longer than the models read

Rows that cannot be used stand in out.rejected.csv instead, with their number and the reason. Killed at any
moment, the same command goes on behind the last finished batch (with --engine ray: the last finished part): what
is done lies in .out.csv.parts beside the output until the end, with what it was made of: with another input, model
or rule the command refuses, and begins anew with --restart. Exit code 2 for bad input, 1 for anything else.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from pricer.errors import InputError, PricerError, report
from pricer.files import file_sha256
from pricer.llama.adapter import Adapter, load_adapter_card
from pricer.llama.made_of import predictions_made_of
from pricer.llama.prediction import default_rule
from pricer.manifest import Manifest
from pricer.price.distribution import RULES
from pricer.price.prior import PRIOR_HELP, load_prior
from pricer.scoring.engine import PlainEngine, Task
from pricer.scoring.store import Store
from pricer.settings import PASSES, PROFILES, Settings
from pricer.tables import stream as table_stream
from pricer.tables.lines import ROW_BYTES
from pricer.tables.reading import FORMATS
from pricer.tables.stream import Source, open_source

ENGINES = ("plain", "ray")


def score_file(
    source: Source, store: Store, task: Task, adapter: Adapter, engine: Any, restart: bool
) -> tuple[int, int]:
    """Score what is not done yet and write the output. Returns how many rows were scored and rejected."""
    task.check_columns(source.schema.names, source.path.name)
    try:
        store.open(Manifest(made_of(source, task, adapter, engine.device)), restart)
        done = sum(store.done.values())
        if done < source.rows:
            _score_rest(source, store, task, engine, done)
        if file_sha256(source.path) != source.sha256:
            raise InputError(f"{source.path} was changed while it was scored: begin anew with --restart.")
        return store.finish(pa.schema([*source.schema, *task.fields]))
    finally:
        store.close()


def made_of(source: Source, task: Task, adapter: Adapter, device: str) -> dict[str, Any]:
    """All that the parts of an output depend on, for its manifest."""
    return {
        "input": source.sha256,
        "text columns": source.text_columns,
        "characters at most": source.max_chars,
        "rows of a part": [source.part_rows, table_stream.PART_BYTES, ROW_BYTES],
        "passes": task.passes,
        "rule": task.rule,
        **predictions_made_of(task.settings, adapter, device, task.passes),
    }


def _score_rest(source: Source, store: Store, task: Task, engine: Any, done: int) -> None:
    engine.start()
    passes = len(task.passes)  # the bar counts scores: a row brings one per pass, a rejected one too
    with tqdm(
        total=source.rows * passes, initial=done * passes, unit=" scores", mininterval=1, smoothing=0.05
    ) as bar:
        for part, columns in engine.score(source, store, bar.update):
            store.add(part, columns, task.fields)
            bar.update(len(part.rejected) * passes)


def make_engine(name: str, task: Task, workers: int | None) -> Any:
    if name == "plain":
        if workers is not None:
            raise InputError("--workers belongs to --engine ray: leave it out, or name that engine.")
        return PlainEngine(task)
    from pricer.scoring.ray import RayEngine  # an optional requirement

    return RayEngine(task, workers)


def check_paths(source: Path, out: Path) -> None:
    """Raises InputError when the output cannot be written beside the input."""
    if out.suffix.lower() not in table_stream.OUTPUTS:
        raise InputError(f"{out.name} cannot be written: name a {' or '.join(table_stream.OUTPUTS)} file.")
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a file.")
    if source.resolve() in (out.resolve(), Store(out).rejected.resolve()):
        raise InputError(f"The output would take the place of the input {source}: name another output.")


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = _parser().parse_args(argv)
    try:
        settings = Settings.from_env(profile=options.profile, prior=options.prior)
        check_paths(options.input, options.output)
        adapter = load_adapter_card(settings)
        prior = load_prior(settings.prior)
        rule = options.rule or default_rule(adapter, prior)
        task = Task(settings, tuple(which for which in PASSES if which in options.passes), rule)
        engine = make_engine(options.engine, task, options.workers)  # which says at once if Ray is missing
        source = open_source(
            options.input, text_column=options.text_column, max_chars=settings.limits.text_chars
        )
        store = Store(options.output)
        scored, rejected = score_file(source, store, task, adapter, engine, options.restart)
    except (PricerError, OSError) as error:
        return report(error)
    except KeyboardInterrupt:
        print("Stopped; what is scored is kept, and the same command goes on.", file=sys.stderr)
        return 130
    print(f"{scored:,} rows scored into {store.out}.")
    if rejected:
        print(f"{rejected:,} rows could not be used: {store.rejected} says why.")
    return 0


def _parser() -> argparse.ArgumentParser:
    first, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m pricer.score",
        description=first.partition(": ")[2],
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", type=Path, help=FORMATS)
    parser.add_argument("output", type=Path, help=" or ".join(table_stream.OUTPUTS))
    parser.add_argument("--text-column", help="default: prompt or text, else title and description")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=["tuned"], help="default: tuned")
    parser.add_argument(
        "--rule", choices=RULES, help="how a distribution becomes one price; default: the adapter's"
    )
    parser.add_argument("--prior", help=PRIOR_HELP)
    parser.add_argument("--profile", choices=PROFILES, help="which pair of models; default: PRICER_PROFILE")
    parser.add_argument(
        "--engine", choices=ENGINES, default="plain", help="ray: all GPUs or CPUs of a cluster"
    )
    parser.add_argument("--workers", type=int, help="of --engine ray; default: one per GPU, or per four CPUs")
    parser.add_argument(
        "--restart", action="store_true", help="throw away what an unfinished run left, replace the output"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
