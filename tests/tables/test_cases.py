"""Inputs of the kinds on which tables went wrong, through every command that reads one: each ends right or in a sentence."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pricer.arena.upload import read_products, read_upload
from pricer.errors import InputError
from pricer.tables.stream import open_source
from pricer.tables.writing import write_table
from train.data import load_items, load_rows
from train.listings import Tally, clean_rows, listing_row
from train.sources import find_source

PROMPT = "How much does this cost to the nearest dollar?\n\n{}\n\nPrice is ${}"


@pytest.fixture
def put(tmp_path):
    def put(content, name="in.csv"):
        path = tmp_path / name
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        elif isinstance(content, list):
            path.write_text("".join(json.dumps(line) + "\n" for line in content), encoding="utf-8")
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


def prepared(path, **options):
    """(rows, reasons) that train.prepare makes of a file."""
    source, tally = find_source(str(path)), Tally()
    to_row = partial(listing_row, source=source, min_chars=3)
    return list(clean_rows(source, tally, to_row, needed=("text", "price_usd"), **options)), tally


def scored(path, **options):
    """(texts, rejected) as scoring has them."""
    parts = list(open_source(path, max_chars=1_000, **options).parts())
    return [text for part in parts for text in part.texts], [bad for part in parts for bad in part.rejected]


def raw_strings(cells):
    ends = np.cumsum([0] + [len(cell) for cell in cells]).astype(np.int32)
    buffers = [None, pa.py_buffer(ends.tobytes()), pa.py_buffer(b"".join(cells))]
    return pa.Array.from_buffers(pa.string(), len(cells), buffers)


# Rows that are not as long as the header ------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "text,price\nDrill, blue,12\nSaw, red,13\n",
        "title,description,price\nDrill,Big, strong,12\nSaw,Long, thin,13\n",
        "text;price\nDrill; blue;12\nSaw; red;13\n",
        "text\tprice\nDrill\n",
        "text|price\nDrill|12|\n",
    ],
)
def test_a_row_of_another_length_is_never_shifted(put, content):
    path = put(content)
    for read in (load_rows, load_items, read_products):
        with pytest.raises(InputError, match=r"in.csv: row 1: \d cells where the header has \d"):
            read(path)
    for found, reasons in ((prepared(path)[0], prepared(path)[1].reasons), scored(path)):
        assert not found and len(reasons) >= 1


def test_a_number_in_front_of_zeros_stays_a_text(put):
    path = put("title,price\n00701,12\n007,13\n")
    assert load_items(path)["text"].tolist() == scored(path)[0] == ["00701", "007"]


# Prompts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", ["5.00.", "5.00</s>", "5.00 USD", "5.00\n\nDone", " 5,00", "5 dollars."])
def test_no_answer_is_left_in_a_text(put, behind):
    path = put([{"prompt": PROMPT.format("Saw big", behind), "price": 5}], "in.jsonl")
    assert [row["text"] for row in prepared(path)[0]] == ["Saw big"]
    assert scored(path)[0] == load_rows(path)["text"].tolist() == ["Saw big"]


@pytest.mark.parametrize(
    "tail", ["price is $5.00", "Price is  $5", "Price is: $5.00", "Price is US$5", "Price is\n$5.00"]
)
def test_no_answer_is_left_behind_another_tail(put, tail):
    path = put(
        [{"text": f"What is it worth?\n\nSaw big, its price is $9 in shops.\n\n{tail}", "price": 5}],
        "in.jsonl",
    )
    assert scored(path)[0] == load_rows(path)["text"].tolist() == ["Saw big, its price is $9 in shops."]


# Columns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "row", "text"),
    [
        ("name,description,price", "Red drill,With case,12", "Red drill\nWith case"),
        ("Product,Description,Price", "Red drill,With case,12", "Red drill\nWith case"),
        ("description,price", "A drill with case,12", "A drill with case"),
        ("name,title,description,price", "Acme,Red drill,With case,12", "Red drill\nWith case"),  # a maker's
        ("name,text,description,price", "Acme,Red drill,With case,12", "Red drill"),
        ("title,product,description,price", ",Red drill,With case,12", "Red drill\nWith case"),
    ],
)
def test_a_title_and_its_description_are_read_together(put, header, row, text):
    path = put(f"{header}\n{row}\n")
    assert scored(path)[0] == load_rows(path)["text"].tolist() == [text]
    assert [row["text"] for row in prepared(path)[0]] == [text]


def test_a_name_without_a_description_may_be_anything(put):
    with pytest.raises(InputError, match="column text is missing"):
        scored(put("name,price\nMia,12\n"))


def test_a_mapping_wins_over_every_guess(put):
    record = {
        "title": "Drill",
        "prompt": PROMPT.format("Long full text", "12.00"),
        "summary": "A short summary",
        "price": 12,
    }
    path = put([record | {"cost": 13}], "in.jsonl")
    rows, _ = prepared(path, columns={"text": "summary", "price": "cost"})
    assert [(row["text"], row["price"]) for row in rows] == [("A short summary", 13)]
    assert [row["text"] for row in prepared(path, columns={"title": "summary"})[0]] == ["A short summary"]
    assert load_rows(path, {"text": "summary"})["text"].tolist() == ["A short summary"]
    assert scored(path, text_column="summary")[0] == ["A short summary"]
    with pytest.raises(InputError, match="no column colour to be mapped"):
        prepared(path, columns={"colour": "summary"})


@pytest.mark.parametrize(
    "content",
    [
        "text,price,text\nDrill,12,Saw\n",
        "text,price,price\nDrill set,12,99\n",
        " text,text ,price\nDrill,Saw,3\n",
    ],
)
def test_a_column_that_stands_there_twice_is_refused(put, content):
    path = put(content)
    for read in (load_rows, read_products, prepared, scored):
        with pytest.raises(InputError, match="stands there twice"):
            read(path)


def test_a_name_twice_in_an_object_or_in_parquet_is_refused(put, tmp_path):
    path = put('{"text": "a lamp", "price": 1}\n{"text": "b", "text": "c", "price": 2}\n', "in.jsonl")
    assert scored(path) == (["a lamp"], [(2, "the name text stands there twice")])
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]),
        tmp_path / "t.parquet",
    )
    with pytest.raises(InputError, match="stands there twice"):
        open_source(tmp_path / "t.parquet", max_chars=9)


def test_what_is_nested_too_deep_to_be_gone_through_is_refused(put):
    deep = "[" * 900 + '"Drill"' + "]" * 900
    path = put(
        f'{{"text": {deep}, "price": 1}}\n{{"text": "Saw", "price": 2, "note": [[["a"]]]}}\n', "in.jsonl"
    )
    reason = "nested more than 50 deep"
    assert scored(path) == (["Saw"], [(1, reason)])
    assert prepared(path)[1].reasons == {reason: 1}
    with pytest.raises(InputError, match=f"row 1: {reason}"):
        load_rows(path)


# Quotation marks -------------------------------------------------------------------------------------------


def test_quotes_are_strict_and_what_stands_behind_is_read(put):
    path = put('text,price\nDrill set,1\n"Screen 5 inch,2\nSaw hand,3\nTape 9" long,4\nLevel,5\n')
    reason = "a quotation mark out of place"
    assert scored(path) == (["Drill set", "Level"], [(2, f"{reason} (lines 3 to 5)")])
    rows, tally = prepared(path)
    assert [(row["text"], row["price"]) for row in rows] == [("Drill set", 1), ("Level", 5)]
    assert tally.places == {reason: ["in.csv lines 3 to 5"]}
    with pytest.raises(InputError, match=r"row 2 \(lines 3 to 5\): a quotation mark out of place"):
        load_rows(path)


def test_a_quote_that_is_never_closed_names_the_lines_it_took(put):
    path = put('text,price\nDrill set,1\n"Screen 5 inch,2\nSaw hand,3\nTape 9 long,4\nLevel,5\n')
    reason = "a quotation mark that is never closed"
    assert scored(path) == (["Drill set"], [(2, f"{reason} (lines 3 to 6)")])
    assert prepared(path)[1].places == {reason: ["in.csv lines 3 to 6"]}


# Encodings -------------------------------------------------------------------------------------------------


def test_what_is_no_utf8_is_said_and_nothing_is_replaced(put):
    path = put(b"text,price\nCaf\xe9 espresso machine,12\nLamp,5\n")
    assert prepared(path)[1].reasons == {"not UTF-8 text": 1}
    assert scored(path) == (["Lamp"], [(1, "not UTF-8 text")])
    with pytest.raises(InputError, match="row 1: not UTF-8 text"):
        load_rows(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_zero_bytes_are_refused(put, encoding):
    path = put("text,price\nLamp \u4e16,1\n".encode(encoding))
    for read in (load_rows, read_products, prepared, scored):
        with pytest.raises(InputError, match="UTF-8"):
            read(path)
    assert scored(put(b"text,price\nLa\0mp,1\nSaw,2\n")) == (["Saw"], [(1, "not text: it holds a zero byte")])


# Numbers ---------------------------------------------------------------------------------------------------


def test_a_thousand_is_not_a_dollar_thirty(put):
    upload = read_upload([put("text;price;guess\nDrill;1.299;1.299,00\nSaw;12,50;13,00\n")])
    assert upload.table["price_usd"].tolist() == [1299, 12.5]
    assert upload.table["guess_usd"].tolist() == [1299, 13]
    for cell in ("1.299", "12 15", "$5 - $9", "From $5", "N/A", "inf", "-5", "0"):
        for read in (read_products, load_items):
            with pytest.raises(InputError, match="row 1, column price"):
                read(put(f'text,price\nDrill,"{cell}"\n'))
        rows, tally = prepared(put(f'text,price\nDrill,"{cell}"\n'))
        assert not rows and sum(tally.reasons.values()) == 1


def test_bytes_are_prices_as_texts_are(put):
    path = put({"text": ["Drill", "Saw"], "price": [b"12,50", b"1.299"]}, "in.parquet")
    assert read_products(path).table["price_usd"].tolist() == [12.5, 1299]
    with pytest.raises(InputError, match="“many” is no price"):
        read_products(put({"text": ["Drill"], "price": [b"many"]}, "in.parquet"))


def test_two_numbers_in_a_cell_are_none(put):
    with pytest.raises(InputError, match="“12 15” is no price in dollars"):
        read_upload([put("text,price,guess\nDrill,12 15,5 99\n")])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("index,text,price\nA1,Drill,12\n", "row 1, column index: “A1” is no item number"),
        ("index,text,price\n1,Drill,12\n,Saw,13\n", "row 2, column index: an empty cell is no item number"),
        ("index,text,price\n1.5,Drill,12\n", "row 1, column index: “1.5” is no item number"),
        ("index,text,price\n-1,Drill,12\n", "row 1, column index: “-1” is no item number"),
        ("index,text,price\n99999999999999999999,Drill,12\n", "is no item number"),
        ("index,text,price\n1,Drill,12\n1,Saw,13\n", "row 2, column index: 1 stands there twice"),
        ("index,text,price\n1,Drill,12\n\n\n1,Saw,13\n", "row 4, column index: 1 stands there twice"),
        ("text,price\nDrill,12\nSaw,-5\n", "row 2, column price: “-5” is not between 0 and 1,000,000"),
        ("text,price\nDrill,inf\n", "row 1, column price: “inf” is no price in dollars"),
        ("text,price\nDrill,0\n", "row 1, column price: “0” is not above $0"),
        ("text,price,weight\nDrill,1,1\nSaw,2,\n", "row 2, column weight: an empty cell is no number"),
        ("text,price,weight\nDrill,1,-1\n", "row 1, column weight: “-1” is below 0"),
        (
            "text,price,target_like\nDrill,1,perhaps\n",
            "column target_like: “perhaps” is neither true nor false",
        ),
        ("text,price\n", "has no items"),
        (
            {"index": ["1", "2"], "text": ["Drill", "Saw"], "price": [1, 2]},
            "column index: “1” is no item number",
        ),
        (
            {"index": [1.0, None], "text": ["Drill", "Saw"], "price": [1, 2]},
            "row 2, column index: an empty cell",
        ),
    ],
)
def test_items_are_checked_before_anything_is_scored(put, content, complaint):
    with pytest.raises(InputError) as error:
        load_items(put(content, "in.parquet" if isinstance(content, dict) else "in.csv"))
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_flags_and_groups_of_a_csv_are_what_they_were(put):
    rows = load_rows(put("text,price,target_like,group,weight\nLamp,5,False,7,0.5\nSaw,6,True,8,1.125\n"))
    assert rows["target_like"].tolist() == [False, True] and rows["weight"].tolist() == [0.5, 1.125]
    assert rows["group"].nunique() == 2


def test_a_category_may_be_a_number_in_any_file(put):
    for path in (
        put("text,price,category\nLamp,5,7\n"),
        put([{"text": "Lamp", "price": 5, "category": 7}], "in.jsonl"),
    ):
        assert load_rows(path)["category"].tolist() == read_products(path).table["category"].tolist() == ["7"]


# Types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([9007199254740993, 1.5], ["9007199254740993", "1.5"]),
        ([1234567890123456789, float("nan")], ["1234567890123456789", "NaN"]),
        ([2**63, 1], ["9223372036854775808", "1"]),
        ([2**53, 1.5], [float(2**53), 1.5]),
        ([1234567890123456789, 1], [1234567890123456789, 1]),
    ],
)
def test_long_numbers_beside_fractions_are_kept_as_text(put, values, kept):
    path = put([{"text": "Drill", "id": value} for value in values], "in.jsonl")
    (part,) = open_source(path, max_chars=99).parts()
    assert part.table["id"].to_pylist() == kept


ODD = {
    "bytes that are no UTF-8": (raw_strings([b"Caf\xe9", b"ok"]), ["Caf\\xe9", "ok"]),
    "a dictionary of them": (raw_strings([b"Caf\xe9", b"ok"]).dictionary_encode(), ["Caf\\xe9", "ok"]),
    "a time out of range": (pa.array([1700000000000, 1], pa.timestamp("s")), ["1700000000000000", None]),
    "a date out of range": (pa.array([10**7, 1], pa.date32()), ["29349-01-26", "1970-01-02"]),
    "a date beyond words": (pa.array([11574074, 0], pa.date32()), ["11574074", "1970-01-01"]),
    "nanoseconds of a day": (pa.array([86_399_999_999_999, 1], pa.time64("ns")), ["23:59:59.999999999", "00:00:00.000000001"]),
    "a date in a record": (pa.array([{"on": 10**7}, {"on": 1}], pa.struct([("on", pa.date32())])), ['{"on": "29349-01-26"}', '{"on": "1970-01-02"}']),
    "an unknown zone in a record": (pa.array([{"at": 1}, None], pa.struct([("at", pa.timestamp("us", "Mars/Base"))])), ['{"at": "1970-01-01 00:00:00.000001 Mars/Base"}', ""]),
    "a time out of range in a zone": (pa.array([2**62, 1], pa.timestamp("us", "UTC")), ["17036-07-06 14:00:27.387904Z", None]),
    "an unknown zone": (pa.array([1, None], pa.timestamp("us", "Mars/Base")), ["1970-01-01 00:00:00.000001 Mars/Base", ""]),
    "binary": (pa.array([b"Caf\xe9", b"ok"]), ["Caf\\xe9", "ok"]),
    "a duration": (pa.array([2**62, 1], pa.duration("s")), [str(2**62), None]),
    "lists": (pa.array([["a", "b"], None]), ['["a", "b"]', ""]),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_types_are_passed_on_as_text(put, tmp_path, name):
    column, expected = ODD[name]
    path = put({"text": ["Drill set", "Saw"], "odd": column, "price": [12.0, 13.0]}, "in.parquet")
    source = open_source(path, max_chars=99)
    (part,) = source.parts()
    assert part.texts == ["Drill set", "Saw"]
    for ending in (".csv", ".parquet"):
        write_table(tmp_path / f"out{ending}", source.schema, [part.table], ending)
    written = pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False)["odd"]
    for found, wanted in zip(written, expected, strict=True):
        assert wanted is None or found == wanted
    assert len(pd.read_parquet(tmp_path / "out.parquet")) == 2
    assert [row["text"] for row in prepared(path)[0]] == ["Drill set", "Saw"]


def test_texts_of_odd_types(put):
    path = put({"text": raw_strings([b"Caf\xe9 cup", b"ok drill"]), "price": [12.0, 13.0]}, "in.parquet")
    assert scored(path) == (["ok drill"], [(1, "not UTF-8 text")])
    assert [row["text"] for row in prepared(path)[0]] == ["ok drill"]
    with pytest.raises(InputError, match="row 1, column text: not UTF-8 text"):
        load_rows(path)
    path = put({"title": ["Drill"], "description": [["Big", "strong"]], "price": [5.0]}, "in.parquet")
    assert load_items(path)["text"].tolist() == scored(path)[0] == ["Drill\nBig\nstrong"]
    path = put({"text": [["Drill", "x"]], "price": [5.0]}, "in.parquet")
    assert load_items(path)["text"].tolist() == scored(path)[0] == ["Drill\nx"]
    path = put({"title": [b"Drill set"], "price": [12.0]}, "in.parquet")
    assert load_items(path)["text"].tolist() == scored(path)[0] == ["Drill set"]
    assert prepared(path)[0][0]["text"] == "Drill set"
    path = put({"text": [5, 6], "price": [12.0, 13.0]}, "in.parquet")
    assert scored(path) == ([], [(row, "not text: text holds another kind of value") for row in (1, 2)])
    nested = {
        "text": ["Lamp", "Saw"],
        "tags": pa.ListArray.from_arrays([0, 1, 2], raw_strings([b"\xe9", b"ok"])),
    }
    assert scored(put(nested, "in.parquet")) == (["Saw"], [(1, "column tags: not UTF-8 text")])


def test_a_file_on_which_pyarrow_would_end_the_process_is_refused(put, tmp_path):
    """Asked for a column's description it aborts on a footer like these, and with it everybody's page."""
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"index": np.arange(6), "guess_usd": np.ones(6), "seconds": np.ones(6)}), path)
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(footer, len(data), 3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_upload([path])
        except InputError as error:
            assert "\n" not in str(error)
