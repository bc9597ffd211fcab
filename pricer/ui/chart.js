// Browser side of pricer/ui/chart.py. gr.HTML runs this text once per chart, as the body of a function of
// (element, trigger, props, server, upload, watch), behind a line `const given = {…}` with what does not change.
const frame = element.querySelector(".chart-plot");
const label = element.querySelector(".chart-label");
const note = element.querySelector(".chart-note");
const spoken = element.querySelector(".chart-spoken");
let handlers = false; // Plotly adds `.on` to the frame with the first drawing
let stale = true; // the figure on the page is not the one in props.value

/** plotly.js, once per page however many charts there are, and after the page has painted. */
function load() {
  window.pricerPlotly ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    // The page's <base> is the app's root, also behind a proxy with a root path.
    script.src = new URL(given.plotly_path, document.baseURI).href;
    script.async = true;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      window.pricerPlotly = undefined; // the next drawing tries again
      reject(new Error(`${script.src} did not load`));
    };
    requestAnimationFrame(() => setTimeout(() => document.head.append(script)));
  });
  return window.pricerPlotly;
}

/** Colours and type of the page, as a Plotly template: whatever the figure itself sets goes before it. */
function template() {
  const style = getComputedStyle(element);
  const css = (name) => style.getPropertyValue(name).trim();
  const text = css("--body-text-color");
  const line = css("--border-color-primary");
  const clear = "rgba(0,0,0,0)";
  const font = { family: css("--font") || "sans-serif", size: 13, color: text };
  const axis = {
    gridcolor: line, linecolor: line, zerolinecolor: line,
    ticks: "outside", ticklen: 6, tickcolor: clear, // a little air between the labels and the plot
    automargin: true, title: { standoff: 12 },
  };
  return {
    layout: {
      paper_bgcolor: clear,
      plot_bgcolor: clear,
      font,
      colorway: given.colours,
      margin: { l: 48, r: 16, t: 32, b: 44 },
      xaxis: axis,
      yaxis: axis,
      colorscale: { sequential: "Cividis", diverging: "RdBu" },
      hoverlabel: {
        bgcolor: css("--background-fill-primary"), bordercolor: line, font, align: "left",
      },
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", bgcolor: clear },
      modebar: { bgcolor: clear, color: css("--body-text-color-subdued"), activecolor: text },
      newselection: { line: { color: text, width: 1 } },
      activeselection: { opacity: 0 },
      selectdirection: "any",
    },
  };
}

/** Pictures get the page's colour behind them: light text on transparent would be lost on white paper. */
function download(format) {
  const paper = getComputedStyle(element).getPropertyValue("--background-fill-primary").trim();
  const { clientWidth: width, clientHeight: height } = frame;
  const layout = { ...frame.layout, paper_bgcolor: paper };
  window.Plotly.downloadImage(
    { data: frame.data, layout },
    { format, width, height, scale: format === "png" ? 2 : 1, filename: "pricer-chart" },
  );
}

let settings; // one object for good: Plotly starts over, zoom and all, when a button's function is another
function config(Plotly, toolbar) {
  const button = (format, icon) => ({
    name: format, title: `Download as ${format.toUpperCase()}`, icon, click: () => download(format),
  });
  settings ??= {
    displaylogo: false,
    showSendToCloud: false, // a button that uploads the chart
    displayModeBar: toolbar && "hover",
    responsive: false, // Plotly watches the window only; the observer below watches the chart itself
    modeBarButtonsToRemove: ["toImage", "autoScale2d"],
    modeBarButtonsToAdd: [button("png", Plotly.Icons.camera), button("svg", Plotly.Icons.disk)],
  };
  return settings;
}

/** Typed arrays would become {"0": …} on their way to Python. */
function plain(value) {
  return ArrayBuffer.isView(value) ? Array.from(value) : Array.isArray(value) ? value.map(plain) : value;
}

