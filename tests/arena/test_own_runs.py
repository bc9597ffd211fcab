"""A visitor's own runs: what their files may hold, what is said of files that cannot be used, and on which items."""

import codecs
import io
import json
import os
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pricer.arena.arena import Arena
from pricer.arena.export import view_csv
from pricer.arena.own_runs import OWN_CATEGORY, OWN_INDEX, OwnRuns, read_run
from pricer.arena.runs import Run, RunInfo, save_run
from pricer.arena.upload import read_products, read_upload
from pricer.arena.view import View
from pricer.errors import InputError
from pricer.settings import Limits
from pricer.tables.checks import COLUMNS
from pricer.tables.writing import csv_text

TIMES = int(os.environ.get("PRICER_FUZZ", "1"))

ITEMS = pd.DataFrame(
    {
        "index": np.arange(6),
        "category": ["Electronics", "Appliances"] * 3,
        "price_usd": [129.0, 45.5, 9.99, 300.0, 75.0, 12.0],
    }
)
TEXTS = pd.Series({i: f"Test item number {i}\nwith a second line" for i in range(6)})
SHIPPED = Run(
    RunInfo(name="shipped", label="Shipped", kind="tuned"),
    pd.DataFrame({"index": np.arange(6), "guess_usd": [100.0, 50, 20, 250, 75, 30]}),
)


@pytest.fixture
def put(tmp_path):
    """`put(words, name)` writes a file and returns its path; words may be text or bytes."""

    def put(words, name="my run.csv"):
        path = tmp_path / name
        path.write_bytes(words.encode() if isinstance(words, str) else words)
        return path

    return put


@pytest.fixture
def read(put):
    """`read(words)`: the only run that comes of the file."""

    def read(words, name="my run.csv", own=None, texts=None, **limits):
        own, run = read_run([put(words, name)], own or OwnRuns(), ITEMS, texts, Limits(**limits))
        return own.runs[run]

    return read


def guesses(run):
    return dict(zip(run.table["index"], run.table["guess_usd"], strict=True))


# What can be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        'index,guess\n3,"$1,299.00"\n1,45\n',
        "Index;Guess USD\n3;1299\n1;45\n",
        "item\tprediction\r\n3\t1299\r\n1\t45\r\n",
        '\n\n"index","Guess ($)","note"\n\n"3","1299,00","=1+1"\n,,\n"1"," 45 USD ",\n',
        ",guess_usd,index\n0,1.299e3,3.0\n1,45.,1\n",  # as pandas writes a table with its own index
        "Actual price|Guess|index\n$300|US$1299|3\n45.50|45|1\n",
        "index;guess\n3;1.299,00\n1;45,0",
    ],
)
def test_columns_and_amounts_as_people_write_them(read, words):
    assert guesses(read(words)) == {1: 45.0, 3: 1299.0}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(put, encoding):
    words = "text,price,guess\nKaffeemühle “Röst” 咖啡,49.90,55\n"
    own, name = read_run([put(words.encode(encoding))], OwnRuns(), ITEMS)
    assert list(own.texts.values()) == ["Kaffeemühle “Röst” 咖啡"]


def test_a_run_of_train_evaluate_keeps_what_it_says_of_itself(tmp_path):
    info = RunInfo(
        name="mine-tuned", label="Mine fine-tuned", kind="tuned", rule="median", published=True, origin="me"
    )
    table = pd.DataFrame(
        {
            "index": [0, 4],
            "guess_usd": [1.0, 2.0],
            "low_usd": [0.0, 1.0],
            "high_usd": [5.0, 6.0],
            "unparsed": [True, False],
        }
    )
    note = save_run(tmp_path, Run(info, table))
    own, name = read_run([note, note.with_suffix(".parquet")], OwnRuns(), ITEMS)
    run = own.runs[name]
    assert (run.info.label, run.info.kind, run.info.rule) == ("Mine fine-tuned", "tuned", "median")
    assert not run.info.published  # that mark is ours to give
    pd.testing.assert_frame_equal(run.table, table)
    alone, name = read_run([note.with_suffix(".parquet")], OwnRuns(), ITEMS)
    assert alone.runs[name].info.kind == "own"


