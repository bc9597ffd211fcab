"""The benchmarks on a CPU still run, on tiny models, and their sums are right."""

import json
import sys

import pytest
import torch

from bench import cpu, exactness, growth, machine
from bench.cpu import LLAMA_CPP, OURS, OURS_BATCH, PLAIN, PLAIN_BATCH, SAMPLED, SAMPLED_SHARED, SEED, Measured
from pricer.settings import Settings


@pytest.fixture
def small_product(monkeypatch):
    """A product of 2048 x 2048 matrices takes a while on one thread."""
    monkeypatch.setattr(cpu, "MatrixProduct", lambda: machine.MatrixProduct(64))


def test_every_way_is_measured_and_a_missing_llama_cpp_is_said(
    tiny_predictor, small_product, monkeypatch, capsys
):
    for name in ("load_predictor", "plain_predictor"):
        monkeypatch.setattr(cpu, name, lambda settings: tiny_predictor)
    monkeypatch.setattr(cpu, "SAMPLES", 3)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert cpu.main(["--items", "3", "--singles", "1", "--rounds", "2", "--text-tokens", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    *measured, found = [json.loads(line) for line in lines if line.startswith("{")]
    ways = [row["way"] for row in found["rows"]]
    assert sorted(ways) == sorted(
        [OURS, SEED, PLAIN, OURS_BATCH, PLAIN_BATCH, SAMPLED, SAMPLED_SHARED]
    )  # (c) is left out
    assert "llama_cpp" in found["left_out"][LLAMA_CPP]
    assert any(line.startswith(f"| {LLAMA_CPP} | left out") for line in lines)
    assert sum(line.startswith("| ") for line in lines) == 2 + len(ways)  # with the header's row and (c)
    for m in measured:
        assert m["items"] == (3 if "batches" in m["way"] else 1) and list(m["seconds"]) == ["base", "tuned"]
        assert all(m["nodes"].values()) == (m["way"] in (OURS, OURS_BATCH))
    rows = {row["way"]: row for row in found["rows"]}
    assert rows[OURS][f"times_{OURS}"] == rows[OURS_BATCH][f"times_{OURS_BATCH}"] == 1
    assert 0 < rows[OURS]["share"] < rows[OURS]["share_with_nodes"]
    assert rows[PLAIN]["share"] == rows[PLAIN]["share_with_nodes"]


def test_llama_cpp_is_given_the_same_tokens_one_prompt_after_the_other(
    tiny_predictor, small_product, monkeypatch, tmp_path
):
    class Llama:
        def __init__(self, path, **options):
            assert path.endswith(".gguf") and options["logits_all"] is False
            self._ctx, self.read = self, []
            readers.append(self)

        def reset(self):
            self.read.append([])

        def eval(self, tokens):
            self.read[-1] += tokens

        def get_logits(self):
            return None

    readers = []
    monkeypatch.setitem(sys.modules, "llama_cpp", type(sys)("llama_cpp"))
    sys.modules["llama_cpp"].Llama = Llama
    (tmp_path / "carrier.py").touch()
    monkeypatch.setattr(cpu, "_GGUF_PACKAGE", "carrier")
    monkeypatch.syspath_prepend(tmp_path)
    prompts = [tiny_predictor.prepare(text) for text in ("a drill", "a longer drill")]
    bench = cpu.Bench(tiny_predictor, tiny_predictor, prompts, machine.MatrixProduct(64))
    [way] = [way for way in bench.ways() if way.name == LLAMA_CPP]
    assert way.passes == ("base",) and not bench.left_out
    way.run(prompts, "base")
    assert readers[0].read == tiny_predictor.pair.tokenizer([p.text for p in prompts])["input_ids"]


@pytest.mark.usefixtures("tiny_environment")
def test_the_plain_models_are_ours_in_weights_of_their_own(tiny_predictor):
    plain = cpu.plain_predictor(Settings.from_env())
    prompt = plain.prepare("a drill")
    assert plain.pair.weights is None
    for which in ("base", "tuned"):
        mine, own = (
            p.predict([prompt], which)[0].distribution.probabilities for p in (plain, tiny_predictor)
        )
        assert abs(mine - own).max() < 1e-5


def test_the_plain_forward_gives_what_ours_reads_off_the_prompts_end(tiny_predictor):
    """Otherwise it would be no measure of it; and padding changes nothing."""
    texts = ["a drill", "a much longer text about a drill with a case"]
    prompts = [tiny_predictor.prepare(text) for text in texts]
    for which in ("base", "tuned"):
        together = cpu.plain_forward(tiny_predictor.pair, prompts, which, budget=4096)
        for row, prompt in enumerate(prompts):
            ids = torch.tensor([tiny_predictor.pair.tokenizer(prompt.text)["input_ids"]])
            with tiny_predictor.pair.use(which) as llama:
                expected = llama(input_ids=ids).logits[0, -1]
            torch.testing.assert_close(together[row], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_samples_follow_the_models_probabilities(tiny_predictor, monkeypatch, shared):
    monkeypatch.setattr(cpu, "SAMPLES", 400)
    monkeypatch.setattr(cpu, "NEW_TOKENS", 1)
    torch.manual_seed(0)
    prompt = tiny_predictor.prepare("a drill")
    [logits] = cpu.plain_forward(tiny_predictor.pair, [prompt], "tuned", budget=4096)
    likeliest = int(logits.argmax())
    texts = cpu.sample(tiny_predictor.pair, prompt, "tuned", shared)
    assert len(texts) == 400
    share = sum(text == tiny_predictor.pair.tokenizer.decode([likeliest]) for text in texts) / 400
    expected = float(logits.softmax(-1)[likeliest])
    assert 0.02 < expected < 0.98 and abs(share - expected) < 0.1  # four standard errors


def test_ratios_compare_the_same_round_and_the_same_passes():
    def one(round, way, base, tuned=None, items=1):
        seconds = {"base": base} | ({"tuned": tuned} if tuned else {})
        return Measured(round, way, items, 100 * items, dict.fromkeys(seconds, 50 * items), seconds)

    # The machine is ten times slower in round 1.
    measured = [one(0, OURS, 1.0, 3.0), one(0, SEED, 2.0, 4.0), one(0, LLAMA_CPP, 4.0)]
    measured += [one(1, OURS, 10.0, 30.0), one(1, SEED, 20.0, 40.0), one(1, LLAMA_CPP, 40.0)]
    measured += [one(0, OURS_BATCH, 2.0, 6.0, items=4), one(1, OURS_BATCH, 20.0, 60.0, items=4)]
    assert cpu.ratio(measured, SEED, OURS) == pytest.approx(6 / 4)
    assert cpu.ratio(measured, LLAMA_CPP, OURS) == pytest.approx(4)  # of the base's second alone
    assert cpu.ratio(measured, SEED, OURS_BATCH) == pytest.approx(6 / 2)
    assert cpu.per_item(measured, OURS_BATCH) == {0: 2.0, 1: 20.0}
    assert cpu.per_token(measured, OURS, ["base", "tuned"])[0] == pytest.approx(4 / 200)
    assert cpu.per_token(measured, OURS, ["base", "tuned"], nodes=True)[0] == pytest.approx(4 / 300)


def test_growth_scores_files_of_every_length(capsys):
    assert growth.main(["2", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row["items"] for row in rows] == [2, 5]
    for row in rows:
        assert 0 < row["seconds"] and 50 < row["peak_mb"] < 10_000
    assert sum(line.startswith("| ") for line in lines) == 3


def test_the_weights_that_count_are_the_layers_matrices(tiny_pair):
    """Two layers, 32 wide: queries and output 32 x 32, keys and values 32 x 16, three of 32 x 64; no adapter."""
    assert cpu.layer_weights(tiny_pair) == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)


@pytest.mark.usefixtures("tiny_environment")
def test_exactness_says_what_each_number_of_edges_costs_and_spares(capsys):
    exactness.main(["--items", "2", "--edges", "900", "1"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[4:]]
    assert [row[:2] for row in rows] == [["base", "900"], ["base", "1"], ["tuned", "900"], ["tuned", "1"]]
    (_, _, off, _, nodes), (_, _, worse, _, fewer) = rows[:2]
    assert float(off) < 1e-3 < float(worse) and int(nodes) > int(fewer)
