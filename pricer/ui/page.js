// What every tab needs of the browser: explanations that open alike by tap, focus and mouse, and light or dark.

// Explanations: one box for the page, beside the words with `data-tip`, always inside the window.
const tip = Object.assign(document.createElement("div"), { id: "tip", hidden: true });
document.body.append(tip);
let explained = null;

function explain(words) {
  explained = words;
  tip.hidden = !words;
  if (!words) return;
  tip.textContent = words.dataset.tip;
  const at = words.getClientRects()[0] ?? words.getBoundingClientRect();
  const room = 8;
  const left = Math.min(Math.max(at.left, room), innerWidth - tip.offsetWidth - room);
  const below = at.bottom + 6;
  const above = at.top - tip.offsetHeight - 6;
  tip.style.left = `${Math.max(room, left)}px`;
  tip.style.top = `${below + tip.offsetHeight > innerHeight - room && above > 0 ? above : below}px`;
}
const at = (event) => event.target.closest?.("[data-tip]");
document.addEventListener("pointerover", (event) => event.pointerType === "mouse" && at(event) && explain(at(event)));
document.addEventListener("pointerout", (event) => {
  if (event.pointerType === "mouse" && at(event) === explained && at(event) !== document.activeElement) explain(null);
});
document.addEventListener("focusin", (event) => explain(at(event) ?? null));
document.addEventListener("focusout", () => explain(null));
// A tap focuses what can be focused, but not in every browser; a second tap closes.
document.addEventListener("click", (event) => {
  const words = at(event);
  if (!words) return explain(null);
  if (document.activeElement !== words) words.focus({ preventScroll: true });
  explain(words);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") explain(null);
  else if (["Enter", " "].includes(event.key) && event.target.matches("[data-tip][role=button]")) {
    explain(explained === event.target ? null : event.target); // as a button does
    event.preventDefault();
  }
});
addEventListener("scroll", () => explained && explain(explained.isConnected ? explained : null), { passive: true, capture: true });

// A button that cannot be pressed for a while has the focus again afterwards, unless that went elsewhere meanwhile.
let resting = null;
document.addEventListener("focusin", () => (resting = null));
document.addEventListener("focusout", (event) => (resting = event.target.disabled ? event.target : null));
new MutationObserver((changes) => {
  if (resting && document.activeElement === document.body && changes.some(({ target }) => target === resting && !target.disabled))
    resting.focus({ preventScroll: true });
}).observe(document.body, { subtree: true, attributeFilter: ["disabled"] });

// Light or dark: as the system has it, until the visitor presses the switch.
const THEME = "pricer-theme";
const dark = () => document.body.classList.contains("dark");
try {
  const chosen = localStorage.getItem(THEME);
  if (chosen && !new URLSearchParams(location.search).has("__theme")) document.body.classList.toggle("dark", chosen === "dark");
} catch {} // a browser that keeps nothing
document.addEventListener("click", (event) => {
  if (!event.target.closest("#theme-switch")) return;
  document.body.classList.toggle("dark");
  try {
    localStorage.setItem(THEME, dark() ? "dark" : "light");
  } catch {}
});
