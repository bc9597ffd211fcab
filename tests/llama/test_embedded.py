"""The embedded base, prepared once: two processes at once, a kill in the middle, a full disk."""

import errno
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pricer.errors import SetupError
from pricer.llama import embedded
from pricer.llama.base import (
    load_base,
)
from pricer.llama.embedded import EMBEDDED_BASE, prepare_embedded_base


def prepared(settings):
    return settings.cache / embedded._CACHE_NAME


def leftovers(settings):
    return [path.name for path in settings.cache.iterdir() if path != prepared(settings)]


def test_the_base_is_prepared_once(fake_embedded):
    settings, conversions = fake_embedded
    for _ in range(3):
        base, tokenizer = load_base(settings, "cpu", "fp32")
        assert isinstance(base, LlamaForCausalLM) and tokenizer("Price")["input_ids"]
    assert len(conversions) == 1 and leftovers(settings) == []


def test_without_the_package_the_hub_is_asked(sentence, fake_embedded, monkeypatch):
    settings, conversions = fake_embedded
    monkeypatch.setattr(embedded, "_GGUF_PACKAGE", "no_such_package")
    assert prepare_embedded_base(settings.cache) is None
    with pytest.raises(SetupError) as caught:
        load_base(settings, "cpu", "fp32")
    assert EMBEDDED_BASE in sentence(caught) and "does not answer" in str(caught.value)
    assert conversions == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_corrupted_prepared_base_is_prepared_again(fake_embedded, name, damage):
    settings, conversions = fake_embedded
    load_base(settings, "cpu", "fp32")
    file = prepared(settings) / name
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size // 2)
    base, _ = load_base(settings, "cpu", "fp32")
    assert isinstance(base, LlamaForCausalLM)
    assert len(conversions) == 2 and leftovers(settings) == []


def test_an_empty_prepared_folder_is_prepared_again(fake_embedded):
    settings, conversions = fake_embedded
    prepared(settings).mkdir(parents=True)
    load_base(settings, "cpu", "fp32")
    assert len(conversions) == 1