def test_the_arena_compares_it_on_the_items_that_both_have(read):
    run = read("index,guess\n2,9.99\n0,129\n")
    arena = Arena({"shipped": SHIPPED}, ITEMS).with_runs({run.info.name: run})
    found = arena.head_to_head(View("shipped", run.info.name))
    assert (found.items, found.wins_b) == (2, 2)
    assert found.b["error_usd"].value == 0


# Own items -----------------------------------------------------------------------------------------------


def test_texts_at_hand_are_test_items_and_the_rest_are_the_visitors_own(read, put):
    words = csv_text(
        pd.DataFrame(
            {
                "text": ["Test item number 2 with a  second line", TEXTS[3], TEXTS[4], "Something else"],
                "price": [9.99, 300.0, 76.0, 20.0],  # item 4 costs 75: this is another offer
                "guess": [1.0, 2.0, 3.0, 4.0],
            }
        )
    )
    own, name = read_run([put(words)], OwnRuns(), ITEMS, TEXTS)
    assert guesses(own.runs[name]) == {2: 1.0, 3: 2.0, OWN_INDEX: 3.0, OWN_INDEX + 1: 4.0}
    assert own.texts == {OWN_INDEX: TEXTS[4], OWN_INDEX + 1: "Something else"}
    assert set(own.items["category"]) == {OWN_CATEGORY}
    without = guesses(read(words))  # no test item's text is at hand
    assert list(without) == [OWN_INDEX + i for i in range(4)]


def test_two_runs_on_the_same_products_meet_and_a_removed_one_takes_its_items_along(put):
    first = "text,price,guess\nDrill,89,80\nLamp,20,25\n"
    second = "text,price,guess,category\nLamp,20.00,21\nChair,150,100,Furniture\n".replace("21\n", "21,\n")
    own, a = read_run([put(first)], OwnRuns(), ITEMS)
    own, b = read_run([put(second)], own, ITEMS)
    assert a != b and own.runs[a].info.label != own.runs[b].info.label
    assert dict(zip(own.items["index"], own.items["category"], strict=True)) == {
        OWN_INDEX: OWN_CATEGORY,
        OWN_INDEX + 1: OWN_CATEGORY,
        OWN_INDEX + 2: "Furniture",
    }
    shipped = Arena({"shipped": SHIPPED}, ITEMS)
    arena = shipped.with_runs(own.runs, own.items)
    assert arena.head_to_head(View(a, b)).items == 1
    assert arena.head_to_head(View("shipped", b)) is None
    assert arena.item(OWN_INDEX + 1).price_usd == 20
    board = arena.leaderboard(View(a, a))
    assert [s.name for s in board.standings] == [a, b] or {s.name for s in board.standings} == {a, b}
    left = own.without(a)
    assert list(left.texts) == list(left.items["index"]) == [OWN_INDEX + 1, OWN_INDEX + 2]
    again, c = read_run([put(first)], left, ITEMS)
    assert guesses(again.runs[c]) == {OWN_INDEX + 1: 25.0, OWN_INDEX + 3: 80.0}  # no number is given twice
    assert not own.without(a).without(b)


def test_shipped_runs_say_the_same_with_own_items_beside_them(put):
    own, name = read_run([put("text,price,guess\nDrill,89,80\n")], OwnRuns(), ITEMS)
    other = Run(SHIPPED.info.model_copy(update={"name": "other"}), SHIPPED.table.assign(guess_usd=60.0))
    arena = Arena({"shipped": SHIPPED, "other": other}, ITEMS)
    view = View("shipped", "other")
    assert arena.with_runs(own.runs, own.items).head_to_head(view) == arena.head_to_head(view)


def test_a_full_session_says_so(put):
    own, _ = read_run([put("index,guess\n1,2\n")], OwnRuns(), ITEMS, limits=Limits(own_runs=1))
    with pytest.raises(InputError, match="remove one first"):
        read_run([put("index,guess\n1,2\n")], own, ITEMS, limits=Limits(own_runs=1))


# What cannot ---------------------------------------------------------------------------------------------

