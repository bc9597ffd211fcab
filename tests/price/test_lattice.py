"""The lattice: the exact distribution, checked against chains of separate plain forward passes.

The brute force here shares nothing with pricer.price.lattice: it tokenises `prompt + price` as a whole, runs one
plain forward pass per step without a cache, and finds the tokens that begin with a digit by decoding
the whole vocabulary.
"""

from functools import cached_property

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.errors import SetupError
from pricer.llama.predictor import Predictor
from pricer.price.alike import Alike
from pricer.price.lattice import PRICES, PROBES, Growth, PriceLattice

TEXT = "Cordless drill with two batteries"


class BruteForce:
    """P($n) for one prompt, step by step."""

    def __init__(self, llama, tokenizer, prompt):
        self.llama, self.tokenizer, self.prompt = llama, tokenizer, prompt
        self.ids = tokenizer(prompt)["input_ids"]
        self.cache = {}

    @cached_property
    def vocabulary(self):
        return [self.tokenizer.decode([i]) for i in range(len(self.tokenizer))]

    @cached_property
    def digit_first(self):
        return [i for i, text in enumerate(self.vocabulary) if text[:1] and text[0] in "0123456789"]

    @cached_property
    def commas(self):
        return [i for i, text in enumerate(self.vocabulary) if text == ","]

    def next(self, path=()):
        """(vocabulary,) next-token probabilities behind the prompt and a path of tokens."""
        if path not in self.cache:
            with torch.inference_mode():
                out = self.llama(input_ids=torch.tensor([[*self.ids, *path]]), use_cache=False)
            self.cache[path] = out.logits[0, -1].double().softmax(-1).numpy()
        return self.cache[path]

    def path(self, price):
        ids = self.tokenizer(f"{self.prompt}{price}")["input_ids"]
        assert ids[: len(self.ids)] == self.ids
        return tuple(ids[len(self.ids) :])

    def probability(self, price):
        path = self.path(price)
        p = 1.0
        for k, token in enumerate(path):
            p *= self.next(path[:k])[token]
        goes_on = self.next(path)[self.digit_first].sum()
        for comma in self.commas:
            goes_on += self.next(path)[comma] * self.next((*path, comma))[self.digit_first].sum()
        return p * (1 - goes_on)


