"""Many visitors at one predictor: what is kept, who comes when, who has left, and that nobody's answer hangs on others."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pricer.errors import InputError
from pricer.llama.pair import Turns
from pricer.llama.predictor import Predictor
from pricer.llama.shared import ENTRY_BYTES, USUAL_CHARS, WAIT_SECONDS, Kept, Place, SharedPredictor
from pricer.price.prior import load_prior
from pricer.settings import Limits

TEXTS = [f"Lamp {'made of wood ' * (n % 4)}in {n} sizes" for n in range(12)]


class Held(Predictor):
    """Tells what it was given to compute, each time before it waits for one more leave to go on."""

    def __init__(self, pair, held=True):
        super().__init__(pair, prior=load_prior("benchmark"))
        self.given, self.at_it, self.leave = [], threading.Semaphore(0), threading.Semaphore(0)
        self.held = held

    def both(self, prompts):
        """One after the other."""
        for which in ("tuned", "base"):
            yield which, self.predict(prompts, which)

    def predict_batches(self, prompts, which):
        self.given.append((which, [prompt.text.splitlines()[2] for prompt in prompts]))
        self.at_it.release()
        if self.held:
            assert self.leave.acquire(timeout=60)
        if any("broken" in prompt.text for prompt in prompts):
            raise RuntimeError("broken")
        yield from super().predict_batches(prompts, which)

    def go(self, times):
        for _ in range(times):
            assert self.at_it.acquire(timeout=60)
            self.leave.release()


@pytest.fixture
def held(tiny_pair):
    return Held(tiny_pair)


@pytest.fixture
def shared(held):
    return SharedPredictor(held, together=2, window_s=0)


@pytest.fixture
def threads(held):
    with ThreadPoolExecutor(20) as pool:
        yield pool
        held.held = False
        held.leave.release(100)


def in_line(shared, threads, texts, **options):
    """Asks that stand in the line in this order, and their futures."""
    futures = []
    for text in texts:
        before = len(shared._line)
        futures.append(threads.submit(shared.compare, text, **options))
        while len(shared._line) == before:
            assert not futures[-1].done()
    return futures


def busy(shared, held, threads, text="the first"):
    """Somebody at work, so that whoever comes has to wait."""
    future = threads.submit(shared.compare, text)
    assert held.at_it.acquire(timeout=60)
    return future


def test_those_who_wait_together_are_scored_together_each_with_its_own_answer(tiny_pair, threads):
    one = Predictor(tiny_pair, prior=load_prior("benchmark"))
    alone = {text: one.compare(text) for text in TEXTS}
    one.work.forward_passes = 0
    passes_alone = sum(1 for text in TEXTS for _ in [one.compare(text)]) and one.work.forward_passes
    one.work.forward_passes = 0
    shared = SharedPredictor(one, together=4, window_s=0.05)
    for text, answer in zip(TEXTS, threads.map(shared.compare, TEXTS), strict=True):
        for which in ("base", "tuned"):
            mine, direct = getattr(answer, which), getattr(alone[text], which)
            assert mine.own.probabilities == pytest.approx(direct.own.probabilities, abs=1e-4)
            assert (mine.adapter, mine.prior) == (direct.adapter, direct.prior)
    assert one.work.forward_passes < 0.8 * passes_alone


def test_in_whatever_order_and_beside_whatever_work_a_text_gets_what_it_gets_alone(tiny_pair, threads):
    one = Predictor(tiny_pair, Limits(batch_tokens=200))
    prompts = [one.prepare(text) for text in TEXTS]
    alone = [dict(one.both_passes(prompt)) for prompt in prompts]
    phrases = [prompt.text for prompt in prompts[1:4]]
    parts = [
        found.own.probabilities
        for _, batch in one.leave_out(prompts[0].text, phrases, "tuned")
        for found in batch
    ]

    def ask(shared, k, answers):
        answers.append((k, dict(shared.both_passes(prompts[k]))))

    def score(order, which, answers):
        for at, batch in one.predict_batches([prompts[k] for k in order], which):
            answers.extend((order[i], {which: found}) for i, found in zip(at, batch, strict=True))

    def leave_out():
        for _, batch in one.leave_out(prompts[0].text, phrases, "tuned"):
            yield from (found.own.probabilities for found in batch)

    for seed in range(8):
        order = np.random.default_rng(seed).permutation(len(TEXTS)).tolist()
        shared, answers = SharedPredictor(one, together=1 + seed % 4, window_s=0), []
        work = [threads.submit(ask, shared, k, answers) for k in order]
        work += [threads.submit(score, order[seed:], which, answers) for which in ("base", "tuned")]
        beside = threads.submit(lambda: list(leave_out()))
        for future in work:
            future.result(60)
        assert len(answers) == len(TEXTS) + 2 * len(order[seed:])
        for k, found in answers:
            for which, prediction in found.items():
                off = np.abs(prediction.own.probabilities - alone[k][which].own.probabilities)
                assert off.max() < 1e-6, (seed, k, which)
        assert all(np.abs(a - b).max() < 1e-6 for a, b in zip(beside.result(60), parts, strict=True))


def test_what_was_asked_before_costs_nothing_under_any_prior_and_in_batches_too(held, shared):
    held.held = False
    first = shared.compare("a lamp")
    count = len(held.given)
    again = shared.compare("a lamp")
    prompt = shared.prepare("a lamp")
    [batch] = shared.predict([prompt], "tuned")
    assert len(held.given) == count
    for found in (again.tuned, batch):
        assert np.array_equal(found.own.probabilities, first.tuned.own.probabilities)
    shop = load_prior("shop")
    assert again.under(shop).to_dict() == first.under(shop).to_dict()
    assert [set(found) for found in shared.ask(prompt)] == [{"tuned", "base"}]  # both at once, and no place
    other = shared.prepare("another lamp")
    both = shared.predict([prompt, other, prompt], "tuned")
    assert held.given[count:] == [("tuned", ["another lamp"])]
    assert np.array_equal(both[0].own.probabilities, both[2].own.probabilities)
    assert not np.array_equal(both[0].own.probabilities, both[1].own.probabilities)


def test_the_likelihood_is_kept_as_well(shared, monkeypatch):
    prompt = shared.prepare("a lamp")
    known = shared.log_likelihood(prompt)
    monkeypatch.setattr(shared.one, "log_likelihood", None)
    assert shared.log_likelihood(prompt) == known


def test_kept_values_are_bounded_in_bytes_and_the_latest_used_ones_stay():
    kept = Kept(3 * (ENTRY_BYTES + 100))
    for text in "abc":
        kept.put(text, "tuned", text, 100)
    assert kept.get("a", "tuned") == "a" and kept.get("a", "base") is None
    kept.put("d", "tuned", "d", 100)
    assert [kept.get(text, "tuned") for text in "abcd"] == ["a", None, "c", "d"]
    kept.put("d", "tuned", "e", 100)  # anew: it is counted once
    assert kept.bytes == 3 * (ENTRY_BYTES + 100) and len(kept) == 3
    kept.put("large", "tuned", 1, 10**9)
    assert (kept.bytes, len(kept)) == (0, 0)


def test_the_line_is_in_the_order_of_coming_and_tells_the_place(held, shared, threads):
    busy(shared, held, threads)
    in_line(shared, threads, TEXTS[:5])
    places = [next(shared.ask(shared.prepare(text))) for text in ("a sixth", TEXTS[1])]
    assert [place.before for place in places] == [
        6,
        2,
    ]  # the one at work counts; who asks for what others wait for comes with them
    assert places[0].seconds > places[1].seconds
    held.leave.release()
    held.go(7)
    threads.shutdown()
    wanted = [["the first"], *[TEXTS[i : i + 2] for i in (0, 2, 4)]]
    wanted[-1] = wanted[-1][:1]
    assert held.given == [(which, texts) for texts in wanted for which in ("tuned", "base")]


def test_there_is_room_for_as_many_as_soon_have_their_turn(held, shared, threads):
    held.held = False
    assert not shared.knows("a lamp")
    shared.compare("a lamp")
    assert shared.knows("a lamp") and not shared.awaits("a lamp") and shared.has_room(0)
    with pytest.raises(InputError):
        shared.knows(" ")
    held.held, held.at_it = True, threading.Semaphore(0)
    shared._pace = WAIT_SECONDS / 4 / USUAL_CHARS  # a text of usual length takes a quarter of the time
    assert shared.has_room(4) and not shared.has_room(5)  # as far as those who are on their way are known
    busy(shared, held, threads)
    in_line(shared, threads, ["a lamp of glass"] * 9)
    assert shared.has_room(10)  # short ones, and all ask for the same
    assert shared.awaits("a lamp of glass") and shared.awaits("the first")
    assert not shared.awaits("another lamp")
    in_line(shared, threads, [f"{n} lamps" for n in range(9)])
    assert not shared.has_room(19)
    assert SharedPredictor(held, together=0).has_room(99)  # where nobody waits


def test_a_text_that_several_wait_for_is_computed_once(held, shared, threads):
    busy(shared, held, threads)
    futures = in_line(shared, threads, ["a lamp"] * 4)
    held.leave.release()
    held.go(3)
    prices = {future.result(60).to_dict()["tuned"]["price_usd"] for future in futures}
    assert len(prices) == 1
    assert held.given[2:] == [("tuned", ["a lamp"]), ("base", ["a lamp"])]


def test_nor_is_one_that_came_as_it_was_at_work(held, shared, threads):
    first = busy(shared, held, threads, "a lamp")
    futures = in_line(shared, threads, ["a lamp", "another lamp"])
    held.held = False
    held.leave.release()
    assert [future.result(60) for future in (first, *futures)]
    assert [texts for which, texts in held.given if which == "base"] == [["a lamp"], ["another lamp"]]


def test_who_has_left_does_not_use_the_model(held, shared, threads):
    busy(shared, held, threads)
    there = dict.fromkeys(("before its turn", "stays", "stays too", "between the passes"), True)
    futures = {}
    for name in there:
        [futures[name]] = in_line(shared, threads, [name], wanted=lambda name=name: there[name])
    there["before its turn"] = False
    held.leave.release()
    held.go(3)
    assert futures["stays"].result(60) and futures["stays too"].result(60)
    assert held.at_it.acquire(timeout=60)  # at the tuned pass of the last one
    there["between the passes"] = held.held = False
    held.leave.release()
    for name in ("before its turn", "between the passes"):
        with pytest.raises(InputError):
            futures[name].result(60)
    assert shared.compare("somebody else")  # so whatever came before is over
    both = [["the first"], ["stays", "stays too"]]
    assert [texts for which, texts in held.given if which == "tuned"] == [
        *both,
        ["between the passes"],
        ["somebody else"],
    ]
    assert [texts for which, texts in held.given if which == "base"] == [*both, ["somebody else"]]


def test_who_stops_looking_has_left(held, shared, threads):
    busy(shared, held, threads)
    asking = shared.ask(shared.prepare("a lamp"))
    assert isinstance(next(asking), Place)
    asking.close()
    held.leave.release()
    held.go(1)
    threads.shutdown()
    assert [text for _, texts in held.given for text in texts] == ["the first"] * 2


def test_a_text_that_fails_fails_alone(held, shared, threads):
    first = busy(shared, held, threads)
    bad, good = in_line(shared, threads, ["a broken lamp", "a good lamp"])
    held.held = False
    held.leave.release()
    assert first.result(60) and good.result(60)
    with pytest.raises(RuntimeError, match="broken"):
        bad.result(60)
    assert shared.compare("a lamp behind it")


def test_without_a_line_every_request_goes_to_the_predictor_itself(held):
    held.held = False
    shared = SharedPredictor(held, together=0)
    threads_before = threading.active_count()
    found = dict(shared.both_passes(shared.prepare("a lamp")))
    assert list(found) == ["tuned", "base"] and threading.active_count() == threads_before
    count = len(held.given)
    assert dict(shared.both_passes(shared.prepare("a lamp"))).keys() == found.keys()
    assert len(held.given) == count


def test_answers_of_one_pair_are_no_others(tiny_pair, held):
    held.held = False
    one, other = SharedPredictor(held), SharedPredictor(Predictor(tiny_pair, prior=load_prior("shop")))
    one.compare("a lamp")
    assert len(one.kept) == 2 and len(other.kept) == 0
    assert other.compare("a lamp").tuned.prior.name == "shop"


def test_turns_are_in_the_order_of_asking_and_may_be_taken_again():
    turns, order, threads = Turns(), [], []

    def ask(number):
        with turns, turns:
            order.append(number)

    with turns:
        for number in range(6):
            threads.append(threading.Thread(target=ask, args=[number]))
            threads[-1].start()
            while len(turns._waiting) <= number:
                assert threads[-1].is_alive()
    with turns:  # behind all of them
        order.append("last")
    for thread in threads:
        thread.join(60)
    assert order == [*range(6), "last"]
