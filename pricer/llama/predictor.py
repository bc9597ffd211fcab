"""Texts in, price distributions out: the only caller of the model's forward passes.

A batch takes one forward pass over the prompts and then a few small ones over the price
lattice's nodes, on top of the cached keys and values (see `pricer.price.lattice`). The same line
serves one text, a table and a stream.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from pricer.errors import InputError, SetupError
from pricer.llama import plain
from pricer.llama.batches import Question, Work, token_batches
from pricer.llama.cores import cores
from pricer.llama.flight import Flight
from pricer.llama.forward import Texts
from pricer.llama.head import Head
from pricer.llama.loading import give_memory_back
from pricer.llama.pair import LlamaPair
from pricer.llama.prediction import Comparison, Prediction, default_rule
from pricer.llama.rows import Rows
from pricer.llama.tree import Batch
from pricer.price.alike import Alike
from pricer.price.distribution import PriceDistribution
from pricer.price.lattice import PROBES, Growth, PriceLattice
from pricer.price.prior import SHIPPED, PricePrior, load_prior
from pricer.prompt import Prompt, build_prompt, clean, product_text
from pricer.settings import PASSES, Limits, Settings

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # where the limits name no number
TOLERANCE, MAX_EDGES = 5e-4, 56  # how much of the lattice may be left out, see `pricer.price.lattice.Growth`
VARIANTS = 2  # of one text, computed together: few, so that a person sees the first ones soon
_SPARE = 2**27  # bytes that passes on a CPU may leave behind
_TOKENISED = 4096  # prompts whose tokens are in memory at once


class Predictor:
    """Scores product texts with a `LlamaPair`.

    prior: the price prior that the tuned pass's answers are given under; None: as the model gives them.
    in_flight: batches that are computed side by side. With two, which is the default where it is faster, a card works
    on one while the other's next round is prepared here, and on a CPU each has its own cores (`pricer.llama.cores`).
    `work` counts what the model was given to compute.
    """

    def __init__(
        self,
        pair: LlamaPair,
        limits: Limits | None = None,
        *,
        prior: PricePrior | None = None,
        tolerance: float = TOLERANCE,
        max_edges: int | None = MAX_EDGES,
        in_flight: int | None = None,
    ):
        self.pair, self.limits, self.prior = pair, limits or Limits(), prior
        self.tolerance, self.max_edges = tolerance, max_edges
        self.in_flight = in_flight or (2 if pair.device.type == "cuda" or pair.weights else 1)
        self.lattice = PriceLattice(pair.tokenizer)
        self.work = Work()
        self._counting = threading.Lock()

    @property
    def rule(self) -> str:
        """The point rule to use when nobody names one: the one that was best for this adapter under this prior."""
        return default_rule(self.pair.adapter, self.prior)

    @property
    def priors(self) -> dict[str, PricePrior]:
        """What a visitor may choose from, by name: those that ship, and this predictor's own."""
        shipped = {name: load_prior(name) for name in SHIPPED}
        return shipped | ({self.prior.name: self.prior} if self.prior else {})

    def prior_named(self, name: str) -> PricePrior:
        """One of `priors`. Raises InputError for another name."""
        if name not in self.priors:
            raise InputError(f"There is no price prior {name!r}: choose one of {', '.join(self.priors)}.")
        return self.priors[name]

    def prepare(self, text: str) -> Prompt:
        """Clean, cut and frame one product text. Raises InputError for text that cannot be used."""
        return build_prompt(
            clean(text, max_chars=self.limits.text_chars),
            self.pair.tokenizer,
            question=self.pair.adapter.question,
            max_text_tokens=self.pair.adapter.max_text_tokens,
        )

    def compare(self, text: str) -> Comparison:
        """Both passes over one text. Raises InputError for text that cannot be used."""
        prompt = self.prepare(text)
        return Comparison(prompt, **dict(self.both_passes(prompt)))

    def both_passes(self, prompt: Prompt) -> Iterator[tuple[str, Prediction]]:
        """Both passes over one prepared prompt, each as it is done: the fine-tuned one first, for which people wait."""
        for which, answers in self.both([prompt]):
            yield which, answers[0]

    def both(self, prompts: Sequence[Prompt]) -> Iterator[tuple[str, list[Prediction]]]:
        """Both passes over a few prepared prompts, side by side, each as it is done: the fine-tuned one first."""
        flights = [Flight(which, *batch) for which in reversed(PASSES) for batch in self._batches(prompts)]
        answers = {which: [None] * len(prompts) for which in reversed(PASSES)}
        missing = dict.fromkeys(answers, len(prompts))
        for which, indices, batch in self._fly(iter(flights)):
            for i, answer in zip(indices, batch, strict=True):
                answers[which][i] = answer
            missing[which] -= len(indices)
            while missing and not missing[first := next(iter(missing))]:
                del missing[first]
                yield first, answers[first]

    def predict(
        self, prompts: Sequence[Prompt], which: str, on_done: Callable[[int], None] = lambda done: None
    ) -> list[Prediction]:
        """One pass over prepared prompts, in their order; `on_done` is told how many are done."""
        answers: list[Prediction | None] = [None] * len(prompts)
        done = 0
        for indices, batch in self.predict_batches(prompts, which):
            for i, answer in zip(indices, batch, strict=True):
                answers[i] = answer
            done += len(indices)
            on_done(done)
        return answers

    def predict_batches(
        self, prompts: Sequence[Prompt], which: str
    ) -> Iterator[tuple[list[int], list[Prediction]]]:
        """One pass, batch by batch as they are done: (indices into `prompts`, their predictions).

        Batches hold prompts of like length, so little of a batch is padding, and at most
        `limits.batch_tokens` tokens, so memory does not grow with the input.
        """
        for _, indices, predictions in self._fly(Flight(which, *batch) for batch in self._batches(prompts)):
            yield indices, predictions

    def _fly(self, waiting: Iterator[Flight]) -> Iterator[tuple[str, list[int], list[Prediction]]]:
        """Batch by batch as they are done: (pass, indices, predictions); `in_flight` of them are on their way."""
        flights: deque[Flight] = deque()

        def start() -> None:
            while len(flights) < self.in_flight and (flight := next(waiting, None)):
                flights.append(flight)
                if self.in_flight > 1:
                    self._advance(flight)

        try:
            start()
            ended = 0.0
            while flights:
                flight = flights.popleft()
                while not self._advance(flight):
                    flights.append(flight)  # it is the other's turn, while the card works on this one
                    flight = flights.popleft()
                seconds = (flight.ended - max(flight.started, ended)) / len(flight.indices)
                if self.in_flight > 1:
                    start()  # before the caller takes his time
                distributions = PriceDistribution(flight.probabilities)
                reading = (self.pair.adapter, self.prior) if flight.which == "tuned" else (None, None)
                answers = [
                    Prediction(distributions[k], seconds, *reading) for k in range(len(flight.indices))
                ]
                yield flight.which, flight.indices, answers
                ended = 0.0 if flight.future else time.perf_counter()  # a card works on one after the other
                start()
        finally:
            for flight in flights:  # whoever asked has left
                if flight.future:
                    flight.future.cancel()
        if self.pair.device.type == "cpu":
            give_memory_back(_SPARE)

    def _batches(self, prompts: Sequence[Prompt]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """(indices into `prompts`, their token ids), batch by batch."""
        device = self.pair.device.type
        budget = self.limits.batch_tokens or BATCH_TOKENS.get(device, BATCH_TOKENS["cpu"])
        for first in range(0, len(prompts), _TOKENISED):
            texts = [prompt.text for prompt in prompts[first : first + _TOKENISED]]
            ids = self.pair.tokenizer(texts, return_attention_mask=False)["input_ids"]
            for indices in token_batches([len(i) for i in ids], budget):
                yield [first + i for i in indices], [ids[i] for i in indices]

    def greedy_text(self, prompt: Prompt, which: str) -> str:
        """What greedy decoding writes behind the prompt, at most 5 tokens: the published protocol's
        way, and the only use of `generate` in the project."""
        tokenizer = self.pair.tokenizer
        ids = torch.tensor([tokenizer(prompt.text)["input_ids"]], device=self.pair.device)
        with self.pair.whole.use(which) as llama:
            out = llama.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=5,
                do_sample=False,
                temperature=None,
                top_p=None,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            )
        return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    def leave_out(
        self, whole: str, variants: Sequence[str], which: str
    ) -> Iterator[tuple[list[int], list[Prediction]]]:
        """One pass over prompts that are nearly `whole`, as they are done: (indices into `variants`, predictions). The
        beginning that they share with it is computed once, and their prices are near the exact ones: see `Alike`."""
        ids = self.pair.tokenizer([whole, *variants], return_attention_mask=False)["input_ids"]
        first, ids = ids[0], ids[1:]
        shared = [_shared(first, one) for one in ids]
        order = sorted(range(len(ids)), key=lambda i: shared[i])
        begun, growth = self._begin(first, which)
        flights = []
        for at in range(0, len(order), VARIANTS):
            rows = order[at : at + VARIANTS]
            past = [min(shared[i], len(ids[i]) - 1) for i in rows]
            flights.append(Flight(which, rows, [ids[i] for i in rows], begun, past, growth))
        for _, rows, predictions in self._fly(iter(flights)):
            yield rows, predictions

    def log_likelihood(self, prompt: Prompt) -> float:
        """Mean log-likelihood of the product text's tokens under the base, in nats: one forward pass, for short texts."""
        text, tokenizer = product_text(prompt.text), self.pair.tokenizer
        begin = prompt.text.index(text)
        found = tokenizer(prompt.text, return_offsets_mapping=True)
        starts = np.array([start for start, _ in found["offset_mapping"]])
        inside = np.flatnonzero((starts >= begin) & (starts < begin + len(text)))
        ids = found["input_ids"]
        with self.pair.use("base") as llama:
            if isinstance(batch := self._start(llama, [ids], "base"), Texts | Rows):
                batch.prompts(np.empty((1, 0), int))
                before = [ids[:i] for i in inside]  # each behind all but its last token, which `batch` has
                each = self._start(llama, before, "base", batch, [len(own) - 1 for own in before])
                logits = llama.lm_head(each.prompts(np.empty((len(before), 0), int))[:, 0])
            else:
                logits = llama(input_ids=batch.ids).logits[0, inside - 1]
            tokens = torch.tensor(ids, device=logits.device)[inside, None]
            return float(logits.float().log_softmax(-1).gather(1, tokens).mean())

    def _begin(self, ids: list[int], which: str) -> tuple[Texts | Rows | Batch, Growth]:
        """A batch of one that has been computed, and its lattice."""

        def begin(llama: LlamaForCausalLM) -> tuple[Texts | Rows | Batch, Growth]:
            batch, growth = self._start(llama, [ids], which), self._growth(which, 1)
            for _ in self._grow(llama, [ids], batch, growth):
                pass
            return batch, growth

        if self._is_lean([ids]):
            return cores().submit(lambda: begin(self.pair.llama)).result()
        with self._held(which, [ids]) as llama:
            return begin(llama)

    def _advance(self, flight: Flight) -> bool:
        """On a CPU: to its end, in a thread of its own, which is waited for the second time. Else to the next wait
        for the device; alone, to the end. Whether it has arrived there."""
        if flight.future:
            flight.future.result()
            return True
        if self._is_lean(flight.ids, flight.begun):
            flight.future = cores().submit(
                lambda: flight.to_the_end(self._score(self.pair.llama, *flight.batch))
            )
            return False
        with self._held(flight.which, flight.ids, flight.begun) as llama:
            flight.steps = flight.steps or self._score(llama, *flight.batch)
            try:
                next(flight.steps)
                while self.in_flight == 1:
                    next(flight.steps)
            except StopIteration as end:
                flight.arrive(end.value)
                return True
        return False

    def _is_lean(self, ids: Sequence[Sequence[int]], begun: Texts | Rows | Batch | None = None) -> bool:
        """Whether `pricer.llama.forward` computes these prompts, as it does where it has `begun`: it needs neither the
        adapter's switch nor its lock."""
        if begun:
            return isinstance(begun, Texts)
        weights = self.pair.weights
        return bool(weights and weights.reach(ids, self.lattice))

    def _in_rows(self, ids: Sequence[Sequence[int]], begun: Texts | Rows | Batch | None = None) -> bool:
        """Whether `pricer.llama.rows` computes these prompts, on a card: it does not need the adapter's switch either."""
        if begun:
            return isinstance(begun, Rows)
        return bool(self.pair.card and self.pair.card.reach(ids, self.lattice))

    def _held(self, which: str, ids: Sequence[Sequence[int]], begun: Texts | Rows | Batch | None = None):
        return self.pair.alone() if self._in_rows(ids, begun) else self.pair.whole.use(which)

    def _score(
        self,
        llama: LlamaForCausalLM,
        ids: list[list[int]],
        which: str,
        begun: Texts | Rows | Batch | None = None,
        past: Sequence[int] = (),
        whole: Growth | None = None,
    ) -> Generator[None, None, np.ndarray]:
        """(batch, 999) probabilities for token id lists of like length. Yields when the device has been told what to
        compute next: to go on is to wait for it. begun, past: as for `_start`; whole: as for `Alike`."""
        batch = self._start(llama, ids, which, begun, past)
        growth = Alike(whole, len(ids)) if whole else self._growth(which, len(ids))
        yield from self._grow(llama, ids, batch, growth)
        probabilities = growth.probabilities()
        if not np.isfinite(probabilities).all():
            raise SetupError(
                f"The {which} model answered with NaN instead of probabilities, so there is no price: set "
                "PRICER_PRECISION to bf16 or fp32, or name other models in PRICER_BASE_MODEL and PRICER_ADAPTER."
            )
        return probabilities

    def _growth(self, which: str, batch: int) -> Growth:
        # A base all but never stops as surely as a tuned model, so a look ahead would only be a round more.
        probes = PROBES if which == "tuned" else None
        return Growth(self.lattice, batch, tolerance=self.tolerance, max_edges=self.max_edges, probes=probes)

    def _grow(
        self, llama: LlamaForCausalLM, ids: list[list[int]], batch: Texts | Rows | Batch, growth: Growth
    ) -> Generator[None, None, None]:
        """The prompts' pass and the nodes' until `growth` asks for no more."""
        weights = None if isinstance(batch, Batch) else self.pair.weights
        ways = self.pair.card.ways if self.pair.card else plain
        head = Head(llama, ways.log_sums, self.lattice, self._watched, weights)
        nodes = growth.frontier()  # the prompt's end and, behind it, the lattice's first nodes
        self._count(batch, ids, nodes[:, 1:])
        hidden = batch.prompts(nodes[:, 1:])
        found = self._watched_probabilities(head, hidden, nodes)
        yield
        growth.update(nodes, found())
        while (nodes := growth.frontier()).shape[1]:
            self._count(batch, [], nodes)
            hidden = batch.nodes(nodes)
            found = self._watched_probabilities(head, hidden, nodes)
            yield
            growth.update(nodes, found())

    def _start(
        self,
        llama: LlamaForCausalLM,
        ids: list[list[int]],
        which: str,
        begun: Texts | Rows | Batch | None = None,
        past: Sequence[int] = (),
    ) -> Texts | Rows | Batch:
        """A batch; behind the first `past[i]` tokens of what was `begun` where that is given."""
        if self._is_lean(ids, begun) or self._in_rows(ids, begun):
            return self._question.start(which == "tuned", ids, begun, past)
        return Batch(llama, self.lattice, ids, self._send, begun, min(past, default=0))

    def _lean(
        self, tuned: bool, ids: list[list[int]], begun: Texts | Rows | None = None, past: Sequence[int] = ()
    ) -> Texts | Rows:
        if self.pair.card:
            return Rows(self.pair.card, tuned, self.lattice, ids, self._send, begun, past)
        return Texts(self.pair.weights, tuned, self.lattice, ids, begun, past)

    def _count(self, batch: Texts | Rows | Batch, ids: Sequence[Sequence[int]], nodes: np.ndarray) -> None:
        """A pass over prompts, if any, and nodes."""
        work, real, tokens = self.work, int((nodes >= 0).sum()), sum(map(len, ids))
        in_rows = isinstance(batch, Rows)  # of tokens without padding
        with self._counting:
            work.forward_passes += 1
            work.items += len(ids)
            work.prompt_tokens += tokens
            work.known += int(np.broadcast_to(batch.past, len(ids)).sum()) if ids else 0
            work.prompt_padding += 0 if in_rows else len(ids) * max(map(len, ids), default=0) - tokens
            work.nodes += real
            work.node_padding += 0 if in_rows else nodes.size - real

    def _send(self, array: np.ndarray) -> torch.Tensor:
        """The array on the model's device. A copy to a card is only ordered, so that nothing waits here for what the
        card still has to do before it."""
        tensor, device = torch.from_numpy(array), self.pair.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    @cached_property
    def _question(self) -> Question:
        a, z = (self.pair.tokenizer(self.prepare(text).text)["input_ids"] for text in ("a", "Z"))
        return Question(self._lean, a[: _shared(a, z)])

    @cached_property
    def _watched(self) -> torch.Tensor:
        return self._send(self.lattice.watched)

    def _watched_probabilities(
        self, head: Head, hidden: torch.Tensor, nodes: np.ndarray
    ) -> Callable[[], np.ndarray]:
        """`Head`'s, for `Growth.update`, once what is returned is called."""
        out = head(hidden, nodes)
        if out.device.type != "cuda":
            return out.numpy
        host = torch.empty(out.shape, pin_memory=True).copy_(out, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def wait() -> np.ndarray:
            copied.synchronize()
            return host.numpy()

        return wait


def _shared(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two prompts have in common from the first on."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def load_predictor(settings: Settings) -> Predictor:
    """The predictor for the models and the prior that the settings name. Raises SetupError with what to do."""
    prior = load_prior(settings.prior)  # before loading models for nothing
    from pricer.llama.direct import read_pair

    return Predictor(read_pair(settings), settings.limits, prior=prior)
