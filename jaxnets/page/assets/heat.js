"use strict";
// Arrays as pictures: one square for each number, blue below 0, orange above.

const CURVE = 0.6; // Small numbers would be invisible: strength = |v / largest| ** CURVE.

/** The place of each number of an array in its picture: tiles of H x W, side by side. */
function layoutOf(shape) {
  if (shape.length === 1) return vectorLayout(shape[0]);
  if (shape.length === 3) { // An image: a tile for each channel.
    const [height, width, channels] = shape;
    return tiles(height, width, channels, (i, j, k) => (i * width + j) * channels + k);
  }
  if (shape.length === 4) { // A kernel on images: a row of tiles for each input channel.
    const [height, width, inputs, outputs] = shape, at = (i, j, c, k) => ((i * width + j) * inputs + c) * outputs + k;
    if (inputs === 3 && outputs * width > 800) { // Too wide: an output's three tiles are side by side.
      const columns = 3 * Math.ceil(tileColumns(height, width, 3 * outputs) / 3);
      return tiles(height, width, 3 * outputs, (i, j, n) => at(i, j, n % 3, Math.floor(n / 3)), columns);
    }
    const columns = inputs === 1 ? tileColumns(height, width, outputs) : outputs;
    return tiles(height, width, inputs * outputs, (i, j, n) => at(i, j, Math.floor(n / outputs), n % outputs), columns);
  }
  const [inputs, outputs] = shape; // A dense kernel.
  return tiles(outputs, inputs, 1, (k, d) => d * outputs + k); // Wide rather than tall.
}

function vectorLayout(size) {
  const columns = size <= 20 ? size : 32;
  return tiles(Math.ceil(size / columns), Math.min(size, columns), 1, (i, j) => {
    const at = i * columns + j;
    return at < size ? at : -1;
  });
}

/** The number of tiles in a row that makes the picture about 2.4 times as wide as high. */
function tileColumns(height, width, number) {
  const wanted = Math.min(number, Math.max(1, Math.ceil(Math.sqrt((number * 2.4 * height) / width))));
  for (const move of [0, -1, 1, -2, 2, -3, 3, -4, 4]) { // No row is left half empty.
    if (wanted + move > 1 && number % (wanted + move) === 0) return wanted + move;
  }
  return wanted;
}

function tiles(height, width, number, indexOf, columns = tileColumns(height, width, number)) {
  const rows = Math.ceil(number / columns), gap = number > 1 ? 1 : 0;
  const out = {
    width: columns * (width + gap) - gap,
    height: rows * (height + gap) - gap,
    indexAt(x, y) {
      const k = Math.floor(y / (height + gap)) * columns + Math.floor(x / (width + gap));
      const i = y % (height + gap), j = x % (width + gap);
      return k < number && i < height && j < width ? indexOf(i, j, k) : -1;
    },
  };
  out.cells = new Int32Array(out.width * out.height); // -1: a line between tiles, -2: nothing.
  for (let at = 0; at < out.cells.length; at++) {
    const x = at % out.width, y = Math.floor(at / out.width);
    const tile = Math.floor(y / (height + gap)) * columns + Math.floor(x / (width + gap));
    out.cells[at] = tile < number ? out.indexAt(x, y) : -2;
  }
  return out;
}

/** The colours of 511 strengths from -1 to 1, each as one number of 32 bits. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const [zero, below, above, line] = ["card", "c1", "c2", "line"].map((name) =>
    style.getPropertyValue(`--${name}`).match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16)));
  const pack = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r;
  const table = new Int32Array(511);
  for (let n = -255; n <= 255; n++) {
    const strength = Math.abs(n / 255) ** CURVE, end = n < 0 ? below : above;
    table[n + 255] = pack(zero.map((value, c) => Math.round(value + (end[c] - value) * strength)));
  }
  return { table, line: pack(line) };
}

let colours = null;

/** Draws an array into a canvas of the layout's size; returns its largest absolute value. */
function paintHeat(canvas, layout, values) {
  colours ??= palette();
  let largest = 0;
  for (let n = 0; n < values.length; n++) {
    const size = values[n] < 0 ? -values[n] : values[n];
    if (size > largest) largest = size;
  }
  const context = canvas.getContext("2d"), { cells } = layout, { table, line } = colours;
  const image = context.createImageData(layout.width, layout.height), pixels = new Int32Array(image.data.buffer);
  const scale = largest > 0 ? 255 / largest : 0;
  for (let at = 0; at < cells.length; at++) {
    pixels[at] = cells[at] < 0 ? (cells[at] === -1 ? line : 0) : table[(values[cells[at]] * scale + 255.5) | 0];
  }
  context.putImageData(image, 0, 0);
  return largest;
}

/**
 * Numbers of red, green and blue in colour: an image [h, w, 3] from 0 to 1, or the tiles of a kernel
 * [h, w, 3, K], whose 0 is grey. Nothing in it can be chosen. It has draw(values) and caption().
 */
