"""The two errors that are written for users: one clear sentence each, saying what to do."""

from __future__ import annotations

import sys


class PricerError(Exception):
    """A failure whose message is shown to the user as it stands, without a traceback."""


class InputError(PricerError):
    """What the user gave cannot be used (empty text, a bad row, an unknown rule)."""


class SetupError(PricerError):
    """The installation or its settings cannot be used (no adapter, no access, wrong base)."""


def report(error: PricerError) -> int:
    """How every command ends in an error: its sentence on stderr, and the exit status that this returns."""
    print(error, file=sys.stderr)
    return 2 if isinstance(error, InputError) else 1
