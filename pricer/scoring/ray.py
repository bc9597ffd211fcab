"""The same scoring on Ray Data, over all GPUs or CPUs of a cluster; see `pricer.scoring.engine`.

    a reader on this machine -> one row per part, its texts -> workers with a predictor each -> the added columns

A part is scored whole by one worker, in the batches that the plain engine would make of it, so the results
are the same. Parts come back in order and are written here. A cluster is joined where one runs (RAY_ADDRESS, or
`ray start` on this machine), else one is started for the time being; every node needs the project and its models.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa

from pricer.errors import InputError, PricerError, SetupError
from pricer.llama.predictor import load_predictor
from pricer.scoring.engine import Task, score_texts
from pricer.scoring.store import Store
from pricer.tables.stream import Part, Source, TextReader

CPUS_PER_WORKER = 4  # where there is no GPU: more cores for one small model bring little

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else its advice lands between the progress
try:
    import ray
    from ray.data import ActorPoolStrategy, DataContext
except ImportError as error:
    raise SetupError(
        "--engine ray needs Ray: pip install -r requirements-ray.txt -c constraints.txt, or leave the engine out."
    ) from error


class RayEngine:
    """`workers`: how many; default one per GPU of the cluster, or, where there is none, one per four CPUs."""

    def __init__(self, task: Task, workers: int | None = None):
        if workers is not None and workers < 1:
            raise InputError(f"--workers is {workers}: give 1 or more, or leave it out.")
        self.task, self._asked = task, workers

    def start(self) -> None:
        """Join a cluster, or make one of this machine."""
        if not ray.is_initialized():
            _join_cluster()

    @property
    def device(self) -> str:
        """What the workers run on."""
        self.start()
        wanted = self.task.settings.device
        gpus = ray.cluster_resources().get("GPU", 0)
        if wanted == "cuda" and not gpus:
            raise SetupError(
                "PRICER_DEVICE is cuda, but the cluster has no GPU: set it to cpu, or leave it unset."
            )
        return wanted or ("cuda" if gpus else "cpu")

    def score(
        self, source: Source, store: Store, on_done: Callable[[int], None]
    ) -> Iterator[tuple[Part, dict[str, list]]]:
        """As `PlainEngine.score`; `on_done` is told of whole parts."""
        device = self.device
        workers, each = share_out(
            [node["Resources"] for node in ray.nodes() if node["Alive"]], device, self._asked
        )
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = 1  # a block for every part, so that no worker gets all of them
        done = frozenset(store.done)
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}  # where the file is
        parts = ray.data.from_items([0], override_num_blocks=1).map_batches(
            TextReader(source, done), num_cpus=0, label_selector=here
        )
        task = replace(self.task, settings=replace(self.task.settings, device=device))
        scored = parts.map_batches(
            _Worker,
            fn_constructor_args=(task,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=workers),
            **each,
        )
        answers = _told(scored.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1))
        for part, columns in zip(source.parts(done), answers, strict=True):
            on_done(len(part.texts) * len(task.passes))
            yield part, columns


class _Worker:
    """Loads the predictor once; then takes parts. Its sentence when it cannot goes the way of the results: raised
    here, it would end in Ray's pages."""

    def __init__(self, task: Task):
        self.task, self.failed = task, None
        try:
            self.predictor = load_predictor(task.settings)
        except PricerError as error:
            self.failed = str(error)

    def __call__(self, parts: pa.Table) -> pa.Table:
        (texts,) = parts.column("texts").to_pylist()
        answer = score_texts(self.predictor, texts, self.task) if not self.failed else {}
        columns = {f.name: pa.array([answer.get(f.name)], pa.list_(f.type)) for f in self.task.fields}
        return pa.table(columns | {"failed": pa.array([self.failed], pa.string())})


def share_out(nodes: list[dict[str, float]], device: str, asked: int | None) -> tuple[int, dict[str, float]]:
    """How many workers, and what each takes of its node's resources: a GPU, or as many CPUs as all can have.

    Raises InputError when the nodes do not hold as many workers as were asked for.
    """
    if device == "cuda":
        workers, most = asked, int(sum(node.get("GPU", 0) for node in nodes))
        each = {"num_gpus": 1}
    else:
        cpus = [int(node.get("CPU", 0)) for node in nodes]
        most = sum(cpus)
        workers = asked or max(1, sum(n // CPUS_PER_WORKER for n in cpus))
        fit = [c for c in range(1, max(cpus, default=0) + 1) if sum(n // c for n in cpus) >= workers]
        each = {
            "num_cpus": min(max(fit, default=1), CPUS_PER_WORKER) if asked is None else max(fit, default=1)
        }
    workers = workers or most
    if workers > most or not most:
        raise InputError(f"The cluster has room for {most} workers, not for {workers}: lower --workers.")
    return workers, each


def _join_cluster() -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        if os.environ.get("RAY_ADDRESS"):
            raise SetupError(
                f"No Ray cluster answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']}: correct or unset it."
            ) from None
        ray.init(address="local", include_dashboard=False, **quiet)


def _told(answers: Iterator[pa.Table]) -> Iterator[dict[str, list]]:
    """The workers' columns, or one sentence for what went wrong with them."""
    try:
        for answer in answers:
            (columns,) = answer.to_pylist()
            if failed := columns.pop("failed"):
                raise SetupError(failed)
            yield columns
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise SetupError(
            f"Ray's workers failed ({reason}): mend that, and the same command goes on."
        ) from error
