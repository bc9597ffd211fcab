"""`python -m pricer.score` as a test gives it, and what it says and leaves."""

import random

import pandas as pd

from pricer.scoring.__main__ import main


def words(n, seed=0):
    draw = random.Random(seed)
    return [
        f"Thing {draw.choice('abcdefgh')} {' '.join(draw.choices(['red', 'wood', 'steel', 'of'], k=draw.randrange(20)))}"
        for _ in range(n)
    ]


def run(*arguments, code=0):
    assert main([str(argument) for argument in arguments]) == code


def sentence(capsys):
    """What stands on standard error apart from the progress bar, which must be one line."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "scores/s" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def rejected(out):
    return pd.read_csv(out.with_name(f"{out.stem}.rejected.csv")).values.tolist()
