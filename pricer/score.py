"""python -m pricer.score in.csv out.csv: every row of a file of any length gets its price.

The columns of the input are kept, and behind them come

    tuned_usd (base_usd)   the price by the rule, for each of --passes
    low_usd, high_usd      its 90 % interval       (of the tuned pass; of the base where that runs alone)
    unpriced_mass          the probability that no price from $1 to $999 was meant
    text_cut               whether the text was longer than the models read

Rows that cannot be used stand in out.rejected.csv instead, with their number and the reason. Killed at any
moment, the same command goes on behind the last finished batch (with --engine ray: the last finished part): what
is done lies in .out.csv.parts beside the output until the end. Exit code 2 for bad input, 1 for anything else.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from tqdm import tqdm

from pricer import table_stream
from pricer.calibration import weights_sha256
from pricer.distribution import DEFAULT_RULE, RULES
from pricer.errors import InputError, PricerError, SetupError, report
from pricer.model import PASSES, Adapter, choose_device, choose_precision, load_adapter_card
from pricer.predictor import Predictor, load_predictor
from pricer.settings import PROFILES, Settings
from pricer.table_stream import Part, Source, open_source, write_table

ENGINES = ("plain", "ray")
_FIGURES = ("usd", "low_usd", "high_usd", "unpriced_mass")  # of one pass over one text


@dataclass(frozen=True)
class Task:
    """How rows are scored: the models, the passes in the order of PASSES, and the point rule."""

    settings: Settings
    passes: tuple[str, ...]
    rule: str

    @property
    def fields(self) -> list[pa.Field]:
        """The columns that scoring adds."""
        numbers = [*(f"{which}_usd" for which in self.passes), "low_usd", "high_usd", "unpriced_mass"]
        return [*(pa.field(name, pa.float64()) for name in numbers), pa.field("text_cut", pa.bool_())]


class Journal:
    """The finished batches of a part at work, one JSON line each; from a line torn by a kill on it is dropped.

    Whole batches: the predictor puts the rest of a part into the same batches as it did before."""

    def __init__(self, path: Path | None = None):
        self.done: dict[str, dict[int, list[float]]] = {which: {} for which in PASSES}
        self._path = path
        written = path.read_bytes() if path and path.is_file() else b""
        good = 0
        for line in written.splitlines(keepends=True):
            try:
                which, batch = json.loads(line) if line.endswith(b"\n") else None
                self._take(which, batch)
            except (TypeError, ValueError, KeyError, AttributeError):  # torn, or damaged from outside
                break
            good += len(line)
        if good < len(written):
            os.truncate(path, good)

    def add(self, which: str, batch: dict[int, list[float]]) -> None:
        """A batch's figures by position in the part."""
        self._take(which, batch)
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([which, batch]) + "\n")

    def _take(self, which: str, batch: dict) -> None:
        self.done[which] |= {int(at): figures for at, figures in batch.items()}


def score_texts(
    predictor: Predictor,
    texts: Sequence[str],
    task: Task,
    journal: Journal | None = None,
    on_done: Callable[[int], None] = lambda scores: None,
) -> dict[str, list]:
    """The added columns for the texts of one part, in their order. What the journal holds is not scored again;
    `on_done` is told of every batch how many scores it brought (one per text and pass)."""
    journal = journal or Journal()
    prompts = [predictor.prepare(text) for text in texts]
    for which in task.passes:
        todo = [at for at in range(len(texts)) if at not in journal.done[which]]
        on_done(len(texts) - len(todo))
        for indices, predictions in predictor.predict_batches([prompts[at] for at in todo], which):
            figures = [_figures(prediction, task.rule) for prediction in predictions]
            journal.add(which, dict(zip([todo[i] for i in indices], figures, strict=True)))
            on_done(len(indices))
    columns = {
        f"{which}_usd": [journal.done[which][at][0] for at in range(len(texts))] for which in task.passes
    }
    last = journal.done[task.passes[-1]]
    columns |= {
        name: [last[at][i] for at in range(len(texts))] for i, name in enumerate(_FIGURES) if name != "usd"
    }
    return columns | {"text_cut": [prompt.truncated for prompt in prompts]}


