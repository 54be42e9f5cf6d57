"use strict";
// The paper: mouse, touch, pen and keys draw on it; it may show a picture instead.

const PAPER = 280, PEN_WIDTH = 24, KEY_STEP = 8; // In the paper's own units.
const PIXELS = RUN.asDigits ? 140 : 280; // The side of the paper that the network reads: 140 are 5 for each pixel of a digit.
const LARGEST_PHOTO = 2048; // Pixels of a side; a larger picture is reduced by the browser first.
const inColour = RUN.imageShape[2] === 3;

// The strokes of each digit, in hundredths of the paper.
const EXAMPLES = {
  0: [[50, 15, 34, 22, 27, 38, 26, 54, 31, 73, 44, 84, 58, 83, 70, 70, 74, 50, 70, 30, 60, 18, 48, 15]],
  1: [[40, 29, 53, 15, 52, 50, 52, 85]],
  2: [[28, 33, 34, 20, 50, 15, 66, 22, 69, 36, 60, 52, 44, 67, 28, 83, 50, 82, 75, 82]],
  3: [[29, 21, 46, 14, 64, 20, 66, 34, 48, 47, 66, 56, 70, 70, 58, 83, 38, 85, 26, 76]],
  4: [[42, 15, 34, 36, 28, 56, 52, 57, 76, 55], [64, 34, 62, 60, 59, 88]],
  5: [[71, 16, 54, 16, 37, 17, 34, 32, 32, 46, 50, 42, 66, 49, 70, 66, 60, 81, 42, 85, 28, 77]],
  6: [[62, 14, 45, 29, 34, 50, 31, 70, 43, 85, 60, 83, 68, 69, 60, 56, 45, 57, 34, 69]],
  7: [[25, 19, 50, 19, 75, 18, 64, 38, 54, 60, 46, 86]],
  8: [[62, 22, 48, 14, 35, 22, 36, 36, 50, 48, 66, 62, 66, 78, 50, 86, 34, 78, 35, 62, 50, 48, 66, 36, 64, 22]],
  9: [[67, 30, 55, 44, 39, 43, 32, 29, 41, 16, 57, 16, 67, 29, 66, 52, 62, 70, 58, 87]],
};

let strokes = []; // Lists of [x, y, ...] on the paper.
let paperCopy = null;
let photo = null; // A picture instead: {width, height, channels, data}; one of the run's own has its class as `truth`.
const keyPen = { x: PAPER / 2, y: PAPER / 2, down: false };

/** The paper that is seen, and a smaller copy from which the network reads. */
function paperContexts() {
  paperCopy ??= smallPaper();
  return [byId("paper").getContext("2d"), paperCopy];
}

function smallPaper() {
  return element("canvas", { width: PIXELS, height: PIXELS }).getContext("2d", { willReadFrequently: true });
}

/** Makes a canvas white, ready for the pen. */
function wipe(context) {
  context.setTransform(context.canvas.width / PAPER, 0, 0, context.canvas.width / PAPER, 0, 0);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, PAPER, PAPER);
  context.strokeStyle = "#000";
  context.lineWidth = PEN_WIDTH;
  context.lineCap = context.lineJoin = "round";
}

function clearPaper() {
  strokes = [];
  layPhoto(null);
  paperContexts().forEach(wipe);
}

/** Puts a picture on the paper; a dark page does not invert it, as it inverts strokes. */
function layPhoto(picture) {
  photo = picture;
  byId("paper").classList.toggle("photo", photo !== null || inColour);
}

