// The page of the captioning service: takes photographs, has each captioned and writes the words as they come. Knows the
// service's answers and nothing about models.

import { offerAttention } from "./attention.js";
import { announce, toast } from "./news.js";
import { clearSearch, offerSearch } from "./search.js";
import { Problem, ask, request, useToken } from "./service.js";

const PARALLEL = 4; // photographs under way at once: browsers open six connections to a host
const ATTEMPTS = 8; // tries before the refusal of a busy service is shown as an error
const WHAT = {
  greedy: "Takes the likeliest word at each step: the fastest way.",
  beam: "Continues several sentences and keeps the best: slower, usually better.",
  sample: "Draws words at random: a low temperature prefers likely words, a seed makes it repeatable.",
};

const find = (selector, root = document) => root.querySelector(selector);
const options = find("#options");
const cards = new Set();
let view = null; // how the model sees photographs, if it tells where it looked
let known = null; // a promise: the service was asked for its model

// ---- turns

let free = PARALLEL;
const line = [];

/** Runs work when fewer than PARALLEL others run. */
async function inTurn(work) {
  if (free > 0) free -= 1;
  else await new Promise((go) => line.push(go));
  try {
    return await work();
  } finally {
    const next = line.shift();
    if (next) next();
    else free += 1;
  }
}

// ---- numbers in words

const percent = (share) => `${Math.round(share * 100)}%`;
const ms = (value) => (value < 9.95 ? value.toFixed(1) : value.toFixed(0));

function timesOf(timings) {
  if (!timings) return "";
  const { queued, encoding, decoding } = timings;
  const parts = `queue ${ms(queued)}, encoder ${ms(encoding)}, decoder ${ms(decoding)}`;
  return ` · ${ms(queued + encoding + decoding)} ms (${parts})`;
}

function optionsText(query) {
  const said = { greedy: "Greedy", beam: `Beam ${query.get("beam_size")}`, sample: "Sample" };
  const names = [...query.keys()].filter((name) => !["decoding", "style", "beam_size", "num_hypotheses", "num_samples"].includes(name));
  return [said[query.get("decoding")], ...names.map((name) => `${name.replaceAll("_", " ")} ${query.get(name)}`)].join(", ");
}

/** Returns what is wrong with a number that the browser cannot read, and would send as none; "" where all is well. */
function faultOfOptions() {
  const junk = [...options.querySelectorAll("input[type=number]:enabled")].find((input) => input.validity.badInput);
  const kind = junk?.step === "1" ? "whole number" : "number";
  return junk ? `${junk.labels[0].textContent} is not a ${kind}: write one, or leave it empty.` : "";
}

function queryOfOptions() {
  const query = new URLSearchParams([...new FormData(options)].filter(([, value]) => value !== ""));
  if (query.has("beam_size")) query.set("num_hypotheses", query.get("beam_size")); // what grew is shown
  return query;
}

// ---- a photograph and its caption

class Card {
  constructor(photo) {
    this.photo = photo;
    this.item = find("#card").content.firstElementChild.cloneNode(true);
    this.article = this.at("article");
    this.name = photo.name || "photograph";
    this.at("h3").textContent = this.name;
    this.article.setAttribute("aria-label", this.name);
    const image = this.at("img");
    image.alt = `Photograph ${this.name}`;
    image.src = this.address = URL.createObjectURL(photo);
    image.addEventListener("error", () => image.replaceWith("No preview"));
    const deeds = { cancel: () => this.cancel(), again: () => this.run(), copy: () => this.copy(), remove: () => this.remove() };
    for (const [name, deed] of Object.entries(deeds)) {
      const button = this.at(`.${name}`);
      button.setAttribute("aria-label", `${button.textContent} ${this.name}`);
      button.addEventListener("click", deed);
    }
  }

  at(selector) {
    return find(selector, this.item);
  }

  /** Captions the photograph with the options as they stand; a run under way is given up. */
  async run() {
    this.job?.abort();
    const job = (this.job = new AbortController());
    const query = queryOfOptions();
    this.refused = false;
    this.show("waiting", "Waiting for its turn");
    try {
      const fault = faultOfOptions();
      if (fault) throw new Problem({ title: "An option cannot be read", detail: fault });
      const told = await this.answer(query, job.signal);
      if (this.job === job) this.finish(told, query);
    } catch (problem) {
      if (this.job === job) this.fail(problem);
    }
  }

