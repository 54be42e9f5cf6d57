"use strict";
// Pictures as {width, height, data}: filters, connected parts, distances, resizing.
//
// Each function gives the same numbers as the function of SciPy's ndimage or Pillow that it is named after.

function picture(width, height, data = new Float32Array(width * height)) {
  return { width, height, data };
}

/**
 * The picture with a function of each number. A loop: `map` and `from` of typed arrays take ten times
 * as long (Chromium 156), and every stroke of the pen goes through a dozen of them.
 */
function mapped({ width, height, data }, change) {
  const out = picture(width, height), result = out.data;
  for (let at = 0; at < data.length; at++) result[at] = change(data[at], at);
  return out;
}

/** Whether any number is above a threshold. */
function exceeds({ data }, threshold) {
  for (let at = 0; at < data.length; at++) if (data[at] > threshold) return true;
  return false;
}

/** The index inside 0 .. size - 1 where a mirrored picture repeats: d c b a | a b c d | d c b a. */
function reflected(index, size) {
  while (index < 0 || index >= size) index = index < 0 ? -1 - index : 2 * size - 1 - index;
  return index;
}

/**
 * The largest of each window of `size` pixels of a row, which begins `before` pixels before its own.
 * Outside, the row is mirrored, or has the value `outside`.
 *
 * Source: van Herk 1992, "A fast algorithm for local minimum and maximum filters": three comparisons
 * a pixel, however large the window. The window touches two blocks of `size` pixels; the result is the
 * larger one of their maxima inside it.
 */
function slidingMaximum({ width, height, data }, size, before, outside) {
  const out = picture(width, height), length = width + size - 1;
  const row = new Float32Array(length), ahead = new Float32Array(length), behind = new Float32Array(length);
  for (let start = 0; start < data.length; start += width) {
    fillRow(row, data, start, width, before, outside);
    for (let first = 0; first < length; first += size) {
      fillBlock(row, ahead, behind, first, Math.min(first + size, length) - 1);
    }
    for (let n = 0; n < width; n++) {
      const a = behind[n], b = ahead[n + size - 1];
      out.data[start + n] = a > b ? a : b;
    }
  }
  return out;
}

/** A row with the values outside of it on both sides. */
function fillRow(row, data, start, width, before, outside) {
  for (let n = 0; n < width; n++) row[before + n] = data[start + n];
  const beyond = (n) => (outside === null ? data[start + reflected(n - before, width)] : outside);
  for (let n = 0; n < before; n++) row[n] = beyond(n);
  for (let n = before + width; n < row.length; n++) row[n] = beyond(n);
}

/** The largest number of a block up to each pixel, and from each pixel on. */
function fillBlock(row, ahead, behind, first, last) {
  let most = row[first];
  for (let n = first; n <= last; n++) {
    if (row[n] > most) most = row[n];
    ahead[n] = most;
  }
  most = row[last];
  for (let n = last; n >= first; n--) {
    if (row[n] > most) most = row[n];
    behind[n] = most;
  }
}

function negated(image) {
  const { data } = image;
  for (let at = 0; at < data.length; at++) data[at] = -data[at];
  return image;
}

function erodedRows(image, size, outside) {
  const opposite = negated(picture(image.width, image.height, image.data.slice()));
  return negated(slidingMaximum(opposite, size, Math.floor(size / 2), outside === null ? null : -outside));
}

function dilatedRows(image, size, outside) { // The window of the erosion, mirrored.
  return slidingMaximum(image, size, Math.floor((size - 1) / 2), outside);
}

function transposed({ width, height, data }) {
  const out = picture(height, width), result = out.data;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) result[x * height + y] = data[at];
  }
  return out;
}

/** Applies one function and then another to all rows and columns: windows are rectangles. */
function bothWays(image, rows, columns, first, second, outside) {
  const across = first(image, columns, outside);
  if (rows === 1) return second(across, columns, outside);
  const turned = second(first(transposed(across), rows, outside), rows, outside);
  return second(transposed(turned), columns, outside);
}

/** ndimage.grey_opening: removes what is narrower than the window of rows x columns. */
function opening(image, rows, columns, outside = null) {
  return bothWays(image, rows, columns, erodedRows, dilatedRows, outside);
}

/** ndimage.grey_closing. */
function closing(image, rows, columns) {
  return bothWays(image, rows, columns, dilatedRows, erodedRows, null);
}

/** ndimage.grey_dilation with a window of rows x columns. */
function dilation(image, rows, columns, outside = null) {
  return transposed(dilatedRows(transposed(dilatedRows(image, columns, outside)), rows, outside));
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
  const alongRows = ({ width, height, data }) => {
    const out = picture(width, height), row = new Float32Array(width + 2 * reach);
    for (let start = 0; start < data.length; start += width) {
      for (let n = 0; n < row.length; n++) {
        const at = n - reach;
        row[n] = data[start + (at >= 0 && at < width ? at : reflected(at, width))];
      }
      for (let x = 0; x < width; x++) {
        let total = 0;
        for (let n = 0; n < weights.length; n++) total += weights[n] * row[x + n];
        out.data[start + x] = total / sum;
      }
    }
    return out;
  };
  return alongRows(transposed(alongRows(transposed(image))));
}

