// What all parts of the page share: the data, nodes and numbers. Text of the file only ever becomes textContent.

const data = JSON.parse(document.querySelector("#data").textContent);
const find = (selector) => document.querySelector(selector);
const LAYERS = data.oracle_route[1].length;
const MODULES = ["skip", "small", "big"];

function make(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
}

function draw(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function number(value, digits = 3, sign = "") {
  const text = value.toFixed(digits).replace(/^-(?=[0.]+$)/, "");
  return ((value > 0 ? sign : "") + text).replace("-", "−");
}

// Not Math.max(...values): a long text has more values than a function may have arguments.
const highest = (values, least) => values.reduce((one, other) => Math.max(one, other), least);
const lowest = (values, most) => values.reduce((one, other) => Math.min(one, other), most);
const whole = (value) => value.toLocaleString("en");
const share = (route, module) => [...route].filter((digit) => digit === String(module)).length / route.length;

// A token as one word: spaces and signs that nothing shows are written out.
function spelled(index) {
  const text = data.texts[index];
  if (!text) return `part of a character (${data.bytes[index]})`;
  return text
    .replaceAll(" ", "␣")
    .replaceAll("\n", "↵")
    .replaceAll("\t", "⇥")
    .replace(/[\p{C}\p{Z}]/gu, (sign) => `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
}

// Line and column at which each token begins, from 1 on.
const places = (() => {
  let line = 1;
  let column = 1;
  return data.texts.map((text) => {
    const here = { line, column };
    for (const sign of text) {
      if (sign === "\n") [line, column] = [line + 1, 1];
      else column += 1;
    }
    return here;
  });
})();
