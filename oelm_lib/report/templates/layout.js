// The look of a figure on this page: its caption, its colours, and its form on a narrow page.

const X_TITLES = {
  step: "step",
  tokens: "tokens seen",
  hours: "hours since start",
  epochs: "epochs",
};
const Y_TITLES = {loss: "loss (nats per token)", perplexity: "perplexity"};

// In pixels.
const NARROW = 700; // a figure under this width has its legend below
const PRINT_WIDTH = 670; // A4 less the margins of page.css
const LEGEND_ROW = 22;
const NOTE_LINE = 26;
const NOTE_LETTER = 8;
const LEGEND_LETTER = 7;

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

// Whether the page lays the figure out: one of view/figure.py:new_figure, with its ground. Others
// are shown as they are, also those that a user made transparent.
const isOwn = ({layout}) =>
  layout.paper_bgcolor === "rgba(0,0,0,0)" && Boolean(layout.modebar?.bgcolor);

const isListed = trace => trace.visible !== false && trace.showlegend !== false;

const isLegendBelow = layout => layout.legend?.orientation === "h";

// The title stands above the figure as text of the page, which wraps.
function caption(figure) {
  const {text, subtitle} = figure.layout.title ?? {};
  const box = make("figcaption", {className: "caption"});
  if (text) box.append(make("b", {textContent: plainText(text)}));

  // " <br>" only wraps a long note for plotly: here the sentence continues on the line.
  const notes = plainText(subtitle?.text?.replaceAll(" <br>", " "));
  if (notes) box.append(make("p", {textContent: notes}));
  return box;
}

function layoutOf(figure, print) {
  if (!isOwn(figure)) return figure.layout;

  const layout = structuredClone(figure.layout);
  const width = print ? PRINT_WIDTH : figure.place.clientWidth;
  const isDark = !print && matchMedia("(prefers-color-scheme: dark)").matches;

  removeTitle(layout);
  setColours(layout, isDark);
  setAxes(layout, figure);
  if (width < NARROW) fitNarrow(layout, figure.data, width);
  if (print) layout.width = PRINT_WIDTH;

  // A zoom stays while the axes mean the same.
  const {x, y, log} = figure.state;
  layout.uirevision = [x, y, log].join();
  return layout;
}

function removeTitle(layout) {
  const top = layout.annotations?.length ? 40 : 24; // panels have a heading each
  delete layout.title;
  layout.height -= layout.margin.t - top;
  layout.margin.t = top;
}

function setColours(layout, isDark) {
  const [ink, line, ground] = isDark
    ? ["#c9ced4", "#3a3f46", "#23272c"]
    : ["#3b4046", "#dfe2e6", "#ffffff"];
  layout.font = {...layout.font, color: ink};
  layout.hoverlabel = {bgcolor: ground, bordercolor: line, font: {color: ink}};
  for (const [, axis] of axesOf(layout)) {
    Object.assign(axis, {gridcolor: line, linecolor: line, tickcolor: line});
  }
}

// Sets what the figure's controls decide: the titles of the axes, and the log scale.
function setAxes(layout, {state, controls}) {
  for (const [name, axis] of axesOf(layout)) {
    if (name.startsWith("x")) {
      // Of several panels, only the last one's x axis has a title.
      if (controls.includes("x") && axis.title?.text) axis.title.text = X_TITLES[state.x];
    } else {
      if (controls.includes("y")) axis.title.text = Y_TITLES[state.y];
      if (controls.includes("log")) axis.type = state.log ? "log" : "linear";
    }
  }
}

// Gives the axes the ranges to which the reader zoomed.
function keepZoom(layout, {place}) {
  for (const [name, axis] of axesOf(layout)) {
    const {range, autorange} = place.layout[name];
    if (autorange === false) Object.assign(axis, {range, autorange});
  }
}

const axesOf = layout => Object.entries(layout).filter(([name]) => /^[xy]axis/.test(name));

function fitNarrow(layout, data, width) {
  const legendHeight = LEGEND_ROW * legendRows(layout, data, width);
  putLegendBelow(layout);

  const hasSquares = Object.values(layout).some(axis => axis?.scaleanchor);
  if (hasSquares) layout.height *= 0.62; // squares become smaller with the width
  layout.height += legendHeight;

  wrapNotes(layout, width);
  wrapRowNames(layout, data);
  layout.margin = {
    ...layout.margin,
    l: Math.min(layout.margin.l, 52),
    r: 8,
    b: layout.margin.b + legendHeight,
  };
}

// Returns the rows of a legend below the figure, whose entries are all as wide as the longest.
function legendRows(layout, data, width) {
  if (layout.showlegend === false) return 0;

  const names = new Set(data.filter(isListed).map(trace => trace.name));
  const lengths = [...names].map(name => (name ?? "").length);
  const entryWidth = Math.max(0, ...lengths) * LEGEND_LETTER + 50;
  const columns = Math.max(1, Math.floor(width / entryWidth));
  return Math.ceil(names.size / columns);
}

// Puts one legend below all panels, in place of one beside each.
function putLegendBelow(layout) {
  for (const key of Object.keys(layout)) {
    if (/^legend\d/.test(key)) delete layout[key];
  }
  layout.legend = {
    ...layout.legend,
    orientation: "h",
    x: 0,
    xanchor: "left",
    y: 0,
    yref: "container",
    yanchor: "bottom",
  };
}

function wrapNotes(layout, width) {
  const most = (width - 60) / NOTE_LETTER;
  for (const note of layout.annotations ?? []) {
    const isLong = note.text?.length > most;
    if (!isLong || note.text.includes("<")) continue;

    const lines = wrapWords(note.text, most);
    note.text = lines.join("<br>");
    note.align = "left";
    layout.height += NOTE_LINE * (lines.length - 1);
  }
}

// Returns lines of at most so many characters; a word in brackets begins a line.
function wrapWords(text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const isFull = lines.at(-1).length + word.length >= most;
    if (isFull || word.startsWith("(")) lines.push("");
    lines.push(`${lines.pop()} ${word}`.trim());
  }
  return lines.filter(Boolean);
}

// Names of rows, as in a forest plot, take two lines.
function wrapRowNames(layout, data) {
  const values = data.flatMap(trace => Array.isArray(trace.y) ? trace.y : []);
  const names = [...new Set(values.filter(value => typeof value === "string"))];
  if (!names.some(name => name.length > 16)) return;

  layout.yaxis = {
    tickvals: names,
    ticktext: names.map(name => name.replace(/([/+]|, )/, "$1<br>")),
    ...layout.yaxis, // may have lines of its own (explore/figures.py)
    tickfont: {size: 10},
  };
}

// Returns copies of the traces. In a legend below all panels, each name stands once.
function tracesOf(figure, layout) {
  if (!isOwn(figure) || !isLegendBelow(layout)) return figure.data.map(trace => ({...trace}));

  const named = new Set();
  return figure.data.map(trace => {
    const isFirst = isListed(trace) && !named.has(trace.name);
    if (isFirst) named.add(trace.name);
    const copy = {...trace, legend: "legend", legendgroup: trace.name, showlegend: isFirst};
    if (trace.colorbar) copy.showscale = false; // no room for it, and the mouse tells the value
    return copy;
  });
}
