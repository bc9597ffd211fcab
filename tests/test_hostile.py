"""Input that means harm, or none: markup, formulas, bombs, and anything at all for every reader.

The readers of runs, of tables to score and of training data get 1,700 cases here (those of uploads 10,500, in
test_own_runs.py). PRICER_FUZZ=10 gives ten times as many:

    PRICER_FUZZ=10 python -m pytest tests/test_hostile.py -k any
"""

import ast
import contextlib
import csv
import gzip
import io
import json
import logging
import os
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.io as pio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricer.arena import runs
from pricer.arena.arena import Arena
from pricer.arena.own_runs import OwnRuns
from pricer.arena.runs import Run, RunInfo
from pricer.arena.view import View
from pricer.errors import InputError
from pricer.figures import errors, guesses
from pricer.llama.pair import load_pair
from pricer.settings import Settings
from pricer.tables import arrow, lines
from pricer.tables.checks import COLUMNS
from pricer.tables.stream import open_source
from pricer.tables.writing import csv_text, harmless, write_table
from pricer.ui.evaluate import board, heads, html, own_html, text
from pricer.ui.evaluate import item as item_html
from pricer.ui.evaluate import render as evaluate_render
from train.data import load_rows
from train.sources import find_source

ROOT = Path(__file__).parents[1]
TIMES = int(os.environ.get("PRICER_FUZZ", "1"))
HOSTILE = "\"'></option><script>window.x=1</script><img src=x onerror=window.x=1>&amp;<a href=javascript:x>${1}{{x}}"


# Markup --------------------------------------------------------------------------------------------------

RULES_OF_OURS = {"p", "b", "i", "span", "abbr", "button", "div", "table", "thead", "tbody", "tr", "th", "td"}
RULES_OF_OURS |= {"h4", "header", "blockquote", "code", "progress", "br"}


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def check_harmless(made):
    parser = Tags()
    parser.feed(made)
    for tag, attributes in parser.found:
        assert tag in RULES_OF_OURS, tag
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href")], (
            attributes
        )
    return parser.found


@pytest.fixture(scope="module")
def arena():
    """Everything that has a name has the same one."""
    index = np.arange(60)
    rng = np.random.default_rng(0)
    items = pd.DataFrame(
        {"index": index, "category": [HOSTILE, "Toys & Games"] * 30, "price_usd": 10.0 + index}
    )
    found = {}
    for name in ("one", "two", "three"):
        info = RunInfo(name=name, label=HOSTILE[:110] + name, kind="tuned", published=True, origin=HOSTILE)
        guess = (10.0 + index + rng.normal(0, 9, 60)).clip(1)
        table = {"index": index, "guess_usd": guess, "low_usd": guess / 2, "high_usd": guess * 2}
        found[name] = Run(info.model_copy(update={"notes": HOSTILE}), pd.DataFrame(table))
    return Arena(found, items)


@pytest.fixture(scope="module")
def view():
    return View("one", "two", categories=(HOSTILE, "Toys & Games"), item=4)


def test_html_shows_markup_as_text(arena, view):
    scene = evaluate_render.Scene(arena, view, None, evaluate_render.Place())
    item, own = arena.item(4), OwnRuns(runs={run.info.name: run for run in arena_runs(arena)})
    made = {
        "pairs": heads.pairs(arena, view, ("one", "two")),
        "active": heads.active(view, scene.narrowed),
        "title": heads.scatter_title("a", arena.infos["one"], scene.figures, None),
        "board": board.board(arena, view, arena.leaderboard(view)),
        "badges": html.badges(arena.infos["one"]),
        "item": item_html.item_head(item, view, (1, 9)),
        "text": item_html.item_foot(HOSTILE, False),
        "own": own_html.chips(own),
        "notice": html.complaint([HOSTILE, HOSTILE]),
        "term": html.term("x", HOSTILE),
        "button": html.button("x", "do", HOSTILE, title=HOSTILE),
    }
    for name, words in made.items():
        assert check_harmless(words), name
    assert "Toys &amp; Games" in made["active"] and "&amp;amp; Games" not in made["active"]
    assert made["text"].count("&lt;script&gt;") == 1
    # What a button sends comes back as it was.
    sent = [attributes["data-value"] for tag, attributes in check_harmless(made["button"]) if tag == "button"]
    assert sent == [HOSTILE]


