"use strict";
// Draws the page's figures and computes what their controls ask for, as oelm_lib/analysis/series.py does.
(() => {
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const rows = read("oelm-rows"), figures = read("oelm-figures");
  const X = {step: "step", tokens: "tokens seen", hours: "hours since start", epochs: "epochs"};
  const Y = {loss: "loss (nats per token)", perplexity: "perplexity"};
  const finite = value => value !== null && Number.isFinite(value);

  function ema(step, values, smoothing) {
    const unit = Math.max(step[step.length - 1] / 1000, 1e-9);
    let total = 0, weight = 0;
    return values.map((value, n) => {
      const decay = n ? smoothing ** ((step[n] - step[n - 1]) / unit) : 0;
      total *= decay; weight *= decay;
      if (!finite(value)) return null;
      total += value; weight += 1;
      return total / weight;
    });
  }

  function interpolate(x, [knownX, knownY]) {
    const points = knownX.map((at, n) => [at, knownY[n]]).filter(point => finite(point[1]));
    let n = 0;
    return x.map(at => {
      if (!points.length || at < points[0][0] || at > points[points.length - 1][0]) return null;
      while (n < points.length - 2 && points[n + 1][0] < at) n++;
      const [[x0, y0], [x1, y1]] = [points[n], points[Math.min(n + 1, points.length - 1)]];
      return x1 === x0 ? y0 : y0 + (y1 - y0) * (at - x0) / (x1 - x0);
    });
  }

  function curve(spec, series, state) {
    const part = series[spec.kind], low = part[spec.column + "_low"], high = part[spec.column + "_high"];
    const scale = {step: 1, tokens: series.step_tokens, epochs: series.step_tokens / series.epoch_tokens}[state.x];
    const x = state.x === "hours" ? part.seconds.map(s => s === null ? null : s / 3600) : part.step.map(s => s * scale);
    if (spec.stat === "envelope" && low) return [x.flatMap(at => [at, at]), low.flatMap((v, n) => [v, high[n]])];
    return [x, spec.smooth ? ema(part.step, part[spec.column], state.smoothing) : part[spec.column]];
  }

  function values(spec, state) {
    const curves = spec.runs.map(key => curve(spec, rows[key], state));
    if (spec.base) spec.base.forEach((key, n) => {
      const below = interpolate(curves[n][0], curve(spec, rows[key], state));
      curves[n][1] = curves[n][1].map((value, k) => finite(value) && finite(below[k]) ? value - below[k] : null);
    });
    let [x, y] = curves[0];
    if (curves.length > 1) {
      const all = curves.map(one => interpolate(x, one));
      const reduce = {mean: v => v.reduce((a, b) => a + b) / v.length, min: v => Math.min(...v), max: v => Math.max(...v)}[spec.stat];
      y = x.map((_, n) => all.every(one => finite(one[n])) ? reduce(all.map(one => one[n])) : null);
    }
    const last = spec.base ? v => 100 * Math.expm1(v) : spec.column === "loss" && state.y === "perplexity" ? Math.exp : v => v;
    return [x, y.map(value => finite(value) ? last(value) : null)];
  }

  function layoutOf(figure, print) {
    const dark = !print && matchMedia("(prefers-color-scheme: dark)").matches, layout = structuredClone(figure.layout);
    const [ink, line, tip] = dark ? ["#c9ced4", "#3a3f46", "#23272c"] : ["#3b4046", "#dfe2e6", "#ffffff"];
    const {state, controls} = figure;
    layout.font = {...layout.font, color: ink};
    layout.hoverlabel = {bgcolor: tip, bordercolor: line, font: {color: ink}};
    for (const [name, axis] of Object.entries(layout).filter(([name]) => /^[xy]axis/.test(name))) {
      Object.assign(axis, {gridcolor: line, linecolor: line, tickcolor: line});
      if (controls.includes("x") && name[0] === "x" && axis.title?.text) axis.title.text = X[state.x];
      if (controls.includes("y") && name[0] === "y") axis.title.text = Y[state.y];
      if (controls.includes("log") && name[0] === "y") axis.type = state.log ? "log" : "linear";
    }
    if (print) layout.width = 680;
    return layout;
  }

  function draw(figure, print = false) {
    for (const trace of figure.data) {
      if (!trace.meta?.runs) continue;
      [trace.x, trace.y] = values(trace.meta, figure.state);
      trace.visible = !trace.meta.group || trace.meta.group === figure.state.group;
    }
    return Plotly.react(figure.place, figure.data.map(trace => ({...trace})), layoutOf(figure, print), figure.config);
  }

  function csv(figure) {
    const cell = value => /[",\n]/.test(value ?? "") ? `"${value.replaceAll('"', '""')}"` : value ?? "";
    const lines = ["trace,kind,x,y,minus,plus"], shown = one => ![false, "legendonly"].includes(one.visible);
    for (const {name, meta, type, x, y, error_x: bar} of figure.data.filter(shown))
      (x ?? []).forEach((at, n) => lines.push([cell(name), meta?.kind ?? type, cell(at), cell(y[n]), bar?.arrayminus[n], bar?.array[n]].join(",")));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"}));
    link.download = figure.file + ".csv";
    link.click();
  }

  function controls(figure) {
    const bar = document.createElement("div"), redraw = () => draw(figure), state = figure.state;
    bar.className = "controls";
    const add = (name, text, input) => {
      const label = document.createElement("label");
      label.append(text, ...input);
      input[0].name = name;
      bar.append(label);
    };
    const choice = (name, text, options) => {
      const select = document.createElement("select");
      for (const [value, words] of Object.entries(options)) select.add(new Option(words, value, false, value === state[name]));
      select.onchange = () => { state[name] = select.value; redraw(); };
      add(name, text, [select]);
    };
    const field = (type, more) => Object.assign(document.createElement("input"), {type, ...more});
    const has = name => figure.controls.includes(name);
    if (has("x")) choice("x", "x", {step: "step", tokens: "tokens", hours: "hours", epochs: "epochs"});
    if (has("y")) choice("y", "y", {loss: "loss", perplexity: "perplexity"});
    if (has("group")) choice("group", "lines", {arm: "one per arm", seed: "one per seed"});
    if (has("smoothing")) {
      const range = field("range", {min: 0, max: 0.995, step: 0.005, value: state.smoothing});
      const shown = Object.assign(document.createElement("output"), {value: state.smoothing});
      range.oninput = () => { state.smoothing = Number(range.value); shown.value = range.value; redraw(); };
      add("smoothing", "smoothing", [range, shown]);
    }
    if (has("log")) {
      const box = field("checkbox", {checked: state.log});
      box.onchange = () => { state.log = box.checked; redraw(); };
      add("log", "log scale", [box]);
    }
    const save = document.createElement("span");
    save.className = "save";
    const image = format => () => Plotly.downloadImage(figure.place, {format, filename: figure.file, width: 1000, height: figure.layout.height});
    for (const [text, act] of [["CSV", () => csv(figure)], ["PNG", image("png")], ["SVG", image("svg")]])
      save.append(Object.assign(document.createElement("button"), {type: "button", textContent: text, onclick: act}));
    bar.append(save);
    return bar;
  }

  async function start() {
    const bytes = Uint8Array.from(atob(document.getElementById("plotly-gzip").textContent), char => char.charCodeAt(0));
    const text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const script = Object.assign(document.createElement("script"), {textContent: text, nonce: document.getElementById("oelm-page").nonce});
    document.head.append(script);
    for (const box of document.querySelectorAll(".figure")) {
      const figure = figures[box.dataset.figure], meta = figure.layout.meta ?? {};
      Object.assign(figure, {state: meta.state ?? {}, controls: meta.controls ?? [], file: `figure-${Number(box.dataset.figure) + 1}`});
      figure.config = {...figure.config, displaylogo: false, showSendToCloud: false, responsive: true};
      figure.place = document.createElement("div");
      box.append(controls(figure), figure.place);
      await draw(figure);
    }
    const all = print => figures.forEach(figure => figure.place && draw(figure, print));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all(false));
    addEventListener("beforeprint", () => all(true));
    addEventListener("afterprint", () => all(false));
    document.documentElement.dataset.ready = "true";
  }
  start();
})();
