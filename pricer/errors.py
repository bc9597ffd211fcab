"""The two errors that are written for users: one clear sentence each, saying what to do."""


class PricerError(Exception):
    """A failure whose message is shown to the user as it stands, without a traceback."""


class InputError(PricerError):
    """What the user gave cannot be used (empty text, a bad row, an unknown rule)."""


class SetupError(PricerError):
    """The installation or its settings cannot be used (no adapter, no access, wrong base)."""
