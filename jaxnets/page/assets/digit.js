"use strict";
// Converts a drawing or a photo of a character to MNIST's format: predict/digit.py in JavaScript.
//
// The functions have the names of Python's and, where it matters, its order of steps: the pictures
// differ by one grey level at most. A picture is grey, {width, height, data: bytes}.

const BOX = 20, SIDE = 28, WORK = 512, FINE = 8;
const THICKEST = 1 / 3, UNEVEN = 0.02, MIN_CONTRAST = 0.06, MIN_OVER_NOISE = 4, FAINT = 0.25;
const TIE = 1e-4, PEN = 2, MIN_PART = 0.05, PIECE = 1 / 24, CROSSES = 0.6, THIN = 0.02;

/**
 * The ink in MNIST's format, 28 x 28 bytes, white on black; null if there is none.
 *
 * `ruled` is false if the paper surely has no lines: then it does not look for them, which takes a third
 * of the time.
 */
function toDigit(grey, ruled = true) {
  const { image, light } = lightOnDark(grey);
  if (isMnistLike(image)) return Uint8ClampedArray.from(image.data);
  const ink = findInk(image, light, ruled);
  if (ink === null) return null;
  const { parts, sizes } = partsOf(ink), largest = sizes.reduce((a, b) => Math.max(a, b), 0);
  const character = mapped(ink, (_, at) => (parts[at] && sizes[parts[at]] >= MIN_PART * largest ? 1 : 0));
  return toFormat(ink, character);
}

/** The picture with light ink, as bytes, and the light on its paper, from 0 to 1. */
function lightOnDark(grey) {
  const step = Math.max(1, Math.floor(Math.min(grey.width, grey.height) / 128));
  const few = toFloats(reduced(grey, step));
  const light = lightOnPaper(few);
  const dark = !isLightOnDark(few, light);
  const image = mapped(grey, (value) => (dark ? 255 - value : value));
  const lit = mapped(light, (value) => (dark ? 1 - value : value));
  return { image, light: resized(lit, grey.width, grey.height) };
}

function toFloats(image) {
  return mapped(image, (value) => value / 255);
}

/** The paper's light: a quadratic surface fitted to the frame with the least absolute deviations. */
function lightOnPaper({ width, height, data }) {
  const place = (n, size) => (size === 1 ? -1 : -1 + (2 * n) / (size - 1));
  const x = Float64Array.from({ length: width }, (_, j) => place(j, width));
  const y = Float64Array.from({ length: height }, (_, i) => place(i, height));
  const terms = (at) => {
    const u = x[at % width], v = y[Math.floor(at / width)];
    return [1, u, v, u * u, u * v, v * v];
  };
  const frame = [], out = picture(width, height);
  let seen = 0;
  for (let i = 0, at = 0; i < height; i++) {
    for (let j = 0; j < width; j++, at++) {
      if ((Math.abs(x[j]) > 0.8 || Math.abs(y[i]) > 0.8) && seen++ % 4 === 0) frame.push(at);
    }
  }
  if (frame.every((at) => data[at] === data[frame[0]])) { // Blank paper, as in a drawing.
    out.data.fill(data[frame[0]]);
    return out;
  }
  const targets = Float64Array.from(frame, (at) => data[at]), inputs = Float64Array.from(frame.flatMap(terms));
  const { coefficients, errors } = leastDeviations(inputs, targets);
  if (median(errors) > UNEVEN) {
    out.data.fill(median(targets));
    return out;
  }
  for (let at = 0; at < out.data.length; at++) {
    const row = terms(at);
    let sum = 0;
    for (let n = 0; n < 6; n++) sum += row[n] * coefficients[n];
    out.data[at] = sum;
  }
  return out;
}