/** One entry per row of the trace's data: a histogram's bar stands for all the rows in it. */
function points(event) {
  return (event?.points ?? []).flatMap((p) => {
    const mark = { curve: p.curveNumber, x: p.x ?? null, y: p.y ?? null };
    if (!p.pointNumbers) return { ...mark, index: p.pointNumber, customdata: plain(p.customdata) ?? null };
    // Here Plotly's own customdata is looked up by the number of the bar, not of the row.
    const rows = p.fullData.customdata;
    return p.pointNumbers.map((index) => ({ ...mark, index, customdata: plain(rows?.[index]) ?? null }));
  });
}

function listen() {
  if (handlers) return;
  handlers = true;
  frame.on("plotly_click", (event) => {
    if (walks() && coarse.matches) return; // a finger's own rule, below
    trigger("click", { points: points(event) });
  });
  // A cleared selection also comes as a plotly_selected without an event; plotly_deselect follows it.
  frame.on("plotly_selected", (event) => event && trigger("select", { points: points(event) }));
  frame.on("plotly_deselect", () => trigger("deselect", { points: [] }));
}

// Marks by keyboard and by finger, in figures whose layout.meta.walk says so -----------------------------------

const coarse = matchMedia("(pointer: coarse)");
const FINGER = 24; // pixels: a finger means the nearest mark within them
const walks = () => Boolean(frame.layout?.meta?.walk);

/** Every mark that stands for something, as {curve, index, x, y} with its place in pixels, from left to right. */
function marks() {
  const { xaxis, yaxis } = frame._fullLayout;
  return frame._fullData
    .flatMap((trace, curve) => [...(trace.visible === true && trace.customdata ? trace.x : [])].map((x, index) => ({
      curve, index, x: xaxis._offset + xaxis.d2p(x), y: yaxis._offset + yaxis.d2p(trace.y[index]),
    })))
    .sort((one, other) => one.x - other.x || one.y - other.y);
}

const press = ({ curve, index }) => {
  const trace = frame._fullData[curve];
  const mark = { curve, index, x: trace.x[index], y: trace.y[index], customdata: plain(trace.customdata[index]) };
  trigger("click", { points: [mark] });
};
const point = ({ curve, index }) => window.Plotly.Fx.hover(frame, [{ curveNumber: curve, pointNumber: index }]);

frame.addEventListener("click", (event) => {
  if (!handlers || !walks() || !coarse.matches || event.target.closest(".modebar")) return;
  const box = frame.getBoundingClientRect();
  const away = (mark) => Math.hypot(mark.x - (event.clientX - box.x), mark.y - (event.clientY - box.y));
  const nearest = marks().reduce((best, mark) => (!best || away(mark) < away(best) ? mark : best), null);
  if (!nearest || away(nearest) > FINGER) return;
  point(nearest);
  press(nearest);
});

let walker = null; // the mark that the arrow keys have come to, as `curve index`
frame.addEventListener("keydown", (event) => {
  if (event.target !== frame || !handlers || !walks()) return;
  const all = marks();
  const at = all.findIndex((mark) => `${mark.curve} ${mark.index}` === walker);
  const to = {
    ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at < 0 ? 0 : at - 1, ArrowDown: at < 0 ? 0 : at - 1,
    PageDown: at + 10, PageUp: at - 10, Home: 0, End: all.length - 1,
  }[event.key];
  if (to !== undefined && all.length) {
    const mark = all[Math.min(Math.max(to, 0), all.length - 1)];
    walker = `${mark.curve} ${mark.index}`;
    point(mark);
    const said = frame._fullData[mark.curve].customdata[mark.index];
    spoken.textContent = said.slice(1).join(", ");
  } else if (event.key === "Enter" && at >= 0) {
    press(all[at]);
  } else return;
  event.preventDefault();
});
frame.addEventListener("blur", () => {
  if (handlers && walker) window.Plotly.Fx.unhover(frame);
});

