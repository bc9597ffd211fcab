"""Every word of the Evaluation tab, in one place."""

from __future__ import annotations

from pricer.ui.text import AXES, AXIS_LABEL, COMPARE_TAB, EVALUATE_TAB, NAMES, OUTCOMES

__all__ = [
    "AXES",
    "AXIS_LABEL",
    "COMPARE_TAB",
    "EVALUATE_TAB",
    "NAMES",
    "OUTCOMES",
]  # those that it shares with the page

RUNS_MISSING = "**There are no evaluation runs to show.** {problem}"

RUN_LABELS = {"a": "Run A", "b": "Run B"}
RUN_CHOICE = "{label} · {kind}"
RUN_CHOICE_PUBLISHED = "{label} · {kind} · published"
KINDS = {
    "tuned": "fine-tuned",
    "base": "base",
    "ensemble": "ensemble",
    "frontier": "frontier",
    "classical": "classical",
    "human": "human",
    "baseline": "baseline",
    "own": "yours",
}
PUBLISHED = "published"
PUBLISHED_HELP = "Guesses published by others, scored here anew. Origin: {origin}"
SWAP = "⇄ Swap"
PAIRS = {"seed": "The seed’s pair: Llama 3.1 8B", "embedded": "The embedded pair: SmolLM2 135M"}
COPY_LINK = "Copy link to this view"
COPIED = "✓ Link copied"

ALL_SHARED = "On the <b>{items:,} items</b> that both have, "
SOME_SHARED = "On <b>{items:,}</b> of the {shared:,} items that both have, "
CLOSER_RUN = '{winner} is closer to the price: its error is <b class="figure">{gap}</b> lower ({interval} {low} to {high}).'
NO_CLEAR_WINNER = (
    "the data cannot tell A and B apart: B’s error minus A’s is {gap}, and may be anything from {low} to {high} "
    "({interval})."
)
INTERVAL_TERM = "95 % interval"
BOOTSTRAP_HELP = (
    "Bootstrap over items: the figure is computed again on {resamples:,} random draws of as many items, with "
    "repeats; 95 % of the results lie in this interval. Differences are paired: both runs get the same draws."
)
COUNTS = "{b} closer on <b>{wins_b:,}</b> · ties {ties:,} · {a} closer on <b>{wins_a:,}</b>"
P_VALUE_TERM = "permutation p"
P_VALUE = "{term} {value}"
P_VALUE_HELP = (
    "If neither run were better, the sign of each item’s difference would be a coin toss. So often would tosses "
    "give a difference at least as large: small values speak for a real difference."
)
PICKED_BY_GUESS = (
    "These items were picked by what the runs guessed or by hand: the figures describe them, but do not show "
    "which run is better."
)
NOTHING_LEFT = "No item is left: remove a filter."
NOTHING_SHARED = "A and B have no item in common: choose another pair."

DIFFERENCE_HEAD = "B − A"
BETTER = "{winner} better"
NOISE = "within noise"
NOISE_HELP = "The 95 % interval of the paired difference holds 0: these items cannot tell the two apart."
NOT_KNOWN = "not known"
METRICS = {  # field of metrics.Summary: name, what it means, how it is written, whether more is better
    "error_usd": ("Error", "Mean distance between guess and actual price, in dollars.", "${:,.2f}", False),
    "rmsle": (
        "RMSLE",
        "Root mean squared difference of log prices: counts being wrong by a factor, cheap or dear.",
        "{:.2f}",
        False,
    ),
    "hits_pct": ("Hits", "Guesses less than $40 or less than 20 % away from the price.", "{:.1f} %", True),
    "median_error_usd": (
        "Median error",
        "Half of the guesses are closer than this, in dollars.",
        "${:,.2f}",
        False,
    ),
    "skill": (
        "Skill",
        "1 − error / error of always guessing the training mean: 1 is perfect, 0 no better than that.",
        "{:.2f}",
        True,
    ),
    "coverage_pct": (
        "Coverage",
        "How many actual prices lie inside the run’s 90 % intervals: 90 % would be right.",
        "{:.1f} %",
        None,
    ),
    "crps_usd": (
        "CRPS",
        "Error of the whole distribution, in dollars: as the mean error, but a spread-out guess is judged by "
        "where it puts its probability.",
        "${:,.2f}",
        False,
    ),
    "unparsed_pct": (
        "Unparsed",
        "Answers that held no price; they count as a guess of $0.",
        "{:.1f} %",
        False,
    ),
}

