"""Preparing data: what is cleaned how, which rows are one listing, and that no group straddles two splits."""

import csv
import gzip
import hashlib
import itertools
import json
import random
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.errors import InputError, SetupError
from pricer.prompt import QUESTION, frame
from train import clean, duplicates, prepare, sources
from train.data import load_rows
from train.groups import Likeness, cut, find_groups

SHARED = Path(__file__).parents[3] / "shared" / "data"

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def prose(seed: int, words: int = 60) -> str:
    """Made-up prose: two seeds have practically no three words in a row in common."""
    choose = random.Random(seed)
    return " ".join("".join(choose.choices(SYLLABLES, k=3)) for _ in range(words))


def listing(seed: int, **fields) -> dict:
    """A listing unlike any other seed's, of $10 to $500."""
    return {
        "title": prose(seed + 10_000, 8).title(),
        "description": prose(seed),
        "price": 10.0 + seed * 37 % 490,
        "category": ("Tools", "Toys", "Auto")[seed % 3],
    } | fields


def write_jsonl(path: Path, rows: list) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def run(tmp_path, names, **options):
    """Prepare; the card and the three tables by split."""
    options = {"out": str(tmp_path / "out"), "validation": 8, "calibration": 10} | options
    card = prepare.prepare([names] if isinstance(names, str) else names, prepare.Options(**options))
    folder = Path(options["out"])
    return card, {name: pd.read_parquet(folder / f"{name}.parquet") for name in prepare.SPLITS}


def jaccard(one: str, other: str) -> float:
    one, other = (set(duplicates.shingles(duplicates.all_words(text), 3)) for text in (one, other))
    return len(one & other) / len(one | other)


# Prices


@pytest.mark.parametrize(
    ("given_price", "price_usd"),
    [
        (12, 12.0),
        (0.5, 0.5),
        (999.49, 999.49),
        ("$12.99", 12.99),
        (" US $ 12.99 ", 12.99),
        ("12.99 USD", 12.99),
        ("12,99", 12.99),
        ("$.75", 0.75),
        (np.float32(20.5), 20.5),
    ],
)
def test_price_is_read(given_price, price_usd):
    assert clean.parse_price(given_price) == pytest.approx(price_usd)


@pytest.mark.parametrize("text", ["$1,299.00", "1,299", 1299, 0.49, 999.5, 0, -5, float("inf")])
def test_price_outside_the_range_is_left_out(text):
    with pytest.raises(InputError, match="outside|no price in dollars"):
        clean.parse_price(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$5.99 - $9.99", "range"),
        ("5.99 to 9.99", "range"),
        ("from 12.99", "range"),
        ("", "no price"),
        ("None", "no price"),
        ("—", "no price"),
        (None, "no price"),
        (float("nan"), "no price"),
        (True, "no price"),
        ("12 99", "no price in dollars"),
        ("€12.99", "no price in dollars"),
        ("cheap", "no price in dollars"),
        ("$", "no price in dollars"),
        ([9.99], "no price in dollars"),
    ],
)
def test_price_that_cannot_be_read_says_why(text, reason):
    with pytest.raises(InputError, match=reason):
        clean.parse_price(text)


# Text


def test_listing_text_has_the_dataset_s_shape():
    text = clean.listing_text(
        "Acme Pump WP22001234 [New]",
        ["Moves <b>water</b> &amp; oil.", "Quiet:   very"],
        ["Fits 3/4 inch hose", "Order 12345678 today"],
        {
            "Item Weight": "2 pounds",
            "Product Dimensions": "4 x 5 inches",
            "Best Sellers Rank": {"Pumps": 12},
            "Date First Available": "May 3, 2019",
            "Is Discontinued By Manufacturer": "No",
            "Item model number": "WP-2",
            "Brand": "Acme",
        },
    )
    assert text == (
        "Acme Pump New\nMoves water & oil. Quiet very Fits 3/4 inch hose Order today "
        "Weight 2 pounds, Dimensions 4 x 5 inches, Brand Acme"
    )


def test_fields_that_a_shop_wrote_as_text_are_read_too():
    details = json.dumps({"Brand": "Acme", "Part Number": "X1", "Color": "Red"})
    assert (
        clean.listing_text("Pump", "['Good.', 'Quiet.']", None, details)
        == "Pump\nGood. Quiet. Brand Acme, Color Red"
    )
    assert clean.listing_text("Pump", 'It pumps. {"UPC": "123", "Item Weight": "2 pounds"}') == (
        "Pump\nIt pumps. Weight 2 pounds"
    )