def prices_to_check(probabilities, count, seed=0):
    """Random prices, half of them drawn by probability so that the comparison is about something."""
    rng = np.random.default_rng(seed)
    likely = rng.choice(PRICES, count // 2, replace=False, p=probabilities / probabilities.sum())
    return sorted({1, 999, *likely, *rng.choice(PRICES, count // 2, replace=False)})


def check_against_brute_force(pair, which, count):
    exact = Predictor(pair, tolerance=0, max_edges=None)
    quick = Predictor(pair)
    prompt = exact.prepare(TEXT)
    p = exact.predict([prompt], which)[0].distribution.probabilities
    approximate = quick.predict([prompt], which)[0].distribution.probabilities
    assert p.sum() > 0.05  # else the comparison would be vacuous
    with pair.use(which) as llama:
        brute = BruteForce(llama, pair.tokenizer, prompt.text)
        prices = prices_to_check(p, count)
        wanted = np.array([brute.probability(int(price)) for price in prices])
    got = p[np.array(prices) - 1]
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=1e-9)
    assert np.abs(got - wanted).max() < 1e-4
    assert wanted.max() > 5e-3  # some of them matter
    assert np.abs(approximate[np.array(prices) - 1] - wanted).max() < 1e-3
    assert np.abs(approximate - p).max() < 1e-3  # and all the others
    return p, brute


# --- against brute force -------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_exact_on_a_digit_tokenizer(tiny_pair, which):
    check_against_brute_force(tiny_pair, which, 40)


@pytest.mark.parametrize("which", ["base", "tuned"])
def test_exact_on_the_llama_3_tokenizer(llama3_pair, which):
    _, brute = check_against_brute_force(llama3_pair, which, 40)
    assert len(brute.digit_first) == 1110  # the multi-digit tokens count as going on, too
    assert all(len(brute.path(price)) == 1 for price in (1, 10, 100, 999))


@pytest.mark.base
@pytest.mark.parametrize(("which", "count"), [("base", 4), ("tuned", 2)])
def test_exact_on_the_embedded_base(embedded_pair, which, count):
    check_against_brute_force(embedded_pair, which, count)


@pytest.fixture(scope="module")
def enumerated(tiny_pair):
    """Every continuation of one prompt on the tiny digit model, by plain batched passes: (priced (999,),
    unpriced). Each is summed on its own, neither as what the other lacks to 1."""
    tokenizer = tiny_pair.tokenizer
    prompt = Predictor(tiny_pair).prepare(TEXT)
    with tiny_pair.use("base") as llama:
        brute = BruteForce(llama, tokenizer, prompt.text)
        digit = {d: tokenizer.convert_tokens_to_ids(str(d)) for d in range(10)}
        comma = tokenizer.convert_tokens_to_ids(",")
        numbers = [tuple(digit[int(c)] for c in str(price)) for price in PRICES]

        def passes(paths):
            with torch.inference_mode():
                out = llama(input_ids=torch.tensor([[*brute.ids, *path] for path in paths]), use_cache=False)
            return dict(zip(paths, out.logits[:, -1].double().softmax(-1).numpy(), strict=True))

        following = passes([()])
        for length in (1, 2, 3):
            same = [path for path in numbers if len(path) == length]
            following |= passes(same) | passes([(*path, comma) for path in same])
    reach = {(): 1.0}
    for path in numbers:
        reach[path] = reach[path[:-1]] * following[path[:-1]][path[-1]]

    everything = set(range(len(tokenizer)))
    digits = set(digit.values())
    starts = digits - {digit[0]}  # `Price is $0...` spells no price
    unpriced = sum(following[()][token] for token in everything - starts)
    priced = np.zeros(len(PRICES))
    for i, path in enumerate(numbers):
        after_comma = reach[path] * following[path][comma]
        unpriced += after_comma * sum(following[(*path, comma)][token] for token in digits)
        priced[i] += after_comma * sum(following[(*path, comma)][token] for token in everything - digits)
        priced[i] += reach[path] * sum(following[path][token] for token in everything - digits - {comma})
        if len(path) == 3:  # $1,000 and more, written without a comma
            unpriced += reach[path] * sum(following[path][token] for token in digits)
    return prompt, priced, unpriced


def test_prices_and_enumerated_unpriced_mass_make_one(tiny_pair, enumerated):
    prompt, priced, unpriced = enumerated
    assert 0.05 < unpriced < 0.95 and 0.05 < priced.sum() < 0.95
    answer = Predictor(tiny_pair, tolerance=0, max_edges=None).predict([prompt], "base")[0].distribution
    assert abs(answer.probabilities.sum() + unpriced - 1) < 1e-4
    assert abs(answer.unpriced_mass - unpriced) < 1e-4


def test_all_999_prices_agree_with_enumeration(tiny_pair, enumerated):
    prompt, priced, unpriced = enumerated
    exact = Predictor(tiny_pair, tolerance=0, max_edges=None).predict([prompt], "base")[0].distribution
    np.testing.assert_allclose(exact.probabilities, priced, rtol=2e-3, atol=1e-8)
    quick = Predictor(tiny_pair).predict([prompt], "base")[0].distribution
    assert np.abs(quick.probabilities - priced).max() < 1e-3
    assert abs(quick.unpriced_mass - unpriced) < 0.02


# --- the tree ------------------------------------------------------------------------------------


def spelled(lattice, tokenizer, node):
    tokens = []
    while node > 0:
        tokens.append(int(lattice.token[node]))
        node = lattice.parent[node]
    return "".join(tokenizer.decode([token]) for token in reversed(tokens))


@pytest.mark.parametrize("name", ["digit_tokenizer", "llama3_tokenizer"])
def test_every_price_has_its_node_and_every_number_its_comma(name, request):
    tokenizer = request.getfixturevalue(name)
    lattice = PriceLattice(tokenizer)
    assert [spelled(lattice, tokenizer, node) for node in lattice.price_node] == [str(p) for p in PRICES]
    assert [spelled(lattice, tokenizer, lattice.comma_node[n]) for n in lattice.price_node] == [
        f"{p}," for p in PRICES
    ]
    assert len(lattice) == 1 + 999 + 999
    assert all(
        lattice.depth[node] == lattice.depth[lattice.parent[node]] + 1 for node in range(1, len(lattice))
    )
    assert (lattice.parent[1:] < np.arange(1, len(lattice))).all() and lattice.parent[0] == -1
    # A stop has no number below it: with digits $100 to $999, with Llama 3 every price.
    first_stop = 100 if name == "digit_tokenizer" else 1
    stops = [price for price in PRICES if lattice.is_stop[lattice.price_node[price - 1]]]
    assert stops == list(range(first_stop, 1000))


@pytest.mark.parametrize("name", ["digit_tokenizer", "llama3_tokenizer"])
def test_all_tokens_that_begin_with_a_digit_are_watched_and_the_comma_is_last(name, request):
    tokenizer = request.getfixturevalue(name)
    lattice = PriceLattice(tokenizer)
    texts = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    assert lattice.watched[lattice.digits].tolist() == [
        i for i, text in enumerate(texts) if text[:1] and text[0] in "0123456789"
    ]
    assert [texts[i] for i in lattice.watched[lattice.comma :]] == [","]


def words(vocabulary):
    """A tokenizer that takes the longest word of the vocabulary at each step."""

    class Words:
        def __call__(self, texts, **_):
            return {"input_ids": list(map(self.ids, texts))}

        def ids(self, text):
            ids = []
            while text:
                word = max((w for w in vocabulary if text.startswith(w)), key=len)
                ids.append(vocabulary.index(word))
                text = text[len(word) :]
            return ids

        def get_vocab(self):
            return {word: i for i, word in enumerate(vocabulary)}

    return Words()


@pytest.mark.parametrize("joined", ["$1", "is $9", "$99"])
def test_a_tokenizer_that_joins_the_tail_with_digits_is_refused(joined):
    with pytest.raises(SetupError) as caught:
        PriceLattice(words(["Price ", "is ", "$", *"0123456789", joined]))
    assert "Llama tokenizer" in str(caught.value) and "\n" not in str(caught.value)


def test_a_tokenizer_without_a_comma_and_with_mixed_tokens():
    lattice = PriceLattice(words(["Price is $", *"0123456789", "12", "99", "x"]))
    assert lattice.comma is None and (lattice.comma_node == -1).all()
    depth = lattice.depth[lattice.price_node]
    assert [depth[p - 1] for p in (1, 12, 13, 129, 199, 999)] == [1, 1, 2, 2, 2, 2]


# --- the walk, without a model -------------------------------------------------------------------


class MadeUpModel:
    """Next-token probabilities drawn per node; `exact` follows every price by hand."""

    def __init__(self, lattice, rows, seed):
        rng = np.random.default_rng(seed)
        tokens = len(lattice.watched)
        # (rows, nodes, watched): peaked or flat, with something left for tokens that are not watched
        alpha = np.full(tokens + 1, rng.choice([0.1, 1.0]))
        alpha[-1] = 3.0
        self.p = rng.dirichlet(alpha, size=(rows, len(lattice)))[..., :-1]
        self.lattice = lattice

    def run(self, **options):
        growth = Growth(self.lattice, len(self.p), **options)
        evaluated = []
        while (nodes := growth.frontier()).shape[1]:
            evaluated.append(nodes)
            growth.update(nodes, self.p[np.arange(len(self.p))[:, None], np.maximum(nodes, 0)])
        return growth.probabilities(), evaluated

    def exact(self):
        lattice = self.lattice
        column = {int(token): i for i, token in enumerate(lattice.watched)}
        digits = list(range(len(lattice.watched)))
        if lattice.comma is not None:
            digits.remove(lattice.comma)
        longer = self.p[..., digits].sum(-1)  # (rows, nodes)
        answer = np.ones((len(self.p), 999))
        for i, node in enumerate(lattice.price_node):
            goes_on = longer[:, node]
            if lattice.comma is not None:
                comma = lattice.comma_node[node]
                goes_on = goes_on + self.p[:, node, lattice.comma] * longer[:, comma]
            answer[:, i] = 1 - goes_on
            while node > 0:
                answer[:, i] *= self.p[:, lattice.parent[node], column[int(lattice.token[node])]]
                node = lattice.parent[node]
        return answer


@pytest.fixture(scope="module")
def lattices(digit_tokenizer):
    # Digits; all numbers single tokens, as in Llama 3; single tokens up to 99; no comma.
    numbers = [str(n) for n in range(1000)]
    digits = list("0123456789")
    return [
        PriceLattice(digit_tokenizer),
        PriceLattice(words(["Price is $", *numbers, ","])),
        PriceLattice(words(["Price is $", *digits, *numbers[10:100], ",", "x"])),
        PriceLattice(words(["Price is $", *digits])),
    ]


@settings(max_examples=15)
@given(st.integers(0, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_without_tolerance_the_walk_is_exact(lattices, kind, rows, seed):
    model = MadeUpModel(lattices[kind], rows, seed)
    got, evaluated = model.run(tolerance=0, max_edges=None)
    np.testing.assert_allclose(got, model.exact(), atol=1e-12)
    assert got.shape == (rows, 999) and len(evaluated) <= lattices[kind].depth.max() + 1


@settings(max_examples=15)
@given(st.integers(0, 3), st.integers(0, 2**32 - 1), st.sampled_from([1e-4, 5e-4, 5e-3, 5e-2]))
def test_no_price_is_off_by_more_than_the_tolerance_of_each_round(lattices, kind, seed, tolerance):
    lattice = lattices[kind]
    model = MadeUpModel(lattice, 2, seed)
    got, evaluated = model.run(tolerance=tolerance, max_edges=None)
    off = np.abs(got - model.exact()).max(axis=1)
    # A left-out inner node's mass stays with its number instead of its descendants; a stop concerns one price.
    assert (off <= 2 * tolerance * (lattice.depth.max() + 1)).all()
    whole = model.run(tolerance=0, max_edges=None)[1]
    assert sum((n >= 0).sum() for n in evaluated) < sum((n >= 0).sum() for n in whole)


@settings(max_examples=10)
@given(st.integers(0, 3), st.integers(0, 2**32 - 1), st.sampled_from([1, 8, 32]))
def test_at_most_max_edges_of_the_likeliest_numbers_at_the_edge_are_evaluated(
    lattices, kind, seed, max_edges
):
    lattice = lattices[kind]
    model = MadeUpModel(lattice, 2, seed)
    got, evaluated = model.run(tolerance=0, max_edges=max_edges)
    for row in range(2):
        nodes = np.concatenate([nodes[row][nodes[row] >= 0] for nodes in evaluated])
        assert lattice.is_edge[nodes].sum() <= max(max_edges, len(lattice.samples))
        assert len(set(nodes)) == len(nodes)
    exact = model.exact()
    all_evaluated = np.concatenate([nodes[0] for nodes in evaluated])
    settled = np.isin(lattice.price_node, all_evaluated)
    if lattice.comma is not None:
        settled &= np.isin(lattice.comma_node[lattice.price_node], all_evaluated)
    np.testing.assert_allclose(got[0][settled], exact[0][settled], atol=1e-12)
    assert (got >= 0).all() and (got.sum(axis=1) <= 1 + 1e-9).all()


def test_rows_of_a_batch_do_not_touch_each_other(lattices):
    model = MadeUpModel(lattices[0], 5, 3)
    together, _ = model.run(tolerance=1e-3, max_edges=8)
    for row in range(5):
        alone = MadeUpModel(lattices[0], 5, 3)
        alone.p = model.p[row : row + 1]
        np.testing.assert_allclose(alone.run(tolerance=1e-3, max_edges=8)[0][0], together[row], rtol=1e-9)


def sure_model(lattice, rows=1):
    """Behind each price the number ends; the prices that begin with 1 or 2 hold most."""
    model = MadeUpModel(lattice, rows, 1)
    model.p[:] = 1e-6
    tree = ~lattice.is_stop
    model.p[:, tree] = np.where(np.arange(len(lattice.watched)) % 10 < 3, 0.19, 0.05)
    if len(lattice.watched) > 100:  # all prices behind the root
        model.p[:, 0] = np.random.default_rng(0).dirichlet(np.full(len(lattice.watched), 0.3), size=rows)
    model.p[..., lattice.comma] = 1e-6
    return model


@pytest.mark.parametrize("kind", [0, 1])
def test_of_a_model_that_is_sure_of_its_stops_only_the_likeliest_are_looked_at(lattices, kind):
    lattice = lattices[kind]
    model = sure_model(lattice)
    got, evaluated = model.run()
    stops = [n for nodes in evaluated for n in nodes[0] if n >= 0 and lattice.is_edge[n]]
    assert len(evaluated) == (1 if kind == 0 else 2)  # digits: the samples come along with the prompt
    by_hand = set(lattice.price_node[:9]) if kind else set()  # behind $1 to $9 a comma is likeliest
    assert 0 < len(set(stops) - by_hand) <= PROBES < 64
    assert np.abs(got - model.exact()).max() < 1e-5


@pytest.mark.parametrize("kind", [0, 1])
def test_one_look_at_a_model_that_is_not_sure_and_the_others_are_asked_for(lattices, kind):
    lattice = lattices[kind]
    model = sure_model(lattice)
    longer = np.random.default_rng(0).choice(np.flatnonzero(lattice.is_edge), 300, replace=False)
    model.p[0, longer, 0] = 0.5  # these are but the beginning of a longer number
    got, evaluated = model.run(max_edges=None)
    stops = {n for nodes in evaluated[1:] for n in nodes[0] if n >= 0 and lattice.is_edge[n]}
    assert len(stops) > 2 * PROBES
    assert np.abs(got - model.exact()).max() < 1e-3
    capped, evaluated = model.run(max_edges=20)
    stops = {n for nodes in evaluated for n in nodes[0] if n >= 0 and lattice.is_edge[n]}
    assert len(stops) <= 20  # over all rounds together


def test_without_probes_and_samples_all_are_asked_for_in_one_round(lattices):
    lattice = lattices[1]
    model = sure_model(lattice)
    got, evaluated = model.run(probes=None, max_edges=30)
    (asked,) = [n for nodes in evaluated if (n := [i for i in nodes[0] if lattice.is_edge[i]])]
    assert len(asked) == 30
    assert np.abs(got - model.exact()).max() < 1e-5


@pytest.mark.parametrize(("differ", "least", "most"), [(0.0, 40, 40), (0.03, 40, 200), (0.1, 60, 400)])
def test_without_probes_numbers_are_asked_for_as_their_ends_differ(lattices, differ, least, most):
    lattice = lattices[0]
    model = sure_model(lattice)
    edges = np.flatnonzero(lattice.is_edge)
    model.p[0, edges, 0] = 0.2 + np.random.default_rng(0).normal(0, differ, len(edges)).clip(-0.2, 0.2)
    got, evaluated = model.run(probes=None, max_edges=None)
    stops = {n for nodes in evaluated for n in nodes[0] if n >= 0 and lattice.is_edge[n]}
    assert set(lattice.samples) <= stops and least <= len(stops) <= most
    assert np.abs(got - model.exact()).max() < 1e-3


def test_the_commas_of_likely_numbers_come_along_with_them(lattices):
    lattice = lattices[0]
    model = sure_model(lattice)
    rng = np.random.default_rng(0)
    edges = np.flatnonzero(lattice.is_edge)
    model.p[0, edges, 0] = rng.uniform(0, 0.3, len(edges))
    model.p[0, edges, lattice.comma] = 0.1
    model.p[0, lattice.comma_node[edges], 0] = rng.uniform(0, 1, len(edges))
    got, (_, *later) = model.run(probes=None)
    together = set(later[0][0])
    likely = [n for n in together if lattice.is_edge[n] and lattice.comma_node[n] in together]
    assert len(likely) > 3
    assert np.abs(got - model.exact()).max() < 1e-3


def test_a_comma_that_may_hide_a_thousand_is_asked_for_however_many_edges_are_likelier(lattices):
    lattice = lattices[0]
    model = sure_model(lattice)
    forty = lattice.price_node[39]
    model.p[:, [forty, lattice.comma_node[forty]]] = 0
    model.p[:, forty, lattice.comma] = 0.4
    model.p[:, lattice.comma_node[forty], 0] = 0.9
    got, evaluated = model.run(max_edges=4)
    assert any(lattice.comma_node[forty] in nodes[0] for nodes in evaluated)
    assert got[0, 39] == pytest.approx(model.exact()[0, 39]) and got[0, 39] > 1e-3


def test_a_thousand_hidden_behind_a_single_digit_is_seen(lattices):
    """With Llama 3 a model may be sure that `129` ends, and of `1` that `,299` follows."""
    lattice = lattices[1]
    model = sure_model(lattice)
    model.p[0, 0] = 1e-6
    model.p[0, 0, lattice.digits] = 0
    column = {int(token): i for i, token in enumerate(lattice.watched)}
    for price in range(100, 150):
        model.p[0, 0, column[int(lattice.token[lattice.price_node[price - 1]])]] = 0.018
    one = lattice.price_node[0]
    model.p[0, 0, column[int(lattice.token[one])]] = 0.01
    model.p[0, one, lattice.comma] = 0.9
    model.p[0, lattice.comma_node[one], lattice.digits] = 0.99 / 1000
    got, _ = model.run()
    assert got[0, 0] < 2e-3 and np.abs(got - model.exact()).max() < 1e-3


def test_stops_may_come_as_digits_together_and_the_comma(lattices):
    for lattice in lattices[:3]:
        model = MadeUpModel(lattice, 3, 7)
        growth = Growth(lattice, 3)
        while (nodes := growth.frontier()).shape[1]:
            p = model.p[np.arange(3)[:, None], np.maximum(nodes, 0)]
            if lattice.is_stop[nodes[nodes >= 0]].all():
                p = np.stack([p[..., lattice.digits].sum(-1), p[..., lattice.comma]], axis=-1)
            growth.update(nodes, p)
        np.testing.assert_allclose(growth.probabilities(), model.run()[0], atol=1e-12)


def test_a_model_that_always_goes_on_spells_no_price_and_one_that_never_does_spells_them_all(lattices):
    lattice = lattices[0]
    model = MadeUpModel(lattice, 1, 0)
    model.p[:] = 0
    model.p[..., lattice.digits] = 0.1  # after every number another digit
    got, _ = model.run()
    assert got.max() < 1e-12
    model.p[:] = 0
    model.p[:, 0, 1:10] = 1 / 9  # $1 to $9, then silence
    got, _ = model.run()
    np.testing.assert_allclose(got[0, :9], 1 / 9)
    assert got[0, 9:].max() == 0
    model.p[:, lattice.price_node[:9], lattice.comma] = 1.0  # `1,` and then nothing: still $1
    np.testing.assert_allclose(model.run()[0][0, :9], 1 / 9)
    model.p[:, lattice.comma_node[lattice.price_node[:9]], lattice.digits] = 0.1  # `1,2...`: not $1
    assert model.run()[0].max() < 1e-12


# --- texts that are nearly another one ----------------------------------------------------------------


def run_alike(model, whole_model):
    """What `Alike` gives for `model`'s rows, grown along `whole_model`'s one, and how many nodes it asked for."""
    whole = Growth(model.lattice, 1, tolerance=0, max_edges=None)
    while (nodes := whole.frontier()).shape[1]:
        whole.update(nodes, whole_model.p[:, np.maximum(nodes[0], 0)])
    alike = Alike(whole, len(model.p))
    nodes = alike.frontier()
    alike.update(nodes, model.p[np.arange(len(model.p))[:, None], nodes])
    assert alike.frontier().shape[1] == 0
    return alike.probabilities(), nodes.shape[1]


@settings(max_examples=15)
@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_what_differs_in_how_a_number_begins_is_found_in_one_round(lattices, kind, seed):
    whole, model = MadeUpModel(lattices[kind], 1, seed), MadeUpModel(lattices[kind], 2, seed + 1)
    first = model.p[:, 0]
    model.p = np.repeat(whole.p, 2, axis=0)
    model.p[:, 0] = first
    got, nodes = run_alike(model, whole)
    np.testing.assert_allclose(got, model.exact(), atol=1e-9)
    assert nodes < 120


def test_all_numbers_may_go_on_more_or_less_often(lattices):
    lattice = lattices[0]
    whole = MadeUpModel(lattice, 1, seed=0)
    model = MadeUpModel(lattice, 1, seed=0)
    inner = np.flatnonzero((lattice.depth == 2) & ~lattice.is_stop)
    goes_on = whole.p[:, inner][..., lattice.digits].sum(axis=-1)
    halved = goes_on / 2 / (1 - goes_on / 2)  # of the odds
    model.p[:, inner, lattice.digits] *= (halved / goes_on)[..., None]
    assert np.abs(model.exact() - whole.exact()).max() > 1e-3
    np.testing.assert_allclose(run_alike(model, whole)[0], model.exact(), atol=1e-9)
