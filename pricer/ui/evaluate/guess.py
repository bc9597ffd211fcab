"""Guess it yourself: ten products by name, the visitor's price for each, then both models' and the truth.

They are benchmark items whichever set is looked at, for runs of one's own live among those. At the end the ten guesses
are such a run, with a place on the board among all runs on these items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from pricer.arena.arena import Arena
from pricer.arena.metrics import outcome
from pricer.arena.own_runs import OwnRuns
from pricer.arena.runs import Run, RunInfo
from pricer.arena.view import SETS, View
from pricer.errors import InputError
from pricer.settings import Limits
from pricer.tables.cells import read_price
from pricer.ui.actions import ActionEvent, Actions
from pricer.ui.evaluate import text
from pricer.ui.evaluate.html import (
    badges,
    between,
    button,
    category,
    complaint,
    dollars,
    in_colour,
    interval_end,
    off,
    run_names,
)
from pricer.ui.evaluate.item_texts import ItemTexts

ROUNDS = 10
HIGHEST_USD = 1e6

AT_ONCE = {"api_visibility": "private", "show_progress": "hidden", "queue": False}


@dataclass(frozen=True)
class Game:
    """The products of a game by index, the runs it is played against, and the guesses so far, in dollars."""

    indexes: tuple[int, ...]
    pair: tuple[str, str]
    guesses_usd: tuple[float, ...] = ()

    @property
    def over(self) -> bool:
        return len(self.guesses_usd) == len(self.indexes)

    @property
    def current(self) -> int:
        return self.indexes[len(self.guesses_usd)]

    def guessed(self, guess_usd: float) -> Game:
        return replace(self, guesses_usd=(*self.guesses_usd, guess_usd))


def deal(arena: Arena, view: View) -> Game:
    """A new game: products at random of those that most runs have, A and B among them. Raises InputError."""
    pair = arena.pair(view.run_a, view.run_b)
    if pair.empty:
        raise InputError(text.NOTHING_SHARED)
    runs = np.isfinite(arena.guess_usd[pair["row"]]).sum(axis=1)
    known = pair["index"].to_numpy()[runs == runs.max()]
    chosen = np.random.default_rng().choice(known, min(ROUNDS, len(known)), replace=False)
    return Game(tuple(int(index) for index in chosen), (view.run_a, view.run_b))


def read_guess(written: str) -> float:
    """Raises InputError for what is no price."""
    try:
        guess_usd = read_price(written)
    except InputError:
        raise InputError(text.GUESS_BAD) from None
    if not 0 <= guess_usd <= HIGHEST_USD:
        raise InputError(text.GUESS_BAD)
    return guess_usd


def as_run(game: Game, own: OwnRuns) -> Run:
    """The guesses as a run of the visitor's own."""
    info = RunInfo(
        name=own.free_name(text.GUESS_RUN),
        label=own.free_label(text.GUESS_RUN),
        kind="own",
        origin="guessed here",
    )
    table = pd.DataFrame({"index": game.indexes, "guess_usd": game.guesses_usd}).sort_values("index")
    return Run(info, table.reset_index(drop=True))


# What is shown -------------------------------------------------------------------------------------------


def question(arena: Arena, game: Game, texts: ItemTexts) -> str:
    """The last guess with its answers, and the next product."""
    return _answer(arena, game) + _next(arena, game, texts)


def _next(arena: Arena, game: Game, texts: ItemTexts) -> str:
    item = arena.item(game.current)
    words = texts.get(game.current)
    more = f'<blockquote class="item-text" tabindex="0">{escape(words)}</blockquote>' if words else ""
    round_ = text.GUESS_ROUND.format(number=len(game.guesses_usd) + 1, rounds=len(game.indexes))
    return (
        f'<div class="question"><p class="hint">{round_}</p><h4>{escape(item.label)}</h4>'
        f'<p class="hint">{escape(category(item.category))}</p>{more}</div>'
    )


def _answer(arena: Arena, game: Game) -> str:
    if not game.guesses_usd:
        return ""
    item = arena.item(game.indexes[len(game.guesses_usd) - 1])
    said = {guess.info.name: guess.guess_usd for guess in item.guesses}
    lines = [(text.GUESS_YOU, game.guesses_usd[-1])]
    if set(game.pair) <= set(said):  # an own run may be gone meanwhile
        names = run_names(*[arena.infos[name] for name in game.pair])
        lines += [(in_colour(end, names[end]), said[name]) for end, name in zip("ab", game.pair, strict=True)]
    lines.sort(key=lambda line: abs(line[1] - item.price_usd))
    rows = "".join(
        f"<li>{name} <b>{dollars(guess)}</b>, {off(guess, item.price_usd)} {_mark(item.price_usd, guess)}</li>"
        for name, guess in lines
    )
    truth = text.GUESS_TRUTH.format(label=escape(item.label), price=dollars(item.price_usd))
    return f'<div class="answer" role="status"><p>{truth}</p><ol>{rows}</ol></div>'


def _mark(price_usd: float, guess_usd: float) -> str:
    kind = str(outcome([price_usd], [guess_usd])[0])
    sign, name, _ = text.OUTCOMES[kind]
    return f'<span class="{kind}">{sign} {name.lower()}</span>'


