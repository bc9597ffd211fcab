"""One table written in every way: whoever reads it gets the same rows, numbers and reasons; and anything at all ends in
rows or in one sentence."""

import csv
import gzip
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.arena.runs import load_item_texts
from pricer.arena.upload import read_products, read_upload
from pricer.errors import InputError
from pricer.tables.reading import open_table
from pricer.tables.stream import open_source
from train.data import load_items, load_rows
from train.listings import Tally, clean_rows
from train.sources import find_source

WORDS = st.text(st.sampled_from("abcÄß世🧑 0123456789,;|\t\"'\n.=-$"), min_size=1, max_size=30)
TEXTS = WORDS.map(lambda words: f"Lamp {words.strip()}".strip())
TABLES = st.lists(st.tuples(TEXTS, st.integers(50, 99_949)), min_size=1, max_size=6)
PRICES = {  # ways to write cents, each of which its column alone makes clear
    "12.50": lambda cents: f"{cents / 100:.2f}",
    "$1,250.00": lambda cents: f"${cents / 100:,.2f}",
    "12,50": lambda cents: f"{cents / 100:.2f}".replace(".", ","),
    "12.50 USD": lambda cents: f"{cents / 100:.2f} USD",
}


def as_csv(rows, delimiter, quoting, newline, prices, named):
    written = [f"sep={delimiter}"] if named else []
    for row in [("text", "price"), *((text, PRICES[prices](cents)) for text, cents in rows)]:
        # Told that lines end with CR alone, Python's writer would not quote an LF within a cell.
        writer = csv.writer(
            line := io.StringIO(), delimiter=delimiter, quoting=quoting, lineterminator="\r\n"
        )
        writer.writerow(row)
        written.append(line.getvalue().removesuffix("\r\n"))
    return newline.join([*written, ""])


def with_usd(record, amounts):
    return {**record, "usd": amounts.read(record["price_usd"])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ways")


@given(data=st.data(), rows=TABLES)
@settings(max_examples=70)
def test_all_callers_read_the_same_rows(folder, data, rows):
    kind = data.draw(st.sampled_from(["csv", "csv", "tsv", "jsonl", "parquet"]))
    if kind in ("csv", "tsv"):
        delimiter = "\t" if kind == "tsv" else data.draw(st.sampled_from(",;\t|"))
        ways = [st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), st.sampled_from(["\n", "\r\n", "\r"])]
        quoting, newline = data.draw(st.tuples(*ways))
        prices, named = data.draw(st.sampled_from(list(PRICES))), data.draw(st.booleans())
        content = as_csv(rows, delimiter, quoting, newline, prices, named)
        content = content.encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    else:
        table = [{"text": text, "price": cents / 100} for text, cents in rows]
        if kind == "jsonl":
            lines = (json.dumps(row, ensure_ascii=data.draw(st.booleans())) for row in table)
            content = "\n".join(lines).encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
        else:
            pq.write_table(pa.Table.from_pylist(table), buffer := io.BytesIO())
            content = buffer.getvalue()
    packed = data.draw(st.booleans())
    path = folder / f"table.{kind}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content, 1) if packed else content)

    texts, usd = [text for text, _ in rows], [cents / 100 for _, cents in rows]
    (part,) = open_source(path, max_chars=99).parts()
    assert (part.texts, part.rejected) == (texts, [])
    for read in (load_rows, load_items):
        assert read(path)["text"].tolist() == texts and read(path)["price"].tolist() == usd
    products = read_products(path).table
    assert products["text"].tolist() == texts and products["price_usd"].tolist() == usd
    assert load_item_texts(path).tolist() == texts
    source, tally = find_source(str(path)), Tally()
    raw = list(clean_rows(source, tally, with_usd, needed=("text", "price_usd")))
    assert [(row["text"].replace("\r\n", "\n"), row["usd"]) for row in raw] == list(
        zip(texts, usd, strict=True)
    )


BROKEN = [
    "a,b,c",
    "one",
    '"never closed',
    '5" wide,3',
    '"5" wide,3',
    "caf\udce9,5",
    "nul\0,5",
    ",",
    "",
    "Lamp,1",
    "Saw,2",
]


