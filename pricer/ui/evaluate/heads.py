"""The upper part of the Evaluation tab in HTML: entrance, item set, pairs, verdict, figures, what narrows the items."""

from __future__ import annotations

from html import escape

import numpy as np

from pricer.arena.arena import Arena
from pricer.arena.metrics import HIT_SHARE
from pricer.arena.records import FEWEST_ITEMS, HeadToHead, Narrowed
from pricer.arena.resampling import RESAMPLES, Estimate
from pricer.arena.runs import RunInfo
from pricer.arena.view import EMBEDDED_PAIR, SEED_PAIR, View
from pricer.figures.style import OUTCOME_COLOURS, usd
from pricer.ui.evaluate import text
from pricer.ui.evaluate.html import (
    END,
    SIGNS,
    between,
    button,
    category,
    dollars,
    estimate,
    in_colour,
    interval_end,
    run_names,
    signed_dollars,
)
from pricer.ui.parts import term

HEADLINE = ("error_usd", "hits_pct")  # the figures beside the verdict; the others are folded away


def opening() -> str:
    """What one sees, and where to begin."""
    begin = button(text.BEGIN, "preset", "worst-b", classes="inline")
    guess = button(text.GUESS_YOURSELF, "panel", "guess", classes="inline")
    also = f'<span class="also">{text.ALSO.format(guess=guess)}</span>'
    return f'<p class="opening">{text.OPENING.format(begin=begin)} {also}</p>'


def sets(view: View, known: dict[str, int]) -> str:
    """The switch between the item sets; `known`: how many runs each has."""
    chips = [
        button(
            name,
            "set",
            key,
            title=meaning if known.get(key) else text.SET_EMPTY,
            aria_pressed="true" if view.item_set == key else "false",
            **({} if known.get(key) else {"disabled": ""}),
        )
        for key, (name, meaning) in text.SETS.items()
    ]
    return f'<div class="chips switch" role="group" aria-label="{text.SET_LABEL}">{"".join(chips)}</div>'


def pairs(arena: Arena, view: View, compared: tuple[str, str] | None) -> str:
    """Which models these are, the two pairs on one click each, swap, and the link. `compared`: the Compare tab's."""
    shown = (view.run_a, view.run_b)
    ours = {"compare": compared} if compared else {"embedded": EMBEDDED_PAIR}
    parts = []
    if shown == SEED_PAIR != compared:
        parts.append(f'<span class="hint">{text.SEED_SHOWN}</span>')
    for name, pair in (ours | {"seed": SEED_PAIR}).items():
        if set(pair) <= set(arena.runs):
            pressed = "true" if shown == pair else "false"
            parts.append(button(text.PAIRS[name], "pair", name, aria_pressed=pressed))
    parts.append(button(text.SWAP, "swap"))
    parts.append(
        f'<button type="button" class="chip link-button" data-copy="{escape(view.to_query())}" '
        f'data-done="{text.COPIED}">{text.COPY_LINK}</button>'
    )
    return f'<div class="chips">{"".join(parts)}</div>'


# Verdict and figures -------------------------------------------------------------------------------------


def verdict(arena: Arena, view: View, narrowed: Narrowed, figures: HeadToHead | None) -> str:
    """Who is closer, in a sentence, and on how many items; beside it the headline figures."""
    names = run_names(arena.infos[view.run_a], arena.infos[view.run_b])
    if figures is None:
        return f'<p class="verdict">{_nothing(arena, view, narrowed)}</p>'
    shown = {end: in_colour(end, name) for end, name in names.items()}
    whole = figures.items == narrowed.shared
    where = (text.ALL_SHARED if whole else text.SOME_SHARED).format(
        items=figures.items, shared=narrowed.shared
    )
    gap = figures.difference["error_usd"]
    interval = term(text.INTERVAL_TERM, text.BOOTSTRAP_HELP.format(resamples=RESAMPLES))
    found = figures.verdict
    if found in ("a", "b"):
        ends = sorted([abs(gap.low), abs(gap.high)])
        sentence = text.CLOSER_RUN.format(
            winner=shown[found],
            gap=dollars(abs(gap.value)),
            low=dollars(ends[0]),
            high=dollars(ends[1]),
            interval=interval,
        )
    elif found == "few":
        why = text.FEW_ITEMS if figures.items < FEWEST_ITEMS else text.TESTS_DISAGREE
        sentence = term(text.TOO_FEW, why.format(fewest=FEWEST_ITEMS)) + "."
    else:
        sentence = text.NO_CLEAR_WINNER.format(
            **shown,
            gap=signed_dollars(gap.value),
            low=signed_dollars(gap.low),
            high=signed_dollars(gap.high),
            interval=interval,
        )
    note = f'<p class="hint">{text.PICKED_BY_GUESS}</p>' if view.chosen_by_guess else ""
    return f'<div class="head"><div><p class="verdict">{where}{sentence}</p>{note}</div>{_headline(names, figures)}</div>'


