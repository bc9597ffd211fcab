"""The words of the page that its tabs share; each tab has a file of words beside it."""

from __future__ import annotations

TITLE = "Pricer"
INTRO = (
    "Paste what a shop says about a product. A Llama <b>fine-tuned</b> on real listings says what it costs, beside the "
    "<b>base</b> model as it was published."
)
THEME_SWITCH = "Light or dark"
COMPARE_TAB = "Compare"
BATCH_TAB = "Batch"
EVALUATE_TAB = "Evaluation"

NAMES = {"base": "Base", "tuned": "Fine-tuned"}
AXIS_LABEL = "Price axis"
AXES = {"Logarithmic": True, "Linear": False}
OUTCOMES = {
    "hit": ("✓", "Hit", "within $40 or 20 % of the actual price"),
    "near": ("≈", "Near", "within $80 or 40 % of the actual price"),
    "miss": ("✕", "Miss", "further off than $80 and 40 %"),
}
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
