// Building elements and writing times. Text is always set as text: nothing that
// a repository says can become markup.

/** h makes an element: h("p.soft", {title: "…"}, "text", child, null). */
export function h(spec, props, ...children) {
  const [tag, ...classes] = spec.split(".");
  const el = document.createElement(tag);
  el.className = classes.join(" ");
  for (const [name, value] of Object.entries(props ?? {})) {
    if (name === "style") for (const [k, v] of Object.entries(value)) el.style.setProperty(k, v);
    else if (value !== undefined && value !== null) el.setAttribute(name, value);
  }
  el.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== ""));
  return el;
}

/** link makes a link of an http(s) address, plain text of anything else. */
export function link(url, text) {
  return /^https?:\/\//.test(url) ? h("a", { href: url, rel: "noreferrer" }, text) : h("span", null, text);
}

/** duration writes milliseconds as `lockstep trace` does: 120ms, 4.2s, 3m05s, 2h07m, 3d4h. */
export function duration(ms) {
  const s = Math.floor(ms / 1000), two = (n) => String(n).padStart(2, "0");
  if (ms <= 0) return "0s";
  if (s < 1) return `${Math.max(1, Math.floor(ms))}ms`;
  if (s < 60) return `${(Math.floor(ms / 100) / 10).toFixed(1)}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  if (s < 172800) return `${Math.floor(s / 3600)}h${two(Math.floor(s / 60) % 60)}m`;
  return `${Math.floor(s / 86400)}d${Math.floor(s / 3600) % 24}h`;
}

/** ago is how long a time is past, coarsely. */
export function ago(time) {
  const s = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  const parts = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  const [size, unit] = parts.find(([n]) => s >= n) ?? [1, "second"];
  return new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(-Math.floor(s / size), unit);
}

export const short = (commit) => (commit ?? "").slice(0, 7);
export const shortRef = (ref) => (ref ?? "").replace(/^refs\/(heads|tags)\//, "");
export const place = (x) => (x.line ? `${x.file}:${x.line}` : x.file);

/** tone is the colour class of a state's word. */
export function tone(word) {
  switch ((word ?? "").toLowerCase()) {
    case "synced": case "healthy":  case "ready": case "succeeded": return "good";
    case "degraded": case "missing": case "failed": return "bad";
    case "outofsync": case "waiting": case "pending": case "restarting": case "suspended": return "warn";
    case "progressing": case "started": case "running": case "starting": return "busy";
  }
  return "soft";
}
