"""Small pieces of HTML that all tabs share."""

from __future__ import annotations

from html import escape


def term(words: str, meaning: str) -> str:
    """Words (HTML) that explain themselves on tap, focus and hover; page.js shows `data-tip`."""
    return f'<abbr tabindex="0" role="button" aria-description="{escape(meaning)}" data-tip="{escape(meaning)}">{words}</abbr>'


def percent(share: float, digits: int = 0) -> str:
    """`66 %` for 0.66."""
    return f"{100 * share:.{digits}f} %"


def alert(words: str) -> str:
    """A sentence about what went wrong; the words are escaped here."""
    return f'<p class="notice problem" role="alert">{escape(words)}</p>'
