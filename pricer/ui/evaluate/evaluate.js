// Tab closes an open list of choices and goes on to the next control: else the focus goes into the list, which is taken
// away under it.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Tab" || event.target.getAttribute?.("aria-expanded") !== "true" || !event.target.closest("[role=combobox]")) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  event.target.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  const stops = [...document.querySelectorAll("a[href], button, input, select, textarea, [tabindex]")]
    .filter((stop) => stop.tabIndex >= 0 && !stop.disabled && stop.checkVisibility() && !stop.closest(".options"));
  stops[stops.indexOf(event.target) + (event.shiftKey ? -1 : 1)]?.focus();
}, true);

// A button that opens a panel leads to it.
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-do=panel]")) document.querySelector("#panels").scrollIntoView();
});

// A link to a place on this page: the page's <base> would lead it to another address.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.skip");
  if (!link) return;
  event.preventDefault();
  const place = document.querySelector(new URL(link.href).hash);
  place.scrollIntoView();
  place.querySelector("[role=tab][aria-selected=true]")?.focus({ preventScroll: true });
});
