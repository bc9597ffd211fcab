"""Which token paths spell which whole-dollar price, and how probability flows along them.

P(n | text), 1 <= n <= 999, is the probability that the model's continuation spells n and then
stops the number: the next token neither begins with a digit nor is a comma followed by a digit
(`1,299` is no price of $1). For one tokenizer that is a fixed tree of tokens:

    root ── "1" ── "12" ── "129" ── "129,"        one node per number, and one per number + comma
                       └── "12,"

Reading the model's next-token probabilities at a node tells how its probability divides among
its children. `PriceLattice` holds the tree, `Growth` walks it in rounds for a batch of texts and
asks for a node only where probability is left. Neither knows torch or a model: the predictor
evaluates the nodes that `Growth.frontier` names and hands the probabilities to `Growth.update`.
Digit tokenizers (SmolLM2, Llama 2) give a tree of depth three; in Llama 3 every price is one token.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pricer.errors import SetupError
from pricer.prompt import MAX_USD, MIN_USD, TAIL

PRICES = np.arange(MIN_USD, MAX_USD + 1)  # (999,) whole dollars
DIGITS = frozenset("0123456789")
ROOT = 0
# Raise it with any change after which a text's distribution comes out otherwise by more than rounding: what was scored
# before is then not gone on with.
LATTICE_VERSION = 3
SAMPLES = np.array([120, 199, 250, 299, 349, 480, 599, 800])  # prices, see `PriceLattice.samples`
PROBES = 8  # stops that are looked at first where there are no samples
SURPRISE = 20  # how many times more than the evaluated ones another stop may pass on
SPREAD = 4  # how many standard deviations another stop may be from the mean of the evaluated ones
LIKELIEST = 40  # of a base's stops, which are asked for in any case
AGAIN = 2  # how much more a stop must be worth for another round
COMMAS = 1.5  # of the tolerance, which a comma may hold that is left out
AHEAD = 6e-3  # what a number holds whose comma is asked for along with it


class PriceLattice:
    """The tree of token paths of $1..$999 for one tokenizer.

    Per node: `token` (the token that leads to it; -1 at the root), `parent`, `depth`, `is_stop`
    (True where the node only refines whether a number ends: nothing in range lies below it), `is_number` (a price
    ends there), `is_edge` (both: a number, not the comma behind one), `is_digit` ($1 to $9).
    Per price: its path in `paths`, and `price_node`. Per number node: `comma_node` (-1 where the tokenizer has no comma).
    `watched` lists the vocabulary ids whose probability a node needs: tokens that begin with a
    digit, then the comma.

    Raises SetupError when the tokenizer does not keep `Price is $` apart from the digits behind it.
    """

    def __init__(self, tokenizer: Any):
        spelled = [TAIL, *(f"{TAIL}{price}" for price in PRICES)]
        tail, *spelled = tokenizer(spelled, add_special_tokens=False)["input_ids"]
        paths = [tuple(ids[len(tail) :]) for ids in spelled]
        if not all(paths) or any(ids[: len(tail)] != tail for ids in spelled):
            raise SetupError(
                f"The tokenizer joins the prompt's {TAIL!r} with the digits behind it, so prices cannot be "
                "read off its next tokens: use a base model with a Llama tokenizer."
            )
        self.paths = paths  # of $1 .. $999

        vocabulary = tokenizer.get_vocab()  # a mark of a leading blank is no digit
        digits = sorted(id_ for token, id_ in vocabulary.items() if token[:1] in DIGITS)
        commas = [vocabulary[","]] if "," in vocabulary else []
        self.watched = np.array(digits + commas)  # (watched,)
        self.digits = slice(0, len(digits))
        self.comma = len(digits) if commas else None
        column = {int(id_): i for i, id_ in enumerate(self.watched)}

        # Number nodes, breadth first, then a comma node under each complete price.
        node_of: dict[tuple[int, ...], int] = {(): ROOT}
        for prefix in sorted({path[:k] for path in paths for k in range(1, len(path) + 1)}, key=len):
            node_of[prefix] = len(node_of)
        keys = list(node_of)
        self.price_node = np.array([node_of[path] for path in paths])  # (999,)
        comma_of = {}
        if commas:
            for path in paths:
                comma_of[node_of[path]] = len(keys)
                keys.append((*path, commas[0]))

        nodes = len(keys)
        self.token = np.array([key[-1] if key else -1 for key in keys])
        self.depth = np.array([len(key) for key in keys])
        self.parent = np.array([node_of[key[:-1]] if key else -1 for key in keys])
        self.comma_node = np.full(nodes, -1)
        self.comma_node[list(comma_of)] = list(comma_of.values())
        inner = np.zeros(nodes, bool)
        inner[self.parent[1 : len(node_of)]] = True
        self.is_stop = ~inner
        self.is_number, self.is_digit = np.zeros(nodes, bool), np.zeros(nodes, bool)
        self.is_number[self.price_node] = True
        self.is_edge = self.is_number & self.is_stop
        self.is_digit[self.price_node[:9]] = True
        # Worth evaluating along with the prompt, before anything is known: of a digit tokenizer the nodes of
        # $1 to $99, since one longer forward pass costs less than another one.
        first = np.flatnonzero(inner)[1:]
        self.first = first if len(first) <= 128 else first[:0]
        # And with them some numbers at the edge, of every size and ending, which tell how sure a text's numbers are of
        # their end.
        self.samples = self.price_node[SAMPLES - MIN_USD][: len(SAMPLES) if len(self.first) else 0]

        # The same tree as edges sorted by parent (compressed rows), for vectorised updates.
        order = np.argsort(self.parent[1:], kind="stable") + 1
        self.edge_child = order
        self.edge_column = np.array([column[int(t)] for t in self.token[order]])
        self.edge_start = np.searchsorted(self.parent[order], np.arange(nodes + 1))

    def __len__(self) -> int:
        return len(self.token)


class Growth:
    """The lattice filled in for a batch of texts, round by round.

    Round 0 is the prompt's end (the root), the lattice's `first` nodes and its `samples`; each further round takes the
    nodes whose parents are known by then. Of these, the ones with the least probability are left out
    while together they hold at most `tolerance`, and count as the end of their number. A node that
    only refines a stop (900 of $100..$999 with a digit tokenizer, all prices with Llama 3, and the commas)
    concerns one price: it is left out when it alone holds little, or, a comma aside, is not among the `max_edges`
    likeliest, and is then taken to do as the evaluated ones did on average. (An average says little of a comma: behind
    some numbers it begins the thousands, behind most it does not. So what a comma holds counts in full.)

    How much a number at the lattice's edge may hold depends on how far it may be from that average. `probes=None`, for a
    base: `SPREAD` standard deviations of those that are known; the samples are, and
    the `LIKELIEST`, since a number that the text itself names may be unlike all others. Otherwise, for a tuned model, which
    stops all but always, that too, and at least `SURPRISE` times as unsure of its end as this text's numbers were so
    far. Where the lattice has no samples, its `probes` likeliest are asked for first (and $1 to $9, behind which a
    thousands comma stands most often).

    Every price stays within 1e-3 of the exact answer (`python -m bench.exactness`). `tolerance=0, max_edges=None` is
    exact.
    """

    def __init__(
        self,
        lattice: PriceLattice,
        batch: int,
        *,
        tolerance: float = 5e-4,
        max_edges: int | None = 56,
        probes: int | None = PROBES,
    ):
        self.lattice, self.tolerance, self.max_edges, self.probes = lattice, tolerance, max_edges, probes
        shape = (batch, len(lattice))
        self.reach = np.zeros(shape)  # probability that the continuation passes through the node
        self.reach[:, ROOT] = 1.0
        self.goes_on = np.zeros(shape)  # P(next token begins with a digit | node)
        self.known = np.zeros(shape, bool)  # evaluated
        self.settled = np.zeros(shape, bool)  # evaluated, or left out for good
        # Over the evaluated numbers: the probability of arriving there, and of going on to what is no price.
        self.numbers, self.passed_on = np.full(batch, 1e-12), np.zeros(batch)

    def frontier(self) -> np.ndarray:
        """(batch, m) nodes to evaluate next, parents before children, rows padded with -1; m = 0 at the end."""
        if not self.settled[:, ROOT].any():
            return np.tile(
                np.concatenate([[ROOT], self.lattice.first, self.lattice.samples]), (len(self.reach), 1)
            )
        open_ = ~self.settled & (self.reach > 0) & self.known[:, self.lattice.parent]
        nodes = np.flatnonzero(open_.any(axis=0))
        mass = np.where(open_[:, nodes], self.reach[:, nodes], 0.0)  # (batch, candidates)
        order = np.argsort(-mass, axis=1, kind="stable")
        mass = np.take_along_axis(mass, order, axis=1)
        from_here_on = np.cumsum(mass[:, ::-1], axis=1)[:, ::-1]  # what is lost by stopping before this one
        candidates = nodes[order]
        stops, edge = self.lattice.is_stop[candidates], self.lattice.is_edge[candidates]
        wanted = (mass > 0) & (np.where(stops, mass, from_here_on) > self.tolerance)
        wanted &= ~(stops & ~edge) | (mass > COMMAS * self.tolerance)
        known_edges = (self.known & self.lattice.is_edge).sum(axis=1, keepdims=True)
        place = np.cumsum(edge, axis=1) + known_edges  # among all numbers at the edge, the likeliest is 1
        if self.probes is not None:
            probed = (place <= self.probes) | self.lattice.is_digit[candidates]
            doubt = np.minimum(1, SURPRISE * self.passed_on / self.numbers)[:, None]
            if len(self.lattice.samples):
                doubt = np.maximum(doubt, self._spread())
            wanted &= ~edge | probed | (mass * doubt >= self.tolerance)
        else:
            again = known_edges > len(self.lattice.samples)
            worth = mass * self._spread() >= self.tolerance * np.where(again, AGAIN, 1)
            wanted &= ~edge | worth | (place <= LIKELIEST)
        if self.max_edges is not None:
            wanted &= ~edge | (place <= self.max_edges)
        self.settled |= open_ & ~self.lattice.is_edge  # of those, more may be asked for when some are known
        # Wanted ones to the left, likeliest first; the rest of a row is padding.
        width = wanted.sum(axis=1).max(initial=0)
        left = np.argsort(~wanted, axis=1, kind="stable")[:, :width]
        chosen = np.take_along_axis(candidates, left, axis=1)
        chosen = np.where(np.take_along_axis(wanted, left, axis=1), chosen, -1)
        return self._with_commas(chosen) if len(self.lattice.samples) else chosen

    def _spread(self) -> np.ndarray:
        """(batch, 1): how far another number's probability to go on may be from the mean of those at the edge; 1 where
        fewer than two are known."""
        known, goes_on = self.known[:, self.lattice.is_edge], self.goes_on[:, self.lattice.is_edge]
        count = np.maximum(known.sum(axis=1, keepdims=True), 1)
        mean = (goes_on * known).sum(axis=1, keepdims=True) / count
        square = ((goes_on - mean) ** 2 * known).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1)
        return np.where(count > 1, np.minimum(1, SPREAD * np.sqrt(square)), 1.0)

    def _with_commas(self, nodes: np.ndarray) -> np.ndarray:
        """A frontier with the commas behind its likeliest numbers at the edge, which would be a round of their own."""
        lattice = self.lattice
        real = np.maximum(nodes, 0)
        likely = (nodes >= 0) & lattice.is_edge[real] & (np.take_along_axis(self.reach, real, axis=1) > AHEAD)
        nodes = np.concatenate([nodes, np.where(likely, lattice.comma_node[real], -1)], axis=1)
        width = (nodes >= 0).sum(axis=1).max(initial=0)
        return np.take_along_axis(nodes, np.argsort(nodes < 0, axis=1, kind="stable")[:, :width], axis=1)

    def update(self, nodes: np.ndarray, probabilities: np.ndarray) -> None:
        """Take in the frontier's next-token probabilities of the watched tokens.

        nodes: (batch, m) as given by `frontier`; probabilities: (batch, m, watched), or, where all nodes are stops,
        (batch, m, 2): of a digit, all together, and of the comma.
        """
        lattice = self.lattice
        together = probabilities.shape[-1] == 2
        digits, comma = (slice(0, 1), 1) if together else (lattice.digits, lattice.comma)
        all_rows, slots = np.nonzero(nodes >= 0)
        for depth in np.unique(lattice.depth[nodes[all_rows, slots]]):  # a parent's reach before its child's
            here = lattice.depth[nodes[all_rows, slots]] == depth
            row, slot = all_rows[here], slots[here]
            node, p = nodes[row, slot], probabilities[row, slot].astype(np.float64)  # (k,), (k, watched)
            self.known[row, node] = self.settled[row, node] = True
            self.goes_on[row, node] = p[:, digits].sum(axis=1)
            start, count = lattice.edge_start[node], lattice.edge_start[node + 1] - lattice.edge_start[node]
            k = np.repeat(np.arange(len(node)), count)
            edge = np.repeat(start - np.cumsum(count) + count, count) + np.arange(count.sum())
            child, column = lattice.edge_child[edge], 1 if together else lattice.edge_column[edge]
            self.reach[row[k], child] = self.reach[row[k], node[k]] * p[k, column]
            beyond = np.where(lattice.is_edge[node], self.goes_on[row, node], 0.0)
            if comma is not None:
                beyond += p[:, comma]
            mass = lattice.is_number[node] * self.reach[row, node]
            np.add.at(self.numbers, row, mass)
            np.add.at(self.passed_on, row, mass * beyond)

    def probabilities(self) -> np.ndarray:
        """(batch, 999): P($1) .. P($999). What is missing to 1 spelled no price in range."""
        lattice = self.lattice
        node = lattice.price_node
        reach, known = self.reach[:, node], self.known[:, node]
        ends = reach * (1 - self.goes_on[:, node])
        if lattice.comma is not None:
            comma = lattice.comma_node[node]
            thousands = self.reach[:, comma] * self.goes_on[:, comma]
            ends -= _as_the_evaluated(thousands, self.reach[:, comma], self.known[:, comma])
        for depth in np.unique(lattice.depth[node]):
            stops = lattice.is_stop[node] & (lattice.depth[node] == depth)
            ends[:, stops] = _as_the_evaluated(ends[:, stops], reach[:, stops], known[:, stops], default=1.0)
        return np.clip(ends, 0.0, 1.0)


def _as_the_evaluated(
    part: np.ndarray, mass: np.ndarray, known: np.ndarray, default: float = 0.0
) -> np.ndarray:
    """`part` (batch, nodes) of `mass` where it is known, elsewhere the same share of the mass as on
    average where it is known; `default` where nothing is."""
    whole = (mass * known).sum(axis=1, keepdims=True)
    share = np.full_like(whole, default)
    np.divide((part * known).sum(axis=1, keepdims=True), whole, out=share, where=whole > 0)
    return np.where(known, part, mass * share)