LOOK_CLOSER = "Look closer"
PRESETS = {
    "worst-b": ("Worst misses of B", "The 25 misses of B with the largest error."),
    "b-beats-a": ("B beats A most", "The 25 items on which B’s error is lowest against A’s."),
    "a-beats-b": ("A beats B most", "The 25 items on which A’s error is lowest against B’s."),
    "both-wrong": ("Both wrong", "Items that A and B both miss."),
    "overpriced": ("Overpriced cheap items", "Items of $50 or less that B guesses too high, and no hit."),
    "disagree": ("Biggest disagreement", "The 25 items on which A’s and B’s guesses are furthest apart."),
}
FILTERS = "Filters"
CATEGORY_LABEL = "Category"
CATEGORY_ALL = "all"
LOW_LABEL = "Actual price from ($)"
HIGH_LABEL = "to ($)"
OUTCOME_LABELS = {"a": "A’s guess was a", "b": "B’s guess was a"}
RUN_GONE = "There is no run {name} any more: choose another one."
AMOUNT_BAD = "A price filter must be a number of dollars, 0 or more."
APART_LABEL = "A and B at least apart ($)"
CHIPS = {
    "categories": "{value}",
    "low_usd": "from {value}",
    "high_usd": "up to {value}",
    "outcomes_a": "A: {value}",
    "outcomes_b": "B: {value}",
    "apart_usd": "A and B {value} or more apart",
    "preset": "{value}",
    "selection": "selected: {value}",
}
SELECTED_ITEMS = "{count:,} items"
REMOVE = "Remove {name}"
RESET = "Reset"
ITEMS_LEFT = "<b>{items:,}</b> of {shared:,} items"
SCATTER_TITLES = {"a": "A · {label}", "b": "B · {label}"}
SCATTER_HINT = (
    "Each mark is an item. Click one to see it; drag a box to look at those inside it only, double-click to undo. "
    "The shaded band holds the hits."
)
SCATTER_SAMPLED = "{drawn:,} of {items:,} items are drawn, chosen at random; all figures count every item."
LEGEND = {"hit": "hit", "near": "near", "miss": "miss"}
NO_FIGURE = "No item is left."

DETAIL_TITLE = "Item {index}"
DETAIL_ACTUAL = "actual {price}"
DETAIL_GUESS = "{end} guesses <b>{guess}</b>, {off}"
DETAIL_NO_GUESS = "{end} has no guess for this item."
TOO_HIGH, TOO_LOW, EXACT = "{off} too high", "{off} too low", "exactly right"
DETAIL_RANK = "{runs} runs guessed this item; closest: {best}, {off}."
CLOSE_ITEM = "Close"
PREVIOUS_ITEM, NEXT_ITEM = "‹ Previous", "Next ›"
TEXT_WAITING = "Its text is still being looked up. Open the item again in a moment."
TEXT_MISSING = (
    "Its text is not at hand: the runs hold figures only. With access to the Hub it is read from "
    "ed-donner/pricer-data; or set PRICER_TEST_ITEMS to a file that has it."
)
SEND = "Send to Compare"
STRIP_EMPTY = "No item is open."

PANELS = {
    "board": "Leaderboard",
    "spread": "Errors",
    "groups": "By price and category",
    "pair": "A against B",
    "running": "Running mean",
    "coverage": "Intervals",
    "items": "Items",
}
BOARD_ITEMS = "On the <b>{items:,}</b> items in view that all {runs} runs have."
BOARD_LEFT_OUT = " Not shown, with too few of them: {runs}."
BOARD_HAVE_NONE = "{runs} that have none"
BOARD_NOISE = (
    "Runs marked <b>≈ best</b> have an error that these items cannot tell from the lowest one: the 95 % interval "
    "of the paired difference holds 0."
)
BOARD_EMPTY = "No item is left that enough runs have."
BOARD_HEADS = {"rank": "#", "run": "Run", "behind": "Behind the best", "pick": "Make it"}
TIES_BEST = "≈ best"
SORTED = "Sort by {name}"
MAKE = "Make {label} run {end}"