def arena_runs(arena):
    return [Run(info, arena.table(View("one", "two"), np.arange(3))) for info in arena.infos.values()]


def test_figures_show_markup_as_text(arena, view):
    """Plotly understands a few tags in what it writes: nothing of ours but <b>, <br> and <extra> may be among them."""
    view = View("one", "two")
    scene = evaluate_render.Scene(arena, view, None, evaluate_render.Place())
    table, picked = scene.drawn
    made = [
        guesses.guess_against_price(table, "a", label=scene.label("a"), picked=picked, log=True),
        guesses.error_against_error(table, labels=(scene.label("a"), scene.label("b")), picked=picked),
        guesses.item_strip(arena.item(4), ("one", "two"), text.KINDS),
        errors.error_by_group(arena.groups(view)[1], "category"),
        errors.interval_coverage(arena.coverage(view), ("one", "two")),
    ]
    for figure in made:
        figure.layout.meta = None  # words for screen readers, set as an attribute
        drawn = json.loads(pio.to_json(figure, validate=False))
        for trace in drawn["data"]:
            for words in shown_strings(trace):
                assert not {tag for tag, _ in tags(words)} - {"b", "br", "extra", "i"}, words
        for words in shown_strings(drawn["layout"]):
            assert not {tag for tag, _ in tags(words)} - {"b", "br", "i"}, words


def tags(words):
    parser = Tags()
    parser.feed(words)
    return parser.found


