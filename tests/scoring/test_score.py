"""`python -m pricer.score` on a tiny random Llama: tables of any length in, the same with prices out."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from pricer.errors import InputError
from pricer.llama.predictor import Predictor
from pricer.prompt import frame
from pricer.scoring import engine as score
from pricer.scoring import store
from pricer.scoring.__main__ import main
from pricer.scoring.store import Journal, Store
from pricer.settings import PASSES, Limits, ModelRef, Settings
from pricer.tables import stream as table_stream
from pricer.tables.stream import TextReader, open_source
from pricer.tables.writing import harmless

ROOT = Path(__file__).parents[2]
ADDED = ["tuned_usd", "low_usd", "high_usd", "unpriced_mass", "text_cut"]
PART_ROWS = 8


@pytest.fixture(autouse=True)
def tiny(tiny_environment, tiny_predictor, monkeypatch):
    """Parts of eight rows, and the tiny pair without loading it again."""
    monkeypatch.setattr(score, "load_predictor", lambda settings: tiny_predictor)
    monkeypatch.setattr(table_stream, "PART_ROWS", PART_ROWS)


def words(n, seed=0):
    draw = random.Random(seed)
    return [
        f"Thing {draw.choice('abcdefgh')} {' '.join(draw.choices(['red', 'wood', 'steel', 'of'], k=draw.randrange(20)))}"
        for _ in range(n)
    ]


@pytest.fixture
def goods(tmp_path):
    """A CSV of 20 rows: an id, a text and a note."""
    path = tmp_path / "in.csv"
    pd.DataFrame({"id": range(20), "text": words(20), "note": "x"}).to_csv(path, index=False)
    return path


def run(*arguments, code=0):
    assert main([str(argument) for argument in arguments]) == code


def sentence(capsys):
    """What stands on standard error apart from the progress bar, which must be one line."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "scores/s" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def rejected(out):
    return pd.read_csv(out.with_name(f"{out.stem}.rejected.csv")).values.tolist()


