// Browser side of pricer/ui/actions.py; the body of a function of (element, trigger, props, server, upload, watch).
const root = element.querySelector(".actions-root");

/** Which button it is, however often the HTML is made anew. */
const key = (button) => button && ["do", "value", "copy"].map((name) => button.dataset[name] ?? "").join("\n");

function draw() {
  const focused = root.contains(document.activeElement) ? key(document.activeElement.closest("button")) : null;
  root.innerHTML = props.value ?? "";
  if (focused) [...root.querySelectorAll("button")].find((button) => key(button) === focused)?.focus();
}

/** Clipboards are closed to pages in a foreign frame and on plain http: then the link is shown, selected. */
async function copy(button) {
  const link = new URL(`?${button.dataset.copy}`, location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    button.textContent = button.dataset.done;
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
