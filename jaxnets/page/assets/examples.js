"use strict";
// Examples to look at: drawn characters, or the run's own pictures, which the page also trains with.

let ownPictures = null; // The bytes of the run's own pictures, one after the other, once they are unpacked.

/** The bytes of a text in base64, of gzip. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackPictures() {
  ownPictures ??= await unpacked(PRACTICE.images);
}

function ownPicture(index) {
  const size = product(RUN.imageShape);
  return ownPictures.slice(index * size, (index + 1) * size);
}

/** The run's own picture of each class: the last one, because the first of all is the doubtful one. */
function ownExamples() {
  return RUN.classNames.map((_, label) => ({ index: PRACTICE?.labels.lastIndexOf(label) ?? -1, label })).filter(({ index }) => index >= 0);
}

/** Puts one of the run's own on the paper; the network is least sure about the first one. */
async function showOwn(index = 0) {
  await unpackPictures();
  layPicture(ownPicture(index), PRACTICE.labels[index]);
  seeDrawing(performance.now(), true);
}

function initExamples() {
  const chooser = byId("example"), add = (value, text) => chooser.append(element("option", { value, text }));
  chooser.append(element("option", { value: "", "data-key": "choose" }));
  if (PRACTICE) chooser.append(element("option", { value: "own 0", "data-key": "doubtful" }));
  if (RUN.asDigits) RUN.classNames.filter((name) => name in EXAMPLES).forEach((name) => add(name, name));
  else ownExamples().forEach(({ index, label }) => add(`own ${index}`, RUN.classNames[label]));
  chooser.parentElement.hidden = chooser.length === 1;
  if (PRACTICE && !RUN.asDigits) unpackPictures();
  chooser.addEventListener("change", () => {
    const { value } = chooser;
    if (value.startsWith("own ")) showOwn(Number(value.slice(4)));
    else if (value) {
      drawExample(value);
      seeDrawing(performance.now());
    }
  });
}