@pytest.fixture
def scored(monkeypatch):
    """Counts (pass, prompt) of every forward pass whose result was taken."""
    count, batches = Counter(), Predictor.predict_batches

    def spy(self, prompts, which):
        for indices, answers in batches(self, prompts, which):
            yield indices, answers
            count.update((which, prompts[i].text) for i in indices)

    monkeypatch.setattr(Predictor, "predict_batches", spy)
    return count


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

    lines = [
        {"text": text, "n": i, "x": 0.5 if i else None, "any": [1] if i else "é\ud800"}
        for i, text in enumerate(texts)
    ]
    lines[5]["late"] = True
    (tmp_path / "in.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    run(tmp_path / "in.jsonl", tmp_path / "lines.parquet")
    lines_got = pq.read_table(tmp_path / "lines.parquet")
    assert [str(t) for t in lines_got.schema.types[:5]] == ["string", "int64", "double", "string", "bool"]
    assert lines_got["any"].to_pylist()[:2] == ["é?", "[1]"]
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
    assert reasons[2] == reasons[10] == "no text"
    assert reasons[3] == "1 cells where the header has 2"
    assert reasons[6] == "not UTF-8 text"
    assert "1,000,001 characters" in reasons[9]
    assert pd.read_csv(out)["id"].tolist() == [1, 7, 11]
    assert pd.read_csv(out)["text"][1] == "two\nlines"
    told = capsys.readouterr().out
    assert "3 rows" in told and "8 rows" in told and "out.rejected.csv" in told


def test_bad_rows_of_jsonl_and_parquet(tmp_path):
    out = tmp_path / "out.csv"
    lines = [
        '{"text": "lamp"}',
        "",
        "{torn",
        "[1]",
        '{"text": 5}',
        '{"text": null}',
        '{"n": 1}',
        "[" * 100_000,
    ]
    lines += ['{"text": "\\ud800 lamp"}', '{"n": ' + "9" * 5000 + "}", '{"text": ["a", "b"]}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run(tmp_path / "in.jsonl", out)
    assert [row for row, _ in rejected(out)] == [3, 4, 5, 6, 7, 8, 10]
    assert dict(rejected(out))[5].startswith("not text")
    assert pd.read_csv(out)["text"].tolist() == ["lamp", "? lamp", '["a", "b"]']

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
    assert peak < 3 * table_stream.ROW_BYTES


def test_a_row_of_many_lines_cannot_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(table_stream, "ROW_BYTES", 1_000)
    (tmp_path / "in.csv").write_text("text,n\n" + '"' + "a\n" * 600 + "lamp,1\n")
    parts = list(open_source(tmp_path / "in.csv", max_chars=100).parts())
    assert parts[0].rejected[0] == (1, "longer than 16 MB")
    assert parts[-1].texts[-1:] == ["lamp"]


def test_parquet_that_unpacks_to_a_giant_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(table_stream, "ROW_BYTES", 1_000)
    pq.write_table(pa.table({"text": ["x" * 100_000]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="unpacks to"):
        open_source(tmp_path / "in.parquet", max_chars=100)
    with monkeypatch.context() as patch:
        patch.setattr(table_stream, "_BOMB_BYTES", 50_000)
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
    assert [bad for part in parts for bad in part.rejected] == [
        (101, "damaged: rows 101 to 200 cannot be read")
    ]
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
    rows = [[cell.replace("\0", "") for cell in row] for row in rows]
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
        ("in.csv", "", [], "--text-column"),
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


# Stopped and started again --------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for kill -9 where one process must do: nothing in the code catches it."""


@pytest.fixture
def whole(goods, tmp_path, tiny_predictor):
    """The output of a run that was never stopped."""
    with goods.open("a") as file:
        file.write("20,,x\n")
    run(goods, tmp_path / "whole.csv", "--passes", "base", "tuned")
    assert rejected(tmp_path / "whole.csv") == [[21, "no text"]]
    return (tmp_path / "whole.csv").read_text()


def stop_after(monkeypatch, owner, name, calls):
    """`owner.name` works `calls` times; behind the last one the run ends."""
    original, left = getattr(owner, name), [calls]

    def stopping(*args, **kwargs):
        result = original(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, stopping)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (Journal, "add", 1),
        (Journal, "add", 7),
        (Store, "add", 1),
        (Store, "add", 3),
        (store, "write_table", 1),
        (store, "write_table", 2),
        (Path, "replace", 5),  # manifest, three parts, then the rejected rows
        (Path, "replace", 6),  # and the output
    ],
)
def test_stopped_anywhere_it_goes_on_and_nothing_is_scored_twice(
    goods, whole, tmp_path, monkeypatch, scored, tiny_pair, owner, name, calls
):
    small = Predictor(tiny_pair, Limits(batch_tokens=200))
    monkeypatch.setattr(score, "load_predictor", lambda settings: small)
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, owner, name, calls)
        with pytest.raises(Killed):
            run(goods, out, "--passes", "base", "tuned")
    before = sum(scored.values())
    if name in ("write_table", "replace"):
        monkeypatch.setattr(score, "load_predictor", None)  # no model is needed any more
    run(goods, out, "--passes", "base", "tuned")
    assert len(pd.read_csv(out)) == 20
    assert rejected(out) == [[21, "no text"]]
    # A stop right behind the journal's line keeps the line, though the spy had no time to count the batch.
    assert max(scored.values()) == 1 and sum(scored.values()) <= 40
    assert before + (owner is Journal) > 0
    if owner is not Journal:
        assert sum(scored.values()) == 40
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_a_stop_while_tidying_up_leaves_the_output_alone(goods, tmp_path, monkeypatch, capsys, scored):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "rmtree", lambda *args, **kwargs: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(goods, out)
    capsys.readouterr()
    run(goods, out, code=2)
    assert "is there already" in sentence(capsys)
    assert max(scored.values()) == 1 and not Store(out).folder.exists()


def test_damaged_parts_and_torn_journals_are_scored_again(goods, whole, tmp_path, monkeypatch, scored):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, Journal, "add", 5)  # the base pass of the third part
        with pytest.raises(Killed):
            run(goods, out, "--passes", "base", "tuned")
    folder = Store(out).folder
    (journal,) = folder.glob("*.jsonl")
    part, kept = folder / "part-00000000.parquet", journal.read_bytes()
    for damage in (b'["tuned", {"0": [1.0, 2', b"\xff\xfe\n", b'{"no": "journal"}\n'):
        scored.clear()
        journal.write_bytes(kept + damage)
        journal.with_suffix(".parquet").unlink(missing_ok=True)
        part.write_bytes(part.read_bytes()[:-20])
        with monkeypatch.context() as patch:
            stop_after(patch, store, "write_table", 1)
            with pytest.raises(Killed):
                run(goods, out, "--passes", "base", "tuned")
        assert sum(scored.values()) == 8 * 2 + 4  # the first part, and the tuned pass of the third
    run(goods, out, "--passes", "base", "tuned")
    assert out.read_text() == whole


def test_a_part_damaged_inside_is_scored_again(goods, whole, tmp_path, monkeypatch, capsys, scored):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, store, "write_table", 1)
        with pytest.raises(Killed):
            run(goods, out, "--passes", "base", "tuned")
    part = Store(out).part_path(1)
    data = bytearray(part.read_bytes())
    data[4:100] = b"\xff" * 96  # its pages, not what says where they are
    part.write_bytes(data)
    scored.clear()
    capsys.readouterr()
    run(goods, out, "--passes", "base", "tuned", code=1)
    assert "part-00000001" in sentence(capsys) and not scored
    run(goods, out, "--passes", "base", "tuned")
    assert out.read_text() == whole and sum(scored.values()) == 16


