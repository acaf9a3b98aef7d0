// Where the model looked for each word: small copies of a photograph, dark where it did not look. Drawn when a user opens
// them. Knows the maps of the service's answers, and neither the service nor the page around.

const DARKEST = 0.8; // how opaque the cover of what was not looked at is
const LARGEST = 320; // pixels of a copy's longer side: sharp on a phone's screen too
const PLACES = [
  ["at the top left", "at the top", "at the top right"],
  ["on the left", "in the middle", "on the right"],
  ["at the bottom left", "at the bottom", "at the bottom right"],
];

const element = (name, settings) => Object.assign(document.createElement(name), settings);

/** Returns the part of a photograph that a map covers, in shares of its sides: all of it, less (crop) or more (letterbox). */
function partSeen(photograph, { resize, size: [height, width] }) {
  if (resize === "squash") return { x: 0, y: 0, width: 1, height: 1 };
  const wider = width / height / (photograph.width / photograph.height);
  const most = resize === "crop" ? Math.min : Math.max;
  const part = { width: most(1, wider), height: most(1, 1 / wider) };
  return { x: (1 - part.width) / 2, y: (1 - part.height) / 2, ...part };
}

/** Returns how much the model looked at a place of a map, from its cells around; nothing outside of it. */
function lookedAt(rows, across, down) {
  if (Math.min(across, down) < 0 || Math.max(across, down) > 1) return 0;
  const between = (share, count) => Math.min(Math.max(share * count - 0.5, 0), count - 1);
  const [y, x] = [between(down, rows.length), between(across, rows[0].length)];
  const [top, left] = [Math.floor(y), Math.floor(x)];
  const mix = (first, second, share) => first + ((second ?? first) - first) * share;
  const inRow = (row) => row && mix(row[left], row[left + 1], x - left);
  return mix(inRow(rows[top]), inRow(rows[top + 1]), y - top);
}

/** Returns a cover for a photograph of this size: black, and the more opaque the less the model looked. */
function coverOf(rows, part, { width, height }) {
  const most = Math.max(...rows.flat(), 1e-9);
  const pixels = new ImageData(width, height);
  for (let y = 0; y < height; y += 1) {
    const down = ((y + 0.5) / height - part.y) / part.height;
    for (let x = 0; x < width; x += 1) {
      const across = ((x + 0.5) / width - part.x) / part.width;
      pixels.data[4 * (y * width + x) + 3] = 255 * DARKEST * (1 - lookedAt(rows, across, down) / most);
    }
  }
  const cover = element("canvas", { width, height });
  cover.getContext("2d").putImageData(pixels, 0, 0);
  return cover;
}

/** Returns in words where in the photograph the model looked most, for those who cannot see the copy. */
function placeOf(rows, part) {
  const most = Math.max(...rows.flat());
  const row = rows.findIndex((each) => each.includes(most));
  const third = (index, count, start, size) => Math.floor(3 * (start + ((index + 0.5) / count) * size));
  const inside = (value) => Math.min(2, Math.max(0, value)); // a letterbox has more above and below, or beside
  const down = inside(third(row, rows.length, part.y, part.height));
  return PLACES[down][inside(third(rows[row].indexOf(most), rows[row].length, part.x, part.width))];
}

/** Returns the photograph at an address as a small canvas. */
async function smallCopy(address) {
  const photograph = element("img", { src: address });
  await photograph.decode();
  const { naturalWidth, naturalHeight } = photograph;
  const scale = Math.min(1, LARGEST / Math.max(naturalWidth, naturalHeight));
  const [width, height] = [naturalWidth, naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
  const copy = element("canvas", { width, height });
  const context = copy.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(photograph, 0, 0, width, height);
  return copy;
}

function itemOf({ word, map }, photograph, part) {
  const copy = element("canvas", { width: photograph.width, height: photograph.height });
  copy.setAttribute("role", "img");
  copy.setAttribute("aria-label", `${word}: it looked most ${placeOf(map, part)}`);
  const context = copy.getContext("2d");
  context.drawImage(photograph, 0, 0);
  context.drawImage(coverOf(map, part, photograph), 0, 0);
  const shown = element("span", { textContent: word, className: "small" });
  shown.setAttribute("aria-hidden", "true"); // the picture's label has it
  const item = element("li");
  item.append(copy, shown);
  return item;
}

async function itemsOf(address, looked, view) {
  try {
    const photograph = await smallCopy(address);
    return looked.map((each) => itemOf(each, photograph, partSeen(photograph, view)));
  } catch {
    return [element("li", { textContent: "This browser cannot show the photograph.", className: "quiet small" })];
  }
}

/**
 * Lets a user open where the model looked, in a <details> with a list.
 *
 * looked: the attention of a caption, null for none. view: how the model sees photographs, as {resize, size}.
 */
export function offerAttention(fold, address, looked, view) {
  const list = fold.querySelector("ul");
  list.replaceChildren();
  fold.hidden = !looked?.length;
  let begun = false;
  const draw = async () => {
    if (begun || fold.hidden || !fold.open) return;
    begun = true;
    const items = await itemsOf(address, looked, view);
    if (fold.ontoggle === draw) list.replaceChildren(...items); // not if the next caption has come
  };
  fold.ontoggle = draw;
  draw(); // it may be open from the caption before
}
