"""The distribution of a text that is nearly another one, from a quarter of the lattice's nodes."""

from __future__ import annotations

import numpy as np

from pricer.price.lattice import ROOT, Growth

BEGINNINGS = 36  # of numbers with more than one token, that are asked for
THOUSANDS = 2e-3  # of the probability, from which on a comma is asked for
_LEAST = 1e-290  # what is divided by


class Alike(Growth):
    """`Growth` for texts that are nearly the one that `whole`, a batch of one at its end, was grown for: the same
    without a phrase. In one round, and of the nodes of `whole` only those on which a price hangs most.

    The others are taken to be as in `whole`: a stop stops as often there, and the beginning of a number goes on as often,
    but for the odds' mean shift at those that were asked for, since what a text lacks makes all prices longer or shorter.
    How near that comes to asking for all: `python -m bench.deletion --near`.
    """

    def __init__(self, whole: Growth, batch: int):
        super().__init__(whole.lattice, batch)
        self.whole = whole

    def frontier(self) -> np.ndarray:
        """(batch, m), the same nodes for all; m = 0 the second time."""
        if self.settled[:, ROOT].any():
            return np.empty((len(self.reach), 0), int)
        lattice, (reach, goes_on, known) = self.lattice, self._of_whole
        inner = known & ~lattice.is_stop & (lattice.depth > 0)
        first = np.flatnonzero(inner & (lattice.depth == 1))
        behind = np.flatnonzero(inner & (lattice.depth > 1))
        matters = reach[behind] * np.sqrt(goes_on[behind] * (1 - goes_on[behind]))
        behind = np.sort(behind[np.argsort(-matters, kind="stable")[:BEGINNINGS]])
        commas = lattice.comma_node[[n for n in (*first, *behind) if lattice.comma_node[n] >= 0]]
        commas = commas[known[commas] & (reach[commas] > THOUSANDS)]
        return np.tile(np.concatenate([[ROOT], first, behind, commas]), (len(self.reach), 1)).astype(int)

    @property
    def _of_whole(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(nodes,) each: reach, goes_on and known."""
        return self.whole.reach[0], self.whole.goes_on[0], self.whole.known[0]

    def probabilities(self) -> np.ndarray:
        """(batch, 999): as `Growth.probabilities`."""
        lattice, (whole_reach, whole_goes_on, whole_known) = self.lattice, self._of_whole
        asked = self.known[0]
        number = lattice.price_node
        ends_in_whole = self.whole.probabilities()[0] / np.maximum(
            whole_reach[number], _LEAST
        )  # of its reach

        reach, goes_on = self.reach.copy(), np.where(asked, self.goes_on, whole_goes_on)
        begins = whole_known & ~lattice.is_stop & (lattice.depth > 1)
        odds = _log_odds(whole_goes_on)
        if (seen := begins & asked).any():
            shift = (_log_odds(self.goes_on) - odds)[:, seen]
            weight = self.reach[:, seen] + _LEAST
            shift = (shift * weight).sum(axis=1, keepdims=True) / weight.sum(axis=1, keepdims=True)
            goes_on = np.where(begins & ~asked, 1 / (1 + np.exp(-odds - shift)), goes_on)
        for depth in range(2, lattice.depth.max() + 1):
            here = np.flatnonzero((lattice.depth == depth) & (lattice.is_number | ~lattice.is_stop))
            here = here[~asked[lattice.parent[here]]]
            above = lattice.parent[here]
            of_those = whole_reach[here] / np.maximum(whole_reach[above] * whole_goes_on[above], _LEAST)
            reach[:, here] = reach[:, above] * goes_on[:, above] * of_those

        ends = reach[:, number] * ends_in_whole
        if lattice.comma is not None:
            comma = lattice.comma_node[number]
            beyond = np.clip(1 - whole_goes_on[number] - ends_in_whole, 0, 1) * reach[:, number]
            beyond = np.where(asked[comma], self.reach[:, comma] * self.goes_on[:, comma], beyond)
        else:
            beyond = 0.0
        inner = ~lattice.is_stop[number]
        ends[:, inner] = (reach[:, number] * (1 - goes_on[:, number]) - beyond)[:, inner]
        return np.clip(ends, 0.0, 1.0)


def _log_odds(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))
