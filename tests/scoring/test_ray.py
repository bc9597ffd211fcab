"""`--engine ray` with two local workers gives what the plain engine gives."""

import os
import sys
import time
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pytest

from pricer.errors import InputError, SetupError
from pricer.scoring import engine as score
from pricer.scoring.__main__ import main
from pricer.settings import ModelRef
from pricer.tables import stream as table_stream

pytestmark = pytest.mark.usefixtures("tiny_environment")


def test_two_workers_give_what_the_plain_engine_gives(tmp_path, monkeypatch, capsys):
    from pricer.scoring import ray as ray_engine

    ray = ray_engine.ray
    monkeypatch.setattr(table_stream, "PART_ROWS", 8)
    path, loaded, started = tmp_path / "in.csv", tmp_path / "loaded", tmp_path / "started"
    texts = [f"Thing {'abcdefgh'[i % 8]} {'of wood ' * (i % 11)}" for i in range(60)]
    texts[9] = texts[33] = ""
    pd.DataFrame({"n": range(60), "text": texts}).to_csv(path, index=False)
    with path.open("a") as file:
        file.write("60\n")

    def both(file, patience_s):
        """Says that this worker is so far, and waits for the other one."""
        with file.open("a") as out:
            out.write(f"{os.getpid()}\n")
        until = time.monotonic() + patience_s
        while len(set(file.read_text().split())) < 2 and time.monotonic() < until:
            time.sleep(0.05)

    class Worker(ray_engine._Worker):
        # Else the first one may be done with all before the second has loaded its model. Before it has a part: on a
        # busy machine Ray gives no part to the second while the first keeps the ones that it has.
        def __init__(self, task):
            super().__init__(task)
            both(loaded, 120)

        def __call__(self, parts):
            both(started, 5)
            return super().__call__(parts)

    monkeypatch.setattr(ray_engine, "_Worker", Worker)
    options = ["--passes", "base", "tuned"]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
    )
    try:
        ray_options = [*options, "--engine", "ray", "--workers", "2"]
        assert main([str(path), str(tmp_path / "ray.csv"), *ray_options]) == 0
    finally:
        ray.shutdown()
    assert main([str(path), str(tmp_path / "plain.csv"), *options]) == 0

    got, expected = pd.read_csv(tmp_path / "ray.csv"), pd.read_csv(tmp_path / "plain.csv")
    assert got["n"].tolist() == [n for n in range(60) if n not in (9, 33)]
    pd.testing.assert_frame_equal(got, expected, rtol=0, atol=1e-6)
    wrong = pd.read_csv(tmp_path / "ray.rejected.csv")
    assert wrong["row"].tolist() == [10, 34, 61]
    pd.testing.assert_frame_equal(wrong, pd.read_csv(tmp_path / "plain.rejected.csv"))
    parts = started.read_text().split()
    assert len(parts) == 8 and len(set(parts)) == 2 and str(os.getpid()) not in parts


@pytest.mark.parametrize(
    ("nodes", "device", "asked", "expected"),
    [
        ([{"CPU": 2}], "cpu", None, (1, {"num_cpus": 2})),
        ([{"CPU": 2}], "cpu", 2, (2, {"num_cpus": 1})),
        ([{"CPU": 16}, {"CPU": 6}], "cpu", None, (5, {"num_cpus": 4})),
        ([{"CPU": 3}] * 3, "cpu", None, (1, {"num_cpus": 3})),
        ([{"CPU": 3}] * 3, "cpu", 4, (4, {"num_cpus": 1})),
        ([{"CPU": 32, "GPU": 2}, {"CPU": 4}, {"CPU": 8, "GPU": 1}], "cuda", None, (3, {"num_gpus": 1})),
        ([{"CPU": 32, "GPU": 2}], "cuda", 1, (1, {"num_gpus": 1})),
    ],
)
def test_workers_fit_on_the_nodes(nodes, device, asked, expected):
    from pricer.scoring.ray import share_out

    assert share_out(nodes, device, asked) == expected


@pytest.mark.parametrize(
    ("nodes", "device", "asked"), [([{"CPU": 2}], "cpu", 3), ([{"GPU": 2}], "cuda", 3), ([{}], "cpu", 1)]
)
def test_more_workers_than_there_is_room_for(nodes, device, asked):
    from pricer.scoring.ray import share_out

    with pytest.raises(InputError, match="--workers"):
        share_out(nodes, device, asked)


def test_a_worker_without_its_model_says_so(tiny_settings, monkeypatch):
    from pricer.scoring import ray as ray_engine

    task = score.Task(replace(tiny_settings, base=ModelRef("./nowhere")), ("tuned",), "mean")
    worker = ray_engine._Worker(task)
    parts = pa.table({"texts": [["lamp"]]})
    with pytest.raises(SetupError, match="nowhere.*PRICER_BASE_MODEL"):
        list(ray_engine._told(iter([worker(parts)])))


def test_a_dead_worker_is_a_sentence():
    from pricer.scoring.ray import _told, ray

    def answers():
        raise ray.exceptions.RayActorError(error_msg="a traceback\nout of memory\n")
        yield

    with pytest.raises(SetupError, match=r"\(out of memory\).* goes on"):
        list(_told(answers()))


def test_without_ray_there_is_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "in.csv").write_text("text\nlamp\n")
    monkeypatch.delitem(sys.modules, "pricer.scoring.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = [str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), "--engine", "ray"]
    assert main(arguments) == 1
    assert "requirements-ray.txt" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["in.csv"]