/** Ten rounds of reweighted least squares; inputs has six terms for each target. */
function leastDeviations(inputs, targets) {
  const weights = new Float64Array(targets.length).fill(1), errors = new Float64Array(targets.length);
  let coefficients = [];
  for (let round = 0; round < 10; round++) {
    const squares = Array.from({ length: 6 }, () => new Float64Array(7)); // The last column: products.
    for (let p = 0; p < targets.length; p++) {
      for (let i = 0; i < 6; i++) {
        const factor = weights[p] * inputs[6 * p + i], row = squares[i];
        for (let j = 0; j < 6; j++) row[j] += factor * inputs[6 * p + j];
        row[6] += factor * targets[p];
      }
    }
    coefficients = solved(squares);
    for (let p = 0; p < targets.length; p++) {
      let sum = 0;
      for (let i = 0; i < 6; i++) sum += inputs[6 * p + i] * coefficients[i];
      errors[p] = Math.abs(targets[p] - sum);
      weights[p] = 1 / Math.max(errors[p], 0.01);
    }
  }
  return { coefficients, errors };
}

/** Solves equations, each row with its right side last, by Gauss' elimination. */
function solved(rows) {
  const count = rows.length;
  for (let n = 0; n < count; n++) {
    let pivot = n;
    for (let m = n + 1; m < count; m++) if (Math.abs(rows[m][n]) > Math.abs(rows[pivot][n])) pivot = m;
    [rows[n], rows[pivot]] = [rows[pivot], rows[n]];
    for (let m = 0; m < count; m++) {
      if (m === n || Math.abs(rows[n][n]) < 1e-9) continue;
      const factor = rows[m][n] / rows[n][n];
      for (let k = n; k <= count; k++) rows[m][k] -= factor * rows[n][k];
    }
  }
  return rows.map((row, n) => (Math.abs(row[n]) < 1e-9 ? 0 : row[count] / row[n]));
}

/** Whether the ink is lighter than the paper: by the largest differences, and by the thin parts. */
function isLightOnDark(grey, light) {
  let cubes = 0, sizes = 0, above = 0, below = 0;
  for (let at = 0; at < grey.data.length; at++) {
    const cube = (grey.data[at] - light.data[at]) ** 3;
    cubes += cube;
    sizes += Math.abs(cube);
  }
  const large = cubes / Math.max(sizes, 1e-9);
  if (large < -1 + 1e-7) return false; // All are darker: the thin parts, at most 1, cannot outweigh it.
  for (let size = 3; size <= Math.min(grey.width, grey.height) * THICKEST; size *= 2) {
    const opened = opening(grey, size, size).data, closed = closing(grey, size, size).data;
    let up = 0, down = 0;
    for (let at = 0; at < opened.length; at++) {
      up += (grey.data[at] - opened[at]) ** 2;
      down += (grey.data[at] - closed[at]) ** 2;
    }
    above += up / size;
    below += down / size;
  }
  return large + (above - below) / Math.max(above + below, 1e-9) > 0;
}

/** Whether the ink already fills the box and has its centre of mass in the middle. */
function isMnistLike(image) {
  if (image.width !== SIDE || image.height !== SIDE) return false;
  const ink = toFloats(image);
  if (!exceeds(ink, 0.5)) return false;
  const cut = cropped(ink), box = Math.max(cut.width, cut.height);
  const off = Math.max(...centreOfMass(ink).map((at) => Math.abs(at - SIDE / 2)));
  return Math.abs(box - BOX) <= 2 && off <= 1;
}

/** How much ink each pixel has, from 0 to 1; null if there is none. The ink is light. */
function findInk(image, light, ruled) {
  const { width, height } = image, shorter = Math.min(width, height), longer = Math.max(width, height);
  const smooth = gaussian(toFloats(image), Math.min(1, longer / WORK)), rise = smooth.data;
  for (let at = 0; at < rise.length; at++) rise[at] -= light.data[at];
  const wide = Math.max(3, roundHalfEven(shorter * THICKEST)), base = opening(smooth, wide, wide).data;
  let least = Infinity, most = -Infinity;
  for (let at = 0; at < rise.length; at++) {
    rise[at] -= base[at];
    if (rise[at] < least) least = rise[at];
    if (rise[at] > most) most = rise[at];
  }
  if (most - least < MIN_CONTRAST) return null;
  const threshold = otsu(rise, least, most), below = new Float32Array(rise.length), above = below.slice();
  let low = 0, high = 0;
  for (let at = 0; at < rise.length; at++) {
    if (rise[at] > threshold) above[high++] = rise[at];
    else below[low++] = rise[at];
  }
  const inkLevel = median(above.subarray(0, high)), paperLevel = median(below.subarray(0, low));
  for (let at = 0; at < low; at++) below[at] = Math.abs(below[at] - paperLevel);
  const noise = 1.48 * median(below.subarray(0, low));
  if (inkLevel - paperLevel < Math.max(MIN_CONTRAST, MIN_OVER_NOISE * noise)) return null;
  const none = (threshold + paperLevel) / 2;
  const ink = mapped(smooth, (value) => Math.min(1, Math.max(0, (value - none) / (inkLevel - none))));
  if (ruled) {
    const rules = rulesOnPaper(mapped(ink, (value) => (value > FAINT ? 1 : 0))).data;
    for (let at = 0; at < rules.length; at++) if (rules[at]) ink.data[at] = 0;
  }
  return exceeds(ink, 0.5) ? ink : null;
}

