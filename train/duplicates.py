"""Near-duplicates and seller templates among product texts, by MinHash.

Two questions, two kinds of view of a text. *Is this the same listing again?* compares all its words. *Is this
the same seller's template, filled in for another size, colour, year or device?* compares only what such a
template keeps: the title without numbers, sizes and colours, and the description's plain prose.

MinHash (rensa) gives each view of a text a signature of `PERMUTATIONS` 32-bit numbers; two signatures agree
in the share of places that their sets of shingles have in common (Jaccard). Signatures that agree in one
whole band are candidates (locality-sensitive hashing); candidates at least as alike as the threshold are
pairs. Memory: 4 * PERMUTATIONS bytes a text, one view at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from rensa import RMinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

PERMUTATIONS = 128
# 32 bands of 4 find nine in ten of the pairs at 0.5 and practically all above 0.6.
BAND = 4
# Each text is compared with this many that follow it in a bucket of identical bands, which is sorted so that
# the most alike stand together. A template of ten thousand listings is still found whole, by chaining,
# without fifty million comparisons.
NEIGHBOURS = 8
# What a prompt of 160 tokens holds of a text. Sources cut the same listing at different lengths: only the
# part that all of them have, and that the model reads, is compared.
HEAD_CHARS = 700
_BLOCK = 65_536

_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"[^\W_]+(?:['’.][^\W_]+)*")
_COLOURS = """
    black white red blue green yellow orange purple pink brown grey gray silver gold golden beige ivory navy
    teal turquoise cyan magenta maroon burgundy bronze copper chrome charcoal cream tan khaki olive lavender
    violet indigo coral walnut oak cherry mahogany espresso natural clear multicolor multicolour rainbow
    matte gloss glossy satin brushed stainless nickel graphite titanium rose midnight
"""
_SIZES = """
    xs s m l xl xxl xxxl small medium large mini compact full queen king twin size sizes inch inches in ft
    feet foot cm mm gb tb mb oz lb lbs pound pounds ounce ounces gallon quart liter litre ml watt watts w v
    volt volts amp amps hp pack packs count set pair pcs piece pieces left right front rear driver passenger
    one two three four five six seven eight nine ten twelve single double triple
"""
_VARIANT = frozenset((_COLOURS + _SIZES).split())


@dataclass(frozen=True)
class View:
    """A way to look at a text: which of its words, in shingles of how many, and how few words say nothing."""

    name: str
    words: Callable[[str], list[str]]
    width: int
    least_words: int


def all_words(text: str) -> list[str]:
    """Every word of the text's head, in lower case."""
    return _WORD.findall(text[:HEAD_CHARS].lower())


def title_skeleton(text: str) -> list[str]:
    """The title's words without numbers (part numbers, years, sizes) and words for colour or size."""
    title = text.partition("\n")[0][:HEAD_CHARS].lower()
    return [word for word in _WORD.findall(title) if not _names_variant(word)]


def prose_skeleton(text: str) -> list[str]:
    """The description's words that are written small, without numbers and words for colour or size.

    Makes, models and brands are capitalised, so "fits Nissan Altima" and "fits Honda Accord" look alike.
    """
    body = text[:HEAD_CHARS].partition("\n")[2]
    return [word for word in _WORD.findall(body) if word.islower() and not _names_variant(word)]


WHOLE = View("texts", all_words, width=3, least_words=1)
TEMPLATES = (
    View("titles", title_skeleton, width=2, least_words=4),
    View("prose", prose_skeleton, width=3, least_words=12),
)


def _names_variant(word: str) -> bool:
    return word.lower() in _VARIANT or bool(not word.isalpha() and _DIGIT.search(word))


def shingles(words: list[str], width: int) -> list[str]:
    """Runs of `width` words; a shorter text is one shingle of its own."""
    if len(words) <= width:
        return [" ".join(words)]
    return [" ".join(run) for run in zip(*(words[start:] for start in range(width)), strict=False)]


def signatures(word_lists: Iterable[list[str]], width: int, seed: int = 0) -> np.ndarray:
    """MinHash signatures, (texts, PERMUTATIONS) uint32."""
    sets = [shingles(words, width) for words in word_lists]
    rows = RMinHash.digests_from_token_sets(sets, num_perm=PERMUTATIONS, seed=seed)
    return np.array(rows, dtype=np.uint32).reshape(len(sets), PERMUTATIONS)


def similarity(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity, row by row, of two arrays of signatures: 0 to 1, give or take 0.04."""
    return (left == right).mean(axis=-1)


def find_pairs(
    batches: Iterator[list[str]], rows: int, view: View, threshold: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of texts that look alike in this view, and how alike they are.

    The `rows` texts come in batches and are numbered through; those with fewer words than the view needs pair
    with none.

    Returns (pairs, 2) int64, the smaller number first, sorted, and (pairs,) similarities >= `threshold`. In
    a large bucket not every pair is listed, but neighbours are: alike texts end up connected.
    """
    signed, numbers = np.empty((rows, PERMUTATIONS), np.uint32), np.empty(rows, np.int64)
    filled = first = 0
    for texts in tqdm(batches, desc=f"hashing {view.name}", unit=" batches", disable=None):
        words = [view.words(text) for text in texts]
        telling = [number for number, some in enumerate(words) if len(some) >= view.least_words]
        part = slice(filled, filled + len(telling))
        signed[part] = signatures([words[number] for number in telling], view.width, seed)
        numbers[part] = np.array(telling, dtype=np.int64) + first
        filled, first = part.stop, first + len(texts)
    pairs, alike = similar_pairs(signed[:filled], threshold, view.name)
    return numbers[pairs], alike


def similar_pairs(signed: np.ndarray, threshold: float, name: str = "") -> tuple[np.ndarray, np.ndarray]:
    """As find_pairs, of rows of signatures (texts, PERMUTATIONS)."""
    rows = len(signed)
    found = np.empty(0, np.int64)  # a pair (left, right) as left * rows + right
    bands = range(0, PERMUTATIONS, BAND)
    for start in tqdm(bands, desc=f"comparing {name}", unit=" bands", disable=None):
        # Sorted by the band, ties by the places that follow it.
        columns = [(start + place) % PERMUTATIONS for place in range(3 * BAND)]
        order = np.lexsort([signed[:, column] for column in reversed(columns)])
        band, codes = signed[order, start : start + BAND], []
        for step in range(1, NEIGHBOURS + 1):
            same = np.flatnonzero((band[step:] == band[:-step]).all(axis=1))
            left, right = order[same], order[same + step]
            codes.append(np.minimum(left, right) * rows + np.maximum(left, right))
        codes = np.setdiff1d(np.concatenate(codes), found)
        alike = _similarities(signed, np.stack([codes // rows, codes % rows], axis=1))
        found = np.union1d(found, codes[alike >= threshold])
    pairs = np.stack([found // rows, found % rows], axis=1) if rows else np.empty((0, 2), np.int64)
    return pairs, _similarities(signed, pairs)


def _similarities(signed: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The similarity of each pair of rows, a block at a time to keep memory flat."""
    blocks = (pairs[at : at + _BLOCK] for at in range(0, len(pairs), _BLOCK))
    alike = [similarity(signed[block[:, 0]], signed[block[:, 1]]) for block in blocks]
    return np.concatenate(alike) if alike else np.empty(0)


def components(rows: int, pairs: np.ndarray) -> np.ndarray:
    """The number of the connected component of each of `rows` rows."""
    ones = np.ones(len(pairs), dtype=np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(rows, rows))
    return connected_components(graph, directed=False)[1]
