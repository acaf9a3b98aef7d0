// Photographs found by words or by likeness, in the index of the service. What is asked is in the address, as #q=WORDS or
// #like=NUMBER, so that it can be kept and Back leads to it. Knows the service's answers and nothing of the page's captions.

import { Grid } from "./grid.js";
import { request } from "./service.js";

const STEP = 24; // photographs that are shown at once: whole rows of 2, 3, 4 and 6
const MOST = 1000; // of an answer
const TITLE = document.title;

const find = (selector) => document.querySelector(selector);
const field = find("#query");
const grid = new Grid(find("#tiles"), (photo) => go({ like: photo.id }));
let model = null; // what the service says of itself, if it has an index
let refused = () => {}; // what to do where the token is missing
let job = null; // the search under way
let limit = STEP;
let moved = false; // whether a button was pressed that the next answer removes

/** Shows the search field if the service has an index. onRefused: called with the problem if it wants a token. */
export function offerSearch(described, onRefused) {
  const news = Boolean(model) !== Boolean(described.search);
  model = described.search ? described : null;
  refused = onRefused;
  find("#search").hidden = !model;
  if (news || asked()) follow();
}

/** Goes back to the captions, if a search is shown. */
export function clearSearch() {
  if (asked()) {
    history.pushState(null, "", location.pathname + location.search);
    follow();
  }
}

/** Returns what the address asks, {q} or {like}; null for nothing, or without an index. */
function asked() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [q, like] = [given.get("q")?.trim(), given.get("like")];
  if (!model) return null;
  if (q) return { q };
  return like ? { like } : null;
}

function go(question) {
  const before = location.hash;
  location.hash = new URLSearchParams(question);
  moved = "like" in question;
  if (location.hash === before) follow(); // no event tells of the same question again
}

async function follow() {
  job?.abort();
  const question = asked();
  document.body.classList.toggle("searching", Boolean(question));
  find("#found").hidden = find("#search-clear").hidden = !question;
  field.value = question?.q ?? "";
  document.title = question?.q ? `${question.q} · ${TITLE}` : TITLE;
  grid.clear();
  limit = STEP;
  if (!question) return;
  find("#found-title").textContent = question.q ? `Photographs of “${question.q}”` : "More like this";
  if (moved) {
    scrollTo(0, 0);
    find("#found-title").focus();
    moved = false;
  }
  await run(question);
}

/** Asks, and adds what is new to the grid. */
async function run(question) {
  const own = (job = new AbortController());
  const [section, said, fault, more] = ["#found", "#found-count", "#found-fault", "#found-more"].map(find);
  section.setAttribute("aria-busy", "true");
  said.textContent = "Searching";
  fault.hidden = more.hidden = true;
  try {
    if (question.like) await showLiked(question.like, own.signal);
    const path = question.q ? "v1/search" : "v1/similar";
    const query = question.q ? { q: question.q, limit } : { id: question.like, limit };
    const response = await request(`${path}?${new URLSearchParams(query)}`, { signal: own.signal });
    const { photos, left_out: leftOut } = await response.json();
    own.signal.throwIfAborted();
    grid.add(photos, model.similar);
    said.textContent = countText(find("#tiles").children.length, leftOut);
    more.hidden = photos.length < limit || limit >= MOST;
  } catch (problem) {
    if (own.signal.aborted) return;
    said.textContent = "";
    fault.textContent = problem.message;
    fault.hidden = false;
    if (problem.status === 401) refused(problem);
  }
  section.setAttribute("aria-busy", "false");
}

async function showLiked(id, signal) {
  const photo = await (await request(`v1/photos/${encodeURIComponent(id)}`, { signal })).json();
  signal.throwIfAborted();
  find("#found-title").textContent = `More like ${photo.name}: “${photo.caption}”`;
}

function countText(count, leftOut) {
  const number = (many) => `${many.toLocaleString("en")} ${many === 1 ? "photograph" : "photographs"}`;
  const found = count ? `${number(count)}${count > 1 ? ", the best first" : ""}.` : "No photograph was found: try other words.";
  const apart = leftOut === 1 ? "is" : "are";
  return leftOut ? `${found} ${number(leftOut)} of another model ${apart} not searched until indexed again.` : found;
}

find("#search").addEventListener("submit", (event) => {
  event.preventDefault();
  const q = field.value.trim();
  if (q) go({ q });
  else clearSearch();
});

find("#search-clear").addEventListener("click", () => {
  clearSearch();
  field.focus();
});

find("#found-more").addEventListener("click", async () => {
  const before = find("#tiles").children.length;
  limit = Math.min(limit + STEP, MOST);
  await run(asked());
  grid.focus(before);
});

field.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown" || !find("#tiles").children.length) return;
  event.preventDefault();
  grid.focus(0);
});

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (!model || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || find("dialog[open]")) return;
  if (key === "/" && !target.closest("input:not([type=radio], [type=range]), select, textarea")) {
    event.preventDefault();
    field.focus();
    field.select();
  } else if (key === "Escape" && (asked() || target === field)) {
    clearSearch();
    field.value = "";
    field.focus();
  }
});

addEventListener("hashchange", follow);
