// What the page says besides what it shows: to screen readers, and in a box that goes away.

const find = (selector) => document.querySelector(selector);

/** Tells a screen reader, politely and in full: the log keeps what others added in the same moment. */
export function announce(text) {
  const news = find("#news");
  news.append(Object.assign(document.createElement("p"), { textContent: text }));
  while (news.children.length > 20) news.firstChild.remove();
}

let toastTimer;
export function toast(text) {
  announce(text);
  const box = find("#toast");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (box.hidden = true), 5000);
}
