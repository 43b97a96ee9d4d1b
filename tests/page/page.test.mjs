// The page as people use it: in a real browser, against `lectern run`.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  assertAccessible,
  assertClean,
  become,
  call,
  openWindow,
  picture,
  publish,
  startBrowser,
  startLectern,
  startSite,
} from "./support.mjs";

let lectern;
let browser;

before(async () => {
  browser = await startBrowser();
  lectern = await startLectern();
});

after(async () => {
  await browser?.close();
  await lectern?.stop();
});

const progressOf = (window) => window.page.getByRole("progressbar").first();
const ticks = (window) => window.page.getByRole("button", { name: /^(Mark complete|Complete|To be sent|Kept)/ });

/** What of one's progress is kept on the device. */
const kept = ({ page }) =>
  page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith("lectern.event.")).map((key) => JSON.parse(localStorage.getItem(key))));

/** The page as it is where people bring tokens of an issuer. */
function bringTokens({ page }) {
  const config = 'export const api = "";\nexport const tokens = "pasted";\n';
  return page.route("**/config.js", (route) => route.fulfill({ contentType: "text/javascript", body: config }));
}

/** Brings a token. */
async function bring({ page }, token) {
  await page.getByRole("banner").getByRole("button").click();
  await page.getByLabel("An access token of your issuer").fill(token);
  await page.getByRole("button", { name: "Use it" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
}

/** The view is that of whoever one is now. */
const settled = ({ page }) => page.locator("main:not([aria-busy])").waitFor();

const tokenOf = async (sub, more = "") => (await fetch(`${lectern.url}/_local/token?sub=${sub}${more}`)).text();

/** A token as another issuer would have signed it. */
const forged = (token) => token.replace(/.{12}$/, (end) => [...end].reverse().join(""));

/** A course page, its learner enrolled. */
async function openCourse(window, id) {
  await window.page.goto(`/console.html#/courses/${id}`);
  await window.page.getByRole("button", { name: "Enrol", exact: true }).click();
  await progressOf(window).waitFor();
}

describe("a newcomer", () => {
  test("finds a course, enrols, ticks a section, sees the bar move, and finds it so the next time", async () => {
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.goto("/");
    await page.getByRole("table", { name: /Completion rate/ }).waitFor();
    await picture(window, "start", { fullPage: true });
    await become(window, "newcomer");
    await page.getByRole("link", { name: /The console/ }).click();
    await page.getByRole("link", { name: /Progress that never lies/ }).click();
    await page.getByRole("button", { name: "Enrol", exact: true }).click();
    assert.equal(await progressOf(window).getAttribute("aria-valuenow"), "0");
    await ticks(window).first().click();
    await page.getByRole("button", { name: /^Complete: / }).waitFor();
    await page.getByText("9.09 %: 1 of 11 sections").first().waitFor();
    assert.equal(await progressOf(window).getAttribute("aria-valuenow"), "9.09");
    await page.getByRole("status").filter({ hasText: "1 of 11 sections" }).waitFor();
    await picture(window, "course");

    await page.reload();
    await page.getByText("9.09 %: 1 of 11 sections").first().waitFor();
    await page.getByRole("link", { name: /^Continue: Exactly once/ }).click();
    await page.getByRole("heading", { name: "Exactly once", level: 1 }).waitFor();
    await page.getByRole("button", { name: /^Mark complete/ }).click();
    await page.getByText("18.18 %: 2 of 11 sections").first().waitFor();
    await picture(window, "section");
    await page.getByRole("link", { name: "My courses" }).click();
    await page.getByRole("progressbar", { name: /Progress that never lies/ }).waitFor();
    assert.ok((await page.evaluate(() => globalThis.shifts)) < 0.05, "what is read does not jump");
    await assertClean(window);
    await window.context.close();
  });

  test("leaves a course and comes back to the progress of before", async () => {
    const course = await publish(lectern.url, "Leaving", [{ title: "One", content: "1" }, { title: "Two", content: "2" }]);
    const window = await openWindow(browser, lectern.url);
    await window.page.goto("/console.html");
    await become(window, "leaver");
    await openCourse(window, course.id);
    await ticks(window).first().click();
    await window.page.getByText("50 %: 1 of 2 sections").first().waitFor();
    await window.page.getByRole("button", { name: "Leave the course" }).click();
    await window.page.getByRole("button", { name: "Enrol again" }).waitFor();
    await window.page.reload();
    await window.page.getByRole("button", { name: "Enrol again" }).click();
    await window.page.getByRole("button", { name: "Leave the course" }).waitFor();
    await window.page.getByText("50 %: 1 of 2 sections").first().waitFor();
    await assertClean(window);
    await window.context.close();
  });
});

describe("elsewhere than on one's own machine", () => {
  test("one brings a token of the issuer, and what is none is refused", async () => {
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await bringTokens(window);
    await page.goto("/console.html#/learning");
    await page.getByRole("banner").getByRole("button").click();
    const token = page.getByLabel("An access token of your issuer");
    const alert = page.getByRole("dialog").getByRole("alert");
    await token.fill("not.a.token");
    await page.getByRole("button", { name: "Use it" }).click();
    await alert.getByText("This is no token").waitFor();
    await token.fill(await tokenOf("alice", "&expires_in=30"));
    await page.getByRole("button", { name: "Use it" }).click();
    await alert.getByText("This token is over").waitFor();
    await assertAccessible(window, "the dialogue");
    await token.fill(await tokenOf("alice"));
    await page.getByRole("button", { name: "Use it" }).click();
    await page.getByRole("progressbar", { name: /Lectern for teachers/ }).waitFor();
    await page.reload();
    await page.getByRole("button", { name: "You are alice" }).click();
    await page.getByRole("button", { name: "Be nobody in particular" }).click();
    await page.getByText("This is for somebody in particular.").waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await assertClean(window);
    await window.context.close();
  });

  test("a token that Lectern refuses, or that runs out, is told so, and what was done waits for another one", async () => {
    const course = await publish(lectern.url, "Tokens", [{ title: "One", content: "1" }, { title: "Two", content: "2" }]);
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    window.expect(/Failed to load resource.*401/);
    await bringTokens(window);
    await page.clock.install();
    await page.goto("/console.html#/learning");
    await bring(window, forged(await tokenOf("guest")));
    await page.getByText(/^Lectern has refused your token/).waitFor();
    await assertAccessible(window, "a refused token");
    await picture(window, "refused");
    const good = await tokenOf("guest");
    await bring(window, good);
    await page.getByText("You are in no course yet.").waitFor();
    await openCourse(window, course.id);

    // It is refused from now on, in the middle of it all.
    await page.evaluate((token) => {
      const identity = JSON.parse(sessionStorage.getItem("lectern.identity"));
      sessionStorage.setItem("lectern.identity", JSON.stringify({ ...identity, token }));
    }, forged(good));
    await ticks(window).first().click();
    await page.getByRole("link", { name: "Your token was refused · 1 to be sent" }).click();
    await page.getByRole("alert").getByText(/^Lectern has refused your token/).waitFor();
    await bring(window, good);
    await page.getByText("Everything that you did has arrived.").waitFor();

    await page.goto(`/console.html#/courses/${course.id}`);
    await page.getByText("50 %: 1 of 2 sections").first().waitFor();
    await bring(window, await tokenOf("guest", "&expires_in=120"));
    await settled(window);
    await page.clock.fastForward(90_000);
    await ticks(window).last().click();
    await page.getByRole("link", { name: "1 kept on this device until the learner signs in" }).waitFor();
    await page.getByRole("link", { name: "My courses" }).click();
    await page.getByText(/^Your token has run out/).waitFor();
    await bring(window, good);
    await page.getByRole("progressbar", { name: "Progress in Tokens" }).waitFor();
    await page.getByRole("link", { name: "Everything has arrived" }).waitFor();
    await assertClean(window);
    await window.context.close();
  });
});

describe("as static files, for an API elsewhere", () => {
  let site;
  before(async () => (site = await startSite(lectern.url)));
  after(() => site?.stop());

  test("one signs in with a token, and learns", async () => {
    const course = await publish(lectern.url, "From afar", [{ title: "One", content: "1" }]);
    const window = await openWindow(browser, site.url, { api: lectern.url });
    const { page } = window;
    await page.goto("/");
    await page.getByText("Choose who you are, as a teacher").waitFor();
    await page.getByRole("link", { name: /The console/ }).click();
    await page.getByRole("link", { name: "From afar" }).waitFor();
    await bring(window, await tokenOf("traveller"));
    await openCourse(window, course.id);
    await ticks(window).first().click();
    await page.getByText("100 %: 1 of 1 section").first().waitFor();
    await page.getByRole("link", { name: "Everything has arrived" }).waitFor();
    await bring(window, await tokenOf("ada", "&groups=instructor"));
    await page.getByRole("link", { name: "Teaching" }).click();
    await page.getByRole("table", { name: /Completion rate/ }).getByRole("row", { name: /Lectern for teachers/ }).waitFor();
    await assertClean(window);
    await window.context.close();
  });

  test("one tries the API from its reference", async () => {
    const window = await openWindow(browser, site.url, { api: lectern.url });
    const { page } = window;
    await page.goto("/reference.html");
    await bring(window, await tokenOf("alice"));
    await page.locator("#operations-Learning-listMyCourses button").first().click();
    await page.getByRole("button", { name: "Execute" }).click();
    const answer = page.locator(".responses-table.live-responses-table");
    await answer.getByText("Lectern for teachers: publish your first course").first().waitFor();
    await assertClean(window);
    await window.context.close();
  });
});

describe("the time that one reads", () => {
  test("is that of whoever has read, whoever sits down next, or nobody", async () => {
    const course = await publish(lectern.url, "Reading", [{ title: "One", content: "1" }]);
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    // Whoever sits down next is not enrolled yet.
    window.expect(/Failed to load resource.*403/);
    await page.clock.install();
    await page.goto("/console.html");
    const read = async (name, seconds) => {
      await become(window, name);
      await openCourse(window, course.id);
      await page.getByRole("link", { name: "One", exact: true }).click();
      await page.getByRole("article").waitFor();
      await page.clock.fastForward(seconds * 1000);
    };
    const timeOf = async (name) => (await call(lectern.url, name, "", "GET", `/courses/${course.id}/progress`)).totalTimeSpent;
    await read("reader", 20);
    await become(window, "successor");
    await page.getByRole("heading", { name: "Not enrolled" }).waitFor();
    const [waiting] = await kept(window);
    assert.equal(waiting.sub, "reader");
    assert.ok(waiting.timeSpent >= 20);
    await read("successor", 40);
    await page.getByRole("button", { name: "You are successor" }).click();
    await page.getByRole("button", { name: "Be nobody in particular" }).click();
    await page.getByRole("heading", { name: "Who are you?" }).last().waitFor();
    assert.deepEqual((await kept(window)).map(({ sub }) => sub).sort(), ["reader", "successor"]);

    // Nobody is told that all is well, nor who was here.
    await page.getByRole("link", { name: "2 kept on this device until the learner signs in" }).click();
    await page.getByText("Not sent yet: 2 entries").waitFor();
    assert.doesNotMatch(await page.locator("body").textContent(), /reader|successor/);
    await assertAccessible(window, "the queue of nobody");
    await picture(window, "left");
    for (const name of ["reader", "successor"]) {
      await become(window, name);
      await page.getByText("Everything that you did has arrived.").waitFor();
    }
    assert.deepEqual(await kept(window), []);
    const [first, second] = [await timeOf("reader"), await timeOf("successor")];
    assert.ok(first >= 20 && first < 40, `${first} s of 20 and what the clicks took`);
    assert.ok(second >= 40, `${second} s of 40`);
    await assertClean(window);
    await window.context.close();
  });
});

describe("the queue", () => {
  test("keeps what was ticked without a network, over a reload, and sends it once there is one", async () => {
    const course = await publish(lectern.url, "Offline", [{ title: "One", content: "1" }, { title: "Two", content: "2" }]);
    const window = await openWindow(browser, lectern.url);
    const { page, context } = window;
    window.expect(/Failed to load resource|ERR_INTERNET_DISCONNECTED/);
    await page.goto("/console.html");
    await become(window, "islander");
    await openCourse(window, course.id);
    await context.setOffline(true);
    await ticks(window).first().click();
    await page.getByRole("button", { name: /^To be sent/ }).waitFor();
    await page.getByRole("link", { name: /You are offline · 1 to be sent/ }).waitFor();
    await page.getByText("0 %: 0 of 2 sections, 1 not recorded yet").first().waitFor();
    await picture(window, "offline");
    assert.equal((await kept(window)).length, 1);

    // The tab is closed, and another one opened by the same browser later.
    await page.close();
    await context.setOffline(false);
    const later = { ...window, page: await context.newPage() };
    await later.page.goto(`/console.html#/courses/${course.id}`);
    await become(later, "islander");
    await later.page.getByText("50 %: 1 of 2 sections").first().waitFor();
    await later.page.getByRole("link", { name: "Everything has arrived" }).waitFor();
    assert.equal(await later.page.evaluate(() => Object.keys(localStorage).length), 0);
    await assertClean(later);
    await context.close();
  });

  test("does not send what one person did as another", async () => {
    const course = await publish(lectern.url, "Shared computer", [{ title: "One", content: "1" }]);
    const window = await openWindow(browser, lectern.url);
    const { page, context } = window;
    window.expect(/Failed to load resource|ERR_INTERNET_DISCONNECTED/);
    await page.goto("/console.html");
    await become(window, "first");
    await openCourse(window, course.id);
    await context.setOffline(true);
    await ticks(window).first().click();
    await page.getByRole("link", { name: /1 to be sent/ }).waitFor();
    await page.evaluate(() => sessionStorage.clear());
    await context.setOffline(false);
    await page.reload();
    await become(window, "second");
    await openCourse(window, course.id);
    await page.getByText("0 %: 0 of 1 section").first().waitFor();
    await page.getByRole("link", { name: "Everything has arrived" }).waitFor();
    await become(window, "first");
    await page.getByText("100 %: 1 of 1 section").first().waitFor();
    await assertClean(window);
    await context.close();
  });

  test("shows what was not recorded and why, and sends it again when asked to", async () => {
    const course = await publish(lectern.url, "Not enrolled", [{ title: "One", content: "1" }]);
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.goto("/console.html");
    await become(window, "expelled");
    await openCourse(window, course.id);
    await call(lectern.url, "expelled", "", "DELETE", `/courses/${course.id}/enrollment`);
    await ticks(window).first().click();
    await page.getByRole("link", { name: "1 not recorded" }).click();
    await page.getByText("You are not enrolled.").waitFor();
    await assertAccessible(window, "the queue");
    await call(lectern.url, "expelled", "", "PUT", `/courses/${course.id}/enrollment`);
    await page.getByRole("button", { name: "Send again" }).click();
    await page.getByText("Everything that you did has arrived.").waitFor();
    const { completedSections } = await call(lectern.url, "expelled", "", "GET", `/courses/${course.id}/progress`);
    assert.equal(completedSections, 1);
    await assertClean(window);
    await window.context.close();
  });

  test("tells that an enrollment was ended elsewhere, and counts what was refused once one enrols again", async () => {
    const course = await publish(lectern.url, "Ended elsewhere", [{ title: "One", content: "1" }, { title: "Two", content: "2" }]);
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    const end = () => call(lectern.url, "ended", "", "DELETE", `/courses/${course.id}/enrollment`);
    await page.goto("/console.html");
    await become(window, "ended");
    await openCourse(window, course.id);
    await end();
    await ticks(window).first().click();
    await page.getByText("You are no longer enrolled. Your progress is kept.").waitFor();
    await page.getByRole("link", { name: "1 not recorded" }).waitFor();
    await page.getByRole("button", { name: "Enrol again" }).click();
    await page.getByText("50 %: 1 of 2 sections").first().waitFor();
    await page.getByRole("link", { name: "Everything has arrived" }).waitFor();

    // The same in the middle of a section.
    await page.getByRole("link", { name: "Two", exact: true }).click();
    await page.getByRole("article").waitFor();
    await end();
    await ticks(window).click();
    await page.getByText("You are not enrolled in this course any more").waitFor();
    await assertAccessible(window, "a section that one reads no longer");
    await picture(window, "ended");
    await page.getByRole("alert").getByRole("link", { name: "Ended elsewhere" }).click();
    await page.getByRole("button", { name: "Enrol again" }).click();
    await page.getByText("100 %: 2 of 2 sections").first().waitFor();
    await assertClean(window);
    await window.context.close();
  });

  test("shows what is parked while the database is away, and that it counts afterwards", async () => {
    const course = await publish(lectern.url, "Outage", [{ title: "One", content: "1" }]);
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    window.expect(/Failed to load resource.*50[03]/);
    await page.goto("/console.html");
    await become(window, "patient");
    await openCourse(window, course.id);
    lectern.killDatabase();
    await ticks(window).first().click();
    await page.getByRole("button", { name: /^Kept, not counted yet/ }).waitFor();
    await page.getByRole("link", { name: /1 kept, not counted yet/ }).waitFor();
    await picture(window, "parked");
    // It is replayed every minute; that may be hurried.
    const replayed = async () => {
      const answer = await fetch(`${lectern.url}/_local/functions/replay-parked`, { method: "POST" });
      return answer.ok && (await answer.json()).remaining === 0;
    };
    while (!(await replayed())) await new Promise((resolve) => setTimeout(resolve, 500));
    await page.getByText("100 %: 1 of 1 section").first().waitFor();
    await page.getByRole("link", { name: "Everything has arrived" }).waitFor();
    await assertClean(window);
    await window.context.close();
  });
});

describe("the catalogue", () => {
  test("is searched while one types, sorted, and paged through", async () => {
    for (let number = 1; number <= 14; number += 1) {
      await publish(lectern.url, `Zoology ${String(number).padStart(2, "0")}`, []);
    }
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.goto("/console.html");
    await page.getByLabel("Search the catalogue").fill("zoolog");
    await page.getByRole("link", { name: "Zoology 01" }).or(page.getByRole("link", { name: "Zoology 14" })).first().waitFor();
    await page.getByRole("status").filter({ hasText: "12 courses shown." }).waitFor();
    await page.getByLabel("Order").selectOption("title");
    const titles = page.getByRole("listitem").getByRole("heading");
    await titles.first().filter({ hasText: "Zoology 01" }).waitFor();
    await page.getByRole("button", { name: "Show more" }).click();
    await page.getByRole("link", { name: "Zoology 14" }).waitFor();
    assert.deepEqual(await titles.allTextContents(), Array.from({ length: 14 }, (_, index) => `Zoology ${String(index + 1).padStart(2, "0")}`));
    assert.ok(await page.getByRole("link", { name: "Zoology 13" }).evaluate((link) => link === document.activeElement));

    await page.getByLabel("Search the catalogue").fill("zoology 07");
    await titles.nth(1).waitFor({ state: "detached" });
    assert.equal(await titles.textContent(), "Zoology 07");
    await page.reload();
    assert.equal(await page.getByLabel("Search the catalogue").inputValue(), "zoology 07");
    await page.getByLabel("Search the catalogue").fill("no such words");
    await page.getByText("No course has these words.").waitFor();
    await assertClean(window);
    await window.context.close();
  });
});

describe("a view", () => {
  test("that was left in the middle of a search changes the address no more", async () => {
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.clock.install();
    await page.goto("/console.html");
    await become(window, "hasty");
    await settled(window);
    await page.clock.pauseAt(Date.now() + 60_000);
    await page.getByLabel("Search the catalogue").fill("teach");
    await page.getByRole("link", { name: "My courses" }).click();
    await page.getByText("You are in no course yet.").waitFor();
    await page.clock.runFor(1000);
    assert.equal(new URL(page.url()).hash, "#/learning");
    await assertClean(window);
    await window.context.close();
  });

  test("that cannot be had is tried again, and no sooner than Lectern has asked for", async () => {
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    window.expect(/Failed to load resource.*(429|503)/);
    await page.clock.install();
    await page.goto("/console.html");
    await become(window, "alice");
    let refusals = [
      { status: 503, headers: { "Retry-After": "30" }, json: { code: "unavailable", detail: "Something is away." } },
      { status: 429, json: { message: "Too Many Requests" } },
    ];
    let asked = 0;
    await page.route("**/me/courses?*", (route) => {
      asked += 1;
      return refusals.length > 0 ? route.fulfill(refusals.shift()) : route.continue();
    });
    await page.getByRole("link", { name: "My courses" }).click();
    await page.getByRole("alert").getByText("Something is away.").waitFor();
    await assertAccessible(window, "a view that could not be had");
    await page.getByRole("button", { name: /^Try again in \d+ s$/ }).click({ force: true });
    await page.clock.fastForward(31_000);
    assert.equal(asked, 1);
    await page.getByRole("button", { name: "Try again", exact: true }).click();
    await page.getByRole("alert").getByText("Too Many Requests").waitFor();
    await page.getByRole("button", { name: "Try again", exact: true }).click();
    await page.getByRole("progressbar", { name: /Lectern for teachers/ }).waitFor();
    assert.equal(asked, 3);
    await assertClean(window);
    await window.context.close();
  });

  test("does not call a course completed that has nothing in it yet", async () => {
    const course = await publish(lectern.url, "Hollow", []);
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.goto("/console.html");
    await become(window, "early");
    await openCourse(window, course.id);
    await page.getByRole("link", { name: "My courses" }).click();
    await page.getByRole("listitem").filter({ hasText: "Hollow" }).getByText("Nothing is in this course yet.").waitFor();
    assert.equal(await page.getByText("Completed.").count(), 0);
    await become(window, "alice");
    const finished = page.getByRole("listitem").filter({ hasText: "Lectern for teachers" });
    await finished.getByText("Completed.").waitFor();
    await assertClean(window);
    await window.context.close();
  });
});

describe("a teacher", () => {
  test("sees charts of all courses and of one, and who is in it", async () => {
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.goto("/console.html#/teaching");
    await become(window, "ada", ["instructor"]);
    const rates = page.getByRole("table", { name: /Completion rate/ });
    await rates.getByRole("row", { name: /Lectern for teachers.*50 % \(4 of 8\)/ }).waitFor();
    const bar = rates.getByRole("row", { name: /Lectern for teachers/ }).locator("rect.bar");
    assert.equal(Number(await bar.getAttribute("width")), 500, "half of the scale");
    await page.getByRole("table", { name: /Time to completion/ }).getByRole("row", { name: /4 d 19 h/ }).waitFor();
    await assertAccessible(window, "teaching");
    await page.getByRole("table", { name: "" }).last().getByRole("link", { name: /Lectern for teachers/ }).click();
    await page.getByRole("heading", { level: 1, name: /Lectern for teachers/ }).waitFor();
    await page.getByRole("row", { name: /^jonas/ }).waitFor();
    const stops = page.getByRole("table", { name: /Where learners stop/ });
    assert.equal(await stops.getByRole("row").count(), 1 + 10, "a row for each section");
    await stops.getByRole("row", { name: /1\.1 Courses, lessons, sections 7 of 8/ }).waitFor();
    const stands = page.getByRole("table", { name: /How far the learners are/ }).getByRole("row");
    const learners = (await stands.allTextContents()).slice(1).map((text) => Number(/\d+$/.exec(text)[0]));
    assert.equal(learners.reduce((sum, some) => sum + some), 8, "everybody stands somewhere");
    await page.getByLabel("How far").selectOption("100");
    await page.getByRole("row", { name: /^jonas/ }).waitFor({ state: "detached" });
    await page.getByRole("row", { name: /^alice active 100 %/ }).waitFor();
    await assertAccessible(window, "a course that is taught");
    await picture(window, "teaching", { fullPage: true });
    await assertClean(window);
    await window.context.close();
  });

  test("sees the other courses while the figures of one cannot be read", async () => {
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    window.expect(/Failed to load resource.*503/);
    let away = true;
    let first = null;
    await page.route("**/courses/*/analytics", (route) => {
      first ??= route.request().url();
      if (!away || route.request().url() !== first) return route.continue();
      return route.fulfill({ status: 503, json: { code: "unavailable", detail: "Something is away." } });
    });
    await page.goto("/console.html#/teaching");
    await become(window, "ada", ["instructor"]);
    await page.getByText("The figures of 1 course could not be read.").waitFor();
    await page.getByRole("heading", { level: 1, name: "Teaching" }).waitFor();
    const rows = page.getByRole("table", { name: /Completion rate/ }).getByRole("row");
    const shown = await rows.count();
    assert.ok(shown > 1, "the others are there");
    await assertAccessible(window, "a course without figures");
    away = false;
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByText("The figures of 1 course could not be read.").waitFor({ state: "detached" });
    assert.equal(await rows.count(), shown + 1);
    await assertClean(window);
    await window.context.close();
  });

  test("who is none is told so", async () => {
    const window = await openWindow(browser, lectern.url);
    window.expect(/Failed to load resource.*403/);
    await window.page.goto("/console.html#/teaching");
    await become(window, "kim");
    await window.page.getByText("This is for teachers").waitFor();
    await assertClean(window);
    await window.context.close();
  });
});

describe("content that means harm", () => {
  const BAIT = [
    "<script>ran.push('script')</script>",
    '<img src=x onerror="ran.push(1)">',
    "<svg onload=ran.push(2)>",
    "[click](javascript:ran.push(3))",
    "[click](JaVaScRiPt:ran.push(4))",
    "[click](data:text/html,<script>alert(1)</script>)",
    "[click](vbscript:x)",
    '<iframe srcdoc="<script>parent.ran.push(5)</script>"></iframe>',
    "<style>*{display:none}</style>",
    '<a href="javascript:ran.push(6)">x</a>',
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "`<b onmouseover=ran.push(7)>`",
    "| <img src=x onerror=ran.push(8)> | y |\n|---|---|\n| <script>ran.push(9)</script> | z |",
    "</article></main><script>ran.push(10)</script>",
  ].join("\n\n");

  test("runs nowhere: it is shown as the characters that it is made of", async () => {
    const title = "<img src=x onerror=ran.push('title')>&lt;b&gt; " + "W".repeat(400);
    const course = await publish(lectern.url, title, [{ title, content: BAIT, type: "<i onx>" }], { description: BAIT, lesson: title });
    const window = await openWindow(browser, lectern.url, { viewport: { width: 390, height: 800 } });
    const { page } = window;
    await page.goto("/console.html");
    await become(window, "<script>ran.push('sub')</script>");
    await page.getByRole("link", { name: /ran\.push\('title'\)/ }).waitFor();
    await openCourse(window, course.id);
    await assertNarrow(page);
    await assertAccessible(window, "a hostile course");
    await page.locator(".section a").click();
    await page.getByRole("article").waitFor();
    const article = page.getByRole("article");
    assert.match(await article.textContent(), /<script>ran\.push\('script'\)<\/script>/);
    assert.equal(await page.locator("article :is(script, img, svg, iframe, style, meta, a)").count(), 0);
    await assertNarrow(page);
    await assertAccessible(window, "a hostile section");
    await picture(window, "hostile", { fullPage: true });
    await page.getByRole("button", { name: /^Mark complete/ }).click();
    await page.getByText("100 %: 1 of 1 section").first().waitFor();

    // And under the eyes of its teacher, beside a learner of that name.
    await become(window, "tess", ["instructor"]);
    await page.goto(`/console.html#/teaching/${course.id}`);
    await page.getByRole("row", { name: /ran\.push\('sub'\)/ }).waitFor();
    await page.getByRole("link", { name: "Teaching" }).first().click();
    await page.getByRole("heading", { level: 1, name: "Teaching" }).waitFor();
    await assertClean(window);
    await window.context.close();
  });

  test("even a script that got into the page would not run, nor reach anybody", async () => {
    for (const path of ["/", "/console.html", "/reference.html"]) {
      const window = await openWindow(browser, lectern.url);
      await window.page.goto(path);
      window.expect(/Content Security Policy|TrustedScript|HTMLScriptElement was directly modified/);
      const refused = window.page.waitForEvent("requestfailed", (request) => request.url().includes("evil.example"));
      const ran = await window.page.evaluate(async () => {
        const script = document.createElement("script");
        script.append("globalThis.injected = true");
        try {
          document.body.append(script);
        } catch {
          // Trusted Types refuse it before the policy does.
        }
        const image = new Image();
        const reached = new Promise((resolve) => {
          image.onload = () => resolve(true);
          image.onerror = () => resolve(false);
        });
        image.src = "https://evil.example/x.png";
        return { injected: globalThis.injected ?? false, reached: await reached };
      });
      assert.deepEqual(ran, { injected: false, reached: false }, path);
      assert.equal((await refused).failure().errorText, "csp");
      assert.deepEqual(window.faults, ["request to https://evil.example"], "it was tried, and nothing else went wrong");
      await window.context.close();
    }
  });

  /** Nothing is wider than the window, however long its words. */
  async function assertNarrow(page) {
    const [width, visible] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(width <= visible, `${width} px of content in a window of ${visible}`);
  }

  test("what reads from right to left is shown so", async () => {
    const course = await publish(lectern.url, "مقدمة في علم الفلك", [{ title: "النجوم", content: "النجوم كرات من الغاز.\n\n* واحد\n* اثنان" }], {
      description: "درس قصير عن السماء.",
    });
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.goto("/console.html");
    await become(window, "سلمى");
    await openCourse(window, course.id);
    const direction = (locator) => locator.evaluate((node) => getComputedStyle(node).direction);
    assert.equal(await direction(page.getByRole("heading", { level: 1 })), "rtl");
    assert.equal(await direction(page.getByRole("heading", { name: "Outline" })), "ltr");
    await picture(window, "rtl-course");
    await page.locator(".section a").click();
    await page.getByRole("article").waitFor();
    assert.equal(await direction(page.getByRole("article").locator("p").first()), "rtl");
    assert.equal(await direction(page.getByRole("article").locator("ul")), "rtl");
    await picture(window, "rtl-section");
    await assertClean(window);
    await window.context.close();
  });
});

describe("the API reference", () => {
  test("sends what one tries as whoever one is, and nothing to anybody else", async () => {
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.goto("/reference.html");
    await become(window, "alice");
    // The viewer may have to be fetched from npm first.
    await page.getByRole("button", { name: /^get \/me\/courses$/i }).or(page.locator("#operations-Learning-listMyCourses button").first()).first().click();
    await page.getByRole("button", { name: "Execute" }).click();
    const answer = page.locator(".responses-table.live-responses-table");
    await answer.getByText("200", { exact: true }).first().waitFor();
    await answer.getByText("Lectern for teachers: publish your first course").first().waitFor();
    assert.match(await page.locator(".curl-command").textContent(), /Authorization: Bearer/);
    await picture(window, "reference");
    await assertAccessible(window, "the reference");
    await assertClean(window);
    await window.context.close();
  });

  test("says what is wrong where there is no viewer, and where the description is", async () => {
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    window.expect(/Failed to load resource.*404|Refused to apply style|MIME type/);
    const detail = "npm is not installed here";
    await page.route("**/viewer/*", (route) => route.fulfill({ status: 404, json: { code: "no_viewer", detail } }));
    await page.goto("/reference.html");
    await page.getByText(detail).waitFor();
    await page.getByRole("link", { name: "openapi.yaml" }).waitFor();
    await assertClean(window);
    await window.context.close();
  });
});

describe("without a mouse", () => {
  test("a course is found, entered and learnt by the keyboard alone, and one always sees where one is", async () => {
    const course = await publish(lectern.url, "Keys", [{ title: "One", content: "1" }]);
    const window = await openWindow(browser, lectern.url);
    const { page } = window;
    await page.goto("/console.html");
    await page.getByRole("link", { name: "Keys" }).waitFor();
    const focused = () =>
      page.evaluate(() => {
        const node = document.activeElement;
        const { outlineStyle, outlineWidth } = getComputedStyle(node);
        return { name: node.getAttribute("aria-label") ?? node.textContent, seen: outlineStyle !== "none" && outlineWidth !== "0px", tag: node.tagName };
      });
    const tabTo = async (pattern) => {
      for (let presses = 0; presses < 60; presses += 1) {
        await page.keyboard.press("Tab");
        const { name, seen, tag } = await focused();
        if (tag !== "BODY") assert.ok(seen, `one sees that ${name} has the focus`);
        if (pattern.test(name)) return;
      }
      assert.fail(`${pattern} is not to be reached by Tab`);
    };
    await tabTo(/To the content/);
    await tabTo(/Choose who you are/);
    await page.keyboard.press("Enter");
    await tabTo(/^kim/);
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    // The catalogue is shown anew for her; a view that comes takes the focus to its heading, which has no ring.
    await page.locator("#main:not([aria-busy])").waitFor();
    await tabTo(/^Keys$/);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "Keys" }).waitFor();
    assert.match((await focused()).name, /^Keys$/, "the heading of the new view has the focus");
    await tabTo(/^Enrol$/);
    await page.keyboard.press("Enter");
    await progressOf(window).waitFor();
    assert.match((await focused()).name, /^Continue: One/, "where the button was, the next step has the focus");
    assert.ok((await focused()).seen);
    // What another tab does to the queue is told to this one, and takes nobody's place.
    await page.evaluate(() => dispatchEvent(new StorageEvent("storage", { key: "lectern.event.0", newValue: "{}" })));
    assert.match((await focused()).name, /^Continue: One/, "the focus stays where it was");
    await tabTo(/^Mark complete: One/);
    await page.keyboard.press("Space");
    await page.getByText("100 %: 1 of 1 section").first().waitFor();
    assert.match((await focused()).name, /^Complete: One/, "the focus stays where it was");
    await call(lectern.url, "kim", "", "DELETE", `/courses/${course.id}/enrollment`);
    await assertClean(window);
    await window.context.close();
  });
});

