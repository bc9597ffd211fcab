"""What the Hub and the disk refuse, as one sentence that says what to do."""

import errno
import http.server
import json
import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoConfig

from pricer.llama import loading
from pricer.llama.adapter import load_adapter_card
from pricer.llama.hub import expect_answers
from pricer.settings import Settings

HUB_ANSWERS = {  # name of the model: status, error code, message
    "gated": (403, "GatedRepo", "Access to model owner/gated is restricted."),
    "unknown": (404, "RepoNotFound", "Repository not found"),
    "norev": (404, "RevisionNotFound", "Invalid rev id"),
    "token": (401, None, "Invalid credentials in Authorization header"),
    "broken": (500, None, "Internal error"),
}


@pytest.fixture
def fake_hub():
    """A server on this machine that refuses as the Hub does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = next((name for name in HUB_ANSWERS if f"/{name}" in self.path), "unknown")
            status, code, message = HUB_ANSWERS[name]
            body = json.dumps({"error": message}).encode()
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_the_hub_refuses_is_said_with_what_to_do(tiny_env, in_another_process, fake_hub, tmp_path):
    """The real huggingface_hub against a server that answers as the Hub does, for base and adapter."""
    cases = [(v, name) for name in HUB_ANSWERS for v in ("BASE_MODEL", "ADAPTER")]
    cases.remove(("BASE_MODEL", "broken"))  # transformers tries for 20 seconds
    out = in_another_process(
        """
import json, os, sys
from pricer.errors import SetupError
from pricer.llama.pair import load_pair
from pricer.settings import Settings

answers = []
for variable, name in json.loads(sys.argv[1]):
    try:
        load_pair(Settings.from_env({**os.environ, f"PRICER_{variable}": f"owner/{name}"}))
    except SetupError as error:
        answers.append(str(error))
print(json.dumps(answers))
""",
        json.dumps(cases),
        **tiny_env(),
        HF_ENDPOINT=fake_hub,
        HF_HUB_OFFLINE="0",
        HF_HOME=str(tmp_path),
        HF_TOKEN="hf_wrong",
    )
    answers = dict(zip(cases, json.loads(out.splitlines()[-1]), strict=True))
    for (variable, name), message in answers.items():
        assert "\n" not in message and message.endswith("."), message
        assert f"owner/{name}" in message
        if name == "gated":
            assert message == "No access to owner/gated: accept its licence on its page, then set HF_TOKEN."
        elif name == "token":
            assert "HF_TOKEN" in message
        else:
            assert f"PRICER_{variable}" in message
            assert ("does not answer" if name == "broken" else "knows no") in message


def test_the_hub_does_not_answer(refused):
    # HF_HUB_OFFLINE is set for all tests: the same error class as a Hub out of reach.
    for variable in ("base_model", "adapter"):
        message = refused(**{variable: "owner/llama@v1"})
        assert (
            "does not answer" in message and "network" in message and f"PRICER_{variable.upper()}" in message
        )


def hub_errors():
    import httpx
    from huggingface_hub import errors

    request = httpx.Request("GET", "https://huggingface.co/api/models/owner/llama")

    def http_error(kind, status):
        return kind(f"{status} Client Error.\n\nDetails", response=httpx.Response(status, request=request))

    return [
        (http_error(errors.GatedRepoError, 403), "accept its licence"),
        (http_error(errors.RepositoryNotFoundError, 404), "knows no owner/llama"),
        (http_error(errors.RevisionNotFoundError, 404), "knows no owner/llama"),
        (errors.LocalEntryNotFoundError("not in the cache"), "does not answer"),
        (errors.OfflineModeIsEnabled("offline"), "does not answer"),
        (TimeoutError("timed out"), "does not answer"),
        (ConnectionResetError(104, "reset"), "does not answer"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space"),
        (RuntimeError("something else\nwith details"), "something else"),
        (ValueError(""), "ValueError"),
    ]


@pytest.mark.parametrize("case", range(10))
def test_errors_while_fetching_an_adapter(refused, monkeypatch, case):
    error, says = hub_errors()[case]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    assert says in refused(adapter="owner/llama")


@pytest.mark.parametrize("case", range(8))
def test_errors_while_fetching_a_base(refused, monkeypatch, case):
    error, says = hub_errors()[case]

    def fail(*_, **__):  # transformers wraps what the Hub's client raises
        raise OSError("You are trying to access a model.\nMake sure that ...") from error

    monkeypatch.setattr(AutoConfig, "from_pretrained", fail)
    assert says in refused(base_model="owner/llama")


def test_only_an_adapters_own_files_are_fetched(tiny_model_folder, monkeypatch):
    asked = {}

    def fetch(repo, **options):
        asked.update(options, repo=repo)
        return str(tiny_model_folder / "adapter")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    load_adapter_card(Settings.from_env({"PRICER_ADAPTER": "owner/llama@v2"}))
    assert (asked["repo"], asked["revision"]) == ("owner/llama", "v2")
    assert not any(
        Path(name).match(p) for p in asked["allow_patterns"] for name in ("training_args.bin", "x.py")
    )


def test_the_hubs_retries_do_not_reach_the_terminal():
    expect_answers()
    assert not logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)


def test_freed_memory_is_given_back_only_where_it_is_much(monkeypatch):
    given, resident = [], iter([500, 600, 620, 900, 700])
    libc = SimpleNamespace(malloc_trim=given.append)
    monkeypatch.setattr(loading.ctypes, "CDLL", lambda name: libc)
    monkeypatch.setattr(loading, "_resident", lambda: next(resident))
    monkeypatch.setattr(loading, "_least_resident", 0)
    loading.give_memory_back()  # 500 stay
    loading.give_memory_back(spare=150)  # 600
    loading.give_memory_back(spare=150)  # 620
    assert len(given) == 1
    loading.give_memory_back(spare=150)  # 900, and 700 stay
    assert len(given) == 2 and loading._least_resident == 700
