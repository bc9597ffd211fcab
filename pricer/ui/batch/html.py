"""The Batch tab's HTML: a file's first rows, progress, figures in sum. Data in, escaped HTML out."""

from __future__ import annotations

import shlex
from html import escape

import numpy as np

from pricer.figures.style import usd
from pricer.ui.batch import text
from pricer.ui.batch.file import Upload
from pricer.ui.batch.result import Result


def line(words: str) -> str:
    return f'<p class="hint" role="status">{words}</p>'


def complaint(error: Exception | str) -> str:
    return f'<p class="notice problem" role="alert">{escape(str(error))}</p>'


def preview(upload: Upload, read: tuple[str, ...], most: int, command: str) -> str:
    """The first rows, the columns in `read` marked; and, of a longer file, how to price all of it."""
    shown = text.PREVIEW_SHOWN
    words = text.PREVIEW.format(title=escape(upload.title), rows=text.rows(upload.rows), shown=shown)
    heads = "".join(f"<th{_mark(name in read)}>{escape(name) or '&nbsp;'}</th>" for name in upload.names)
    rows = []
    for number, cells, reason in upload.first:
        if reason:
            found = f'<td class="reason" colspan="{len(upload.names)}">{escape(reason)}</td>'
        else:
            found = "".join(
                f"<td{_mark(name in read)}><div>{escape(cells.get(name, ''))}</div></td>"
                for name in upload.names
            )
        rows.append(f"<tr><th>{number:,}</th>{found}</tr>")
    table = (
        f'<div class="sheet" tabindex="0"><table><thead><tr><th>{text.ROW_HEAD}</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
    more = ""
    if upload.rows > most:
        words_ = text.LEFT_OVER.format(most=most, rows=upload.rows, command=escape(command))
        more = f'<p class="notice">{words_}</p>'
    return f'<p class="hint">{words}</p>{table}{more}'


def command(upload: Upload, text_column: str | None, models: str) -> str:
    """What prices the whole file on a machine of one's own."""
    stem = upload.title.partition(".")[0] or "products"
    parts = ["python", "-m", "pricer.score", upload.title, f"{stem}-priced.csv"]
    if models == "both":
        parts += ["--passes", "base", "tuned"]
    if text_column is not None:
        parts += ["--text-column", text_column]
    return shlex.join(parts)


def progress(done: int, total: int, seconds_left: float) -> str:
    words = text.PROGRESS.format(done=done, total=total, left=duration(seconds_left))
    return f'<progress max="{total}" value="{done}"></progress>{line(words)}'


def duration(seconds: float) -> str:
    if seconds < 90:
        return text.SECONDS.format(seconds=max(1, seconds))
    return text.MINUTES.format(minutes=seconds / 60)


def summary(result: Result, price_column: str | None) -> str:
    """How the prices lie, how good they are where that can be told, and what was left out."""
    prices = result.usd(result.passes[-1])
    low, median, high = (usd(value) for value in np.quantile(prices, [0.25, 0.5, 0.75]))
    words = text.MEDIAN.format(rows=text.rows(result.done), median=median, low=low, high=high)
    if cut := sum(result.columns["text_cut"]):
        words += text.CUT.format(cut=text.rows(cut))
    made = f'<p class="verdict">{words}</p>'
    if summaries := result.summaries():
        heads = "".join(f"<th>{head}</th>" for head in text.METRIC_HEADS)
        rows = "".join(
            f'<tr><th class="{which}">{text.MODEL_NAMES[which]}</th><td>${s.error_usd.value:,.2f}</td>'
            f"<td>${s.median_error_usd.value:,.2f}</td><td>{s.rmsle.value:.2f}</td><td>{s.hits_pct.value:.1f} %</td></tr>"
            for which, s in summaries.items()
        )
        made += f'<table class="sums"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        note = text.METRIC_NOTE.format(rows=text.rows(int(result.priced.sum())))
        if without := int((~result.priced).sum()):
            note += " " + text.SOME_PRICES.format(without=text.rows(without))
        made += f'<p class="hint">{note}</p>'
    elif price_column is not None:
        made += f'<p class="notice">{text.NO_PRICES.format(column=escape(price_column))}</p>'
    if rejected := result.products.rejected:
        row, reason = rejected[0]
        words = text.REJECTED.format(rejected=text.rows(len(rejected)), row=f"{row:,}", reason=escape(reason))
        words += text.MORE_REJECTED if len(rejected) > 1 else ""
        made += f'<p class="notice">{words}</p>'
    return made


def _mark(yes: bool) -> str:
    return ' class="read"' if yes else ""
