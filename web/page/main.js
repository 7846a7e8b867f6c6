// The status page: state of the platform, applications, recent commits.
// Everything shown is read from /api/v1; the stream of events says when to
// read again. Start reading at refresh.
import { ago, duration, h, link, short, tone } from "./dom.js";
import { follow } from "./stream.js";
import { body, settled, summary } from "./trace.js";

const $ = (id) => document.getElementById(id);
const page = 15;
let older = 0; // the cursor of the next page
const traces = new Map(); // by commit, newest first
const cards = new Map(); // the card of each, kept so that focus stays
const touched = new Map(); // what a person opened or closed

async function get(path) {
  const r = await fetch(`/api/v1${path}`, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(20000) });
  if (!r.ok) {
    const problem = await r.json().catch(() => ({}));
    throw new Error([problem.title ?? `status ${r.status}`, problem.detail].filter(Boolean).join(": "));
  }
  return r.json();
}

function showStatus(s) {
  document.title = `${s.name}: ${s.state}`;
  $("name").textContent = s.name;
  $("state").textContent = s.state;
  $("state").className = `pill ${tone(s.state)}`;
  $("facts").textContent = [s.version, s.uptimeSeconds && `up ${duration(s.uptimeSeconds * 1000)}`, s.kubeContext && `context ${s.kubeContext}`].filter(Boolean).join(" · ");
  $("links").replaceChildren(...Object.entries(s.urls ?? {}).filter(([name]) => name !== "page").map(([name, url]) => link(url, name)));
  const lines = [];
  if (s.message) lines.push(h("p", null, s.message, s.hint ? [" ", h("span.hint", null, s.hint)] : null));
  if (s.state !== "ready") {
    for (const step of s.steps ?? []) {
      if (step.ended && !step.error) continue;
      lines.push(h("p", null, h(`span.${step.error ? "bad" : "busy"}`, null, step.error ? "✗ " : "▸ "), step.name, h("span.soft", null, ` since ${ago(step.started)} `), step.error || step.note || ""));
    }
  }
  for (const c of s.components ?? []) {
    if (c.state === "running") continue;
    lines.push(h("p", null, h("strong", null, c.name), " is ", h(`span.${tone(c.state)}`, null, c.state), c.reason ? `: ${c.reason} ` : " ", c.hint ? h("span.hint", null, c.hint) : null));
  }
  $("notice").replaceChildren(...lines);
  $("notice").hidden = !lines.length;
}

