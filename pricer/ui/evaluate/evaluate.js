// Tab leaves an open list of choices for the next control. Browsers make a list that scrolls a stop of its own, which
// is gone the moment it is reached, and the focus with it.
document.addEventListener("keydown", (event) => {
  if (event.key === "Tab") for (const list of document.querySelectorAll("ul.options")) list.tabIndex = -1;
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
