"""The panels that are words: slices in which B stands out, and what every term means."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from urllib.parse import parse_qs, urlencode

from pricer.arena.arena import Arena
from pricer.arena.findings import FEWEST, LEVEL, Findings, Slice
from pricer.arena.metrics import HIT_SHARE
from pricer.arena.records import FEWEST_ITEMS
from pricer.arena.resampling import RESAMPLES
from pricer.arena.view import View
from pricer.ui.evaluate import text
from pricer.ui.evaluate.html import button, category, dollars, in_colour, run_names


def slices(arena: Arena, view: View) -> str:
    """The slices in which B loses and wins most against A, each a sentence with a button that looks at it."""
    if view.chosen_by_guess:
        return f'<p class="hint">{text.PICKED_BY_GUESS}</p>'
    found = arena.findings(view)
    names = run_names(arena.infos[view.run_a], arena.infos[view.run_b])
    shown = {end: in_colour(end, name) for end, name in names.items()}
    if not found.looked_at:
        return f'<p class="hint">{text.SLICES_NONE.format(fewest=FEWEST)}</p>'
    note = text.SLICES_NOTE.format(
        looked_at=found.looked_at, fewest=FEWEST, share=100 * LEVEL, level=100 * found.level
    )
    lists = "".join(
        f"<section><h4>{title.format(**shown)}</h4>{_list(of, shown)}</section>"
        for title, of in ((text.SLICES_LOST, found.losses), (text.SLICES_WON, found.wins))
    )
    return f'<p class="hint">{note}</p><div class="slices">{lists}</div>'


def _list(found: list[Slice], names: dict[str, str]) -> str:
    if not found:
        return f'<p class="hint">{text.SLICES_QUIET}</p>'
    rows = "".join(
        f"<li>{_sentence(one, names)} {button(text.SLICE_LOOK, 'slice', slice_value(one), aria_label=_label(one))}</li>"
        for one in found
    )
    return f"<ul>{rows}</ul>"


def _sentence(one: Slice, names: dict[str, str]) -> str:
    ends = sorted((abs(one.low_usd), abs(one.high_usd)))
    return text.SLICE.format(
        where=escape(slice_name(one)),
        items=one.items,
        gap=dollars(abs(one.gap_usd)),
        low=dollars(ends[0]),
        high=dollars(ends[1]),
        direction=text.LARGER if one.gap_usd > 0 else text.SMALLER,
        **names,
    )


def _label(one: Slice) -> str:
    return f"{text.SLICE_LOOK}: {slice_name(one)}"


def slice_name(one: Slice) -> str:
    """A slice in words. Not escaped."""
    if one.word:
        return text.SLICE_WORD.format(word=one.word)
    if one.below_usd is None:
        return text.SLICE_OVER.format(category=category(one.category), low=one.from_usd)
    return text.SLICE_BAND.format(category=category(one.category), low=one.from_usd, high=one.below_usd)


def slice_value(one: Slice) -> str:
    """What a button says of its slice; `look_at_slice` reads it."""
    below = "" if one.below_usd is None else one.below_usd
    return urlencode({"category": one.category, "from": one.from_usd, "below": below, "word": one.word})


def look_at_slice(arena: Arena, view: View, value: str) -> View:
    """The view of a slice's items. The value comes from the browser: only a slice that is found is looked at."""
    found: Findings = arena.findings(view)
    one = next((s for s in (*found.losses, *found.wins) if parse_qs(slice_value(s)) == parse_qs(value)), None)
    if one is None:
        return view
    if one.word:
        return replace(view, words=f'{view.words} "{one.word}"'.strip())
    # A band's upper end belongs to the next one, and prices have cents.
    high = view.high_usd if one.below_usd is None else round(one.below_usd - 0.01, 2)
    return replace(
        view,
        categories=(one.category,),
        low_usd=max(one.from_usd, view.low_usd or 0) or None,
        high_usd=high if view.high_usd is None or high is None else min(high, view.high_usd),
    )


def terms() -> str:
    """Every term of the tab and what it means."""
    words = {name: meaning for name, meaning, *_ in text.METRICS.values()}
    words |= {
        name: meaning.format(hit=100 * HIT_SHARE, resamples=RESAMPLES, fewest=FEWEST_ITEMS)
        for name, meaning in text.TERMS.items()
    }
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(words[name])}</dd>" for name in sorted(words, key=str.casefold)
    )
    return f'<dl class="terms">{rows}</dl>'
