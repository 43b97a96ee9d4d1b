// The start page: how the demo's courses are doing.

import { call, Problem } from "./api.js";
import { element } from "./dom.js";
import { showIdentity } from "./frame.js";
import { isLocal, mint, onChange, token } from "./identity.js";
import { failure } from "./parts.js";
import { compare } from "./teaching.js";

/** The demo's teacher; the local run speaks for her, so that there is something to see before anybody signs in. */
const TEACHER = { sub: "ada", groups: "instructor" };

const place = document.getElementById("figures");

async function show() {
  try {
    place.replaceChildren(...(await charts()));
  } catch (error) {
    place.replaceChildren(error instanceof Problem && error.status === 403 ? forTeachers() : failure(error, show));
  }
}

async function charts() {
  const bearer = async () => (isLocal ? (await mint(TEACHER)).token : token());
  const first = await bearer();
  if (!first) return [forTeachers()];
  const { body } = await call("/me/authored-courses?status=published&limit=20", { token: first });
  return [(await compare(body.courses, undefined, bearer)) ?? element("p", {}, "There are no published courses to tell of.")];
}

const forTeachers = () => element("p", {}, "Choose who you are, as a teacher, to see how your courses are doing.");

showIdentity();
if (!isLocal) onChange(show);
await show();