/** The threshold between two classes of values with the least variance within them. Otsu 1979. */
function otsu(values, least, most) {
  const bins = 256, step = Math.fround((most - least) / bins), edges = new Float32Array(bins + 1);
  for (let n = 0; n < bins; n++) edges[n] = Math.fround(n * step) + least;
  edges[bins] = most;
  const counts = new Float64Array(bins);
  for (let at = 0; at < values.length; at++) {
    const value = values[at];
    let bin = Math.min(bins - 1, Math.floor(((value - least) / (most - least)) * bins));
    if (value < edges[bin]) bin--;
    else if (bin < bins - 1 && value >= edges[bin + 1]) bin++;
    counts[bin]++;
  }
  const level = (n) => Math.fround(edges[n] + edges[n + 1]) / 2;
  const all = values.length, sum = counts.reduce((total, count, n) => total + count * level(n), 0);
  let below = 0, total = 0, best = -1, found = 0;
  for (let n = 0; n < bins - 1; n++) {
    below += counts[n];
    total += counts[n] * level(n);
    const between = below * (all - below) * (total / below - (sum - total) / (all - below)) ** 2;
    if (between > best) {
      best = between;
      found = edges[n + 1];
    }
  }
  return found;
}

/** Connected parts of the ink and the pixels of each; parts that cross the frame have the count 0. */
function partsOf(ink) {
  const { width, height } = ink;
  const { parts, count } = connectedParts(mapped(ink, (value) => (value > 0.5 ? 1 : 0)));
  const sizes = new Float64Array(count + 1);
  for (let at = 0; at < parts.length; at++) if (parts[at]) sizes[parts[at]]++;
  const inner = sizes.slice();
  for (let at = 0; at < parts.length; at++) {
    const x = at % width;
    if (x === 0 || x === width - 1 || at < width || at >= width * (height - 1)) inner[parts[at]] = 0;
  }
  const sum = inner.reduce((a, b) => a + b, 0), largest = sizes.reduce((a, b) => Math.max(a, b), 0);
  return { parts, sizes: sum > largest / 4 ? inner : sizes }; // Else the writing crosses the frame.
}

/** The character's ink in MNIST's format. */
function toFormat(ink, character) {
  const near = dilation(character, 5, 5, 0).data;
  const own = cropped(mapped(ink, (value, at) => value * near[at]));
  let fine = fitted(own, FINE * BOX);
  if (!exceeds(fine, 0.5)) { // Its strokes may be thinner than these pixels.
    const size = Math.floor(Math.max(own.width, own.height) / (FINE * BOX)) + 1;
    fine = fitted(dilation(own, size, size), FINE * BOX);
  }
  return centred(fitted(cropped(thickened(fine)), BOX));
}

/** Cuts out the rectangle around the ink. */
function cropped({ width, height, data }) {
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (data[at] <= 0.5) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  const out = picture(right - left + 1, bottom - top + 1);
  for (let y = 0; y < out.height; y++) {
    const from = (top + y) * width + left;
    out.data.set(data.subarray(from, from + out.width), y * out.width);
  }
  return out;
}

/** Scales the longer side to `side` pixels. */
function fitted(ink, side) {
  const scale = side / Math.max(ink.width, ink.height);
  const [width, height] = [ink.width, ink.height].map((size) => Math.max(1, roundHalfEven(size * scale)));
  return mapped(resized(ink, width, height), (value) => Math.min(1, Math.max(0, value)));
}

