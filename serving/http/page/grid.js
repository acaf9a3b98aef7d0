// A grid of photographs: small copies with captions, arrow keys between them, and each one large in a dialog. Knows the
// service's photographs, and nothing of how they were found.

import { request } from "./service.js";

const ATTEMPTS = 4; // tries before a busy service leaves a tile without its picture
const AHEAD = "50%"; // of the window, below and above it: tiles so near get their pictures

const find = (selector, root = document) => root.querySelector(selector);
const percent = (share) => `${Math.round(share * 100)}%`;
// the service does not read what follows "?": it keeps a browser from showing what had this number in an earlier index
const addressOf = ({ id, sha256 }, what) => `v1/photos/${id}/${what}?${sha256}`;

/** Returns a picture of the service as an address for <img>, which cannot send a token itself. */
async function pictureAt(path, signal) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const picture = await (await request(path, { signal })).blob();
      signal.throwIfAborted();
      return URL.createObjectURL(picture);
    } catch (problem) {
      if (!problem.retryAfter || attempt === ATTEMPTS) throw problem;
      await new Promise((done) => setTimeout(done, 1000 * problem.retryAfter));
      signal.throwIfAborted();
    }
  }
}

function nameOf({ name, copies }) {
  return copies > 1 ? `${name} and ${copies === 2 ? "a copy" : `${copies - 1} copies`}` : name;
}

/** Fills a list with tiles. onLike: called with a photograph when a user wants more like it. */
export class Grid {
  #list;
  #onLike;
  #tiles = new Map(); // by their items
  #left = new AbortController(); // what loads for the tiles that are there
  #viewer = find("#viewer");
  #opened = null; // what loads for the dialog
  #near = new IntersectionObserver((entries) => this.#load(entries), { rootMargin: AHEAD });

  constructor(list, onLike) {
    this.#list = list;
    this.#onLike = onLike;
    list.addEventListener("keydown", (event) => this.#move(event));
    find("#viewer-close").addEventListener("click", () => this.#viewer.close());
    find("#viewer-like").addEventListener("click", () => this.#like(this.#opened.photo));
    this.#viewer.addEventListener("close", () => this.#shut());
  }

  /** Removes all tiles. */
  clear() {
    this.#left.abort();
    this.#left = new AbortController();
    this.#near.disconnect();
    for (const { address } of this.#tiles.values()) URL.revokeObjectURL(address);
    this.#tiles.clear();
    this.#list.replaceChildren();
    if (this.#viewer.open) this.#viewer.close();
  }

  /** Adds the photographs that are not there yet, and returns how many. compares: whether there can be more like them. */
  add(photos, compares) {
    const there = new Set([...this.#tiles.values()].map(({ photo }) => photo.id));
    const added = photos.filter(({ id }) => !there.has(id)).map((photo) => this.#tileOf(photo, compares));
    this.#list.append(...added);
    for (const item of added) this.#near.observe(item);
    return added.length;
  }

  /** Moves the focus to a tile, by its place. */
  focus(place) {
    find(".open", this.#list.children[place])?.focus();
  }

  #tileOf(photo, compares) {
    const item = find("#tile").content.firstElementChild.cloneNode(true);
    find(".said", item).textContent = photo.caption;
    find(".name", item).textContent = nameOf(photo);
    find(".open", item).addEventListener("click", () => this.#open(item));
    const like = find(".like", item);
    like.hidden = !compares;
    like.setAttribute("aria-label", `More like ${photo.name}`);
    like.addEventListener("click", () => this.#like(photo));
    this.#tiles.set(item, { photo, compares, address: null });
    return item;
  }

  #load(entries) {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      this.#near.unobserve(target);
      this.#picture(target, this.#left.signal);
    }
  }

  async #picture(item, signal) {
    const tile = this.#tiles.get(item);
    try {
      tile.address = await pictureAt(addressOf(tile.photo, "thumbnail"), signal);
      find("img", item).src = tile.address;
    } catch (problem) {
      if (!signal.aborted) find(".frame", item).textContent = problem.status === 404 ? "The file is gone" : "No preview";
    }
  }

  #move(event) {
    const item = event.target.closest("li");
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    const items = [...this.#list.children];
    const columns = items.filter((each) => each.offsetTop === items[0].offsetTop).length;
    const place = items.indexOf(item);
    const last = items.length - 1;
    const places = {
      ArrowLeft: place - 1,
      ArrowRight: place + 1,
      ArrowUp: place - columns,
      ArrowDown: Math.floor(place / columns) < Math.floor(last / columns) ? Math.min(place + columns, last) : place,
      Home: 0,
      End: last,
    };
    const target = items[places[event.key]];
    if (!(event.key in places)) return;
    event.preventDefault(); // the window would scroll
    if (target) find(`.${event.target.classList[0]}`, target).focus();
  }

  #like(photo) {
    this.#viewer.close();
    this.#onLike(photo);
  }

  async #open(item) {
    const { photo, compares, address } = this.#tiles.get(item);
    const opened = (this.#opened = { photo, job: new AbortController(), address: null });
    const image = find("#viewer-image");
    if (address) image.src = address;
    image.alt = photo.caption;
    image.hidden = !address;
    find("#viewer-title").textContent = photo.caption;
    find("#viewer-name").textContent = nameOf(photo);
    find("#viewer-others").replaceChildren(...photo.alternatives.filter((each) => each.caption !== photo.caption).map(otherItem));
    find("#viewer-like").hidden = !compares;
    find("#viewer-file").hidden = true;
    find("#viewer-status").textContent = "Loading the photograph";
    this.#viewer.showModal();
    try {
      opened.address = await pictureAt(addressOf(photo, "file"), opened.job.signal);
      Object.assign(find("#viewer-file"), { href: opened.address, download: photo.name, hidden: false });
      const large = Object.assign(new Image(), { src: opened.address });
      const shows = await large.decode().then(() => true, () => false);
      if (this.#opened !== opened) return;
      if (shows) image.src = opened.address;
      if (shows) image.hidden = false;
      find("#viewer-status").textContent = shows ? "" : "This browser cannot show the file itself, only a small copy.";
    } catch (problem) {
      if (this.#opened === opened) find("#viewer-status").textContent = problem.message;
    }
  }

  #shut() {
    this.#opened?.job.abort();
    URL.revokeObjectURL(this.#opened?.address);
    this.#opened = null;
    find("#viewer-image").removeAttribute("src");
  }
}

function otherItem({ caption, confidence }) {
  const item = document.createElement("li");
  item.append(caption);
  const figure = Object.assign(document.createElement("span"), { className: "figure small" });
  figure.textContent = confidence === null ? "" : percent(confidence);
  item.append(figure);
  return item;
}
