"""Every setting in one frozen object, read once from the environment.

A *profile* names a pair of models; everything else follows from it. Variables:

    PRICER_PROFILE      embedded | llama-8b | llama-3b   (default: embedded)
    PRICER_BASE_MODEL   Hub id or folder of another Llama, optional @revision
    PRICER_ADAPTER      Hub id or folder of a LoRA adapter for it, optional @revision
    PRICER_QUESTION     the question of the prompt that the adapter was trained on
    PRICER_PRIOR        shop | benchmark | a file of train.prior: what prices are expected before a text is read
                        (default: shop)
    PRICER_PRECISION    fp32 | bf16 | nf4                (default: by device; on a CPU fp32, or bf16 where it has AMX)
    PRICER_DEQUANTISE   yes | no: work NF4 weights out once, after loading (default: where the card has room)
    PRICER_DEVICE       cpu | cuda                       (default: cuda when there is one)
    PRICER_CACHE        folder for the prepared base     (default: ~/.cache/pricer)
    PRICER_GPU_SECONDS  seconds of GPU to ask for per request, on ZeroGPU (default: by profile)
    PRICER_TEST_ITEMS   file with the text of the test items, for the Evaluation tab
    PRICER_TEXT_CHARS, PRICER_QUEUE, PRICER_REQUESTS_PER_MINUTE, PRICER_SESSIONS,
    PRICER_UPLOAD_BYTES, PRICER_UPLOAD_ROWS, PRICER_OWN_RUNS, PRICER_LIVE_ITEMS,
    PRICER_BATCH_ROWS
                        what one visitor may ask for     (default: see `Limits`)
    HOST, PORT          where the app listens            (default: 127.0.0.1:7860)
    HF_TOKEN            read by huggingface_hub itself, for gated models
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pricer.errors import SetupError
from pricer.prompt import QUESTION

ASSETS = Path(__file__).parent / "assets"
PASSES = ("base", "tuned")  # of one model: with its adapter switched off, and on
PRECISIONS = ("fp32", "bf16", "nf4")
DEVICES = ("cpu", "cuda")
YES_NO = {"yes": True, "no": False}


@dataclass(frozen=True)
class Profile:
    """A base model and the adapter that goes with it.

    `question` and `max_text_tokens` belong to the adapter; when its folder holds a `pricer.json`
    (our training writes one), that file has the last word.
    """

    base_model: str
    adapter: str
    question: str = QUESTION
    max_text_tokens: int = 160  # the token budget of ed-donner/pricer-data
    label: str = "Llama"
    # On ZeroGPU, for one request: two passes (about a second on one H100) and, in a process that has not had the
    # GPU before, starting CUDA and moving the weights there, reckoned at 1 GB/s. Estimated, not measured there.
    gpu_seconds: int = 10


PROFILES: dict[str, Profile] = {
    "embedded": Profile(
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        adapter=str(ASSETS / "adapter"),
        label="SmolLM2 135M",
    ),
    # The public course adapter stands in until someone trains their own with train/.
    "llama-8b": Profile(
        base_model="meta-llama/Llama-3.1-8B",
        adapter="ed-donner/pricer-2024-09-13_13.04.39@e8d637df551603dc86cd7a1598a8f44af4d7ae36",
        label="Llama 3.1 8B",
        gpu_seconds=30,
    ),
    "llama-3b": Profile(
        base_model="meta-llama/Llama-3.2-3B",
        adapter="ed-donner/price-2025-11-28_18.47.07@b19c8bfea3b6ff62237fbb0a8da9779fc12cefbd",
        question="What does this cost to the nearest dollar?",
        label="Llama 3.2 3B",
        gpu_seconds=20,
    ),
}


BATCH_ROWS = {"cpu": 500, "cuda": 10_000}


@dataclass(frozen=True)
class Limits:
    """What the app accepts before it says no, and how much it does at once."""

    text_chars: int = (
        1_000_000  # longer input is refused; far shorter input is already cut to the token budget
    )
    queue: int = 32  # requests waiting, at most; the next one is asked to come back
    # Of one visitor, for the models and with files; 0: any number. Fewer than the queue has places.
    requests_per_minute: int = 30
    # Visitors whose state is kept, the latest ones: some ten kilobytes each, and their own runs. A request of
    # a program that names no session counts as a visitor.
    sessions: int = 1_000
    # Prompt tokens (padding included) in one forward pass; None: by device, see pricer.llama.predictor.
    batch_tokens: int | None = None
    upload_bytes: int = 20_000_000  # of a file for the Evaluation tab
    upload_rows: int = 100_000
    own_runs: int = 8  # that a visitor may add to the Evaluation tab
    live_items: int = 100  # scored in one go on the page
    batch_rows: int | None = (
        None  # of one file in the Batch tab, and texts of one /predict_batch; None: by device
    )

    def rows_at_once(self, device: str) -> int:
        """`batch_rows`, by default about ten minutes of work for both passes on two cores."""
        return self.batch_rows or BATCH_ROWS.get(device, BATCH_ROWS["cpu"])


# Variable -> field of Limits; a whole number above 0, or 0 where that switches the limit off.
LIMITS = {
    "PRICER_TEXT_CHARS": "text_chars",
    "PRICER_QUEUE": "queue",
    "PRICER_REQUESTS_PER_MINUTE": "requests_per_minute",
    "PRICER_SESSIONS": "sessions",
    "PRICER_UPLOAD_BYTES": "upload_bytes",
    "PRICER_UPLOAD_ROWS": "upload_rows",
    "PRICER_OWN_RUNS": "own_runs",
    "PRICER_LIVE_ITEMS": "live_items",
    "PRICER_BATCH_ROWS": "batch_rows",
}
SWITCHED_OFF_BY_0 = ("PRICER_REQUESTS_PER_MINUTE",)


@dataclass(frozen=True)
class ModelRef:
    """A model on the Hub or in a folder: `owner/name`, `owner/name@revision`, `./folder`."""

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        if os.path.exists(Path(text).expanduser()):  # a folder's name may hold an @
            return cls(str(Path(text).expanduser()))
        name, _, revision = text.partition("@")
        return cls(name, revision or None)

    @property
    def is_folder(self) -> bool:
        return os.path.isdir(self.name)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


@dataclass(frozen=True)
class Settings:
    """One run of the program. Build it with `from_env`; change it with `dataclasses.replace`."""

    base: ModelRef
    adapter: ModelRef
    label: str
    profile: str = "embedded"
    question: str = QUESTION
    max_text_tokens: int = 160
    prior: str = "shop"  # or benchmark, or a file: see `pricer.price.prior`
    precision: str | None = None  # None: by device, see `pricer.llama.pair.choose_precision`
    dequantise: bool | None = (
        None  # None: where there is room, see `pricer.llama.pair.has_room_to_dequantise`
    )
    device: str | None = None  # None: cuda when there is one
    cache: Path = Path.home() / ".cache" / "pricer"
    test_items: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    zero_gpu: bool = False  # on a Space whose GPU is there only while a request asks for it
    gpu_seconds: int = 10  # asked for per request there
    limits: Limits = Limits()

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] | None = None,
        *,
        profile: str | None = None,
        prior: str | None = None,
    ) -> Settings:
        """Settings from environment variables (blank ones count as unset).

        `profile` overrides PRICER_PROFILE, `prior` PRICER_PRIOR. Raises SetupError with one sentence that names the
        variable and what it may be.
        """
        env = {k: v.strip() for k, v in (os.environ if env is None else env).items() if v.strip()}
        name = profile or env.get("PRICER_PROFILE") or "embedded"
        if name not in PROFILES:
            raise SetupError(
                f"There is no profile {name!r}: set PRICER_PROFILE to one of {', '.join(PROFILES)}, or leave it unset."
            )
        chosen = PROFILES[name]
        settings = cls(
            profile=name,
            base=ModelRef.parse(env.get("PRICER_BASE_MODEL", chosen.base_model)),
            adapter=ModelRef.parse(env.get("PRICER_ADAPTER", chosen.adapter)),
            label=chosen.label,
            question=env.get("PRICER_QUESTION", chosen.question),
            max_text_tokens=chosen.max_text_tokens,
            prior=prior or env.get("PRICER_PRIOR", "shop"),
            precision=_one_of(env, "PRICER_PRECISION", PRECISIONS),
            dequantise=YES_NO.get(_one_of(env, "PRICER_DEQUANTISE", tuple(YES_NO))),
            device=_one_of(env, "PRICER_DEVICE", DEVICES),
            cache=Path(env.get("PRICER_CACHE", "~/.cache/pricer")).expanduser(),
            test_items=Path(env["PRICER_TEST_ITEMS"]).expanduser() if "PRICER_TEST_ITEMS" in env else None,
            # A Space's own variable tells us that we must listen to the outside.
            host=env.get("HOST", "0.0.0.0" if "SPACE_ID" in env else "127.0.0.1"),
            port=_port(env),
            zero_gpu=on_zero_gpu(env),
            gpu_seconds=_gpu_seconds(env, chosen.gpu_seconds),
            limits=_limits(env),
        )
        if "PRICER_BASE_MODEL" in env:
            settings = replace(settings, label=Path(settings.base.name).name)
        return settings


def _one_of(env: Mapping[str, str], variable: str, allowed: tuple[str, ...]) -> str | None:
    value = env.get(variable)
    if value is not None and value not in allowed:
        raise SetupError(
            f"{variable} is {value!r}: set it to one of {', '.join(allowed)}, or leave it unset."
        )
    return value


def on_zero_gpu(env: Mapping[str, str] | None = None) -> bool:
    """Whether this is a ZeroGPU Space, read as the package `spaces` does."""
    value = (os.environ if env is None else env).get("SPACES_ZERO_GPU", "")
    return value.lower() in ("1", "t", "true")


def _gpu_seconds(env: Mapping[str, str], default: int) -> int:
    text = env.get("PRICER_GPU_SECONDS", str(default))
    if not text.isdecimal() or not 0 < int(text) <= 120:
        raise SetupError(
            f"PRICER_GPU_SECONDS is {text!r}: set it to a whole number from 1 to 120, or leave it unset."
        )
    return int(text)


def _limits(env: Mapping[str, str]) -> Limits:
    given = {}
    for variable in LIMITS.keys() & env.keys():
        text, least = env[variable], 0 if variable in SWITCHED_OFF_BY_0 else 1
        if not text.isdecimal() or len(text) > 12 or int(text) < least:
            raise SetupError(
                f"{variable} is {text!r}: set it to a whole number from {least}, or leave it unset."
            )
        given[LIMITS[variable]] = int(text)
    return Limits(**given)


def _port(env: Mapping[str, str]) -> int:
    variable = "PORT" if "PORT" in env else "GRADIO_SERVER_PORT"
    text = env.get(variable, "7860")
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SetupError(f"{variable} is {text!r}: set it to a whole number from 1 to 65535.")
    return int(text)
