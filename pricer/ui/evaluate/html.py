"""The Evaluation tab's HTML: verdict, figures, chips, leaderboard, one item. Data in, escaped HTML out."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import numpy as np

from pricer.arena.arena import Arena
from pricer.arena.metrics import outcome
from pricer.arena.records import HeadToHead, Item, Leaderboard, Narrowed, Standing
from pricer.arena.resampling import RESAMPLES, Estimate
from pricer.arena.runs import RunInfo
from pricer.arena.view import EMBEDDED_PAIR, SEED_PAIR, SORTS, View
from pricer.figures.style import OUTCOME_COLOURS, usd
from pricer.ui.evaluate import text

END = {"a": '<b class="run-a">A</b>', "b": '<b class="run-b">B</b>'}
SIGNS = {"hit": "●", "near": "◆", "miss": "✕"}


def term(words: str, meaning: str) -> str:
    """Words that explain themselves on hover and on keyboard focus."""
    return f'<abbr tabindex="0" title="{escape(meaning)}" data-tip="{escape(meaning)}">{words}</abbr>'


def button(words: str, do: str, value: str = "", *, classes: str = "chip", **attributes: str) -> str:
    """A button for `Actions`; the words are HTML, the rest is escaped here."""
    more = "".join(f' {name.replace("_", "-")}="{escape(words)}"' for name, words in attributes.items())
    return (
        f'<button type="button" class="{classes}" data-do="{do}" data-value="{escape(value)}"{more}>'
        f"{words}</button>"
    )


# Head to head --------------------------------------------------------------------------------------------


def pairs(arena: Arena, view: View) -> str:
    """Swap, the two pairs on one click each, and the link."""
    parts = [button(text.SWAP, "swap")]
    for name, pair in (("seed", SEED_PAIR), ("embedded", EMBEDDED_PAIR)):
        if set(pair) <= set(arena.runs):
            pressed = "true" if (view.run_a, view.run_b) == pair else "false"
            parts.append(button(text.PAIRS[name], "pair", name, aria_pressed=pressed))
    parts.append(
        f'<button type="button" class="chip link-button" data-copy="{escape(view.to_query())}" '
        f'data-done="{text.COPIED}">{text.COPY_LINK}</button>'
    )
    return f'<div class="chips">{"".join(parts)}</div>'


def verdict(view: View, narrowed: Narrowed, figures: HeadToHead | None) -> str:
    """Who is closer, in a sentence, and on how many items."""
    if figures is None:
        words = text.NOTHING_LEFT if narrowed.shared else text.NOTHING_SHARED
        return f'<p class="verdict">{words}</p>'
    whole = figures.items == narrowed.shared
    where = (text.ALL_SHARED if whole else text.SOME_SHARED).format(
        items=figures.items, shared=narrowed.shared
    )
    gap = figures.difference["error_usd"]
    interval = term(text.INTERVAL_TERM, text.BOOTSTRAP_HELP.format(resamples=RESAMPLES))
    if gap.low > 0 or gap.high < 0:
        ends = sorted([abs(gap.low), abs(gap.high)])
        sentence = text.CLOSER_RUN.format(
            winner=END["b" if gap.value < 0 else "a"],
            gap=_dollars(abs(gap.value)),
            low=_dollars(ends[0]),
            high=_dollars(ends[1]),
            interval=interval,
        )
    else:
        sentence = text.NO_CLEAR_WINNER.format(
            gap=_signed_dollars(gap.value),
            low=_signed_dollars(gap.low),
            high=_signed_dollars(gap.high),
            interval=interval,
        )
    counts = text.COUNTS.format(
        wins_a=figures.wins_a, ties=figures.ties, wins_b=figures.wins_b, a=END["a"], b=END["b"]
    )
    if view.chosen_by_guess:
        note = f'<p class="notice">{text.PICKED_BY_GUESS}</p>'
    else:
        p_value = "< 0.001" if figures.p_value < 0.001 else f"= {figures.p_value:.3f}"
        value = text.P_VALUE.format(term=term(text.P_VALUE_TERM, text.P_VALUE_HELP), value=escape(p_value))
        counts += f" · {value}"
        note = ""
    return f'<p class="verdict">{where}{sentence}</p>{_wins_bar(figures)}<p class="counts">{counts}</p>{note}'


def _wins_bar(figures: HeadToHead) -> str:
    parts = (("b", figures.wins_b), ("tie", figures.ties), ("a", figures.wins_a))
    spans = "".join(
        f'<span class="{name}" style="flex-grow:{count}"></span>' for name, count in parts if count
    )
    return f'<div class="wins" aria-hidden="true">{spans}</div>'


def metrics_table(figures: HeadToHead | None) -> str:
    """A, B and their difference by metric, each with its interval; metrics that neither has are left out."""
    if figures is None:
        return ""
    rows = []
    for name, (label, meaning, form, more_is_better) in text.METRICS.items():
        if name in figures.a or name in figures.b:
            cells = [_estimate(end.get(name), form) for end in (figures.a, figures.b)]
            difference = _difference(figures.difference.get(name), form, more_is_better)
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


def _estimate(found: Estimate | None, form: str) -> str:
    if found is None or not np.isfinite(found.value):
        return f'<span class="none">{text.NOT_KNOWN}</span>'
    ends = (_end(form, found.low), _end(form, found.high))
    interval = _between(*ends, "–") if np.isfinite(found.low) else ""
    return f'<b>{_minus(form.format(found.value))}</b><span class="interval">{_minus(interval)}</span>'


def _difference(found: Estimate | None, form: str, more_is_better: bool | None) -> str:
    if found is None or not np.isfinite(found.value):
        return '<span class="none">–</span>'

    def signed(written: str, value: float) -> str:
        return f"{'−' if value < 0 else '+'}{written}"

    tag = ""
    if found.low <= 0 <= found.high:
        tag = f'<span class="tag">{term(text.NOISE, text.NOISE_HELP)}</span>'
    elif more_is_better is not None:
        winner = "b" if (found.value > 0) == more_is_better else "a"
        tag = f'<span class="tag {winner}">{text.BETTER.format(winner=winner.upper())}</span>'
    low, high = (signed(_end(form, abs(value)), value) for value in (found.low, found.high))
    interval = _between(low, high, "to") if np.isfinite(found.low) else ""
    value = signed(form.format(abs(found.value)), found.value)
    return f'<b>{value}</b><span class="interval">{interval}</span>{tag}'


def _signed_ends(found: Estimate) -> list[str]:
    ends = (found.low, found.high)
    return [f"{'−' if end < 0 else '+'}{_end('${:,.2f}', abs(end))}" for end in ends]


def _between(low: str, high: str, word: str) -> str:
    """Two ends of an interval, each in one piece wherever the line breaks; a percent sign behind the last is enough."""
    if high.endswith(" %"):
        low = low.removesuffix(" %")
    return f"<i>{low}</i> {word} <i>{high}</i>"


def _minus(written: str) -> str:
    return written.replace("-", "−")


def _end(form: str, value: float) -> str:
    """An interval's end: it is no sharper than whole dollars, unless it is small."""
    return f"${value:,.0f}" if form.startswith("$") and abs(value) >= 10 else form.format(value)


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
    for field, words in text.CHIPS.items():
        value = getattr(view, field)
        if value in ((), None, "", 0.0):
            continue
        name = words.format(value=_chip_value(field, value))
        label = text.REMOVE.format(name=name)
        chips.append(
            button(
                f'{escape(name)} <span aria-hidden="true">✕</span>',
                "remove",
                field,
                classes="chip on",
                aria_label=label,
            )
        )
    if chips:
        chips.append(button(text.RESET, "reset", classes="chip plain"))
    chips.append(button(text.EXPORT, "export", classes="chip plain", title=text.EXPORT_HELP))
    return f'<div class="chips" aria-live="polite"><span class="count">{count}</span>{"".join(chips)}</div>'