/** One stop for Tab in the toolbar; arrows go on from there. */
function oneStop() {
  const bar = frame.querySelector(".modebar");
  const buttons = [...(bar?.querySelectorAll(".modebar-btn") ?? [])];
  if (!buttons.length) return;
  bar.setAttribute("role", "toolbar");
  bar.setAttribute("aria-label", given.toolbar);
  buttons.forEach((button, i) => {
    button.tabIndex = i ? -1 : 0;
    button.setAttribute("role", "button");
    if (button.dataset.title) button.setAttribute("aria-label", button.dataset.title);
  });
  bar.onkeydown = (event) => {
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (event.key === "Enter" || event.key === " ") buttons[at]?.click();
    else if (to === undefined || !buttons[to]) return;
    else {
      buttons.forEach((button, i) => { button.tabIndex = i === to ? 0 : -1; });
      buttons[to].focus();
    }
    event.preventDefault();
  };
}

function say(message) {
  note.textContent = message;
  element.querySelector(".chart").classList.toggle("chart-drawn", !message);
}

/** Keeps zoom, selection and hidden traces while `uirevision` is the same. */
async function render(Plotly, data, layout) {
  await Plotly.react(frame, data, { ...layout, template: template(), autosize: true }, config(Plotly, layout.meta?.toolbar !== false));
  // To a screen reader the picture is its label; loose axis numbers tell nothing.
  for (const svg of frame.querySelectorAll(".main-svg")) svg.setAttribute("aria-hidden", "true");
  oneStop();
  const walk = walks();
  frame.tabIndex = walk ? 0 : -1;
  frame.setAttribute("role", walk ? "application" : "presentation");
  if (walk) frame.setAttribute("aria-label", `${layout.meta.description ?? ""} ${given.walk}`);
}

/** One after the other: a figure that took long must not come out on top of a newer one. */
let drawing = Promise.resolve();
function draw() {
  drawing = drawing.then(drawNow);
}

async function drawNow() {
  if (!stale) return; // drawn meanwhile
  if (!frame.clientWidth) return; // in a hidden tab: the observer calls again when it is shown
  stale = false;
  const value = props.value;
  const figure = value ? JSON.parse(value) : null;
  label.setAttribute("aria-label", figure?.layout?.meta?.description ?? (props.description ?? given.description));
  if (!figure) {
    if (handlers) window.Plotly.purge(frame);
    handlers = false;
    return say((props.empty ?? given.empty));
  }
  try {
    const Plotly = await load();
    if (value !== props.value) return; // a newer figure came while the library was loading, and draws next
    const { width, height, ...layout } = figure.layout; // the container has the size
    if (coarse.matches) {
      layout.dragmode = false; // a finger scrolls; the toolbar selects
      // The toolbar is always there, above a legend that stands above the plot.
      if (layout.showlegend && !layout.legend) layout.margin = { ...layout.margin, t: (layout.margin?.t ?? 32) + 28 };
    }
    await render(Plotly, figure.data, { uirevision: "keep", ...layout });
    listen();
    say("");
  } catch (error) {
    console.error("chart:", error);
    say(given.failed);
  }
}

watch(["value", "description", "empty"], () => {
  stale = true;
  draw();
});

const onResize = new ResizeObserver(() => {
  if (!frame.isConnected) return onResize.disconnect();
  if (stale) draw();
  else if (handlers && frame.clientWidth) window.Plotly.Plots.resize(frame);
});
onResize.observe(frame);

// Light and dark are a class on <body>. gr.HTML has no unmount hook, so the observers look for themselves.
const onTheme = new MutationObserver(() => {
  if (!frame.isConnected) return onTheme.disconnect();
  if (!frame.clientWidth) stale = true;
  else if (handlers) render(window.Plotly, frame.data, frame.layout);
});
onTheme.observe(document.body, { attributeFilter: ["class"] });
