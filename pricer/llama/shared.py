"""One predictor for many visitors: what was asked before is kept, and those who wait together are scored together.

Whoever asks for both passes over one text stands in one line, in the order of coming. When the model is free it takes
the first few texts of the line at once, each text once however many ask for it. Whoever has left before its turn is
passed over, and what nobody waits for any more ends behind the pass that it is at. Whole batches (`predict_batches`) and
phrases left out (`leave_out`) do not stand in the line; they take turns with it at the model (on a CPU `pricer.llama.cores`).
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from pricer.errors import InputError
from pricer.llama.prediction import Comparison, Prediction
from pricer.llama.predictor import Predictor
from pricer.price.distribution import PriceDistribution
from pricer.prompt import Prompt
from pricer.settings import PASSES

KEPT_BYTES = 32_000_000  # of answers: 2,000 texts with both passes
ENTRY_BYTES = 500  # of an entry besides its numbers
TOGETHER = {"cpu": 4, "cuda": 64}  # texts of the line in one pass, at most
WINDOW_S = {"cpu": 0.0, "cuda": 0.02}  # how long the first one waits for others
TELL_SECONDS = 1.0  # between two looks at one's place in the line
# What a text costs grows with its length, and with the lattice's nodes as with so many more characters.
NODES_CHARS = 400
USUAL_CHARS = 1000  # a text of two hundred tokens, with those
GUESS_SECONDS = 1.0  # that it takes, before the first text has been timed
NOBODY_WAITS = "Nobody waits for this answer any more."
SMOOTH = 0.3  # weight of what the latest texts took
WAIT_SECONDS = 20.0  # in the line, at most, about: whoever would wait longer is asked to come back


@dataclass(frozen=True)
class Place:
    """Where in the line somebody stands: how many texts come `before` theirs (0: it is their turn), and in how many
    seconds about the fine-tuned model's answer should be there."""

    before: int
    seconds: int


class Kept:
    """Values by text, the latest used ones, in at most so many bytes. Texts are kept as a hash alone."""

    def __init__(self, most_bytes: int):
        self.most_bytes, self.bytes = most_bytes, 0
        self._values: OrderedDict[tuple[bytes, str], tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def has(self, text: str, kind: str) -> bool:
        return _key(text, kind) in self._values

    def get(self, text: str, kind: str) -> Any:
        """The value, None where none is kept."""
        key = _key(text, kind)
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, text: str, kind: str, value: Any, size: int) -> None:
        """`size`: bytes of the value."""
        key, size = _key(text, kind), size + ENTRY_BYTES
        with self._lock:
            self.bytes += size - self._values.pop(key, (None, 0))[1]
            self._values[key] = value, size
            while self.bytes > self.most_bytes:
                self.bytes -= self._values.popitem(last=False)[1][1]


def _key(text: str, kind: str) -> tuple[bytes, str]:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), kind


def _cost(texts: Iterable[str]) -> int:
    """Of prompts, in characters."""
    return sum(len(text) + NODES_CHARS for text in texts)


@dataclass(eq=False)
class _Ticket:
    """Somebody in the line. `answers` gets {pass: prediction}, or the exception that came instead."""

    prompt: Prompt
    wanted: Callable[[], bool]
    answers: SimpleQueue = field(default_factory=SimpleQueue)
    left: bool = False

    @property
    def stays(self) -> bool:
        return not self.left and self.wanted()


