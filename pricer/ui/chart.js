// Browser side of pricer/ui/chart.py. gr.HTML runs this text once per chart, as the body of a function of
// (element, trigger, props, server, upload, watch), behind a line `const given = {…}` with what does not change.
const frame = element.querySelector(".chart-plot");
const label = element.querySelector(".chart-label");
const note = element.querySelector(".chart-note");
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
function config(Plotly) {
  const button = (format, icon) => ({
    name: format, title: `Download as ${format.toUpperCase()}`, icon, click: () => download(format),
  });
  settings ??= {
    displaylogo: false,
    showSendToCloud: false, // a button that uploads the chart
    displayModeBar: "hover",
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
  frame.on("plotly_click", (event) => trigger("click", { points: points(event) }));
  // A cleared selection also comes as a plotly_selected without an event; plotly_deselect follows it.
  frame.on("plotly_selected", (event) => event && trigger("select", { points: points(event) }));
  frame.on("plotly_deselect", () => trigger("deselect", { points: [] }));
}

function say(message) {
  note.textContent = message;
  element.querySelector(".chart").classList.toggle("chart-drawn", !message);
}

/** Keeps zoom, selection and hidden traces while `uirevision` is the same. */
async function render(Plotly, data, layout) {
  await Plotly.react(frame, data, { ...layout, template: template(), autosize: true }, config(Plotly));
  // To a screen reader the picture is its label; loose axis numbers tell nothing.
  for (const svg of frame.querySelectorAll(".main-svg")) svg.setAttribute("aria-hidden", "true");
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
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls; the toolbar selects
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
