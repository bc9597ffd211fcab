"""What a partial result was made of: the same after a file, and every difference in words."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer import files
from pricer.errors import InputError
from pricer.files import file_sha256, write_whole
from pricer.manifest import Manifest, content_key, differences

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
MADE_OF = {"data": "0" * 64, "rule": "median", "passes": ("base", "tuned"), "learning_rate": 1e-3, "seed": 0}


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_a_file_gives_it_back_whole(tmp_path_factory, made_of):
    path = tmp_path_factory.mktemp("manifest") / "manifest.json"
    manifest = Manifest(made_of)
    manifest.write(path)
    for found in (Manifest.read(path), Manifest.parse(manifest.as_line())):
        assert found == manifest and found.key == manifest.key and differences(found, manifest) == []
    assert os.listdir(path.parent) == [path.name]


@given(st.dictionaries(st.text(), VALUES, min_size=1, max_size=4), st.data())
def test_any_change_is_refused_with_one_sentence(made_of, data):
    name = data.draw(st.sampled_from(sorted(made_of)))
    value = data.draw(VALUES)
    other = Manifest(made_of | {name: value})
    manifest = Manifest(made_of)
    if other == manifest:
        manifest.check(other, Path("out"))
        return
    with pytest.raises(InputError) as refused:
        manifest.check(other, Path("out"))
    assert len(str(refused.value).splitlines()) == 1 or "\n" in name or not name.isprintable()
    assert name in str(refused.value) and "--restart" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "mean"}, "rule (median, now mean)"),
        ({"passes": ["tuned"]}, "passes (base tuned, now tuned)"),
        ({"learning_rate": 2e-3, "seed": 1}, "learning_rate (0.001, now 0.002) and seed (0, now 1)"),
        ({"data": "1" * 64}, "data"),
        ({"rule": "a question\nof two lines"}, "rule"),
        ({"rule": None, "seed": True}, "rule (median, now null) and seed (0, now true)"),
        ({"prior": "shop"}, "prior (not recorded)"),
        (
            dict.fromkeys("abcdefgh", 1),
            "a (not recorded), b (not recorded), c (not recorded), d (not recorded), e (not recorded) and 3 more",
        ),
    ],
)
def test_what_differs_is_named(change, words):
    with pytest.raises(InputError) as refused:
        Manifest(MADE_OF | change).check(Manifest(MADE_OF), Path("out"))
    assert str(refused.value) == (
        f"out holds a run with other {words}: give the command as it was, name another output, or begin anew with "
        "--restart."
    )


def test_what_was_there_and_is_not_any_more_is_named():
    with pytest.raises(InputError, match=r"with other prior \(now none\):"):
        Manifest(MADE_OF).check(Manifest(MADE_OF | {"prior": "shop"}), Path("out"))


@pytest.mark.parametrize("torn", ["", "{", '{"data": "00', "[]", "null", "[" * 100_000])
def test_a_torn_one_says_nothing(tmp_path, torn):
    (tmp_path / "manifest.json").write_text(torn)
    found = Manifest.read(tmp_path / "manifest.json")
    with pytest.raises(InputError, match="holds a run that does not say what it was made of: name another"):
        Manifest(MADE_OF).check(found, tmp_path)


def test_there_is_none():
    assert Manifest.read(Path("nowhere") / "manifest.json") is None


def test_a_kill_while_it_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    Manifest({"seed": 0}).write(path)

    class Killed(BaseException):
        pass

    def dies(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies)
        with pytest.raises(Killed):
            Manifest({"seed": 1}).write(path)
    assert Manifest.read(path) == Manifest({"seed": 0})
    write_whole(path, lambda aside: aside.write_text("{}"))
    assert os.listdir(tmp_path) == [path.name]


def test_contents_are_told_apart():
    assert content_key(["ab", "c"]) != content_key(["a", "bc"]) != content_key(["a\nbc"])
    assert content_key([1.0, float("nan")]) == content_key([1.0, float("nan")])


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LARGE", 10)
    path, digest, hashed = tmp_path / "weights", files.hashlib.sha256, []
    monkeypatch.setattr(files.hashlib, "sha256", lambda *a: hashed.append(1) or digest(*a))
    path.write_bytes(b"a" * 20)
    first = file_sha256(path)
    assert file_sha256(path) == first and len(hashed) == 1
    write_whole(path, lambda aside: aside.write_bytes(b"b" * 20))
    assert file_sha256(path) != first and len(hashed) == 2
