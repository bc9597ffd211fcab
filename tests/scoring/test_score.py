"""`python -m pricer.score` on a tiny random Llama: tables of any length in, the same with prices out."""

import csv
import json
import os
import tracemalloc
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from pricer.errors import InputError
from pricer.prompt import frame
from pricer.scoring import engine as score
from pricer.scoring.store import Store
from pricer.settings import PASSES
from pricer.tables import arrow, lines
from pricer.tables import stream as table_stream
from pricer.tables.stream import TextReader, open_source
from pricer.tables.writing import harmless
from tests.scoring.commands import rejected, run, sentence, words

ROOT = Path(__file__).parents[2]
ADDED = ["tuned_usd", "low_usd", "high_usd", "unpriced_mass", "text_cut"]

pytestmark = pytest.mark.usefixtures("tiny")

# What comes out -------------------------------------------------------------------------------------------


def test_both_passes_of_a_csv(goods, tmp_path, capsys, tiny_predictor):
    run(goods, tmp_path / "out.csv", "--passes", "tuned", "base", "--rule", "median")
    got, given_ = pd.read_csv(tmp_path / "out.csv"), pd.read_csv(goods)
    assert list(got) == ["id", "text", "note", "base_usd", *ADDED]
    pd.testing.assert_frame_equal(got[["id", "text", "note"]], given_)
    prompts = [tiny_predictor.prepare(text) for text in given_["text"]]
    for which in PASSES:
        direct = [p.to_dict("median") for p in tiny_predictor.predict(prompts, which)]
        assert got[f"{which}_usd"].tolist() == pytest.approx([d["price_usd"] for d in direct], abs=1.01)
    assert got["low_usd"].tolist() == pytest.approx([d["low_usd"] for d in direct], abs=1)
    assert got["unpriced_mass"].tolist() == pytest.approx([d["unpriced_mass"] for d in direct], abs=1e-3)
    assert got["text_cut"].tolist() == [prompt.truncated for prompt in prompts]
    assert 0 < sum(got["text_cut"]) < 20
    assert "20 rows" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path)) == ["in.csv", "out.csv"]


def test_the_base_alone_has_its_own_interval_and_the_adapter_gives_the_rule(
    goods, tmp_path, monkeypatch, calibrated_adapter, calibrated_predictor
):
    monkeypatch.setenv("PRICER_ADAPTER", str(calibrated_adapter))
    monkeypatch.setattr(score, "load_predictor", lambda settings: calibrated_predictor)
    tables = {}
    for which in PASSES:
        run(goods, tmp_path / f"{which}.csv", "--passes", which)
        tables[which] = pd.read_csv(tmp_path / f"{which}.csv")
        prompts = [calibrated_predictor.prepare(text) for text in words(20)]
        direct = [p.to_dict("median") for p in calibrated_predictor.predict(prompts, which)]
        assert tables[which]["high_usd"].tolist() == pytest.approx([d["high_usd"] for d in direct], abs=1)
        assert tables[which][f"{which}_usd"].tolist() == pytest.approx(
            [d["price_usd"] for d in direct], abs=1.01
        )
    assert "tuned_usd" not in tables["base"] and "base_usd" not in tables["tuned"]


