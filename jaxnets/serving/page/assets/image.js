"use strict";
// Pictures as {width, height, data}: filters, connected parts, distances, resizing.
//
// Each function gives the numbers of the one in SciPy's ndimage or in Pillow that it is named after.

function picture(width, height, data = new Float32Array(width * height)) {
  return { width, height, data };
}

/** The index inside 0 .. size - 1 where a mirrored picture repeats: d c b a | a b c d | d c b a. */
function reflected(index, size) {
  while (index < 0 || index >= size) index = index < 0 ? -1 - index : 2 * size - 1 - index;
  return index;
}

/**
 * The largest (sign 1) or smallest (-1) of each window of `size` pixels along one axis, which begins
 * `before` pixels before its own. Outside, the picture is mirrored, or has the value `outside`.
 * Source: van Herk 1992, "A fast algorithm for local minimum and maximum filters": three comparisons
 * a pixel, however large the window.
 */
function slidingExtremum({ width, height, data }, axis, size, before, sign, outside = null) {
  if (size === 1) return picture(width, height, data.slice());
  const out = picture(width, height), across = axis === 1;
  const count = across ? width : height, lines = across ? height : width, step = across ? 1 : width;
  const length = count + size - 1;
  const padded = new Float32Array(length), prefix = new Float32Array(length), suffix = new Float32Array(length);
  const source = new Int32Array(length);
  for (let n = 0; n < length; n++) {
    const at = n - before, inside = at >= 0 && at < count;
    source[n] = inside || outside === null ? reflected(at, count) * step : -1;
  }
  for (let line = 0; line < lines; line++) {
    const start = across ? line * width : line;
    for (let n = 0; n < length; n++) padded[n] = sign * (source[n] < 0 ? outside : data[start + source[n]]);
    for (let n = 0; n < length; n++) {
      const value = padded[n];
      prefix[n] = n % size === 0 || value > prefix[n - 1] ? value : prefix[n - 1];
    }
    for (let n = length - 1; n >= 0; n--) {
      const value = padded[n];
      suffix[n] = n === length - 1 || (n + 1) % size === 0 || value > suffix[n + 1] ? value : suffix[n + 1];
    }
    for (let n = 0, at = start; n < count; n++, at += step) {
      const a = suffix[n], b = prefix[n + size - 1];
      out.data[at] = sign * (a > b ? a : b);
    }
  }
  return out;
}

/** ndimage.grey_erosion with a window of rows x columns. */
function erosion(image, rows, columns, outside = null) {
  const half = (size) => Math.floor(size / 2);
  return slidingExtremum(
    slidingExtremum(image, 0, rows, half(rows), -1, outside), 1, columns, half(columns), -1, outside);
}

/** ndimage.grey_dilation with a window of rows x columns: that of the erosion, mirrored. */
function dilation(image, rows, columns, outside = null) {
  const half = (size) => Math.floor((size - 1) / 2);
  return slidingExtremum(
    slidingExtremum(image, 0, rows, half(rows), 1, outside), 1, columns, half(columns), 1, outside);
}

/** ndimage.grey_opening: nothing is left of what is narrower than the window. */
function opening(image, rows, columns, outside = null) {
  return dilation(erosion(image, rows, columns, outside), rows, columns, outside);
}

/** ndimage.grey_closing. */
function closing(image, rows, columns) {
  return erosion(dilation(image, rows, columns), rows, columns);
}

/** ndimage.grey_dilation with a disc, around which the picture holds only zeros. */
function discDilation({ width, height, data }, radius) {
  const out = picture(width, height), reach = Math.ceil(radius);
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      if (dx * dx + dy * dy > radius * radius) continue;
      for (let y = Math.max(0, -dy); y < Math.min(height, height - dy); y++) {
        const from = (y + dy) * width + dx, to = y * width;
        for (let x = Math.max(0, -dx); x < Math.min(width, width - dx); x++) {
          if (data[from + x] > out.data[to + x]) out.data[to + x] = data[from + x];
        }
      }
    }
  }
  return out;
}

/** ndimage.gaussian_filter. */
function gaussian(image, sigma) {
  const reach = Math.floor(4 * sigma + 0.5), weights = [];
  for (let n = -reach; n <= reach; n++) weights.push(Math.exp((-0.5 * n * n) / (sigma * sigma)));
  const sum = weights.reduce((a, b) => a + b, 0);
  const along = ({ width, height, data }, step, count) => {
    const out = picture(width, height);
    for (let at = 0; at < data.length; at++) {
      const place = step === 1 ? at % width : Math.floor(at / width);
      let total = 0;
      for (let n = -reach; n <= reach; n++) {
        const there = place + n >= 0 && place + n < count ? place + n : reflected(place + n, count);
        total += weights[n + reach] * data[at + (there - place) * step];
      }
      out.data[at] = total / sum;
    }
    return out;
  };
  return along(along(image, image.width, image.height), 1, image.width);
}

