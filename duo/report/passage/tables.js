// Lists of tokens, each a link to its place, and means over kinds of tokens.

const AROUND = 24; // characters shown on either side of a token

function headed(table, names) {
  const row = table.createTHead().insertRow();
  for (const name of names) {
    const cell = make("th", name);
    cell.scope = "col";
    row.append(cell);
  }
  return table.createTBody();
}

// A token among its neighbours, on one line.
function inContext(index) {
  const link = make("a");
  link.href = `#t${index}`;
  const before = data.texts.slice(Math.max(0, index - AROUND), index).join("");
  const behind = data.texts.slice(index + 1, index + 1 + AROUND).join("");
  const flat = (text) => text.replace(/\s+/gu, " ").replace(/\p{C}/gu, "▯");
  const left = flat(before).slice(-AROUND);
  const parts = [make("span", left, "before"), make("mark", spelled(index)), make("span", flat(behind).slice(0, AROUND))];
  link.append(...parts);
  link.addEventListener("click", () => location.hash === link.hash && fromHash());
  return link;
}

function listTokens(table, tokens) {
  const body = headed(table, ["Token", "Line", "Small", "Big", "Oracle", "Potential"]);
  for (const index of tokens) {
    const row = body.insertRow();
    const cell = make("td", undefined, "context");
    cell.append(inContext(index));
    row.append(cell, make("td", whole(places[index].line)));
    for (const name of ["small", "big", "oracle"]) row.append(make("td", number(data[name][index], 2)));
    row.append(make("td", number(data.gap[index], 2, "+"), "strong"));
  }
}

function listMeans(title, rows) {
  const table = make("table");
  const body = headed(table, [title, "Tokens", "Small", "Big", "Oracle", "Potential"]);
  for (const mean of rows) {
    const row = body.insertRow();
    const name = make("th", mean.name);
    name.scope = "row";
    row.append(name, make("td", whole(mean.tokens)));
    for (const key of ["loss_small", "loss_big", "loss_oracle"]) row.append(make("td", number(mean[key], 2)));
    row.append(make("td", number(mean.gap, 3, "+"), "strong"));
  }
  return table;
}

function buildTables() {
  const { tokens, count, of, bound } = data.hard;
  listTokens(find("#most"), data.most);
  find("#hard-note").textContent =
    `Of the ${whole(of)} hardest tokens, the tenth with most loss under small modules, ${whole(count)} ` +
    `${count === 1 ? "has" : "have"} a potential below ${bound} nats` +
    `${count > tokens.length ? `; the ${tokens.length} hardest of them` : ""}.`;
  if (tokens.length) listTokens(find("#hard"), tokens);
  else find("#hard").remove();
  find("#means").append(...Object.entries(data.tables).map(([title, rows]) => listMeans(title, rows)));
}
