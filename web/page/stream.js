// One stream of events for the page: closed while nobody looks, resumed where
// it ended, opened again with growing pauses when the platform is away.

/** follow calls onEvents(list) for new events and onState(connected) at changes. */
export function follow(after, onEvents, onState) {
  let source = null, timer = 0, failures = 0;
  const open = () => {
    clearTimeout(timer);
    if (source || document.hidden) return;
    source = new EventSource(`/api/v1/events?after=${after}`);
    source.addEventListener("hello", () => { failures = 0; onState(true); });
    source.addEventListener("journal", (m) => { after = Number(m.lastEventId); onEvents(JSON.parse(m.data)); });
    source.onerror = () => {
      close();
      const pause = Math.min(30000, 500 * 2 ** failures++) * (0.5 + Math.random());
      timer = setTimeout(open, pause);
    };
  };
  const close = () => { source?.close(); source = null; onState(false); };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}