def _nothing(arena: Arena, view: View, narrowed: Narrowed) -> str:
    if not narrowed.shared:
        return text.NOTHING_SHARED
    fields = arena.contradiction(view)
    names = [f"“{escape(chip_name(field, getattr(view, field)))}”" for field in fields]
    if len(names) < 2:
        return text.NOTHING_LEFT.format(filter="".join(names))
    return text.CONTRADICTION.format(filters=f"{', '.join(names[:-1])} {text.AND} {names[-1]}")


def _headline(names: dict[str, str], figures: HeadToHead) -> str:
    heads = "".join(f'<th scope="col">{term(*text.METRICS[metric][:2])}</th>' for metric in HEADLINE)
    rows = "".join(
        f'<tr class="{end}"><th scope="row"><span class="run-{end}">{end.upper()}</span> <span>{escape(name)}</span></th>'
        + "".join(
            f'<td class="{metric}">{estimate(getattr(figures, end)[metric], text.METRICS[metric][2])}</td>'
            for metric in HEADLINE
        )
        + "</tr>"
        for end, name in names.items()
    )
    return f'<table class="headline"><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def more_figures(view: View, figures: HeadToHead | None) -> str:
    """How the items fall, the permutation test, and every metric of A, B and their difference."""
    if figures is None:
        return ""
    counts = text.COUNTS.format(
        wins_a=figures.wins_a, ties=figures.ties, wins_b=figures.wins_b, a=END["a"], b=END["b"]
    )
    if not view.chosen_by_guess:
        p_value = "< 0.001" if figures.p_value < 0.001 else f"= {figures.p_value:.3f}"
        value = text.P_VALUE.format(term=term(text.P_VALUE_TERM, text.P_VALUE_HELP), value=escape(p_value))
        counts += f" · {value}"
    return f'{_wins_bar(figures)}<p class="counts">{counts}</p>{metrics_table(figures)}<p class="hint">{text.HITS_NOTE}</p>'


def _wins_bar(figures: HeadToHead) -> str:
    parts = (("b", figures.wins_b), ("tie", figures.ties), ("a", figures.wins_a))
    spans = "".join(
        f'<span class="{name}" style="flex-grow:{count}"></span>' for name, count in parts if count
    )
    return f'<div class="wins" aria-hidden="true">{spans}</div>'


def metrics_table(figures: HeadToHead) -> str:
    """A, B and their difference by metric, each with its interval; metrics that neither has are left out."""
    rows = []
    telling = figures.items >= FEWEST_ITEMS
    for name, (label, meaning, form, more_is_better) in text.METRICS.items():
        if name in figures.a or name in figures.b:
            cells = [estimate(end.get(name), form) for end in (figures.a, figures.b)]
            difference = _difference(figures.difference.get(name), form, more_is_better, telling)
            rows.append(
                f'<tr role="row"><th scope="row" role="rowheader">{term(label, meaning)}</th>'
                f'<td role="cell">{cells[0]}</td><td role="cell">{cells[1]}</td><td role="cell">{difference}</td></tr>'
            )
    heads = f'<th scope="col"></th><th scope="col">{END["a"]}</th><th scope="col">{END["b"]}</th>'
    # Set in columns on a wide page, which takes the table's meaning from it: hence the roles.
    return (
        f'<table class="figures" role="table"><thead role="rowgroup"><tr role="row">{heads}'
        f'<th scope="col">{text.DIFFERENCE_HEAD}</th></tr></thead><tbody role="rowgroup">{"".join(rows)}</tbody></table>'
    )