def _chip_value(field: str, value) -> str:
    if field == "selection":
        return text.SELECTED_ITEMS.format(count=len(value))
    if field == "preset":
        return text.PRESETS[value][0]
    if isinstance(value, float):
        return usd(value)
    return ", ".join(part.replace("_", " ") for part in value)


def legend() -> str:
    marks = [
        f'<span><i style="color:{OUTCOME_COLOURS[name]}" aria-hidden="true">{SIGNS[name]}</i> {term(words, text.OUTCOMES[name][2])}</span>'
        for name, words in text.LEGEND.items()
    ]
    return f'<div class="legend">{"".join(marks)}</div>'


def scatter_title(end: str, info: RunInfo, figures: HeadToHead | None) -> str:
    title = text.SCATTER_TITLES[end].format(label=escape(info.label))
    hits = ""
    if figures:
        name, meaning, form, _ = text.METRICS["hits_pct"]
        value = form.format(getattr(figures, end)["hits_pct"].value)
        hits = f'<span class="hits">{value} {term(name.lower(), meaning)}</span>'
    return f'<h4 class="run-{end}"><span>{title}</span>{hits}</h4>'


# Leaderboard ---------------------------------------------------------------------------------------------


def board(arena: Arena, view: View, found: Leaderboard) -> str:
    """All runs in a table: figures, the error's interval drawn on one scale, and buttons that make it A or B."""
    if not found.standings:
        return f'<p class="verdict">{text.BOARD_EMPTY}</p>'
    note = text.BOARD_ITEMS.format(items=found.items, runs=len(found.standings))
    if found.left_out:
        names = [f"{escape(arena.infos[n].label)} ({k:,})" for n, k in found.left_out.items() if k]
        if none := len(found.left_out) - len(names):
            names.append(text.BOARD_HAVE_NONE.format(runs=none))
        note += text.BOARD_LEFT_OUT.format(runs=", ".join(names))
    scale = _log_scale([end for s in found.standings for end in (s.error_usd.low, s.error_usd.high)])
    rows = "".join(
        _board_row(i, standing, arena.infos[standing.name], view, scale)
        for i, standing in enumerate(found.standings, 1)
    )
    heads = [f'<th scope="col" class="rank">{text.BOARD_HEADS["rank"]}</th>']
    heads.append(f'<th scope="col">{text.BOARD_HEADS["run"]}</th>')
    for metric in SORTS:
        name = text.METRICS[metric][0]
        order = ' aria-sort="descending"' if metric == "hits_pct" else ' aria-sort="ascending"'
        mark = (" ↓" if metric == "hits_pct" else " ↑") if view.sort == metric else ""
        label = text.SORTED.format(name=name)
        head = button(name + mark, "sort", metric, classes="sort", title=label)
        heads.append(f'<th scope="col" class="{metric}"{order if view.sort == metric else ""}>{head}</th>')
    heads.append(f'<th scope="col" class="behind">{text.BOARD_HEADS["behind"]}</th>')
    heads.append(f'<th scope="col" class="pick">{text.BOARD_HEADS["pick"]}</th>')
    return (
        f'<p class="hint">{note} {text.BOARD_NOISE}</p>'
        f'<table class="board" role="table"><thead role="rowgroup"><tr role="row">{"".join(heads)}</tr></thead>'
        f'<tbody role="rowgroup">{rows}</tbody></table>'
    )


