"""One product in HTML: what it is and costs, what A, B and every other run said, its text; and where to begin."""

from __future__ import annotations

from html import escape

from pricer.arena.arena import Arena
from pricer.arena.metrics import outcome
from pricer.arena.records import Item
from pricer.arena.view import View
from pricer.ui.evaluate import text
from pricer.ui.evaluate.html import END, button, category, dollars, off
from pricer.ui.parts import term

STARTERS = 6  # products that the empty box offers


def starters(arena: Arena, view: View) -> str:
    """Where nothing is open: products of the view to begin with, B's largest errors first, or the preset's order."""
    table = arena.table(view, arena.narrowed(view).ranked)
    if table.empty:
        return f'<p class="hint">{text.NOTHING_OPEN}</p>'
    if not view.preset:
        table = table.sort_values("error_usd_b", ascending=False, kind="stable")
    title = text.PRESETS[view.preset][0] if view.preset else text.STARTERS_TITLE
    rows = "".join(
        f"<li>{button(_starter(row), 'open', str(row.index_), classes='starter')}</li>"
        for row in table.head(STARTERS).rename(columns={"index": "index_"}).itertuples()
    )
    return f'<h4>{title}</h4><p class="hint">{text.NOTHING_OPEN}</p><ol class="starters">{rows}</ol>'


def _starter(row) -> str:
    guess = text.STARTER.format(price=dollars(row.price_usd), guess=dollars(row.guess_usd_b), b=END["b"])
    return f"<span>{escape(row.label)}</span><small>{guess}</small>"


def item_head(item: Item, view: View, position: tuple[int, int] | None) -> str:
    """Label, category, price, what A and B said, and the way to the dots before and after."""
    ways = ""
    if position:
        here, total = position
        ways = _way(text.PREVIOUS_ITEM, "-1", view, enabled=here > 0)
        ways += _way(text.NEXT_ITEM, "1", view, enabled=here < total - 1)
    close = button(text.CLOSE_ITEM, "close", classes="chip plain", data_key="Escape", title=text.CLOSE_HELP)
    actual = text.DETAIL_ACTUAL.format(price=f"<b>{dollars(item.price_usd)}</b>")
    guesses = "".join(_guess_line(end, item, run) for end, run in (("a", view.run_a), ("b", view.run_b)))
    return (
        f'<header data-reveal="{item.index}"><span class="ways">{ways}{close}</span><h4>{escape(item.label)}</h4>'
        f'<p class="facts">{actual} · {escape(category(item.category))} · '
        f'<span class="number">{text.DETAIL_NUMBER.format(index=item.index)}</span></p></header>{guesses}'
    )


def _way(words: str, value: str, view: View, *, enabled: bool) -> str:
    if not enabled:
        return ""
    order = text.BY_PRESET if view.preset else text.BY_PRICE
    return button(words, "step", value, classes="chip plain", title=order)


def _guess_line(end: str, item: Item, run: str) -> str:
    found = next((guess for guess in item.guesses if guess.info.name == run), None)
    if found is None:
        return f'<p class="guess">{text.DETAIL_NO_GUESS.format(end=END[end])}</p>'
    sentence = text.DETAIL_GUESS.format(
        end=END[end], guess=dollars(found.guess_usd), off=off(found.guess_usd, item.price_usd)
    )
    kind = str(outcome([item.price_usd], [found.guess_usd])[0])
    sign, name, meaning = text.OUTCOMES[kind]
    return f'<p class="guess outcome {kind}">{sentence} <b>{sign} {term(name, meaning)}</b></p>'


def item_guesses(item: Item, view: View) -> str:
    """Every run's guess by name, the closest first."""
    ends = {view.run_a: "a", view.run_b: "b"}
    rows = []
    for guess in item.guesses:
        end = ends.get(guess.info.name, "")
        mark = f"{END[end]} " if end else ""
        sign, name, _ = text.OUTCOMES[guess.outcome]
        rows.append(
            f'<tr class="{end}"><th scope="row">{mark}{escape(guess.info.label)}</th><td>{dollars(guess.guess_usd)}</td>'
            f'<td class="off">{off(guess.guess_usd, item.price_usd)}</td>'
            f'<td class="{guess.outcome}"><span title="{name}" aria-label="{name}">{sign}</span></td></tr>'
        )
    heads = "".join(f'<th scope="col">{head}</th>' for head in text.GUESS_HEADS)
    title = text.ALL_GUESSES.format(runs=len(item.guesses))
    return (
        f'<details class="guesses" open><summary>{title}</summary><div tabindex="0" role="group" aria-label="{title}">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def item_foot(item_text: str | None, waiting: bool) -> str:
    """The product text with a button that sends it to the Compare tab, or where it could be had."""
    if item_text is None:
        return f'<p class="hint">{text.TEXT_WAITING if waiting else text.TEXT_MISSING}</p>'
    send = button(text.SEND, "send", classes="send")
    return f'<blockquote class="item-text" tabindex="0">{escape(item_text)}</blockquote>{send}'