  async answer(query, signal) {
    for (let attempt = 1; ; attempt += 1) {
      await known;
      const asked = new URLSearchParams(view ? [...query, ["attention", "true"]] : query);
      try {
        return await inTurn(() => {
          signal.throwIfAborted();
          this.show("running", "Looking at the photograph");
          return ask(this.photo, asked, signal, (word) => this.job.signal === signal && this.write(word));
        });
      } catch (problem) {
        if (problem.type === "urn:captioning:attention" && attempt < ATTEMPTS) {
          known = showModel(); // another one since
          continue;
        }
        const wait = problem.retryAfter ?? (problem.status === 429 ? 2 ** attempt : 0);
        if (attempt === ATTEMPTS || !wait) throw problem;
        for (let left = wait; left > 0; left -= 1) {
          this.show("waiting", `${problem.title}: trying again in ${left} s`);
          await new Promise((done) => setTimeout(done, 1000));
          signal.throwIfAborted();
        }
      }
    }
  }

  /** Puts the card into a state, without anything that an earlier one had written. */
  show(state, status) {
    const running = state === "running" || state === "waiting";
    this.article.dataset.state = state;
    this.article.setAttribute("aria-busy", String(running));
    this.at(".caption").replaceChildren();
    this.at(".caption").classList.toggle("writing", state === "running");
    this.at(".status").textContent = status;
    for (const part of [".sure", ".fault", ".others", ".looked"]) this.at(part).hidden = true;
    const held = document.activeElement;
    this.at(".cancel").hidden = !running;
    this.at(".again").hidden = running;
    this.at(".copy").hidden = state !== "done" || !navigator.clipboard;
    // a hidden button drops the focus: the one that took its place gets it
    if (this.item.contains(held) && !held.checkVisibility()) this.at(running ? ".cancel" : ".again").focus();
  }

  write(word) {
    const words = this.at(".caption");
    if (words.firstChild) words.append(" ");
    words.append(Object.assign(document.createElement("span"), { textContent: word }));
    this.at(".status").textContent = "Writing";
  }

  finish(told, query) {
    const end = told.finished === false ? " · cut off at its greatest length" : "";
    this.show("done", `${optionsText(query)}${timesOf(told.timings_ms)}${end}`);
    this.at(".caption").textContent = told.caption;
    if (told.confidence !== null) {
      this.at(".sure").hidden = false;
      this.at(".sure meter").value = told.confidence;
      this.at(".sure meter").setAttribute("aria-label", `Confidence in ${told.caption}`);
      this.at(".sure .figure").textContent = percent(told.confidence);
    }
    const others = told.alternatives.filter((other) => other.caption !== told.caption);
    this.at(".others").hidden = others.length === 0;
    this.at(".others summary").textContent = others.length === 1 ? "1 alternative" : `${others.length} alternatives`;
    this.at(".others ol").replaceChildren(...others.map(alternativeItem));
    offerAttention(this.at(".looked"), this.address, told.attention, view);
    const sure = told.confidence === null ? "" : ` Confidence ${percent(told.confidence)}.`;
    announce(`${this.name}: ${told.caption}${sure}`);
  }

  fail(problem) {
    this.show("failed", "");
    this.at(".fault").hidden = false;
    this.at(".fault strong").textContent = problem.title;
    this.at(".fault .detail").textContent = problem.detail ?? "";
    this.at(".fault .id").textContent = problem.id ? `Request ${problem.id}` : "";
    announce(`${this.name}: ${problem.message}`);
    this.refused = problem.status === 401;
    if (this.refused) askForToken(problem);
  }

  cancel() {
    this.job.abort();
    this.job = null;
    this.show("cancelled", "Cancelled");
    announce(`${this.name}: cancelled`);
  }

  async copy() {
    const copied = navigator.clipboard.writeText(this.at(".caption").textContent);
    toast(await copied.then(() => "Copied.", () => "The browser did not allow copying."));
  }

  remove() {
    this.job?.abort();
    this.job = null;
    URL.revokeObjectURL(this.address);
    const neighbour = this.item.nextElementSibling ?? this.item.previousElementSibling;
    const held = this.item.contains(document.activeElement);
    this.item.remove();
    cards.delete(this);
    showCount();
    if (held) find(neighbour ? ".remove" : "#pick", neighbour ?? document).focus();
  }
}

function alternativeItem({ caption, confidence, log_prob: logProb }) {
  const item = document.createElement("li");
  const figure = Object.assign(document.createElement("span"), { className: "figure small" });
  item.append(caption, " ");
  if (confidence === null) {
    item.className = "bare";
    figure.textContent = logProb === null ? "" : `log p ${logProb.toFixed(2).replace("-", "−")}`;
  } else {
    const bar = Object.assign(document.createElement("meter"), { min: 0, max: 1, value: confidence });
    bar.setAttribute("aria-label", `Confidence in ${caption}`);
    item.append(bar, " ");
    figure.textContent = percent(confidence);
  }
  item.append(figure);
  return item;
}

// ---- photographs come in

function showCount() {
  find("#empty").hidden = cards.size > 0;
  find("#all").hidden = cards.size === 0;
}

