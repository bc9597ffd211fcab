"""The two errors that are written for users: one clear sentence each, saying what to do; and how others are told of."""

from __future__ import annotations

import sys


class PricerError(Exception):
    """A failure whose message is shown to the user as it stands, without a traceback."""


class InputError(PricerError):
    """What the user gave cannot be used (empty text, a bad row, an unknown rule)."""


class SetupError(PricerError):
    """The installation or its settings cannot be used (no adapter, no access, wrong base)."""


def reason(error: BaseException) -> str:
    """What a library's error says, in one line of 200 characters at most, to stand inside a sentence of ours."""
    return getattr(error, "strerror", None) or str(error).strip().split("\n")[0][:200] or type(error).__name__


def report(error: PricerError | OSError) -> int:
    """How every command ends in an error: its sentence on stderr, and the exit status that this returns. An OSError
    is a file that cannot be read or written, such as on a full disk: all commands go on where they stopped."""
    if isinstance(error, PricerError):
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    what = error.strerror or str(error).partition("\n")[0]
    if error.filename:
        what += f": {error.filename}"
    print(
        f"Stopped, a file cannot be read or written ({what}): mend that, and the same command goes on.",
        file=sys.stderr,
    )
    return 1