def test_boilerplate_does_not_swallow_the_prose_behind_it():
    text = clean.scrub(
        "Part Number: AB12 " + "this pump moves water all day and all night without a sound " * 2
    )
    assert text.startswith("this pump moves water")


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="&<"), max_size=300))
def test_scrubbed_text_is_one_line_without_part_numbers_and_stays_as_it_is(text):
    once = clean.scrub(text)
    assert not set(once) & set('\n:[]"{}【】')
    assert not any(len(word) >= 7 and any(c in "0123456789" for c in word) for word in once.split(" "))
    assert clean.scrub(once) == once


def test_prompts_of_the_hub_dataset_lose_their_frame_and_price():
    text = "Pump\nMoves water."
    for prompt in (frame(text), frame(text) + "129.00", frame(text, "What does this cost?") + "1,129.00"):
        assert clean.record_text({"text": prompt}) == text
    assert clean.record_text({"text": "Pump AB1234567\nMoves: water."}) == "Pump\nMoves water."


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"title": None, "description": float("nan")},
        {"title": " ", "description": [], "features": None, "details": {}},
    ],
)
def test_record_without_text_says_so(record):
    with pytest.raises(InputError, match="no text"):
        clean.record_text(record)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.recursive(
                st.none() | st.booleans() | st.floats() | st.text(max_size=20),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
                ),
                max_leaves=5,
            )
            for name in (
                "title",
                "description",
                "features",
                "details",
                "text",
                "prompt",
                "category",
                "source",
            )
        },
    )
)
def test_no_record_breaks_the_cleaning(record):
    source = sources.Source("made up")
    try:
        row = prepare.listing_row(record | {"price_usd": 9.99}, source, min_chars=1)
    except InputError as reason:
        assert str(reason) in ("no text", "too little text") or str(reason).startswith("not ")
    else:
        prepare.pa.Table.from_pylist([row], prepare.SCHEMA)


def test_broken_unicode_reaches_no_file():
    source, record = sources.Source("made up"), {"title": "Pump", "description": prose(1), "price_usd": "5"}
    row = prepare.listing_row(record | {"category": "A\ud800"}, source, min_chars=1)
    assert row["category"] == "A"
    with pytest.raises(InputError, match="not UTF-8 text"):
        prepare.listing_row(record | {"title": "Pump \ud83d"}, source, min_chars=1)


# Sources


ROWS = [listing(seed) for seed in range(60)]


def test_every_format_gives_the_same_rows(tmp_path):
    table = pd.DataFrame(ROWS)
    table.to_parquet(tmp_path / "rows.parquet")
    table.to_csv(tmp_path / "rows.csv", index=False, encoding="utf-8-sig")
    table.to_csv(tmp_path / "rows.csv.gz", index=False)
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    with gzip.open(tmp_path / "zipped.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    found = []
    for name in ("rows.parquet", "rows.csv", "rows.csv.gz", "rows.jsonl", "zipped.jsonl.gz"):
        _, tables = run(tmp_path, str(tmp_path / name))
        found.append(pd.concat(tables.values()).drop(columns="source").reset_index(drop=True))
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other)
    assert len(found[0]) == 60


def test_corrupt_lines_are_counted_and_shown(tmp_path, capsys):
    bad = ["{broken", "[1, 2]", '"text"', "\x00\x01", "[" * 100_000]
    path = write_jsonl(tmp_path / "rows.jsonl", [bad[0], *ROWS, *bad[1:], listing(77, price="$3 - $4")])
    card, tables = run(tmp_path, path)
    assert card["counts"]["left_out_in_cleaning"] == {"not a JSON object": 5, "a range of prices": 1}
    assert card["counts"]["read"] == 66 and card["counts"]["clean"] == 60
    shown = capsys.readouterr().err
    assert "66 records read, 60 kept" in shown and "rows.jsonl line 1;" in shown


