// A client generated from openapi.yaml against a running Lectern: what a front end does on its first day. It compiles only
// where the contract has the types that are used here, and ends well only where the server keeps it.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient, { type Client } from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

const baseUrl = process.env["LECTERN_URL"] ?? assert.fail("LECTERN_URL says where Lectern is");

/** Somebody with a token of the local run, or without one. */
async function caller(grant?: string): Promise<Client<paths>> {
  if (grant === undefined) return createClient<paths>({ baseUrl });
  const token = await (await fetch(`${baseUrl}/_local/token?${grant}`)).text();
  return createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
}

const anyone = await caller();
const ada = await caller("sub=ada&groups=instructor");
const kim = await caller("sub=kim");

const draft: components["schemas"]["NewCourse"] = {
  courseData: { title: "Knots", description: "Three that hold.", difficulty: "beginner" },
  lessons: [
    {
      title: "Stoppers",
      order: 1,
      sections: [
        { title: "Figure eight", content: "Over, around, through.", type: "text", order: 1, duration: 120 },
        { title: "Try it", content: "Tie ten of them.", type: "exercise", order: 2 },
      ],
    },
  ],
};
const header = { "Idempotency-Key": randomUUID() };
const created = await ada.POST("/courses", { params: { header }, body: draft });
assert(created.data, JSON.stringify(created.error));
assert.equal(created.response.status, 201);
assert.equal(created.response.headers.get("location"), `/courses/${created.data.id}`);
const again = await ada.POST("/courses", { params: { header }, body: draft });
assert.equal(again.response.headers.get("idempotent-replayed"), "true");
assert.deepEqual(again.data, created.data);
const { id: courseId, version } = created.data;

const published = await ada.PATCH("/courses/{courseId}", {
  params: { path: { courseId }, header: { "If-Match": `"v${version}"` } },
  body: { status: "published" },
});
assert(published.data);
assert.equal(published.data.isPublished, true);

// A problem says by its code what to do. All codes that the contract knows here are handled, or this does not compile.
const early = await kim.GET("/courses/{courseId}/progress", { params: { path: { courseId } } });
assert(early.error && "code" in early.error, "a problem of a function");
switch (early.error.code) {
  case "not_enrolled":
    break;
  case "course_not_found":
  case "unauthenticated":
  case "invalid_token":
  case "internal":
  case "unavailable":
    assert.fail(early.error.detail);
  default:
    early.error satisfies never;
}

const stale = await ada.PATCH("/courses/{courseId}", {
  params: { path: { courseId }, header: { "If-Match": `"v${version}"` } },
  body: { title: "More knots" },
});
assert(stale.error && "currentVersion" in stale.error, "somebody was faster");
assert.equal(stale.error.currentVersion, published.data.version);

const catalogue = await anyone.GET("/courses", { params: { query: { limit: 100, q: "knots", sort: "relevance" } } });
assert(catalogue.data?.courses.some((course) => course.id === courseId && course.lessonCount === 1));

const enrolled = await kim.PUT("/courses/{courseId}/enrollment", { params: { path: { courseId } } });
assert.equal(enrolled.data?.status, "active");

const sections = created.data.lessons.flatMap((lesson) => lesson.sections);
const recorded = await kim.POST("/progress", {
  body: {
    events: sections.map(({ id }, place) => ({
      eventId: randomUUID(),
      sectionId: id,
      timeSpent: 60,
      completed: place === 0,
    })),
  },
});
assert(recorded.data && "results" in recorded.data, "recorded, and not parked");
assert.equal(recorded.data.recorded, 2);

const summary = await kim.GET("/courses/{courseId}/progress", { params: { path: { courseId } } });
assert(summary.data);
assert.equal(summary.data.completionPercentage, 50);
assert.equal(summary.data.totalTimeSpent, 120);
assert.equal(summary.data.resume.nextSectionId, sections[1]?.id);

const etag = summary.response.headers.get("etag");
assert(etag);
const unchanged = await kim.GET("/courses/{courseId}/progress", {
  params: { path: { courseId }, header: { "If-None-Match": etag } },
});
assert.equal(unchanged.response.status, 304);

const nobody = await anyone.GET("/me/courses");
assert.equal(nobody.response.status, 401);
assert(nobody.error && "message" in nobody.error, "the gateway speaks for itself");