PANEL_NOTES = {
    "spread": "Left: guess minus price, too low to too dear. Right: the share of items off by at most so much; "
    "the higher curve is better.",
    "groups": "Mean error with its 95 % interval. Click a mark to look at its group only.",
    "pair": "Each mark is an item, by both errors. Click it to see the item; drag a box to select.",
    "running": "Mean error over the first items, in the order of the test split, with its 95 % interval.",
    "coverage": "How often each run’s own 90 % intervals held the actual price, for runs that have intervals. "
    "The dotted line is what they promise: left of it they are too narrow.",
    "items": "Click a row to see the item. A column’s ⋮ menu sorts and filters.",
}
TITLE_PRICE, TITLE_CATEGORY = "By actual price", "By category"
COVERAGE_EMPTY = "No run in view has intervals."
TABLE_HEADS = {
    "index": "Item",
    "category": "Category",
    "price_usd": "Actual $",
    "guess_usd_a": "A $",
    "guess_usd_b": "B $",
    "error_usd_a": "A off by $",
    "error_usd_b": "B off by $",
    "outcome_a": "A was",
    "outcome_b": "B was",
}
TABLE_CUT = "The first {shown:,} of {items:,} items."

# A visitor's own runs ---------------------------------------------------------------------------------

OWN_TITLE = "Add your own run"
OWN_HELP = (
    "<p>A CSV with one row per item: <code>index</code> and <code>guess</code> for the test items, or <code>text</code>, "
    "<code>price</code> and <code>guess</code> for products of your own; <code>low</code>, <code>high</code> and "
    "<code>category</code> are welcome. Or the <code>.parquet</code> and <code>.json</code> of "
    "<code>python -m train.evaluate</code>. It joins this visit only: nobody else sees it, and the file is deleted "
    "once it is read.</p>"
    "<pre>index,guess\n0,129.99\n1,1049</pre><pre>text,price,guess\nCordless drill 20V,89.00,74.50</pre>"
)
OWN_FILE = "CSV, or parquet with its JSON"
OWN_RUNS = "Yours"
EXPORT = "Download CSV"
EXPORT_HELP = "The items in view with A’s and B’s guesses, as a CSV file."

LIVE_TITLE = "Live run"
LIVE_HELP = "Both models score a few items while you watch; the two runs then join yours."
LIVE_SOURCE_LABEL = "Items"
LIVE_SOURCES = {"test": "Test items, at random", "csv": "A CSV with text and price"}
LIVE_COUNT = "How many"
LIVE_FILE = "CSV with text and price"
LIVE_PRODUCTS = "{rows:,} products from {title}."
LIVE_START, LIVE_STOP = "Start", "Stop"
LIVE_WAITING = "Waiting in line …"
LIVE_PROGRESS = "{done} of {total} items · about {seconds:.0f} s left"
LIVE_STOPPING = "Stopping after this batch …"
LIVE_STOPPED = "Stopped: the {done} items that were done are kept."
LIVE_DONE = "{done} items scored."
LIVE_NOTHING = "Stopped before the first item."
LIVE_LABEL = "{label} {name}, live"
LIVE_NO_MODEL = "A live run needs the models, and they are not loaded. {problem}"
LIVE_NO_FILE = "Choose a CSV with the columns text and price first."
LIVE_NO_ROOM = "You may have {most} runs of your own, and a live run makes two: remove some first."
LIVE_TEXTS_WAITING = "The test items’ texts are still being looked up: try again in a moment, or give a CSV."
LIVE_NO_TEXTS = (
    "The test items’ texts are not at hand: give a CSV with text and price, or set PRICER_TEST_ITEMS to a file that "
    "has them."
)
LIVE_RUNNING = "A live run is going on: wait until it is done, or stop it."
LIVE_FAILED = "The live run broke off; what was done until then is kept. Try again with fewer items."