def test_parquet_keeps_types_and_jsonl_gets_them(tmp_path):
    texts = words(12)
    table = pa.table(
        {
            "prompt": [frame(text) + "129.00" for text in texts],
            "day": pa.array([1] * 12, pa.timestamp("us", "UTC")),
            "tags": [["a", "b"], None] * 6,
            "kind": pa.array(["x", "y"] * 6).dictionary_encode(),
            "n": pa.array([None, *range(11)], pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    got = pq.read_table(tmp_path / "out.parquet")
    assert got.column_names == [*table.column_names, *ADDED]
    assert got.select(table.column_names).to_pylist() == table.to_pylist()
    for name in ("day", "tags", "n"):
        assert got.schema.field(name).type == table.schema.field(name).type

    objects = [
        {"text": text, "n": i, "x": 0.5 if i else None, "any": [1] if i else "é\ud800"}
        for i, text in enumerate(texts)
    ]
    objects[5]["late"] = True
    (tmp_path / "in.jsonl").write_text("\n\n".join(map(json.dumps, objects)))
    run(tmp_path / "in.jsonl", tmp_path / "lines.parquet")
    lines_got = pq.read_table(tmp_path / "lines.parquet")
    assert [str(t) for t in lines_got.schema.types[:5]] == ["string", "int64", "double", "string", "bool"]
    assert lines_got["any"].to_pylist()[:2] == ["é\\ud800", "[1]"]
    assert lines_got["late"].to_pylist() == [None] * 5 + [True] + [None] * 6
    # The frame and the price behind it are no part of the text.
    assert lines_got["tuned_usd"].to_pylist() == got["tuned_usd"].to_pylist()

    run(tmp_path / "in.parquet", tmp_path / "out.csv")
    row = next(csv.DictReader((tmp_path / "out.csv").open()))
    assert (row["tags"], row["n"], row["kind"]) == ('["a", "b"]', "", "x")


def test_formulas_are_made_harmless_in_csv_and_only_there(tmp_path):
    cells = ["=HYPERLINK(1)", "+1+1", "-5", "@SUM(A1)", " =1", "- drill", "-$3.20", "a=b"]
    pd.DataFrame({"text": words(8), "=cell": cells}).to_csv(tmp_path / "in.csv", index=False)
    for kind in ("csv", "parquet"):
        run(tmp_path / "in.csv", tmp_path / f"out.{kind}")
    got = pd.read_csv(tmp_path / "out.csv", dtype=str)
    assert got["'=cell"].tolist() == [
        "'=HYPERLINK(1)",
        "'+1+1",
        "-5",
        "'@SUM(A1)",
        "' =1",
        "'- drill",
        "-$3.20",
        "a=b",
    ]
    assert pd.read_parquet(tmp_path / "out.parquet")["=cell"].tolist() == cells


@given(st.text())
def test_a_harmless_cell_begins_no_formula_unless_it_is_a_number(cell):
    got = harmless(cell)
    if got.lstrip()[:1] in ("=", "@", "+", "-") and got.strip():
        assert not set(got) & set("=@(!'|ABC") and got == cell
    assert got.removeprefix("'") == "\n".join(cell.replace("\r\n", "\n").split("\r")).removeprefix("'")


# Which text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "asked", "text"),
    [
        ({"text": "a", "title": "b"}, None, "a"),
        ({"Prompt": "a", "text": "b"}, None, "a"),
        ({" Title ": "a", "DESCRIPTION": "b"}, None, "a\nb"),
        ({"title": "a", "description": ""}, None, "a"),
        ({"title": "a"}, None, "a"),
        ({"name": "a", "text": "b"}, "name", "a"),
        ({"name": "a", "text": "b"}, "NAME", "a"),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_finds_the_text(tmp_path, columns, asked, text, delimiter):
    path = tmp_path / "in.csv"
    pd.DataFrame([columns]).to_csv(path, index=False, sep=delimiter, encoding="utf-8-sig")
    (part,) = open_source(path, text_column=asked, max_chars=100).parts()
    assert part.texts == [text]


def test_description_as_a_list_of_lines(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps({"title": "a", "description": ["b", "c"]}))
    (part,) = open_source(tmp_path / "in.jsonl", max_chars=100).parts()
    assert part.texts == ["a\nb\nc"]


# Bad rows -------------------------------------------------------------------------------------------------


def test_bad_rows_of_a_csv_are_reported_and_left_out(tmp_path, capsys):
    out, path = tmp_path / "out.csv", tmp_path / "in.csv"
    path.write_bytes(
        b"id,text\n"
        b"1,red lamp\n"
        b"2,\n"
        b"3\n"
        b"\n"
        b"5,a,b\n"
        b"6,caf\xe9\n"
        b'7,"two\nlines"\n'
        b'8,"quote" out of place\n'
        b"9," + b"x" * 1_000_001 + b"\n"
        b"10,\xe2\x80\x8b \x00\n"
        b"11,<b>blue</b> lamp\n"
        b'12,"never closed'
    )
    run(path, out)
    assert [row for row, _ in rejected(out)] == [2, 3, 5, 6, 8, 9, 10, 12]
    reasons = dict(rejected(out))
    assert reasons[2] == "no text"
    assert reasons[10] == "not text: it holds a zero byte"
    assert reasons[8] == "a quotation mark out of place (line 10)"
    assert reasons[12] == "a quotation mark that is never closed (line 14)"
    assert reasons[3] == "1 cells where the header has 2"
    assert reasons[6] == "not UTF-8 text"
    assert "1,000,001 characters" in reasons[9]
    assert pd.read_csv(out)["id"].tolist() == [1, 7, 11]
    assert pd.read_csv(out)["text"][1] == "two\nlines"
    told = capsys.readouterr().out
    assert "3 rows" in told and "8 rows" in told and "out.rejected.csv" in told


def test_bad_rows_of_jsonl_and_parquet(tmp_path):
    out = tmp_path / "out.csv"
    objects = [
        '{"text": "lamp"}',
        "",
        "{torn",
        "[1]",
        '{"text": 5}',
        '{"text": null}',
        '{"n": 1}',
        "[" * 100_000,
    ]
    objects += ['{"text": "\\ud800 lamp"}', '{"n": ' + "9" * 5000 + "}", '{"text": ["a", "b"]}']
    (tmp_path / "in.jsonl").write_text("\n".join(objects))
    run(tmp_path / "in.jsonl", out)
    assert [row for row, _ in rejected(out)] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert dict(rejected(out))[5].startswith("not text")
    assert pd.read_csv(out)["text"].tolist() == ["lamp", '["a", "b"]']

    pd.DataFrame({"title": ["lamp", None, " "], "n": [1, 2, 3]}).to_parquet(tmp_path / "in.parquet")
    run(tmp_path / "in.parquet", out, "--restart")
    assert rejected(out) == [[2, "no text"], [3, "no text"]]
    run(tmp_path / "in.parquet", out, "--restart", "--text-column", "n")
    assert [reason for _, reason in rejected(out)] == ["not text: n holds another kind of value"] * 3
    assert list(pd.read_csv(out)) == ["title", "n", *ADDED]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_line_of_any_length_is_refused_without_being_held(tmp_path, kind):
    path = tmp_path / f"in.{kind}"
    good = {"csv": b"lamp\n", "jsonl": b'{"text": "lamp"}\n'}[kind]
    with path.open("wb") as file:
        file.write((b"text\n" if kind == "csv" else b"") + good)
        file.seek(2**26, os.SEEK_CUR)  # a hole: 64 MB of zeros that need no disk
        file.write(b"\n" + good)
    tracemalloc.start()
    source = open_source(path, max_chars=100)
    (part,) = source.parts()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (part.texts, part.rows, part.rejected) == (["lamp"] * 2, [1, 3], [(2, "longer than 16 MB")])
    assert peak < 3 * lines.ROW_BYTES


def test_a_row_of_many_lines_cannot_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "ROW_BYTES", 1_000)
    (tmp_path / "in.csv").write_text("text,n\n" + '"' + "a\n" * 600 + "lamp,1\n")
    parts = list(open_source(tmp_path / "in.csv", max_chars=100).parts())
    assert parts[0].rejected[0][1].startswith("longer than 16 MB (lines 2 to ") or parts[0].rejected[0][
        1
    ].startswith("longer")
    assert parts[-1].texts[-1:] == ["lamp"]


def test_parquet_that_unpacks_to_a_giant_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "ROW_BYTES", 1_000)
    pq.write_table(pa.table({"text": ["x" * 100_000]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="unpacks to"):
        open_source(tmp_path / "in.parquet", max_chars=100)
    with monkeypatch.context() as patch:
        patch.setattr(arrow, "BOMB_BYTES", 50_000)
        bomb = pa.table({"text": ["x" * 100_000, *["lamp"] * 200]})
        pq.write_table(bomb, tmp_path / "in.parquet", compression="zstd", use_dictionary=False)
        with pytest.raises(InputError, match="unpacks to"):
            open_source(tmp_path / "in.parquet", max_chars=100)
    pq.write_table(pa.table({"text": ["x" * 5_000, *map(str, range(200))]}), tmp_path / "in.parquet")
    parts = list(open_source(tmp_path / "in.parquet", max_chars=10_000).parts())
    assert parts[0].rejected == [(1, "longer than 16 MB")] and sum(len(p.rows) for p in parts) == 200


def test_damaged_parquet_gives_the_rows_around_the_damage(tmp_path):
    path, table = tmp_path / "in.parquet", pa.table({"text": words(300)})
    pq.write_table(table, path, row_group_size=100, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    parts = list(open_source(path, max_chars=1000).parts())
    texts = [text.strip() for text in table["text"].to_pylist()]
    assert [text for part in parts for text in part.texts] == texts[:100] + texts[200:]
    assert [bad for part in parts for bad in part.rejected] == [(101, "rows 101 to 200 are damaged")]
    assert [row for part in parts for row in part.rows][99:101] == [100, 201]


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(table_stream, "PART_ROWS", 64)
    path = tmp_path / "in.csv"
    with path.open("w") as file:
        file.write("text,n\n")
        for i in range(20_000):
            file.write(f"{'lamp ' * 200}{i},{i}\n")  # 20 MB altogether
    tracemalloc.start()
    rows = sum(len(part.rows) for part in open_source(path, max_chars=10_000).parts())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 20_000
    assert peak < 4e6


@given(st.lists(st.tuples(st.text(), st.text()), max_size=20))
def test_every_row_of_a_csv_ends_in_one_place(tmp_path_factory, rows):
    rows = [[cell.replace("\0", "") for cell in row] for row in rows if any(map(str.strip, row))]
    path = tmp_path_factory.mktemp("any") / "in.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "n"], *rows])
    source = open_source(path, max_chars=50)
    parts = list(source.parts())
    assert source.rows == len(rows)
    found = {}
    for part in parts:
        found |= dict(zip(part.rows, part.table.to_pylist(), strict=True))
        found |= {row: None for row, _ in part.rejected}
    assert sorted(found) == list(range(1, len(rows) + 1))
    for row, values in found.items():
        assert values is None or list(values.values()) == rows[row - 1]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@given(data=st.binary(max_size=200), head=st.sampled_from([b"", b"text,n\n", b'{"text": "a"}\n', b"PAR1"]))
def test_any_bytes_are_read_or_refused_with_a_sentence(tmp_path_factory, kind, data, head):
    path = tmp_path_factory.mktemp("any") / f"in.{kind}"
    path.write_bytes(head + data)
    try:
        source = open_source(path, max_chars=50)
    except InputError as error:
        assert "\n" not in str(error).strip()
    else:
        assert sum(len(part.rows) + len(part.rejected) for part in source.parts()) == source.rows


# Refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "arguments", "expected"),
    [
        ("in.csv", "name\nlamp\n", [], "--text-column"),
        ("in.csv", "text\nlamp\n", ["--text-column", "name"], "no column name"),
        ("in.csv", "", [], "file is empty"),
        ("in.csv", b"t\xe9xt\nlamp\n", [], "UTF-8"),
        ("in.csv", "text,low_usd\nlamp,1\n", [], "low_usd"),
        ("in.jsonl", "lamp\n[1]\n", [], "JSON object"),
        ("in.jsonl", "\n".join(json.dumps({f"c{i}": 1}) for i in range(1001)), [], "1,000 columns"),
        ("in.parquet", "PAR1 or not", [], "parquet"),
        ("in.xlsx", "", [], "in.xlsx"),
        ("in.csv", "text\nlamp\n", ["--workers", "2"], "--workers"),
    ],
)
def test_unusable_files_are_one_sentence(tmp_path, capsys, name, content, arguments, expected):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    run(path, tmp_path / "out.csv", *arguments, code=2)
    assert expected in sentence(capsys)
    assert os.listdir(tmp_path) == [name]


def test_paths_that_cannot_be(goods, tmp_path, capsys):
    aside = goods.rename(tmp_path / "out.rejected.csv")
    for source, out in (
        (aside, aside),
        (aside, tmp_path / "out.csv"),
        (aside, tmp_path / "out.json"),
        (aside, tmp_path),
    ):
        run(source, out, code=2)
        assert sentence(capsys)
    run(tmp_path / "none.csv", tmp_path / "out.csv", code=2)
    assert "There is no file" in sentence(capsys)
    assert os.listdir(tmp_path) == ["out.rejected.csv"]


def test_an_output_that_is_there_stays_without_restart(goods, tmp_path, capsys, scored):
    out = tmp_path / "out.csv"
    out.write_text("mine")
    run(goods, out, code=2)
    assert "--restart" in sentence(capsys)
    assert out.read_text() == "mine" and not scored
    run(goods, out, "--restart")
    assert len(pd.read_csv(out)) == 20
    run(goods, out, code=2)  # finished: it is not scored twice
    assert max(scored.values()) == 1


def test_two_at_once_on_one_output(goods, tmp_path, capsys):
    out = tmp_path / "out.csv"
    folder = Store(out).folder
    folder.mkdir()
    with FileLock(folder / "lock"):
        run(goods, out, code=2)
    assert "Another process" in sentence(capsys)
    run(goods, out)


# For --engine ray ----------------------------------------------------------------------------------------


def test_the_texts_for_another_process_are_those_of_the_parts_left(goods):
    source = open_source(goods, max_chars=1000)
    rows = [table.to_pylist() for table in TextReader(source, frozenset({1}))(None)]
    texts = [text.strip() for text in words(20)]
    assert rows == [[{"texts": texts[:8]}], [{"texts": texts[16:]}]]
