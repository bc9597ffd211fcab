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

OPENING = "Each dot is a product; on the line is right. Click one, or begin with {begin}."
ALSO = "Or {guess}."
GUESS_YOURSELF = "guess ten prices yourself"
BEGIN = "Worst misses"
SET_LABEL = "Items"
SETS = {
    "benchmark": (
        "Benchmark items",
        "Listings of the test split whose prices spread evenly up to $999: what the published runs were scored on.",
    ),
    "everyday": (
        "Everyday items",
        "Listings as a shop has them, half of them under $27.",
    ),
}
SET_EMPTY = "No run has been scored on these items yet."
ITEM_GONE = "The link’s item {index} is not among these: own items are with the visitor who added them alone."
SEED_SHOWN = "Published Llamas, not the models on Compare:"

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
PAIRS = {
    "compare": "The pair on Compare",
    "embedded": "The SmolLM2 135M pair",
    "seed": "The Llama 3.1 8B pair",
}
CALLED = {"base": "the base {model}", "tuned": "the fine-tuned {model}"}
COPY_LINK = "Copy link"
COPIED = "✓ Link copied"

ALL_SHARED = "On the <b>{items:,} items</b> that both have, "
SOME_SHARED = "On <b>{items:,}</b> of the {shared:,} items that both have, "
CLOSER_RUN = '{winner} is closer to the price: its error is <b class="figure">{gap}</b> lower ({interval} {low} to {high}).'
NO_CLEAR_WINNER = (
    "the data cannot tell {a} and {b} apart: the latter’s error minus the former’s is {gap}, and may be anything from "
    "{low} to {high} ({interval})."
)
TOO_FEW = "too few items to tell which is closer"
FEW_ITEMS = "Fewer than {fewest} items: chance alone could make either run look better."
TESTS_DISAGREE = "The 95 % interval and the permutation test disagree: with more items they would not."
FEW_TAG = "too few items"
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
NOTHING_LEFT = "No item passes the filter {filter}: remove it."
CONTRADICTION = "No item is left: {filters} exclude each other. Remove one."
AND = "and"
NOTHING_SHARED = "A and B have no item in common: choose another pair."

DIFFERENCE_HEAD = "B − A"
BETTER = "{winner} better"
NOISE = "within noise"
NOISE_HELP = "The 95 % interval of the paired difference holds 0: these items cannot tell the two apart."
NOT_KNOWN = "not known"
POINTS = " points"
HITS_NOTE = (
    "On a cheap item $40 is generous: a guess of $45 for a $10 cable is a hit. “Within 20 %” colours the plots, and "
    "sorts the board, by the ratio alone."
)
WITHIN = "{pct:.1f} % within 20 %"
WITHIN_HELP = "Guesses less than {hit:.0f} % away from the price, however cheap the item."
MORE_FIGURES = "More figures"
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
WORDS_LABEL = "Product"
WORDS_PLACEHOLDER = "a word of its name"
WORDS_LONG = "A search in the names may have {most} letters."
LOW_LABEL = "Actual price from ($)"
HIGH_LABEL = "to ($)"
OUTCOME_LABELS = {"a": "A’s guess was a", "b": "B’s guess was a"}
RUN_GONE = "There is no run {name} any more: choose another one."
AMOUNT_BAD = "A price filter must be a number of dollars, 0 or more."
APART_LABEL = "A and B apart by ($)"
CHIPS = {
    "categories": "{value}",
    "low_usd": "from {value}",
    "high_usd": "up to {value}",
    "outcomes_a": "A: {value}",
    "outcomes_b": "B: {value}",
    "apart_usd": "A and B {value} or more apart",
    "words": "named {value}",
    "preset": "{value}",
    "selection": "selected: {value}",
}
SELECTED_ITEMS = "{count:,} items"
REMOVE = "Remove {name}"
RESET = "Reset"
ITEMS_LEFT = "<b>{items:,}</b> of {shared:,} items"
SCATTER_TITLES = {"a": "A · {label}", "b": "B · {label}"}
SCATTER_HINT = (
    '<span class="for-mouse">Drag a box to look at what is inside only, double-click to undo. By keyboard: arrows walk the '
    'dots by price, Enter opens one.</span><span class="for-finger">A tap opens the nearest dot.</span> The shaded band '
    "holds the hits."
)
SKIP_PLOTS = "Skip the plots"
SCATTER_SAMPLED = "{drawn:,} of {items:,} items are drawn, chosen at random; all figures count every item."
COLOURS_LABEL = "Colour by"
COLOURINGS = {"Hits": False, "Within 20 %": True}
LEGENDS = {  # by share?: outcome: name, meaning
    False: {
        "hit": ("hit", OUTCOMES["hit"][2]),
        "near": ("near", OUTCOMES["near"][2]),
        "miss": ("miss", OUTCOMES["miss"][2]),
    },
    True: {
        "hit": ("within 20 %", "less than 20 % from the actual price, however cheap the item"),
        "near": ("within 40 %", "less than 40 % from the actual price"),
        "miss": ("further off", "40 % or more from the actual price"),
    },
}
NO_FIGURE = "No item is left."

