// The start page: how the demo's courses are doing.

import { call, Problem } from "./api.js";
import { completionRates, completionTimes } from "./charts.js";
import { element } from "./dom.js";
import { showIdentity } from "./frame.js";
import { isLocal, mint, onChange, token } from "./identity.js";
import { failure } from "./parts.js";
import { readFigures } from "./teaching.js";

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
  const bearer = isLocal ? (await mint(TEACHER)).token : await token();
  if (!bearer) return [forTeachers()];
  const { body } = await call("/me/authored-courses?status=published&limit=20", { token: bearer });
  const figures = await readFigures(body.courses, bearer);
  if (figures.length === 0) return [element("p", {}, "There are no published courses to tell of.")];
  return [completionRates(figures), completionTimes(figures)];
}

const forTeachers = () => element("p", {}, "Choose who you are, as a teacher, to see how your courses are doing.");

showIdentity();
if (!isLocal) onChange(show);
await show();
