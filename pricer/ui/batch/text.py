"""Every word of the Batch tab."""

from __future__ import annotations


def rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


HELP = (
    "<p>Give a file with one product per row: CSV, TSV, JSONL or Parquet, also packed as .gz. Each row gets its price, "
    "the columns stay, and rows that cannot be used are listed with the reason. Of one file the first {most:,} rows are "
    "priced here. Nothing is kept: the file is deleted when the next one comes, or within twenty minutes.</p>"
)
NO_MODEL = "Pricing a file needs the models, and they are not loaded. {problem}"
FILE = "CSV, TSV, JSONL or Parquet"

PREVIEW = "<b>{title}</b>: {rows}. {shown}"
PREVIEW_SHOWN = "The first ones look like this; the models read what is marked."
ROW_HEAD = "Row"
LEFT_OVER = (
    "Here the first {most:,} of its {rows:,} rows are priced. For all of them, on a machine of your own: "
    "<code>{command}</code>"
)
NO_ROWS = "{title} has no rows: give a file with one product per row."
GONE = "The file is no longer here: choose it again."

TEXT_COLUMN = "Product text"
TEXT_COLUMN_INFO = "The only thing that the models read."
PRICE_COLUMN = "Actual price, if there is one"
PRICE_COLUMN_INFO = "Never shown to the models."
NO_PRICE_COLUMN = "none"
PASS_NAMES = {"base": "base", "tuned": "fine-tuned"}  # within a sentence
MODEL_NAMES = {"base": "Base", "tuned": "Fine-tuned", "actual": "Actual"}
MODELS = "Models"
MODELS_INFO = "Both take twice as long."
MODEL_CHOICES = {"tuned": "Fine-tuned", "both": "Base and fine-tuned"}
SAME_COLUMN = (
    "The product text and the actual price cannot be the same column: choose another one for one of them."
)

START, STOP = "Price the file", "Stop"
IN_LINE = "Waiting in line …"
READING = "Reading the file …"
PROGRESS = "{done:,} of {total:,} rows · about {left} left"
SECONDS, MINUTES = "{seconds:.0f} s", "{minutes:.0f} min"
STOPPING = "Stopping after this step …"
STOPPED = "Stopped; what was done is kept: {done}."
NOTHING = "Stopped before the first row."
DONE = "{done} priced in {took}."
FAILED = "The file could not be priced: try again in a moment, with fewer rows if that fails as well."
ALL_REJECTED = "None of the rows can be used; the first one, row {row}: {reason}."

MEDIAN = "The median of <b>{rows}</b> is <b>{median}</b>; half of them lie from {low} to {high}."
CUT = " Longer than the models read, and so cut: {cut}."
REJECTED = "Not usable: {rejected}. Row {row}: {reason}."
MORE_REJECTED = " The others are in the list of rejected rows."
NO_PRICES = "The column {column} holds no price in dollars in any of these rows."
SOME_PRICES = "Without a usable one: {without}."
METRIC_HEADS = ("", "Error", "Median error", "RMSLE", "Hits")
METRIC_NOTE = "On {rows} with an actual price; a hit is within $40 or 20 % of it."

HISTOGRAM = "How the prices spread"
HISTOGRAM_DESCRIPTION = "Number of products by price on a logarithmic axis"
HISTOGRAM_AXIS = "products"
SCATTER = "{name}: guess against price"
MARK = "Row {row}: {text}"
NO_FIGURE = "Nothing is priced yet."

TABLE_HEADS = {
    "row": "Row",
    "text": "Product",
    "base_usd": "Base $",
    "tuned_usd": "Fine-tuned $",
    "low_usd": "From $",
    "high_usd": "to $",
    "price_usd": "Actual $",
    "off_usd": "Off by $",
}
TABLE_HINT = "From … to: where the price lies nine times in ten. A column’s ⋮ menu sorts and filters."
TABLE_CUT = "The first {shown:,} of {rows}; the download has all."

DOWNLOAD_CSV, DOWNLOAD_PARQUET = "Download CSV", "Download Parquet"
DOWNLOAD_REJECTED = "Rejected rows"
SEND = "Open in Evaluation"
RUN_LABEL = "{title}, {name}"
RUN_ORIGIN = "priced in the Batch tab of this page"
OWN_RANGES = "; its ranges are the model’s own, not checked against real prices"
