// Loss against FLOPs. No text of a submitter is given to plotly, which would read markup in it: hints are our own.

const BASELINES = { oracle: "dash", fixed_best: "dot" };
const SYMBOLS = { deployable: "circle", reference: "square", bound: "diamond" };
const flat = { symmetric: false, type: "data", thickness: 1, width: 3 };

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function points(kind, rows) {
  const standings = rows.map((row) => row.standing);
  return {
    type: "scatter", mode: "markers", name: kind, hoverinfo: "none",
    x: standings.map((standing) => standing.flops_per_token / 1e6),
    y: standings.map((standing) => standing.loss),
    customdata: rows,
    error_y: {
      ...flat, color: colour(kind),
      array: standings.map(({ loss, loss_interval: interval }) => (interval ? interval[1] - loss : 0)),
      arrayminus: standings.map(({ loss, loss_interval: interval }) => (interval ? loss - interval[0] : 0)),
    },
    marker: {
      size: 8, opacity: 0.8, color: colour(kind), line: { width: 1.5, color: colour(kind) },
      symbol: standings.map(({ passes }) => SYMBOLS[kind] + (passes > 0 ? "-open" : "")),
    },
  };
}

// As in the gap closed.
function baseline(track, holdout, name) {
  const entry = track.baselines[name];
  const standing = track.lines.find(({ entries }) => entry && entries[0] === entry)?.holdouts[holdout];
  return standing && scored(standing);
}

// The same baseline at this budget and at others: of tracks with this backbone and as many tokens.
function baselineCurve(track, holdout, name) {
  const here = baseline(track, holdout, name);
  return board.tracks
    .filter((other) => other.backbone.digest === track.backbone.digest)
    .map((other) => baseline(other, holdout, name))
    .filter((standing) => here && standing && standing.tokens === here.tokens)
    .map((standing) => [standing.budget_flops_per_token / 1e6, standing.loss])
    .sort(([a], [b]) => a - b);
}

function label(text, place) {
  return { ...place, text, yanchor: "middle", showarrow: false, font: { size: 11, color: colour("muted") } };
}

// The budget, and each baseline as a level across it and as a curve where there are other budgets.
function baselines(track, holdout, budget) {
  const drawn = { shapes: [], annotations: [], traces: [], curves: [] };
  if (Number.isFinite(budget)) {
    const dotted = { width: 1, color: colour("strong"), dash: "dot" };
    drawn.shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: budget, x1: budget, line: dotted });
    drawn.annotations.push(label("budget", { x: budget, xanchor: "right", xshift: -4, yref: "paper", y: 0, yshift: 8 }));
  }
  for (const [name, dash] of Object.entries(BASELINES)) {
    const line = { width: 1, color: colour("muted") };
    const level = baseline(track, holdout, name)?.loss;
    const curve = baselineCurve(track, holdout, name);
    if (level === undefined) continue;
    drawn.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level, line: { ...line, dash } });
    drawn.annotations.push(label(name, { xref: "paper", x: 1, xanchor: "right", y: level, yshift: 8 }));
    if (curve.length < 2) continue;
    const x = curve.map(([flops]) => flops), y = curve.map(([, loss]) => loss);
    drawn.curves.push(...curve);
    const look = { mode: "lines+markers", hoverinfo: "skip", line, marker: { size: 4, color: line.color } };
    drawn.traces.push({ type: "scatter", name, x, y, ...look });
    drawn.annotations.push(label(`${name} by budget`, { x: x.at(-1), y: y.at(-1), xanchor: "left", xshift: 6 }));
  }
  return drawn;
}

const ends = ({ standing: { loss, loss_interval: interval } }) => interval ?? [loss];

function framed(all) {
  const values = all.filter(Number.isFinite);
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.01;
  return values.length ? [low - margin, high + margin] : undefined;
}

// What the filter leaves fills the plot; baselines of other budgets are seen as far as they lie beside it.
function frames(rows, curves) {
  const x = framed(rows.flatMap(({ standing }) => [standing.flops_per_token / 1e6, standing.budget_flops_per_token / 1e6]));
  const beside = x ? curves.filter(([flops]) => flops > x[0] && flops < x[1]) : curves;
  return { x, y: framed([...rows.flatMap(ends), ...beside.map(([, loss]) => loss)]) };
}

function plotLayout(track, holdout, rows, { shapes, annotations, curves }) {
  const frame = frames(rows, curves);
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true };
  const small = matchMedia("(max-width: 40rem)").matches;
  return {
    shapes, annotations, uirevision: `${track.digest} ${holdout}`, autosize: true, height: small ? 300 : 330,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    font: { family: "system-ui, sans-serif", size: 12, color: colour("text") },
    margin: { l: 8, r: 8, t: 28, b: 8 }, showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("accent") },
    xaxis: { ...axis, title: { text: "MFLOPs per token" }, range: frame.x },
    yaxis: { ...axis, title: { text: "loss (nats per token)" }, range: frame.y },
  };
}

function drawPlot(track, holdout, rows) {
  const kinds = Object.keys(KINDS).map((kind) => [kind, rows.filter(({ line }) => line.kind === kind)]);
  const base = baselines(track, holdout, rows[0]?.standing.budget_flops_per_token / 1e6);
  const traces = [...base.traces, ...kinds.filter(([, some]) => some.length).map(([kind, some]) => points(kind, some))];
  const config = {
    responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    displayModeBar: matchMedia("(hover: none)").matches ? false : "hover",
  };
  return Plotly.react("plot", traces, plotLayout(track, holdout, rows, base), config);
}

function showHint({ bbox, customdata: { line, standing } }) {
  const hint = document.querySelector("#hint");
  const recipe = /(?:^|\s)recipe=(\S+)/.exec(line.provenance.command)?.[1];
  hint.replaceChildren(
    make("b", line.name || "(no name)"),
    make("div", `loss ${loss(standing.loss)} ${between(standing.loss_interval, loss)}`),
    make("div", `on ${standing.tokens.toLocaleString("en")} tokens`),
    make("div", `${number(standing.flops_per_token / 1e6, 3)} MFLOPs per token`),
    ...(recipe ? [make("div", `recipe ${recipe}`)] : []),
    make("code", commandOf(line)),
  );
  hint.hidden = false;
  const { width, height } = document.querySelector("#plot").getBoundingClientRect();
  const left = bbox.x1 + hint.offsetWidth + 12 < width ? bbox.x1 + 12 : bbox.x0 - hint.offsetWidth - 12;
  hint.style.left = `${Math.max(0, Math.min(left, width - hint.offsetWidth))}px`;
  hint.style.top = `${Math.max(0, Math.min(bbox.y0, height - hint.offsetHeight))}px`;
}

function wirePlot(open) {
  const plot = document.querySelector("#plot");
  const hide = () => (document.querySelector("#hint").hidden = true);
  plot.on("plotly_hover", ({ points: [point] }) => point.customdata && point.bbox && showHint(point));
  plot.on("plotly_unhover", hide);
  plot.on("plotly_click", ({ points: [point] }) => {
    hide();
    if (point.customdata) open(point.customdata);
  });
}
