// The table: columns, rows and their order. Text of submitters only ever becomes textContent or a title.

const KINDS = {
  deployable: ["Deployable", ""],
  reference: ["References", "outside the budget rule, without a rank"],
  bound: ["Bounds", "consult the labels, without a rank"],
};
const SHOWN = 200; // rows of a kind at first: a browser lays these out at once, and 2,000 not

function make(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
}

// A line on one part, with the fields of its score.
const scored = (standing) => ({ ...standing.score, ...standing });

function number(value, digits, sign = "") {
  if (!Number.isFinite(value)) return "–";
  const text = value.toFixed(digits).replace(/^-(?=[0.]+$)/, "");
  return ((value > 0 ? sign : "") + text).replace("-", "−");
}

const signed = (value) => number(value, 4, "+");
const loss = (value) => number(value, 4);
const percent = (value, sign = "") => (Number.isFinite(value) ? `${number(100 * value, 1, sign)} %` : "–");
const times = (part) => (part < 10 ? percent(part) : `${number(part, 0)} ×`);
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const short = (value) => compact.format(value).replace("K", "k");
const between = (interval, show) => (interval ? `[${interval.map((end) => show(end)).join(", ")}]` : "");
const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const pairs = (options) => Object.entries(options).map(([key, value]) => `${key}=${plain(value)}`).join(", ");

// value: what a column sorts by; show: what it prints, large and small.
const COLUMNS = [
  { key: "rank", label: "Rank", unit: "", value: ({ line }) => line.rank, show: ({ line }) => [line.rank ?? ""] },
  {
    key: "name", label: "Name", unit: "package",
    value: ({ line }) => line.name, show: ({ line }) => [line.name || "(no name)", line.package],
  },
  {
    key: "router", label: "Router", unit: "options",
    value: ({ line }) => `${line.router} ${pairs(line.options)}`, show: ({ line }) => [line.router, pairs(line.options)],
  },
  {
    key: "loss", label: "Loss", unit: "nats/token",
    value: ({ standing }) => standing.loss,
    show: ({ standing }) =>
      [loss(standing.loss), between(standing.loss_interval, loss)],
  },
  {
    key: "fixed", label: "To fixed pattern", unit: "nats/token",
    value: ({ standing }) => standing.minus_fixed.value,
    show: ({ standing: { minus_fixed: { value, interval } } }) => [signed(value), between(interval, loss)],
  },
  {
    key: "above", label: "To line above", unit: "nats/token",
    value: ({ standing }) => standing.above.value,
    show: ({ standing: { above, significant } }) =>
      above.value === null
        ? ["–"]
        : [`${signed(above.value)}${significant ? " *" : ""}`, between(above.interval, loss)],
  },
  {
    key: "gap", label: "Gap closed", unit: "to oracle",
    value: ({ standing }) => standing.gap_closed.value,
    show: ({ standing: { gap_closed: { value, interval } } }) =>
      [percent(value), between(interval, (end) => number(100 * end, 1))],
  },
  {
    key: "share", label: "Modules", unit: "skip/small/big",
    value: ({ standing }) => standing.share.big,
    show: ({ standing: { share } }) => [["skip", "small", "big"].map((part) => number(share[part], 2)).join("/")],
  },
  {
    key: "flops", label: "MFLOPs", unit: "to budget",
    value: ({ standing }) => standing.flops_per_token,
    show: ({ standing: { flops_per_token: flops, budget_flops_per_token: budget } }) =>
      [number(flops / 1e6, 3), percent(flops / budget - 1, "+")],
  },
  {
    key: "router-flops", label: "Router FLOPs", unit: "of route",
    value: ({ standing }) => standing.router_flops_per_token / standing.flops_per_token,
    show: ({ standing }) => [times(standing.router_flops_per_token / standing.flops_per_token)],
  },
  {
    key: "size", label: "Size", unit: "of router",
    value: ({ standing }) => standing.router_parameters,
    show: ({ standing: { router_parameters: numbers, router_bytes: bytes } }) => [short(numbers), `${short(bytes)}B`],
  },
  {
    key: "passes", label: "Passes", unit: "extra",
    value: ({ standing }) => standing.passes,
    show: ({ standing: { passes } }) => [passes > 0 ? `+${Number(passes.toPrecision(3))}` : "0"],
  },
  {
    key: "time", label: "Time", unit: "of all big’s",
    value: ({ standing }) => standing.time_ratio,
    show: ({ standing: { time_ratio, unexplained_time, seconds_per_token: seconds } }) =>
      [number(time_ratio, 2) + (unexplained_time ? " ?" : ""), `${number(1e6 * seconds, seconds < 1e-4 ? 1 : 0)} µs`],
  },
  {
    key: "seeds", label: "Seeds", unit: "",
    value: ({ line }) => line.seeds.length, show: ({ line }) => [line.seeds.length],
  },
  {
    key: "status", label: "Status", unit: "",
    value: ({ line }) => board.status.indexOf(line.status), show: ({ line }) => [line.status],
  },
];

