"""Settings: every variable is read once and checked at once, and a wrong one says what it may be."""

import dataclasses
from pathlib import Path

import pytest

from pricer.errors import SetupError
from pricer.settings import LIMITS, PROFILES, Limits, ModelRef, Profile, Settings


def test_nothing_set_gives_the_embedded_profile():
    settings = Settings.from_env({})
    assert settings.profile == "embedded"
    assert settings.base == ModelRef("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert Path(settings.adapter.name).parts[-3:] == ("pricer", "assets", "adapter")
    assert (settings.precision, settings.device, settings.test_items) == (None, None, None)
    assert (settings.host, settings.port) == ("127.0.0.1", 7860)
    assert settings.cache == Path.home() / ".cache" / "pricer"
    assert settings.dequantise is None


def test_blank_variables_count_as_unset():
    names = ["PROFILE", "BASE_MODEL", "ADAPTER", "QUESTION", "PRECISION", "DEQUANTISE", "DEVICE"]
    names += ["CACHE", "TEST_ITEMS"]
    blank = {f"PRICER_{name}": "  " for name in names} | {"PORT": "", "HOST": " "}
    assert Settings.from_env(blank) == Settings.from_env({})


def test_the_environment_is_read_when_none_is_given(monkeypatch):
    monkeypatch.setenv("PRICER_PROFILE", "llama-3b")
    monkeypatch.setenv("PORT", "8123")
    settings = Settings.from_env()
    assert (settings.profile, settings.port) == ("llama-3b", 8123)


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.from_env({}).port = 1


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_chosen(name):
    settings = Settings.from_env({"PRICER_PROFILE": name})
    profile = PROFILES[name]
    assert str(settings.base) == profile.base_model
    assert str(settings.adapter) == profile.adapter
    assert (settings.question, settings.label) == (profile.question, profile.label)
    assert settings.max_text_tokens == profile.max_text_tokens == 160


def test_adapters_on_the_hub_are_pinned_to_a_commit():
    for name, profile in PROFILES.items():
        if name != "embedded":
            ref = ModelRef.parse(profile.adapter)
            assert len(ref.revision) == 40 and int(ref.revision, 16), name


def test_the_argument_outranks_the_variable():
    assert Settings.from_env({"PRICER_PROFILE": "nonsense"}, profile="llama-8b").profile == "llama-8b"


def test_the_3b_profile_asks_its_own_question():
    assert Settings.from_env({"PRICER_PROFILE": "llama-3b"}).question == (
        "What does this cost to the nearest dollar?"
    )
    assert Profile("a/b", "c/d").question == "How much does this cost to the nearest dollar?"


def test_every_variable_is_obeyed(tmp_path):
    settings = Settings.from_env(
        {
            "PRICER_BASE_MODEL": "owner/Some-Llama@abc",
            "PRICER_ADAPTER": "owner/adapter@v1",
            "PRICER_QUESTION": "What is it worth?",
            "PRICER_PRECISION": "bf16",
            "PRICER_DEQUANTISE": "no",
            "PRICER_DEVICE": "cuda",
            "PRICER_CACHE": "~/elsewhere",
            "PRICER_TEST_ITEMS": str(tmp_path / "items.jsonl"),
            "HOST": "0.0.0.0",
            "PORT": "80",
        }
    )
    assert (settings.base, settings.adapter) == (
        ModelRef("owner/Some-Llama", "abc"),
        ModelRef("owner/adapter", "v1"),
    )
    assert (settings.label, settings.question) == ("Some-Llama", "What is it worth?")
    assert (settings.precision, settings.dequantise, settings.device) == ("bf16", False, "cuda")
    assert settings.cache == Path.home() / "elsewhere"
    assert settings.test_items == tmp_path / "items.jsonl"
    assert (settings.host, settings.port) == ("0.0.0.0", 80)


def test_every_limit_is_a_variable():
    assert set(LIMITS.values()) == {field.name for field in dataclasses.fields(Limits)} - {"batch_tokens"}
    given = {variable: str(10 + i) for i, variable in enumerate(LIMITS)}
    limits = Settings.from_env(given).limits
    for variable, name in LIMITS.items():
        assert getattr(limits, name) == int(given[variable])
    assert Settings.from_env({"PRICER_REQUESTS_PER_MINUTE": "0"}).limits.requests_per_minute == 0
    assert Settings.from_env({}).limits == Limits()


def test_a_space_listens_to_the_outside_unless_told_otherwise():
    assert Settings.from_env({"SPACE_ID": "me/pricer"}).host == "0.0.0.0"
    assert Settings.from_env({"SPACE_ID": "me/pricer", "HOST": "127.0.0.1"}).host == "127.0.0.1"


def test_gradios_own_port_counts_after_port():
    assert Settings.from_env({"GRADIO_SERVER_PORT": "9000"}).port == 9000
    assert Settings.from_env({"GRADIO_SERVER_PORT": "9000", "PORT": "9001"}).port == 9001


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"PRICER_PROFILE": "llama-70b"}, ["llama-70b", "PRICER_PROFILE", "embedded, llama-8b, llama-3b"]),
        ({"PRICER_PROFILE": "Embedded"}, ["PRICER_PROFILE"]),
        ({"PRICER_PRECISION": "int8"}, ["PRICER_PRECISION", "int8", "fp32, bf16, nf4"]),
        ({"PRICER_DEQUANTISE": "1"}, ["PRICER_DEQUANTISE", "yes, no"]),
        ({"PRICER_DEVICE": "mps"}, ["PRICER_DEVICE", "mps", "cpu, cuda"]),
        ({"PRICER_QUEUE": "0"}, ["PRICER_QUEUE", "from 1"]),
        ({"PRICER_TEXT_CHARS": "-1"}, ["PRICER_TEXT_CHARS", "from 1"]),
        ({"PRICER_UPLOAD_ROWS": "1e5"}, ["PRICER_UPLOAD_ROWS"]),
        ({"PRICER_UPLOAD_BYTES": "9" * 13}, ["PRICER_UPLOAD_BYTES"]),
        ({"PRICER_REQUESTS_PER_MINUTE": "many"}, ["PRICER_REQUESTS_PER_MINUTE", "from 0"]),
        ({"PORT": "http"}, ["PORT", "http", "1 to 65535"]),
        ({"PORT": "0"}, ["PORT"]),
        ({"PORT": "65536"}, ["PORT"]),
        ({"PORT": "-1"}, ["PORT"]),
        ({"PORT": "7860.0"}, ["PORT"]),
        ({"PORT": "²"}, ["PORT"]),
        ({"GRADIO_SERVER_PORT": "x"}, ["GRADIO_SERVER_PORT"]),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_variable_and_what_it_may_be(env, says):
    with pytest.raises(SetupError) as caught:
        Settings.from_env(env)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    for part in says:
        assert part in message


