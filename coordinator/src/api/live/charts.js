// Charts as SVG. Lines differ in their strokes as well as in colour, and the newest values stand below.

const W = 420, H = 170, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 22;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "1 5"];

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function html(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** As many digits as matter. */
function digits(value) {
  const size = Math.abs(value);
  const places = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return String(Number(value.toFixed(places)));
}

function show(value, unit) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (unit === "%") return digits(value * 100) + " %";
  if (unit === "/s") return digits(value) + "/s";
  if (unit !== "s") return digits(value);
  if (value === 0) return "0 s";
  if (value < 1e-3) return digits(value * 1e6) + " µs";
  return value < 1 ? digits(value * 1e3) + " ms" : digits(value) + " s";
}

/** 1, 2 or 5 of some power of ten, no less than the value. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return (([1, 2, 5].find(lead => lead * power >= value * (1 - 1e-9))) || 10) * power;
}

/** A chart's place on the page, drawn anew whenever there is something new. */
class Chart {
  constructor(family, nth) {
    this.family = family;
    this.points = [];
    this.picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-labelledby": `family${nth}`, "aria-describedby": `legend${nth}` });
    this.legend = html("ul", { class: "legend", id: `legend${nth}` });
    this.figure = html("figure", {}, html("h3", { id: `family${nth}` }, family.title), this.picture, this.legend);
  }

  /** Takes in a reading: the newest, the one before, and one of half a minute ago. */
  take(readings) {
    const { now, near } = readings;
    if (this.family.heat) {
      const buckets = grownBuckets(near.page, now.page, this.family.heat);
      const counts = buckets.map(([, within], at) => within - (at ? buckets[at - 1][1] : 0));
      this.points.push({ at: now.at, counts, bounds: buckets.map(([bound]) => bound) });
    } else {
      this.points.push({ at: now.at, values: this.family.of(readings) });
    }
    while (this.points.length > 1 && now.at - this.points[0].at > KEPT) this.points.shift();
  }

  draw() {
    this.picture.replaceChildren();
    if (!this.points.length) return;
    if (this.family.heat) this.drawHeat(); else this.drawLines();
  }

  x(at) {
    const last = this.points[this.points.length - 1].at;
    const first = Math.min(this.points[0].at, last - 30);
    return LEFT + (at - first) / (last - first) * (W - LEFT - RIGHT);
  }

  drawTime() {
    const last = this.points[this.points.length - 1].at;
    const span = Math.max(30, last - this.points[0].at);
    for (const ago of span > 120 ? [240, 120, 0] : [60, 30, 0]) {
      if (ago > span) continue;
      const text = ago ? `${ago} s ago` : "now";
      this.picture.append(svg("text", { x: this.x(last - ago), y: H - 6, "text-anchor": ago === 0 ? "end" : "middle" }, text));
    }
  }

  drawLines() {
    const { unit, lines } = this.family;
    const all = this.points.flatMap(point => point.values).filter(Number.isFinite);
    const most = Math.max(...all, 0) || (unit === "%" ? .01 : 1);
    const step = round(most / 4), top = Math.ceil(most / step - 1e-9) * step;
    const y = value => H - BOTTOM - value / top * (H - TOP - BOTTOM);
    for (let tick = 0; tick <= top + step / 2; tick += step) {
      this.picture.append(
        svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y(tick), y2: y(tick) }),
        svg("text", { x: LEFT - 5, y: y(tick) + 4, "text-anchor": "end" }, show(tick, unit)));
    }
    this.drawTime();
    lines.forEach((_, nth) => {
      let part = [];
      const end = () => {
        if (part.length === 1) part.push([part[0][0] + 1.5, part[0][1]]);
        if (part.length) this.picture.append(svg("polyline", { class: `l${nth}`, "stroke-dasharray": DASHES[nth], points: part.map(it => it.join(",")).join(" ") }));
        part = [];
      };
      for (const { at, values } of this.points) {
        if (Number.isFinite(values[nth])) part.push([this.x(at).toFixed(1), y(values[nth]).toFixed(1)]); else end();
      }
      end();
    });
    const newest = this.points[this.points.length - 1].values;
    this.legend.replaceChildren(...lines.map((name, nth) => html("li", {},
      svg("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" }, svg("line", { class: `l${nth}`, "stroke-dasharray": DASHES[nth], x1: 0, x2: 26, y1: 4, y2: 4 })),
      ` ${name} ${show(newest[nth], unit)}`)));
  }

  drawHeat() {
    const bounds = this.points[this.points.length - 1].bounds;
    const seen = this.points.map(point => point.counts);
    const used = bounds.map((_, row) => seen.reduce((sum, counts) => sum + (counts[row] || 0), 0));
    const rows = bounds.map((_, row) => row).filter(row => used[row] > 0);
    const first = rows.length ? rows[0] : 0, last = rows.length ? rows[rows.length - 1] : 0;
    const height = (H - TOP - BOTTOM) / (last - first + 1);
    const most = Math.max(1, ...seen.flat());
    const name = row => bounds[row] === Infinity ? "more" : `≤ ${bounds[row]}`;
    for (let row = first; rows.length && row <= last; row++) {
      const y = H - BOTTOM - (row - first + 1) * height;
      this.picture.append(svg("text", { x: LEFT - 5, y: y + height / 2 + 4, "text-anchor": "end" }, name(row)));
      this.points.forEach(({ at, counts }, nth) => {
        if (!counts[row]) return;
        const next = nth + 1 < this.points.length ? this.x(this.points[nth + 1].at) : this.x(at) + 3;
        const x = Math.min(this.x(at), W - RIGHT - 3);
        this.picture.append(svg("rect", { class: "f0", x, y: y + .5, width: Math.max(3, next - this.x(at)), height: height - 1, opacity: .25 + .75 * counts[row] / most }));
      });
    }
    this.drawTime();
    this.legend.replaceChildren(...(rows.length ? rows.map(row => html("li", {}, `${name(row)}: ${used[row]}`)) : [html("li", {}, "no request has ended yet")]));
  }
}

/** A bar of shares that sum to 1. */
function shares(parts) {
  const bar = svg("svg", { class: "shares", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  let x = 0;
  parts.forEach((part, nth) => {
    bar.append(svg("rect", { class: `f${nth}`, x, y: 0, width: Math.max(0, part * 100), height: 10 }));
    x += part * 100;
  });
  return bar;
}
