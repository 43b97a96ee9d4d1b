// Who is using the page: one token, kept for as long as the tab is open.

import { tokens } from "../config.js";
import { Unreachable, address } from "./api.js";

const KEY = "lectern.identity";
/** A token that ends sooner than this is as good as over. */
const MARGIN = 60_000;

/** The people of the demo courses. */
export const CAST = [
  { sub: "kim", groups: "", about: "a new learner" },
  { sub: "alice", groups: "", about: "a learner, half way through" },
  { sub: "ada", groups: "instructor", about: "the teacher who wrote the demo courses" },
  { sub: "root", groups: "instructor,admin", about: "an administrator" },
];

const changes = new EventTarget();
let over = false;

/** Tokens can be had for the asking only from the local run. */
export const isLocal = tokens === "local";

/** `{ sub, groups, scope, token, expires }`, or `null`. */
export function current() {
  try {
    const identity = JSON.parse(sessionStorage.getItem(KEY));
    return identity?.token && identity?.sub ? identity : null;
  } catch {
    return null;
  }
}

/** A token that is still good; `undefined` where nobody is signed in. Locally a new one comes in its place. */
export async function token() {
  const identity = current();
  if (identity === null) return undefined;
  if (identity.expires - MARGIN > Date.now()) return identity.token;
  if (isLocal && identity.minted) {
    const renewed = await mint(identity);
    // Meanwhile somebody else may have sat down.
    if (current()?.token === identity.token) keep(renewed);
    return renewed.token;
  }
  forget({ ranOut: true });
  return undefined;
}

/** Whether nobody is signed in because a token has run out. */
export const hasRunOut = () => over && current() === null;

/** Becomes somebody, with a token of the local run. */
export async function become(person) {
  keep(await mint(person));
  changes.dispatchEvent(new Event("change"));
}

/** A token of the local run for somebody, without becoming them. */
export async function mint({ sub, groups = "", scope = "" }) {
  const parameters = new URLSearchParams({ sub, ...(groups && { groups }), ...(scope && { scope }) });
  const answer = await fetch(`/_local/token?${parameters}`, { credentials: "omit" }).catch(() => null);
  if (answer === null) throw new Unreachable();
  const text = await answer.text();
  if (!answer.ok) throw new Error(JSON.parse(text).detail);
  return { sub, groups, scope, token: text, expires: read(text).exp * 1000, minted: true };
}

/** Takes a token that somebody brought. */
export function bring(text) {
  const token = text.trim().replace(/^Bearer\s+/i, "");
  const { sub, exp = 0 } = read(token);
  const expires = exp * 1000;
  if (expires - MARGIN <= Date.now()) throw new Error("This token is over, or will be within a minute. Get another one.");
  keep({ sub, token, expires });
  changes.dispatchEvent(new Event("change"));
}

export function forget({ ranOut = false } = {}) {
  over = ranOut;
  sessionStorage.removeItem(KEY);
  changes.dispatchEvent(new Event("change"));
}

export const onChange = (listener) => changes.addEventListener("change", listener);

/** `Authorization` for the API that the page belongs to, and for no other address. */
export async function authorization(url) {
  const base = new URL(address("/"), location.href);
  if (new URL(url, location.href).origin !== base.origin) return undefined;
  const value = await token();
  return value && `Bearer ${value}`;
}

function keep(identity) {
  sessionStorage.setItem(KEY, JSON.stringify(identity));
}

/** The claims, unverified: the API verifies them, the page only shows a name and knows when to ask anew. */
function read(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")), (character) =>
      character.charCodeAt(0),
    );
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof claims.sub === "string") return claims;
  } catch {
    // Told below, whatever is wrong with it.
  }
  throw new Error("This is no token: three parts divided by dots are expected, the second with a `sub`.");
}