function add(files) {
  clearSearch();
  const added = [...files].map((file) => new Card(file));
  for (const card of added) cards.add(card);
  find("#cards").prepend(...added.map((card) => card.item));
  showCount();
  for (const card of added) card.run();
}

for (const input of [find("#files"), find("#capture")]) {
  input.addEventListener("change", () => {
    add(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
}
find("#pick").addEventListener("click", () => find("#files").click());

document.addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files.length) add(clipboardData.files);
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.toggle("dropping", event.dataTransfer.types.includes("Files"));
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const files = items.filter((item) => !item.webkitGetAsEntry()?.isDirectory).map((item) => item.getAsFile());
  if (files.length) add(files);
  else toast(items.length ? "Drop photographs, not folders." : "Only files can be dropped: save the picture first.");
});

// ---- the camera

const camera = find("#camera");
let lens = null;

function closeLens() {
  for (const track of lens?.getTracks() ?? []) track.stop();
  lens = find("#view").srcObject = null;
}

async function openCamera() {
  const fault = find("#camera-fault");
  fault.hidden = true;
  find("#take").disabled = true;
  camera.showModal();
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
    lens = opened;
    if (!camera.open) return closeLens(); // closed while the browser asked for leave
    find("#view").srcObject = lens;
  } catch (error) {
    const why = { NotAllowedError: "This page may not use the camera: allow it in the browser's settings.", NotFoundError: "There is no camera." };
    fault.textContent = why[error.name] ?? "The camera does not start: another program may use it.";
    fault.hidden = false;
  }
}

find("#view").addEventListener("playing", () => (find("#take").disabled = false));
find("#take").addEventListener("click", () => {
  const view = find("#view");
  const canvas = Object.assign(document.createElement("canvas"), { width: view.videoWidth, height: view.videoHeight });
  canvas.getContext("2d").drawImage(view, 0, 0);
  const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
  canvas.toBlob((blob) => add([new File([blob], `camera ${time}.jpg`, { type: blob.type })]), "image/jpeg", 0.92);
  camera.close();
});
find("#camera-close").addEventListener("click", () => camera.close());
camera.addEventListener("close", closeLens);

const phone = matchMedia("(hover: none) and (pointer: coarse)").matches; // its own camera program beats a video in a dialog
find("#shoot").hidden = !phone && !navigator.mediaDevices;
find("#shoot").addEventListener("click", () => (phone ? find("#capture").click() : openCamera()));

// ---- options

function showOptions() {
  const chosen = new FormData(options).get("decoding");
  for (const part of options.querySelectorAll("[data-for]")) part.hidden = part.disabled = part.dataset.for !== chosen;
  for (const output of options.querySelectorAll("output")) output.value = find(`#${output.htmlFor}`).value;
  find("#options-what").textContent = WHAT[chosen];
  const fault = faultOfOptions();
  if (find("#options-fault").textContent !== fault) find("#options-fault").textContent = fault; // said once
  find("#options-fault").hidden = !fault;
  find("#options-short").textContent = optionsText(queryOfOptions());
}

options.addEventListener("input", showOptions);
options.addEventListener("submit", (event) => {
  event.preventDefault();
  for (const card of cards) card.run();
});
find("#remove-all").addEventListener("click", () => {
  for (const card of cards) card.remove();
  find("#pick").focus();
});
find("#options-fold").open = matchMedia("(min-width: 56.01rem)").matches;
showOptions();

// ---- the token, and which model answers

function askForToken(problem) {
  find("#token-why").textContent = problem.message;
  if (!find("#token-form").hidden) return;
  find("#token-form").hidden = false;
  if (document.activeElement === document.body) find("#token").focus();
}

find("#token").addEventListener("input", ({ target }) => {
  const fits = /^[!-~]*$/.test(target.value.trim());
  target.setCustomValidity(fits ? "" : "A token may only have ASCII letters, digits and punctuation, and no spaces.");
});

find("#token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(find("#token").value.trim());
  find("#pick").focus();
  find("#token-form").hidden = true;
  known = showModel();
  for (const card of cards) if (card.refused) card.run();
});

async function showModel() {
  try {
    const model = await (await request("v1/model")).json();
    find("#model").textContent = [model.name, model.precision, model.provider].join(" · ");
    find("#model").hidden = false;
    find("#calibrated").hidden = !model.calibrated;
    offerSearch(model, askForToken);
    view = model.attention ? { resize: model.image_resize, size: model.image_size } : null;
    for (const [name, value] of Object.entries(model.defaults)) {
      const input = find(`#${name}`);
      if (input?.type === "range") input.defaultValue = value; // keeps what was set by hand
      else if (input?.type === "number") input.placeholder = value;
    }
    showOptions();
  } catch (problem) {
    if (problem.status === 401) askForToken(problem);
  }
}
known = showModel();
