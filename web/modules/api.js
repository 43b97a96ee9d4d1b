// Calls of the API. What fails is thrown: a Problem when Lectern refused, Unreachable when nothing came back.

import { api } from "../config.js";

/** How long an answer may take. */
const PATIENCE = 20_000;

/** An answer that says no. `code` is stable, `message` is for people. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail ?? body.message ?? `The answer was ${status}.`);
    this.status = status;
    this.code = body.code ?? null;
    this.retryAfter = retryAfter;
  }
}

/** No answer at all: no network, no server, or too late. */
export class Unreachable extends Error {
  constructor() {
    super("Lectern cannot be reached.");
  }
}

/** The address of a path of the API. */
export const address = (path) => api + path;

/**
 * Sends a request; answers `{ status, body }`.
 * @param {string} path with its query
 * @param {{ method?: string, token?: string, body?: object, headers?: object, signal?: AbortSignal }} options
 */
export async function call(path, { method = "GET", token, body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (token) sent.Authorization = `Bearer ${token}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(PATIENCE);
  const answer = await reach(address(path), {
    method,
    headers: sent,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
    credentials: "omit",
    referrerPolicy: "no-referrer",
  });
  const text = await answer.text().catch((error) => Promise.reject(unreachable(error)));
  const parsed = parse(text);
  if (!answer.ok) throw new Problem(answer.status, parsed ?? {}, seconds(answer.headers.get("Retry-After")));
  return { status: answer.status, body: parsed };
}

async function reach(url, request) {
  try {
    return await fetch(url, request);
  } catch (error) {
    throw unreachable(error);
  }
}

/** Whoever took a request back is told so; all else is silence. */
function unreachable(error) {
  return error.name === "AbortError" ? error : new Unreachable();
}

function parse(text) {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

function seconds(header) {
  const value = Number.parseInt(header, 10);
  return Number.isNaN(value) ? null : value;
}

/** `?a=1&b=2` of what has a value, or nothing. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length === 0 ? "" : `?${new URLSearchParams(given)}`;
}
