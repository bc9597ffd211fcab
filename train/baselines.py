"""What plain methods learn from the adapter's training rows, as evaluation runs to hold it against.

    python -m train.baselines --data out/data --items pricer_test.parquet --out out/runs
        [--only mean median ridge lightgbm neighbours] [--recipe train/recipes/smollm2-135m.yaml] [--field value ...]
    python -m train.baselines --data out/data --items everyday_test.parquet --set everyday --validation natural.parquet ...

`--data` is a folder of train.prepare; its splits (and the recipe's extra_data) are used, and rows weigh, as the recipe says
for the adapter, and texts are all that is read of them. Every setting is chosen by its error on the recipe's
validation_split and logged; the items are only scored, once. With `--validation` the rows of that file choose instead, and
training rows weigh so that prices are spread as theirs are. All five take some two minutes on two cores.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import spmatrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer, strip_accents_unicode
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import FeatureUnion

from pricer.arena.metrics import predict_error
from pricer.arena.runs import BENCHMARK, ITEM_SETS, SOURCES, Run, RunInfo, save_run
from pricer.errors import InputError, PricerError, SetupError, report
from train.clean import MAX_PRICE_USD, MIN_PRICE_USD
from train.data import load_items
from train.evaluate import format_summary, summarise_run
from train.prepared import check_whole
from train.recipe import Recipe, load_recipe
from train.rows import training_rows, weighed_rows

log = logging.getLogger("train.baselines")

RECIPE = Path(__file__).parent / "recipes" / "smollm2-135m.yaml"
MIN_ROWS, FOLDS = 50, 5
TEXT_CHARS = 900  # about what the adapter reads; the curated texts are no longer

ALPHAS = (1.0, 2.0, 3.0, 4.0)
LEAVES, OBJECTIVES, MAX_ROUNDS = (7, 15, 31), ("regression", "regression_l1"), 1500
COMPONENTS = 100
NEIGHBOURS, POWERS = (20, 40, 80), (3, 4, 5)
# The mean log price is not the guess of least error in dollars: times one of these it comes nearer.
FACTORS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)


@dataclass(frozen=True)
class Guesser:
    """`guess`: texts -> dollars, shape (texts,). `setting`: how it was made, in words."""

    setting: str
    guess: Callable[[Sequence[str]], np.ndarray]


# The baselines: training rows (text, price, weight, group) and validation rows -> one guesser per setting ----


def mean(train: pd.DataFrame, validation: pd.DataFrame) -> Iterator[Guesser]:
    yield constant("weighted mean", np.average(train["price"], weights=train["weight"]))


def median(train: pd.DataFrame, validation: pd.DataFrame) -> Iterator[Guesser]:
    middle = np.quantile(train["price"], 0.5, weights=train["weight"], method="inverted_cdf")
    yield constant("weighted median", middle)


def constant(setting: str, price_usd: float) -> Guesser:
    return Guesser(f"{setting} ${price_usd:.2f}", lambda texts: np.full(len(texts), price_usd))


def ridge(train: pd.DataFrame, validation: pd.DataFrame) -> Iterator[Guesser]:
    words = word_pairs()
    known = fitted(words, train)
    for alpha in ALPHAS:
        model = linear(alpha).fit(known, np.log(train["price"]), sample_weight=train["weight"])
        yield Guesser(
            f"alpha {alpha:g}", lambda texts, model=model: np.exp(model.predict(words.transform(texts)))
        )


def lightgbm(train: pd.DataFrame, validation: pd.DataFrame) -> Iterator[Guesser]:
    """Trees cannot weigh up thousands of words, so they get the text's principal components and the ridge's
    guess: for training rows that of a ridge which has seen no row of their group."""
    try:
        from lightgbm import LGBMRegressor, early_stopping
    except (ImportError, OSError) as error:  # it looks for OpenMP on the machine
        raise SetupError(
            "LightGBM cannot be loaded: install requirements-train.txt and, on Debian, libgomp1, "
            "or leave it out with --only mean median ridge neighbours."
        ) from error
    words, log_price, weight = word_pairs(), np.log(train["price"]), train["weight"]
    known = fitted(words, train)
    unseen = {
        alpha: cross_val_predict(
            linear(alpha),
            known,
            log_price,
            groups=train["group"],
            cv=GroupKFold(FOLDS, shuffle=True, random_state=0),
            params={"sample_weight": weight},
        )
        for alpha in ALPHAS
    }
    alpha = min(unseen, key=lambda alpha: np.average((unseen[alpha] - log_price) ** 2, weights=weight))
    line = linear(alpha).fit(known, log_price, sample_weight=weight)
    components = TruncatedSVD(min(COMPONENTS, min(known.shape) - 1), n_iter=3, random_state=0).fit(known)

    def features(vectors: spmatrix, ridge_guess: np.ndarray) -> np.ndarray:
        return np.column_stack([components.transform(vectors), ridge_guess])

    def guess(texts: Sequence[str], model: LGBMRegressor) -> np.ndarray:
        vectors = words.transform(texts)
        return np.exp(model.predict(features(vectors, line.predict(vectors))))

    inputs = features(known, unseen[alpha])
    held_out = words.transform(validation["text"])
    held_out = features(held_out, line.predict(held_out))
    for leaves, objective in product(LEAVES, OBJECTIVES):
        model = LGBMRegressor(
            objective=objective,
            num_leaves=leaves,
            learning_rate=0.05,
            n_estimators=MAX_ROUNDS,
            min_child_samples=min(20, len(train) // 10),
            colsample_bytree=0.2,
            subsample=0.8,
            subsample_freq=1,
            reg_lambda=1.0,
            max_bin=63,
            random_state=0,
            deterministic=True,
            force_row_wise=True,
            verbose=-1,
        ).fit(
            inputs,
            log_price,
            sample_weight=weight,
            eval_X=held_out,
            eval_y=np.log(validation["price"]),
            callbacks=[early_stopping(100, verbose=False)],
        )
        setting = f"{objective}, {leaves} leaves, {model.best_iteration_} rounds, ridge alpha {alpha:g}"
        yield Guesser(setting, lambda texts, model=model: guess(texts, model))


def neighbours(train: pd.DataFrame, validation: pd.DataFrame) -> Iterator[Guesser]:
    """The mean log price of the k listings with the most similar words, weighted by a power of the similarity."""
    words = words_and_spelling()
    index = NearestNeighbors(n_neighbors=min(max(NEIGHBOURS), len(train)), metric="cosine", algorithm="brute")
    index.fit(fitted(words, train))
    log_price, weight = np.log(train["price"].to_numpy()), train["weight"].to_numpy()
    anywhere = np.average(log_price, weights=weight)

    @lru_cache(maxsize=1)
    def nearest(texts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        distance, rows = index.kneighbors(words.transform(texts))  # (texts, neighbours), nearest first
        return np.clip(1 - distance, 0, 1), rows

    def guess(texts: Sequence[str], k: int, power: int) -> np.ndarray:
        likeness, rows = (found[:, :k] for found in nearest(tuple(texts)))
        share = likeness**power * weight[rows]
        little = 1e-9  # a text that has no word in common with any other gets the mean of all
        return np.exp(((share * log_price[rows]).sum(1) + little * anywhere) / (share.sum(1) + little))

    for k, power in product(NEIGHBOURS, POWERS):
        yield Guesser(f"k {k}, similarity^{power}", lambda texts, k=k, power=power: guess(texts, k, power))


@dataclass(frozen=True)
class Baseline:
    label: str
    guessers: Callable[[pd.DataFrame, pd.DataFrame], Iterator[Guesser]]
    factors: Sequence[float] = FACTORS


BASELINES = {
    "mean": Baseline("Mean price", mean, factors=(1.0,)),
    "median": Baseline("Median price", median, factors=(1.0,)),
    "ridge": Baseline("TF-IDF + ridge", ridge),
    "lightgbm": Baseline("TF-IDF + LightGBM", lightgbm),
    "neighbours": Baseline("TF-IDF nearest neighbours", neighbours),
}


# Text as numbers -----------------------------------------------------------------------------------------


def beginning(text: str) -> str:
    return strip_accents_unicode(text[:TEXT_CHARS].lower())


def title(text: str) -> str:
    return beginning(text.partition("\n")[0])


def tfidf(**options) -> TfidfVectorizer:
    return TfidfVectorizer(sublinear_tf=True, min_df=2, dtype=np.float32, **options)


def word_pairs() -> FeatureUnion:
    """Words and pairs of words, once for the text and once more for its title alone."""
    options = {"ngram_range": (1, 2)}
    return FeatureUnion(
        [("text", tfidf(preprocessor=beginning, **options)), ("title", tfidf(preprocessor=title, **options))]
    )


def words_and_spelling() -> FeatureUnion:
    """The text's words, and the title's 3 to 5 letters in a row. The products of two rows are 0.7 times the
    cosine of the words and 0.3 times that of the letters."""
    letters = {"analyzer": "char_wb", "ngram_range": (3, 5)}
    return FeatureUnion(
        [("text", tfidf(preprocessor=beginning)), ("title", tfidf(preprocessor=title, **letters))],
        transformer_weights={"text": 0.7**0.5, "title": 0.3**0.5},
    )


def fitted(words: FeatureUnion, train: pd.DataFrame) -> spmatrix:
    try:
        return words.fit_transform(train["text"]).tocsr()
    except ValueError as error:  # an empty vocabulary
        raise InputError("No word stands in two of the training texts: check the data.") from error


def linear(alpha: float) -> Ridge:
    return Ridge(alpha=alpha, solver="sparse_cg", tol=1e-3)


# Choosing, scoring, writing ------------------------------------------------------------------------------


def load_prepared(
    folder: str | Path, recipe: Recipe, validation_file: str | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows (text, price, weight, group) and validation rows of a prepared folder, weighted as for the adapter;
    with a validation file by its prices alone.

    Rows without a group are each their own."""
    recipe = replace(recipe, unlabelled=[], teachers=[])
    if validation_file:
        recipe = replace(recipe, match_prices=True, target_like_weight=1.0, extra_weight=1.0)
    check_whole(Path(folder), [*recipe.train_splits, *([] if validation_file else [recipe.validation_split])])
    validation = weighed_rows(Path(validation_file or Path(folder) / f"{recipe.validation_split}.parquet"))
    train = training_rows(recipe, Path(folder), validation["price"].to_numpy(float), seed=0)
    group = train["group"] if "group" in train else pd.Series(np.nan, index=train.index)
    own = "row " + train.index.astype(str)
    # Of another file the same number is another group.
    train["group"] = pd.factorize((train["part"] + group.astype(str)).where(group.notna(), own))[0]
    if len(train) < MIN_ROWS or train["group"].nunique() < FOLDS or validation.empty:
        raise InputError(
            f"{Path(folder).name} has {len(train)} training rows in {train['group'].nunique()} groups and "
            f"{len(validation)} validation rows: give at least {MIN_ROWS} in {FOLDS}, and some for validation."
        )
    return train, validation


