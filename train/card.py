"""The model card of a trained adapter, from what training recorded."""

from __future__ import annotations

from pricer.settings import ModelRef
from train.recipe import Recipe

_CARD = """---
library_name: peft
base_model: {base}
pipeline_tag: text-generation
tags: [lora, qlora, price-prediction, pricer]
---
# Product price adapter for {base}

A LoRA adapter (rank {rank}) that makes {base} write a product's price in whole US dollars behind its
text. Use it with Pricer, which reads the whole probability distribution over $1..$999 off it, or with
PEFT and this prompt, the text cut to {tokens} tokens:

```text
{question}

<title and description>

Price is $
```

## Training
{rows:,} rows, {steps:,} steps in {seconds:.0f} s on {device}, base in {precision}, {date}. `recipe.yaml` repeats it:
`python -m train.finetune recipe.yaml`.

On {validation_rows:,} validation rows that share no near-duplicate with the training rows (log-mean rule):
error ${error_usd:.2f}, RMSLE {rmsle:.3f}, hits {hits_pct:.1f} %.

## Data and its limits
Public US Amazon listings (McAuley 2023), gathered from several public repositories in the form of the
dataset `ed-donner/pricer-data`. Those sources state no licence, or several, for the listings' text; none of
it is part of this adapter. Prices are of 2023 or before and in US dollars; the model knows no other currency,
no used goods, and nothing above $999. It guesses; do not trade on it.
"""


def model_card(recipe: Recipe, record: dict) -> str:
    return _CARD.format(
        base=ModelRef.parse(recipe.base_model).name,
        rank=recipe.rank,
        tokens=recipe.max_text_tokens,
        question=recipe.question,
        **{
            k: record[k]
            for k in ("rows", "steps", "seconds", "device", "precision", "date", "validation_rows")
        },
        **{k: record["validation"][k] for k in ("error_usd", "rmsle", "hits_pct")},
    )