BAD = {
    "": "file is empty",
    "\n \n": "file is empty",
    "index,guess\n": "no rows",
    "index\n1\n": "column guess is missing",
    "guess\n1\n": "column text is missing",
    "1,2\n3,4\n": "column text is missing",
    "text,guess\nDrill,3\n": "column price is missing",
    "index,guess\n1,abc\n": "row 1, column guess: “abc” is no price in dollars",
    "index,Predicted price\n0,1\n1,\n": "row 2, column Predicted price: an empty cell is no price",
    "index,guess\n1,nan\n": "“nan” is no price",
    "index,guess\n1,-5\n": "row 1, column guess: “-5” is not between 0 and 1,000,000",
    "index,guess\n1,2e6\n": "row 1, column guess: “2e6” is not between",
    "index,guess\nx,5\n": "row 1, column index: “x” is no item number",
    "index,guess\n1.5,5\n": "row 1, column index: “1.5” is no item number",
    "index,guess\n-1,5\n": "row 1, column index: “-1” is no item number",
    "index,guess\n0,5\n6,5\n": "row 2, column index: there is no test item 6",
    "index,guess\n0,5\n1,5\n0,6\n": "row 3, column index: 0 stands there twice",
    "index,guess,price\n0,5,129\n1,5,300\n": "row 2, column price: test item 1 costs $45.50, so this is another one",
    "index,guess,prediction\n0,5,6\n": "columns guess and prediction mean the same",
    "index,guess\n0,5\n1,2,3\n": "row 2: 3 cells where the header has 2",
    "index,guess\n0\n": "row 1: 1 cells",
    'index,guess\n0,"5\n': "row 1: a quotation mark that is never closed",
    'index,guess\n0,"5"6\n': "row 1: a quotation mark out of place",
    "index,guess,low,high\n0,5,9,3\n": "row 1, column low is above high",
    "text,price,guess\n  ,5,6\n": "row 1, column text: no text",
    "text,price,guess\nDrill,0,6\n": "row 1, column price: “0” is not above $0",
    "text,price,guess\nDrill,5,6\nDrill ,5.00,7\n": "Row 2, column text stands there twice at this price",
    "index,guess\n0,5\n\0,7\n": "row 2: not text: it holds a zero byte",
    "index,guess\n" + "x" * 200_000 + ",7\n": "row 1, column index: “xxx",
    b"text,price,guess\nCaf\xe9,5,6\n": "row 1: not UTF-8 text",
    "index,guess\n1,2\n".encode("utf-16-le"): "no UTF-8 text",
    codecs.BOM_UTF16_LE + b"odd": "cannot be read",
}


@pytest.mark.parametrize("words", BAD, ids=lambda words: str(words)[:40].encode("ascii", "replace").decode())
def test_a_bad_file_ends_in_one_sentence(read, words):
    with pytest.raises(InputError) as error:
        read(words)
    assert BAD[words] in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_too_many_categories_rows_and_bytes(read):
    many = "".join(f"item {i},5,6,kind {i}\n" for i in range(50))
    with pytest.raises(InputError, match="more than 40 different"):
        read(f"text,price,guess,category\n{many}")
    with pytest.raises(InputError, match="more than 49 rows"):
        read(f"text,price,guess,category\n{many}", upload_rows=49)
    with pytest.raises(InputError, match=r"0\.0 MB: give at most 0\.001 MB"):
        read(f"text,price,guess,category\n{many}", upload_bytes=1_000)


def test_a_file_of_100_mb_is_refused_unread(tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    tracemalloc.start()
    with pytest.raises(InputError, match="100.0 MB: give at most 20 MB"):
        read_run([path], OwnRuns(), ITEMS)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_parquet_bombs_are_refused_unread(put):
    def parquet(table):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue()

    rows = 4_000_000  # 64 MB of numbers in a few kB
    bomb = parquet(
        pa.table({"index": pa.array(np.zeros(rows, np.int8)), "guess_usd": pa.array(np.zeros(rows, np.int8))})
    )
    assert len(bomb) < 1_000_000
    with pytest.raises(InputError, match="more than 100,000 rows"):
        read_upload([put(bomb, "a.parquet")])
    # One long text that a dictionary repeats: small by all that the file says.
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int32()), ["x" * 10_000_000])
    with pytest.raises(InputError, match="column index: “xxx"):
        read_upload([put(parquet(pa.table({"index": text, "guess_usd": np.ones(1_000)})), "b.parquet")])
    nested = pa.array([[1.0] * 9] * 9)
    with pytest.raises(InputError, match="column guess_usd: “"):
        read_upload([put(parquet(pa.table({"index": np.arange(9), "guess_usd": nested})), "c.parquet")])
    known = read_upload([put(parquet(pa.table({"index": [1], "guess_usd": [2.0], "x": ["y"]})), "d.parquet")])
    assert list(known.table) == ["index", "guess_usd"]
    with pytest.raises(InputError, match="damaged"):
        read_upload([put(b"PAR1 no, not really PAR1", "e.parquet")])


