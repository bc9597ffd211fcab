// Browser side of pricer/ui/compare/kept.py; the body of a function of (element, trigger, props, server, upload, watch).
const said = WORDS;
const root = element.querySelector(".strip-root");
const usd = (price) => (price === null || price === undefined ? "–" : `$${price.toLocaleString("en-US", { minimumFractionDigits: price < 10 ? 2 : 0, maximumFractionDigits: price < 10 ? 2 : 0 })}`);
const make = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);

function draw() {
  const rows = props.value ?? [];
  root.replaceChildren();
  if (!rows.length) return;
  const head = make("header", "");
  head.append(make("h3", said.title), make("button", said.clear, { type: "button", id: "clear-tried" }));
  const table = make("table", "");
  const top = table.createTHead().insertRow();
  for (const name of said.heads) top.append(make("th", name));
  const body = table.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    const again = make("button", row.text.slice(0, 60) + (row.text.length > 60 ? " …" : ""), { type: "button" });
    again.addEventListener("click", () => window.pricer.restore(row));
    line.insertCell().append(again);
    const off = row.actual ? Math.abs(row.tuned - row.actual) : null;
    for (const price of [row.tuned, row.base, row.actual, off]) line.insertCell().textContent = usd(price);
  }
  root.append(head, table);
}
root.addEventListener("click", (event) => event.target.id === "clear-tried" && trigger("clear", {}));
// What an example typically costs, on its chip when it is looked at: Gradio makes chips anew, without what was put on them.
const typical = TYPICAL;
function price(event) {
  const chip = event.target.closest?.("[id^=example-]");
  if (chip) chip.dataset.tip = typical[Number(chip.id.slice("example-".length))];
}
for (const name of ["pointerover", "focusin"]) document.addEventListener(name, price, true);
window.pricerAskAgain = (before) => trigger("again", before);
watch("value", draw);
draw();
