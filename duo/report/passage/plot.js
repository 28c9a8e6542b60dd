// Along the text: losses as moving averages above, every token's potential below.

const LINES = ["small", "big", "router", "oracle"];
const EDGE = { left: 40, right: 8, top: 8, middle: 130, gap: 18, bottom: 24 };
const HEIGHT = 250;
const scored = data.texts.length - 1;
const SPAN = Math.max(1, 2 * Math.floor(scored / 100) + 1); // tokens that are averaged, half before and half behind

function smooth(values) {
  const sums = [0];
  for (const value of values) sums.push(sums.at(-1) + value);
  const half = (SPAN - 1) / 2;
  return values.map((_, place) => {
    const [low, high] = [Math.max(0, place - half), Math.min(values.length, place + half + 1)];
    return (sums[high] - sums[low]) / (high - low);
  });
}

const curves = Object.fromEntries(LINES.map((name) => [name, smooth(data[name].slice(1))]));

// About so many round numbers from low to high.
function ticks(low, high, count = 3) {
  const rough = (high - low) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const width = [1, 2, 5, 10].map((part) => part * unit).find((part) => part >= rough);
  const found = [];
  for (let place = Math.ceil(low / width); place * width <= high; place += 1) found.push(place * width);
  return found;
}

let across_x = () => 0;

function drawPlot() {
  const plot = find("#plot");
  const width = Math.max(plot.parentNode.clientWidth, 200);
  plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  plot.setAttribute("height", HEIGHT);
  const right = width - EDGE.right;
  across_x = (index) => EDGE.left + ((index - 0.5) / scored) * (right - EDGE.left);
  const bottom = HEIGHT - EDGE.bottom;
  const values = LINES.flatMap((name) => curves[name]);
  const gaps = data.gap.slice(1);
  const above = scale(Math.floor(lowest(values, Infinity)), highest(values, 0) + 0.1, EDGE.middle, EDGE.top);
  const below = scale(lowest(gaps, -0.1), highest(gaps, 0.1), bottom, EDGE.middle + EDGE.gap);
  plot.replaceChildren(
    ...axis(above, right, "loss"), ...axis(below, right, "potential"), ...along(right, bottom),
    draw("path", { class: "bars", d: gaps.map((gap, place) => `M${x1(place + 1)} ${below.y(0).toFixed(1)}V${below.y(gap).toFixed(1)}`).join("") }),
    ...LINES.map((name) => draw("path", { class: `line ${name}`, d: `M${curves[name].map((value, place) => `${x1(place + 1)} ${above.y(value).toFixed(1)}`).join("L")}` })),
    draw("line", { class: "mark", y1: EDGE.top, y2: bottom }),
  );
  markPlot(current);
}

const x1 = (index) => across_x(index).toFixed(1);

function scale(low, high, bottom, top) {
  return { low, high, y: (value) => bottom - ((value - low) / (high - low)) * (bottom - top) };
}

function axis({ low, high, y }, right, name) {
  const lines = ticks(low, high).flatMap((tick) => [
    draw("line", { class: tick === 0 && low < 0 ? "zero" : "grid", x1: EDGE.left, x2: right, y1: y(tick), y2: y(tick) }),
    draw("text", { x: EDGE.left - 5, y: y(tick) + 4, "text-anchor": "end" }, String(Number(tick.toPrecision(3))).replace("-", "−")),
  ]);
  const middle = (y(low) + y(high)) / 2;
  return [...lines, draw("text", { class: "name", transform: `translate(11 ${middle}) rotate(-90)`, "text-anchor": "middle" }, name)];
}

function along(right, bottom) {
  const numbers = ticks(0, scored, 6).filter((tick) => tick > 0 && Number.isInteger(tick));
  const anchor = (tick) => (across_x(tick) > right - 25 ? "end" : "middle");
  return [
    draw("text", { x: EDGE.left, y: bottom + 17 }, "token"),
    ...numbers.map((tick) => draw("text", { x: across_x(tick), y: bottom + 17, "text-anchor": anchor(tick) }, whole(tick))),
  ];
}

function markPlot(index) {
  const line = find("#plot .mark");
  if (!line) return;
  line.setAttribute("x1", across_x(index));
  line.setAttribute("x2", across_x(index));
}

function nearest(event) {
  const box = find("#plot").getBoundingClientRect();
  const width = box.width - EDGE.left - EDGE.right;
  const index = Math.round(((event.clientX - box.left - EDGE.left) / width) * scored + 0.5);
  return Math.min(Math.max(index, 1), scored);
}

function buildPlot() {
  find("#caption").append(
    ...LINES.map((name) => {
      const key = make("span", undefined, "line-key");
      const line = draw("svg", { width: 26, height: 8 });
      line.append(draw("path", { class: `line ${name}`, d: "M0 4H26" }));
      key.append(line, ` ${name}`);
      return key;
    }),
    make("span", `Loss in nats${SPAN > 1 ? `, averaged over ${SPAN} tokens` : ""}; below, the potential of every token. A click goes there.`),
  );
  const plot = find("#plot");
  plot.addEventListener("mousemove", (event) => {
    showDetails(nearest(event));
    markPlot(nearest(event));
  });
  plot.addEventListener("mouseleave", () => choose(current));
  plot.addEventListener("click", (event) => go(nearest(event)));
  new ResizeObserver(drawPlot).observe(plot.parentNode);
}