STARTERS_TITLE = "Furthest off in these items"
NOTHING_OPEN = "Click a dot or a line here to see what every run said."
STARTER = "{price} · {b} says {guess}"
DETAIL_ACTUAL = "costs {price}"
DETAIL_NUMBER = "item {index}"
DETAIL_GUESS = "{end} guesses <b>{guess}</b>, {off}"
DETAIL_NO_GUESS = "{end} has no guess for this item."
TOO_HIGH, TOO_LOW, EXACT = "{off} too high", "{off} too low", "exactly right"
ALL_GUESSES = "What all {runs} runs said"
GUESS_HEADS = ("Run", "Guess", "Off by", "")
CLOSE_ITEM, CLOSE_HELP = "Close", "Escape does the same."
PREVIOUS_ITEM, NEXT_ITEM = "‹ Previous", "Next ›"
BY_PRICE, BY_PRESET = "The next dot by price", "The next of these items"
TEXT_WAITING = "Its text is still being looked up. Open the item again in a moment."
TEXT_MISSING = (
    "The shop’s own text is not at hand. With access to the Hub it is read from ed-donner/pricer-data; or set "
    "PRICER_TEST_ITEMS to a file that has it."
)
TEXT_NEVER = "The shop’s own text of these items is not published with them."
SEND = "Send to Compare"
STRIP_EMPTY = "No item is open."

