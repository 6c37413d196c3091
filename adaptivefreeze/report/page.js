// Draws the figures of the page as SVG at the width that there is, and shows values on hovering.
"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const MARKERS = [
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", "M-4-4h8v8h-8z", "M0-5L5 4H-5z", "M0-5.5L5.5 0L0 5.5L-5.5 0z", "M0 5L5-4H-5z",
    "M-1.5-5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z", "M-5-3L-3-5L0-2L3-5L5-3L2 0L5 3L3 5L0 2L-3 5L-5 3L-2 0z",
  ];
  const DASHES = ["", "6 3", "2 3"];

  function add(parent, name, attributes = {}, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return parent.appendChild(made);
  }

  function ticks(low, high, count, whole) {
    const rough = (high - low) / Math.max(1, count) || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    let step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
    if (whole) step = Math.max(1, Math.round(step));
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
    return found;
  }

  const number = (value) => Math.abs(value) >= 1e6 ? value.toExponential(1) : value.toLocaleString("en", {maximumFractionDigits: 6});
  const short = (value) => (+value.toPrecision(4)).toLocaleString("en", {maximumFractionDigits: 6});

  // Colour, marker and dashes by the place of a name in the legend; controls are grey with open markers.
  function styles(series) {
    const found = new Map();
    let index = 0, controls = 0;
    for (const {name, control} of series) {
      if (found.has(name)) continue;
      const i = control ? controls++ : index++;
      found.set(name, control
        ? {color: "var(--soft)", marker: MARKERS[(3 + i) % MARKERS.length], dash: "5 4", open: true}
        : {color: `var(--c${i % 7})`, marker: MARKERS[i % MARKERS.length], dash: DASHES[Math.floor(i / 7) % 3], open: false});
    }
    return found;
  }

  function marker(parent, style, attributes = {}) {
    const fill = style.open ? "var(--page)" : style.color;
    return add(parent, "path", {d: style.marker, fill, stroke: style.color, "stroke-width": 1.5, ...attributes});
  }

  // Limits of an axis: the points, and error bars as far as they leave the points apart.
  function limits(values, errors, zero) {
    let low = Math.min(...values), high = Math.max(...values);
    const spacing = (high - low) / 2 || Math.abs(high) / 20 || 1;
    low = Math.max(low - spacing, Math.min(low, ...errors.map((e) => e[0])));
    high = Math.min(high + spacing, Math.max(high, ...errors.map((e) => e[1])));
    const margin = (high - low || spacing) * 0.06;
    return [zero ? Math.min(0, low) : low - margin, high + margin];
  }

  function frame(figure, height, left, bottom) {
    const plot = figure.querySelector(".plot");
    plot.querySelector("svg")?.remove();
    const width = Math.max(240, Math.floor(plot.clientWidth));
    const svg = add(plot, "svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": figure.dataset.title});
    return {svg, plot, width, height, left, right: width - 14, top: 8, bottom: height - bottom};
  }

  function horizontal(box, low, high, whole) {
    const x = (value) => box.left + ((value - low) / (high - low || 1)) * (box.right - box.left);
    let end = -8;
    for (const tick of ticks(low, high, Math.min(10, (box.right - box.left) / 75), whole)) {
      add(box.svg, "line", {x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom, class: "grid"});
      const text = add(box.svg, "text", {x: x(tick), y: box.bottom + 17, "text-anchor": "middle", class: "tick"}, number(tick));
      const half = text.getComputedTextLength() / 2;
      if (x(tick) - half < end + 8 || x(tick) + half > box.width) text.remove();
      else end = x(tick) + half;
    }
    return x;
  }

  function tooltip(plot, x, y, text) {
    const tip = plot.querySelector(".tip");
    tip.textContent = text;
    tip.hidden = !text;
    if (!text) return;
    tip.style.left = `${Math.max(0, Math.min(x + 12, plot.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${y > tip.offsetHeight + 16 ? y - tip.offsetHeight - 12 : y + 16}px`;
  }

  function chart(figure, spec) {
    const every = spec.series.flatMap((s) => s.marks);
    const [xLow, xHigh] = limits(every.map((m) => m.x), every.flatMap((m) => m.x_error ? [m.x_error] : []), spec.from_zero);
    const heights = [...every.map((m) => m.y), ...(spec.level ? [spec.level[0]] : []), ...(spec.band ? spec.band.slice(0, 2) : [])];
    const [yLow, yHigh] = limits(heights, every.flatMap((m) => m.y_error ? [m.y_error] : []), false);
    const width = figure.querySelector(".plot").clientWidth;
    const height = Math.max(260, Math.min(420, width * 0.55));
    const yTicks = ticks(yLow, yHigh, height / 55, false);
    const box = frame(figure, height, 14 + 7.5 * Math.max(...yTicks.map((t) => number(t).length)), 26);
    const y = (value) => box.bottom - ((value - yLow) / (yHigh - yLow || 1)) * (box.bottom - box.top);
    const {svg} = box;
    const clip = `clip-${figure.id}`;
    add(add(svg, "clipPath", {id: clip}), "rect", {x: box.left - 6, y: box.top - 6, width: box.right - box.left + 12, height: box.bottom - box.top + 12});
    if (spec.band) {
      const [a, b] = [y(spec.band[0]), y(spec.band[1])];
      add(svg, "rect", {x: box.left, y: Math.min(a, b), width: box.right - box.left, height: Math.abs(a - b), class: "band"});
    }
    const x = horizontal(box, xLow, xHigh, spec.whole);
    for (const tick of yTicks) {
      add(svg, "line", {x1: box.left, x2: box.right, y1: y(tick), y2: y(tick), class: "grid"});
      add(svg, "text", {x: box.left - 7, y: y(tick) + 4, "text-anchor": "end", class: "tick"}, number(tick));
    }
    const inside = add(svg, "g", {"clip-path": `url(#${clip})`});
    if (spec.diagonal) add(inside, "line", {x1: x(xLow), y1: y(xLow), x2: x(xHigh), y2: y(xHigh), class: "level"});
    if (spec.level) add(inside, "line", {x1: box.left, x2: box.right, y1: y(spec.level[0]), y2: y(spec.level[0]), class: "level"});

    const style = styles(spec.series), points = [], taken = [];
    for (const series of spec.series) {
      const look = style.get(series.name);
      const group = add(inside, "g", {"data-name": series.name, class: "series"});
      if (series.style !== "points") {
        const d = series.marks.map((m, i) => `${i ? "L" : "M"}${x(m.x).toFixed(1)} ${y(m.y).toFixed(1)}`).join("");
        add(group, "path", {d, fill: "none", stroke: look.color, "stroke-width": 1.8, "stroke-dasharray": look.dash});
        taken.push(...along(series.marks.map((m) => [x(m.x), y(m.y)])));
      }
      for (const m of series.marks) {
        const [px, py] = [x(m.x), y(m.y)];
        points.push({px, py, m, text: m.text || `${series.name}: ${short(m.y)} at ${short(m.x)}`});
        const bar = {stroke: look.color, "stroke-width": 1.2, class: "error"};
        const within = (low, high) => (at) => Math.min(high, Math.max(low, at));
        if (m.x_error) {
          const [x1, x2] = m.x_error.map(x).map(within(box.left, box.right));
          add(group, "line", {...bar, x1, x2, y1: py, y2: py});
          taken.push([x1, py - 2, x2, py + 2]);
        }
        if (m.y_error) {
          const [y1, y2] = m.y_error.map(y).map(within(box.top, box.bottom));
          add(group, "line", {...bar, x1: px, x2: px, y1, y2});
          taken.push([px - 2, y2, px + 2, y1]);
        }
        if (series.style !== "line" && series.marks.length <= 40) {
          marker(group, look, {transform: `translate(${px.toFixed(1)} ${py.toFixed(1)})`});
        }
      }
    }
    label(box, points, taken);
    hover(box, (px, py) => {
      let best = null, nearest = 28 ** 2;
      for (const p of points) {
        const distance = (p.px - px) ** 2 + (p.py - py) ** 2;
        if (distance < nearest) [best, nearest] = [p, distance];
      }
      return best && [best.px, best.py, best.text];
    });
    legend(figure, style, spec);
  }

  // Small boxes along a line, which labels avoid.
  function along(ends) {
    return ends.slice(1, 60).flatMap(([bx, by], i) => {
      const [ax, ay] = ends[i], count = Math.ceil(Math.hypot(bx - ax, by - ay) / 8);
      return Array.from({length: count}, (_, j) => {
        const [cx, cy] = [ax + ((bx - ax) * j) / count, ay + ((by - ay) * j) / count];
        return [cx - 2, cy - 2, cx + 2, cy + 2];
      });
    });
  }

  // Writes each label at the nearest place where it covers no point, line, error bar or label; hovering names the others.
  function label(box, points, taken) {
    taken.push(...points.map(({px, py}) => [px - 6, py - 6, px + 6, py + 6]));
    for (const {px, py, m} of points) {
      if (!m.label) continue;
      const text = add(box.svg, "text", {"text-anchor": "middle", class: "label"}, m.label);
      const w = text.getComputedTextLength() + 6, h = 15;
      const place = [9, 14, 20, 28, 38, 50].flatMap((d) =>
        [[0, -1], [1, 0], [-1, 0], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]].map(([right, down]) =>
          [px + right * (d + w / 2), py + down * (d + h / 2 - 3)])).find(([cx, cy]) => {
        const [l, t, r, b] = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
        return l > box.left && r < box.right && t > box.top && b < box.bottom &&
          taken.every((other) => r < other[0] || l > other[2] || b < other[1] || t > other[3]);
      });
      if (!place) { text.remove(); continue; }
      const [cx, cy] = place;
      text.setAttribute("x", cx);
      text.setAttribute("y", cy + 4);
      taken.push([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]);
    }
  }

  function hover(box, find) {
    const {svg, plot} = box;
    const show = (event) => {
      const bounds = svg.getBoundingClientRect(), scale = box.width / bounds.width;
      const found = find((event.clientX - bounds.left) * scale, (event.clientY - bounds.top) * scale);
      tooltip(plot, ...(found ? [found[0] / scale, found[1] / scale, found[2]] : [0, 0, ""]));
    };
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", () => tooltip(plot, 0, 0, ""));
  }

  function legend(figure, style, spec) {
    const list = figure.querySelector(".legend");
    list.replaceChildren();
    const entry = (text, draw) => {
      const item = list.appendChild(document.createElement("li"));
      draw(add(item, "svg", {viewBox: "-12 -8 24 16", width: 24, height: 16, "aria-hidden": "true"}));
      item.append(text);
      return item;
    };
    for (const [name, look] of style) {
      const drawn = spec.series.find((s) => s.name === name);
      const item = entry(name, (svg) => {
        if (drawn.style !== "points") add(svg, "path", {d: "M-12 0H12", stroke: look.color, "stroke-width": 1.8, "stroke-dasharray": look.dash});
        if (drawn.style !== "line") marker(svg, look);
      });
      const mark = (on) => figure.querySelectorAll(".series").forEach((g) => g.classList.toggle("dim", on && g.dataset.name !== name));
      item.addEventListener("pointerenter", () => mark(true));
      item.addEventListener("pointerleave", () => mark(false));
    }
    if (spec.level) entry(spec.level[1], (svg) => add(svg, "path", {d: "M-12 0H12", class: "level"}));
    if (spec.band) entry(spec.band[2], (svg) => add(svg, "rect", {x: -12, y: -6, width: 24, height: 12, class: "band"}));
  }

  // Units upwards, steps to the right: what was frozen, below it the validation score and the policy's signal.
  function map(figure, spec) {
    const rows = spec.units.length, row = Math.max(7, Math.min(16, 260 / rows));
    const has = {curve: spec.validation.length > 1, heat: spec.heat.length > 0};
    const curve = rows * row + 22, heat = curve + (has.curve ? 92 : 0);
    const box = frame(figure, heat + (has.heat ? rows * row + 20 : 0) + 34, 88, 26);
    const {svg} = box;
    const x = horizontal(box, 0, spec.steps, true);
    const names = (top) => {
      const every = Math.ceil(14 / row);
      spec.units.forEach((unit, i) => {
        if (i && i < rows - 1 && ((i - 1) % every || (rows - 1 - i) * row < 14 || i * row < 14)) return;
        add(svg, "text", {x: box.left - 6, y: top + (rows - i - 0.5) * row + 4, "text-anchor": "end", class: "tick"}, unit);
      });
    };
    names(box.top);
    add(svg, "rect", {x: box.left, y: box.top, width: box.right - box.left, height: rows * row, class: "trained"});
    for (const [unit, begin, end] of spec.spans) {
      add(svg, "rect", {x: x(begin), y: box.top + (rows - unit - 1) * row + 0.5, width: x(end) - x(begin), height: row - 1, class: "frozen"});
    }
    if (has.curve) {
      const scores = spec.validation.map((p) => p[1]), low = Math.min(...scores), high = Math.max(...scores);
      const y = (value) => curve + 70 - ((value - low) / (high - low || 1)) * 52;
      const ends = high - low > 1e-9 ? [low, high] : [low];
      for (const end of ends) add(svg, "text", {x: box.left - 6, y: y(end) + 4, "text-anchor": "end", class: "tick"}, end.toFixed(1));
      add(svg, "text", {x: box.left, y: curve + 8, class: "tick"}, "validation macro F1 (points)");
      add(svg, "path", {d: spec.validation.map((p, i) => `${i ? "L" : "M"}${x(p[0])} ${y(p[1])}`).join(""), fill: "none", stroke: "var(--c1)", "stroke-width": 1.8});
      for (const p of spec.validation) add(svg, "circle", {cx: x(p[0]), cy: y(p[1]), r: 2.5, fill: "var(--c1)"});
    }
    if (has.heat) {
      add(svg, "text", {x: box.left, y: heat + 8, class: "tick"}, `${spec.signal}: ${short(spec.range[0])} to ${short(spec.range[1])}`);
      names(heat + 14);
      spec.heat.forEach(([step, values], i) => {
        const begin = i ? spec.heat[i - 1][0] : 0;
        values.forEach((value, unit) => value !== null && add(svg, "rect", {
          x: x(begin), y: heat + 14 + (rows - unit - 1) * row, width: Math.max(1, x(step) - x(begin)), height: row, fill: "var(--c0)", "fill-opacity": 0.08 + 0.92 * value,
        }));
      });
    }
    hover(box, (px, py) => {
      const step = ((px - box.left) / (box.right - box.left)) * spec.steps;
      if (step < 0 || step > spec.steps) return null;
      const held = spec.changes.filter((c) => c[0] <= step).pop();
      const measured = spec.validation.filter((p) => p[0] <= step).pop();
      if (!held) return null;
      return [px, py, `step ${Math.round(step)}: ${held[1]}\nsince step ${held[0]}: ${held[2]}${measured ? `\nmacro F1 ${measured[1].toFixed(1)} at step ${measured[0]}` : ""}`];
    });
  }

  function draw(figure) {
    const spec = specs[figure.dataset.figure];
    if (figure.querySelector(".plot").clientWidth) (spec.units ? map : chart)(figure, spec);
  }

  const seen = new ResizeObserver((entries) => entries.forEach((entry) => {
    const figure = entry.target.closest("figure");
    const width = Math.floor(entry.contentRect.width);
    if (width && figure.dataset.width !== String(width)) {
      figure.dataset.width = width;
      draw(figure);
    }
  }));
  document.querySelectorAll("figure .plot").forEach((plot) => seen.observe(plot));
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
})();