def _difference(found: Estimate | None, form: str, more_is_better: bool | None, telling: bool) -> str:
    if found is None or not np.isfinite(found.value):
        return '<span class="none">–</span>'
    form = form.replace(" %", text.POINTS)  # a difference of two percentages is in points

    def signed(written: str, value: float) -> str:
        return f"{'−' if value < 0 else '+'}{written}"

    tag = ""
    if not telling:
        tag = f'<span class="tag">{term(text.FEW_TAG, text.FEW_ITEMS.format(fewest=FEWEST_ITEMS))}</span>'
    elif found.low <= 0 <= found.high:
        tag = f'<span class="tag">{term(text.NOISE, text.NOISE_HELP)}</span>'
    elif more_is_better is not None:
        winner = "b" if (found.value > 0) == more_is_better else "a"
        tag = f'<span class="tag {winner}">{text.BETTER.format(winner=winner.upper())}</span>'
    ends = [
        signed(interval_end(form, abs(value)), value).removesuffix(text.POINTS)
        for value in (found.low, found.high)
    ]
    interval = between(*ends, "to") if np.isfinite(found.low) else ""
    value = signed(form.format(abs(found.value)), found.value)
    return f'<b>{value}</b><span class="interval">{interval}</span>{tag}'


# Narrowing down ------------------------------------------------------------------------------------------


def presets(view: View) -> str:
    chips = [
        button(name, "preset", key, title=meaning, aria_pressed="true" if view.preset == key else "false")
        for key, (name, meaning) in text.PRESETS.items()
    ]
    return f'<div class="chips"><span class="hint">{text.LOOK_CLOSER}</span>{"".join(chips)}</div>'


def active(view: View, narrowed: Narrowed) -> str:
    """How many items are left, a removable chip for all that narrows them, reset."""
    count = text.ITEMS_LEFT.format(items=len(narrowed.rows), shared=narrowed.shared)
    chips = []
    for field in text.CHIPS:
        value = getattr(view, field)
        if value in ((), None, "", 0.0):
            continue
        name = chip_name(field, value)
        chips.append(
            button(
                f'{escape(name)} <span aria-hidden="true">✕</span>',
                "remove",
                field,
                classes="chip on",
                aria_label=text.REMOVE.format(name=name),
            )
        )
    if chips:
        chips.append(button(text.RESET, "reset", classes="chip plain"))
    chips.append(button(text.EXPORT, "export", classes="chip plain", title=text.EXPORT_HELP))
    return f'<div class="chips" aria-live="polite"><span class="count">{count}</span>{"".join(chips)}</div>'


def chip_name(field: str, value) -> str:
    """What a filter is called. Not escaped."""
    if field == "selection":
        value = text.SELECTED_ITEMS.format(count=len(value))
    elif field == "preset":
        value = text.PRESETS[value][0]
    elif isinstance(value, float):
        value = usd(value)
    elif isinstance(value, tuple):
        value = ", ".join(category(part) for part in value)
    return text.CHIPS[field].format(value=value)


# Over the plots ------------------------------------------------------------------------------------------


def legend(view: View) -> str:
    words = text.LEGENDS[view.by_share]
    marks = [
        f'<span><i style="color:{OUTCOME_COLOURS[name]}" aria-hidden="true">{SIGNS[name]}</i> {term(word, meaning)}</span>'
        for name, (word, meaning) in words.items()
    ]
    return f'<div class="legend">{"".join(marks)}</div>'


def scatter_title(end: str, info: RunInfo, figures: HeadToHead | None, within_pct: float | None) -> str:
    """`within_pct`: the share of the run's guesses within 20 % of the price, where marks are coloured by that."""
    title = text.SCATTER_TITLES[end].format(label=escape(info.label))
    share = ""
    if within_pct is not None:
        meaning = text.WITHIN_HELP.format(hit=100 * HIT_SHARE)
        share = f'<span class="hits">{term(text.WITHIN.format(pct=within_pct), meaning)}</span>'
    elif figures:
        name, meaning, form, _ = text.METRICS["hits_pct"]
        value = form.format(getattr(figures, end)["hits_pct"].value)
        share = f'<span class="hits">{value} {term(name.lower(), meaning)}</span>'
    return f'<h4 class="run-{end}"><span title="{escape(info.label)}">{title}</span>{share}</h4>'