def shown_strings(node, key=""):
    """The strings that plotly writes: not a group's first two cells, by which a click is looked up."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for name, inner in node.items():
            yield from shown_strings(inner, name)
    elif isinstance(node, list):
        if (
            key == "customdata"
            and node
            and isinstance(node[0], list)
            and node[0][:1] in (["category"], ["price"])
        ):
            node = [row[2:] for row in node]
        for inner in node:
            yield from shown_strings(inner)


# Formulas ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", " =", "\t=", "\r\n=", "\n=", "＝", "＋", "－", "＠", "\u00a0="]
)
def test_what_a_spreadsheet_would_run_is_text_in_an_export(start):
    cell = f"{start}cmd|' /C calc'!A0"
    table = pd.DataFrame({"text": [cell], cell: [1.0], "price": [-5.0]})
    [head, row] = csv.reader(io.StringIO(csv_text(table), newline=""))
    shown = "'" + cell.replace("\r\n", "\n").replace("\r", "\n")
    assert head[1] == row[0] == shown
    assert row[2] == "-5.0"  # a number stays one
    assert harmless(harmless(cell)) == harmless(cell)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_no_cell_of_an_export_begins_a_row_of_its_own(tmp_path, end):
    """Behind a lone \\r a spreadsheet would begin one, and run what stands there."""
    cell = f"Lamp{end}=cmd|' /C calc'!A0"
    schema = pa.schema([("text", pa.string()), ("n", pa.int64())])
    write_table(tmp_path / "out.csv", schema, [pa.table({"text": [cell], "n": [1]})], ".csv")
    for written in (
        csv_text(pd.DataFrame({"text": [cell], "n": [1]})),
        (tmp_path / "out.csv").read_bytes().decode(),
    ):
        assert "\r" not in written
        assert list(csv.reader(io.StringIO(written, newline=""))) == [
            ["text", "n"],
            [cell.replace(end, "\n"), "1"],
        ]


# Bombs ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def memory_below(most):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.csv.gz"])
def test_a_giant_line_of_listings_is_left_out_without_being_held(tmp_path, name, monkeypatch):
    monkeypatch.setattr(lines, "ROW_BYTES", 100_000)
    good = {"title": "Lamp", "price": 5}
    head, line = ("title,price\n", "Lamp,5\n") if ".csv" in name else ("", json.dumps(good) + "\n")
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "wb") as file:
        file.write((head + line).encode())
        for _ in range(64):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + line.encode())
    with memory_below(4_000_000):
        found = list(find_source(str(tmp_path / name)).rows())
    assert [row.reason for row in found] == ["", "longer than 16 MB", ""]
    assert [row.cells["title"] for row in found if not row.reason] == ["Lamp", "Lamp"]


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.jsonl.gz"])
def test_a_gz_bomb_is_refused_unread(tmp_path, name, monkeypatch):
    monkeypatch.setattr("pricer.tables.lines.BOMB_BYTES", 8_000_000)
    monkeypatch.setattr("pricer.tables.lines.BOMB_RATIO", 20)
    with gzip.open(tmp_path / name, "wb") as file:
        for _ in range(64):
            file.write(b"\n" * 1_000_000)
    with memory_below(8_000_000), pytest.raises(InputError, match="unpacks to more than 8 MB"):
        load_rows(tmp_path / name)
    honest = pd.DataFrame({"text": ["A lamp made of wood"] * 9, "price": 5.0})
    writing = {"orient": "records", "lines": True} if "jsonl" in name else {"index": False}
    (honest.to_json if "jsonl" in name else honest.to_csv)(tmp_path / name, **writing)
    assert len(load_rows(tmp_path / name)) == 9


def test_parquet_bombs_are_refused_by_every_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow, "BOMB_BYTES", 1_000_000)
    bomb = pa.table({"text": ["x" * 1_000_000] * 4, "price": [1.0] * 4})
    path = tmp_path / "run.parquet"
    pq.write_table(bomb, path, compression="zstd", use_dictionary=False)
    (tmp_path / "run.json").write_text('{"name": "run", "label": "x", "kind": "tuned"}')
    for read in (
        lambda: load_rows(path),
        lambda: list(find_source(str(path)).rows()),
        lambda: open_source(path, max_chars=100),
        lambda: runs.load_run(path),
    ):
        with pytest.raises(InputError, match="unpacks to"):
            read()
    monkeypatch.setattr(runs, "MOST_ROWS", 1_000)
    many = pa.table({"index": np.arange(1_001), "guess_usd": np.ones(1_001)})
    pq.write_table(many, path)
    with pytest.raises(InputError, match="more than 1,000 rows"):
        runs.load_run(path)


# Code in files -------------------------------------------------------------------------------------------

FORBIDDEN = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle", "diskcache"}
SOURCES = [
    ROOT / "app.py",
    *(p for part in ("pricer", "train", "bench") for p in (ROOT / part).rglob("*.py")),
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_loaded_that_may_hold_code(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {name.name.partition(".")[0] for name in node.names} & FORBIDDEN
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] not in FORBIDDEN
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            assert called not in ("eval", "exec", "os.system", "pd.read_pickle", "pd.eval", "yaml.load"), (
                called
            )
            assert not called.startswith(("pickle.", "joblib.")), called
            if called == "torch.load":
                assert ast.unparse(given.get("weights_only", ast.Constant(False))) == "True"
            for name in ("allow_pickle", "trust_remote_code", "shell"):
                assert name not in given or ast.unparse(given[name]) == "False", (called, name)


def test_weights_in_the_old_form_are_not_loaded(tiny_model_folder, tmp_path):
    """A pickle that would write a file, in place of the base's weights."""
    import pickle
    import shutil

    base = Path(shutil.copytree(tiny_model_folder / "base", tmp_path / "base"))
    (base / "model.safetensors").unlink()

    class Bad:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    (base / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bad()}))
    environment = {"PRICER_BASE_MODEL": str(base), "PRICER_ADAPTER": str(tiny_model_folder / "adapter")}
    with pytest.raises(Exception, match="cannot be loaded"):
        load_pair(Settings.from_env(environment | {"PRICER_DEVICE": "cpu"}))
    assert not (tmp_path / "written").exists()


