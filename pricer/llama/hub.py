"""The Hugging Face Hub: no waiting for ever when it says nothing; what would go up, and one commit with it.

Uploads are those of `train.publish` (an adapter) and `pricer.space` (the app). What belongs to each, they know themselves.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_session,
    get_token,
    set_client_factory,
)

from pricer.errors import SetupError

SILENCE_SECONDS = 20.0  # after which the Hub counts as gone, when something is read from it
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

Content = Path | bytes  # a file as it is, or what was made here


def expect_answers() -> None:
    """From here on, reading from the Hub fails when nothing comes for SILENCE_SECONDS, where the caller sets no time.

    For some answers (a repository's revision) the Hub's client would wait without end, and a Hub that takes the
    connection and says nothing would hold up the start for ever. A download may take as long as it goes on. Its client
    does not tell the terminal of every retry either: what comes of them is said once, by who asked.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    plain = get_session()
    kind, hooks = type(plain), dict(plain.event_hooks)
    if _bound not in hooks["request"]:
        hooks["request"] = [*hooks["request"], _bound]
        set_client_factory(lambda: kind(event_hooks=hooks, follow_redirects=True, timeout=None))


def _bound(request: Any) -> None:
    if request.method in ("GET", "HEAD"):
        given = request.extensions.get("timeout") or {}
        phases = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = {phase: given.get(phase) or SILENCE_SECONDS for phase in phases}


def is_silent(model: str, revision: str | None) -> bool:
    """Whether the Hub takes the question for this model and says nothing; what it says is for others to judge."""
    try:
        HfApi().model_info(model, revision=revision, timeout=SILENCE_SECONDS)
    except Exception as error:  # of httpx or httpx2, by the version of the Hub's client
        return "Timeout" in type(error).__name__
    return False


def size(content: Content) -> int:
    """In bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def listing(files: Mapping[str, Content]) -> str:
    """One line a file with its size in bytes, and their sum."""
    lines = [f"{size(content):>15,}  {name}" for name, content in sorted(files.items())]
    return "\n".join([*lines, f"{sum(map(size, files.values())):>15,}  bytes in {len(files)} files"])


def upload(
    files: Mapping[str, Content],
    repository: str,
    message: str,
    *,
    kind: str = "model",
    private: bool = False,
    keep_exactly: Collection[str] = (),
) -> str:
    """Make the repository if need be and upload everything in one commit; returns its address.

    kind: "model", or "space" for a Gradio Space. keep_exactly: folders (`pricer/`) in which the same commit deletes
    what is not in `files`. Raises SetupError, with what to do, without a token, without the right to write, and
    without the Hub.
    """
    if get_token() is None:
        raise SetupError(
            "The Hub needs a token that may write: run `hf auth login`, or set HF_TOKEN (huggingface.co/settings/tokens)."
        )
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in sorted(files.items())
    ]
    api = HfApi()
    try:
        sdk = {"space_sdk": "gradio"} if kind == "space" else {}
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True, **sdk)
        there = api.list_repo_files(repository, repo_type=kind) if keep_exactly else []
        operations += [
            CommitOperationDelete(name)
            for name in there
            if name not in files and name.startswith(tuple(keep_exactly))
        ]
        commit = api.create_commit(repository, operations, commit_message=message, repo_type=kind)
    except Exception as error:  # what the Hub's client raises has no common type
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise SetupError(
                f"The Hub refuses {repository}: set HF_TOKEN to a token that may write there, or name another repository."
            ) from error
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise SetupError(
            f"The Hub did not take {repository} ({reason}): check the network, and try again."
        ) from error
    return str(commit.repo_url)