PANELS = {
    "board": "Leaderboard",
    "slices": "Slices",
    "groups": "By group",
    "several": "Several runs",
    "spread": "Errors",
    "pair": "A against B",
    "running": "Running",
    "coverage": "Intervals",
    "items": "Items",
    "guess": "Guess",
    "terms": "Terms",
}
BOARD_ITEMS = "On the <b>{items:,}</b> items in view that all {runs} runs have."
BOARD_LEFT_OUT = " Not shown, with too few of them: {runs}."
BOARD_HAVE_NONE = "{runs} that have none"
BOARD_NOISE = (
    "Runs marked <b>≈ best</b> have an error that these items cannot tell from the lowest one: the 95 % interval "
    "of the paired difference holds 0."
)
BOARD_FEW = "Fewer than {fewest} items: too few to tell which run is better."
BOARD_FEW_RUNS = "Only these have been scored on this set so far."
BOARD_EMPTY = "No item is left that enough runs have."
BOARD_NO_MATCH = "No run is called that: clear the search or the kinds."
BOARD_ALL, BOARD_BEST = "Show all {runs} runs", "Show the best {best} only"
BOARD_FIND, BOARD_FIND_PLACEHOLDER = "Find a run", "a word of its name or model"
BOARD_KINDS = "Kind"
BOARD_COLUMNS_LABEL = "Columns"
BOARD_EXPORT = "Download the board as CSV"
BOARD_HEADS = {"rank": "#", "run": "Run", "pick": "Make it · pin"}
BOARD_COLUMNS = {
    "error_usd": "Error",
    "rmsle": "RMSLE",
    "hits_pct": "Hits",
    "within_pct": "Within 20 %",
    "behind_best": "Behind the best",
    "behind_a": "Against A",
    "made": "Made with",
}
TIES_BEST = "≈ best"
PINS_FULL = "{most} runs are pinned already: take one off first."
PIN_SIGN = "+"
PIN, UNPIN = "Pin {label} to the plot of several runs", "Take {label} off the plot of several runs"
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
    "guess": "Ten products by name: your price, then what both models said and the truth. Your guesses then stand on the "
    "leaderboard, for this visit only.",
    "several": "A, B and the runs that you pinned, on the same items.",
    "items": "Click a row to see the item. A column’s ⋮ menu sorts and filters; the search looks through the names.",
}
SLICES_NOTE = (
    "{looked_at:,} slices were looked at: every category within a price band and every word of the names, with {fewest} "
    "items or more. Of those named here at most {share:.0f} % are chance, and the intervals ({level:.1f} %) allow for "
    "having looked at so many."
)
SLICES_NONE = "No category within a price band, and no word of the names, has {fewest} items here."
SLICES_LOST, SLICES_WON = "Where {b} loses most", "Where {b} wins most"
SLICES_QUIET = "No slice stands out, once it is counted how many were looked at."
SLICE = "<b>{where}</b> ({items:,} items): the error is {gap} {direction} than that of {a} [{low} to {high}]."
LARGER, SMALLER = "larger", "smaller"
SLICE_WORD = "“{word}” in the name"
SLICE_BAND = "{category}, ${low:,.0f} to ${high:,.0f}"
SLICE_OVER = "{category}, ${low:,.0f} and more"
SLICE_LOOK = "Look at these"
MEASURE_LABEL = "What is drawn"
MEASURES = {"bands": "Error by price", "running": "Running mean", "share": "Distribution of errors"}
SEVERAL_ITEMS = "{runs} runs on the {items:,} items in view that all of them have."
PIN_FIRST = "Up to five more join A and B by the + on the leaderboard."
SEVERAL_EMPTY = "No item in view has a guess of all these runs."
TERMS = {  # beside the metrics above
    "Run": "One system that has guessed a price for each item: a model, a baseline, a person, your own file.",
    "A and B": "The two runs that are compared. Differences are B minus A.",
    "Near": "Not a hit, but less than $80 or less than 40 % away from the price.",
    "Miss": "Further away than $80 and than 40 %.",
    "Within 20 %": "Guesses less than {hit:.0f} % away from the price, however cheap the item: no $40 for free.",
    "95 % interval": "Bootstrap over items: of {resamples:,} random draws of as many items, with repeats, 95 % give a "
    "figure in it. Differences are paired: both runs get the same draws.",
    "Permutation p": "How often a coin toss for the sign of each item’s difference would give a difference at least as "
    "large as the one that was found.",
    "Within noise": "The 95 % interval of the paired difference holds 0: these items cannot tell the two apart.",
    "Too few items": "Fewer than {fewest} items, or so few that the interval and the permutation test disagree.",
    "≈ best": "On the leaderboard: these items cannot tell the run’s error from the lowest one.",
    "Points": "The difference of two percentages: from 28.0 % to 68.4 % are 40.4 points.",
    "Base, fine-tuned": "The same model as it was published, and after learning from listings with their prices.",
    "Published": "Guesses that others published, scored here anew.",
    "Benchmark items": "Listings of the test split of ed-donner/pricer-data, whose prices spread evenly up to $999.",
    "Everyday items": "Listings as a shop has them, most of them cheap.",
    "90 % interval of a run": "The range in which a run says that the price lies, nine times in ten.",
}
TITLE_PRICE, TITLE_CATEGORY = "By actual price", "By category"
COVERAGE_EMPTY = "No run in view has intervals."
TABLE_HEADS = {
    "index": "Item",
    "label": "Product",
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

GUESS_RUN = "You"
GUESS_BEGIN, GUESS_AGAIN = "Guess ten prices", "Ten more"
GUESS_WHICH = "Ten of the benchmark items at random, whichever are chosen above: prices up to $999, as most runs were scored on them."
GUESS_ROUND = "Benchmark item {number} of {rounds}. What did it cost, new, in dollars?"
GUESS_LABEL, GUESS_GO = "Your price ($)", "Guess"
GUESS_BAD = "A guess must be a price in dollars, 0 or more, such as 24.50."
GUESS_YOU = "<b>You</b>"
GUESS_TRUTH = "{label} cost <b>{price}</b>."
GUESS_RESULT = (
    "On these {items} products you are off by <b>{error}</b> on average (95 % interval {interval}), with {hits} hits: "
    "place <b>{rank}</b> of {runs} runs."
)
GUESS_FEW = "Ten products tell little: the interval says how far the place may be chance."
GUESS_LOOK = "Look at these ten"
GUESS_NO_ROOM = "You have added {most} runs already: remove one first, for your guesses become one."

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
OWN_ASK = "Nobody else has guessed “{label}”. Shall both models price its {items:,} products too?"
OWN_ASK_FIRST = "Nobody else has guessed “{label}”. Shall both models price the first {most:,} of its {items:,} products too?"
OWN_YES, OWN_NO = "Yes, both models", "No"
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
LIVE_PROGRESS = "{done} of {total} items · about {left} left"
SECONDS, MINUTES = "{:.0f} s", "{:.0f} min"
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