/** Draws the bytes of a picture of the network's size; black if there are none. */
function paintPixels(canvas, pixels) {
  const [height, width, channels] = RUN.imageShape;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let n = 0; n < width * height; n++) {
    for (let c = 0; c < 3; c++) image.data[4 * n + c] = pixels ? pixels[channels * n + (c % channels)] : 0;
    image.data[4 * n + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Puts a picture in the network's own format on the paper. */
function layPicture(pixels, truth) {
  const [height, width, channels] = RUN.imageShape, canvas = element("canvas", { width, height });
  paintPixels(canvas, pixels);
  clearPaper();
  layPhoto({ width, height, channels, data: pixels, truth });
  for (const context of paperContexts()) {
    context.imageSmoothingEnabled = false;
    context.drawImage(canvas, 0, 0, PAPER, PAPER);
    context.imageSmoothingEnabled = true;
  }
}

/** Draws the end of a stroke, from the point before last. */
function ink(stroke, contexts = paperContexts()) {
  const [x0, y0, x, y] = stroke.length > 2 ? stroke.slice(-4) : [...stroke, ...stroke];
  for (const context of contexts) {
    if (inColour) context.strokeStyle = byId("ink").value;
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x, y);
    context.stroke();
  }
}

/** The picture on the paper, in grey or in colour; null if the paper is empty. */
function onPaper() {
  if (photo) return photo;
  return strokes.length ? pictureOf(paperContexts()[1], PIXELS, PIXELS) : null;
}

/** A canvas' picture with the channels that the network reads. */
function pictureOf(context, width, height) {
  if (!inColour) return { ...greyOf(context, width, height), channels: 1 };
  const { data } = context.getImageData(0, 0, width, height), rgb = new Uint8Array(3 * width * height);
  for (let n = 0, at = 0; n < data.length; n += 4, at += 3) {
    rgb[at] = data[n];
    rgb[at + 1] = data[n + 1];
    rgb[at + 2] = data[n + 2];
  }
  return { width, height, channels: 3, data: rgb };
}

/**
 * Whether the paper may have ruled lines, which are at most 2 % of its width thick: a picture may have some.
 * The pen's strokes are thicker, except those that the frame cuts.
 */
function mayBeRuled() {
  const cut = (at) => at < PEN_WIDTH / 2 || at > PAPER - PEN_WIDTH / 2;
  return photo !== null || strokes.some((stroke) => stroke.some(cut));
}

/** The grey of a canvas, as Pillow's convert("L") computes it. */
function greyOf(context, width, height) {
  const { data } = context.getImageData(0, 0, width, height), grey = new Uint8Array(width * height);
  for (let n = 0; n < grey.length; n++) {
    grey[n] = (data[4 * n] * 19595 + data[4 * n + 1] * 38470 + data[4 * n + 2] * 7471 + 0x8000) >> 16;
  }
  return grey.length ? { width, height, data: grey } : null;
}

/** The points of a stroke on the paper, with round corners. */
function rounded(points) {
  const at = (n) => (points[n] * PAPER) / 100, stroke = [at(0), at(1)];
  for (let n = 2; n + 2 < points.length; n += 2) { // A curve from middle to middle.
    const from = stroke.slice(-2), to = [(at(n) + at(n + 2)) / 2, (at(n + 1) + at(n + 3)) / 2];
    for (let t = 0.125; t <= 1; t += 0.125) {
      for (const c of [0, 1]) stroke.push((1 - t) ** 2 * from[c] + 2 * t * (1 - t) * at(n + c) + t * t * to[c]);
    }
  }
  return [...stroke, at(points.length - 2), at(points.length - 1)];
}

/** Draws a character of EXAMPLES. */
function drawExample(name) {
  clearPaper();
  for (const points of EXAMPLES[name]) {
    const stroke = [];
    strokes.push(stroke);
    for (const [n, value] of rounded(points).entries()) {
      stroke.push(value);
      if (n % 2) ink(stroke);
    }
  }
}

/** Puts a file's picture on the paper: a character's at most 512 pixels wide and high, else its middle square. */
async function openPicture(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }); // As Pillow reads it.
  const scale = Math.min(1, (RUN.asDigits ? WORK : LARGEST_PHOTO) / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((size) => Math.max(1, Math.round(size * scale)));
  const canvas = element("canvas", { width, height }), context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // Behind transparent pixels.
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  clearPaper();
  layPhoto(pictureOf(context, width, height));
  const fit = PAPER / (RUN.asDigits ? Math.max(width, height) : Math.min(width, height));
  for (const paper of paperContexts()) {
    paper.drawImage(canvas, (PAPER - fit * width) / 2, (PAPER - fit * height) / 2, fit * width, fit * height);
  }
}

/** Lets the user draw; `changed(event time)` is called when the paper has changed. */
function initPaper(changed) {
  const paper = byId("paper");
  let stroke = null;
  const add = (x, y) => {
    stroke.push(x, y);
    ink(stroke);
  };
  const begin = (x, y) => {
    if (photo && inColour) layPhoto(null); // Users may paint over it.
    else if (photo) clearPaper();
    stroke = [];
    strokes.push(stroke);
    add(x, y);
  };
  const placeOf = (event) => {
    const box = paper.getBoundingClientRect();
    return [((event.clientX - box.left) * PAPER) / box.width, ((event.clientY - box.top) * PAPER) / box.height];
  };
  clearPaper();
  paper.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    paper.focus({ preventScroll: true });
    paper.setPointerCapture(event.pointerId);
    begin(...placeOf(event));
    changed(event.timeStamp);
  });
  paper.addEventListener("pointermove", (event) => {
    if (!stroke || !paper.hasPointerCapture(event.pointerId)) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) add(...placeOf(each));
    changed(event.timeStamp);
  });
  const end = () => { stroke = null; };
  paper.addEventListener("pointerup", end);
  paper.addEventListener("pointercancel", end);
  paper.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if ((!move && event.key !== " ") || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (move) {
      keyPen.x = Math.min(PAPER, Math.max(0, keyPen.x + KEY_STEP * move[0]));
      keyPen.y = Math.min(PAPER, Math.max(0, keyPen.y + KEY_STEP * move[1]));
    } else {
      keyPen.down = !keyPen.down;
      stroke = null;
      byId("live").textContent = say(keyPen.down ? "penDown" : "penUp");
    }
    showKeyPen();
    if (!keyPen.down) return;
    if (stroke) add(keyPen.x, keyPen.y);
    else begin(keyPen.x, keyPen.y);
    changed(event.timeStamp);
  });
  paper.addEventListener("blur", () => {
    keyPen.down = false;
    byId("pen").hidden = true;
  });
  byId("clear").addEventListener("click", (event) => {
    clearPaper();
    stroke = null;
    changed(event.timeStamp);
  });
  byId("ink").parentElement.hidden = !inColour;
  initPictures(async ([file]) => {
    try {
      await openPicture(file);
      byId("problem").textContent = "";
      changed(performance.now());
    } catch {
      byId("problem").textContent = say("badPicture");
    }
  });
}

/** Shows where the pen of the keys is. */
function showKeyPen() {
  const pen = byId("pen");
  pen.hidden = false;
  pen.classList.toggle("down", keyPen.down);
  pen.style.left = `${(100 * keyPen.x) / PAPER}%`;
  pen.style.top = `${(100 * keyPen.y) / PAPER}%`;
}