def test_which_files_go_together(put, tmp_path):
    csv, note = put("index,guess\n1,2\n"), put("{}", "run.json")
    for files in ([], [note], [csv, csv], [csv, note, note]):
        with pytest.raises(InputError, match="one CSV, JSONL or parquet file"):
            read_upload(files)
    for files, complaint in (
        ([csv, note], "name: Field required"),
        ([csv, put("[" * 50_000, "deep.json")], "deep.json"),
        ([csv, put(" " * 65_000, "long.json")], "0.1 MB"),
        ([put("index,guess\n1,2\n", "run.xlsx")], "cannot be read as a table"),
        ([tmp_path / "gone.csv"], "did not arrive"),
    ):
        with pytest.raises(InputError, match=complaint):
            read_upload(files)


# Names and words from outside ----------------------------------------------------------------------------


def test_names_are_harmless_and_each_is_used_once(read):
    own = OwnRuns()
    for name in (
        "..%2f..%2fetc.csv",
        "<img src=x onerror=alert(1)>.csv",
        "😀.csv",
        "items.csv",
        "Items.csv",
        "‮evil.csv",
    ):
        run = read("index,guess\n1,2\n", name, own)
        assert run.info.name not in own.runs
        assert RunInfo.model_validate(run.info.model_dump()) == run.info  # a name that a file could have
        assert "‮" not in run.info.label
        own = own.with_runs(run)
    assert list(own.runs) == [
        "own-2f-2fetc",
        "own-img-src-x-onerror-alert-1",
        "own-run",
        "own-items",
        "own-items-2",
        "own-evil",
    ]
    assert len({run.info.label for run in own.runs.values()}) == 6


def test_exported_cells_are_harmless_and_the_words_are_the_visitors_own(put):
    words = csv_text(pd.DataFrame({"text": ["Drill"], "price": [89.0], "guess": [80.0], "category": ["x"]}))
    words = words.replace("Drill", '"=HYPERLINK(""http://evil"")"').replace(",x\n", ",@SUM(A1)\n")
    own, name = read_run([put(words)], OwnRuns(), ITEMS)
    arena = Arena({"shipped": SHIPPED}, ITEMS).with_runs(own.runs, own.items)
    table = pd.read_csv(io.StringIO(view_csv(arena, View(name, name), own.texts)))
    assert table["text"].tolist() == ['\'=HYPERLINK("http://evil")']
    assert table["category"].tolist() == ["'@SUM(A1)"]
    assert (table["guess_usd_a"][0], table["error_usd_b"][0], table["run_a"][0]) == (80, 9, name)
    shipped = view_csv(arena, View("shipped", "shipped"), own.texts)
    assert "text" not in pd.read_csv(io.StringIO(shipped)).columns


def test_products_for_a_live_run(put):
    upload = read_products(put("Text,Price,Category,guess\nDrill,$89,Tools,1\nLamp,20,,2\n"))
    assert upload.table.to_dict("list") == {
        "text": ["Drill", "Lamp"],
        "price_usd": [89.0, 20.0],
        "category": ["Tools", ""],
    }
    with pytest.raises(InputError, match="column price is missing"):
        read_products(put("text\nDrill\n"))


# Anything at all -----------------------------------------------------------------------------------------