@pytest.mark.parametrize("port", [1, 7860, 65535])
def test_the_whole_range_of_ports_is_allowed(port):
    assert Settings.from_env({"PORT": str(port)}).port == port


class TestModelRef:
    def test_name_with_and_without_revision(self):
        assert ModelRef.parse("a/b") == ModelRef("a/b", None)
        assert ModelRef.parse("a/b@") == ModelRef("a/b", None)
        assert ModelRef.parse("a/b@refs/pr/1") == ModelRef("a/b", "refs/pr/1")
        assert str(ModelRef.parse("a/b@v1")) == "a/b@v1"
        assert not ModelRef.parse("a/b").is_folder

    def test_a_folder_may_hold_an_at_sign(self, tmp_path):
        folder = tmp_path / "run@3"
        folder.mkdir()
        ref = ModelRef.parse(str(folder))
        assert ref == ModelRef(str(folder), None) and ref.is_folder

    def test_the_home_folder_is_expanded(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "adapter").mkdir()
        assert ModelRef.parse("~/adapter") == ModelRef(str(tmp_path / "adapter"))

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "file").touch()
        assert not ModelRef.parse(str(tmp_path / "file")).is_folder

    def test_a_name_too_long_for_any_folder_is_a_name(self):
        ref = ModelRef.parse("x" * 300)
        assert ref.name == "x" * 300 and not ref.is_folder