def test_csv_rows_with_missing_fields_are_counted(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(ROWS[0])
        writer.writerows(row.values() for row in ROWS)
        file.write("just,two\r\n\r\n")
    card, _ = run(tmp_path, str(path))
    assert card["counts"]["left_out_in_cleaning"] == {f"2 cells where the header has {len(ROWS[0])}": 1}


def test_a_file_that_ends_early_gives_what_it_has(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    choose = random.Random(0)
    rows = [listing(seed, noise=choose.randbytes(400).hex()) for seed in range(200)]
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    path.write_bytes(whole[: len(whole) // 2])
    card, _ = run(tmp_path, str(path))
    assert 50 < card["counts"]["clean"] < 150
    assert "the rest of the file is damaged" in card["counts"]["left_out_in_cleaning"]


def wrong_files(folder: Path) -> dict[str, str]:
    (folder / "image.parquet").write_bytes(b"\x89PNG\r\n" * 100)
    (folder / "image.csv").write_bytes(bytes(range(256)) * 20)
    (folder / "image.jsonl").write_bytes(bytes(range(256)) * 20)
    (folder / "image.jsonl.gz").write_bytes(b"\x89PNG\r\n" * 100)
    (folder / "empty.jsonl").write_text("")
    (folder / "empty.csv").write_text("")
    (folder / "letter.txt").write_text("Dear Sir")
    (folder / "poem.jsonl").write_text("roses are red\n" * 3000)
    write_jsonl(folder / "others.jsonl", [{"name": "x", "cost": 1}] * 9)
    pd.DataFrame({"name": ["x"] * 9}).to_csv(folder / "others.csv", index=False)
    pd.DataFrame({"name": ["x"] * 9}).to_parquet(folder / "others.parquet")
    write_jsonl(folder / "unpriced.jsonl", [{"title": prose(1), "price": None}] * 9)
    return {
        "image.parquet": "no parquet file",
        "image.csv": "is no UTF-8 text",
        "image.jsonl": "is no JSONL file",
        "image.jsonl.gz": "is not packed, or not as .gz",
        "empty.jsonl": "is no JSONL file",
        "empty.csv": "file is empty",
        "letter.txt": "it has: Dear Sir",
        "poem.jsonl": "is no JSONL file",
        "others.jsonl": "it has: name, cost",
        "others.csv": "it has: name",
        "others.parquet": "it has: name",
        "unpriced.jsonl": "No row is left",
        "nowhere.parquet": "There is no file",
        ".": "There is no file",
    }


def test_a_wrong_file_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    for name, words in wrong_files(tmp_path).items():
        with pytest.raises(SystemExit) as stopped:
            prepare.main([str(tmp_path / name), "--out", str(tmp_path / "out")])
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert stopped.value.code == 2, name
        assert words in said and "Traceback" not in said, name
    assert not (tmp_path / "out").exists()


def test_other_column_names_are_mapped(tmp_path):
    rows = [{"name": r["title"], "body": r["description"], "cost": f"${r['price']}"} for r in ROWS]
    path = write_jsonl(tmp_path / "shop.jsonl", rows)
    _, tables = run(tmp_path, path, columns=("title=name", "description=body", "price=cost"))
    assert sum(map(len, tables.values())) == 60
    with pytest.raises(InputError, match="no column bodi"):
        run(tmp_path, path, columns=("title=name", "description=bodi", "price=cost"))


class FakeHub:
    """Stands in for datasets.load_dataset; remembers what was asked for."""

    def __init__(self, rows):
        self.rows, self.asked = rows, []

    def __call__(self, *names, **options):
        self.asked.append((names, options))
        return iter(self.rows)


def test_the_hub_dataset_is_streamed(tmp_path, monkeypatch):
    rows = [{"text": frame(f"{r['title']}\n{r['description']}") + "12.00", "price": r["price"]} for r in ROWS]
    hub = FakeHub(rows)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    card, tables = run(tmp_path, "ed-donner/pricer-data", limit=50)
    assert hub.asked == [(("ed-donner/pricer-data",), {"split": "train", "streaming": True})]
    assert card["counts"]["read"] == 50
    assert card["sources"] == [{"name": "ed-donner/pricer-data", "from": "Hugging Face Hub"}]
    assert f"{ROWS[0]['title']}\n{ROWS[0]['description']}" in set(pd.concat(tables.values())["text"])
    assert sources.find_source("ed-donner/pricer-data:test").name == "ed-donner/pricer-data:test"


def test_a_raw_category_is_streamed_line_by_line(tmp_path, monkeypatch):
    lines = [{"text": json.dumps({"main_category": "All", **row, "features": []})} for row in ROWS]
    hub = FakeHub([*lines, {"text": "{"}])
    monkeypatch.setattr(datasets, "load_dataset", hub)
    card, tables = run(tmp_path, "raw_meta_Appliances")
    (names, options), *_ = hub.asked
    assert names == ("text",) and options["streaming"]
    assert options["data_files"].endswith("Amazon-Reviews-2023/raw/meta_categories/meta_Appliances.jsonl")
    assert card["counts"]["left_out_in_cleaning"] == {"not a JSON object": 1}
    assert set(pd.concat(tables.values())["category"]) == {"Appliances"}


def test_a_hub_that_does_not_answer_is_one_sentence(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(SetupError, match=r"^someone/rows could not be read from the Hub \(no route\)"):
        run(tmp_path, "someone/rows")


# Near-duplicates and templates


def groups_of(texts, test_texts=(), target_like=None, **options):
    every = [*texts, *test_texts]
    return find_groups(
        lambda: iter([every[:3], every[3:]]),
        np.zeros(len(texts), bool) if target_like is None else np.array(target_like),
        len(test_texts),
        Likeness(),
        **options,
    )


def described(seed: int, title: str | None = None, **words: str) -> str:
    text = f"{title or prose(seed + 500, 8).title()}\n{prose(seed)}"
    for old, new in words.items():
        text = text.replace(old, new)
    return text


def test_near_duplicates_leave_one_that_is_like_the_target():
    text = described(1)
    changed = text.rsplit(" ", 1)[0] + " other"
    found = groups_of([described(0), text, changed, text.upper(), described(2)])
    assert found.stays.tolist() == [True, True, False, False, True]
    assert found.counts["exact_duplicates"] == 1 and found.counts["exact_and_near_duplicates"] == 2
    assert found.group[1] == found.group[2] == found.group[3] and len(set(found.group)) == 3
    preferring = groups_of(
        [described(0), text, changed, text.upper()], target_like=[False, False, True, False]
    )
    assert preferring.stays.tolist() == [True, False, True, False]


def test_near_duplicates_of_test_items_are_left_out():
    text = described(1)
    found = groups_of([described(0), text + " new", described(2)], [described(9), text])
    assert found.stays.tolist() == [True, False, True]
    assert found.counts["near_a_test_item"] == 1
    assert [pair[:2] for pair in found.examples["near a test item"]] == [(1, 4)]


def test_templates_shared_with_test_items_are_counted_and_left_out_on_demand():
    title = "Acme Pump For Garden Ponds And Fountains, {} Inch, {}"
    texts = [described(1, title.format(4, "Red")), described(2)]
    tests = [described(3, title.format(6, "Blue"))]
    found = groups_of(texts, tests)
    assert found.stays.all()
    assert found.counts["rows_sharing_a_template_with_test"] == 1
    assert found.counts["test_items_sharing_a_template"] == 1
    assert groups_of(texts, tests, drop_test_families=True).stays.tolist() == [False, True]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Acme Brake Rotor Kit WP1234 Heavy Duty 2014", "Acme Brake Rotor Kit XK-99 Heavy Duty 2019"),
        ("Soft Cotton Hotel Bed Sheets, Queen, Navy Blue", "Soft Cotton Hotel Bed Sheets, Twin, Red"),
        ("Slim Leather Wallet Case for Galaxy S9", "Slim Leather Wallet Case for Galaxy S21"),
    ],
)
def test_titles_that_differ_in_number_size_or_colour_share_a_group(one, other):
    found = groups_of([described(1, one), described(2, other), described(3)])
    assert found.group[0] == found.group[1] != found.group[2]
    assert found.stays.all()


def test_prose_that_differs_in_makes_and_models_shares_a_group():
    small, makes = prose(7, 40).split(), [prose(seed, 10).title().split() for seed in (8, 9)]
    # A capitalised word after every fourth: most shingles of three hold one.
    one, other = (
        " ".join(f"{' '.join(small[at : at + 4])} {names[at // 4]}" for at in range(0, 40, 4))
        for names in makes
    )
    assert jaccard(one, other) < 0.4
    found = groups_of([described(1).split("\n")[0] + "\n" + one, described(2).split("\n")[0] + "\n" + other])
    assert found.group[0] == found.group[1]


def test_short_titles_and_empty_descriptions_share_no_group():
    found = groups_of([f"{word} 12" for word in ("Pump", "Lamp", "Table", "Pump")])
    assert found.group[0] == found.group[3] and len(set(found.group)) == 3


def test_a_template_larger_than_a_bucket_s_window_is_still_one_group():
    texts = [f"{prose(seed, 9).title()}\n{prose(1)} {seed}" for seed in range(100, 400)]
    found = groups_of(texts)
    assert len(set(found.group)) == 1


def test_similarity_is_jaccard():
    words = prose(1, 400).split()
    sets = [words[:300], words[100:]]
    signed = duplicates.signatures(sets, width=1)
    true = len(set(sets[0]) & set(sets[1])) / len(set(words))
    assert duplicates.similarity(signed[0], signed[1]) == pytest.approx(true, abs=0.13)


@settings(max_examples=50)
@given(st.integers(2, 40), st.data())
def test_components_connect_what_pairs_connect(rows, data):
    pair = st.tuples(st.integers(0, rows - 1), st.integers(0, rows - 1))
    pairs = data.draw(st.lists(pair, max_size=40))
    component = duplicates.components(rows, np.array(pairs, dtype=np.int64).reshape(-1, 2))
    merged = list(range(rows))
    for one, other in pairs:
        merged = [merged[one] if number == merged[other] else number for number in merged]
    for one, other in itertools.combinations(range(rows), 2):
        assert (component[one] == component[other]) == (merged[one] == merged[other])


# The cut


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.floats(0.5, 999)), min_size=1, max_size=200),
    st.integers(0, 80),
    st.integers(0, 80),
    st.integers(0, 5),
)
def test_no_group_straddles(rows, validation, calibration, seed):
    group, eligible, price_usd = (np.array(column) for column in zip(*rows, strict=True))
    wanted = {"validation": validation, "calibration": calibration}
    split = cut(group, price_usd, eligible, wanted, seed)
    for number in np.unique(group):
        assert len(set(split[group == number]) - {""}) <= 1
        # A row is left out only beside rows of its group that validation or calibration got.
        assert (split[group == number] != "").any()
    assert eligible[(split == "validation") | (split == "calibration")].all()
    assert not (split[eligible] == "").any()
    assert (cut(group, price_usd, eligible, wanted, seed) == split).all()


