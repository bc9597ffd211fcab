"""The Compare tab's HTML: an answer and a view in, escaped HTML out."""

from __future__ import annotations

from html import escape

from pricer.arena.metrics import outcome
from pricer.figures.style import usd
from pricer.price.distribution import INTERVAL_LEVEL
from pricer.price.sureness import WITHIN_TWICE, may_exceed
from pricer.ui import text
from pricer.ui.compare import text as words
from pricer.ui.compare.answer import Answer, Reading, View, compared, off_by
from pricer.ui.parts import percent, term

LEADS = "tuned"  # the model whose answer is the answer; the other is there to compare
ORDER = ("tuned", "base")
LINE_CHARS = 100  # of the text in a copied answer
UNREAD_CHARS = 400  # of the text behind the cut, shown at most


def money_range(bounds: tuple[float, float], template: str = words.RANGE) -> str:
    low, high = bounds
    return template.format(low=usd_whole(low), high=usd_whole(high))


def usd_whole(price: float) -> str:
    return f"${price:,.0f}"


def status(answer: Answer | None) -> str:
    """The place in the line, or which model is at work; when both are done, what became of a price in the text."""
    if answer and answer.place:
        return busy(words.PLACE.format(before=answer.place.before, seconds=answer.place.seconds))
    waiting = [which for which in ORDER if answer and which not in answer.predictions]
    if waiting:
        return busy(words.READING[waiting[0]])
    return _named(answer) if answer and answer.named_usd else ""


def _named(answer: Answer) -> str:
    prices = words.AND.join(usd_exact(price) for price in answer.named_usd)
    if answer.hidden:
        taken = words.TAKEN if answer.named_actual else ""
        sentence, do, label = words.NAMED_HIDDEN.format(prices=prices, taken=taken), "show", words.SHOW_PRICE
    else:
        sentence, do, label = words.NAMED_SHOWN.format(prices=prices), "hide", words.HIDE_PRICE
    return (
        f'<p role="status">{sentence} <button type="button" class="link" data-do="{do}">{label}</button></p>'
    )


def usd_exact(price: float) -> str:
    return f"${price:,.2f}".removesuffix(".00")


def busy(sentence: str) -> str:
    return f'<p class="busy" role="status">{sentence}</p>'


def usd_effect(change: float) -> str:
    return f"${abs(change):,.0f}" if abs(change) >= 1 else f"${abs(change):,.2f}"


def lead(readings: dict[str, Reading], is_product: bool | None = None) -> str:
    """The answer: about how much, and how sure."""
    reading = readings.get(LEADS)
    if reading is None:
        return f'<p class="empty">{words.EMPTY}</p>'
    low, high = reading.wide_usd
    likely = f"<b>{money_range(reading.wide_usd, words.LIKELY)}</b>"
    sure = words.SURENESS_HELP.format(times=high / low, share=percent(WITHIN_TWICE[reading.sureness]))
    note = words.NO_PRODUCT if is_product is False else words.MAY_EXCEED if may_exceed(high) else ""
    marked = is_product is False or may_exceed(high)  # then a narrow range is no sign of being sure
    badge = (
        ""
        if marked
        else f'<span class="sureness {reading.sureness}">{term(words.SURENESS[reading.sureness], sure)}</span>'
    )
    return (
        f'<p class="headline{" void" if is_product is False else ""}"><span>{words.ABOUT}</span> '
        f'<b class="price">{usd(reading.price_usd)}</b> {badge}</p>'
        f'<p class="ranges">{term(likely, words.WIDE_HELP)} <span class="half">'
        f"{term(money_range(reading.half_usd, words.HALF), words.HALF_HELP)}</span></p>"
        f'<p class="note">{note}</p>'
    )


def sides(
    readings: dict[str, Reading],
    view: View,
    label: str,
    is_product: bool | None = None,
    pinned: Reading | None = None,
) -> str:
    """Both models side by side, and how they differ."""
    parts = [_side(which, readings.get(which), view, label, bool(readings), is_product) for which in ORDER]
    prior = ""
    if view.prior:
        prior = words.PRIOR_NOTES.get(view.prior.name, "").format(median=usd_whole(view.prior.median_usd))
    return (
        f'<div class="sides">{"".join(parts)}</div><p id="verdict">{verdict(readings, view)}</p>'
        f'{_against_pinned(readings, pinned)}<p class="prior-note">{prior}</p>'
    )


def _side(
    which: str, reading: Reading | None, view: View, label: str, others: bool, is_product: bool | None
) -> str:
    subtitle = escape(words.SUBTITLES[which].format(label=label))
    head = f'<header><h3>{text.NAMES[which]}</h3><span class="subtitle">{subtitle}</span></header>'
    if reading is None:
        body = f'<p class="waiting">{words.NEXT if others else words.EMPTY_SIDE}</p>'
    else:
        checked = "" if is_product is False else f" · {_checked(reading)}"
        body = (
            f'<p><b class="price">{usd(reading.price_usd)}</b> '
            f'<span class="interval">{money_range(reading.wide_usd)}{checked}</span></p>'
        )
        if view.actual_usd:
            body += _outcome(reading.price_usd, view.actual_usd)
    return f'<section class="side {which}" id="head-{which}">{head}{body}</section>'


