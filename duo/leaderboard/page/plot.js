// Loss minus the best fixed pattern's, on the same tokens, against FLOPs. No text of a submitter is given to plotly, which
// would read markup in it: hints are our own.

const SYMBOLS = { deployable: "circle", reference: "square", bound: "diamond" };
const flat = { symmetric: false, type: "data", thickness: 1, width: 3 };

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// What a point stands for: the difference to the best fixed pattern; in a track without one, the loss.
function heightOf(track, { line, standing }) {
  const fixed = track.baselines.fixed_best;
  if (!fixed) return { value: standing.loss, interval: standing.loss_interval };
  return line.entries[0] === fixed ? { value: 0, interval: null } : standing.minus_fixed;
}

const NEAR = [0.016, 0.045]; // shares of the frame's sides within which two points would hide one another

const CROWD = 200; // points beyond which there is no room to stand side by side

// Places of points, those that would hide one another side by side.
function placed(track, rows, frame) {
  const [width, height] = [frame.x, frame.y].map((range) => (range ? range[1] - range[0] : 1));
  if (rows.length > CROWD) return new Map(rows.map((row) => [row, row.standing.flops_per_token / 1e6]));
  const taken = [];
  return new Map(
    rows.map((row) => {
      const x = row.standing.flops_per_token / 1e6;
      const y = heightOf(track, row).value;
      const free = (at) => taken.every(([a, b]) => Math.abs(a - at) >= NEAR[0] * width || Math.abs(b - y) >= NEAR[1] * height);
      let step = 0;
      while (!free(x + step * NEAR[0] * width) && Math.abs(step) < 40) step = step > 0 ? -step : 1 - step;
      taken.push([x + step * NEAR[0] * width, y]);
      return [row, x + step * NEAR[0] * width];
    }),
  );
}

function points(track, kind, rows, places) {
  const heights = rows.map((row) => heightOf(track, row));
  return {
    type: "scatter", mode: "markers", name: kind, hoverinfo: "none",
    x: rows.map((row) => places.get(row)),
    y: heights.map(({ value }) => value),
    customdata: rows,
    error_y: {
      ...flat, color: colour(kind),
      array: heights.map(({ value, interval }) => (interval ? interval[1] - value : 0)),
      arrayminus: heights.map(({ value, interval }) => (interval ? value - interval[0] : 0)),
    },
    marker: {
      size: 8, opacity: 0.8, color: colour(kind), line: { width: 1.5, color: colour(kind) },
      symbol: rows.map(({ standing: { passes } }) => SYMBOLS[kind] + (passes > 0 ? "-open" : "")),
    },
  };
}

function label(text, place) {
  return { ...place, text, yanchor: "middle", showarrow: false, font: { size: 11, color: colour("muted") } };
}

// The budget, and the level of the best fixed pattern.
function guides(track, budget) {
  const drawn = { shapes: [], annotations: [] };
  const dotted = { width: 1, color: colour("strong"), dash: "dot" };
  if (Number.isFinite(budget)) {
    drawn.shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: budget, x1: budget, line: dotted });
    drawn.annotations.push(label("budget", { x: budget, xanchor: "right", xshift: -4, yref: "paper", y: 0, yshift: 8 }));
  }
  if (track.baselines.fixed_best) {
    drawn.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: dotted });
    drawn.annotations.push(label("fixed_best", { xref: "paper", x: 1, xanchor: "right", y: 0, yshift: 8 }));
  }
  return drawn;
}

function framed(all) {
  const values = all.filter(Number.isFinite);
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.01;
  return values.length ? [low - margin, high + margin] : undefined;
}

// What the filter leaves fills the plot.
function frames(track, rows) {
  const heights = rows.map((row) => heightOf(track, row));
  return {
    x: framed(rows.flatMap(({ standing }) => [standing.flops_per_token / 1e6, standing.budget_flops_per_token / 1e6])),
    y: framed(heights.flatMap(({ value, interval }) => interval ?? [value])),
  };
}

function plotLayout(track, part, frame, { shapes, annotations }) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true };
  const small = matchMedia("(max-width: 40rem)").matches;
  return {
    shapes, annotations, uirevision: `${track.digest} ${part}`, autosize: true, height: small ? 300 : 330,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    font: { family: "system-ui, sans-serif", size: 12, color: colour("text") },
    margin: { l: 8, r: 8, t: 28, b: 8 }, showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("accent") },
    xaxis: { ...axis, title: { text: "MFLOPs per token" }, range: frame.x },
    yaxis: { ...axis, title: { text: `loss${track.baselines.fixed_best ? " minus fixed_best's" : ""} (nats per token)` }, range: frame.y },
  };
}

function drawPlot(track, part, rows) {
  const kinds = Object.keys(KINDS).map((kind) => [kind, rows.filter(({ line }) => line.kind === kind)]);
  const frame = frames(track, rows);
  const places = placed(track, rows, frame);
  const traces = kinds.filter(([, some]) => some.length).map(([kind, some]) => points(track, kind, some, places));
  const layout = plotLayout(track, part, frame, guides(track, rows[0]?.standing.budget_flops_per_token / 1e6));
  const config = {
    responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    displayModeBar: matchMedia("(hover: none)").matches ? false : "hover",
  };
  return Plotly.react("plot", traces, layout, config);
}

const differenceOf = ({ minus_fixed: { value, interval } }) =>
  `to the fixed pattern ${signed(value)} ${between(interval, loss)}`;

function showHint({ bbox, customdata: { line, standing } }) {
  const hint = document.querySelector("#hint");
  const recipe = /(?:^|\s)recipe=(\S+)/.exec(line.provenance.command)?.[1];
  hint.replaceChildren(
    make("b", line.name || "(no name)"),
    make("div", `loss ${loss(standing.loss)} ${between(standing.loss_interval, loss)}`),
    ...(standing.minus_fixed.value === null ? [] : [make("div", differenceOf(standing))]),
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