def choose(guessers: Iterable[Guesser], factors: Sequence[float], validation: pd.DataFrame) -> Guesser:
    """The guesser and factor with the least error in dollars on the validation rows; all are logged."""
    best, least = None, np.inf
    price, texts = validation["price"].to_numpy(), tuple(validation["text"])
    for guesser in guessers:
        guess = guesser.guess(texts)
        errors = {factor: predict_error(price, in_range(factor * guess)) for factor in factors}
        factor = min(errors, key=errors.__getitem__)
        log.info("  validation error $%.2f: %s, times %g", errors[factor], guesser.setting, factor)
        if errors[factor] < least:
            best, least = (guesser, factor), errors[factor]
    guesser, factor = best
    setting = guesser.setting + (f", times {factor:g}" if len(factors) > 1 else "")
    return Guesser(setting, lambda texts: in_range(factor * guesser.guess(texts)))


def in_range(price_usd: np.ndarray) -> np.ndarray:
    return np.clip(price_usd, MIN_PRICE_USD, MAX_PRICE_USD)


def run_baseline(
    name: str, train: pd.DataFrame, validation: pd.DataFrame, items: pd.DataFrame, item_set: str = BENCHMARK
) -> Run:
    """Fit and choose on the rows, score the items."""
    baseline = BASELINES[name]
    log.info("%s, %s training rows", baseline.label, f"{len(train):,}")
    chosen = choose(baseline.guessers(train, validation), baseline.factors, validation)
    info = RunInfo(
        name=f"baseline-{name}" if item_set == BENCHMARK else f"{item_set}-baseline-{name}",
        label=baseline.label,
        kind="baseline",
        device="cpu",
        date=date.today(),
        items=item_set,
        **SOURCES[item_set],
        origin=f"python -m train.baselines --set {item_set} --only {name}",
        notes=f"{chosen.setting}; {len(train):,} training rows, {len(validation):,} for validation",
    )
    guess = np.round(chosen.guess(tuple(items["text"])), 2)
    return Run(info, pd.DataFrame({"index": items["index"], "guess_usd": guess}))


def main(argv: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(prog="python -m train.baselines", description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder made by train.prepare")
    parser.add_argument("--items", required=True, help="csv, parquet or jsonl with prompt or text, and price")
    parser.add_argument("--out", required=True, help="folder for the runs")
    parser.add_argument("--only", nargs="+", choices=BASELINES, default=list(BASELINES))
    parser.add_argument(
        "--recipe", default=RECIPE, help="whose splits and row weights to use; default: the embedded pair's"
    )
    parser.add_argument(
        "--set", choices=ITEM_SETS, default=BENCHMARK, help="which the items are; default: benchmark"
    )
    parser.add_argument(
        "--validation", help="a file whose rows choose, and whose prices the rows are weighted to"
    )
    options, fields = parser.parse_known_args(argv)
    try:
        recipe, _ = load_recipe([str(options.recipe), *fields])
        train, validation = load_prepared(options.data, recipe, options.validation)
        items = load_items(options.items)
        for name in options.only:
            run = run_baseline(name, train, validation, items, options.set)
            save_run(options.out, run)
            print(format_summary(run.info.label, summarise_run(run.table, items["price"].to_numpy(float))))
    except (PricerError, OSError) as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
