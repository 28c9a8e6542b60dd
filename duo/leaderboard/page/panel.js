// What opens beside a line: its route, command, recipe and provenance.

const HEAT = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis

function heatColour(share) {
  const place = Math.min(Math.max(Number(share) || 0, 0), 1) * (HEAT.length - 1);
  const low = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[low].map((from, index) => Math.round(from + (HEAT[low + 1][index] - from) * (place - low)));
}

// One pixel a cell; the style sheet enlarges it. Layer 0 is at the bottom, as in the figures of a run.
function heatCanvas(heat) {
  const canvas = make("canvas");
  canvas.height = heat.length;
  canvas.width = Math.max(...heat.map((row) => row.length));
  const context = canvas.getContext("2d");
  heat.forEach((row, layer) =>
    row.forEach((share, bin) => {
      context.fillStyle = `rgb(${heatColour(share).join()})`;
      context.fillRect(bin, heat.length - 1 - layer, 1, 1);
    }),
  );
  canvas.setAttribute("role", "img");
  const mean = (row) => row.reduce((sum, share) => sum + share, 0) / row.length;
  const means = heat.map((row, layer) => `layer ${layer} ${percent(mean(row))}`);
  canvas.setAttribute("aria-label", `Share of big: ${means.join(", ")}`);
  return canvas;
}

function heatMap(heat) {
  const map = make("div", undefined, "heat");
  if (!heat.length || !heat[0].length) return make("p", "No route was kept.");
  const canvas = heatCanvas(heat);
  const read = make("output", "Point at a cell to read its share.");
  canvas.addEventListener("pointermove", (event) => {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const bin = Math.floor(((event.clientX - left) / width) * canvas.width);
    const layer = heat.length - 1 - Math.floor(((event.clientY - top) / height) * heat.length);
    const share = heat[layer]?.[bin];
    if (share !== undefined)
      read.textContent = `layer ${layer}, part ${bin + 1} of ${canvas.width} of the positions: ${percent(share)} big`;
  });
  const layers = make("div", undefined, "layers");
  layers.append(make("span", heat.length - 1), make("span", "layer"), make("span", 0));
  const positions = make("div", undefined, "positions");
  positions.append(make("span", "first"), make("span", "position in the sequence"), make("span", "last"));
  const legend = make("div", undefined, "legend");
  legend.append(make("span", "0 %"), make("i"), make("span", "100 % big"));
  legend.children[1].style.background = `linear-gradient(90deg, ${HEAT.map((stop) => `rgb(${stop.join()})`).join()})`;
  map.append(layers, canvas, positions, legend, read);
  return map;
}

function definitions(values) {
  const list = make("dl");
  for (const [key, value] of Object.entries(values)) list.append(make("dt", key), make("dd", plain(value)));
  return list;
}

function section(title, ...parts) {
  const node = make("section");
  node.append(make("h3", title), ...parts);
  return node;
}

function code(text, name) {
  const node = make("pre", text, name);
  node.tabIndex = 0;
  return node;
}

function facts({ line, standing }) {
  const shown = Object.fromEntries(
    COLUMNS.filter(({ key }) => !["name", "rank"].includes(key)).map((column) => {
      const [large, small] = column.show({ line, standing });
      return [column.label + (column.unit && ` (${column.unit})`), small ? `${large}  ${small}` : String(large)];
    }),
  );
  const tokens = standing.tokens.toLocaleString("en");
  return definitions({ Kind: line.kind, Rank: line.rank ?? "none", Package: line.package, ...shown, "Scored tokens": tokens });
}

const commandOf = ({ entries }) => board.command.replace("ENTRY", () => entries[0]);

function openPanel(row) {
  const { line, standing, part } = row;
  document.querySelector("#panel-title").textContent = line.name || "(no name)";
  const entries = make("ul", undefined, "digests");
  line.entries.forEach((digest, index) => entries.append(make("li", `${digest}  seed ${line.seeds[index] ?? "?"}`)));
  document.querySelector("#panel-body").replaceChildren(
    ...(line.note ? [make("p", line.note, "words")] : []),
    section("Command", code(commandOf(line), "command")),
    section(`Route on ${part}`, heatMap(standing.heat)),
    section("Numbers", facts(row)),
    section("Recipe", code(line.recipe)),
    section("Provenance, as claimed", definitions(line.provenance)),
    section("Entries", entries),
  );
  const panel = document.querySelector("#panel");
  panel.showModal();
  panel.scrollTop = 0;
}

function closeOutside() {
  const panel = document.querySelector("#panel");
  panel.addEventListener("click", (event) => {
    if (event.target === panel) panel.close();
  });
}
