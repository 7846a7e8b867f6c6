// Drawing a commit: lanes on one time axis, what failed and why, where it
// stands. The words and rules are those of `lockstep trace`.
import { ago, duration, h, place, short, shortRef, tone } from "./dom.js";

const stages = ["push", "run", "image", "render", "plan", "apply", "ready"];
const glyphs = { ready: "✓", succeeded: "✓", failed: "✗", waiting: "…", pending: "…", skipped: "–", cancelled: "⊘", idle: "·", info: "·" };
const glyph = (status) => h(`span.${tone(status)}`, { title: status }, glyphs[status] ?? "▸");
export const settled = (t) => ["ready", "failed", "cancelled", "idle"].includes(t.state);

/** summary is the line of a closed card. */
export function summary(t) {
  const total = settled(t) ? t.totalMs : Date.now() - Date.parse(t.start);
  return [
    glyph(t.state), h("code.sha", null, short(t.commit)), h("span.subject", null, t.subject || "(no subject)"),
    h("span.when", { title: t.start }, `${duration(total)} · ${ago(t.start)}`),
    h("span.about", null, [t.repo, shortRef(t.ref), t.author && `by ${t.author}`].filter(Boolean).join(" · "),
      h("span.standing", null, settled(t) && t.state !== "failed" ? "" : ` · ${t.now}`)),
  ];
}

/** body is what a card shows when open. */
export function body(t) {
  const axis = { start: Date.parse(t.start), end: settled(t) ? Date.parse(t.end) : Date.now() };
  const name = (s, _, all) => (s === "run" && all.includes("image") ? "rest of run" : s || "in between");
  const names = (t.spent ?? []).map((s) => s.stage ?? "").map(name);
  const spent = (t.spent ?? []).map((s, i) => ({ ...s, name: names[i] })).filter((s) => s.ms >= t.totalMs / 100)
    .map((s) => `${s.name} ${duration(s.ms)} (${Math.round((100 * s.ms) / t.totalMs)}%)`);
  const hint = (t.failed ?? t.waiting)?.hint;
  return h("div.body", null, commit(t, axis, !settled(t)),
    h("p.now", null, glyph(t.state), " ", t.now),
    hint ? h("p.spent", null, h("span.hint", null, hint)) : null,
    h("p.spent", null, `Total ${duration(axis.end - axis.start)}${spent.length ? ": " + spent.join(", ") : ""}`),
    h("p.spent", null, h("code", null, `lockstep trace ${short(t.commit)}`)));
}

function commit(t, axis, live) {
  const children = t.children ?? [];
  const reached = Math.max(-1, ...t.lanes.map((l) => stages.indexOf(l.stage)));
  const rows = [];
  for (const [i, stage] of stages.entries()) {
    const lane = t.lanes.find((l) => l.stage === stage);
    if (lane) rows.push(...spans(lane).map((s, n) => row(n ? "" : stage, s, axis)));
    else if (live && !children.length && i > reached) {
      rows.push(h("li", null, h("span.stage", null, stage), h("span.what.soft", null, "to come")));
    }
  }
  return [h("ul.lanes", { "aria-label": `Stages of ${short(t.commit)}` }, rows),
    ...children.flatMap((c) => [
      h("h3", null, h("span.soft", null, "caused "), h("code", null, short(c.commit)), ` ${c.subject ?? ""} `, h("span.soft", null, c.actor ? `by ${c.actor}` : "")),
      ...commit(c, axis, live)])];
}

/** spans leaves out finished steps and all but the last attempts. */
function spans(lane) {
  const key = (s) => s.subject + (s.data?.step ? `#${s.data.step}` : "");
  const last = {};
  for (const s of lane.spans) last[key(s)] = s.attempt;
  return lane.spans.filter((s) => (!s.data?.step || !s.end || s.status === "failed") && s.attempt > last[key(s)] - 4).slice(-20);
}

function row(stage, s, axis) {
  const from = Date.parse(s.start), to = s.end ? Date.parse(s.end) : axis.end;
  const size = Math.max(1, axis.end - axis.start), percent = (ms) => `${Math.min(100, Math.max(0, (100 * ms) / size))}%`;
  const name = shortRef(s.subject) + (s.data?.step ? ` step ${s.data.step}` : "") + (s.attempt > 1 ? ` (attempt ${s.attempt})` : "");
  const bar = from > axis.end ? null : h(`i.${tone(s.status)}`, { style: { "--from": percent(from - axis.start), "--size": percent(to - from) } });
  return h("li", null, h("span.stage", null, stage), h("span.what", null, glyph(s.status), " ", name),
    h("span.track", { "aria-hidden": "true" }, bar),
    h("span.took", null, to > from ? duration(to - from) : ""), why(s));
}

function why(s) {
  if (["succeeded", "info"].includes(s.status) || !(s.message || s.file)) return null;
  return h(`div.why.${tone(s.status)}`, null, s.file ? h("span.mono", null, place(s)) : null, s.message ?? "",
    s.hint ? h("div.hint", null, s.hint) : null);
}
