// The Compare tab's part in the browser: what keeps an answer from going stale.
const box = () => document.querySelector("#product-text textarea");
const compare = () => document.querySelector("#compare");

let answered = null; // of the finished answer on the page: its text, prices, and how it was read

/** Whether the text in the box is another one than the answer's. */
function markStale() {
  const stale = Boolean(answered && box() && box().value.trim() !== answered.text.trim());
  compare()?.classList.toggle("stale", stale);
}

/** What a person would type: Gradio hears of it, and so do the listeners below. */
function type(field, value) {
  const prototype = field.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
  Object.getOwnPropertyDescriptor(prototype.prototype, "value").set.call(field, value);
  field.dispatchEvent(new Event("input", { bubbles: true }));
}

/** Whether `text` is `before` with a few words changed: at least half of it is as it was, from both ends. */
function isEdit(before, text) {
  const most = Math.min(before.length, text.length);
  let head = 0;
  while (head < most && before[head] === text[head]) head++;
  let tail = 0;
  while (tail < most - head && before[before.length - 1 - tail] === text[text.length - 1 - tail]) tail++;
  return head + tail >= Math.max(before.length, text.length) / 2;
}

// An actual price belongs to the text that was there when it came; it goes when another product does.
const actual = () => document.querySelector("#actual input, #actual textarea");
let pricedText = "";
document.addEventListener("input", (event) => {
  if (event.target.closest("#actual")) pricedText = box().value;
  if (!event.target.closest("#product-text")) return;
  if (actual()?.value && pricedText && !isEdit(pricedText, box().value)) type(actual(), "");
  markStale();
});

window.pricer = {
  /** `row`: a finished answer. `asked`: by the visitor, just now. */
  answered(row, asked = false) {
    if (!row) return;
    answered = row;
    pricedText = row.text;
    markStale();
    if (!asked || innerWidth > 640) return;
    box().blur();
    compare().classList.add("answered"); // the text folds
    document.querySelector("#answer").scrollIntoView({ block: "start" });
  },
};

// Ctrl+Enter in the product text asks; Gradio's own way is Shift+Enter.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#product-text")) {
    event.preventDefault();
    document.querySelector("#predict").click();
  }
});
