"""What a partial result was made of, kept beside it, so that nothing goes on with what is of something else.

    {"input": "9f86d0…", "adapter weights": "60303a…", "rule": "median", …}

The keys are the words in which a refusal names what differs. Where results of many kinds lie in one folder (scored
rows, teachers' labels) the manifest's `key` is in the file's name instead: another one is then simply not found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pricer.errors import InputError
from pricer.files import write_whole

_NAMED = 6  # differences that a sentence names at most
_SHOWN = 22  # characters of a value that a sentence shows; a longer one (a hash, a question) is only named


@dataclass(frozen=True)
class Manifest:
    """What a result hangs on: hashes of data and weights, and settings, as JSON values by name."""

    made_of: Mapping[str, Any]

    def __post_init__(self) -> None:
        # As it comes back from a file: a tuple is a list there.
        object.__setattr__(self, "made_of", json.loads(json.dumps(dict(self.made_of), default=str)))

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """The manifest that `as_line` wrote; one that says nothing for a torn or damaged text."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        return cls(found if isinstance(found, dict) else {})

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """The manifest in a file, None where there is no file."""
        try:
            return cls.parse(path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None

    def write(self, path: Path) -> None:
        text = json.dumps(self.made_of, indent=1, ensure_ascii=False) + "\n"
        write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))

    def as_line(self) -> str:
        return json.dumps(self.made_of)

    @property
    def key(self) -> str:
        """A name for files that are made of this."""
        return hashlib.sha256(json.dumps(self.made_of, sort_keys=True).encode()).hexdigest()[:24]

    def check(self, found: Manifest, place: Path) -> None:
        """Raises InputError when what was found at `place` is made of something else than this."""
        differing = differences(found, self)
        if not differing:
            return
        what = f"with other {_listed(differing)}: give the command as it was,"
        if not found.made_of:
            what = "that does not say what it was made of:"
        raise InputError(f"{place} holds a run {what} name another output, or begin anew with --restart.")


def content_key(values: Iterable[Any]) -> str:
    """For a manifest: texts, numbers and the like, in their order."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(f"{json.dumps(value, default=str)}\n".encode())
    return digest.hexdigest()


def differences(old: Manifest, new: Manifest) -> list[str]:
    """What differs, in words: `rule (median, now mean)`."""
    names = [
        name for name in new.made_of if name not in old.made_of or old.made_of[name] != new.made_of[name]
    ]
    gone = [name for name in old.made_of if name not in new.made_of]
    return [
        *(_in_words(name, old.made_of.get(name, _NOTHING), new.made_of[name]) for name in names),
        *(_in_words(name, old.made_of[name], _NOTHING) for name in gone),
    ]


_NOTHING = object()


def _in_words(name: str, old: Any, new: Any) -> str:
    if old is _NOTHING:
        return f"{name} (not recorded)"
    if new is _NOTHING:
        return f"{name} (now none)"
    shown = [_shown(value) for value in (old, new)]
    return name if None in shown else f"{name} ({shown[0]}, now {shown[1]})"


def _shown(value: Any) -> str | None:
    """A value as a sentence shows it, None when it is not to be read."""
    if isinstance(value, list):
        parts = [_shown(part) for part in value]
        text = "" if None in parts else " ".join(parts)
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    readable = 0 < len(text) <= _SHOWN and text.isprintable() and not isinstance(value, dict)
    return text if readable else None


def _listed(words: list[str]) -> str:
    if len(words) > _NAMED:
        words = [*words[: _NAMED - 1], f"{len(words) - _NAMED + 1} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