def test_cut_takes_about_as_many_rows_with_the_same_prices():
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(3000), generator.choice([1, 1, 1, 2, 5], 3000))
    price_usd = np.exp(generator.normal(4, 1, len(group)))
    split = cut(group, price_usd, np.ones(len(group), bool), {"validation": 500, "calibration": 600}, seed=1)
    for name, wanted in (("validation", 500), ("calibration", 600)):
        chosen = price_usd[split == name]
        assert abs(len(chosen) - wanted) < 0.15 * wanted
        assert np.median(chosen) == pytest.approx(np.median(price_usd), rel=0.12)


# All of it


def template_rows() -> list[dict]:
    """Thirty templates of one to four listings, forty lone listings, some of them twice."""
    rows = [
        listing(
            family,
            title=f"Acme {prose(family + 3000, 6)} {size} Inch",
            description=f"{prose(family)} in {size} inch",
            price=20.0 + 10 * size,
            target_like=(family + size) % 3 > 0,
        )
        for family in range(30)
        for size in range(1 + family % 4)
    ]
    rows += [listing(seed, target_like=seed % 2 == 0) for seed in range(100, 140)]
    return rows + rows[-6:]


def test_what_is_alike_is_never_in_two_splits(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", template_rows())
    card, tables = run(tmp_path, path, validation=25, calibration=25)
    for one, other in itertools.combinations(tables.values(), 2):
        assert len(one) and len(other)
        assert not set(one["group"]) & set(other["group"])
        for left, right in itertools.product(one["text"], other["text"]):
            assert jaccard(left, right) < 0.4
    assert tables["validation"]["target_like"].all() and tables["calibration"]["target_like"].all()
    assert card["counts"]["exact_duplicates"] == 6


def test_every_row_is_accounted_for_in_the_card(tmp_path):
    rows = [*template_rows(), "{", listing(1, price="$2 - $3"), listing(2, description="short", title="x")]
    tests = write_jsonl(tmp_path / "tests.jsonl", [listing(105), {"title": "Short", "price": 5000}])
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    card, tables = run(tmp_path, path, validation=20, calibration=20, against=(tests,), seed=3)
    counts = card["counts"]
    assert counts["read"] == len(rows) == counts["clean"] + sum(counts["left_out_in_cleaning"].values())
    assert counts["test_items"] == 2
    left_out = ("near_a_test_item", "exact_and_near_duplicates", "left_out_beside_validation_or_calibration")
    kept = sum(map(len, tables.values()))
    assert counts["clean"] == kept + sum(counts[name] for name in left_out)
    assert counts["near_a_test_item"] == 1
    assert card["options"]["seed"] == 3 and card["options"]["near"] == 0.85
    assert card["sources"][0]["name"] == "rows.jsonl" and len(card["sources"][0]["sha256"]) == 64
    assert card["against"][0]["name"] == "tests.jsonl"
    for name, table in tables.items():
        described_split = card["splits"][name]
        assert described_split["rows"] == len(table) and described_split["groups"] == table["group"].nunique()
        assert described_split["price_usd"]["median"] == pytest.approx(table["price"].median(), abs=0.01)
        assert sum(described_split["categories"].values()) == len(table)
        assert sum(described_split["sources"].values()) == len(table)
        assert described_split["sha256"] == file_hash(tmp_path / "out" / f"{name}.parquet")
        assert list(table) == ["text", "price", "category", "title", "target_like", "source", "group"]
    written = (tmp_path / "out" / "data_card.json").read_text()
    assert json.loads(written) == json.loads(json.dumps(card))
    assert str(tmp_path) not in written
    assert not any(str(row["title"]) in written for row in template_rows())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["data_card.json", *(f"{name}.parquet" for name in prepare.SPLITS)]
    )