def _board_row(rank: int, standing: Standing, info: RunInfo, view: View, scale: Callable) -> str:
    ends = [end for end, name in (("a", view.run_a), ("b", view.run_b)) if name == standing.name]
    error = standing.error_usd
    low = error.low if np.isfinite(error.low) else error.value
    high = error.high if np.isfinite(error.high) else error.value
    bar = (
        f'<span class="bar" aria-hidden="true"><span style="left:{scale(low):.2f}%;width:{scale(high) - scale(low):.2f}%">'
        f'</span><i style="left:{scale(error.value):.2f}%"></i></span>'
    )
    behind = (
        f'<span class="tag">{term(text.TIES_BEST, text.NOISE_HELP)}</span>'
        if standing.ties_best
        else f'<span class="gap">{_signed_dollars(standing.behind_best.value)}</span>'
        f'<span class="interval">{_between(*_signed_ends(standing.behind_best), "to")}</span>'
    )
    picks = "".join(
        button(
            end.upper(),
            f"make_{end}",
            info.name,
            classes=f"pick-{end}",
            aria_pressed="true" if end in ends else "false",
            aria_label=text.MAKE.format(label=info.label, end=end.upper()),
        )
        for end in ("a", "b")
    )
    hits, rmsle = (
        text.METRICS[metric][2].format(getattr(standing, metric).value) for metric in ("hits_pct", "rmsle")
    )
    return (
        f'<tr role="row" class="{" ".join(f"is-{end}" for end in ends)}"><td role="cell" class="rank">{rank}</td>'
        f'<th scope="row" role="rowheader"><span class="label">{escape(info.label)}</span>{badges(info)}</th>'
        f'<td role="cell" class="error_usd"><b>{_dollars(error.value)}</b>'
        f'<span class="interval">{_between(_end("${:,.2f}", low), _end("${:,.2f}", high), "–")}</span>{bar}</td>'
        f'<td role="cell" class="rmsle">{rmsle}</td><td role="cell" class="hits_pct">{hits}</td>'
        f'<td role="cell" class="behind">{behind}</td><td role="cell" class="pick">{picks}</td></tr>'
    )


