"""The benchmark of scoring still runs: on a tiny shape, on the CPU."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from bench import score_8b, shape_8b


@pytest.fixture(scope="module")
def tokenizer_folder(llama3_tokenizer):
    return Path(llama3_tokenizer.name_or_path)


@pytest.fixture(scope="module")
def scored(tokenizer_folder, tmp_path_factory):
    """The whole run on the tiny shape: (results by variant and pass, the table, its folder)."""
    out = tmp_path_factory.mktemp("score")
    arguments = ["--tokenizer", str(tokenizer_folder), "--out", str(out), "--shape", "tiny"]
    arguments += ["--items", "2", "--seed-items", "1", "--growth", "1", "3", "--budgets", "512"]
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert score_8b.main(arguments) == 0
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return results, printed.getvalue()


def test_scoring_is_measured_in_every_way_and_reported(scored):
    results, printed = scored
    found = {(r["variant"], r.get("pass")) for r in results}
    for variant in (
        "nf4",
        "nf4, one in flight",
        "dequantised",
        "dequantised, plain layers",
        "seed's generate",
    ):
        assert {(variant, which) for which in ("base", "tuned", "both")} <= found
    assert {("both in one batch, plain layers", "both"), ("in two, plain layers", "both")} <= found
    assert [r["items"] for r in results if r["variant"] == "growth"] == [1, 3]
    assert not any("left_out" in r for r in results)
    for r in results[1:]:
        assert r["items_per_second"] > 0
        if "off_by" in r:  # however it is computed, the distributions are the same
            assert r["off_by"] < 1e-4
            assert 0 < r["share"] < r["share_with_nodes"] < 1.5
    assert printed.count("\n| ") == len(results)  # a heading, and a row for all but the machine
    assert "times the seed's rate" in printed


def test_the_rehearsed_model_does_as_a_real_one(scored):
    for r in scored[0]:
        if r["variant"] == "nf4" and r["pass"] != "both":
            assert (r["nodes"] > 64) if r["pass"] == "base" else (r["nodes"] < 20)


def test_what_there_is_no_time_for_is_left_out_and_said_to_be(tokenizer_folder, tmp_path, capsys):
    arguments = ["--tokenizer", str(tokenizer_folder), "--out", str(tmp_path), "--shape", "tiny"]
    assert score_8b.main([*arguments, "--items", "2", "--seconds", "0"]) == 0
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert all(r["left_out"] == "no time" for r in results[1:]) and len(results) > 8
    assert "left out: no time" in capsys.readouterr().out


def test_copied_layers_are_as_many_as_the_shape_says_and_each_has_its_place(tmp_path):
    shape = shape_8b.SHAPES["tiny"] | {"num_hidden_layers": 3}
    base = score_8b.deep_base(shape, "cpu", "fp32", tmp_path)
    ids = torch.arange(1, 20)[None]
    with torch.inference_mode():
        whole = base(ids, use_cache=False).logits
        start = base(ids[:, :-1], use_cache=True)
        rest = base(ids[:, -1:], past_key_values=start.past_key_values).logits
    assert len(base.model.layers) == base.config.num_hidden_layers == 3
    assert torch.allclose(whole[:, -1], rest[:, -1], atol=1e-5)  # every layer has keys and values of its own
    first, last = base.model.layers[0].mlp.up_proj.weight, base.model.layers[2].mlp.up_proj.weight
    assert torch.equal(first, last) and first.data_ptr() != last.data_ptr()