def file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_seed_gives_the_same_files_and_another_seed_another_cut(tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "rows.jsonl", template_rows())
    hashes = []
    for seed, out in ((0, "a"), (0, "b"), (1, "c")):
        card, _ = run(tmp_path, path, seed=seed, out=str(tmp_path / out))
        hashes.append([split["sha256"] for split in card["splits"].values()])
    assert hashes[0] == hashes[1] and hashes[0][1] != hashes[2][1]


def test_batches_do_not_show(tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "rows.jsonl", template_rows())
    _, whole = run(tmp_path, path, out=str(tmp_path / "whole"))
    monkeypatch.setattr(prepare, "BATCH_ROWS", 7)
    _, pieces = run(tmp_path, path, out=str(tmp_path / "pieces"))
    for name in prepare.SPLITS:
        pd.testing.assert_frame_equal(whole[name], pieces[name])


def test_without_target_like_all_rows_can_be_cut_from(tmp_path):
    _, tables = run(tmp_path, write_jsonl(tmp_path / "rows.jsonl", ROWS))
    assert 4 <= len(tables["validation"]) <= 12 and len(tables["train"]) > 30
    assert not tables["train"]["target_like"].any()


def test_final_prompts_are_stored_with_a_tokenizer(tmp_path, tiny_model_folder, digit_tokenizer):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    card, tables = run(tmp_path, path, tokenizer=str(tiny_model_folder / "base"), max_text_tokens=30)
    row = tables["train"].iloc[0]
    assert str(tmp_path.parent) not in json.dumps(card) and card["options"]["tokenizer"] == "base"
    assert row["prompt"].startswith(QUESTION + "\n\n" + row["text"][:20])
    assert row["prompt"].endswith("\n\nPrice is $") and len(row["prompt"]) < len(frame(row["text"]))
    assert row["completion"] == f"{round(row['price'])}.00"
    with pytest.raises(InputError, match="cannot be loaded"):
        run(tmp_path, path, tokenizer=str(tmp_path / "nothing"))