def _log_scale(values: list[float]) -> Callable[[float], float]:
    """Dollars to percent of the bar's width, on a log scale: else the worst run squeezes all others together."""
    known = np.maximum([value for value in values if np.isfinite(value)] or [1.0], 0.01)
    low, high = np.log(known.min()) - 0.03, np.log(known.max()) + 0.03

    def scale(value: float) -> float:
        return float(100 * (np.log(max(value, 0.01)) - low) / (high - low))

    return scale


def badges(info: RunInfo) -> str:
    marks = f'<span class="badge kind-{info.kind}">{text.KINDS[info.kind]}</span>'
    if info.published:
        meaning = text.PUBLISHED_HELP.format(origin=info.origin)
        marks += f'<span class="badge">{term(text.PUBLISHED, meaning)}</span>'
    return f'<span class="badges">{marks}</span>'


# One item ------------------------------------------------------------------------------------------------


def item_head(item: Item, view: View, position: tuple[int, int] | None) -> str:
    """Title, category, price, what A and B said, and the way to the items before and after."""
    ways = ""
    if position:
        here, total = position
        ways = button(text.PREVIOUS_ITEM, "step", "-1", classes="chip plain") if here else ""
        ways += button(text.NEXT_ITEM, "step", "1", classes="chip plain") if here < total - 1 else ""
    close = button(text.CLOSE_ITEM, "close", classes="chip plain")
    title = text.DETAIL_TITLE.format(index=item.index)
    actual = text.DETAIL_ACTUAL.format(price=f"<b>{_dollars(item.price_usd)}</b>")
    guesses = "".join(_guess_line(end, item, run) for end, run in (("a", view.run_a), ("b", view.run_b)))
    best = item.guesses[0] if item.guesses else None
    rank = (
        text.DETAIL_RANK.format(
            runs=len(item.guesses), best=escape(best.info.label), off=_off(best.guess_usd, item.price_usd)
        )
        if best
        else ""
    )
    return (
        f"<header><h4>{title}</h4><span>{_category(item.category)} · {actual}</span>"
        f'<span class="ways">{ways}{close}</span></header>{guesses}<p class="hint">{rank}</p>'
    )


def _guess_line(end: str, item: Item, run: str) -> str:
    found = next((guess for guess in item.guesses if guess.info.name == run), None)
    if found is None:
        return f'<p class="guess">{text.DETAIL_NO_GUESS.format(end=END[end])}</p>'
    sentence = text.DETAIL_GUESS.format(
        end=END[end], guess=_dollars(found.guess_usd), off=_off(found.guess_usd, item.price_usd)
    )
    kind = str(outcome([item.price_usd], [found.guess_usd])[0])
    sign, name, meaning = text.OUTCOMES[kind]
    return f'<p class="guess outcome {kind}">{sentence} <b>{sign} {term(name, meaning)}</b></p>'


def item_foot(item_text: str | None, waiting: bool) -> str:
    """The product text with a button that sends it to the Compare tab, or where it could be had."""
    if item_text is None:
        return f'<p class="hint">{text.TEXT_WAITING if waiting else text.TEXT_MISSING}</p>'
    send = button(text.SEND, "send", classes="send")
    return f'<blockquote class="item-text" tabindex="0">{escape(item_text)}</blockquote>{send}'


# Words ---------------------------------------------------------------------------------------------------


def _category(name: str) -> str:
    return escape(name.replace("_", " "))


def _dollars(value: float) -> str:
    return f"${value:,.2f}"


def _signed_dollars(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{_dollars(abs(value))}"


def _off(guess_usd: float, price_usd: float) -> str:
    away = round(guess_usd - price_usd, 2)
    if not away:
        return text.EXACT
    return (text.TOO_HIGH if away > 0 else text.TOO_LOW).format(off=_dollars(abs(away)))