function showApps(list) {
  $("app-counts").textContent = Object.entries(list.health).sort().map(([k, n]) => `${n} ${k}`).join(" · ");
  if (!list.items.length) {
    $("apps").replaceChildren(h("p.empty", null, "No applications yet. Apply an Application with kubectl, or start with ", h("code", null, "lockstep up --example storefront"), "."));
    return;
  }
  const rows = list.items.map((a) => h("tr", null,
    h("th", { scope: "row" }, `${a.namespace}/${a.name}`),
    h("td.fixed", null, h(`span.${tone(a.sync)}`, null, a.sync)),
    h("td.fixed", null, h(`span.${tone(a.health)}`, null, a.health)),
    h("td.fixed", null, a.commit ? h("a", { href: `#${a.commit}` }, h("code", null, short(a.commit))) : "", a.wanted && a.wanted !== a.commit ? [" → ", h("a", { href: `#${a.wanted}` }, h("code", null, short(a.wanted)))] : null),
    h("td", null, a.message ?? "", a.hint ? h("div.hint", null, a.hint) : null),
    h("td", null, (a.urls ?? []).flatMap((u, i) => [i ? ", " : "", link(u, u.replace(/^https?:\/\//, ""))]))));
  const head = ["Application", "Sync", "Health", "Commit", "Message", "Answers at"].map((t) => h("th", { scope: "col" }, t));
  const more = list.total > list.items.length ? h("p.soft", null, `and ${list.total - list.items.length} more: lockstep app list`) : "";
  $("apps").replaceChildren(h("table", null, h("thead", null, h("tr", null, head)), h("tbody", null, rows)), more);
}

const commitsOf = (t) => [t.commit, ...(t.children ?? []).flatMap(commitsOf)];

function draw(t) {
  let card = cards.get(t.commit);
  if (!card) {
    card = h("details", null, h("summary", null));
    card.firstChild.addEventListener("click", () => touched.set(t.commit, !card.open));
    card.addEventListener("toggle", () => draw(traces.get(t.commit) ?? t));
    cards.set(t.commit, card);
  }
  card.classList.remove("running", "waiting", "pending", "failed", "ready", "cancelled", "idle");
  card.classList.add(t.state);
  card.firstChild.replaceChildren(...summary(t));
  while (card.childNodes.length > 1) card.lastChild.remove();
  if (card.open) card.append(body(t));
  return card;
}

function showTraces() {
  const list = [...traces.values()].sort((a, b) => Date.parse(b.start) - Date.parse(a.start));
  if (!list.length) {
    $("commits").replaceChildren(h("p.empty", null, "Nothing was pushed yet. Push a commit and watch it here from push to ready."));
    return;
  }
  for (const [i, t] of list.entries()) {
    const card = draw(t);
    card.open = touched.get(t.commit) ?? (i === 0 || !settled(t));
    if (card !== $("commits").children[i]) $("commits").insertBefore(card, $("commits").children[i] ?? null);
  }
  while ($("commits").children.length > list.length) $("commits").lastChild.remove();
  $("older").hidden = !older;
}

async function loadTraces(before) {
  const list = await get(`/traces?limit=${page}${before ? `&before=${before}` : ""}`);
  if (before || !traces.size) older = list.next ?? 0;
  for (const t of list.items) traces.set(t.commit, t);
  for (const t of list.items) for (const c of commitsOf(t).slice(1)) { traces.delete(c); cards.get(c)?.remove(); }
  showTraces();
}

/** reveal opens the commit that the address names, wherever it stands in a chain. */
async function reveal() {
  const wanted = location.hash.slice(1);
  if (!/^[0-9a-f]{4,64}$/.test(wanted)) return;
  let t = [...traces.values()].find((x) => commitsOf(x).some((c) => c.startsWith(wanted)));
  if (!t) {
    t = await get(`/traces/${wanted}`).catch(() => null);
    if (!t) return;
    traces.set(t.commit, t);
  }
  touched.set(t.commit, true);
  showTraces();
  cards.get(t.commit).scrollIntoView({ block: "start" });
  cards.get(t.commit).firstChild.focus({ preventScroll: true });
}

const parts = {
  status: () => get("/status").then(showStatus),
  apps: () => get("/apps?limit=100").then(showApps),
  traces: () => loadTraces(0),
};
const due = new Set();
let timer = 0;

/** refresh reads parts of the page again, together and at most 4 times a second. */
function refresh(...names) {
  names.forEach((n) => due.add(n));
  timer ||= setTimeout(async () => {
    const now = [...due];
    due.clear();
    const failed = (await Promise.allSettled(now.map((n) => parts[n]()))).filter((r) => r.status === "rejected");
    timer = 0;
    say(failed.length ? `cannot read: ${failed[0].reason.message}` : "");
    if (due.size) refresh();
  }, 250);
}

let connected = false, trouble = "";
function say(problem) {
  trouble = problem ?? trouble;
  const text = trouble || (connected ? "live" : "reconnecting");
  if ($("live").textContent !== text) $("live").textContent = text;
  $("live").classList.toggle("on", connected && !trouble);
}

$("older").addEventListener("click", () => loadTraces(older).catch((e) => say(`cannot read: ${e.message}`)));
addEventListener("hashchange", reveal);
// What goes on is read again each second for its first minutes, then less
// often; the rest now and then, for what happens without an event.
let ticks = 0;
setInterval(() => {
  if (document.hidden) return;
  const open = [...traces.values()].filter((t) => !settled(t));
  const fresh = open.some((t) => Date.now() - Date.parse(t.start) < 600000);
  if (++ticks % 20 === 0) refresh("status", "apps", "traces");
  else if (fresh || (open.length && ticks % 5 === 0)) refresh("traces");
}, 1000);

const first = await get("/status").catch(() => null);
if (first) showStatus(first);
await Promise.allSettled([parts.apps(), parts.traces()]);
reveal();
follow(first?.lastEvent ?? 0, (events) => {
  const stages = new Set(events.map((e) => e.stage));
  refresh("traces", ...(stages.has("platform") ? ["status"] : []), ...(["render", "plan", "apply", "ready"].some((s) => stages.has(s)) ? ["apps"] : []));
}, (on) => {
  if (on && !connected) refresh("status", "apps", "traces");
  connected = on;
  say();
});