def result(arena: Arena, game: Game, name: str) -> str:
    """Error, hits and the place among all runs on these products, of which the game has become the run `name`."""
    found = arena.leaderboard(View(name, name))
    place = next((i for i, s in enumerate(found.standings) if s.name == name), None)
    standing = found.standings[place]
    interval = between(
        interval_end("${:,.2f}", standing.error_usd.low),
        interval_end("${:,.2f}", standing.error_usd.high),
        "–",
    )
    closer = sum(s.error_usd.value < standing.error_usd.value for s in found.standings)
    words = text.GUESS_RESULT.format(
        items=found.items,
        error=dollars(standing.error_usd.value),
        interval=interval,
        hits=round(standing.hits_pct.value * found.items / 100),
        rank=closer + 1,
        runs=len(found.standings),
    )
    rows = "".join(
        f'<li class="{"you" if s.name == name else ""}">{escape(arena.infos[s.name].label)} {badges(arena.infos[s.name])} '
        f"<b>{dollars(s.error_usd.value)}</b></li>"
        for s in found.standings[:3] + ([standing] if place > 2 else [])
    )
    look = button(text.GUESS_LOOK, "look", name)
    again = button(text.GUESS_AGAIN, "begin")
    return (
        f'{_answer(arena, game)}<p class="verdict">{words}</p><p class="hint">{text.GUESS_FEW}</p>'
        f'<ol class="podium">{rows}</ol><div class="chips">{look}{again}</div>'
    )


# The panel -----------------------------------------------------------------------------------------------


class GuessBox:
    def __init__(self, texts: ItemTexts, limits: Limits):
        self.texts, self.limits = texts, limits

    def layout(self) -> None:
        """Inside its panel."""
        begin = button(text.GUESS_BEGIN, "begin", classes="send")
        which = f'<p class="hint">{text.GUESS_WHICH}</p>'
        self.shown = Actions(f'{which}<div class="chips">{begin}</div>', elem_id="guess")
        with gr.Row(visible=False, elem_classes="guess-bar") as self.bar:
            self.price = gr.Textbox(
                label=text.GUESS_LABEL, max_lines=1, elem_id="guess-price", scale=0, min_width=200
            )
            self.go = gr.Button(text.GUESS_GO, variant="primary", elem_id="guess-go", scale=0, min_width=120)
        self.notice = gr.HTML(elem_id="guess-notice", elem_classes="hide-when-empty")

    def wire(
        self,
        session: gr.State,
        own_runs: gr.State,
        outputs: list,
        chips: Actions,
        shown_chips: Callable[[OwnRuns], str],
        arena: Callable[..., Arena],
        answer: Callable,
    ) -> None:
        """`answer(session, own, step, …)` makes the updates for `outputs`; `arena(own, item_set)` is where it plays."""
        playing = gr.State(None)
        mine = [playing, self.shown, self.bar, self.price, self.notice]
        rest = [own_runs, chips, *outputs]
        same = [gr.skip()] * len(rest)

        def on_act(session: Any, own: OwnRuns, act: ActionEvent):
            if session is None or session.view is None:
                return [*[gr.skip()] * len(mine), *same]
            if act.name == "look" and act.value in own.runs:
                step = look_at_game(act.value)
                return [
                    *[gr.skip()] * len(mine),
                    gr.skip(),
                    gr.skip(),
                    *answer(session, own, step, item_set=SETS[0]),
                ]
            if act.name != "begin":
                return [*[gr.skip()] * len(mine), *same]
            try:
                if len(own.runs) >= self.limits.own_runs:
                    raise InputError(text.GUESS_NO_ROOM.format(most=self.limits.own_runs))
                place = arena(own, SETS[0])
                view = session.view if session.view.item_set == SETS[0] else place.first_view()
                game = deal(place, view)
            except InputError as error:
                return [gr.skip(), gr.skip(), gr.skip(), gr.skip(), complaint(error), *same]
            return [game, question(place, game, self.texts), gr.update(visible=True), "", "", *same]

        def on_guess(session: Any, own: OwnRuns, game: Game | None, written: str):
            if game is None or game.over:
                return [*[gr.skip()] * len(mine), *same]
            try:
                game = game.guessed(read_guess(written))
            except InputError as error:
                return [gr.skip(), gr.skip(), gr.skip(), gr.skip(), complaint(error), *same]
            place = arena(own, SETS[0])
            if not game.over:
                return [game, question(place, game, self.texts), gr.skip(), "", "", *same]
            run = as_run(game, own)
            own = own.with_runs(run)
            place = arena(own, SETS[0])
            shown = result(place, game, run.info.name)
            # The visitor stays where they are: the run joins pickers and board, and is looked at by its button.
            updates = answer(session, own, lambda arena, view: view, whole=True)
            return [game, shown, gr.update(visible=False), "", "", own, shown_chips(own), *updates]

        self.shown.act(on_act, [session, own_runs], [*mine, *rest], **AT_ONCE)
        for event in (self.go.click, self.price.submit):
            event(on_guess, [session, own_runs, playing, self.price], [*mine, *rest], **AT_ONCE)


def look_at_game(name: str) -> Callable[[Arena, View], View]:
    """The step to the products of a game, the visitor as B against B of before."""

    def step(arena: Arena, view: View) -> View:
        other = view.run_b if view.run_b != name else view.run_a
        return replace(view.reset(), run_a=other, run_b=name, item=None)

    return step
