"""Every word of the Compare tab, in one place."""

from __future__ import annotations

TEXT_LABEL = "Product text"
TEXT_PLACEHOLDER = (
    "For example: Wireless over-ear headphones with noise cancelling, 30-hour battery, USB-C, foldable …"
)
PREDICT = "What does it cost?"
PREDICT_HINT = "or Ctrl + Enter"
EXAMPLES = "Try"
ACTUAL_LABEL = "Actual price ($), if you know it"
ACTUAL_PLACEHOLDER = "e.g. 129.99"
ACTUAL_BAD = "The actual price must be a number of dollars above 0, such as 129.99."

# The state of the answer ------------------------------------------------------------------------------

IN_LINE = "Waiting in line …"
PLACE = "In line, {before} before you: about {seconds} s …"
READING = {"tuned": "The fine-tuned model is reading …", "base": "The base model is reading …"}
STALE = "For the earlier text: ask again."
EMPTY = "No answer yet. Paste a product’s text and ask."
NEXT = "Its turn is next …"
EMPTY_SIDE = "No answer yet."

# The answer -------------------------------------------------------------------------------------------

ABOUT = "About"
LIKELY = "likely {low} to {high}"
HALF = "as likely as not {low} to {high}"
WIDE_HELP = "The model holds it 90 % likely that the price lies between these two, and that it is as likely lower as higher."
HALF_HELP = "One time in two the price should lie between these two."
CHART_DESCRIPTION = "Probability of each price from $1 to $999. {rows}."
CHART_ROW = "{name}: {price}, likely {low} to {high}"
ACTUAL_ROW = "Actual price: {price}"

SUBTITLES = {"base": "{label} as published", "tuned": "{label} + LoRA adapter"}
RANGE = "{low} to {high}"
NOT_CALIBRATED = "not checked"
NOT_CALIBRATED_HELP = (
    "The model puts {level} of its probability between these prices. It is its own range, not checked against "
    "real prices, so the truth may lie outside more often."
)
CALIBRATED = "checked on {items:,} listings"
CALIBRATED_HELP = (
    "Checked on {items:,} listings that the model did not learn from, and set so that about {level} of their "
    "actual prices lie inside, among cheap ones and dear ones alike."
)
MEASURED = " In cross-validation it held {coverage}."
OFF_BY = "off by {off} ({share})"
TIMES = "{share:.0f} times the price"

SURENESS = {"sure": "sure", "fair": "fairly sure", "unsure": "unsure"}
SURENESS_HELP = (
    "The likely range’s high end is {times:.0f} times its low end. Of held-out listings with a range of that kind, "
    "{share} cost between half and twice the answer."
)
MAY_EXCEED = "This may cost more than $999, which these models cannot say."
NO_PRODUCT = "This does not read like a product, so the price means nothing."

PRIOR_LABEL = "Prices as in"
PRIORS = {"shop": "a shop", "benchmark": "the benchmark"}
PRIOR_NOTES = {
    "shop": "The fine-tuned model expects prices as in a shop, where half of all things cost less than about {median}. "
    "The base is shown as published.",
    "benchmark": "The fine-tuned model expects prices as in the benchmark, whose items were chosen so that half cost "
    "more than about {median}. The base is shown as published.",
}

NAMED_HIDDEN = "The text names {prices}: hidden from the models{taken}."
TAKEN = " and taken as the actual price"
NAMED_SHOWN = "The text names {prices}, and the models read it: they may simply repeat it."
SHOW_PRICE, HIDE_PRICE = "Show it to the models", "Hide it and take it as the actual price"
AND = " and "
LEFT_OUT = "Left out: {prices}"

CUT = "The models read the first {kept:,} of {given:,} characters, no more."
READ_TITLE = "What the models read"
READ_CUT = "cut here"

SAME = "Both models say about the same."
DIFFERENCE = "{first} says {amount} {second}"
BY_MODEL = {"base": "the base", "tuned": "The fine-tuned model"}
MORE, LESS, FAR_MORE = "{share} more than", "{share} less than", "{times} times as much as"
NARROWER = "; its range is {factor:.1f} times narrower."
WIDER = "; its range is {factor:.1f} times wider."
SAME_WIDTH = "; its range is about as wide."
CLOSER = " Against the actual {actual}, {winner} is closer by {gap}."
BOTH_CLOSE = " Against the actual {actual}, both are equally far off."

# How this was read ------------------------------------------------------------------------------------

HOW = "How this was read"
RULE_LABEL = "One price out of many"
RULE_INTRO = (
    "Each model gives every whole price from $1 to $999 a probability. This says which one price is shown."
)
DEFAULT_RULE = " The default."
AXIS_LABEL = "Price axis"
RULES = {
    "log-mean": ("Log-mean", "The average in log price: wrong by the smallest factor."),
    "median": ("Median", "Half of the probability lies below it: the smallest expected error in dollars."),
    "mean": ("Mean", "The plain average: the smallest squared error; long tails pull it up."),
    "mode": ("Mode", "The single likeliest price: about what greedy decoding would write."),
    "best-hit": ("Best hit", "The price most likely to be a hit: within $40 or 20 % of the truth."),
    "top-3": ("Top 3", "The three likeliest prices, weighted by their probability."),
}
UNPRICED = "spelled no price"
UNPRICED_HELP = (
    "The share of the model’s probability that goes to something else than a whole price from $1 to $999: "
    "words, or a higher price."
)
SECONDS = "{seconds:.1f} s to read"
SECONDS_HELP = "Time this model took to read the text and to spread its probability over all 999 prices."
RAW_BUTTON = "Show what each model would write"
RAW_LABEL = "would write"
RAW_HELP = "The text that the model writes behind “Price is $” if it always takes its likeliest next token."
RAW_NOTHING = "(nothing)"

# Why this price ---------------------------------------------------------------------------------------

WHY, WHY_STOP = "Why this price?", "Stop"
WHY_PROGRESS = "Leaving out each phrase in turn: {done} of {total} …"
WHY_STOPPED = "Stopped; {done} of {total} are done."
WHY_DONE = "What each phrase adds: the price with it, less the price without it."
WHY_EFFECT = {
    "more": "Adds {usd} ({share} of the price)",
    "less": "Takes off {usd} ({share} of the price)",
    "none": "Changes the price by less than 2 %",
}
WHY_ONE_PHRASE = "The text is one phrase, so there is nothing to leave out: write more about the product."

# Kept --------------------------------------------------------------------------------------------------

PIN, UNPIN = "Pin this answer", "Unpin"
PINNED = "Pinned"
PINNED_DIFFERENCE = "Now {now}, pinned {pinned}: the price is {amount} the pinned one."
PINNED_SAME = "Now {now}, pinned {pinned}: about the same."
COPY_TEXT, COPY_LINK = "Copy as text", "Copy link"
COPIED = "✓ Copied"
COPY_LINES = (
    "{text}\n{name}: about {price}, likely {low} to {high}\n{other}: about {other_price}, likely {other_low} to "
    "{other_high}"
)
STRIP_WORDS = (
    '{"title": "What you tried, kept in this browser alone", "clear": "Clear", '
    '"heads": ["Text", "Fine-tuned", "Base", "Actual", "Off by"]}'
)