def test_too_few_rows_to_cut_from_say_so_and_keep_the_old_files(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    card, _ = run(tmp_path, path)
    with pytest.raises(InputError, match="60 rows are too few"):
        run(tmp_path, path, validation=500, calibration=600)
    assert json.loads((tmp_path / "out" / "data_card.json").read_text())["splits"] == card["splits"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--near", "0"],
        ["--near", "0.4"],
        ["--family", "1.5"],
        ["--validation", "-1"],
        ["--columns", "price"],
        ["--seed", "-1"],
    ],
)
def test_wrong_options_are_one_sentence(tmp_path, capsys, wrong):
    with pytest.raises(SystemExit) as stopped:
        prepare.main([write_jsonl(tmp_path / "rows.jsonl", ROWS), "--out", str(tmp_path / "out"), *wrong])
    assert stopped.value.code == 2
    assert "--" in capsys.readouterr().err.strip().splitlines()[-1]


def test_command_line(tmp_path, capsys):
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    prepare.main([path, "--out", str(tmp_path / "out"), "--validation", "8", "--calibration", "8"])
    said = capsys.readouterr().out
    assert "train: " in said and "validation: " in said and "median $" in said


# Reading what was prepared


def test_load_rows_reads_what_prepare_wrote(tmp_path):
    long = [listing(seed, description=prose(seed, 900)) for seed in range(300, 320)]
    _, tables = run(tmp_path, write_jsonl(tmp_path / "rows.jsonl", template_rows() + long))
    assert tables["train"]["text"].str.len().max() == clean.MAX_CHARS
    rows = load_rows(tmp_path / "out" / "train.parquet")
    assert rows["text"].tolist() == tables["train"]["text"].tolist()
    assert {"text", "price", "category", "target_like", "group", "source"} == set(rows.columns)
    assert rows["price"].dtype == float