/** ndimage.label with eight neighbours: each pixel's part, from 1 in reading order, and their number. */
function connectedParts({ width, height, data }) {
  const parts = new Int32Array(data.length), stack = new Int32Array(data.length);
  let count = 0;
  for (let start = 0; start < data.length; start++) {
    if (!data[start] || parts[start]) continue;
    parts[start] = ++count;
    stack[0] = start;
    let size = 1;
    while (size) {
      const at = stack[--size], x = at % width, y = (at - x) / width;
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const next = v * width + u;
          if (data[next] && !parts[next]) {
            parts[next] = count;
            stack[size++] = next;
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
  const squares = new Float64Array(data.length), far = 1e12;
  for (let at = 0; at < data.length; at++) squares[at] = data[at] ? far : 0;
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
  for (let at = 0; at < squares.length; at++) squares[at] = Math.sqrt(squares[at]);
  return squares;
}

/** Image.reduce of bytes: the mean of each box of step x step pixels. */
function reduced(image, step) {
  if (step === 1) return image;
  const { width, height, data } = image;
  const out = picture(Math.ceil(width / step), Math.ceil(height / step));
  for (let y = 0; y < out.height; y++) {
    for (let x = 0; x < out.width; x++) {
      const right = Math.min(width, (x + 1) * step), bottom = Math.min(height, (y + 1) * step);
      const count = (right - x * step) * (bottom - y * step);
      let sum = 0;
      for (let v = y * step; v < bottom; v++) {
        for (let u = x * step; u < right; u++) sum += data[v * width + u];
      }
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
    for (let m = 0; m < weights.length; m++) weights[m] /= sum;
    for (let line = 0; line < lines; line++) {
      const start = (across ? line * image.width : line) + first * step;
      let total = 0;
      for (let m = 0; m < weights.length; m++) total += weights[m] * image.data[start + m * step];
      out.data[(across ? line * out.width : line) + n * outStep] = total;
    }
  }
  return out;
}

const BITS = 22; // Of a weight's fraction, as in Pillow's Resample.c.

/**
 * ImageOps.fit of bytes with BILINEAR: the middle square, resized to `side` pixels, bilinear over all
 * the pixels that a new one covers. A picture has `channels` numbers a pixel.
 */
function toSquare({ width, height, channels, data }, side) {
  const edge = Math.min(width, height);
  const across = resampled(data, [height, width, channels], 1, (width - edge) / 2, edge, side);
  return resampled(across, [height, side, channels], 0, (height - edge) / 2, edge, side);
}

/** A part of one axis, from `from` on and `extent` long, resized to `size` bytes. */
function resampled(data, shape, axis, from, extent, size) {
  const count = shape[axis], before = axis ? shape[0] : 1, after = product(shape.slice(axis + 1));
  if (size === count && extent === count) return data;
  const out = new Uint8ClampedArray(before * size * after), scale = extent / size, spread = Math.max(scale, 1);
  for (let n = 0; n < size; n++) {
    const centre = from + (n + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - spread + 0.5)), last = Math.min(count, Math.trunc(centre + spread + 0.5));
    const weights = Array.from({ length: last - first }, (_, m) => Math.max(0, 1 - Math.abs((m + first - centre + 0.5) * (1 / spread))));
    const sum = weights.reduce((a, b) => a + b, 0), whole = weights.map((weight) => Math.trunc(0.5 + (weight / sum) * (1 << BITS)));
    for (let line = 0; line < before; line++) for (let a = 0; a < after; a++) {
      let total = 1 << (BITS - 1), at = (line * count + first) * after + a;
      for (let m = 0; m < whole.length; m++, at += after) total += whole[m] * data[at];
      out[(line * size + n) * after + a] = total >> BITS;
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
  for (let at = 0; at < data.length; at++) {
    const column = at % width;
    mass += data[at];
    right += data[at] * column;
    down += (data[at] * (at - column)) / width;
  }
  return [down / mass, right / mass];
}

/** Python's round: a half goes to the even neighbour. */
function roundHalfEven(value) {
  const below = Math.floor(value), rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/** numpy.median, in about two walks through the values. */
function median(values) {
  const all = values.slice(), half = all.length >> 1;
  const upper = selected(all, half);
  if (all.length % 2) return upper;
  let lower = -Infinity; // All smaller values are before it now.
  for (let n = 0; n < half; n++) if (all[n] > lower) lower = all[n];
  return (lower + upper) / 2;
}

/** The value at a place if all were sorted. Hoare 1961, "Algorithm 65: find". */
function selected(all, place) {
  let left = 0, right = all.length - 1;
  while (left < right) {
    const pivot = all[(left + right) >> 1];
    let i = left, j = right;
    while (i <= j) {
      while (all[i] < pivot) i++;
      while (all[j] > pivot) j--;
      if (i > j) break;
      const kept = all[i];
      all[i++] = all[j];
      all[j--] = kept;
    }
    if (place <= j) right = j;
    else if (place >= i) left = i;
    else break;
  }
  return all[place];
}