@pytest.mark.parametrize(
    ("change", "named"),
    [("input", "input"), ("rule", "rule"), ("passes", "passes"), ("models", "models"), ("limits", "input")],
)
def test_parts_of_another_task_are_refused_and_kept(
    goods, tmp_path, monkeypatch, capsys, calibrated_adapter, change, named
):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, Store, "add", 2)
        with pytest.raises(Killed):
            run(goods, out)
    kept = sorted(os.listdir(Store(out).folder))
    capsys.readouterr()
    arguments, whole_file = [], goods.read_text()
    with monkeypatch.context() as patch:
        if change == "input":
            goods.write_text(whole_file + "20,lamp,x\n")
        elif change == "models":
            weights = Path(os.environ["PRICER_ADAPTER"]) / "adapter_model.safetensors"
            other = tmp_path / "other"
            other.mkdir()
            for file in weights.parent.iterdir():
                if file.is_file():
                    (other / file.name).write_bytes(file.read_bytes())
            (other / weights.name).write_bytes(weights.read_bytes() + b" ")
            patch.setenv("PRICER_ADAPTER", str(other))
        elif change == "limits":
            patch.setattr(Settings, "from_env", lambda **_: _with_limit(5_000))
        else:
            arguments = {"rule": ["--rule", "mean"], "passes": ["--passes", "base"]}[change]
        run(goods, out, *arguments, code=2)
    words_ = sentence(capsys)
    assert named in words_ and "--restart" in words_
    assert sorted(os.listdir(Store(out).folder)) == kept
    goods.write_text(whole_file)
    run(goods, out)
    assert len(pd.read_csv(out)) == 20


def _with_limit(chars):
    settings = Settings(
        base=ModelRef(os.environ["PRICER_BASE_MODEL"]),
        adapter=ModelRef(os.environ["PRICER_ADAPTER"]),
        label="",
    )
    return replace(settings, device="cpu", limits=replace(settings.limits, text_chars=chars))


def test_a_full_disk_is_a_sentence_and_loses_nothing(goods, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.csv"

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for target in ("parts", "output"):
        with monkeypatch.context() as patch:
            patch.setattr(*((store.pq, "write_table") if target == "parts" else (store, "write_table")), full)
            run(goods, out, code=1)
        assert "No space left" in sentence(capsys)
        assert not out.exists()
    run(goods, out)
    assert len(pd.read_csv(out)) == 20


def test_the_texts_for_another_process_are_those_of_the_parts_left(goods):
    source = open_source(goods, max_chars=1000)
    rows = [table.to_pylist() for table in TextReader(source, frozenset({1}))(None)]
    texts = [text.strip() for text in words(20)]
    assert rows == [[{"texts": texts[:8]}], [{"texts": texts[16:]}]]


CHILD = """
import json, os, signal, sys
from pricer.scoring import __main__ as command
from pricer.scoring import engine as score
from pricer.scoring import store
from pricer.scoring.__main__ import main
from pricer.scoring.store import Journal, Store
from pricer.tables import stream as table_stream
from pricer.llama.predictor import Predictor
from dataclasses import replace

table_stream.PART_ROWS = 8
log, kill_after = sys.argv[1], int(sys.argv[2])
batches = Predictor.predict_batches
taken = 0

def spied(self, prompts, which):
    global taken
    self.limits = replace(self.limits, batch_tokens=200)
    for indices, answers in batches(self, prompts, which):
        yield indices, answers
        with open(log, "a") as file:  # the next batch was asked for, so this one was taken
            file.writelines(json.dumps([which, prompts[i].text]) + "\\n" for i in indices)
        taken += 1
        if taken == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

Predictor.predict_batches = spied
sys.exit(main(sys.argv[3:]))
"""


def test_kill_9_in_the_middle_and_again(tmp_path, goods, monkeypatch, tiny_pair, scored):
    """Killed within the second part, then to the end; compared with a run in one go."""
    script, out, log = tmp_path / "child.py", tmp_path / "out.csv", tmp_path / "log"
    script.write_text(CHILD)

    def child(kill_after):
        command = [sys.executable, script, log, kill_after, goods, out, "--passes", "base", "tuned"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*map(str, command)], env=environment, capture_output=True, text=True, timeout=300
        )

    assert child(20).returncode == -signal.SIGKILL
    assert not out.exists()
    left = {path.name for path in Store(out).folder.iterdir()}
    assert {"part-00000000.parquet", "part-00000001.jsonl"} <= left  # in the middle indeed
    done = child(0)
    assert done.returncode == 0, done.stderr

    small = Predictor(tiny_pair, Limits(batch_tokens=200))
    monkeypatch.setattr(score, "load_predictor", lambda settings: small)
    run(goods, tmp_path / "whole.csv", "--passes", "base", "tuned")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    count = Counter(tuple(json.loads(line)) for line in log.read_text().splitlines())
    assert count == scored
    assert len(count) == 40 and set(count.values()) == {1}
