// Draws the page's figures, and again for each choice that a reader makes in their controls.

const readJson = id => JSON.parse(document.getElementById(id).textContent);

const rows = readJson("oelm-rows"); // run -> its series (view/series.py)
const figures = readJson("oelm-figures");

function draw(figure, print = false) {
  figure.data.forEach((trace, n) => {
    if (figure.controls.length && trace.meta?.runs) computeTrace(figure, trace, n);
  });

  const layout = layoutOf(figure, print);
  const isNarrow = isLegendBelow(layout);
  // Plotly.react keeps old legends, so a change between wide and narrow draws again.
  const show = figure.narrow === isNarrow ? Plotly.react : Plotly.newPlot;
  figure.narrow = isNarrow;
  figure.width = figure.place.clientWidth;
  return show(figure.place, tracesOf(figure, layout), layout, figure.config);
}

function computeTrace(figure, trace, n) {
  const {meta} = trace;
  [trace.x, trace.y] = traceValues(meta, rows, figure.state);

  const isChosen = !meta.group || meta.group === figure.state.group;
  // A line that the reader hid by a click in the legend stays hidden.
  const isHidden = figure.place.data?.[n].visible === "legendonly";
  trace.visible = isChosen && (isHidden ? "legendonly" : true);
}

function saveCsv(figure) {
  const file = new Blob([csvText(figure.place)], {type: "text/csv"});
  make("a", {href: URL.createObjectURL(file), download: `${figure.file}.csv`}).click();
}

// Saves the figure on white, with the lines, axes and zoom that the reader chose.
function savePicture(figure, format) {
  const data = figure.data.map((trace, n) => ({...trace, visible: figure.place.data[n].visible}));
  const layout = structuredClone(figure.layout);
  if (isOwn(figure)) {
    setColours(layout, false);
    layout.paper_bgcolor = "#ffffff";
    setAxes(layout, figure);
    keepZoom(layout, figure);
  }

  const size = {width: 1000, height: layout.height ?? 500};
  const options = {format, filename: figure.file, ...size};
  Plotly.downloadImage({data, layout, config: figure.config}, options);
}

function controlBar(figure) {
  const {state} = figure;
  const bar = make("div", {className: "controls"});

  // Adds an input that sets one choice, where the figure has that control.
  function add(name, text, input, valueOf, output) {
    if (!figure.controls.includes(name)) return;

    input.name = name;
    input.oninput = () => {
      state[name] = valueOf(input);
      if (output) output.value = input.value;
      draw(figure);
    };
    const label = make("label");
    label.append(text, input, ...(output ? [output] : []));
    bar.append(label);
  }

  function addSelect(name, text, options) {
    const select = make("select");
    for (const [value, words] of Object.entries(options)) {
      select.add(new Option(words, value, false, value === state[name]));
    }
    add(name, text, select, input => input.value);
  }

  addSelect("x", "x", {step: "step", tokens: "tokens", hours: "hours", epochs: "epochs"});
  addSelect("y", "y", {loss: "loss", perplexity: "perplexity"});
  addSelect("group", "lines", {arm: "one per arm", seed: "one per seed"});

  const range = {type: "range", min: 0, max: 0.995, step: 0.005, value: state.smoothing};
  const slider = make("input", range);
  const number = make("output", {value: state.smoothing});
  add("smoothing", "smoothing", slider, input => Number(input.value), number);

  const box = make("input", {type: "checkbox", checked: state.log});
  add("log", "log scale", box, input => input.checked);

  bar.append(saveButtons(figure));
  return bar;
}

function saveButtons(figure) {
  const actions = {
    CSV: () => saveCsv(figure),
    PNG: () => savePicture(figure, "png"),
    SVG: () => savePicture(figure, "svg"),
  };
  const box = make("span", {className: "save"});
  for (const [textContent, onclick] of Object.entries(actions)) {
    const title = `Save as ${textContent}`;
    box.append(make("button", {type: "button", title, textContent, onclick}));
  }
  return box;
}

const bytesOf = base64 => Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));

// Runs plotly.js, which the page holds compressed; the nonce is that of this script.
async function loadPlotly() {
  const bytes = bytesOf(document.getElementById("plotly-gzip").textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const textContent = await new Response(stream).text();
  const {nonce} = document.getElementById("oelm-page");
  document.head.append(make("script", {textContent, nonce}));
}

// page.html#figure-2 shows the second figure alone, as for a picture of it.
function showAloneIfAsked() {
  const number = /^#figure-(\d+)$/.exec(location.hash)?.[1];
  const box = number && document.querySelectorAll(".figure")[number - 1];
  if (box) document.body.replaceChildren(box);
  return Boolean(box);
}

// Gives a figure its place in the page, with its caption and controls above.
function addToPage(figure, box, isAlone) {
  const {state = {}, controls = []} = figure.layout.meta ?? {};
  figure.state = state;
  figure.controls = controls;
  figure.file = `figure-${Number(box.dataset.figure) + 1}`;
  figure.place = make("div");
  figure.config = {
    displaylogo: false,
    showSendToCloud: false,
    responsive: true,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "toImage"], // PNG has a button of its own
    ...(isAlone && {displayModeBar: false}),
  };

  const bar = isAlone ? [] : [controlBar(figure)];
  const title = isOwn(figure) ? [caption(figure)] : [];
  // Save buttons alone stand at the right of the caption, so they come first.
  const above = controls.length ? [...title, ...bar] : [...bar, ...title];
  box.append(...above, figure.place);
}

function redrawWhenThePageChanges() {
  const placed = figures.filter(figure => figure.place);
  const drawAll = print => placed.forEach(figure => draw(figure, print));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(false));
  addEventListener("resize", () => {
    for (const figure of placed) {
      // Below NARROW, the legend and the notes are laid out for one width.
      const width = figure.place.clientWidth;
      if (width !== figure.width && Math.min(width, figure.width) < NARROW) draw(figure);
    }
  });
  addEventListener("beforeprint", () => drawAll(true));
  addEventListener("afterprint", () => {
    drawAll(false);
    placed.forEach(figure => Plotly.Plots.resize(figure.place));
  });
}

async function start() {
  await loadPlotly();
  const isAlone = showAloneIfAsked();
  for (const box of document.querySelectorAll(".figure")) {
    const figure = figures[box.dataset.figure];
    if (!figure || figure.place) continue;

    try {
      addToPage(figure, box, isAlone);
      await draw(figure);
    } catch (error) {
      figure.place = null; // so that the others are drawn again without it
      const textContent = `This figure cannot be drawn here (${error.message}); see the notebook.`;
      box.replaceChildren(make("p", {className: "error", textContent}));
    }
  }
  redrawWhenThePageChanges();
  document.documentElement.dataset.ready = "true";
}

function showProblem(error) {
  const need = `Figures need a browser of 2023 or later (${error.message}).`;
  document.querySelectorAll(".figure").forEach(box => box.prepend(need));
}

start().catch(showProblem);
