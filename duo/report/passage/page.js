// What is told above the text, and the order in which the page is built.

function about() {
  const { name, recipe, router, backbone, budget } = data.about;
  const shown = name === "-" ? "standard input" : name;
  find("#name").textContent = shown;
  document.title = `${shown} – token difficulty`;
  const parts = {
    recipe, router, budget: `${budget.big} big, ${budget.small} small, ${budget.skip} skipped of ${LAYERS} layers`,
    backbone: backbone.slice(0, 12), tokens: whole(data.texts.length),
  };
  find("#about").append(...Object.entries(parts).map(([key, value]) => {
    const node = make("span", `${key} `);
    node.append(make("b", value));
    return node;
  }));
}

function notes() {
  const { context, bytes, search } = data.about;
  const percent = (100 * data.shown_bytes) / bytes;
  const few = percent < 0.1 ? "less than 0.1" : percent.toFixed(1);
  const said = [
    !data.whole && `Only the text's beginning is shown: ${whole(data.texts.length)} tokens, ${whole(data.shown_bytes)} of ` +
      `${whole(bytes)} bytes (${few} %). Give tokens=NUMBER or tokens=all for more.`,
    "The first token has no loss: nothing stands in front of it.",
    data.windows > 1 && `The backbone reads ${whole(context)} tokens at a time: ${whole(data.windows)} windows that overlap by half. ` +
      "Each token is scored where most tokens stand in front of it; router and oracle begin anew in each window.",
    "The oracle knows the token and chooses for one token after the other, so it is no limit of what routes can reach.",
    search && `There are too many routes to compare them all: the oracle's were found by ${search} search.`,
    data.bound && "The router asked for the tokens it is scored on: what it reaches is a bound.",
    data.python && "The text is taken for Python: its keywords and operators are counted as such, in strings and comments too.",
  ];
  find("#notes").append(...said.filter(Boolean).map((sentence) => make("li", sentence)));
}

about();
notes();
buildModes();
buildText();
buildPlot();
buildTables();
colour("gap");
fromHash();
