// The text: a span for each token, one of which has the focus; arrow keys, the mouse and links move it.

const BLANK = /^[\p{C}\p{Z}]*$/u;
let current = 1;

function buildText() {
  find("#text").classList.toggle("prose", !data.python);
  find("#text").append(...data.texts.map((text, index) => {
    const node = make("span", text);
    node.id = `t${index}`;
    node.dataset.at = index;
    node.tabIndex = -1;
    const sign = mark(text);
    if (sign) node.dataset.sign = sign;
    return node;
  }));
  focusable(1);
  showDetails(1);
  find("#text").addEventListener("focusin", (event) => choose(Number(event.target.dataset.at)));
  find("#text").addEventListener("keydown", walk);
  find("#text").addEventListener("mouseover", (event) => event.target.dataset.at && showDetails(Number(event.target.dataset.at)));
  find("#text").addEventListener("mouseleave", () => showDetails(current));
  addEventListener("hashchange", fromHash);
}

// What stands for a token that shows nothing by itself.
function mark(text) {
  if (text.includes("\n")) return "↵";
  if (text && !BLANK.test(text)) return "";
  if (/^ +$/.test(text)) return "";
  return text === "\t" ? "⇥" : text === "\r" ? "␍" : "▯";
}

const tokenAt = (index) => find("#text").children[index];

function focusable(index) {
  tokenAt(current).tabIndex = -1;
  tokenAt(current).removeAttribute("aria-current");
  current = index;
  tokenAt(current).tabIndex = 0;
  tokenAt(current).setAttribute("aria-current", "true");
}

function choose(index) {
  focusable(index);
  showDetails(index);
  markPlot(index);
}

function go(index) {
  tokenAt(index).focus({ preventScroll: true });
  const box = tokenAt(index).getBoundingClientRect();
  const top = find("#controls").getBoundingClientRect().bottom;
  const bottom = Math.min(innerHeight, sheetTop());
  if (box.top < top || box.bottom > bottom) tokenAt(index).scrollIntoView({ block: "center" });
}

// On a phone the numbers stand in front of the page's lower end.
function sheetTop() {
  const details = find("#details");
  return getComputedStyle(details).bottom === "0px" ? details.getBoundingClientRect().top : innerHeight;
}

function walk(event) {
  const last = data.texts.length - 1;
  const steps = {
    ArrowLeft: () => current - 1, ArrowRight: () => current + 1, Home: () => 0, End: () => last,
    ArrowUp: () => across(-1), ArrowDown: () => across(1),
  };
  if (!Object.hasOwn(steps, event.key) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  go(Math.min(Math.max(steps[event.key](), 0), last));
}

// The token of the next line, up or down, that is nearest to the present one.
function across(direction) {
  const box = (index) => tokenAt(index).getClientRects()[0];
  const here = box(current);
  let best = current;
  let line;
  for (let index = current + direction; index >= 0 && index < data.texts.length; index += direction) {
    const there = box(index);
    if (!there || Math.abs(there.top - here.top) < here.height / 2) continue;
    line ??= there.top;
    if (Math.abs(there.top - line) > here.height / 2) break;
    const nearer = best === current || Math.abs(there.left - here.left) < Math.abs(box(best).left - here.left);
    if (nearer) best = index;
  }
  return best;
}

function fromHash() {
  const index = Number(/^#t(\d+)$/.exec(location.hash)?.[1] ?? NaN);
  if (index < data.texts.length) {
    go(index);
    tokenAt(index).scrollIntoView({ block: "center" });
  }
}
