// The Compare tab's part in the browser: what keeps an answer from going stale.
const box = () => document.querySelector("#product-text textarea");
const compare = () => document.querySelector("#compare");

let answered = null; // of the finished answer on the page: its text, prices, and how it was read

/** Whether the text in the box is another one than the answer's. */
const isStale = () => Boolean(answered && box() && box().value.trim() !== answered.text.trim());
const markStale = () => compare()?.classList.toggle("stale", isStale());

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

// An answer's text and how it was read are kept in the page's history, so that Back and reload bring them again, and
// in a link behind its #, which no browser sends to a server.
const MOST_IN_LINK = 6000; // characters of a text; longer addresses are cut by what they are sent with
let restoring = false;

const reading = (row) => ({ text: row.text, rule: row.rule, prior: row.prior, actual: String(row.actual ?? "") });

function fromLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  return given.get("text") ? Object.fromEntries(given) : null;
}

async function copy(button, words) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(words);
    button.textContent = button.dataset.done ?? "✓";
    setTimeout(() => (button.textContent = before), 1500);
  } catch {
    prompt(before, words); // clipboards are closed to pages on plain http
  }
}

window.pricer = {
  /** `row`: a finished answer. `asked`: by the visitor, just now. */
  answered(row, asked = false) {
    if (!row) return;
    answered = row;
    pricedText = row.text;
    markStale();
    if (!asked) {
      const before = fromLink() ?? history.state?.pricer;
      if (before && JSON.stringify(reading(before)) !== JSON.stringify(reading(row))) return window.pricer.restore(before);
      return history.replaceState({ ...history.state, pricer: reading(row) }, "");
    }
    const state = { ...history.state, pricer: reading(row) };
    const place = location.pathname + location.search;
    const same = restoring || history.state?.pricer?.text === row.text;
    history[same ? "replaceState" : "pushState"](state, "", restoring ? undefined : place);
    restoring = false;
    if (innerWidth > 640) return;
    box().blur();
    box().scrollTop = 0;
    compare().classList.add("answered"); // the text folds
    document.querySelector("#answer").scrollIntoView({ block: "start" });
  },

  /** Ask again for what was asked before: a text, and how its answer was read. */
  restore(before) {
    restoring = true;
    window.pricerAskAgain?.(reading(before)); // see strip.js
  },

  /** The rows with this answer in front; one text stands there once. */
  remember(row, rows, most) {
    if (!row) return rows ?? [];
    return [row, ...(rows ?? []).filter((other) => other.text !== row.text)].slice(0, most);
  },

  /** The answer on the page is read otherwise, as with an actual price: what is kept of it follows. */
  reread(row, rows) {
    if (!row || restoring || row.text !== answered?.text || isStale()) return rows ?? [];
    answered = row;
    history.replaceState({ ...history.state, pricer: reading(row) }, "");
    return (rows ?? []).map((other) => (other.text === row.text ? row : other));
  },

  copyText: (row) => row && copy(document.querySelector("#copy-text"), row.lines),
  copyLink(row) {
    if (!row) return;
    const given = Object.entries(reading({ ...row, text: row.text.slice(0, MOST_IN_LINK) })).filter(([, value]) => value !== "");
    copy(document.querySelector("#copy-link"), `${location.origin}${location.pathname}#${new URLSearchParams(given)}`);
  },
};

// The folded text opens when it is entered, and stays so until the next answer: were it to fold when it is left, the
// button that is being pressed would move away.
document.addEventListener("focusin", (event) => {
  if (event.target.closest("#product-text")) compare().classList.remove("answered");
});

addEventListener("popstate", (event) => {
  const before = event.state?.pricer;
  if (before && before.text !== box()?.value) window.pricer.restore(before);
});
addEventListener("hashchange", () => {
  const given = fromLink();
  if (given) window.pricer.restore(given);
});

// Ctrl+Enter in the product text asks; Gradio's own way is Shift+Enter.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#product-text")) {
    event.preventDefault();
    document.querySelector("#predict").click();
  }
});
