// The numbers of one token.

const LOSSES = { small: "small", big: "big", router: "router", oracle: "oracle" };
const longest = highest([data.small, data.big, data.router, data.oracle].flatMap((losses) => losses.slice(1)), 1e-9);

function showDetails(index) {
  const head = make("p", undefined, "token");
  head.append(make("code", spelled(index)));
  const parts = data.small[index] === null
    ? [make("p", "The first token: nothing stands in front of it, so nothing predicts it, and it has no loss.")]
    : [lossTable(index), potential(index), ...strips(index)];
  find("#details").replaceChildren(head, make("p", kind(index), "kind"), ...parts);
}

function kind(index) {
  const { line, column } = places[index];
  const facts = Object.keys(data.fact).filter((fact) => data.fact[fact][index]);
  const seen = data.seen[index];
  const often = seen === 0 ? "never in the training data" : `${whole(seen)} in a million training tokens`;
  const front = data.front[index];
  return [
    `line ${line}, column ${column}`, `token ${whole(index + 1)}`, data.categories[data.category[index]], ...facts, often,
    ...(front === null ? [] : [`read with ${whole(front)} ${front === 1 ? "token" : "tokens"} in front`]),
  ].join(" · ");
}

function lossTable(index) {
  const table = make("table", undefined, "losses");
  for (const [name, label] of Object.entries(LOSSES)) {
    const row = table.insertRow();
    row.append(make("th", label), make("td", number(data[name][index])));
    const bar = make("i", undefined, `bar ${name}`);
    bar.style.width = `${(100 * data[name][index]) / longest}%`;
    const cell = make("td", undefined, "track");
    cell.append(bar);
    row.append(cell);
  }
  return table;
}

function potential(index) {
  const node = make("p", "potential ", "potential");
  node.append(make("b", number(data.gap[index], 3, "+")), ` nats, rank ${whole(data.rank[index])} of ${whole(data.texts.length - 1)}`);
  return node;
}

// A column a layer, the first at the left: big is tall, small is low, skip is a line.
function strips(index) {
  return ["router", "oracle"].map((name) => {
    const route = data[`${name}_route`][index];
    const figure = make("div", undefined, "strip");
    const cells = make("div", undefined, "cells");
    const layers = [...route].map((module, layer) => `${layer + 1} ${MODULES[module]}`);
    cells.setAttribute("role", "img");
    cells.setAttribute("aria-label", `layers: ${layers.join(", ")}`);
    cells.append(...[...route].map((module, layer) => {
      const cell = make("i", undefined, MODULES[module]);
      cell.title = `layer ${layers[layer]}`;
      return cell;
    }));
    const counts = MODULES.map((module, place) => [Math.round(share(route, place) * LAYERS), module]);
    const told = counts.filter(([count]) => count).reverse().map((pair) => pair.join(" ")).join(", ");
    figure.append(make("span", name), cells, make("span", told, "counts"));
    return figure;
  });
}