describe("an audit finds nothing", () => {
  for (const [name, options] of Object.entries({
    light: {},
    dark: { colorScheme: "dark" },
    phone: { viewport: { width: 360, height: 740 } },
    "dark phone": { colorScheme: "dark", viewport: { width: 360, height: 740 } },
  })) {
    test(name, async () => {
      const window = await openWindow(browser, lectern.url, options);
      const { page } = window;
      const file = name.replace(" ", "-");
      await page.goto("/");
      await page.getByRole("table", { name: /Completion rate/ }).waitFor();
      await assertAccessible(window, "start");
      await picture(window, `${file}-start`, { fullPage: true });
      await page.getByRole("banner").getByRole("button").click();
      await assertAccessible(window, "the dialogue");
      await picture(window, `${file}-dialogue`);
      await page.keyboard.press("Escape");
      await become(window, "alice");
      await page.goto("/console.html#/courses?q=teachers");
      await page.getByRole("link", { name: /Lectern for teachers/ }).click();
      await page.getByText("Completed.").waitFor();
      await assertAccessible(window, "course");
      await picture(window, `${file}-course`, { fullPage: true });
      await page.getByRole("link", { name: "Three states" }).click();
      await page.getByRole("article").waitFor();
      await assertAccessible(window, "section");
      await picture(window, `${file}-section`, { fullPage: true });
      await page.getByRole("link", { name: "My courses" }).click();
      await page.getByRole("heading", { level: 1, name: "My courses" }).waitFor();
      await assertAccessible(window, "my courses");
      await picture(window, `${file}-learning`, { fullPage: true });
      await assertClean(window);
      await window.context.close();
    });
  }
});
