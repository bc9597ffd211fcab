"""What is scored already, kept beside the output until the end: finished parts, and the finished batches of a part at work."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from pricer.errors import InputError, SetupError
from pricer.files import write_whole
from pricer.manifest import Manifest
from pricer.settings import PASSES
from pricer.tables.stream import Part
from pricer.tables.writing import write_table


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

    def open(self, manifest: Manifest, restart: bool) -> None:
        """Find what is done already, or begin. `manifest` is all that the scores depend on.

        Raises InputError when the parts are of something else, when there is an output already (unless
        `restart`: then both are replaced), or when another process works on it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"Another process is scoring into {self.out}: let it finish, or name another output."
            ) from None
        found = Manifest.read(self._manifest) if any(self.folder.glob("part-*")) else None
        if found is not None and not restart:
            manifest.check(found, self.folder)
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
        manifest.write(self._manifest)

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
        write_whole(self.part_path(part.number), lambda aside: pq.write_table(table, aside))
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