@given(lines=st.lists(st.sampled_from(BROKEN), max_size=8), newline=st.sampled_from(["\n", "\r\n", "\r"]))
@settings(max_examples=100)
def test_all_callers_refuse_the_same_rows_for_the_same_reasons(folder, lines, newline):
    path = folder / "broken.csv"
    path.write_bytes(newline.join(["text,price", *lines]).encode("utf-8", "surrogateescape"))
    rows = list(open_table(path).rows())
    bad = [row for row in rows if row.reason]
    good = [row for row in rows if not row.reason]
    source = open_source(path, max_chars=99)
    parts = list(source.parts())
    texts = [text for part in parts for text in part.texts]
    rejected = [pair for part in parts for pair in part.rejected if pair[1] != "no text"]
    assert rejected == [(row.number, row.full_reason) for row in bad]
    assert texts == [row.cells["text"] for row in good if row.cells["text"].strip()]
    tally = Tally()
    list(clean_rows(find_source(str(path)), tally, lambda record, amounts: record))
    assert tally.read == len(rows) and sum(tally.reasons.values()) == len(bad)
    taken = [line for row in rows for line in range(row.lines[0], row.lines[1] + 1)]
    assert taken == sorted(set(taken))  # no line belongs to two rows
    if bad:
        with pytest.raises(InputError, match="row "):
            load_rows(path)


HEADERS = st.lists(
    st.sampled_from(["text", "price", "Guess ($)", "index", "title", "Prompt", "x", "", '"', "a;b"]),
    max_size=4,
)
CELLS = st.sampled_from(
    ["1", "1.299", "12,50", "Lamp", "", '"', "\0", "é", "\x85", "\u2028", "🧑", "NaN", "=1", "\ufeff", "-5"]
)


@given(
    header=HEADERS,
    rows=st.lists(st.lists(CELLS, max_size=4), max_size=4),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-16-le", "cp1252", "utf-32"]),
    ending=st.sampled_from([".csv", ".tsv", ".csv.gz", ".jsonl", ".parquet", ".parquet.gz"]),
    cut=st.sampled_from([1.0, 1.0, 0.6]),
)
@settings(max_examples=200)
def test_anything_is_read_or_refused_in_one_sentence(folder, header, rows, delimiter, encoding, ending, cut):
    content = "\n".join(delimiter.join(row) for row in (header, *rows)).encode(encoding, "replace")
    content = gzip.compress(content, 1) if ending.endswith(".gz") else content
    path = folder / f"any{ending}"
    path.write_bytes(content[: int(len(content) * cut)])
    for read in (
        lambda path: list(open_source(path, max_chars=99).parts()),
        load_rows,
        load_items,
        read_products,
        lambda path: read_upload([path]),
        lambda path: list(clean_rows(find_source(str(path)), Tally(), lambda record, amounts: record)),
    ):
        try:
            read(path)
        except InputError as error:
            assert str(error) and "\n" not in str(error) and len(str(error)) < 700


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("text;price\nDrill, big;12\n", ["Drill, big"]),
        ("text|price\nDrill, big; blue|12\n", ["Drill, big; blue"]),
        ('sep=|\ntext|price\n"Drill|Saw"|1\n', ["Drill|Saw"]),
        ('"sep=;"\n\ntext;price\nDrill;1\n', ["Drill"]),
        ("\n\n\ntext,price\n\n,,\n\nDrill,1\n".replace(",,", ","), ["Drill"]),
        ("text\nDrill\nSaw\n", ["Drill", "Saw"]),
        ("id,name; long,text\n1,a,Drill\n", ["Drill"]),
        ('"te""xt",text\na,Drill\n', ["Drill"]),
        ("price,text\r1,Drill\r2,Saw", ["Drill", "Saw"]),
    ],
)
def test_what_separates_the_cells_is_found(folder, content, texts):
    path = folder / "found.csv"
    path.write_bytes(content.encode())
    assert [text for part in open_source(path, max_chars=99).parts() for text in part.texts] == texts


def test_outside_quotation_marks_a_line_ends_at_any_of_its_ends(folder):
    """Also at an LF where all others are CR: what it cuts off is refused, and the rest is a row of its own."""
    path = folder / "mixed.tsv"
    path.write_bytes(b'text\tprice\rLamp -\n.\t12.50\r"Saw\nbig"\t3\r')
    (part,) = open_source(path, max_chars=99).parts()
    assert part.texts == [".", "Saw\nbig"] and part.rejected == [(1, "1 cells where the header has 2")]
    with pytest.raises(InputError, match="row 1: 1 cells where the header has 2"):
        load_rows(path)


def test_the_ending_tells_where_nothing_else_does(folder):
    (folder / "one.tsv").write_text("text\nDrill, big\n")
    assert [part.texts for part in open_source(folder / "one.tsv", max_chars=99).parts()] == [["Drill, big"]]


def test_rows_say_their_line_where_it_is_another(folder):
    path = folder / "lines.csv"
    path.write_text('text,price\n"two\nlines",1\nLamp,x\n')
    with pytest.raises(InputError, match=r"row 2 \(line 4\), column price: “x” is no price"):
        load_rows(path)
    assert pd.DataFrame([(row.number, *row.lines) for row in open_table(path).rows()]).values.tolist() == [
        [1, 2, 3],
        [2, 4, 4],
    ]