def test_a_conversion_that_is_broken_itself_ends_with_a_sentence(sentence, fake_embedded, monkeypatch):
    settings, _ = fake_embedded
    monkeypatch.setattr(
        embedded, "_convert_gguf", lambda source, target: (target / "config.json").write_text("{")
    )
    with pytest.raises(SetupError) as caught:
        load_base(settings, "cpu", "fp32")
    sentence(caught)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        # What safetensors and tokenizers raise when the disk is full:
        safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        Exception("No space left on device (os error 28)"),
    ],
)
def test_a_full_disk(sentence, fake_embedded, monkeypatch, error):
    settings, _ = fake_embedded

    def full(source, target):
        (target / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(embedded, "_convert_gguf", full)
    with pytest.raises(SetupError) as caught:
        load_base(settings, "cpu", "fp32")
    message = sentence(caught)
    assert str(settings.cache) in message and "600 MB" in message and "PRICER_CACHE" in message
    assert ("No space" in message) or ("quota" in message)
    assert not prepared(settings).exists() and leftovers(settings) == []


@pytest.mark.parametrize("where", ["a file", "under a file", "too long a name"])
def test_a_cache_that_cannot_be_written(sentence, fake_embedded, tmp_path, where):
    settings, conversions = fake_embedded
    (tmp_path / "file").touch()
    cache = {
        "a file": tmp_path / "file",
        "under a file": tmp_path / "file" / "cache",
        "too long a name": tmp_path / ("x" * 300),
    }[where]
    with pytest.raises(SetupError) as caught:
        load_base(replace(settings, cache=cache), "cpu", "fp32")
    message = sentence(caught)
    assert str(cache) in message and "PRICER_CACHE" in message
    assert conversions == []


def test_a_cache_of_somebody_else(sentence, fake_embedded, tmp_path):
    """Neither listed nor written: tried as another user, for root may do anything."""
    settings, _ = fake_embedded
    settings.cache.mkdir(parents=True)
    settings.cache.chmod(0o700)
    tmp_path.chmod(0o755)

    def as_nobody():
        if os.getuid() == 0:
            os.setuid(65534)
        else:
            settings.cache.chmod(0)
        with pytest.raises(SetupError) as caught:
            prepare_embedded_base(settings.cache)
        assert "PRICER_CACHE" in sentence(caught)

    assert finished(fork(as_nobody)) == 0
    settings.cache.chmod(0o700)


def fork(function):
    """A second process as it is at this moment, for `function` alone; its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        function()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def finished(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def half_then_wait(files, told, go):
    """A conversion that writes half its files, tells so, and waits for `go` to be closed."""

    def convert(source, target):
        names = sorted(path.name for path in files.iterdir())
        for name in names[: len(names) // 2]:
            shutil.copy(files / name, target)
        os.write(told, b"x")
        os.read(go, 1)
        for name in names[len(names) // 2 :]:
            shutil.copy(files / name, target)

    return convert


def test_two_processes_preparing_at_once(fake_embedded, tiny_model_folder, monkeypatch):
    settings, _ = fake_embedded
    (heard, told), (go, going) = os.pipe(), os.pipe()
    monkeypatch.setattr(embedded, "_convert_gguf", half_then_wait(tiny_model_folder / "base", told, go))

    def prepare():
        os.close(going)
        assert prepare_embedded_base(settings.cache) == prepared(settings)

    pids = [fork(prepare) for _ in range(3)]
    for _ in pids:  # all three are in the middle
        assert os.read(heard, 1) == b"x"
    assert not prepared(settings).exists() and len(leftovers(settings)) == 3
    os.close(going)
    assert [finished(pid) for pid in pids] == [0, 0, 0]
    assert leftovers(settings) == []
    monkeypatch.setattr(embedded, "_convert_gguf", lambda *_: pytest.fail("it is there already"))
    assert isinstance(load_base(settings, "cpu", "fp32")[0], LlamaForCausalLM)


def test_a_kill_in_the_middle_leaves_no_broken_cache(fake_embedded, tiny_model_folder, monkeypatch):
    settings, conversions = fake_embedded
    (heard, told), (go, _going) = os.pipe(), os.pipe()
    quick = embedded._convert_gguf
    monkeypatch.setattr(embedded, "_convert_gguf", half_then_wait(tiny_model_folder / "base", told, go))
    pid = fork(lambda: prepare_embedded_base(settings.cache))
    assert os.read(heard, 1) == b"x"
    os.kill(pid, signal.SIGKILL)
    assert finished(pid) == -signal.SIGKILL
    assert not prepared(settings).exists()
    (left,) = leftovers(settings)

    monkeypatch.setattr(embedded, "_convert_gguf", quick)
    assert isinstance(load_base(settings, "cpu", "fp32")[0], LlamaForCausalLM)
    assert len(conversions) == 1
    assert leftovers(settings) == [left]  # young: it might be another process at work
    os.utime(settings.cache / left, (0, 0))
    shutil.rmtree(prepared(settings))
    load_base(settings, "cpu", "fp32")
    assert leftovers(settings) == []  # old: swept up


def test_what_another_process_sweeps_up_meanwhile_is_no_error(fake_embedded, monkeypatch):
    settings, _ = fake_embedded
    settings.cache.mkdir(parents=True)
    listed = Path.glob

    def glob(self, pattern):
        found = list(listed(self, pattern))
        return [*found, self / ".preparing-gone"]

    monkeypatch.setattr(Path, "glob", glob)
    assert prepare_embedded_base(settings.cache) == prepared(settings)


def test_the_conversion_keeps_the_weights(monkeypatch, tmp_path, digit_tokenizer):
    """`_write_plain` without its slow reading: a model read from GGUF is saved as a plain Llama."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=80, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    read = LlamaForCausalLM(config)
    read.config.quantization_config = {"quant_method": "gguf"}
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: read)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: digit_tokenizer)
    pre_tokenizer = digit_tokenizer.backend_tokenizer.pre_tokenizer
    try:
        embedded._write_plain(tmp_path, tmp_path)
    finally:
        digit_tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer
    plain = LlamaForCausalLM.from_pretrained(tmp_path)
    assert not hasattr(plain.config, "quantization_config")
    for name, tensor in read.state_dict().items():
        assert torch.equal(plain.state_dict()[name], tensor), name


def test_the_conversion_has_a_process_of_its_own(monkeypatch, tmp_path):
    """Its memory would stay with the app."""
    monkeypatch.setattr(embedded, "_write_plain", shutil.copyfile)
    embedded._convert_gguf(Path("/proc/self/stat"), tmp_path / "stat")
    assert int((tmp_path / "stat").read_text().split()[0]) != os.getpid()
    with pytest.raises(OSError, match="^No such file or directory$"):  # what goes wrong there is known here
        embedded._convert_gguf(tmp_path / "missing", tmp_path / "copy")
    assert multiprocessing.active_children() == []


def test_a_conversion_whose_process_ends_early(monkeypatch):
    monkeypatch.setattr(embedded, "_write_plain", os.execv)
    with pytest.raises(OSError, match="was stopped"):
        embedded._convert_gguf(shutil.which("false"), ["false"])