# Anything at all -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    table = pd.DataFrame({"index": range(6), "guess_usd": [1.0, 2, 3, 4, 5, 6], "seconds": 0.5})
    runs.save_run(folder, Run(RunInfo(name="run", label="Run", kind="tuned", rule="median"), table))
    items = pd.DataFrame({"index": range(6), "category": list("aabbcc"), "price_usd": [1.0, 2, 3, 4, 5, 6]})
    runs.save_items(folder, items)
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def one_sentence(error):
    words = str(error)
    assert words and "\n" not in words.strip() and len(words) < 800
    return words


DAMAGE = st.tuples(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    st.floats(0, 1) | st.just(1.0),
)


def damaged(data, damage):
    changes, cut = damage
    data = bytearray(data)
    for where, value in changes:
        data[int(where * len(data))] = value
    return bytes(data[: int(cut * len(data))])


@given(name=st.sampled_from(["run.parquet", "run.json", "items.parquet"]), damage=DAMAGE)
@settings(max_examples=500 * TIMES)
def test_any_run_file_is_read_or_refused_with_a_sentence(folder, whole, name, damage):
    for other, data in whole.items():
        (folder / other).write_bytes(damaged(data, damage) if other == name else data)
    try:
        if name.startswith("run"):
            run = runs.load_run(folder / "run")
            assert set(run.table) <= set(COLUMNS) and run.table["guess_usd"].between(0, 1e6).all()
        else:
            items = runs.load_items(folder)
            assert (items["price_usd"] > 0).all() and items["index"].is_unique
    except InputError as error:
        assert one_sentence(error)
    logging.disable()
    assert set(runs.load_runs(folder)["benchmark"]) <= {"run"}
    logging.disable(logging.NOTSET)


CELLS = ["1", "0", "-5", "nan", "1e309", "9" * 400, "", " ", "=1+1", "<b>", '"', '"a,b"', '"two\nlines"', "\x00", "\u2028", "\ud7ff", "{", "null", "[1]", "lamp", "$1,299.00", "‮", "\ufeff", "\r", "x" * 60]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(CELLS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["text", "prompt", "title", "description", "price", "index", "Text", "", "x"])
LINES = {
    "csv": st.lists(st.lists(NAMES | st.sampled_from(CELLS), max_size=4).map(",".join), max_size=6),
    "jsonl": st.lists(
        st.dictionaries(NAMES, VALUES, max_size=4).map(json.dumps) | st.sampled_from(CELLS), max_size=6
    ),
}


@pytest.mark.parametrize("kind", LINES)
@given(data=st.data())
@settings(max_examples=350 * TIMES)
def test_any_table_is_scored_row_by_row_or_refused_with_a_sentence(folder, kind, data):
    lines = data.draw(LINES[kind])
    head = ["text,price"] if kind == "csv" and data.draw(st.booleans()) else []
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    path = folder / f"table.{kind}"
    path.write_bytes(end.join([*head, *lines]).encode(encoding, "replace"))
    try:
        source = open_source(path, max_chars=100)
    except InputError as error:
        assert one_sentence(error)
        return
    parts = list(source.parts())
    rows = [row for part in parts for row in (*part.rows, *(row for row, _ in part.rejected))]
    assert len(rows) == len(set(rows)) == source.rows
    assert all(0 < len(found) <= 100 for part in parts for found in part.texts)
    assert all(len(part.texts) == part.table.num_rows for part in parts)


@pytest.mark.parametrize("kind", LINES)
@given(data=st.data())
@settings(max_examples=250 * TIMES)
def test_any_training_file_is_read_or_refused_with_a_sentence(folder, kind, data):
    path = folder / f"rows.{kind}{data.draw(st.sampled_from(['', '.gz']))}"
    content = "\n".join(data.draw(LINES[kind])).encode("utf-8", "replace") + data.draw(st.binary(max_size=9))
    packed = gzip.compress(content, 1) if path.suffix == ".gz" else content
    path.write_bytes(packed[: int(len(packed) * data.draw(st.sampled_from([0.5, 1.0, 1.0])))])
    for read in (load_rows, lambda path: list(find_source(str(path)).rows())):
        try:
            read(path)
        except InputError as error:
            assert one_sentence(error)
