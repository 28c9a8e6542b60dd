// The state of the page, and what changes it.

const board = JSON.parse(document.querySelector("#board").textContent);
const find = (selector) => document.querySelector(selector);
const state = { track: null, part: "", rows: [], sort: { key: "rank", descending: false }, limits: {} };

function option(text, value, chosen) {
  const node = make("option", text);
  node.value = value;
  node.selected = chosen;
  return node;
}

// Tracks of one title, which differ in their tokens, stand together and are told apart by their digest.
function fillTracks() {
  const titles = Map.groupBy(board.tracks, (track) => track.title);
  const nodes = [...titles].map(([title, tracks]) => {
    const single = tracks.length === 1;
    const options = tracks.map((track) =>
      option(single ? title : `${title} (${track.digest.slice(0, 8)})`, board.tracks.indexOf(track), track === state.track),
    );
    if (single) return options[0];
    const group = make("optgroup");
    group.label = title;
    group.append(...options);
    return group;
  });
  find("#track").replaceChildren(...nodes);
}

function fillParts() {
  find("#part").replaceChildren(...state.track.parts.map((name) => option(name, name, name === state.part)));
}

function fillFacts() {
  const shown = (value) => (typeof value === "number" ? value.toLocaleString("en") : plain(value));
  const short = ([key, value]) => [key, key.includes("digest") ? String(value).slice(0, 12) : value];
  const tokens = state.rows[0] ? ["tokens", "documents"].map((of) => [`scored ${of}`, state.rows[0].standing[of]]) : [];
  const budget = Object.entries(state.track.budget).map(([key, value]) => [`budget ${key}`, value]);
  const parts = [...Object.entries(state.track.backbone), ...budget, ...tokens].map(short);
  find("#facts").replaceChildren(
    ...parts.map(([key, value]) => {
      const part = make("span", `${key.replaceAll("_", " ")} `);
      part.append(make("b", shown(value)));
      return part;
    }),
  );
}

function choose(track, part) {
  state.track = track;
  state.part = track.parts.includes(part) ? part : track.parts[0];
  state.rows = track.lines
    .filter((line) => Object.hasOwn(line.parts, state.part))
    .map((line) => ({ line, standing: scored(line.parts[state.part]), part: state.part }));
  state.limits = {};
  fillTracks();
  fillParts();
  fillFacts();
  update();
}

function fromHash() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const track = board.tracks.find(({ digest }) => digest === wanted.get("track")) ?? board.tracks[0];
  choose(track, wanted.get("part"));
}

function toHash(track, part) {
  location.hash = new URLSearchParams({ track: track.digest, part }).toString();
}

function words({ line }) {
  return [line.name, line.router, line.package, line.note].join("\n").toLowerCase();
}

function matching() {
  const wanted = find("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const kinds = new Set([...document.querySelectorAll("[name=kind]:checked")].map((box) => box.value));
  const single = find("#single").checked;
  return state.rows.filter((row) => {
    if (!kinds.has(row.line.kind) || (single && row.standing.passes > 0)) return false;
    row.words ??= words(row);
    return wanted.every((word) => row.words.includes(word));
  });
}

function showRows(rows) {
  const sorted = order(rows, state.sort);
  for (const kind of Object.keys(KINDS)) {
    const some = sorted.filter(({ line }) => line.kind === kind);
    fillBody(kind, some, state.limits[kind] ?? SHOWN, openPanel, () => showMore(kind, some));
  }
  markSorted(state.sort);
}

function showMore(kind, rows) {
  const before = state.limits[kind] ?? SHOWN;
  state.limits[kind] = before + SHOWN;
  showRows(matching());
  rows[before].node.querySelector("button").focus();
}

const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

function update() {
  const rows = matching();
  showRows(rows);
  const all = counted(state.rows.length, "line", "lines");
  find("#count").textContent = rows.length === state.rows.length ? all : `${rows.length.toLocaleString("en")} of ${all}`;
  plotSoon(rows);
}

let waiting;
let wired = false;

// After the table has answered: a plot of thousands of points takes longer than a keystroke may.
function plotSoon(rows) {
  clearTimeout(waiting);
  if (document.readyState !== "complete") return;
  waiting = setTimeout(async () => {
    await drawPlot(state.track, state.part, rows);
    if (!wired) wirePlot(openPanel);
    wired = true;
  }, 200);
}

function sortBy(key) {
  state.sort = { key, descending: state.sort.key === key && !state.sort.descending };
  showRows(matching());
}

// Up and down go from line to line.
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.matches("tbody button")) return;
  const buttons = [...document.querySelectorAll("#lines tbody button")];
  buttons[buttons.indexOf(event.target) + step]?.focus();
  event.preventDefault();
}

function fillLeftOut() {
  if (!board.left_out.length) return;
  find("#left").hidden = false;
  find("#left summary").textContent = `${counted(board.left_out.length, "entry is", "entries are")} not shown`;
  find("#left ul").append(...board.left_out.map((sentence) => make("li", sentence)));
}

function start() {
  fillLeftOut();
  closeOutside();
  if (!board.tracks.length) {
    find("#controls").replaceWith(make("p", "There are no entries yet."));
    for (const selector of ["figure", "#scroll", ".note"]) find(selector).hidden = true;
    return;
  }
  buildHead(sortBy);
  find("#controls").addEventListener("submit", (event) => event.preventDefault());
  find("#track").addEventListener("change", (event) => {
    const track = board.tracks[event.target.value];
    toHash(track, track.parts.includes(state.part) ? state.part : track.parts[0]);
  });
  find("#part").addEventListener("change", (event) => toHash(state.track, event.target.value));
  find("#filter").addEventListener("input", update);
  find("#controls").addEventListener("change", (event) => event.target.type === "checkbox" && update());
  find("#lines").addEventListener("keydown", walk);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plotSoon(matching()));
  addEventListener("hashchange", fromHash);
  addEventListener("load", () => plotSoon(matching()));
  fromHash();
}

start();
