// The lines of a figure, computed from the rows of the runs as oelm_lib/view/series.py does.

const REDUCE = {
  mean: values => values.reduce((sum, value) => sum + value) / values.length,
  min: values => Math.min(...values),
  max: values => Math.max(...values),
};

// Returns [x, y] of a trace; y is null where it is not finite. Arguments as for trace_values.
function traceValues(spec, rows, state) {
  let curves = spec.runs.map(run => runCurve(spec, rows[run], state));
  if (spec.base) {
    const bases = spec.base.map(run => runCurve(spec, rows[run], state));
    curves = curves.map((curve, n) => difference(curve, bases[n]));
  }

  const x = curves[0][0];
  const y = curves.length > 1 ? reduceCurves(x, curves, REDUCE[spec.stat]) : curves[0][1];

  const toUnit = unitOf(spec, state);
  return [x, y.map(value => Number.isFinite(value) ? toUnit(value) : null)];
}

function runCurve(spec, series, state) {
  const part = series[spec.kind];
  const x = xValues(part, series, state.x);

  const low = part[`${spec.column}_low`];
  const high = part[`${spec.column}_high`];
  if (spec.stat === "envelope" && low) {
    // A line down and up at each x.
    return [x.flatMap(at => [at, at]), low.flatMap((value, n) => [value, high[n]])];
  }

  const y = part[spec.column];
  return [x, spec.smooth ? movingAverage(part.step, y, state.smoothing) : y];
}

function xValues(part, series, unit) {
  if (unit === "hours") {
    return part.seconds.map(seconds => seconds === null ? null : seconds / 3600);
  }
  const scales = {
    step: 1,
    tokens: series.step_tokens,
    epochs: series.step_tokens / series.epoch_tokens,
  };
  return part.step.map(step => step * scales[unit]);
}

// The weight of a value falls by the factor `smoothing` over each thousandth of the run.
function movingAverage(steps, values, smoothing) {
  const unit = Math.max(steps.at(-1) / 1000, 1e-9);
  let total = 0;
  let weight = 0;
  return values.map((value, n) => {
    const decay = n ? smoothing ** ((steps[n] - steps[n - 1]) / unit) : 0;
    total *= decay;
    weight *= decay;
    if (!Number.isFinite(value)) return null;

    total += value;
    weight += 1;
    return total / weight;
  });
}

function difference([x, y], base) {
  const baseY = interpolate(x, base);
  const areKnown = n => Number.isFinite(y[n]) && Number.isFinite(baseY[n]);
  return [x, y.map((value, n) => areKnown(n) ? value - baseY[n] : null)];
}

function reduceCurves(x, curves, reduce) {
  const onX = curves.map(curve => interpolate(x, curve));
  return x.map((_, n) => {
    const values = onX.map(y => y[n]);
    return values.every(Number.isFinite) ? reduce(values) : null;
  });
}

// Interpolates linearly between the finite points of a curve; null outside their range.
function interpolate(x, [knownX, knownY]) {
  const points = knownX
    .map((at, n) => ({x: at, y: knownY[n]}))
    .filter(point => Number.isFinite(point.y));
  if (!points.length) return x.map(() => null);

  const first = points[0].x;
  const last = points.at(-1).x;
  let n = 0; // x ascends, so each search goes on where the one before ended
  return x.map(at => {
    if (at < first || at > last) return null;

    while (n < points.length - 2 && points[n + 1].x < at) n++;
    const left = points[n];
    const right = points[Math.min(n + 1, points.length - 1)];
    if (left.x === right.x) return left.y;

    return left.y + (right.y - left.y) * (at - left.x) / (right.x - left.x);
  });
}

// Returns a function from nats to the unit in which the trace is drawn.
function unitOf(spec, state) {
  if (spec.base) return nats => 100 * Math.expm1(nats); // percent of the base's perplexity
  if (spec.column === "loss" && state.y === "perplexity") return Math.exp;
  return value => value;
}
