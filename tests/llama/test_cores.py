"""Passes on a CPU: side by side, in the order of asking, each with its part of the cores."""

import os
import threading

import pytest
import torch

from pricer.llama.cores import AT_ONCE, Cores
from pricer.llama.predictor import Predictor
from pricer.settings import PASSES, Limits

TEXTS = ("a cordless drill with two batteries", "lamp", "a garden table of teak", "socks, six pairs")


@pytest.fixture
def cores():
    threads = torch.get_num_threads()
    yield Cores(4)
    torch.set_num_threads(threads)


def side_by_side(cores, look, passes=AT_ONCE):
    """What each of so many passes sees while all of them run."""
    met = threading.Barrier(passes, timeout=20)

    def one():
        met.wait()
        found = look()
        met.wait()
        return found

    return [future.result() for future in [cores.submit(one) for _ in range(passes)]]


def test_a_pass_alone_has_all_cores_and_two_have_half_each(cores):
    def threads():
        cores.share()
        return torch.get_num_threads()

    assert cores.submit(threads).result() == 4
    assert side_by_side(cores, threads) == [2, 2]
    assert cores.submit(threads).result() == 4  # as before, behind a pass that failed as well
    with pytest.raises(ZeroDivisionError):
        cores.submit(lambda: 1 / 0).result()
    assert cores.submit(threads).result() == 4


@pytest.fixture
def two():
    """Two cores, as on a machine that has no more."""
    machine, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(machine)[:AT_ONCE])
    yield Cores(AT_ONCE)
    os.sched_setaffinity(0, machine)
    torch.set_num_threads(threads)


def usable():
    return os.sched_getaffinity(0)


def shared(cores):
    cores.share()
    return usable()


needs_two = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(usable()) < AT_ONCE, reason="one core, or no say in which"
)


@needs_two
def test_two_passes_on_two_cores_keep_to_one_each_and_give_it_back(two):
    all_there, first_left = threading.Barrier(AT_ONCE + 1, timeout=20), threading.Event()

    def beside():
        all_there.wait()
        found = shared(two)
        all_there.wait()
        return found

    def survives():
        found = beside()
        assert first_left.wait(20)
        return found, shared(two)

    left, right = two.submit(beside), two.submit(survives)
    all_there.wait()
    assert shared(two) == usable()  # in a thread that is none of theirs
    all_there.wait()
    one = left.result()
    first_left.set()
    other, alone = right.result()
    assert sorted([*one, *other]) == sorted(usable()) and len(one) == len(other) == 1
    assert alone == usable()
    assert side_by_side(two, usable) == [usable()] * AT_ONCE  # afterwards, in both threads


@needs_two
@pytest.mark.parametrize("count", [1, AT_ONCE + 1, 2 * AT_ONCE])
def test_where_torch_has_fewer_threads_or_more_than_two_cores_nothing_is_pinned(two, count):
    cores, at_once = Cores(count), min(AT_ONCE, count)
    assert side_by_side(cores, lambda: shared(cores), at_once) == [usable()] * at_once


def test_no_more_than_two_run_at_once_in_the_order_of_asking(cores):
    go, order = threading.Event(), []
    futures = [cores.submit(lambda: go.wait(20)) for _ in range(AT_ONCE)]
    futures += [cores.submit(lambda i=i: order.append(i)) for i in range(6)]
    assert order == []
    futures[0].cancel()
    go.set()
    for future in futures:
        future.result()
    assert sorted(order) == list(range(6)) and order[0] in (0, 1)


def test_one_core_runs_one_pass_at_a_time():
    one, inside = Cores(1), []

    def count():
        inside.append(1)
        found = len(inside)
        inside.pop()
        return found

    assert {future.result() for future in [one.submit(count) for _ in range(20)]} == {1}


def test_both_passes_side_by_side_give_what_each_gives_alone_the_fine_tuned_one_first(tiny_pair):
    predictor = Predictor(tiny_pair, Limits(batch_tokens=60))
    prompts = [predictor.prepare(text) for text in TEXTS]
    found = list(predictor.both(prompts))
    assert [which for which, _ in found] == list(reversed(PASSES))
    for which, answers in found:
        alone = [predictor.predict([prompt], which)[0] for prompt in prompts]
        for one, other in zip(answers, alone, strict=True):
            assert abs(one.own.probabilities - other.own.probabilities).max() < 1e-5


def test_who_leaves_takes_what_has_not_begun_along(tiny_pair):
    predictor = Predictor(tiny_pair, Limits(batch_tokens=1))
    batches = predictor.predict_batches([predictor.prepare(text) for text in TEXTS], "tuned")
    next(batches)
    batches.close()
    before = predictor.work.items
    predictor.predict([predictor.prepare("a lamp")], "tuned")
    assert before + 1 <= predictor.work.items < len(TEXTS) + 1
