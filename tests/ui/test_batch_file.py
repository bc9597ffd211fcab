"""A visitor's file for the Batch tab: what it looks like, its products, and what comes out; without a browser."""

import csv
import io
import shlex
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pricer.arena.own_runs import OWN_INDEX, OwnRuns, add_run
from pricer.errors import InputError
from pricer.figures.prices import price_histogram
from pricer.scoring.__main__ import _parser
from pricer.scoring.engine import Task
from pricer.settings import PASSES, Limits, Settings
from pricer.ui.batch import html, text
from pricer.ui.batch.file import look_at, read_products
from pricer.ui.batch.result import CSV, PARQUET, Result

LIMITS = Limits()
ITEMS = pd.DataFrame({"index": [0], "category": ["a"], "price_usd": [5.0]})


def written(folder, content, name="products.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def products(path, text_column=None, price_column=None, most=500):
    return read_products(look_at(path, LIMITS), text_column, price_column, LIMITS, most)


def result(found, passes=PASSES):
    """As if scored: the base says $100, the tuned $50, of every row."""
    n = len(found.texts)
    columns = {f"{which}_usd": [{"base": 100.0, "tuned": 50.0}[which]] * n for which in passes}
    columns |= {"low_usd": [20.0] * n, "high_usd": [90.0] * n, "unpriced_mass": [0.1] * n}
    task = Task(Settings.from_env({}), passes, "median")
    return Result("products.csv", found, task, columns | {"text_cut": [True] + [False] * (n - 1)})


def lamps(rows, price="{:.2f}".format):
    return "title,description,price\n" + "".join(
        f"Lamp {n},made of wood,{price(10.5 + n)}\n" for n in range(rows)
    )


@pytest.mark.parametrize(
    ("content", "name", "usual", "text_column", "price_column"),
    [
        (lamps(3), "a.csv", ("title", "description"), None, "price"),
        ("price,description,name\n5,of oak,Lamp 0\n", "a.csv", ("name", "description"), None, "price"),
        ("Prompt\tActual price\na lamp\t5\n", "a.tsv", ("Prompt",), None, "Actual price"),
        ('{"text": "a lamp", "price": 5}\n', "a.jsonl", ("text",), None, "price"),
        ("sku,what,n\nA 1,a lamp of oak wood,5\n", "a.csv", (), "what", None),  # the wordiest
    ],
)
def test_columns_are_guessed(tmp_path, content, name, usual, text_column, price_column):
    found = look_at(written(tmp_path, content, name), LIMITS)
    assert (found.usual, found.text_column, found.price_column) == (usual, text_column, price_column)
    assert products(found.path, text_column).texts[0].lower().startswith(("lamp 0", "a lamp"))


@pytest.mark.parametrize(
    ("content", "name", "complaint"),
    [
        ("", "a.csv", "the file is empty"),
        ("text,price\n", "a.csv", "a.csv has no rows"),
        (bytes(range(256)), "a.csv", "no UTF-8 text"),
        (b"PAR1 and no more", "a.parquet", "damaged or no parquet file"),
        ("text\nlamp\n", "a.xlsx", "give a .csv, .tsv, .jsonl or .parquet"),
        ("text,text\na,b\n", "a.csv", "twice|mean the same"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, content, name, complaint):
    with pytest.raises(InputError, match=complaint) as error:
        look_at(written(tmp_path, content, name), LIMITS)
    assert "\n" not in str(error.value)


def test_a_file_that_is_too_large_is_refused_and_so_is_one_that_unpacks_to_more(tmp_path):
    import gzip

    limits = replace(LIMITS, upload_bytes=10_000)
    with pytest.raises(InputError, match="at most 0.01 MB"):
        look_at(written(tmp_path, lamps(1_000)), limits)
    with pytest.raises(InputError, match="unpacks to more than"):
        look_at(
            written(tmp_path, gzip.compress(lamps(5_000).encode()), "a.csv.gz"),
            replace(limits, upload_bytes=50_000),
        )


def test_rows_that_cannot_be_used_are_set_aside_with_their_reason(tmp_path):
    content = lamps(2) + ",,3\none cell\n" + "Lamp 9,of oak,free\n" + "Lamp 10,of ash,9780306406157\n"
    found = products(written(tmp_path, content), price_column="price")
    assert found.rows == [1, 2, 5, 6] and found.texts[2] == "Lamp 9\nof oak"
    assert [row for row, _ in found.rejected] == [3, 4]
    assert found.price_usd[:2].tolist() == [10.5, 11.5] and np.isnan(found.price_usd[2:]).all()
    made = result(found)
    rows = list(csv.reader(io.StringIO(made.rejected_file().decode())))
    assert rows[0] == ["row", "reason"] and [row[0] for row in rows[1:]] == ["3", "4"]
    summary = html.summary(made, "price")
    assert "Not usable: 2 rows. Row 3: no text." in summary and "Without a usable one: 2 rows." in summary


def test_the_first_rows_are_taken_and_the_command_for_all_is_the_real_one(tmp_path):
    path = written(tmp_path, lamps(1_200), "my products.csv")
    found = look_at(path, LIMITS)
    for most in (5, 512, 700):
        assert products(path, most=most).rows == list(range(1, most + 1))
    line = shlex.split(html.command(found, "description", "both"))
    assert line[:3] == ["python", "-m", "pricer.score"]
    options = _parser().parse_args(line[3:])
    assert (options.input.name, options.output.name) == ("my products.csv", "my products-priced.csv")
    assert (options.passes, options.text_column) == (["base", "tuned"], "description")
    assert html.preview(found, found.usual, 500, "python x").count("<tr>") == 6
    assert "first 500 of its 1,200 rows" in html.preview(found, found.usual, 500, "python x")
    assert "python x" not in html.preview(found, found.usual, 2_000, "python x")


def test_nothing_usable_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="the first one, row 1: no text"):
        products(written(tmp_path, "text,price\n ,5\n  ,6\n"))


def test_the_price_is_never_the_text(tmp_path):
    path = written(tmp_path, "text,price\na lamp for 5,5\n")
    with pytest.raises(InputError, match="cannot be the same column"):
        products(path, "price", "price")


def test_a_file_that_is_gone_is_one_sentence(tmp_path):
    found = look_at(written(tmp_path, lamps(2)), LIMITS)
    found.path.unlink()
    with pytest.raises(InputError, match="choose it again"):
        read_products(found, None, None, LIMITS, 5)


def test_markup_and_formulas_in_a_file_stay_text(tmp_path):
    bad = "<script>x()</script>"
    path = written(tmp_path, f'text,"{bad}"\n=cmd() lamp,{bad}\n')
    found = look_at(path, LIMITS)
    shown = html.preview(found, found.usual, 500, "")
    assert "<script" not in shown and shown.count("&lt;script&gt;") == 2
    written_csv = result(products(path)).file(CSV).decode()
    assert "'=cmd() lamp" in written_csv


def test_the_files_to_take_away_are_those_of_the_scoring_command(tmp_path):
    made = result(products(written(tmp_path, lamps(3)), price_column="price"))
    added = ["base_usd", "tuned_usd", "low_usd", "high_usd", "unpriced_mass", "text_cut"]
    table = pd.read_parquet(io.BytesIO(made.file(PARQUET)))
    assert list(table) == ["title", "description", "price", *added]
    assert table["tuned_usd"].tolist() == [50.0] * 3 and table["text_cut"].tolist() == [True, False, False]
    again = pd.read_csv(io.BytesIO(made.file(CSV)))
    assert list(again) == list(table) and len(again) == 3


def test_stopped_early_only_what_is_done_is_shown(tmp_path):
    found = products(written(tmp_path, lamps(9)), price_column="price")
    made = result(found)
    made = replace(made, columns={name: values[:4] for name, values in made.columns.items()})
    assert made.done == len(made.page_table()) == len(made.scatter_table()) == 4
    assert len(pd.read_parquet(io.BytesIO(made.file(PARQUET)))) == 4


def test_figures_are_those_of_the_metrics(tmp_path):
    made = result(products(written(tmp_path, lamps(3, lambda usd: "60")), price_column="price"))
    assert made.summaries()["tuned"].error_usd.value == 10 and made.summaries()["base"].error_usd.value == 40
    assert "<td>$10.00</td>" in html.summary(made, "price") and "<td>100.0 %</td>" in html.summary(
        made, "price"
    )
    assert result(made.products, ("tuned",)).summaries().keys() == {"tuned"}
    without = replace(made.products, price_usd=np.full(3, np.nan))
    assert text.NO_PRICES.format(column="price") in html.summary(result(without), "price")


def test_runs_join_ones_own_with_each_product_once(tmp_path):
    content = lamps(2) + "Lamp  0,made of wood,10.50\nLamp 7,x,\n"
    made = result(products(written(tmp_path, content), price_column="price"))
    made = replace(made, base_said={at: (5.0, 300.0 + at, 0.2) for at in range(made.done)})
    own, name = OwnRuns(), ""
    for table, title, info in made.runs():
        own, name = add_run(table, title, own, ITEMS, None, info)
    assert [run.info.label for run in own.runs.values()] == ["products.csv, base", "products.csv, fine-tuned"]
    assert [run.info.kind for run in own.runs.values()] == ["base", "tuned"]
    tuned = own.runs[name].table
    assert tuned["index"].tolist() == [OWN_INDEX, OWN_INDEX + 1] and tuned["guess_usd"].tolist() == [50, 50]
    base = next(run for run in own.runs.values() if run.info.kind == "base")
    assert base.table["high_usd"].tolist() == [300, 301] and "not checked" in base.info.origin
    assert tuned["low_usd"].tolist() == [20, 20] and own.items["price_usd"].tolist() == [10.5, 11.5]


def test_the_histogram_counts_every_product():
    prices = {"base": np.array([1.0, 999.0]), "tuned": np.array([10.0, 10.0, 12.0]), "actual": np.array([])}
    figure = price_histogram(prices, names=text.MODEL_NAMES, description="x", count_axis="products")
    assert [trace.name for trace in figure.data] == ["Base", "Fine-tuned"]
    assert [sum(trace.y[1:-1:2]) for trace in figure.data] == [2, 3]
    alone = price_histogram(
        {"tuned": np.array([7.0])}, names=text.MODEL_NAMES, description="x", count_axis="n"
    )
    assert alone.data[0].fill == "tozeroy" and not alone.layout.showlegend
