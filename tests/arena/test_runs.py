"""Runs: what is stored comes back, what is broken says so in one sentence, no item is lost or doubled."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.arena import runs, slices
from pricer.arena.runs import Run, RunInfo
from pricer.errors import InputError
from pricer.tables.checks import check_items, check_table
from train import import_published

SHARED = Path(__file__).parents[3] / "shared"

ITEMS = pd.DataFrame(
    {
        "index": [0, 1, 2, 3],
        "category": ["Tools", "Tools", "Toys", "Auto"],
        "price_usd": [25.0, 99.99, 400.0, 999.0],
    }
)


def make_run(name="mine", **columns):
    table = pd.DataFrame({"index": [2, 0, 1], "guess_usd": [390.0, 20.0, 300.0], **columns})
    return Run(RunInfo(name=name, label="Mine", kind="tuned"), table)


@pytest.fixture
def folder(tmp_path):
    runs.save_items(tmp_path, ITEMS)
    runs.save_run(tmp_path, make_run())
    return tmp_path


# Item sets


def test_runs_and_items_of_a_set_stay_apart(tmp_path):
    everyday = pd.DataFrame(
        {"index": [0], "category": ["Mice"], "price_usd": [14.0], "label": ["Wireless mouse"]}
    )
    runs.save_items(tmp_path, ITEMS)
    runs.save_items(tmp_path, everyday, "everyday")
    runs.save_run(tmp_path, make_run())
    info = RunInfo(name="daily", label="Daily", kind="tuned", items="everyday", prior="shop")
    runs.save_run(tmp_path, Run(info, pd.DataFrame({"index": [0], "guess_usd": [12.0]})))
    assert (
        list(runs.load_runs(tmp_path)["benchmark"]) == ["mine"]
        and runs.load_items(tmp_path)["label"].tolist() == [""] * 4
    )
    daily = runs.load_runs(tmp_path)["everyday"]["daily"]
    joined = runs.join_items(daily, runs.load_items(tmp_path, "everyday"))
    assert joined.loc[0, ["label", "category", "error_usd"]].tolist() == ["Wireless mouse", "Mice", 2.0]
    assert {info.name for info in runs.list_runs(tmp_path)} == {"mine", "daily"}


def test_a_label_is_a_name_and_no_text(tmp_path):
    with pytest.raises(InputError, match="row 2, column label has more than 80"):
        runs.save_items(tmp_path, ITEMS.assign(label=["a", "b" * 81, "c", "d"]))


@pytest.mark.parametrize("item_set", runs.ITEM_SETS)
def test_every_shipped_item_has_a_name_of_its_own(item_set):
    items = runs.load_items(item_set=item_set)
    assert len(items) == {"benchmark": 1000, "everyday": 750}[item_set]
    assert items["index"].tolist() == list(range(len(items))) and items["label"].is_unique
    words = items["label"].str.split().str.len()
    assert words.between(2, 8).all() and items["label"].str.len().max() <= 60


# Reading and writing


def test_round_trip(tmp_path):
    info = RunInfo(
        name="a-1.5b",
        label="Ä label",
        kind="tuned",
        base_model="x/y",
        adapter_revision="abc",
        rule="median",
        date="2026-01-31",
        published_figures={"items": 3, "error_usd": 1.5, "rmsle": 0.1, "hits_pct": 50.0},
    )
    extra = {"low_usd": [1, 2, 3], "high_usd": [4, 5, 6], "unparsed": [True, False, False], "seconds": 0.5}
    path = runs.save_run(tmp_path / "new", Run(info, make_run(**extra).table))
    for named in (path, path.with_name("a-1.5b"), path.with_name("a-1.5b.parquet"), str(path)):
        loaded = runs.load_run(named)
        assert loaded.info == info
        assert loaded.table["index"].tolist() == [0, 1, 2]
        assert loaded.table["guess_usd"].tolist() == [20.0, 300.0, 390.0]
        assert loaded.table["unparsed"].tolist() == [False, False, True]
    assert sorted(p.name for p in path.parent.iterdir()) == ["a-1.5b.json", "a-1.5b.parquet"]


def test_saving_again_replaces(folder):
    changed = make_run()
    changed.table["guess_usd"] += 1
    runs.save_run(folder, changed)
    assert runs.load_run(folder / "mine").table["guess_usd"].tolist() == [21.0, 301.0, 391.0]


@pytest.mark.parametrize("broken", ["replace", "to_parquet"])
def test_a_failed_save_leaves_the_old_run_and_no_rest(folder, monkeypatch, broken):
    def fail(*args, **kwargs):
        if broken == "to_parquet":
            Path(args[1]).write_bytes(b"half a fi")
        raise OSError("disk full")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(*((os, "replace") if broken == "replace" else (pd.DataFrame, "to_parquet")), fail)
    with pytest.raises(OSError, match="disk full"):
        runs.save_run(folder, make_run())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_new_run_is_listed_only_when_its_table_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        runs.save_run(tmp_path, make_run())
    assert runs.list_runs(tmp_path) == [] and runs.load_runs(tmp_path)["benchmark"] == {}


def test_leftovers_of_a_killed_save_are_not_runs(folder):
    (folder / ".mine.json.0123.tmp").write_text("{")
    (folder / ".mine.json").write_text("{")
    assert [info.name for info in runs.list_runs(folder)] == ["mine"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "mine.json").write_text('{"name": "mi'), "mine.json: Invalid JSON"),
        (lambda f: (f / "mine.json").write_text("[]"), "mine.json"),
        (lambda f: (f / "mine.json").write_bytes(b"\xff\xfe"), "mine.json"),
        (lambda f: (f / "mine.json").write_text('{"name": "mine", "label": "x", "kind": "magic"}'), "kind"),
        (lambda f: (f / "mine.json").write_text('{"name": "other", "label": "x", "kind": "tuned"}'), "other"),
        (lambda f: (f / "mine.parquet").write_bytes(b"PAR1 no"), "mine.parquet is damaged"),
        (lambda f: (f / "mine.parquet").write_bytes((f / "mine.parquet").read_bytes()[:200]), "damaged"),
        (lambda f: (f / "mine.parquet").unlink(), "no table at"),
        (lambda f: pd.DataFrame({"index": [0]}).to_parquet(f / "mine.parquet"), "guess_usd is missing"),
    ],
)
def test_a_broken_run_is_one_sentence_and_takes_no_other_with_it(folder, caplog, spoil, words):
    runs.save_run(folder, make_run("whole"))
    spoil(folder)
    with pytest.raises(InputError, match=words) as caught:
        runs.load_run(folder / "mine")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    with caplog.at_level(logging.WARNING):
        assert list(runs.load_runs(folder)["benchmark"]) == ["whole"]
    assert words in caplog.text


def test_a_missing_run_or_folder(tmp_path):
    with pytest.raises(InputError, match="There is no run at"):
        runs.load_run(tmp_path / "none")
    with pytest.raises(InputError, match="There is no table at"):
        runs.load_items(tmp_path)
    assert runs.load_runs(tmp_path / "none")["benchmark"] == {}


@pytest.mark.parametrize(
    "name", ["", "../up", "a/b", "Big", "-x", "a b", ".hidden", "items", "items-everyday", "x.json", "a\n"]
)
def test_names_that_are_no_file_names(name):
    with pytest.raises(ValueError):
        RunInfo(name=name, label="x", kind="base")


def test_the_shipped_runs_load_without_a_complaint(caplog):
    items, loaded = runs.load_items(), runs.load_runs()["benchmark"]
    assert not caplog.records
    assert len(items) == 1000 and items.columns.tolist() == ["index", "category", "price_usd", "label"]
    everyday = runs.load_runs()["everyday"]
    assert not set(everyday) & set(loaded)
    assert [info.name for info in runs.list_runs()] == sorted([*loaded, *everyday])
    for run in everyday.values():
        assert len(runs.join_items(run, runs.load_items(item_set="everyday"))) == 750
    for run in loaded.values():
        assert len(runs.join_items(run, items)) == len(run.table)
        assert not run.info.published or run.info.origin
    columns = {c for path in runs.RUNS_FOLDER.glob("*.parquet") for c in pd.read_parquet(path).columns}
    assert not columns & {"text", "prompt", "title"}


# Tables from outside


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"index": [0, 1]}, "column guess_usd is missing"),
        ({"guess_usd": [1.0]}, "column index is missing"),
        ({"index": [0], "guess_usd": [1.0], "text": ["x"]}, "column text is not known"),
        ({"index": [0, 1], "guess_usd": [1.0, np.nan]}, "row 2, column guess_usd is missing"),
        ({"index": [0, 1], "guess_usd": [1.0, np.inf]}, "row 2, column guess_usd is missing or not a number"),
        (
            {"index": [0, 1], "guess_usd": [-1.0, 2.0]},
            "row 1, column guess_usd is not between 0 and 1,000,000",
        ),
        ({"index": [0, 1], "guess_usd": [1.0, 1e7]}, "row 2, column guess_usd is not between"),
        ({"index": [0, 1], "guess_usd": ["1", "dear"]}, "row 2, column guess_usd is missing or not a number"),
        ({"index": [0, 1], "guess_usd": [[1], [2]]}, "guess_usd"),
        ({"index": [0, 0], "guess_usd": [1.0, 2.0]}, "row 2, column index stands there twice"),
        ({"index": [0, 0.5], "guess_usd": [1.0, 2.0]}, "row 2, column index is not a whole number"),
        ({"index": [-1, 0], "guess_usd": [1.0, 2.0]}, "row 1, column index is not between"),
        ({"index": [0, 77], "guess_usd": [1.0, 2.0]}, "row 2, column index is not one of the test items"),
        ({"index": [], "guess_usd": []}, "no rows"),
        ({"index": [0], "guess_usd": [5], "low_usd": [6], "high_usd": [4]}, "row 1, column low_usd is above"),
        ({"index": [0], "guess_usd": [5], "unpriced_mass": [1.5]}, "row 1, column unpriced_mass"),
    ],
)
def test_tables_that_are_refused(columns, words):
    with pytest.raises(InputError, match=words) as caught:
        check_table(pd.DataFrame(columns), "upload", ITEMS)
    assert str(caught.value).startswith("upload: ") and "\n" not in str(caught.value)


def test_a_column_that_stands_there_twice():
    table = pd.DataFrame([[0, 1.0, 2.0]], columns=["index", "guess_usd", "guess_usd"])
    with pytest.raises(InputError, match="twice"):
        check_table(table, "upload")


def test_numbers_as_text_nullable_types_and_any_pandas_index_are_fine():
    table = pd.DataFrame({"guess_usd": ["5", "7.5"], "index": pd.array([3, 1], dtype="Int64")}, index=[9, 9])
    checked = check_table(table, "upload", ITEMS)
    assert checked.to_dict("list") == {"index": [1, 3], "guess_usd": [7.5, 5.0]}
    assert checked["index"].dtype == "int64"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"price_usd": [1, 0, 2, 3]}, "row 2, column price_usd is not above"),
        ({"category": ["a", None, "b", "c"]}, "row 2, column category is empty"),
        ({"index": [0, 1, 1, 2]}, "row 3, column index stands there twice"),
    ],
)
def test_items_that_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        check_items(ITEMS.assign(**change), "items")


# Joining


def test_join_items(folder):
    table = runs.join_items(runs.load_run(folder / "mine"), runs.load_items(folder))
    assert table["index"].tolist() == [0, 1, 2]
    assert table["error_usd"].tolist() == pytest.approx([5.0, 200.01, 10.0])
    assert table["outcome"].tolist() == ["hit", "miss", "hit"]


def test_join_items_refuses_an_unknown_index():
    with pytest.raises(InputError, match="mine: row 1, column index is not one of the test items"):
        runs.join_items(make_run(), ITEMS.iloc[:2])


def test_join_pair_keeps_the_shared_items():
    other = Run(
        RunInfo(name="b", label="B", kind="human"), pd.DataFrame({"index": [1, 3], "guess_usd": [1, 2.0]})
    )
    pair = runs.join_pair(make_run(), other, ITEMS)
    assert pair["index"].tolist() == [1]
    assert pair[["guess_usd_a", "guess_usd_b"]].to_numpy().tolist() == [[300.0, 1.0]]
    assert {"category", "price_usd", "outcome_a", "error_usd_b"} <= set(pair.columns)


PROMPTS = [f"How much does this cost to the nearest dollar?\n\nThing {i}\n\nPrice is $" for i in range(4)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("column", ["prompt", "text"])
@pytest.mark.parametrize("with_index", [True, False])
def test_item_texts_from_a_file(tmp_path, suffix, column, with_index):
    table = pd.DataFrame({column: PROMPTS, "price": ITEMS["price_usd"]})
    if with_index:
        table = table.assign(index=ITEMS["index"]).iloc[::-1]
    path = tmp_path / f"texts{suffix}"
    write = {
        ".csv": lambda: table.to_csv(path, index=False),
        ".parquet": lambda: table.to_parquet(path, index=False),
        ".jsonl": lambda: table.to_json(path, orient="records", lines=True),
    }
    write[suffix]()
    texts = runs.load_item_texts(path, ITEMS)
    assert texts[2] == "Thing 2" and len(texts) == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prompt\nx\n", "column price is missing"),
        ("price\n1\n", "column text is missing"),
        ("text,price\nx,1\ny,2\n", "prices are not those of the test items"),
        ("index,text,price\n0,x,25\n0,y,25\n", "row 2, column index: 0 stands there twice"),
        ("", "No item text"),
    ],
)
def test_item_texts_that_do_not_fit_are_logged_not_raised(tmp_path, caplog, content, words):
    path = tmp_path / "texts.csv"
    path.write_text(content)
    assert runs.load_item_texts(path, ITEMS) is None
    assert words in caplog.text


def test_item_texts_without_file_or_network(tmp_path, caplog, monkeypatch):
    def no_network():
        raise ConnectionError("no route")

    monkeypatch.setattr(runs, "_read_hub", no_network)
    assert runs.load_item_texts(None, ITEMS) is None
    assert runs.load_item_texts(tmp_path / "none.csv") is None
    assert runs.load_item_texts(tmp_path / "texts.pkl") is None
    assert len(caplog.records) == 3 and "no route" in caplog.text


# Filters and slices

tables = st.lists(
    st.tuples(
        st.sampled_from(["Tools", "Toys", "Auto"]),
        st.one_of(st.floats(0.01, 2000), st.sampled_from([float(x) for x in slices.PRICE_BANDS_USD[1:]])),
        st.sampled_from(["hit", "near", "miss"]),
    ),
    max_size=40,
).map(
    lambda rows: pd.DataFrame(
        rows, columns=["category", "price_usd", "outcome"], index=[7] * len(rows)
    ).astype({"price_usd": float})
)


@given(tables)
def test_slices_hold_every_item_exactly_once(table):
    for parts in (slices.by_price(table), slices.by_category(table)):
        masks = np.array(list(parts.values())).reshape(len(parts), len(table))
        assert (masks.sum(axis=0) == 1).all()
        assert (masks.sum(axis=1) > 0).all()


@given(tables, st.floats(0, 2000))
def test_a_filter_and_its_opposite_hold_every_item_exactly_once(table, bound):
    pairs = [
        (slices.has_category(table, ["Tools"]), slices.has_category(table, ["Toys", "Auto"])),
        (slices.has_outcome(table, ["hit", "near"]), slices.has_outcome(table, ["miss"])),
        (
            slices.has_price(table, high_usd=bound),
            slices.has_price(table, low_usd=np.nextafter(bound, np.inf)),
        ),
    ]
    for mask, opposite in pairs:
        assert mask.dtype == opposite.dtype == bool and mask.shape == (len(table),)
        assert (mask ^ opposite).all()
        assert len(table[mask]) + len(table[opposite]) == len(table)


@given(tables)
def test_none_lets_all_pass_and_an_empty_choice_none(table):
    assert slices.has_category(table, None).all() and slices.has_outcome(table, None).all()
    assert slices.has_price(table).all()
    assert not slices.has_category(table, []).any() and not slices.has_outcome(table, []).any()


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6))), st.floats(0, 1e6))
def test_differs(pairs, at_least_usd):
    mask = slices.differs([a for a, _ in pairs], [b for _, b in pairs], at_least_usd)
    assert mask.tolist() == [abs(a - b) >= at_least_usd for a, b in pairs]


def test_price_bands_have_clear_ends():
    table = pd.DataFrame({"price_usd": [1.0, 24.99, 25.0, 699.99, 700.0, 5000.0]})
    parts = slices.by_price(table)
    assert {label: int(mask.sum()) for label, mask in parts.items()} == {
        "$0–25": 2,
        "$25–50": 1,
        "$400–700": 1,
        "$700+": 2,
    }
    assert list(slices.by_price(table, [100])) == ["$100+"]
    for wrong in ([], [5, 1], [1, 1]):
        with pytest.raises(InputError, match="ascending"):
            slices.by_price(table, wrong)


def test_an_unknown_outcome():
    with pytest.raises(InputError, match="choose from hit, near, miss"):
        slices.has_outcome(pd.DataFrame({"outcome": ["hit"]}), ["hot"])


# The importer


def published(folder, **change):
    folder.mkdir()
    files = {
        "test_prices.csv": "index,price_usd\n0,25.0\n1,99.99\n",
        "published_guesses.csv": "run,index,guess_usd\nx,0,20\nx,1,120\n",
        "published_runs.csv": "run,label,kind,items,origin,error_usd,rmsle,hits_pct\n"
        "x,X,human,2,me,12.5,0.2,100\n",
    }
    for name, content in (files | change).items():
        (folder / name).write_text(content)
    ITEMS.rename(columns={"price_usd": "price"}).assign(prompt="secret").to_parquet(folder / "test.parquet")
    return [str(folder), "--items", str(folder / "test.parquet"), "--out", str(folder / "out")]


def test_importer(tmp_path):
    import_published.main(published(tmp_path / "in"))
    out = tmp_path / "in" / "out"
    assert runs.load_items(out)["category"].tolist() == ["Tools", "Tools"]
    info = runs.load_run(out / "x").info
    assert (info.kind, info.published, info.origin, info.published_figures.hits_pct) == (
        "human",
        True,
        "me",
        100,
    )
    assert json.loads((out / "x.json").read_text())["published"] is True
    assert all(b"secret" not in path.read_bytes() for path in out.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"test_prices.csv": "index,price_usd\n0,26.0\n"}, "Item 0 has another price"),
        ({"test_prices.csv": "index,price_usd\n99,26.0\n"}, "Item 99 has another price"),
        ({"published_guesses.csv": "run,index,guess_usd\nx,0,20\n"}, "1 guesses for 2 items"),
        ({"published_guesses.csv": "run,index,guess_usd\nx,y,0,20\nx,1,3\n"}, "row 1: 4 cells"),
        ({"published_guesses.csv": "run,index,guess_usd\nx,0,12 15\n"}, "“12 15” is no price in dollars"),
        ({"published_runs.csv": "run,label\nx,X\n"}, "published_runs.csv: column kind is missing"),
    ],
)
def test_importer_says_what_is_wrong(tmp_path, capsys, change, words):
    with pytest.raises(SystemExit) as caught:
        import_published.main(published(tmp_path / "in", **change))
    assert caught.value.code == 1 and words in capsys.readouterr().err
    assert not (tmp_path / "in" / "out").exists()


@pytest.mark.skipif(
    not (SHARED / "reference").is_dir(), reason="the published figures are not next to this copy"
)
def test_the_shipped_runs_are_what_the_importer_writes(tmp_path):
    items = SHARED / "data" / "pricer_test.parquet"
    import_published.main([str(SHARED / "reference"), "--items", str(items), "--out", str(tmp_path)])
    shipped, fresh = runs.load_runs()["benchmark"], runs.load_runs(tmp_path)["benchmark"]
    shown = ["index", "category", "price_usd"]  # labels are train.items' part
    assert runs.load_items()[shown].equals(runs.load_items(tmp_path)[shown])
    for name, run in fresh.items():
        assert shipped[name].info == run.info and shipped[name].table.equals(run.table)
