"""The predictor: any mixture of texts gives what each gives alone, in order, also from many threads."""

import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.errors import InputError
from pricer.llama import head as head_module
from pricer.llama import predictor as predictor_module
from pricer.llama.batches import PADDING, Work, full_enough, token_batches
from pricer.llama.predictor import BATCH_TOKENS, Predictor
from pricer.prompt import frame
from pricer.settings import Limits

TEXTS = [
    "a chair",
    "wooden chair with armrests and a cushion, " * 3,
    "lamp",
    "garden hose, 30 m, with a reel and four nozzles for every need",
    "lamp",
    "x",
    "a very long text that is cut " * 40,
    "drill",
]


def table(predictions):
    return np.stack([p.distribution.probabilities for p in predictions])


def alone(predictor, prompts, which):
    return np.concatenate([table(predictor.predict([prompt], which)) for prompt in prompts])


# --- batches -------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
def test_token_batches_lose_nothing_and_keep_to_the_budget(lengths, budget):
    batches = list(token_batches(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= budget or len(batch) == 1  # one too long alone goes alone
    # Of like length: no batch holds what is longer than the one before.
    for earlier, later in zip(batches, batches[1:], strict=False):
        assert min(lengths[i] for i in earlier) >= max(lengths[i] for i in later)
        # And it was full: the next one's longest would not have fitted, or have brought too much padding.
        width, more = max(lengths[i] for i in earlier), max(lengths[i] for i in later)
        places = (len(earlier) + 1) * width
        padding = places - sum(lengths[i] for i in earlier) - more
        well_filled = len(earlier) * width >= full_enough(budget)
        assert places > budget or (well_filled and padding > PADDING * places)


LENGTHS = {
    "even": lambda rng: rng.integers(60, 201, 1000),
    "one length": lambda rng: np.full(1000, 160),
    "most cut at the budget": lambda rng: np.minimum(rng.integers(60, 400, 1000), 177),
    "two kinds": lambda rng: np.where(rng.random(1000) < 0.5, 70, 190) + rng.integers(-5, 6, 1000),
    "a few long ones": lambda rng: np.clip(rng.lognormal(4.6, 0.3, 1000).astype(int), 60, 200),
}


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("budget", [2048, 4096, 8192, 16384, 32768, 65536])
def test_of_a_files_tokens_at_most_5_percent_are_padding(kind, budget):
    lengths = LENGTHS[kind](np.random.default_rng(0)).tolist()
    batches = list(token_batches(lengths, budget))
    places = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert 1 - sum(lengths) / places <= 0.05
    # And not by small batches: only the last of all may be.
    assert all(len(batch) * max(lengths[i] for i in batch) >= full_enough(budget) for batch in batches[:-1])


def test_a_few_prompts_stay_together_whatever_their_lengths():
    assert len(list(token_batches([20, 200, 40, 160], 4096))) == 1


def test_token_batches_of_nothing():
    assert list(token_batches([], 100)) == []


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_a_batch_gives_what_each_text_gives_alone(tiny_predictor, which):
    prompts = [tiny_predictor.prepare(text) for text in TEXTS]
    together = table(tiny_predictor.predict(prompts, which))
    assert (together.sum(axis=1) > 0.05).all()
    assert np.abs(together - alone(tiny_predictor, prompts, which)).max() < 1e-4
    different = np.abs(together[:, None] - together[None]).max(axis=2)
    assert (different[different > 0] > 1e-3).all() and (
        different > 0
    ).sum() == 8 * 7 - 2  # only the lamps are alike


@settings(max_examples=12)
@given(
    st.lists(st.sampled_from(["a", "chair,", "wood.", "3", "sizes"]), min_size=1, max_size=50).map(" ".join),
    st.data(),
)
def test_any_mixture_of_lengths(tiny_predictor, first, data):
    words = st.lists(st.sampled_from(["chair", "oak", "12", "x"]), min_size=1, max_size=30).map(" ".join)
    texts = [first, *data.draw(st.lists(words, max_size=6))]
    which = data.draw(st.sampled_from(["base", "tuned"]))
    prompts = [tiny_predictor.prepare(text) for text in texts]
    together = table(tiny_predictor.predict(prompts, which))
    assert np.abs(together - alone(tiny_predictor, prompts, which)).max() < 1e-4


def test_a_batch_on_the_llama_3_tokenizer(llama3_pair):
    predictor = Predictor(llama3_pair)
    prompts = [predictor.prepare(text) for text in TEXTS]
    for which in ("base", "tuned"):
        together = table(predictor.predict(prompts, which))
        assert (together.sum(axis=1) > 0.01).all()
        assert np.abs(together - alone(predictor, prompts, which)).max() < 1e-4


@pytest.mark.base
def test_a_batch_on_the_embedded_base(embedded_pair):
    predictor = Predictor(embedded_pair)
    prompts = [
        predictor.prepare(text) for text in ("Cordless drill", "Oak chair with a cushion and armrests")
    ]
    together = table(predictor.predict(prompts, "base"))
    assert (together.sum(axis=1) > 0.05).all()
    assert np.abs(together - alone(predictor, prompts, "base")).max() < 1e-4


def test_the_exact_lattice_in_a_batch(tiny_pair):
    exact = Predictor(tiny_pair, tolerance=0, max_edges=None)
    prompts = [exact.prepare(text) for text in TEXTS[:4]]
    assert np.abs(table(exact.predict(prompts, "base")) - alone(exact, prompts, "base")).max() < 1e-5


@pytest.mark.parametrize("budget", [1, 150, 400, 100_000])
def test_the_order_is_kept_and_no_forward_pass_exceeds_the_budget(
    tiny_pair, tiny_predictor, monkeypatch, budget
):
    prompts = [tiny_predictor.prepare(text) for text in TEXTS]
    wanted = alone(tiny_predictor, prompts, "tuned")
    seen = []
    monkeypatch.setattr(tiny_pair, "weights", None)  # transformers' own pass, which can be looked into
    forward = tiny_pair.llama.model.forward

    def spy(*args, **options):
        if options["past_key_values"].get_seq_length() == 0:  # over prompts, not over the lattice
            rows, width = options["input_ids"].shape
            seen.append((rows, width - len(tiny_predictor.lattice.first)))  # those ride along
        return forward(*args, **options)

    monkeypatch.setattr(tiny_pair.llama.model, "forward", spy)
    predictor = Predictor(tiny_pair, Limits(batch_tokens=budget))
    done = []
    got = predictor.predict(prompts, "tuned", on_done=done.append)
    assert np.abs(table(got) - wanted).max() < 1e-4
    assert all(rows * width <= budget or rows == 1 for rows, width in seen)
    assert sum(rows for rows, _ in seen) == len(prompts)
    assert len(seen) == {1: 8, 100_000: 1}.get(budget, len(seen))
    assert done == sorted(set(done)) and done[-1] == len(prompts) and len(done) == len(seen)


def test_batches_come_as_they_are_done_and_name_their_items(tiny_pair):
    predictor = Predictor(tiny_pair, Limits(batch_tokens=200))
    prompts = [predictor.prepare(text) for text in TEXTS]
    batches = predictor.predict_batches(prompts, "base")
    first, answers = next(batches)
    assert 0 < len(first) == len(answers) < len(prompts)
    rest = [i for indices, _ in batches for i in indices]
    assert sorted(first + rest) == list(range(len(prompts)))


def test_work_tells_padding_of_prompts_from_padding_of_nodes(llama3_pair, monkeypatch):
    predictor = Predictor(llama3_pair)
    prompts = [predictor.prepare(text) for text in TEXTS[:3]]
    lengths = [len(i) for i in llama3_pair.tokenizer([p.text for p in prompts])["input_ids"]]
    asked = []
    update = predictor_module.Growth.update

    def spy(self, nodes, probabilities):
        asked.append(nodes)
        update(self, nodes, probabilities)

    monkeypatch.setattr(predictor_module.Growth, "update", spy)
    predictor.predict(prompts, "base")
    work, later = predictor.work, asked[1:]  # the first are the prompts' ends
    assert (work.items, work.prompt_tokens) == (3, sum(lengths))
    assert work.prompt_padding == 3 * max(lengths) - sum(lengths) > 0
    assert work.nodes == sum((nodes >= 0).sum() for nodes in later) > 0
    assert work.node_padding == sum((nodes < 0).sum() for nodes in later)
    assert work.forward_passes == len(asked)
    assert 0 < work.padding_share < 1 and Work().padding_share == Work().node_padding_share == 0


@pytest.mark.parametrize("pair", ["tiny_pair", "llama3_pair"])
def test_two_batches_in_flight_give_what_one_gives_in_the_same_order(pair, request):
    pair = request.getfixturevalue(pair)
    one, two = (Predictor(pair, Limits(batch_tokens=150), in_flight=n) for n in (1, 2))
    prompts = [one.prepare(text) for text in TEXTS]
    for which in ("base", "tuned"):
        wanted, got = (list(p.predict_batches(prompts, which)) for p in (one, two))
        assert len(got) > 2
        assert sorted(i for indices, _ in got for i in indices) == list(range(len(prompts)))
        assert np.array_equal(table(one.predict(prompts, which)), table(two.predict(prompts, which)))
        assert {tuple(i) for i, _ in got} == {tuple(i) for i, _ in wanted}
    assert two.work == one.work


def test_two_are_in_flight_on_a_card_and_where_each_has_its_own_cores(tiny_pair, monkeypatch):
    assert Predictor(tiny_pair).in_flight == 2
    monkeypatch.setattr(tiny_pair, "weights", None)
    assert Predictor(tiny_pair).in_flight == 1
    monkeypatch.setattr(type(tiny_pair), "device", torch.device("cuda"))
    assert Predictor(tiny_pair).in_flight == 2 and Predictor(tiny_pair, in_flight=1).in_flight == 1


def test_two_in_flight_is_begun_before_the_first_is_waited_for(tiny_pair, monkeypatch):
    monkeypatch.setattr(tiny_pair, "weights", None)
    predictor = Predictor(tiny_pair, Limits(batch_tokens=1), in_flight=2)
    prompts = [predictor.prepare(text) for text in ("lamp", "chair", "drill")]
    happened = []
    for name, what in (("prompts", "begun"), ("nodes", "further")):
        real = getattr(predictor_module.Batch, name)
        monkeypatch.setattr(
            predictor_module.Batch,
            name,
            lambda self, nodes, real=real, what=what: happened.append(what) or real(self, nodes),
        )
    batches = predictor.predict_batches(prompts, "base")
    next(batches)
    assert happened[:3] == ["begun", "begun", "further"]
    assert happened.count("begun") == 3  # the third already, while the caller has the first
    assert len(list(batches)) == 2


def test_without_nodes_there_is_no_mask_whatever_the_padding(llama3_pair, monkeypatch):
    """A mask would keep attention from its fast kernel; the prompts' results do not need one."""
    monkeypatch.setattr(llama3_pair, "weights", None)
    predictor = Predictor(llama3_pair)
    prompts = [predictor.prepare(text) for text in TEXTS[:4]]
    masks = []
    forward = llama3_pair.llama.model.forward

    def spy(*args, **options):
        masks.append(options["attention_mask"])
        return forward(*args, **options)

    monkeypatch.setattr(llama3_pair.llama.model, "forward", spy)
    predictor.predict(prompts, "tuned")
    assert masks[0] is None and len(masks) > 1 and all(mask is not None for mask in masks[1:])


def test_logits_over_the_vocabulary_stay_small(llama3_pair, monkeypatch):
    monkeypatch.setattr(head_module, "_LOGITS", 3 * llama3_pair.llama.config.vocab_size)
    predictor = Predictor(llama3_pair)
    prompts = [predictor.prepare(text) for text in TEXTS]
    wanted = table(Predictor(llama3_pair).predict(prompts, "base"))
    rows = []
    head = llama3_pair.llama.lm_head.forward
    monkeypatch.setattr(llama3_pair.llama.lm_head, "forward", lambda x: rows.append(len(x)) or head(x))
    assert np.abs(table(predictor.predict(prompts, "base")) - wanted).max() < 1e-6
    assert max(rows) == 3 and len(rows) > 3


def test_the_question_that_all_prompts_begin_with_is_computed_once(tiny_pair, monkeypatch):
    predictor, seen = Predictor(tiny_pair), []
    embedding = torch.nn.functional.embedding
    monkeypatch.setattr(
        "pricer.llama.forward.F.embedding",
        lambda ids, *rest: seen.append(ids.tolist()) or embedding(ids, *rest),
    )
    prompt = predictor.prepare("lamp")
    ids = tiny_pair.tokenizer(prompt.text)["input_ids"]
    for which, times in (("base", 1), ("base", 0), ("tuned", 1)):
        seen.clear()
        predictor.predict([prompt], which)
        [known] = [n for n in range(len(ids)) if seen[times][: len(ids) - n] == ids[n:]]
        assert known > 5 and (times == 0 or seen[0][:known] == ids[:known])


def test_the_budget_goes_by_the_device_where_none_is_named(tiny_pair, monkeypatch):
    asked = []
    monkeypatch.setattr(
        predictor_module, "token_batches", lambda lengths, budget: asked.append(budget) or iter([])
    )
    predictor = Predictor(tiny_pair)
    list(predictor.predict_batches([predictor.prepare("lamp")], "base"))
    assert asked == [BATCH_TOKENS["cpu"]]


@pytest.mark.parametrize("in_flight", [1, 2])
def test_memory_follows_the_budget_and_not_the_input(tiny_pair, monkeypatch, in_flight):
    monkeypatch.setattr(predictor_module, "_TOKENISED", 32)
    predictor = Predictor(tiny_pair, Limits(batch_tokens=400), in_flight=in_flight)
    prompts = [predictor.prepare(text) for text in TEXTS] * 12
    widest = []
    monkeypatch.setattr(tiny_pair, "weights", None)
    forward = tiny_pair.llama.model.forward

    def spy(*args, **options):
        widest.append(options["input_ids"].numel())
        return forward(*args, **options)

    monkeypatch.setattr(tiny_pair.llama.model, "forward", spy)

    def peak(items):
        widest.clear()
        tracemalloc.start()
        done = sum(len(indices) for indices, _ in predictor.predict_batches(prompts[:items], "tuned"))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert done == items
        return most, max(widest)

    peak(32)  # what is made once
    (few, few_tokens), (many, many_tokens) = peak(32), peak(96)
    assert many < 1.3 * few
    assert many_tokens == few_tokens


def test_prompts_are_named_by_their_place_in_the_whole_input(tiny_pair, monkeypatch):
    monkeypatch.setattr(predictor_module, "_TOKENISED", 3)
    predictor = Predictor(tiny_pair)
    prompts = [predictor.prepare(text) for text in TEXTS]
    got = table(predictor.predict(prompts, "tuned"))
    assert np.abs(got - alone(predictor, prompts, "tuned")).max() < 1e-4


def test_seconds_are_each_texts_share(tiny_predictor):
    answers = tiny_predictor.predict([tiny_predictor.prepare(text) for text in TEXTS[:3]], "base")
    assert all(0 < answer.seconds < 60 for answer in answers)
    assert len({answer.seconds for answer in answers}) == 1  # one batch


def test_nothing_to_predict(tiny_predictor):
    assert tiny_predictor.predict([], "base") == []
    assert list(tiny_predictor.predict_batches([], "tuned")) == []


def test_an_unknown_pass_is_refused(tiny_predictor):
    with pytest.raises(ValueError, match="tuned"):
        tiny_predictor.predict([tiny_predictor.prepare("a lamp")], "finetuned")


# --- one text ------------------------------------------------------------------------------------


def test_compare_gives_both_passes_over_one_text(tiny_predictor):
    answer = tiny_predictor.compare("  a chair\r\n of wood ")
    assert answer.prompt.text == frame("a chair\n of wood") and not answer.prompt.truncated
    base, tuned = (p.distribution.probabilities for p in (answer.base, answer.tuned))
    assert np.abs(base - tuned).max() > 1e-3
    for which, probabilities in (("base", base), ("tuned", tuned)):
        assert np.abs(alone(tiny_predictor, [answer.prompt], which)[0] - probabilities).max() < 1e-6


def test_only_the_tuned_pass_is_calibrated(tiny_predictor, calibrated_predictor):
    plain, got = (p.compare("A garden table") for p in (tiny_predictor, calibrated_predictor))
    for level in (0.5, 0.8, 0.9):
        assert got.base.interval(level) == plain.base.interval(level)
        central = plain.tuned.distribution.interval(level)
        assert plain.tuned.interval(level) == tuple(float(end) for end in central)
        calibrated = got.tuned.calibration.interval(got.tuned.distribution, level)
        assert got.tuned.interval(level) == tuple(float(end) for end in calibrated)
    assert plain.to_dict()["tuned"]["rule"] == "log-mean"
    for which in ("base", "tuned"):  # both by the same rule, so that they can be compared
        answer = got.to_dict()[which]
        assert answer["rule"] == "median"
        assert answer["price_usd"] == plain.to_dict("median")[which]["price_usd"]


def test_prepare_cleans_cuts_and_frames_as_the_adapter_was_trained(tiny_pair):
    pair = tiny_pair
    predictor = Predictor(pair, Limits(text_chars=5000))
    prompt = predictor.prepare("\x00chair " * 100)
    assert prompt.truncated and prompt.kept_chars == 59  # 60 tokens of one character, the last one a blank
    assert prompt.text.startswith(pair.adapter.question) and prompt.text.endswith("\n\nPrice is $")
    with pytest.raises(InputError, match="no text yet"):
        predictor.prepare(" \n")
    with pytest.raises(InputError, match="at most 5,000"):
        predictor.prepare("x" * 5001)


def test_the_adapters_question_is_asked(tiny_pair, monkeypatch):
    adapter = replace(tiny_pair.adapter, question="What is it worth?", max_text_tokens=4)
    monkeypatch.setattr(tiny_pair, "adapter", adapter)
    assert Predictor(tiny_pair).prepare("chairs").text == "What is it worth?\n\nchai\n\nPrice is $"


@pytest.mark.parametrize(
    "text", ["🧑‍🚀🪩", "كرسي خشبي", "\ud83d lamp \x00\x1b", "椅" * 500, "$$$ 12,999.00?!", "w " * 100_000]
)
def test_any_text_gets_a_distribution(tiny_predictor, text):
    answer = tiny_predictor.compare(text)
    for prediction in (answer.base, answer.tuned):
        p = prediction.distribution.probabilities
        assert p.shape == (999,) and np.isfinite(p).all() and (p >= 0).all() and 0 < p.sum() <= 1 + 1e-6
        assert float(prediction.distribution.unpriced_mass) == pytest.approx(1 - p.sum(), abs=1e-6)


def test_nothing_of_a_text_stays_for_the_next(tiny_predictor):
    prompts = [tiny_predictor.prepare(text) for text in TEXTS[:2]]
    first = alone(tiny_predictor, prompts, "base")
    tiny_predictor.predict(prompts[::-1], "tuned")
    assert np.array_equal(alone(tiny_predictor, prompts, "base"), first)


# --- the published protocol ----------------------------------------------------------------------


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_greedy_text_is_the_likeliest_token_at_most_five_times(tiny_pair, tiny_predictor, which):
    tokenizer = tiny_pair.tokenizer
    for text in TEXTS[:5]:
        prompt = tiny_predictor.prepare(text)
        ids = tokenizer(prompt.text)["input_ids"]
        written = []
        with tiny_pair.use(which) as llama:
            while len(written) < 5 and tokenizer.eos_token_id not in written:
                out = llama(torch.tensor([ids + written]), use_cache=False)
                written.append(int(out.logits[0, -1].argmax()))
        wanted = tokenizer.decode(written, skip_special_tokens=True)
        assert tiny_predictor.greedy_text(prompt, which) == wanted


# --- threads -------------------------------------------------------------------------------------


@pytest.fixture
def impatient():
    """Threads change places as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_many_threads_never_see_each_others_pass(tiny_predictor, impatient):
    prompts = [tiny_predictor.prepare(text) for text in TEXTS]
    jobs = [(i, which) for i in range(len(prompts)) for which in ("base", "tuned")] * 2
    wanted = {job: alone(tiny_predictor, [prompts[job[0]]], job[1])[0] for job in set(jobs)}
    for i in range(len(prompts)):  # else a mix-up would not be seen
        assert np.abs(wanted[i, "base"] - wanted[i, "tuned"]).max() > 1e-3
    start = threading.Barrier(8)

    def work(mine):
        start.wait(30)
        return [(job, table(tiny_predictor.predict([prompts[job[0]]], job[1]))[0]) for job in mine]

    with ThreadPoolExecutor(8) as pool:
        # Even threads begin with the base pass, odd ones with the tuned pass.
        answers = pool.map(work, [jobs[k:] + jobs[:k] for k in range(8)])
        for answer in answers:
            for job, got in answer:
                assert np.abs(got - wanted[job]).max() < 1e-6, job


def test_threads_that_compare_and_write_greedily_get_what_they_would_alone(tiny_predictor, impatient):
    wanted = {}
    for text in TEXTS:
        answer = tiny_predictor.compare(text)
        wanted[text] = (table([answer.base, answer.tuned]), tiny_predictor.greedy_text(answer.prompt, "base"))

    def work(text):
        answer = tiny_predictor.compare(text)
        return text, table([answer.base, answer.tuned]), tiny_predictor.greedy_text(answer.prompt, "base")

    with ThreadPoolExecutor(6) as pool:
        for text, got, greedy in pool.map(work, TEXTS * 4):
            assert np.abs(got - wanted[text][0]).max() < 1e-6
            assert greedy == wanted[text][1]
