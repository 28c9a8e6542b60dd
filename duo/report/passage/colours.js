// What tokens are coloured by: seven steps of one hue, lighter to darker (in the dark the other way), so that they are
// told apart in grey too. A potential below 0 has another hue, and a dotted line.

const NATS = [0.5, 1, 2, 3, 5, 7];
const SHARES = [0.05, 0.2, 0.35, 0.5, 0.65, 0.8];
const spends = (name) => ({
  label: `the ${name}'s big modules`, edges: SHARES, unit: "of the layers are big", digits: 2,
  value: (index) => share(data[`${name}_route`][index], 2),
});
const MODES = {
  gap: {
    label: "potential", edges: [0.05, 0.2, 0.5, 1, 1.5, 2.5], unit: "nats less under the oracle than under small modules",
    digits: 2, value: (index) => data.gap[index],
  },
  small: { label: "loss, small", edges: NATS, unit: "nats under small modules alone", digits: 1, value: (index) => data.small[index] },
  big: { label: "loss, big", edges: NATS, unit: "nats under big modules alone", digits: 1, value: (index) => data.big[index] },
  oracle: { label: "loss, oracle", edges: NATS, unit: "nats under the oracle", digits: 1, value: (index) => data.oracle[index] },
  router_share: spends("router"),
  oracle_share: spends("oracle"),
};

// Step 0 to 6, or -1 and -2 below 0.
function step(mode, value) {
  if (value <= -mode.edges[2]) return -2;
  if (value <= -mode.edges[0]) return -1;
  return mode.edges.filter((edge) => value >= edge).length;
}

const stepClass = (place) => (place < 0 ? `below${-place}` : `step${place}`);

function colour(name) {
  const mode = MODES[name];
  for (const node of find("#text").children) {
    const index = Number(node.dataset.at);
    const known = data.small[index] !== null;
    node.className = known ? stepClass(step(mode, mode.value(index))) : "first";
  }
  showLegend(mode);
}

function showLegend(mode) {
  const ends = mode.edges.map((edge) => number(edge, mode.digits));
  const names = [`< ${ends[0]}`, ...ends.slice(1).map((end, place) => `${ends[place]}–${end}`), `≥ ${ends.at(-1)}`];
  const swatches = names.map((name, place) => swatch(stepClass(place), name));
  if (mode === MODES.gap) swatches.unshift(swatch("below2", `≤ −${ends[2]}`), swatch("below1", `−${ends[2]} to −${ends[0]}`));
  find("#legend").replaceChildren(...swatches, make("span", mode.unit + remark(mode), "unit"));
}

function swatch(name, text) {
  const node = make("span", undefined, "swatch");
  node.append(make("i", "a", name), text);
  return node;
}

// Where every token has the same value, no colour tells anything.
function remark(mode) {
  const values = new Set(data.small.flatMap((loss, index) => (loss === null ? [] : [mode.value(index)])));
  return values.size === 1 ? `: the same for every token, ${number([...values][0], 2)}` : "";
}

function buildModes() {
  for (const [name, { label }] of Object.entries(MODES)) {
    const node = make("label");
    const input = make("input");
    Object.assign(input, { type: "radio", name: "mode", value: name, checked: name === "gap", autocomplete: "off" });
    node.append(input, make("span", label));
    find("#modes").append(node);
  }
  find("#modes").addEventListener("change", (event) => colour(event.target.value));
}