function colourMap({ shape: [height, width, , outputs = 0], title }) {
  const step = outputs || 1, layout = tiles(height, width, step, (i, j, k) => (i * width + j) * 3 * step + k);
  const canvas = element("canvas", { width: layout.width, height: layout.height, role: "img" });
  const caption = element("figcaption");
  const map = { element: element("figure", { className: "heat colour" }, canvas, caption) };
  canvas.style.width = `${layout.width * Math.max(1, Math.min(10, Math.floor(260 / layout.width)))}px`;
  map.caption = () => {
    caption.textContent = title();
    canvas.setAttribute("aria-label", title());
  };
  map.draw = (values) => {
    const context = canvas.getContext("2d"), image = context.createImageData(layout.width, layout.height);
    const largest = outputs ? values.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-12) : 1;
    layout.cells.forEach((at, n) => {
      if (at < 0) return; // Between tiles the card's colour shows.
      for (let c = 0; c < 3; c++) {
        const value = values[at + c * step] / largest;
        image.data[4 * n + c] = 255 * (outputs ? (value + 1) / 2 : value);
      }
      image.data[4 * n + 3] = 255;
    });
    context.putImageData(image, 0, 0);
  };
  return map;
}

/**
 * A heat map with its caption.
 *
 * `shape` is the array's, `drawn` the shape in which it is drawn: a row of numbers may be an image's.
 * `choose(index)` is called when a square is chosen; `name(index)` gives its name. The map has
 * draw(values) and mark(index).
 */
function heatMap({ shape, drawn = shape, title, name, choose }) {
  const layout = layoutOf(drawn);
  const canvas = element("canvas", { width: layout.width, height: layout.height, tabindex: 0, role: "application" });
  const size = Math.max(1, Math.min(14, Math.floor(520 / layout.width)));
  canvas.style.width = `${layout.width * size}px`;
  if (layout.height * size < 100) canvas.style.height = `${Math.min(100, layout.height * 14)}px`; // To be hit.
  const marker = element("i", { className: "marker" });
  const caption = element("figcaption"), frame = element("div", { className: "frame" }, canvas, marker);
  const map = { element: element("figure", { className: "heat" }, frame, caption), canvas };
  let values = null, place = null, largest = 0, enter = false;
  marker.hidden = true;

  const describe = (x, y) => {
    const index = layout.indexAt(x, y);
    return index < 0 ? "" : `${name(index)} = ${digits(values[index])}`;
  };
  map.caption = () => {
    const size = shape.join(" × ");
    caption.textContent = say(values ? "captionUpTo" : "caption", { title: title(), size, value: digits(largest) });
    canvas.setAttribute("aria-label", say("keys", { caption: caption.textContent }));
  };
  map.draw = (given) => {
    values = given;
    largest = paintHeat(canvas, layout, values);
    map.caption();
  };
  map.mark = (index) => {
    place = null;
    const at = index === null ? -1 : layout.cells.indexOf(index);
    if (at >= 0) place = [at % layout.width, Math.floor(at / layout.width)];
    marker.hidden = place === null;
    if (place) {
      const percent = (part, whole) => `${(100 * part) / whole}%`;
      marker.style.left = percent(place[0], layout.width);
      marker.style.top = percent(place[1], layout.height);
      marker.style.width = percent(1, layout.width);
      marker.style.height = percent(1, layout.height);
    }
  };
  const pixelAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const within = (part, whole) => Math.max(0, Math.min(whole - 1, Math.floor(part * whole)));
    return [
      within((event.clientX - box.left) / box.width, layout.width),
      within((event.clientY - box.top) / box.height, layout.height),
    ];
  };
  const take = (x, y) => {
    const index = layout.indexAt(x, y);
    if (index < 0 || !values) return;
    map.mark(index);
    byId("live").textContent = describe(x, y);
    choose(index, enter);
  };
  canvas.addEventListener("click", (event) => take(...pixelAt(event)));
  canvas.addEventListener("pointermove", (event) => {
    if (values && event.pointerType === "mouse") caption.textContent = describe(...pixelAt(event)) || caption.textContent;
  });
  canvas.addEventListener("pointerleave", () => map.caption());
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Enter: [0, 0], " ": [0, 0] };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    let [x, y] = place ?? [0, 0];
    if (place) {
      do { // Steps over the lines between tiles.
        x += move[0];
        y += move[1];
      } while (x >= 0 && y >= 0 && x < layout.width && y < layout.height && layout.indexAt(x, y) < 0);
    }
    if (x < 0 || y < 0 || x >= layout.width || y >= layout.height) return;
    enter = event.key === "Enter" || event.key === " ";
    take(x, y);
    enter = false;
  });
  map.caption();
  return map;
}