/** ndimage.label with eight neighbours: each pixel's part, from 1 in reading order, and their number. */
function connectedParts({ width, height, data }) {
  const parts = new Int32Array(data.length), stack = [];
  let count = 0;
  for (let start = 0; start < data.length; start++) {
    if (!data[start] || parts[start]) continue;
    parts[start] = ++count;
    stack.push(start);
    while (stack.length) {
      const at = stack.pop(), x = at % width, y = (at - x) / width;
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const next = v * width + u;
          if (data[next] && !parts[next]) {
            parts[next] = count;
            stack.push(next);
          }
        }
      }
    }
  }
  return { parts, count };
}

/**
 * ndimage.distance_transform_edt: each pixel's distance to the nearest one that is 0.
 * Source: Felzenszwalb and Huttenlocher 2012, "Distance transforms of sampled functions".
 */
function distances({ width, height, data }) {
  const far = 1e12, squares = Float64Array.from(data, (value) => (value ? far : 0));
  const size = Math.max(width, height);
  const f = new Float64Array(size), v = new Int32Array(size), z = new Float64Array(size + 1);
  const along = (start, step, count) => {
    for (let n = 0; n < count; n++) f[n] = squares[start + n * step];
    let k = 0;
    v[0] = 0;
    z[0] = -Infinity;
    z[1] = Infinity;
    for (let q = 1; q < count; q++) {
      const meet = () => (f[q] + q * q - f[v[k]] - v[k] * v[k]) / (2 * (q - v[k]));
      let s = meet();
      while (s <= z[k]) {
        k--;
        s = meet();
      }
      v[++k] = q;
      z[k] = s;
      z[k + 1] = Infinity;
    }
    k = 0;
    for (let q = 0; q < count; q++) {
      while (z[k + 1] < q) k++;
      squares[start + q * step] = (q - v[k]) ** 2 + f[v[k]];
    }
  };
  for (let x = 0; x < width; x++) along(x, width, height);
  for (let y = 0; y < height; y++) along(y * width, 1, width);
  return squares.map(Math.sqrt);
}

/** Image.reduce of bytes: the mean of each box of step x step pixels. */
function reduced({ width, height, data }, step) {
  const out = picture(Math.ceil(width / step), Math.ceil(height / step));
  for (let y = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++) {
      const right = Math.min(width, (x + 1) * step), bottom = Math.min(height, (y + 1) * step);
      const count = (right - x * step) * (bottom - y * step);
      let sum = 0;
      for (let v = y * step; v < bottom; v++) for (let u = x * step; u < right; u++) sum += data[v * width + u];
      out.data[y * out.width + x] = Math.floor((sum + Math.floor(count / 2)) / count);
    }
  }
  return out;
}

/** Image.resize with BICUBIC of real numbers: antialiased where it shrinks. */
function resized(image, width, height) {
  return resizedAlong(resizedAlong(image, width, 1), height, 0);
}

function resizedAlong(image, size, axis) {
  const across = axis === 1, count = across ? image.width : image.height;
  if (size === count) return image;
  const scale = count / size, spread = Math.max(scale, 1), support = 2 * spread;
  const out = across ? picture(size, image.height) : picture(image.width, size);
  const step = across ? 1 : image.width, outStep = across ? 1 : out.width;
  const lines = across ? image.height : image.width;
  for (let n = 0; n < size; n++) {
    const centre = (n + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(count, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let m = first; m < last; m++) weights.push(bicubic((m - centre + 0.5) / spread));
    const sum = weights.reduce((a, b) => a + b, 0);
    for (let line = 0; line < lines; line++) {
      const start = (across ? line * image.width : line) + first * step;
      let total = 0;
      for (let m = 0; m < weights.length; m++) total += (weights[m] / sum) * image.data[start + m * step];
      out.data[(across ? line * out.width : line) + n * outStep] = total;
    }
  }
  return out;
}

/** Keys 1981, "Cubic convolution interpolation", with a = -1/2. */
function bicubic(x) {
  const a = -0.5, t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

/** ndimage.center_of_mass: row and column. */
function centreOfMass({ width, data }) {
  let mass = 0, down = 0, right = 0;
  data.forEach((value, at) => {
    const column = at % width;
    mass += value;
    right += value * column;
    down += (value * (at - column)) / width;
  });
  return [down / mass, right / mass];
}

/** Python's round: a half goes to the even neighbour. */
function roundHalfEven(value) {
  const below = Math.floor(value), rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** numpy.median. */
function median(values) {
  const sorted = Float64Array.from(values).sort(), half = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
