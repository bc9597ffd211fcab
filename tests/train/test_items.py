"""Item sets: labels of one's own words, and nothing else of a listing."""

import pandas as pd
import pytest

from pricer.arena.runs import load_items
from train import items

TEXTS = ["Acme X100 cordless drill with two batteries and case", "Long garden hose, green, 50 ft"]
LABELS = "0\tAcme drill set, batteries included\n1\tGreen hose for watering\n"


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = pd.DataFrame({"text": TEXTS * 4, "price": [89.0, 25.5] * 4, "category": ["Tools", ""] * 4})

    def make(labels=LABELS, count=2, code=0):
        rows.head(count).to_parquet("items.parquet")
        (tmp_path / "labels.tsv").write_bytes(labels.encode("utf-8", "surrogateescape"))
        arguments = ["items.parquet", "--labels", "labels.tsv", "--set", "everyday", "--out", "runs"]
        assert items.main(arguments) == code

    return make


def test_index_category_price_and_label_are_all_that_is_kept(make, tmp_path, capsys):
    make("\ufeff" + LABELS)  # as Excel writes it
    assert "longest runs of words in common with the listing: 1 of 1, 1 of 2" not in capsys.readouterr().err
    table = load_items(tmp_path / "runs", "everyday")
    assert table.to_dict("records") == [
        {"index": 0, "category": "Other", "price_usd": 89.0, "label": "Acme drill set, batteries included"},
        {"index": 1, "category": "Other", "price_usd": 25.5, "label": "Green hose for watering"},
    ]
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name == "items-everyday.parquet" and b"cordless" not in path.read_bytes()


def test_words_in_a_row_are_counted_whatever_stands_between_them():
    assert items.shared_words("A 50-ft garden hose", TEXTS[1]) == 2  # 50 ft; garden hose
    assert items.shared_words("Hose, green: 50 ft.", TEXTS[1]) == 4
    assert items.shared_words("Gar den", TEXTS[1]) == 0


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("0\tcordless drill with two\n1\tGreen hose for watering\n", "4 words in a row"),
        ("0\tDrill\n1\tGreen hose for watering\n", "2 to 8 words"),
        ("0\tAcme drill set, batteries included\n", "Item 1 has the label ''"),
        ("0\tA drill\n0\tA drill\n", "Line 2 of labels.tsv"),
        ("zero\tA drill\n", "Line 1 of labels.tsv"),
        ("0 A drill\n", "Line 1 of labels.tsv"),
        ("0\tCaf\udce9 cup\n", "labels.tsv is not UTF-8 text"),
    ],
)
def test_labels_that_cannot_be_used_are_one_sentence(make, capsys, tmp_path, labels, words):
    make(labels, code=2)
    said = capsys.readouterr().err.strip()
    assert words in said and "\n" not in said and not (tmp_path / "runs").exists()
