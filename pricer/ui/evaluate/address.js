// Browser side of pricer/ui/evaluate/address.py; the body of a function of (element, trigger, props, server, upload, watch).
const ours = () => new URLSearchParams(location.search).get("tab") === "evaluation";

const go = () => trigger("go", { query: location.search.slice(1) });

function show() {
  if (!props.value) return;
  const { query, step, answered } = JSON.parse(props.value);
  if (answered !== undefined) {
    if (answered !== location.search.slice(1)) go();
    return;
  }
  if (query === location.search.slice(1) || (!query && !ours())) return;
  const place = query ? `?${query}` : location.pathname;
  // The first of the page's own addresses is where it was opened: Back leads there again.
  history[step ? "pushState" : "replaceState"](history.state, "", place);
}
watch("value", show);
show(); // the value may have come before this script

addEventListener("popstate", () => element.isConnected && go());
