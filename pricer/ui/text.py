"""The words of the page and of the Compare tab; a larger tab has a file of words beside it."""

from __future__ import annotations

TITLE = "Pricer"
INTRO = (
    "Paste what a shop says about a product. Two Llamas read it: the <b>base</b> model as it was published, and its "
    "<b>fine-tuned</b> sibling, which learned from real listings. Compare what they think it costs."
)
COMPARE_TAB = "Compare"
EVALUATE_TAB = "Evaluation"

TEXT_LABEL = "Product text"
TEXT_PLACEHOLDER = (
    "For example: Wireless over-ear headphones with noise cancelling, 30-hour battery, USB-C, foldable …"
)
PREDICT = "Predict both prices"
PREDICT_HINT = "Ctrl + Enter does the same."
EXAMPLES = "Or try one of these"

NAMES = {"base": "Base", "tuned": "Fine-tuned"}
SUBTITLES = {"base": "{label} as published", "tuned": "{label} + LoRA adapter"}
READING = {"base": "The base model is reading …", "tuned": "The fine-tuned model is reading …"}
NEXT = "Its turn is next …"
IN_LINE = "Waiting in line …"
EMPTY_CARD = "No answer yet."

INTERVAL = "{level:.0%} interval"
NOT_CALIBRATED = "not calibrated"
NOT_CALIBRATED_HELP = (
    "The model puts {level:.0%} of its probability between these prices. It is the distribution's own range: "
    "not checked against real prices, so the truth may fall outside more often."
)
CALIBRATED = "checked on {items:,} listings"
CALIBRATED_HELP = (
    "Checked on {items:,} listings that the model was not trained on, and set so that about {level:.0%} of their "
    "actual prices lie inside, in each range of predicted prices."
)
MEASURED = " In cross-validation it held {coverage:.1%}."
UNPRICED = "spelled no price"
UNPRICED_HELP = (
    "The share of the model's probability that goes to something else than a whole price from $1 to $999: "
    "words, or a higher price."
)
SECONDS = "{seconds:.1f} s"
SECONDS_HELP = "Time this model took to read the text and to spread its probability over all 999 prices."
CHART_DESCRIPTION = "{name} model: probability of each price, most between ${low:,.0f} and ${high:,.0f}"

ACTUAL_LABEL = "Actual price ($), if you know it"
ACTUAL_PLACEHOLDER = "e.g. 129.99"
ACTUAL_BAD = "The actual price must be a number of dollars above 0, such as 129.99."
RULE_LABEL = "Point rule"
DEFAULT_RULE = " The default."
AXIS_LABEL = "Price axis"
AXES = {"Logarithmic": True, "Linear": False}
RULES = {
    "log-mean": ("Log-mean", "The average in log price: wrong by the smallest factor."),
    "median": ("Median", "Half of the probability lies below it: the smallest expected error in dollars."),
    "mean": ("Mean", "The plain average: the smallest squared error; long tails pull it up."),
    "mode": ("Mode", "The single likeliest price: about what greedy decoding would write."),
    "best-hit": ("Best hit", "The price most likely to be a hit: within $40 or 20 % of the truth."),
    "top-3": ("Top 3", "The three likeliest prices, weighted by their probability."),
}

OUTCOMES = {
    "hit": ("✓", "Hit", "within $40 or 20 % of the actual price"),
    "near": ("≈", "Near", "within $80 or 40 % of the actual price"),
    "miss": ("✕", "Miss", "further off than $80 and 40 %"),
}
OFF_BY = "off by ${off:,.2f} ({share:.0%})"

RAW_BUTTON = "Show what each model would write"
RAW_LABEL = "Greedy decoding writes"
RAW_HELP = (
    "The text that the model would write behind “Price is $” if it always took its likeliest next token."
)
RAW_NOTHING = "(nothing)"

CUT = "The text was cut: the models read its first {kept:,} of {given:,} characters."
SAME = "Both models say about the same: {tuned}."
DIFFERENCE = "The fine-tuned model says **{tuned}**, {percent:.0%} {direction} than the base’s {base}"
NARROWER = "; its interval is {factor:.1f} times narrower."
WIDER = "; its interval is {factor:.1f} times wider."
SAME_WIDTH = "; its interval is about as wide."
CLOSER = " Against the actual **{actual}**, {winner} is closer by {gap}."
BOTH_CLOSE = " Against the actual **{actual}**, both are equally far off."

TOO_MANY = (
    "You asked {most} times within a minute, which is the most here: try again in {seconds} s. For many products at "
    "once, run python -m pricer.score on a machine of your own."
)
QUEUE_FULL = "As many requests are waiting as there are places: try again in {seconds} s."
TOO_LARGE = "The request is larger than {megabytes:,.0f} MB: send less at once."
NO_RELAY = "This app fetches nothing from the web for others."

MODELS_MISSING = "**The models are not loaded.** {problem}"
FOOTER = (
    "Prices are guesses for new products in US dollars, $1 to $999, as of 2023. "
    "Runs on your own machine or Space; what you paste is not stored."
)

# For programs -----------------------------------------------------------------------------------------

API_NO_LIST = "texts must be a list of at least one text."
API_TOO_MANY_TEXTS = (
    "{given:,} texts are more than the {most:,} that are taken at once here: send fewer, or run "
    "python -m pricer.score on a machine of your own."
)
API_UNKNOWN = "{name} must be one of {allowed}."
