"""What torch is told of threads before it is loaded."""

import os
import subprocess
import sys

import pytest

import pricer
from pricer import quota, settle


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_quota_is_read_in_either_form(tmp_path, files, cores):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert quota(tmp_path) == cores


@pytest.mark.parametrize("cores", [2, 64])
def test_threads_are_as_many_as_the_quota_allows(monkeypatch, cores):
    monkeypatch.setattr(pricer, "quota", lambda cgroup: cores)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    environ = {}
    settle(environ)
    assert environ.get("OMP_NUM_THREADS") == ("2" if cores == 2 else None)


@pytest.mark.parametrize(
    "own", [{"OMP_WAIT_POLICY": "PASSIVE"}, {"GOMP_SPINCOUNT": "7"}, {"OMP_NUM_THREADS": "3"}]
)
def test_what_the_environment_says_stays(monkeypatch, own):
    monkeypatch.setattr(pricer, "quota", lambda cgroup: 1)
    environ = dict(own)
    settle(environ)
    assert own.items() <= environ.items()
    assert ("GOMP_SPINCOUNT" in environ) == ("OMP_WAIT_POLICY" not in own)


def test_it_is_said_before_torch_is_loaded():
    code = "import os, sys, pricer; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    environ = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True
    )
    assert found.stdout.split() == ["False", str(pricer.SPINS)]
