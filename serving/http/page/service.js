// The service as the page's scripts ask it: the token, requests, problems, captions word by word. Its addresses are relative,
// so any prefix will do. Knows nothing of what is on the page.

let token = "";

/** Sends this token from now on. */
export function useToken(given) {
  token = given;
}

export class Problem extends Error {
  constructor(told, retryAfter = null) {
    super(told.detail || told.title);
    const { type, title, detail, status, request_id: id } = told;
    Object.assign(this, { type, title, detail, status, id, retryAfter });
  }
}

/** Returns the seconds that a Retry-After header names, at least one; null where there is none. */
function secondsOf(header) {
  if (header === null) return null;
  const seconds = Number.isFinite(+header) ? +header : (Date.parse(header) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? null : Math.max(1, Math.ceil(seconds));
}

async function problemOf(response) {
  const told = await response.json().catch(() => ({}));
  const title = `${response.status} ${response.statusText}`.trim();
  return new Problem({ title, ...told, status: response.status }, secondsOf(response.headers.get("Retry-After")));
}

/** Asks the service; every way to fail is a Problem but the caller's own abort. */
export async function request(path, settings = {}) {
  const headers = { ...settings.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { ...settings, headers });
  } catch (error) {
    settings.signal?.throwIfAborted();
    throw new Problem({ title: "No answer", detail: "The service could not be reached. Is it running?" });
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

/** Yields {event, data} for each event of a text/event-stream body, however its bytes are cut into chunks. */
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", event = "", data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return; // an event without its blank line is incomplete, and dropped
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/); // a last \r may be half of \r\n
    rest = lines.pop();
    for (const line of lines) {
      const [, field, content = ""] = /^([^:]*)(?:: ?(.*))?$/.exec(line);
      if (field === "event") event = content;
      else if (field === "data") data.push(content);
      else if (line === "") {
        if (data.length) yield { event, data: data.join("\n") };
        event = "";
        data = [];
      }
    }
  }
}

/** Returns the service's caption of a photograph; calls onWord with each word before. */
export async function ask(photo, query, signal, onWord) {
  const type = photo.type.startsWith("image/") ? photo.type : "application/octet-stream";
  const settings = { method: "POST", body: photo, headers: { "Content-Type": type }, signal };
  const response = await request(`v1/captions/stream?${query}`, settings);
  try {
    for await (const { event, data } of eventsOf(response.body)) {
      const told = JSON.parse(data);
      if (event === "word") onWord(told.word);
      if (event === "error" || told.error) throw new Problem(told.error ?? told);
      if (event === "caption") return told;
    }
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof Problem) throw error;
  }
  throw new Problem({ title: "The answer broke off", detail: "The connection ended before the caption was complete." });
}