def _checked(reading: Reading) -> str:
    """Whether the range was checked against real prices: in short, and what that means."""
    found = reading.calibration
    if found is None:
        return term(words.NOT_CALIBRATED, words.NOT_CALIBRATED_HELP.format(level=percent(INTERVAL_LEVEL)))
    meaning = words.CALIBRATED_HELP.format(level=percent(INTERVAL_LEVEL), items=found.items)
    if INTERVAL_LEVEL in found.coverage:
        meaning += words.MEASURED.format(coverage=percent(found.coverage[INTERVAL_LEVEL], 1))
    return term(words.CALIBRATED.format(items=found.items), meaning)


def _outcome(guess_usd: float, actual_usd: float) -> str:
    kind = str(outcome([actual_usd], [guess_usd])[0])
    sign, name, meaning = text.OUTCOMES[kind]
    off = abs(guess_usd - actual_usd)
    how_far = words.OFF_BY.format(off=f"${off:,.2f}", share=off_by(off / actual_usd))
    return f'<p class="outcome {kind}"><b>{sign} {term(name, meaning)}</b> {how_far}</p>'


def _against_pinned(readings: dict[str, Reading], pinned: Reading | None) -> str:
    if pinned is None or LEADS not in readings:
        return ""
    now = readings[LEADS].price_usd
    amount = compared(now, pinned.price_usd)
    template = words.PINNED_DIFFERENCE if amount else words.PINNED_SAME
    said = template.format(now=usd(now), pinned=usd(pinned.price_usd), amount=amount)
    return f'<p id="pinned">{said}</p>'


def lines(answer: Answer, readings: dict[str, Reading]) -> str:
    """The answer in three lines of plain text: what it is, and what each model says."""
    first, second = (readings[which] for which in ORDER)
    (low, high), (other_low, other_high) = (
        [usd_whole(end) for end in reading.wide_usd] for reading in (first, second)
    )
    return words.COPY_LINES.format(
        text=" ".join(answer.text.split())[:LINE_CHARS],
        name=text.NAMES[ORDER[0]],
        price=usd(first.price_usd),
        low=low,
        high=high,
        other=text.NAMES[ORDER[1]],
        other_price=usd(second.price_usd),
        other_low=other_low,
        other_high=other_high,
    )


def verdict(readings: dict[str, Reading], view: View) -> str:
    """How the two models differ, in a sentence; nothing until both are done."""
    if len(readings) < 2:
        return ""
    price = {which: reading.price_usd for which, reading in readings.items()}
    amount = compared(price["tuned"], price["base"])
    if amount is None:
        sentence = words.SAME.removesuffix(".")
    else:
        sentence = words.DIFFERENCE.format(
            first=words.BY_MODEL["tuned"], amount=amount, second=words.BY_MODEL["base"]
        )
    width = {which: r.wide_usd[1] - r.wide_usd[0] + 1 for which, r in readings.items()}
    factor = width["base"] / width["tuned"]
    if factor > 1.1:
        sentence += words.NARROWER.format(factor=factor)
    elif factor < 1 / 1.1:
        sentence += words.WIDER.format(factor=1 / factor)
    else:
        sentence += words.SAME_WIDTH
    if view.actual_usd:
        off = {which: abs(p - view.actual_usd) for which, p in price.items()}
        gap = abs(off["base"] - off["tuned"])
        winner = text.NAMES["tuned" if off["tuned"] < off["base"] else "base"].lower()
        closer = words.BOTH_CLOSE if gap < 0.005 else words.CLOSER
        sentence += closer.format(actual=usd(view.actual_usd), winner=f"the {winner} model", gap=usd(gap))
    return sentence


def what_was_read(answer: Answer | None) -> str:
    """What the models read of the text, where that is less than all of it."""
    if not answer or not (answer.prompt.truncated or answer.hidden):
        return ""
    parts, title = [], words.READ_TITLE
    if answer.prompt.truncated:
        title = words.CUT.format(kept=answer.prompt.kept_chars, given=len(answer.given.strip()))
    if answer.hidden:
        prices = ", ".join(f"<s>{usd_exact(price)}</s>" for price in answer.named_usd)
        parts.append(f"<p>{words.LEFT_OUT.format(prices=prices)}</p>")
    unread = ""
    if answer.prompt.truncated:
        rest = answer.given.strip()[answer.prompt.kept_chars :][:UNREAD_CHARS]
        unread = f'<span class="cut-mark">{words.READ_CUT}</span><span class="unread">{escape(rest)} …</span>'
    parts.append(f'<p class="read">{escape(answer.read)}{unread}</p>')
    return f"<details><summary>{title}</summary>{''.join(parts)}</details>"


def facts(answer: Answer | None, readings: dict[str, Reading]) -> str:
    """What lies behind both answers, model by model: time, what spelled no price, what it would write."""
    lines = []
    for which in ORDER:
        if which not in readings:
            continue
        reading = readings[which]
        parts = [
            term(words.SECONDS.format(seconds=reading.seconds), words.SECONDS_HELP),
            f"{percent(float(reading.distribution.unpriced_mass), 1)} {term(words.UNPRICED, words.UNPRICED_HELP)}",
        ]
        if which in answer.raw:
            written = escape(answer.raw[which]) or words.RAW_NOTHING
            parts.append(
                f'<span class="raw">{term(words.RAW_LABEL, words.RAW_HELP)} <code>{written}</code></span>'
            )
        lines.append(
            f'<p class="facts" id="facts-{which}"><b>{text.NAMES[which]}</b> {" · ".join(parts)}</p>'
        )
    return "".join(lines)