def a_run_or_one_sentence(paths):
    """The promise to every visitor, whatever the file."""
    try:
        own, name = read_run(paths, OwnRuns(), ITEMS, TEXTS, Limits(upload_rows=50))
    except InputError as error:
        words = str(error)
        assert words and "\n" not in words and len(words) < 600
        return
    run = own.runs[name]
    assert set(run.table) <= set(COLUMNS) and len(run.table) <= 50
    assert run.table["index"].is_unique and run.table["guess_usd"].between(0, 1e6).all()
    assert set(run.table["index"]) <= {*ITEMS["index"], *own.items["index"]}
    assert set(own.texts) == set(own.items["index"])


HEADS = [
    "index",
    "guess",
    "text",
    "price",
    "category",
    "low",
    "high",
    "",
    "Guess USD",
    "ｉndex",
    "note",
    '"guess"',
]
CELLS = ["0", "1", "5", "$1,299.00", "12,50", "", " ", "nan", "inf", "-1", "1e309", "9" * 40, "=1+1", "<b>x</b>",
         '"a,b"', '"', '"a""b"', "\u2028", "\x85", "\x00", "Drill", "‮", "\ufeff", TEXTS[2].replace("\n", " "), "9.99", "x" * 99]  # fmt: skip
CSV = st.builds(
    lambda rows, delimiter, end: end.join(delimiter.join(row) for row in rows),
    st.builds(
        lambda head, rows: [head, *rows],
        st.lists(st.sampled_from(HEADS), min_size=1, max_size=5),
        st.lists(st.lists(st.sampled_from(CELLS), min_size=1, max_size=5), max_size=6),
    ),
    st.sampled_from(",;\t| "),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
# Of the right shape, so that most reach the checks behind the reader.
SHAPED = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(CELLS) | st.floats(width=32).map(str)), max_size=4
).map(lambda rows: "index,guess\n" + "".join(f"{index},{cell}\n" for index, cell in rows))
TEXTED = st.lists(
    st.tuples(
        st.sampled_from(CELLS[:20] + ["Drill", "Lamp"]), st.floats(0.5, 99).map(str), st.sampled_from(CELLS)
    ),
    max_size=4,
).map(lambda rows: "text,price,guess\n" + "".join(f"{','.join(row)}\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@given(
    words=CSV | SHAPED | TEXTED,
    encoding=st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-be"]),
)
@settings(max_examples=500 * TIMES)
def test_any_table_is_a_run_or_one_sentence(folder, words, encoding):
    path = folder / "run.csv"
    path.write_bytes(words.encode(encoding))
    a_run_or_one_sentence([path])


@given(data=st.binary(max_size=200), ending=st.sampled_from(["csv", "tsv", "parquet"]))
@example(data=b"\xff\xfe\x00", ending="csv")
@settings(max_examples=300 * TIMES)
def test_any_bytes_are_a_run_or_one_sentence(folder, data, ending):
    path = folder / f"bytes.{ending}"
    path.write_bytes(data)
    a_run_or_one_sentence([path])


@pytest.fixture(scope="module")
def run_files(folder):
    info = RunInfo(name="mine", label="Mine", kind="tuned")
    note = save_run(folder / "real", Run(info, SHIPPED.table.assign(seconds=0.5)))
    return note.with_suffix(".parquet").read_bytes(), note.read_text()


@given(
    at=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    cut=st.floats(0.5, 1) | st.just(1.0),
)
@settings(max_examples=300 * TIMES)
def test_a_damaged_parquet_is_a_run_or_one_sentence(folder, run_files, at, cut):
    data = bytearray(run_files[0])
    for where, value in at:
        data[int(where * len(data))] = value
    path = folder / "damaged.parquet"
    path.write_bytes(bytes(data[: int(cut * len(data))]))
    a_run_or_one_sentence([path])


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)
)


@given(
    changes=st.dictionaries(st.sampled_from([*RunInfo.model_fields, "x"]), JSON, max_size=3),
    tail=st.sampled_from(["", "", "}"]),
)
@settings(max_examples=300 * TIMES)
def test_any_json_is_a_run_or_one_sentence(folder, run_files, changes, tail):
    table, note = folder / "noted.parquet", folder / "noted.json"
    table.write_bytes(run_files[0])
    note.write_text(json.dumps(json.loads(run_files[1]) | changes) + tail, encoding="utf-8")
    a_run_or_one_sentence([table, note])
