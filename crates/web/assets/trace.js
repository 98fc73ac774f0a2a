// The trace page: folding, keyboard, finding, errors, zoom, and the details panel.
"use strict";
(() => {
  const view = document.getElementById("view");
  if (!view) return;
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const tree = $("#tree");
  const wf = $(".wf");
  const panel = $("#panel");
  const length = Number(view.dataset.length);
  const { toast, isTyping } = window.throughline;
  const rows = () => tree.getElementsByClassName("r");
  const level = (row) => Number(row.getAttribute("aria-level"));
  const isShown = (row) => !row.classList.contains("off");
  let selected = null;

  // Rows are in reading order: the descendants of a row are the n rows after it. Chunks are siblings.
  const nextRow = (row) => row.nextElementSibling ?? row.parentElement.nextElementSibling?.querySelector?.(":scope > .r") ?? null;
  const beforeRow = (row) => row.previousElementSibling ?? (row.parentElement.previousElementSibling?.classList.contains("ck") ? row.parentElement.previousElementSibling.lastElementChild : null);
  const toggleOf = (row) => $("button.tg", row);
  const isOpen = (row) => toggleOf(row)?.getAttribute("aria-expanded") === "true";

  // What is in sight follows from what is folded; chunks out of sight keep their true height.
  let onlyErrors = false;
  const keep = new Set();
  const refresh = () => {
    let hiddenBelow = Infinity;
    for (const chunk of tree.getElementsByClassName("ck")) {
      let shown = 0;
      for (const row of chunk.children) {
        const depth = level(row);
        if (depth <= hiddenBelow) hiddenBelow = Infinity;
        const off = hiddenBelow !== Infinity || (onlyErrors && !keep.has(row));
        row.classList.toggle("off", off);
        if (!off) shown += 1;
        if (hiddenBelow === Infinity && row.dataset.n && !isOpen(row)) hiddenBelow = depth;
      }
      chunk.style.containIntrinsicHeight = `calc(${shown} * var(--rowh))`;
    }
  };
  const fold = (row, open) => {
    const toggle = toggleOf(row);
    if (toggle) toggle.setAttribute("aria-expanded", String(open));
  };
  const reveal = (row) => {
    let depth = level(row);
    for (let at = beforeRow(row); at && depth > 1; at = beforeRow(at)) {
      if (level(at) < depth) { depth = level(at); fold(at, true); }
    }
    refresh();
  };

  const select = (row, scroll = true) => {
    if (!row) return;
    selected?.classList.remove("sel");
    selected?.removeAttribute("aria-selected");
    selected = row;
    row.classList.add("sel");
    row.setAttribute("aria-selected", "true");
    if (!scroll) return;
    const top = $(".wf-top").getBoundingClientRect().bottom;
    const box = row.getBoundingClientRect();
    if (box.top < top + 4 || box.bottom > innerHeight - 80) row.scrollIntoView({ block: "center" });
  };
  const step = (by) => {
    let row = selected ?? null;
    do { row = row ? (by > 0 ? nextRow(row) : beforeRow(row)) : rows()[0]; } while (row && !isShown(row));
    select(row);
    if (row && view.classList.contains("open") && innerWidth > 1000) later(() => open(row, true));
  };
  let timer;
  const later = (work) => { clearTimeout(timer); timer = setTimeout(work, 120); };

  // Details.
  const spanOf = (row) => new URLSearchParams($(".nm", row).getAttribute("href")).get("span");
  let asked = 0;
  const open = async (row, replace) => {
    const id = spanOf(row);
    const turn = ++asked;
    try {
      const answer = await fetch(`/traces/${view.dataset.trace}/spans/${id}`, { headers: { "hx-request": "true" } });
      if (turn !== asked) return;
      if (answer.status === 401) { location.reload(); return; }
      const text = await answer.text();
      if (!answer.ok) { toast(text); return; }
      const wasOpen = view.classList.contains("open");
      panel.innerHTML = text;
      view.classList.add("open");
      ruler();
      const url = new URL(location.href);
      url.searchParams.set("span", id);
      if (replace || wasOpen) history.replaceState({ span: id }, "", url);
      else history.pushState({ span: id, pushed: true }, "", url);
      window.throughline.freshenTimes(panel);
      if (innerWidth <= 1000) $("[data-close]", panel)?.focus();
    } catch {
      toast("the server cannot be reached");
    }
  };
  const close = () => {
    if (!view.classList.contains("open")) return false;
    asked += 1;
    if (history.state?.pushed) { history.back(); return true; }
    shut();
    const url = new URL(location.href);
    url.searchParams.delete("span");
    history.replaceState({}, "", url);
    return true;
  };
  const shut = () => { panel.replaceChildren(); view.classList.remove("open"); ruler(); };
  addEventListener("popstate", () => {
    const id = new URLSearchParams(location.search).get("span");
    const row = id && document.getElementById(`s-${id}`);
    if (row) { select(row); open(row, true); } else shut();
  });

  tree.addEventListener("click", (event) => {
    const row = event.target.closest(".r");
    if (!row) return;
    if (event.target.closest("button.tg")) {
      fold(row, !isOpen(row));
      refresh();
      return;
    }
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    if (String(getSelection())) return;
    event.preventDefault();
    select(row, false);
    open(row);
  });
  panel.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) close();
    const jump = event.target.closest(".p-nav a");
    if (jump) { event.preventDefault(); $(jump.getAttribute("href"))?.scrollIntoView({ block: "start" }); }
  });

  // Folding all.
  $("#fold-all").addEventListener("click", () => {
    for (const row of rows()) if (row.dataset.n) fold(row, level(row) < 2);
    refresh();
  });
  $("#unfold-all").addEventListener("click", () => {
    for (const row of rows()) if (row.dataset.n) fold(row, true);
    refresh();
  });

  // Errors.
  const nextError = () => {
    const all = $$(".r.err", tree);
    if (!all.length) return toast("no failed span is loaded");
    const here = selected;
    const next = here && all.find((row) => here.compareDocumentPosition(row) & Node.DOCUMENT_POSITION_FOLLOWING);
    const row = next ?? all[0];
    reveal(row);
    select(row);
    if (view.classList.contains("open") && innerWidth > 1000) open(row, true);
  };
  $("#next-error")?.addEventListener("click", nextError);
  const only = $("#only-errors");
  const markErrors = () => {
    keep.clear();
    for (const row of $$(".r.err", tree)) {
      keep.add(row);
      let depth = level(row);
      for (let at = beforeRow(row); at && depth > 1; at = beforeRow(at)) {
        if (level(at) < depth) { depth = level(at); keep.add(at); fold(at, true); }
      }
    }
  };
  only?.addEventListener("click", () => {
    onlyErrors = !onlyErrors;
    only.setAttribute("aria-pressed", String(onlyErrors));
    if (onlyErrors) markErrors();
    refresh();
    (selected && isShown(selected) ? selected : tree).scrollIntoView({ block: "nearest" });
  });

  // Finding: rows that do not have the text fade; Enter goes from one to the next.
  const field = $("#find");
  const hits = $("#hits");
  let found = [];
  const find = () => {
    const part = field.value.trim().toLowerCase();
    found = [];
    for (const row of rows()) {
      const has = part !== "" && $(".n", row).textContent.toLowerCase().includes(part);
      row.classList.toggle("hit", has);
      row.classList.toggle("miss", part !== "" && !has);
      if (has) found.push(row);
    }
    hits.textContent = part === "" ? "" : found.length === 1 ? "1 hit" : `${found.length} hits`;
  };
  const nextHit = (by) => {
    if (!found.length) return;
    const at = found.indexOf(selected);
    const row = found[(at + by + found.length) % found.length];
    reveal(row);
    select(row);
    hits.textContent = `${found.indexOf(row) + 1} of ${found.length}`;
  };
  field.addEventListener("input", find);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); nextHit(event.shiftKey ? -1 : 1); }
    if (event.key === "Escape" && field.value) { field.value = ""; find(); }
  });

  // Zoom: `from` and `to` are shares of the whole time. Bars follow by two variables of the style.
  let [from, to] = [0, 1];
  const MIN_WINDOW = 1e-5;
  const mini = $("#mini");
  const win = $(".win", mini);
  const show = (a, b) => {
    const wide = Math.max(MIN_WINDOW, Math.min(1, b - a));
    from = Math.max(0, Math.min(1 - wide, a));
    to = from + wide;
    wf.style.setProperty("--zoom", String(1 / wide));
    wf.style.setProperty("--pan", String(from));
    win.hidden = wide === 1;
    win.style.left = `${from * 100}%`;
    win.style.width = `${wide * 100}%`;
    ruler();
  };
  const label = (ns) => {
    if (ns === 0) return "0";
    const [unit, name] = ns < 1e3 ? [1, "ns"] : ns < 1e6 ? [1e3, "µs"] : ns < 1e9 ? [1e6, "ms"] : ns < 120e9 ? [1e9, "s"] : ns < 7200e9 ? [6e10, "min"] : ns < 172800e9 ? [3.6e12, "h"] : [86400e9, "d"];
    return `${Number((ns / unit).toFixed(3))} ${name}`;
  };
  const SVG = document.createElementNS.bind(document, view.querySelector("svg").namespaceURI);
  const ruler = () => {
    const wide = to - from;
    const most = Math.max(2, Math.min(6, Math.floor($("#ticks").clientWidth / 52)));
    const rough = (length * wide) / most;
    const decimal = (n) => [1, 2, 5, 10].map((f) => f * 10 ** Math.floor(Math.log10(n))).find((s) => s >= n);
    const clock = [10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 21600, 43200].map((secs) => secs * 1e9);
    const tick = rough < 5e9 ? decimal(rough) : clock.find((s) => s >= rough) ?? decimal(rough / 86400e9) * 86400e9;
    const labels = SVG("svg");
    const lines = SVG("svg");
    for (let at = Math.ceil((from * length) / tick) * tick; at <= to * length; at += tick) {
      const x = `${(((at / length - from) / wide) * 100).toFixed(3)}%`;
      const line = SVG("line");
      const text = SVG("text");
      for (const [name, value] of [["x1", x], ["x2", x], ["y1", "0"], ["y2", "100%"]]) line.setAttribute(name, value);
      const late = (to - at / length) / wide * $("#ticks").clientWidth < 48;
      for (const [name, value] of [["x", x], ["dx", late ? "-5" : "5"], ["y", "16"], ["text-anchor", late ? "end" : "start"]]) text.setAttribute(name, value);
      const isTight = late && (tick / length / wide) * $("#ticks").clientWidth < 96;
      text.textContent = isTight ? "" : label(Math.round(at * 1000) / 1000);
      labels.append(line.cloneNode(), text);
      lines.append(line);
    }
    $("#ticks").replaceChildren(labels);
    $("#grid").replaceChildren(lines);
  };
  const zoom = (factor, around = (from + to) / 2) => {
    const wide = (to - from) * factor;
    show(around - (around - from) * factor, around - (around - from) * factor + wide);
  };
  $("#zoom-in").addEventListener("click", () => zoom(0.5));
  $("#zoom-out").addEventListener("click", () => zoom(2));
  $("#zoom-fit").addEventListener("click", () => show(0, 1));
  const shareAt = (event) => {
    const box = mini.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
  };
  let dragged = null;
  mini.addEventListener("pointerdown", (event) => { dragged = shareAt(event); mini.setPointerCapture(event.pointerId); });
  mini.addEventListener("pointermove", (event) => {
    if (dragged === null) return;
    const at = shareAt(event);
    win.hidden = false;
    win.style.left = `${Math.min(dragged, at) * 100}%`;
    win.style.width = `${Math.abs(at - dragged) * 100}%`;
  });
  mini.addEventListener("pointerup", (event) => {
    if (dragged === null) return;
    const at = shareAt(event);
    const [a, b] = [Math.min(dragged, at), Math.max(dragged, at)];
    dragged = null;
    if (b - a > 0.003) show(a, b); else show(from, to);
  });
  mini.addEventListener("dblclick", () => show(0, 1));
  tree.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = $("#grid").getBoundingClientRect();
    const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    zoom(event.deltaY > 0 ? 1.25 : 0.8, from + share * (to - from));
  }, { passive: false });
  addEventListener("resize", () => later(ruler));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const row = selected;
    switch (event.key) {
      case "j": case "ArrowDown": event.preventDefault(); step(1); break;
      case "k": case "ArrowUp": event.preventDefault(); step(-1); break;
      case "ArrowRight": case "l":
        if (!row || event.target.closest(".panel")) break;
        event.preventDefault();
        if (row.dataset.n && !isOpen(row)) { fold(row, true); refresh(); } else step(1);
        break;
      case "ArrowLeft": case "h": {
        if (!row || event.target.closest(".panel")) break;
        event.preventDefault();
        if (row.dataset.n && isOpen(row)) { fold(row, false); refresh(); break; }
        let at = beforeRow(row);
        while (at && level(at) >= level(row)) at = beforeRow(at);
        if (at) select(at);
        break;
      }
      case "Enter": if (row && !event.target.closest("a, button, summary")) { event.preventDefault(); open(row); } break;
      case "Escape": if (!close()) { selected?.classList.remove("sel"); selected = null; } break;
      case "e": nextError(); break;
      case "+": case "=": zoom(0.5); break;
      case "-": zoom(2); break;
      case "0": show(0, 1); break;
      default:
    }
  });

  // Long traces: the rows that the page did not bring come now, or when one scrolls to their place.
  // They follow what was chosen before they came.
  const loadMore = async (rest) => {
    try {
      const answer = await fetch(rest.dataset.rows, { headers: { "hx-request": "true" } });
      const text = await answer.text();
      if (!answer.ok) throw new Error(text);
      const holder = document.createElement("template");
      holder.innerHTML = text;
      rest.replaceWith(holder.content);
    } catch (error) {
      rest.textContent = `The other spans could not be loaded: ${error.message}`;
      return;
    }
    if (onlyErrors) markErrors();
    if (field.value) find();
    if (onlyErrors || $('button.tg[aria-expanded="false"]', tree)) refresh();
    jump();
    awaitMore();
  };
  const awaitMore = () => {
    const rest = $(".more-rows", tree);
    if (!rest) return;
    if (rest.dataset.when === "now") { requestAnimationFrame(() => setTimeout(loadMore, 0, rest)); return; }
    const seen = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) { seen.disconnect(); loadMore(rest); }
    }, { rootMargin: "1000px" });
    seen.observe(rest);
  };
  const jump = () => {
    const id = new URLSearchParams(location.search).get("span");
    const row = id && !selected && document.getElementById(`s-${id}`);
    if (row) select(row);
  };
  ruler();
  jump();
  awaitMore();
})();
