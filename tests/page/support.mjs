// A Lectern and a browser for the tests of the page: `lectern run` in a directory of its own, and Chromium, watched.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const ROOT = resolve(import.meta.dirname, "../..");
// What npm installed for the tools is below .lectern/, where an import would not look.
const require = createRequire(join(ROOT, ".lectern/tools/node/"));
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Far more than anything takes on a busy machine. */
const PATIENCE = 60_000;
/** Where pictures go for whoever wants to look. */
export const PICTURES = join(ROOT, "target/page");

/** Starts Lectern with servers of its own. */
export async function startLectern() {
  const home = mkdtempSync(join(tmpdir(), "lectern-page-"));
  // PostgreSQL runs under another account where we are root, and its data is in here.
  chmodSync(home, 0o755);
  for (const part of ["template.yaml", "openapi.yaml", "web"]) symlinkSync(join(ROOT, part), join(home, part));
  keepViewer(join(ROOT, ".lectern"), join(home, ".lectern"));
  const server = spawn(resolve(ROOT, process.env.CARGO_TARGET_DIR ?? "target", "debug/lectern"), ["run"], {
    cwd: home,
    env: { ...environment(), PORT: "0" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const url = await readyLine(server);
  const stop = async () => {
    server.kill("SIGTERM");
    await new Promise((resolve) => server.once("exit", resolve));
    rmSync(home, { recursive: true, force: true });
  };
  /** Takes PostgreSQL away; `lectern run` starts it again after a few seconds. */
  const killDatabase = () => {
    const [pid] = readFileSync(join(home, ".lectern/postgres/data/postmaster.pid"), "utf8").split("\n");
    process.kill(Number(pid), "SIGKILL");
  };
  return { url, home, stop, killDatabase };
}

/** The viewer is fetched from npm once a checkout, not once a test. */
function keepViewer(from, to) {
  mkdirSync(to, { mode: 0o700 });
  const kept = existsSync(from) ? readdirSync(from).filter((name) => /^viewer-[0-9a-f]+$/.test(name)) : [];
  for (const name of kept) cpSync(join(from, name), join(to, name), { recursive: true });
}

/** What `make run` finds, and the servers that `make test` has found or fetched. */
function environment() {
  const kept = { ...process.env };
  for (const name of ["DATABASE_URL", "REDIS_URL", "AWS_ENDPOINT_URL_DYNAMODB", "PARKING_TABLE", "RUST_LOG"]) delete kept[name];
  const programs = [process.env.LECTERN_TEST_PG_BIN, process.env.LECTERN_TEST_REDIS_SERVER?.replace(/\/[^/]*$/, "")];
  return { ...kept, PATH: [...programs.filter(Boolean), process.env.PATH].join(":") };
}

async function readyLine(server) {
  const said = [];
  for await (const line of createInterface({ input: server.stdout })) {
    const ready = /^Lectern is ready on (.*)$/.exec(line);
    if (ready) {
      server.stdout.resume();
      return ready[1];
    }
    said.push(line);
  }
  throw new Error(`lectern ended before it was ready: ${said.join("\n")}`);
}

const KINDS = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".yaml": "application/yaml" };

/** Makes static files of the page for the API at `api`, and serves them as any server of files would, on an origin of its own. */
export async function startSite(api) {
  const files = mkdtempSync(join(tmpdir(), "lectern-site-"));
  await promisify(execFile)("make", ["site", `API=${api}`, `SITE=${files}`], { cwd: ROOT });
  const server = createServer(async ({ url }, answer) => {
    const { pathname } = new URL(url, "http://site");
    const file = pathname.endsWith("/") ? `${pathname}index.html` : pathname;
    const content = await readFile(join(files, file)).catch(() => null);
    answer.writeHead(content === null ? 404 : 200, { "Content-Type": KINDS[extname(file)] ?? "text/plain" });
    answer.end(content);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = async () => {
    await new Promise((resolve) => server.close(resolve).closeAllConnections());
    rmSync(files, { recursive: true, force: true });
  };
  return { url: `http://127.0.0.1:${server.address().port}`, stop };
}

/** Starts Chromium. It is the system's: a browser is no package of npm's. */
export function startBrowser() {
  const path = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(
    (program) => program && existsSync(program),
  );
  assert.ok(path, "Chromium is missing. On Debian: apt-get install chromium. Elsewhere: CHROMIUM=… names the program.");
  const args = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
  ];
  return chromium.launch({ executablePath: path, headless: true, args });
}

/**
 * A window of its own, as a person has it. What must never happen is collected in `faults`: errors on the console, a
 * policy that was violated, an exception, a request to anybody but `url` and the API, where that is elsewhere.
 */
export async function openWindow(browser, url, { api = url, ...options } = {}) {
  const context = await browser.newContext({ baseURL: url, viewport: { width: 1200, height: 850 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const faults = [];
  const expected = [];
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    if (!expected.some((pattern) => pattern.test(message.text()))) faults.push(message.text());
  });
  page.on("pageerror", (error) => faults.push(`exception: ${error.message}`));
  page.on("dialog", (dialog) => {
    faults.push(`dialogue: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (!["data:", "blob:"].includes(protocol) && ![url, api].includes(origin)) faults.push(`request to ${origin}`);
  });
  await context.addInitScript(() => {
    globalThis.ran = [];
    globalThis.shifts = 0;
    document.addEventListener("securitypolicyviolation", (event) => globalThis.ran.push(`policy: ${event.violatedDirective}`));
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) globalThis.shifts += entry.value;
    }).observe({ type: "layout-shift", buffered: true });
  });
  return { context, page, faults, expect: (pattern) => expected.push(pattern) };
}

/** Nothing happened that must not: to be asked at the end of every test. */
export async function assertClean({ page, faults }) {
  assert.deepEqual(faults, []);
  assert.deepEqual(await page.evaluate(() => globalThis.ran), []);
}

/** An audit of what is shown, by axe: no violation of any of its rules. */
export async function assertAccessible({ page }, what) {
  await page.evaluate(AXE);
  const violations = await page.evaluate(async () => {
    const { violations } = await globalThis.axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
  });
  assert.deepEqual(violations, [], what);
}

/** A picture for whoever wants to look. */
export async function picture({ page }, name, options = {}) {
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`), animations: "disabled", ...options });
}

/** Becomes somebody, by the dialogue. */
export async function become({ page }, sub, groups = []) {
  await page.getByRole("banner").getByRole("button").click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Or anybody else").fill(sub);
  for (const group of groups) await dialog.getByLabel(group).check();
  await dialog.getByRole("button", { name: "Be this person" }).click();
  await dialog.waitFor({ state: "detached" });
}

/** Calls the API beside the page, as a client of one's own would. */
export async function call(url, sub, groups, method, path, body, headers = {}) {
  const token = await (await fetch(`${url}/_local/token?${new URLSearchParams({ sub, groups })}`)).text();
  const answer = await fetch(url + path, {
    method,
    headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json", ...headers },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
  return text && JSON.parse(text);
}

/** A published course of one lesson. */
export function publish(url, title, sections, courseData = {}) {
  const body = {
    courseData: { title, description: "", difficulty: "beginner", isPublished: true, ...courseData },
    lessons: [{ title: courseData.lesson ?? "All of it", order: 1, sections: sections.map((section, index) => ({ type: "text", ...section, order: index + 1 })) }],
  };
  return call(url, "tess", "instructor", "POST", "/courses", body, { "Idempotency-Key": crypto.randomUUID() });
}