/** Widens strokes that are thinner than PEN. */
function thickened(ink) {
  const mask = padded(mapped(ink, (value) => (value > 0.5 ? 1 : 0)), 1);
  let sum = 0, count = 0;
  for (const distance of distances(mask)) {
    if (distance > 0) {
      sum += distance;
      count++;
    }
  }
  const width = 4 * (sum / count - 0.5); // In a stroke of width w the mean distance to the edge is w / 4.
  const radius = (PEN * FINE - width) / 2;
  return radius < 0.5 ? ink : discDilation(padded(ink, Math.ceil(radius)), radius);
}

function padded({ width, height, data }, margin) {
  const out = picture(width + 2 * margin, height + 2 * margin);
  for (let y = 0; y < height; y++) {
    out.data.set(data.subarray(y * width, (y + 1) * width), (y + margin) * out.width + margin);
  }
  return out;
}

/** Places the ink in 28 x 28 bytes, with its centre of mass in the middle if it fits. */
function centred(ink) {
  const [down, right] = centreOfMass(ink);
  const place = (middle, size) => Math.min(Math.max(roundHalfEven(SIDE / 2 - middle - TIE), 0), SIDE - size);
  const top = place(down, ink.height), left = place(right, ink.width);
  const out = new Uint8ClampedArray(SIDE * SIDE);
  ink.data.forEach((value, at) => {
    const x = at % ink.width, y = (at - x) / ink.width;
    out[(top + y) * SIDE + left + x] = roundHalfEven(255 * value);
  });
  return out;
}

/** The ink that belongs to ruled or squared paper: two or more lines that cross the picture. */
function rulesOnPaper(ink) {
  const across = rulesAcross(ink);
  const rest = mapped(ink, (value, at) => (value && !across.data[at] ? 1 : 0));
  const down = transposed(rulesAcross(transposed(rest)));
  return mapped(across, (value, at) => (value || down.data[at] ? 1 : 0));
}

function rulesAcross(ink) {
  const { width, height } = ink, rules = picture(width, height);
  const piece = Math.max(3, roundHalfEven(PIECE * width));
  const pieces = opening(ink, 1, piece);
  if (!exceeds(pieces, 0)) return rules;
  const { parts, count } = connectedParts(closing(pieces, 3, 3 * piece));
  const boxes = Array.from({ length: count + 1 }, () => ({ left: width, right: -1, top: height, bottom: -1 }));
  for (let at = 0; at < parts.length; at++) {
    if (!parts[at]) continue;
    const box = boxes[parts[at]], x = at % width, y = (at - x) / width;
    box.left = Math.min(box.left, x);
    box.right = Math.max(box.right, x);
    box.top = Math.min(box.top, y);
    box.bottom = Math.max(box.bottom, y);
  }
  let found = 0;
  for (let part = 1; part <= count; part++) {
    const { left, right, top, bottom } = boxes[part];
    if (right - left + 1 < CROSSES * width) continue;
    const heights = [];
    for (let x = left; x <= right; x++) {
      let tall = 0;
      for (let y = top; y <= bottom; y++) tall += pieces.data[y * width + x] && parts[y * width + x] === part ? 1 : 0;
      if (tall) heights.push(tall);
    }
    const thickness = Math.floor(median(heights));
    if (!(thickness <= THIN * width)) continue;
    const from = Math.max(0, top - thickness - 3), to = Math.min(height, bottom + 1 + thickness + 3);
    const cut = (image) => {
      const out = picture(right - left + 1, to - from);
      for (let y = from; y < to; y++) {
        out.data.set(image.data.subarray(y * width + left, y * width + right + 1), (y - from) * out.width);
      }
      return out;
    };
    const strokes = opening(cut(ink), thickness + 3, 1, 0).data, wide = dilation(cut(pieces), 3, 3);
    wide.data.forEach((value, at) => {
      const x = at % wide.width, y = (at - x) / wide.width;
      if (value && !strokes[at]) rules.data[(from + y) * width + left + x] = 1;
    });
    found++;
  }
  return found > 1 ? rules : picture(width, height);
}
