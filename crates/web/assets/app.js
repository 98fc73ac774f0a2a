// What every page does in the browser: theme, times, copying, keyboard in lists, live rows.
"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Theme: kept in a cookie, so that the server renders the right one at once.
  const isDark = () => {
    const set = document.documentElement.dataset.theme;
    return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const toggleTheme = () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    document.cookie = `tl_theme=${theme}; path=/; max-age=31536000; samesite=lax`;
  };

  // Where the tab bar is wider than a phone, the page's own tab is in view.
  $(".rail [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

  // Times: "8 s ago" stays true, and the absolute time on hover is in the reader's own zone.
  const ago = (at) => {
    const secs = Math.floor(Math.abs(Date.now() - at) / 1000);
    const text = secs < 2 ? "now" : secs < 60 ? `${secs} s` : secs < 3600 ? `${Math.floor(secs / 60)} min`
      : secs < 172800 ? `${Math.floor(secs / 3600)} h` : `${Math.floor(secs / 86400)} d`;
    return text === "now" ? text : at > Date.now() ? `in ${text}` : `${text} ago`;
  };
  const freshenTimes = (root = document) => {
    for (const time of $$("time[data-ago]", root)) {
      const at = Date.parse(time.dateTime);
      if (Number.isNaN(at)) continue;
      const text = ago(at);
      if (time.textContent !== text) time.textContent = text;
      if (!time.dataset.local) {
        time.dataset.local = "1";
        time.title = `${new Date(at).toLocaleString()} (${time.title})`;
      }
    }
  };
  setInterval(freshenTimes, 5000);

  let toastTimer;
  const toast = (text) => {
    let box = $(".toast");
    if (!box) {
      box = document.createElement("div");
      box.className = "toast";
      box.setAttribute("role", "status");
      document.body.append(box);
    }
    box.textContent = text;
    box.hidden = false;
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => { box.hidden = true; }, 3500);
  };

  const copy = async (button) => {
    const near = button.hasAttribute("data-copy-near");
    let text = near ? button.closest("[data-text]")?.dataset.text : button.dataset.copy;
    if (near && !text) text = $("[data-text-of]", button.parentElement)?.textContent ?? "";
    if (button.hasAttribute("data-copy-link")) text = new URL(text, location.href).href;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Plain http on another host has no clipboard API.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };

  // Lists: j/k choose a row, Enter opens it, / goes to the filter.
  const rows = () => $$("tr[data-href]");
  const chosen = () => $('tr[aria-selected="true"]');
  const choose = (row) => {
    if (!row) return;
    chosen()?.removeAttribute("aria-selected");
    row.setAttribute("aria-selected", "true");
    row.scrollIntoView({ block: "nearest" });
  };
  const move = (by) => {
    const all = rows();
    const at = all.indexOf(chosen());
    choose(all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.max(0, Math.min(all.length - 1, at + by))]);
  };
  const isTyping = (target) => target.closest?.("input, select, textarea, [contenteditable]");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && isTyping(event.target)) { event.target.blur(); return; }
    if (isTyping(event.target)) return;
    if (event.key === "/") {
      const find = $("[data-find]");
      if (find) { event.preventDefault(); find.focus(); find.select(); }
    }
    if (event.key === "p") $("[data-live]")?.click();
    if (!rows().length) return;
    if (event.key === "j" || event.key === "ArrowDown") { event.preventDefault(); move(1); }
    if (event.key === "k" || event.key === "ArrowUp") { event.preventDefault(); move(-1); }
    if (event.key === "Enter" && chosen() && !event.target.closest("a, button, summary")) location.href = chosen().dataset.href;
    if (event.key === "Escape") chosen()?.removeAttribute("aria-selected");
  });

  document.addEventListener("click", (event) => {
    const target = event.target;
    if (target.closest("[data-theme-toggle]")) return toggleTheme();
    const copier = target.closest("[data-copy], [data-copy-near]");
    if (copier) { event.preventDefault(); return void copy(copier); }
    const opener = target.closest("[data-toggle]");
    if (opener) return void opener.closest("form").classList.toggle("open");
    const row = target.closest("tr[data-href]");
    if (row && !target.closest("a, button, input") && !String(getSelection())) {
      if (event.metaKey || event.ctrlKey) window.open(row.dataset.href, "_blank", "noopener");
      else location.href = row.dataset.href;
    }
  });

  // A table of attributes is filtered as one types.
  document.addEventListener("input", (event) => {
    const list = event.target.dataset?.narrows && document.getElementById(event.target.dataset.narrows);
    if (!list) return;
    const part = event.target.value.toLowerCase();
    for (const row of list.rows) row.hidden = !row.textContent.toLowerCase().includes(part);
  });

  // Filters: what is empty does not go into the address.
  document.addEventListener("htmx:configRequest", (event) => {
    const given = event.detail.parameters;
    for (const name of [...Object.keys(given)]) if (given[name] === "") delete given[name];
  });
  document.addEventListener("htmx:responseError", (event) => toast(event.detail.xhr.responseText || "the server answered with an error"));
  document.addEventListener("htmx:sendError", () => toast("the server cannot be reached"));
  document.addEventListener("htmx:afterSwap", () => { freshenTimes(); live.connect(); });

  // Live rows: known rows change in place; new ones come in on top while nobody is reading further
  // down, and wait behind a pill otherwise. Nothing that is being read moves.
  const MAX_LIVE_ROWS = 200;
  const live = {
    source: null, url: null, on: true, waiting: new Map(),
    connect() {
      const button = $("[data-live]");
      const url = button?.dataset.live ?? null;
      if (button) this.show();
      if (url === this.url && this.source) return;
      this.source?.close();
      this.source = null;
      this.waiting.clear();
      this.pill();
      this.url = url;
      if (!url || !this.on) return;
      this.source = new EventSource(url);
      this.source.addEventListener("open", () => this.show());
      this.source.addEventListener("error", () => this.show("lost"));
      this.source.addEventListener("rows", (event) => this.take(JSON.parse(event.data)));
      this.source.addEventListener("resync", () => location.reload());
    },
    show(state) {
      const button = $("[data-live]");
      if (!button) return;
      button.setAttribute("aria-pressed", String(this.on));
      if (state) button.dataset.state = state; else delete button.dataset.state;
      $(".word", button).textContent = !this.on ? "Paused" : state === "lost" ? "Reconnecting" : "Live";
    },
    toggle() {
      this.on = !this.on;
      if (this.on) { this.url = null; this.connect(); location.reload(); } else { this.source?.close(); this.source = null; this.show(); }
    },
    isReading() {
      return scrollY > 60 || chosen() || String(getSelection()) || document.hidden;
    },
    take(items) {
      for (const { id, html } of items) {
        const known = document.getElementById(id);
        if (known) { this.replace(known, html); this.waiting.delete(id); } else { this.waiting.delete(id); this.waiting.set(id, html); }
      }
      if (!this.isReading()) this.flush(); else this.pill();
      freshenTimes();
    },
    parse(html) {
      const holder = document.createElement("template");
      holder.innerHTML = html.trim();
      return holder.content.firstElementChild;
    },
    replace(known, html) {
      const row = this.parse(html);
      if (known.getAttribute("aria-selected")) row.setAttribute("aria-selected", "true");
      known.replaceWith(row);
    },
    flush() {
      const body = $("#rows");
      if (!body || !this.waiting.size) return this.pill();
      $(".none", body)?.closest("tr")?.remove();
      for (const html of this.waiting.values()) {
        const row = this.parse(html);
        row.classList.add("fresh");
        body.prepend(row);
      }
      this.waiting.clear();
      while (body.rows.length > MAX_LIVE_ROWS) body.rows[body.rows.length - 1].remove();
      this.pill();
      if ($("[data-first]")) location.reload();
    },
    pill() {
      const pill = $("#pill");
      if (!pill) return;
      const n = this.waiting.size;
      pill.hidden = n === 0;
      $("button", pill).textContent = `${n} new`;
    },
  };
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-live]")) live.toggle();
    if (event.target.closest("#pill button")) { scrollTo({ top: 0 }); chosen()?.removeAttribute("aria-selected"); live.flush(); }
  });
  addEventListener("scroll", () => { if (live.waiting.size && !live.isReading()) live.flush(); }, { passive: true });
  // A browser holds six connections to a site over HTTP/1.1: pages that nobody looks at give theirs
  // back, and catch up when one returns to them.
  const HIDDEN_MS = 20000;
  let hiddenTimer;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) {
      hiddenTimer = setTimeout(() => { live.source?.close(); live.source = null; live.slept = true; }, HIDDEN_MS);
    } else if (live.slept && live.on && live.url) {
      live.slept = false;
      if (live.isReading()) { live.url = null; live.connect(); } else location.reload();
    }
  });
  addEventListener("pagehide", () => { live.source?.close(); live.source = null; });
  addEventListener("pageshow", (event) => { if (event.persisted) { live.url = null; live.connect(); } });

  window.throughline = { toast, freshenTimes, isTyping };
  freshenTimes();
  live.connect();
})();
