"""Small pieces of the Evaluation tab's HTML that its parts share: terms, buttons, dollars, intervals, names."""

from __future__ import annotations

from html import escape

import numpy as np

from pricer.arena.resampling import Estimate
from pricer.arena.runs import RunInfo
from pricer.ui.evaluate import text
from pricer.ui.parts import alert, term

END = {"a": '<b class="run-a">A</b>', "b": '<b class="run-b">B</b>'}
SIGNS = {"hit": "●", "near": "◆", "miss": "✕"}


def button(words: str, do: str, value: str = "", *, classes: str = "chip", **attributes: str) -> str:
    """A button for `Actions`; the words are HTML, the rest is escaped here."""
    more = "".join(f' {name.replace("_", "-")}="{escape(words)}"' for name, words in attributes.items())
    return (
        f'<button type="button" class="{classes}" data-do="{do}" data-value="{escape(value)}"{more}>'
        f"{words}</button>"
    )


def notice(sentence: str) -> str:
    """A sentence that stands out; it is HTML."""
    return f'<p class="notice">{sentence}</p>'


def complaint(*sentences: object) -> str:
    """What went wrong; nothing where nothing did."""
    return alert(" ".join(str(sentence) for sentence in sentences)) if sentences else ""


def badges(info: RunInfo) -> str:
    marks = f'<span class="badge kind-{info.kind}">{text.KINDS[info.kind]}</span>'
    if info.published:
        meaning = text.PUBLISHED_HELP.format(origin=info.origin)
        marks += f'<span class="badge">{term(text.PUBLISHED, meaning)}</span>'
    return f'<span class="badges">{marks}</span>'


# Names ---------------------------------------------------------------------------------------------------


def category(name: str) -> str:
    """A category as it is read: without underscores. Not escaped."""
    return name.replace("_", " ")


def run_names(a: RunInfo, b: RunInfo) -> dict[str, str]:
    """What A and B are called in a sentence: by model where that tells them apart, else by label. Not escaped."""
    names = {"a": _called(a), "b": _called(b)}
    return names if names["a"] != names["b"] else {"a": a.label, "b": b.label}


def _called(info: RunInfo) -> str:
    if info.kind not in text.CALLED or not info.base_model:
        return info.label
    model = info.base_model.split("/")[-1].removesuffix("-Instruct").replace("-", " ")
    return text.CALLED[info.kind].format(model=model)


def in_colour(end: str, name: str) -> str:
    return f'<b class="run-{end}">{escape(name)}</b>'


# Figures -------------------------------------------------------------------------------------------------


def dollars(value: float) -> str:
    return f"${value:,.2f}"


def signed_dollars(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{dollars(abs(value))}"


def off(guess_usd: float, price_usd: float) -> str:
    away = round(guess_usd - price_usd, 2)
    if not away:
        return text.EXACT
    return (text.TOO_HIGH if away > 0 else text.TOO_LOW).format(off=dollars(abs(away)))


def between(low: str, high: str, word: str) -> str:
    """Two ends of an interval, each in one piece wherever the line breaks; a percent sign behind the last is enough."""
    if high.endswith(" %"):
        low = low.removesuffix(" %")
    return f"<i>{low}</i> {word} <i>{high}</i>"


def minus(written: str) -> str:
    return written.replace("-", "−")


def interval_end(form: str, value: float) -> str:
    """An interval's end: it is no sharper than whole dollars, unless it is small."""
    return f"${value:,.0f}" if form.startswith("$") and abs(value) >= 10 else form.format(value)


def estimate(found: Estimate | None, form: str) -> str:
    """A figure with its interval under it."""
    if found is None or not np.isfinite(found.value):
        return f'<span class="none">{text.NOT_KNOWN}</span>'
    ends = (interval_end(form, found.low), interval_end(form, found.high))
    interval = between(*ends, "–") if np.isfinite(found.low) else ""
    return f'<b>{minus(form.format(found.value))}</b><span class="interval">{minus(interval)}</span>'


def signed_ends(found: Estimate) -> list[str]:
    ends = (found.low, found.high)
    return [f"{'−' if end < 0 else '+'}{interval_end('${:,.2f}', abs(end))}" for end in ends]
