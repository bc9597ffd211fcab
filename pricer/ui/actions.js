// Browser side of pricer/ui/actions.py; the body of a function of (element, trigger, props, server, upload, watch).
const root = element.querySelector(".actions-root");

/** Which button it is, however often the HTML is made anew. */
const key = (button) => button && ["do", "value", "copy"].map((name) => button.dataset[name] ?? "").join("\n");

function draw() {
  const focused = root.contains(document.activeElement) ? key(document.activeElement.closest("button")) : null;
  root.innerHTML = props.value ?? "";
  reveal();
  if (focused) [...root.querySelectorAll("button")].find((button) => key(button) === focused)?.focus();
}

/** What is marked with data-reveal is scrolled to when it is another one and lies below or above the window. */
let revealed = null;
function reveal() {
  const what = root.querySelector("[data-reveal]");
  const which = what?.dataset.reveal ?? null;
  if (which === revealed) return;
  const first = revealed === null;
  revealed = which;
  if (!what) return;
  const look = (frames) => requestAnimationFrame(() => {
    if (!what.offsetHeight && frames) return look(frames - 1); // what it stands in is not laid out yet
    const { top, bottom } = what.getBoundingClientRect();
    if (bottom > innerHeight || top < 0) what.scrollIntoView({ block: first ? "start" : "nearest" });
  });
  look(60);
}

/** A button with data-key is pressed by that key, wherever the focus is, except where the key has a meaning of its own. */
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.target.closest("input, textarea, select, [role=listbox], dialog")) return;
  const button = root.querySelector(`button[data-key="${CSS.escape(event.key)}"]`);
  if (button?.offsetParent) button.click();
});

/** Clipboards are closed to pages in a foreign frame and on plain http: then the link is shown, selected. */
async function copy(button) {
  const link = new URL(`?${button.dataset.copy}`, location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    const words = button.textContent;
    button.textContent = button.dataset.done;
    setTimeout(() => { if (button.textContent === button.dataset.done) button.textContent = words; }, 2500);
  } catch {
    const field = Object.assign(document.createElement("input"), { value: link, readOnly: true, className: "link" });
    field.setAttribute("aria-label", button.textContent);
    button.replaceWith(field);
    field.select();
  }
}

root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) copy(button);
  else if (button.dataset.do) trigger("act", { name: button.dataset.do, value: button.dataset.value ?? "" });
});
watch("value", draw);
draw();