def test_load_rows_takes_prompt_then_text_then_title_and_description(tmp_path):
    table = pd.DataFrame(
        {
            "prompt": [frame("Pump\nMoves water."), None, ""],
            "text": ["unused", "Lamp\nGives light.", None],
            "title": ["x", "y", "Table"],
            "description": ["x", "y", "Stands."],
            "price": ["$1,299.00", "5", "7.5"],
            "weight": [1.0, 2.0, 3.0],
        }
    )
    for name, write in (("t.parquet", table.to_parquet), ("t.csv", table.to_csv), ("t.csv.gz", table.to_csv)):
        write(tmp_path / name)
        rows = load_rows(tmp_path / name)
        assert rows["text"].tolist() == ["Pump\nMoves water.", "Lamp\nGives light.", "Table\nStands."]
        assert rows["price"].tolist() == [1299.0, 5.0, 7.5]
        assert rows["weight"].tolist() == [1.0, 2.0, 3.0]
    write_jsonl(tmp_path / "t.jsonl", [{"title": "1984", "price": 9}])
    assert load_rows(tmp_path / "t.jsonl")["text"].tolist() == ["1984"]


def test_load_rows_maps_columns(tmp_path):
    pd.DataFrame({"name": ["Pump"], "cost": [5]}).to_csv(tmp_path / "t.csv", index=False)
    rows = load_rows(tmp_path / "t.csv", {"title": "name", "price": "cost"})
    assert rows[["text", "price"]].to_dict("records") == [{"text": "Pump", "price": 5.0}]
    with pytest.raises(InputError, match="no column wrong"):
        load_rows(tmp_path / "t.csv", {"title": "wrong"})
    with pytest.raises(InputError, match="it has: name, cost"):
        load_rows(tmp_path / "t.csv")


def test_load_rows_refuses_a_wrong_file_in_one_sentence(tmp_path):
    wrong = wrong_files(tmp_path)
    for name in wrong:
        with pytest.raises(InputError):
            load_rows(tmp_path / name)
    pd.DataFrame({"title": ["Pump", ""], "price": [5, 6]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match="t.csv: row 2, column text: no text"):
        load_rows(tmp_path / "t.csv")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_real_rows_do_not_straddle_and_hold_no_test_item(tmp_path):
    tests = SHARED / "pricer_test.parquet"
    card, tables = run(
        tmp_path, str(SHARED / "pricer_train.parquet"), against=(str(tests),), validation=300, calibration=300
    )
    assert card["counts"]["test_items"] == 1000
    everything = pd.concat(tables.values())
    assert not set(everything["text"]) & set(load_rows(tests)["text"])
    for one, other in itertools.combinations(tables.values(), 2):
        assert not set(one["group"]) & set(other["group"])
    assert card["splits"]["validation"]["price_usd"]["median"] == pytest.approx(162, abs=15)