def _figures(prediction: Any, rule: str) -> list[float]:
    low, high = prediction.interval()
    distribution = prediction.distribution
    return [round(float(distribution.point(rule)), 2), low, high, round(float(distribution.unpriced_mass), 6)]


class PlainEngine:
    """In this process, part after part."""

    def __init__(self, task: Task):
        self.task, self.device = task, choose_device(task.settings)
        self._predictor: Predictor | None = None

    def start(self) -> None:
        self._predictor = load_predictor(self.task.settings)

    def score(
        self, source: Source, store: Store, on_done: Callable[[int], None]
    ) -> Iterator[tuple[Part, dict[str, list]]]:
        """The parts that `store` lacks with their added columns; `on_done` is told of the scores as they come."""
        for part in source.parts(store.done):
            journal = Journal(store.journal_path(part.number))
            yield part, score_texts(self._predictor, part.texts, self.task, journal, on_done)


class Store:
    """The folder beside the output where finished parts lie until the end, each whole or not at all.

    `manifest.json` says what they belong to. It is the first file that is written and, once the output stands,
    the first that is removed: without it a part is worthless, with it every part counts.
    """

    def __init__(self, out: Path):
        self.out, self.folder = out, out.with_name(f".{out.name}.parts")
        self.rejected = out.with_name(f"{out.stem}.rejected.csv")
        self.done: dict[int, int] = {}  # number of a finished part -> its rows, the rejected ones too
        self._manifest = self.folder / "manifest.json"
        self._lock = FileLock(self.folder / "lock")

    def open(self, about: dict[str, Any], restart: bool) -> None:
        """Find what is done already, or begin. `about` is all that the scores depend on.

        Raises InputError when the parts are of other settings, when there is an output already (unless
        `restart`: then both are replaced), or when another process works on it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"Another process is scoring into {self.out}: let it finish, or name another output."
            ) from None
        found = self._read_manifest()
        if found is not None and not restart:
            if differing := [key for key in about if found.get(key) != about[key]]:
                raise InputError(
                    f"{self.folder} holds an unfinished run with other {' and '.join(differing)}: give the command as "
                    "it was, name another output, or begin anew with --restart."
                )
            self.done = dict(self._whole_parts())
            return
        for path in (self.out, self.rejected):
            if path.exists() and not restart:
                if found is None:
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise InputError(
                    f"{path} is there already: name another output, or replace it with --restart."
                )
        self._manifest.unlink(missing_ok=True)
        for path in self.folder.glob("part-*"):
            path.unlink()
        self._put(
            self._manifest, lambda aside: aside.write_text(json.dumps(about, indent=1), encoding="utf-8")
        )

    def _read_manifest(self) -> dict | None:
        try:
            return json.loads(self._manifest.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def _whole_parts(self) -> Iterator[tuple[int, int]]:
        for path in self.folder.glob("part-*.parquet"):
            try:
                found = pq.read_schema(path).metadata
                yield int(path.stem.removeprefix("part-")), int(found[b"rows"])
            except (OSError, pa.ArrowException, KeyError, TypeError):  # damaged: it is scored again
                continue

    def part_path(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.parquet"

    def journal_path(self, number: int) -> Path:
        return self.folder / f"part-{number:08d}.jsonl"

    def add(self, part: Part, columns: dict[str, list], fields: Sequence[pa.Field]) -> None:
        table = part.table
        for field in fields:
            table = table.append_column(field, pa.array(columns[field.name], field.type))
        rows = len(part.rows) + len(part.rejected)
        about = {"rows": str(rows), "rejected": json.dumps(part.rejected)}
        table = table.replace_schema_metadata(about)
        self._put(self.part_path(part.number), lambda aside: pq.write_table(table, aside))
        self.journal_path(part.number).unlink(missing_ok=True)
        self.done[part.number] = rows

    def finish(self, schema: pa.Schema) -> tuple[int, int]:
        """Join the parts into the output and remove them. Returns how many rows were scored and rejected."""
        counts = {"scored": 0, "rejected": 0}

        def tables() -> Iterator[pa.Table]:
            for number in sorted(self.done):
                table = self._read(self.part_path(number))
                counts["scored"] += table.num_rows
                yield pa.Table.from_arrays(table.columns, schema=schema)

        def rejected() -> Iterator[pa.Table]:
            for number in sorted(self.done):
                found = json.loads(pq.read_schema(self.part_path(number)).metadata[b"rejected"])
                counts["rejected"] += len(found)
                yield pa.table({"row": [row for row, _ in found], "reason": [reason for _, reason in found]})

        kind, side = self.out.suffix.lower(), pa.schema({"row": pa.int64(), "reason": pa.string()})
        whole, wrong = self.folder / f"whole{kind}", self.folder / "rejected.csv"
        write_table(whole, schema, tables(), kind)
        write_table(wrong, side, rejected(), ".csv")
        if counts["rejected"]:
            wrong.replace(self.rejected)
        else:
            self.rejected.unlink(missing_ok=True)
        whole.replace(self.out)
        self._manifest.unlink()  # from here on there is nothing to go on with
        shutil.rmtree(self.folder, ignore_errors=True)
        return counts["scored"], counts["rejected"]

    def _read(self, path: Path) -> pa.Table:
        try:
            with pq.ParquetFile(path) as file:
                return file.read()
        except (OSError, pa.ArrowException):
            path.unlink(missing_ok=True)
            raise SetupError(
                f"{path} was damaged and is removed: the same command scores its rows again and goes on."
            ) from None

    def close(self) -> None:
        self._lock.release()

    def _put(self, path: Path, write: Callable[[Path], Any]) -> None:
        aside = path.with_name(f"aside-{path.name}")
        write(aside)
        aside.replace(path)


def score_file(
    source: Source, store: Store, task: Task, adapter: Adapter, engine: Any, restart: bool
) -> tuple[int, int]:
    """Score what is not done yet and write the output. Returns how many rows were scored and rejected."""
    added = {field.name for field in task.fields}
    if taken := [name for name in source.schema.names if name in added]:
        raise InputError(
            f"{source.path.name} has a column {taken[0]} already, as scoring adds one: rename or remove it."
        )
    settings = task.settings
    about = {
        "input": [source.sha256, source.text_columns, source.max_chars],
        "models": [
            str(settings.base),
            weights_sha256(adapter.folder),
            choose_precision(settings, engine.device),
        ],
        "prompt": [adapter.question, adapter.max_text_tokens],
        "calibration": adapter.calibration and adapter.calibration.model_dump(mode="json"),
        "passes": list(task.passes),
        "rule": task.rule,
        "parts": [source.part_rows, table_stream.PART_BYTES, table_stream.ROW_BYTES],
    }
    try:
        store.open(about, restart)
        done = sum(store.done.values())
        if done < source.rows:
            _score_rest(source, store, task, engine, done)
        return store.finish(pa.schema([*source.schema, *task.fields]))
    finally:
        store.close()


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
    from pricer.ray_engine import RayEngine  # an optional requirement

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
        settings = Settings.from_env(profile=options.profile)
        check_paths(options.input, options.output)
        adapter = load_adapter_card(settings)
        rule = options.rule or (adapter.calibration.rule if adapter.calibration else DEFAULT_RULE)
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
    parser.add_argument("input", type=Path, help=" or ".join(table_stream.INPUTS))
    parser.add_argument("output", type=Path, help=" or ".join(table_stream.OUTPUTS))
    parser.add_argument("--text-column", help="default: prompt or text, else title and description")
    parser.add_argument("--passes", nargs="+", choices=PASSES, default=["tuned"], help="default: tuned")
    parser.add_argument(
        "--rule", choices=RULES, help="how a distribution becomes one price; default: the adapter's"
    )
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