function order(rows, { key, descending }) {
  const { value } = COLUMNS.find((column) => column.key === key);
  const found = rows.map((row) => [value(row), row]);
  const absent = (one) => one === null || one === undefined || Number.isNaN(one);
  found.sort(([a], [b]) => {
    if (absent(a) || absent(b)) return absent(a) - absent(b);
    const less = typeof a === "string" ? collator.compare(a, b) : a - b;
    return descending ? -less : less;
  });
  return found.map(([, row]) => row);
}

const collator = new Intl.Collator("en", { numeric: true });

function shareBar(share) {
  const bar = make("div", undefined, "bar");
  for (const part of ["skip", "small", "big"]) {
    const piece = make("i", undefined, part);
    piece.style.width = `${100 * (Number(share[part]) || 0)}%`;
    bar.append(piece);
  }
  return bar;
}

function buildRow(row, open) {
  const { line, standing } = row;
  const node = make("tr", undefined, standing.passes > 0 ? "extra" : "");
  for (const column of COLUMNS) {
    const [large, small] = column.show(row);
    const cell = make(column.key === "name" ? "th" : "td", undefined, column.key);
    const main = make(column.key === "name" ? "button" : "div", large, "large");
    cell.append(main);
    if (small) cell.append(make("div", small, "small"));
    if (column.key === "share") cell.append(shareBar(standing.share));
    if (column.key === "name" || column.key === "router") cell.title = [large, small].filter(Boolean).join("\n");
    if (column.key === "name") {
      cell.scope = "row";
      main.type = "button";
      main.setAttribute("aria-haspopup", "dialog");
    }
    node.append(cell);
  }
  node.querySelector(".above").classList.toggle("clear", standing.significant);
  node.querySelector(".status").classList.add(`status${board.status.indexOf(line.status)}`);
  node.addEventListener("click", () => open(row));
  return node;
}

function buildHead(sort) {
  const head = document.querySelector("#lines thead tr");
  for (const column of COLUMNS) {
    const cell = make("th", undefined, column.key);
    cell.scope = "col";
    const button = make("button");
    button.type = "button";
    button.append(make("span", column.label, "label"));
    if (column.unit) button.append(make("span", column.unit, "small"));
    button.addEventListener("click", () => sort(column.key));
    cell.append(button);
    head.append(cell);
  }
}

function markSorted({ key, descending }) {
  document.querySelectorAll("#lines thead th").forEach((cell, index) => {
    if (COLUMNS[index].key === key) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

function kindHeading(kind) {
  const node = make("tr", undefined, "kind");
  const cell = make("th");
  cell.colSpan = COLUMNS.length;
  cell.scope = "rowgroup";
  const words = make("div");
  words.append(make("i", undefined, `key ${kind}`), make("b", KINDS[kind][0]), " ", make("span", KINDS[kind][1]));
  cell.append(words);
  node.append(cell);
  return node;
}

function moreRow(left, show) {
  const node = make("tr", undefined, "more");
  const cell = make("td");
  cell.colSpan = COLUMNS.length;
  const button = make("button", `Show ${Math.min(left, SHOWN)} more of ${left.toLocaleString("en")}`);
  button.type = "button";
  button.addEventListener("click", show);
  cell.append(button);
  node.append(cell);
  return node;
}

// One body for each kind, so that bounds stay apart however the rows are sorted.
function fillBody(kind, rows, limit, open, showMore) {
  let body = document.querySelector(`#lines tbody.${kind}`);
  if (!body) {
    body = make("tbody", undefined, kind);
    document.querySelector("#lines").append(body);
  }
  const fragment = document.createDocumentFragment();
  if (rows.length) fragment.append(kindHeading(kind));
  for (const row of rows.slice(0, limit)) fragment.append((row.node ??= buildRow(row, open)));
  if (rows.length > limit) fragment.append(moreRow(rows.length - limit, showMore));
  body.replaceChildren(fragment);
}
