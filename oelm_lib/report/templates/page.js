"use strict";
// Draws the page's figures and computes what their controls ask for, as oelm_lib/view/series.py does.
(() => {
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const rows = read("oelm-rows"), figures = read("oelm-figures");
  const X = {step: "step", tokens: "tokens seen", hours: "hours since start", epochs: "epochs"};
  const Y = {loss: "loss (nats per token)", perplexity: "perplexity"};
  const make = (tag, more) => Object.assign(document.createElement(tag), more);
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

  const NARROW = 700;  // pixels of a figure under which its legend goes below
  const isOwn = figure => figure.layout.paper_bgcolor === "rgba(0,0,0,0)";  // others have a ground of their own
  const plain = text => new DOMParser().parseFromString((text ?? "").replaceAll("<br>", "\n"), "text/html").body.textContent;

  // The title stands above the figure as text of the page, which wraps.
  function caption(figure) {
    const {text, subtitle} = figure.layout.title ?? {}, box = make("div", {className: "caption"});
    if (text) box.append(make("b", {textContent: plain(text)}));
    const notes = plain(subtitle?.text?.replaceAll(" <br>", " "));
    if (notes) box.append(make("p", {textContent: notes}));
    return box;
  }

  function legendBelow(layout, data, width) {
    const names = new Set(data.filter(one => one.visible !== false && one.showlegend !== false).map(one => one.name));
    const entry = Math.max(0, ...[...names].map(name => (name ?? "").length)) * 7 + 50;
    const rows = layout.showlegend === false ? 0 : Math.ceil(names.size / Math.max(1, Math.floor(width / entry)));
    for (const key of Object.keys(layout).filter(key => /^legend\d/.test(key))) delete layout[key];
    layout.legend = {...layout.legend, orientation: "h", x: 0, xanchor: "left", y: 0, yref: "container", yanchor: "bottom"};
    // Squares become smaller with the width.
    if (Object.values(layout).some(axis => axis?.scaleanchor)) layout.height *= 0.62;
    layout.height += 22 * rows;
    for (const note of layout.annotations ?? []) {
      const most = (width - 60) / 8;
      if (!(note.text?.length > most) || note.text.includes("<")) continue;
      const lines = [""];
      for (const word of note.text.split(" ")) {
        if (word[0] === "(" || lines.at(-1).length + word.length >= most) lines.push("");
        lines.push(`${lines.pop()} ${word}`.trim());
      }
      Object.assign(note, {text: lines.filter(Boolean).join("<br>"), align: "left"});
      layout.height += 26 * (lines.length - 1);  // room for the new lines
    }
    const rowNames = [...new Set(data.flatMap(one => Array.isArray(one.y) ? one.y : []).filter(y => typeof y === "string"))];
    if (rowNames.some(name => name.length > 16)) {
      const ticktext = rowNames.map(name => name.replace(/([/+]|, )/, "$1<br>"));
      layout.yaxis = {...layout.yaxis, tickvals: rowNames, ticktext, tickfont: {size: 10}};
    }
    layout.margin = {...layout.margin, l: Math.min(layout.margin.l, 52), r: 8, b: layout.margin.b + 22 * rows};
  }

  function layoutOf(figure, print) {
    if (!isOwn(figure)) return figure.layout;
    const dark = !print && matchMedia("(prefers-color-scheme: dark)").matches, layout = structuredClone(figure.layout);
    const [ink, line, tip] = dark ? ["#c9ced4", "#3a3f46", "#23272c"] : ["#3b4046", "#dfe2e6", "#ffffff"];
    const {state, controls} = figure, top = layout.annotations?.length ? 40 : 24, width = print ? 680 : figure.place.clientWidth;
    delete layout.title;
    layout.height -= layout.margin.t - top;
    layout.margin.t = top;
    layout.font = {...layout.font, color: ink};
    layout.hoverlabel = {bgcolor: tip, bordercolor: line, font: {color: ink}};
    for (const [name, axis] of Object.entries(layout).filter(([name]) => /^[xy]axis/.test(name))) {
      Object.assign(axis, {gridcolor: line, linecolor: line, tickcolor: line});
      if (controls.includes("x") && name[0] === "x" && axis.title?.text) axis.title.text = X[state.x];
      if (controls.includes("y") && name[0] === "y") axis.title.text = Y[state.y];
      if (controls.includes("log") && name[0] === "y") axis.type = state.log ? "log" : "linear";
    }
    if (width < NARROW) legendBelow(layout, figure.data, width);
    if (print) layout.width = 680;
    // A zoom stays while the axes mean the same.
    return {...layout, uirevision: [state.x, state.y, state.log].join()};
  }

  // On a narrow page the panels' legends are one, which names each line once.
  function tracesOf(figure, layout) {
    if (!isOwn(figure) || layout.legend?.orientation !== "h") return figure.data.map(trace => ({...trace}));
    const named = new Set();
    return figure.data.map(trace => {
      const shown = trace.visible !== false && trace.showlegend !== false, first = shown && !named.has(trace.name);
      if (first) named.add(trace.name);
      const look = trace.colorbar ? {showscale: false} : {};  // the mouse tells the value
      return {...trace, ...look, legend: "legend", legendgroup: trace.name, showlegend: first};
    });
  }

  function draw(figure, print = false) {
    figure.data.forEach((trace, n) => {
      if (!trace.meta?.runs) return;
      [trace.x, trace.y] = values(trace.meta, figure.state);
      const hidden = figure.place.data?.[n].visible === "legendonly" ? "legendonly" : true;
      trace.visible = !trace.meta.group || trace.meta.group === figure.state.group ? hidden : false;
    });
    const layout = layoutOf(figure, print);
    const narrow = layout.legend?.orientation === "h", show = figure.narrow === narrow ? Plotly.react : Plotly.newPlot;
    figure.narrow = narrow;
    return show(figure.place, tracesOf(figure, layout), layout, figure.config);
  }

  function csv(figure) {
    const cell = value => /[",\n]/.test(value ?? "") ? `"${value.replaceAll('"', '""')}"` : value ?? "";
    const lines = ["trace,kind,x,y,minus,plus"], shown = one => ![false, "legendonly"].includes(one.visible);
    for (const {name, meta, type, x, y, error_x, error_y: bar = error_x} of figure.place.data.filter(shown))
      (x ?? y ?? []).forEach((_, n) => lines.push([cell(name), meta?.kind ?? type, cell(x?.[n]), cell(y?.[n]), bar?.arrayminus?.[n], bar?.array?.[n]].join(",")));
    const href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"}));
    make("a", {href, download: figure.file + ".csv"}).click();
  }

  function controls(figure) {
    const bar = make("div", {className: "controls"}), save = make("span", {className: "save"}), state = figure.state;
    const add = (name, text, input, read, ...more) => {
      if (!figure.controls.includes(name)) return;
      input.name = name;
      input.oninput = () => { state[name] = read(input); more.forEach(shown => shown.value = input.value); draw(figure); };
      const label = make("label");
      label.append(text, input, ...more);
      bar.append(label);
    };
    const choice = (name, text, options) => {
      const select = make("select");
      for (const [value, words] of Object.entries(options)) select.add(new Option(words, value, false, value === state[name]));
      add(name, text, select, one => one.value);
    };
    choice("x", "x", {step: "step", tokens: "tokens", hours: "hours", epochs: "epochs"});
    choice("y", "y", {loss: "loss", perplexity: "perplexity"});
    choice("group", "lines", {arm: "one per arm", seed: "one per seed"});
    const range = {type: "range", min: 0, max: 0.995, step: 0.005, value: state.smoothing};
    add("smoothing", "smoothing", make("input", range), one => Number(one.value), make("output", {value: state.smoothing}));
    add("log", "log scale", make("input", {type: "checkbox", checked: state.log}), one => one.checked);
    const image = format => () => Plotly.downloadImage(
      {data: figure.data, layout: figure.layout, config: figure.config},
      {format, filename: figure.file, width: 1000, height: figure.layout.height ?? 500});
    for (const [textContent, onclick] of [["CSV", () => csv(figure)], ["PNG", image("png")], ["SVG", image("svg")]])
      save.append(make("button", {type: "button", textContent, onclick}));
    bar.append(save);
    return bar;
  }

  async function start() {
    const bytes = Uint8Array.from(atob(document.getElementById("plotly-gzip").textContent), char => char.charCodeAt(0));
    const textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(make("script", {textContent, nonce: document.getElementById("oelm-page").nonce}));
    // page.html#figure-2 shows the second figure alone, as for a picture of it.
    const number = /^#figure-(\d+)$/.exec(location.hash)?.[1];
    const alone = number && document.querySelectorAll(".figure")[number - 1];
    if (alone) document.body.replaceChildren(alone);
    for (const box of document.querySelectorAll(".figure")) {
      const figure = figures[box.dataset.figure];
      if (!figure || figure.place) continue;
      const {state = {}, controls: wanted = []} = figure.layout.meta ?? {};
      Object.assign(figure, {state, controls: wanted, place: make("div"), file: `figure-${Number(box.dataset.figure) + 1}`});
      figure.config = {displaylogo: false, showSendToCloud: false, responsive: true, ...(alone ? {displayModeBar: false} : {}),
        modeBarButtonsToRemove: ["lasso2d", "select2d", "toImage"]};  // PNG has a button of its own
      const above = [...(alone ? [] : [controls(figure)]), ...(isOwn(figure) ? [caption(figure)] : [])];
      box.append(...(wanted.length ? above.reverse() : above), figure.place);
      await draw(figure);
    }
    const all = print => figures.forEach(figure => figure.place && draw(figure, print));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all(false));
    addEventListener("resize", () => figures.forEach(figure => {
      if (figure.place && figure.narrow !== figure.place.clientWidth < NARROW) draw(figure);
    }));
    addEventListener("beforeprint", () => all(true));
    addEventListener("afterprint", () => { all(false); figures.forEach(figure => figure.place && Plotly.Plots.resize(figure.place)); });
    document.documentElement.dataset.ready = "true";
  }
  start().catch(error => document.querySelectorAll(".figure").forEach(
    box => box.prepend(`The figure cannot be drawn (${error.message}); a browser of 2023 or later is needed.`)));
})();
