// Progress on its way. An event is kept in localStorage until Lectern has told what became of it, so that neither a
// closed tab nor a day without network loses one. It has an id: sent twice, it counts once.
//
// Each event has an entry of its own: two tabs never write over each other.

import { Problem, call } from "./api.js";
import { current, onChange, token } from "./identity.js";

const PREFIX = "lectern.event.";
/** What one request takes. */
const MOST = 500;
/** Seconds until the next attempt, while nothing goes through. */
const PAUSES = [2, 5, 15, 30];
/** Seconds between two questions about a parked batch. */
const PARKED_PAUSE = 5;

const changes = new EventTarget();
let recorded = 0;
let failures = 0;
let timer = null;
let sending = null;

let refused = false;

/**
 * All events of whoever is signed in, oldest first. `state` is
 * - `waiting`: it was not sent, or never answered;
 * - `parked`: Lectern keeps it until its database is back;
 * - `rejected`: it was not recorded, for the reason `code`.
 */
export function events() {
  const sub = current()?.sub;
  const mine = sub === undefined ? [] : entries().filter((event) => event.sub === sub);
  return mine.sort((one, other) => one.occurredAt.localeCompare(other.occurredAt));
}

/** How many events wait for the one who did them to sign in; while somebody is signed in, those of others are not told. */
export const countLeft = () => (current() === null ? entries().length : 0);

/** Whether Lectern has refused the token that events were to be sent with. */
export const isRefused = () => refused;

/** What is kept on this device, whoever did it. */
function entries() {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  return keys.map(readEntry).filter((event) => event !== null);
}

function readEntry(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

/**
 * Notes that something was learnt, and sends it as soon as that is possible. `sub` has learnt it; somebody else, or
 * nobody, may be signed in by the time that it is noted.
 */
export function add({ sub, section, title, course, timeSpent, completed }) {
  const event = {
    eventId: crypto.randomUUID(),
    sub,
    sectionId: section,
    title,
    courseId: course,
    timeSpent,
    completed,
    occurredAt: new Date().toISOString(),
    state: "waiting",
  };
  keep(event);
  tell([]);
  void flush();
}

/** Takes a rejected event off the list. */
export function drop(event) {
  remove(event);
  tell([]);
}

/** Tries again what was rejected: it may have been for a reason that has passed. */
export function retry(event) {
  keep({ ...event, state: "waiting", code: null });
  tell([]);
  void flush();
}

/** Sends what waits. Of several calls at a time, in whatever tab, one does the work. */
export function flush() {
  sending ??= navigator.locks.request("lectern.sync", work).finally(() => (sending = null));
  return sending;
}

/** Calls `listener` with the courses that have changed in Lectern, or with none where only the queue did; answers what
 * ends that. */
export function onQueue(listener) {
  const listen = (event) => listener(event.detail);
  changes.addEventListener("change", listen);
  return () => changes.removeEventListener("change", listen);
}

/** Grows whenever Lectern has recorded something: what was read before that may be out of date. */
export const recordings = () => recorded;

/** Starts to send, now and whenever there is reason to. */
export function start() {
  addEventListener("online", () => {
    failures = 0;
    void flush();
  });
  addEventListener("storage", ({ key, oldValue, newValue }) => {
    // What another tab takes away has been recorded.
    if (key?.startsWith(PREFIX)) tell(newValue === null && oldValue ? [JSON.parse(oldValue).courseId] : []);
  });
  onChange(() => {
    failures = 0;
    refused = false;
    tell([]);
    void flush();
  });
  void flush();
}

async function work() {
  clearTimeout(timer);
  try {
    await send();
    await ask();
    failures = 0;
    refused = false;
    const open = new Set(events().map(({ state }) => state));
    // Something may have come in while parked batches were asked after.
    if (open.has("waiting") && (await token())) again(0);
    else if (open.has("parked")) again(PARKED_PAUSE);
  } catch (error) {
    const pause = PAUSES[Math.min(failures, PAUSES.length - 1)];
    failures += 1;
    refused = error instanceof Problem && error.status === 401;
    tell([]);
    // Without a good token there is nothing to wait for but another one.
    if (!refused) again(Math.max(error.retryAfter ?? 0, pause));
  }
}

function again(seconds) {
  clearTimeout(timer);
  timer = setTimeout(() => void flush(), seconds * 1000);
}

/** Sends all that waits, batch by batch. */
async function send() {
  for (;;) {
    const batch = events()
      .filter(({ state }) => state === "waiting")
      .slice(0, MOST);
    const bearer = batch.length > 0 ? await token() : undefined;
    if (bearer === undefined) return;
    await sendBatch(batch, bearer);
  }
}

async function sendBatch(batch, bearer) {
  const body = {
    events: batch.map(({ eventId, sectionId, timeSpent, completed, occurredAt }) => ({
      eventId,
      sectionId,
      timeSpent,
      completed,
      occurredAt,
    })),
  };
  let answer;
  try {
    answer = await call("/progress", { method: "POST", token: bearer, body });
  } catch (error) {
    // What was refused as a whole would be refused again: it is shown, and the queue goes on.
    const hopeless = error instanceof Problem && [400, 403, 413, 415].includes(error.status);
    if (!hopeless) throw error;
    for (const event of batch) keep({ ...event, state: "rejected", code: error.code });
    tell([]);
    return;
  }
  if (answer.status === 202) {
    for (const event of batch) keep({ ...event, state: "parked", submissionId: answer.body.submissionId });
    tell([]);
  } else {
    settle(batch, answer.body.results);
    tell(answer.body.courses.map(({ courseId }) => courseId));
  }
}

/** Asks what became of parked batches. */
async function ask() {
  const parked = Map.groupBy(
    events().filter(({ state }) => state === "parked"),
    ({ submissionId }) => submissionId,
  );
  for (const [submission, batch] of parked) {
    const bearer = await token();
    // Whoever has sat down meanwhile is told nothing about what others sent.
    if (bearer === undefined || batch[0].sub !== current()?.sub) return;
    const results = await outcome(submission, bearer);
    if (results === null) continue;
    settle(batch, results);
    tell([...new Set(batch.map(({ courseId }) => courseId))]);
  }
}

async function outcome(submission, bearer) {
  try {
    return (await call(`/progress/submissions/${submission}`, { token: bearer })).body.results;
  } catch (error) {
    // Lectern does not tell any more. It can be sent again: what was recorded is a duplicate.
    if (error instanceof Problem && error.status === 404) return [];
    throw error;
  }
}

/** Forgets what was recorded, and notes what was not. */
function settle(batch, results) {
  const outcomes = new Map(results.map((result) => [result.eventId, result]));
  for (const event of batch) {
    const result = outcomes.get(event.eventId);
    if (result === undefined) keep({ ...event, state: "waiting" });
    else if (result.status === "rejected") keep({ ...event, state: "rejected", code: result.code });
    else remove(event);
  }
}

const keep = (event) => localStorage.setItem(PREFIX + event.eventId, JSON.stringify(event));
const remove = (event) => localStorage.removeItem(PREFIX + event.eventId);
function tell(courses) {
  recorded += courses.length;
  changes.dispatchEvent(new CustomEvent("change", { detail: courses }));
}