class SharedPredictor:
    """`one` predictor as many ask it at the same time; what it does not do itself is that predictor's.

    What is kept is this predictor's alone, so it is always of its base, its adapter and its lattice, and of the prompt
    as it was cut; priors, rules and axes are read from it anew.
    together: texts of the line in one pass; 0: nobody waits here, and every request goes to the predictor itself, as on
    ZeroGPU, where the card is lent to a request.
    """

    def __init__(
        self,
        one: Predictor,
        *,
        together: int | None = None,
        window_s: float | None = None,
        kept_bytes: int = KEPT_BYTES,
    ):
        device = one.pair.device.type
        self.one, self.kept = one, Kept(kept_bytes)
        self.together = TOGETHER.get(device, 1) if together is None else together
        self.window_s = WINDOW_S.get(device, 0.0) if window_s is None else window_s
        self._line: list[_Ticket] = []
        self._at_work: list[_Ticket] = []
        self._turn = threading.Lock()  # of the line and those at work
        self._working = False
        self._pace: float | None = None  # seconds that a character takes in both passes
        self._since = 0.0  # when those at work began

    def __getattr__(self, name: str) -> Any:
        return getattr(self.one, name)

    # One text ------------------------------------------------------------------------------------------------

    def compare(self, text: str, wanted: Callable[[], bool] = lambda: True) -> Comparison:
        """As `Predictor.compare`, in line; `wanted`: whether anybody still waits for it."""
        prompt = self.prepare(text)
        return Comparison(prompt, **dict(self.both_passes(prompt, wanted)))

    def both_passes(
        self, prompt: Prompt, wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[str, Prediction]]:
        """As `Predictor.both_passes`, in line."""
        for found in self.ask(prompt, wanted):
            if not isinstance(found, Place):
                yield from found.items()

    def ask(
        self, prompt: Prompt, wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[Place | Mapping[str, Prediction]]:
        """Both passes over one prompt: the places in the line, as they change, and predictions by pass as they are
        done, the fine-tuned one first; both at once where they are kept. Whoever stops iterating has left the line, and
        so has whoever is not `wanted` any more, for whom InputError is raised."""
        if len(known := self._known(prompt)) == len(PASSES):
            yield known
        elif not self.together:
            for which, prediction in self.one.both_passes(prompt):
                self._keep(prompt, which, prediction)
                yield {which: prediction}
        else:
            yield from self._in_line(prompt, wanted)

    def _in_line(
        self, prompt: Prompt, wanted: Callable[[], bool]
    ) -> Iterator[Place | Mapping[str, Prediction]]:
        ticket = _Ticket(prompt, wanted)
        done = told = None
        try:
            self._join(ticket)
            while done != PASSES[0]:
                if done is None and (place := self._place(ticket)) != told:
                    yield (told := place)
                try:
                    found = ticket.answers.get(timeout=TELL_SECONDS)
                except Empty:
                    if not wanted():
                        raise InputError(NOBODY_WAITS) from None
                    continue
                if isinstance(found, BaseException):
                    raise found
                [done] = found
                yield found
        finally:
            ticket.left = True

    @property
    def seconds_to_a_place(self) -> float:
        """In how many seconds about the next one leaves the line, as far as it is known."""
        return self._pace * USUAL_CHARS if self._pace else GUESS_SECONDS

    def has_room(self, taken: int) -> bool:
        """Whether the turn of one more text would come within `WAIT_SECONDS`, about. taken: requests that are in the line
        or on their way there."""
        with self._turn:
            coming = taken - len(self._line) - len(self._at_work)
            seconds = self._left() + self._seconds({one.prompt.text for one in self._line if not one.left})
        return not self.together or seconds + coming * self.seconds_to_a_place <= WAIT_SECONDS

    def knows(self, text: str) -> bool:
        """Whether both answers about a text are kept. Raises InputError for text that cannot be used."""
        prompt = self.prepare(text)
        return all(self.kept.has(prompt.text, which) for which in PASSES)

    def awaits(self, text: str) -> bool:
        """Whether somebody waits for the answers about a text. Raises InputError for text that cannot be used."""
        prompt = self.prepare(text)
        with self._turn:
            return any(one.prompt.text == prompt.text for one in (*self._line, *self._at_work))

    # The line ------------------------------------------------------------------------------------------------

    def _join(self, ticket: _Ticket) -> None:
        with self._turn:
            self._line.append(ticket)
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, daemon=True, name="line").start()

    def _place(self, ticket: _Ticket) -> Place:
        own = ticket.prompt.text
        with self._turn:
            if ticket not in self._line:
                return Place(0, math.ceil(self._seconds([own])))
            texts = list(dict.fromkeys(one.prompt.text for one in self._line if not one.left))
            before = texts[: texts.index(own)]
            seconds = self._left() + self._seconds(before) + self._seconds([own]) / 2
            return Place(len(before) + len({one.prompt.text for one in self._at_work}), math.ceil(seconds))

    def _seconds(self, texts: Iterable[str]) -> float:
        """How long both passes over these prompts take, about."""
        return _cost(texts) * (self._pace or GUESS_SECONDS / USUAL_CHARS)

    def _left(self) -> float:
        """Seconds until those at work are done, about."""
        whole = self._seconds({one.prompt.text for one in self._at_work})
        return max(0.0, whole - (time.perf_counter() - self._since))

    def _work(self) -> None:
        """While anybody waits."""
        if self.window_s:
            time.sleep(self.window_s)
        while texts := self._next():
            start = time.perf_counter()
            if self._serve(texts):
                pace = (time.perf_counter() - start) / _cost(tickets[0].prompt.text for tickets in texts)
                before = pace if self._pace is None else self._pace
                self._pace = before + SMOOTH * (pace - before)

    def _next(self) -> list[list[_Ticket]]:
        """The first few texts of the line, each with all who wait for it; none when the work is over."""
        with self._turn:
            texts: dict[str, list[_Ticket]] = {}
            self._line = [ticket for ticket in self._line if ticket.stays and not self._is_served(ticket)]
            for ticket in self._line:
                if ticket.prompt.text in texts or len(texts) < self.together:
                    texts.setdefault(ticket.prompt.text, []).append(ticket)
            self._at_work = [ticket for tickets in texts.values() for ticket in tickets]
            self._line = [ticket for ticket in self._line if ticket.prompt.text not in texts]
            self._working = bool(texts)
            self._since = time.perf_counter()
            return list(texts.values())

    def _is_served(self, ticket: _Ticket) -> bool:
        """With answers that others got since it came."""
        known = self._known(ticket.prompt)
        if is_served := len(known) == len(PASSES):
            for which, answer in known.items():
                ticket.answers.put({which: answer})
        return is_served

    def _serve(self, texts: Sequence[Sequence[_Ticket]]) -> bool:
        """Both passes over these texts; whether they came to their end."""
        try:
            for which, found in self.one.both([tickets[0].prompt for tickets in texts]):
                for tickets, answer in zip(texts, found, strict=True):
                    self._keep(tickets[0].prompt, which, answer)
                    for ticket in tickets:
                        ticket.answers.put({which: answer})
                if not any(ticket.stays for tickets in texts for ticket in tickets):
                    return which == PASSES[0]
        except Exception as error:  # of one of them: the others have their answer all the same
            if len(texts) > 1:
                return all([self._serve([tickets]) for tickets in texts])
            for ticket in texts[0]:
                ticket.left = True
                ticket.answers.put(error)
            return False
        return True

    # Many texts ----------------------------------------------------------------------------------------------

    def predict(self, prompts: Sequence[Prompt], which: str) -> list[Prediction]:
        """As `Predictor.predict`; what is kept costs nothing."""
        answers: dict[int, Prediction] = {}
        for indices, predictions in self.predict_batches(prompts, which):
            answers |= zip(indices, predictions, strict=True)
        return [answers[i] for i in range(len(prompts))]

    def predict_batches(
        self, prompts: Sequence[Prompt], which: str
    ) -> Iterator[tuple[list[int], list[Prediction]]]:
        """As `Predictor.predict_batches`; what is kept comes first."""
        known = {i: found for i, prompt in enumerate(prompts) if (found := self._kept(prompt, which))}
        if known:
            yield list(known), list(known.values())
        todo = [i for i in range(len(prompts)) if i not in known]
        if not todo:
            return
        for indices, predictions in self.one.predict_batches([prompts[i] for i in todo], which):
            indices = [todo[i] for i in indices]
            for i, prediction in zip(indices, predictions, strict=True):
                self._keep(prompts[i], which, prediction)
            yield indices, predictions

    def log_likelihood(self, prompt: Prompt) -> float:
        """As `Predictor.log_likelihood`."""
        known = self.kept.get(prompt.text, "likelihood")
        if known is None:
            known = self.one.log_likelihood(prompt)
            self.kept.put(prompt.text, "likelihood", known, 0)
        return known

    # What is kept --------------------------------------------------------------------------------------------

    def _keep(self, prompt: Prompt, which: str, prediction: Prediction) -> None:
        numbers = np.array(prediction.own.probabilities)  # a copy: they may be a row of a whole batch's
        self.kept.put(prompt.text, which, (numbers, prediction.seconds), numbers.nbytes)

    def _known(self, prompt: Prompt) -> dict[str, Prediction]:
        return {which: found for which in reversed(PASSES) if (found := self._kept(prompt, which))}

    def _kept(self, prompt: Prompt, which: str) -> Prediction | None:
        if (found := self.kept.get(prompt.text, which)) is None:
            return None
        numbers, seconds = found
        reading = (self.one.pair.adapter, self.one.prior) if which == "tuned" else (None, None)
        return Prediction(PriceDistribution(numbers), seconds, *reading)
