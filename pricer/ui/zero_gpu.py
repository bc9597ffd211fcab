"""ZeroGPU: a Hugging Face Space whose GPU is there only while a decorated function runs.

Such a Space installs the package `spaces` itself. It makes torch believe in a card, keeps what is moved there
when the app starts, and runs a decorated function in a process of its own that has a real one for the
seconds asked for. So the package comes before the models, arguments and results travel between processes
(a prompt and a prediction are small; the models are not among them), and an exception arrives without its
sentence: texts are checked and cut before a GPU is asked for. Anywhere else nothing here has an effect.
"""

from __future__ import annotations

from typing import Any

from pricer.llama.predictor import Predictor
from pricer.settings import on_zero_gpu

spaces: Any = None
if on_zero_gpu():
    import spaces


def share_gpu(predictor: Predictor, seconds: int) -> Predictor:
    """Let every call that needs the model ask for a GPU, for `seconds` at most; returns the same predictor.

    One request for both passes over a text; inside it, and wherever else a pass is called, `predict_batches`.
    """
    for name in ("both_passes", "predict_batches", "greedy_text", "log_likelihood", "leave_out"):
        setattr(predictor, name, spaces.GPU(getattr(predictor, name), duration=seconds))
    return predictor
