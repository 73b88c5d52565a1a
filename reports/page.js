"use strict";
// What every page of kerneldyno does: draw charts when they are seen, follow the theme, filter, sort, save, link, print.
const kerneldyno = (() => {
  const root = document.documentElement;
  const nonce = document.currentScript.nonce;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  root.classList.add("js");

  // embedded data are JSON, compressed unless the page is plain; each is unpacked once, when first wanted
  async function unpacked(id) {
    const element = document.getElementById(id);
    if (element.dataset.packed === undefined) return element.textContent;
    const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  const memory = new Map();
  function read(id) {
    if (!memory.has(id)) memory.set(id, unpacked(id).then(JSON.parse));
    return memory.get(id);
  }
  const ARRAYS = { f4: Float32Array, f8: Float64Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array };
  function typed(given) {
    if (Array.isArray(given)) return given;
    return new ARRAYS[given.dtype](Uint8Array.from(atob(given.bdata), (character) => character.charCodeAt(0)).buffer);
  }

  // plotly itself, when the first chart comes into view
  let library = null;
  async function unpack() {
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = await unpacked("plotly");
    document.head.append(script);
    return window.Plotly;
  }
  const plotly = () => (library ??= window.Plotly ? Promise.resolve(window.Plotly) : unpack());

  const darkSystem = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const isDark = () => !printing && (root.dataset.theme ? root.dataset.theme === "dark" : darkSystem.matches);
  const filters = {};
  const shortName = (kernel) => kernel.slice(kernel.indexOf("/") + 1);

  // pages may add conditions of their own, under which a trace is hidden: (chart, trace.meta) -> boolean
  const hiding = [
    (chart, meta) => {
      if (!meta.kernel) return false;
      const boxes = all(".legend input", chart.closest(".block") ?? root).filter((box) => box.value === meta.kernel);
      return boxes.some((box) => !box.checked) || (Boolean(filters.kernel) && ![meta.kernel, shortName(meta.kernel)].includes(filters.kernel));
    },
  ];

  function themed(chart, { data, layout }) {
    const style = getComputedStyle(root);
    const color = (name) => style.getPropertyValue(name).trim();
    const traces = data.map((trace) => {
      const own = trace.meta?.[isDark() ? "dark" : "light"];
      const shown = { ...trace, visible: !hiding.some((hides) => hides(chart, trace.meta ?? {})) };
      if (!own) return shown;
      shown.line = { ...trace.line, color: own };
      if (trace.marker) shown.marker = { ...trace.marker, color: own, line: { ...trace.marker.line, color: own } };
      if (trace.fillcolor) shown.fillcolor = `${own}${trace.fillcolor.slice(7)}`;
      for (const bar of ["error_x", "error_y"]) if (trace[bar]) shown[bar] = { ...trace[bar], color: own };
      return shown;
    });
    const axis = (given) => {
      const title = { ...given.title, font: { size: 11, color: color("--muted") } };
      return { ...given, title, gridcolor: color("--line"), linecolor: color("--line"), zerolinecolor: color("--line"), tickfont: { size: 11, color: color("--muted") } };
    };
    const axes = Object.fromEntries(Object.entries(layout).filter(([name]) => /^[xy]axis\d*$/.test(name)).map(([name, given]) => [name, axis(given)]));
    const page = {
      ...layout, ...axes, autosize: true, showlegend: false, dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: color("--ink") },
      hoverlabel: { bgcolor: color("--soft"), bordercolor: color("--line"), font: { color: color("--ink"), size: 12 }, align: "left" },
    };
    return [traces, page];
  }

  const OPTIONS = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false };
  const drawn = new WeakMap(); // chart -> the figure last drawn in it, for the next theme
  async function draw(chart, figure) {
    try {
      const Plotly = await plotly();
      figure ??= chart.dataset.figure ? (await read("figures"))[chart.dataset.figure] : drawn.get(chart);
      drawn.set(chart, figure);
      const named = figure.data.filter((trace) => trace.meta?.kernel);
      chart.closest("figure")?.classList.toggle("empty", named.length > 0 && named.every((trace) => hiding.some((hides) => hides(chart, trace.meta))));
      await Plotly.react(chart, ...themed(chart, figure), OPTIONS);
      chart.dataset.drawn = chart.dataset.figure ?? "own";
    } catch (error) {
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = "This browser could not draw the chart; the table below has its numbers.";
      chart.replaceChildren(note);
      console.error(error);
    }
  }
  // a chart that leaves the page takes its listeners with it
  const forget = (chart) => { if (chart.dataset.drawn) window.Plotly.purge(chart); };
  const redraw = (within = document) => all(".chart[data-drawn]", within).forEach((chart) => draw(chart));

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  all(".chart[data-figure]").forEach((chart) => seen.observe(chart));

  // theme: the system's, unless chosen; storage may be forbidden for a file
  const theme = document.getElementById("theme");
  const remembered = () => { try { return localStorage.getItem("kerneldyno-theme") ?? ""; } catch { return ""; } };
  function applyTheme(value) {
    if (value) root.dataset.theme = value; else delete root.dataset.theme;
    theme.value = value;
    redraw();
  }
  theme.addEventListener("change", () => {
    try { localStorage.setItem("kerneldyno-theme", theme.value); } catch { /* only this visit then */ }
    applyTheme(theme.value);
  });
  applyTheme(["light", "dark"].includes(remembered()) ? remembered() : "");
  darkSystem.addEventListener("change", () => redraw());

  root.addEventListener("change", ({ target }) => {
    if (target.matches(".legend input")) redraw(target.closest(".block") ?? document);
    if (target.matches("select.shape")) {
      const chart = target.closest(".chosen").querySelector(".chart");
      chart.dataset.figure = target.value;
      chart.previousElementSibling.textContent = target.selectedOptions[0].textContent;
      chart.setAttribute("aria-label", `${chart.dataset.spoken} ${target.selectedOptions[0].textContent}`);
      draw(chart);
    }
    if (target.matches("select[data-filter]")) {
      filter();
      redraw();
    }
  });

  // filters act on everything that names an operator, a kernel, a data type …
  const search = document.getElementById("search");
  const listeners = [];
  function filter() {
    const names = all("select[data-filter]").map((select) => select.dataset.filter);
    for (const select of all("select[data-filter]")) filters[select.dataset.filter] = select.value;
    for (const element of all(names.map((name) => `[data-${name}]`).join(", ") || "[data-operator]")) {
      element.hidden = names.some((name) => filters[name] && element.dataset[name] !== undefined && element.dataset[name] !== filters[name]);
    }
    // what is left of a table or a block of charts without any of its kernels goes, too
    const shown = (within, selector) => all(selector, within).some((inner) => !inner.hidden);
    for (const body of all(".grid tbody, .trade tbody")) body.hidden = Boolean(body.querySelector("[data-kernel]")) && !shown(body, "[data-kernel]");
    for (const table of all(".gridded")) table.classList.toggle("bare", Boolean(table.querySelector("tbody")) && !shown(table, "tbody"));
    for (const block of all(".block")) {
      const names = all(".legend input[value]", block).map((box) => shortName(box.value));
      block.classList.toggle("bare", Boolean(filters.kernel) && names.length > 0 && !names.includes(filters.kernel));
    }
    const listed = all("table.sortable#listing tbody tr");
    const wanted = search?.value.trim().toLowerCase() ?? "";
    for (const row of listed) row.hidden ||= !row.cells[1].textContent.toLowerCase().includes(wanted);
    const left = listed.filter((row) => !row.hidden).length;
    const told = document.getElementById("shown");
    if (told && listed.length) told.textContent = left === listed.length ? "" : `${left} of ${listed.length} shown`;
    listeners.forEach((tell) => tell(filters));
  }
  search?.addEventListener("input", filter);

  // sorting: numbers as numbers, what is not there last in both directions
  function compare(a, b, direction) {
    const [none, other] = [a, b].map((key) => key === "" || key === null || key === undefined || Number.isNaN(key));
    if (none || other) return none - other;
    return (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))) * direction;
  }
  function keyed(rows, column) {
    const keys = rows.map((row) => row.cells[column].dataset.key);
    const numeric = keys.every((key) => key === "" || !Number.isNaN(Number(key)));
    return new Map(rows.map((row, index) => [row, keys[index] === "" ? "" : numeric ? Number(keys[index]) : keys[index]]));
  }
  function sortRows(table, column, direction) {
    const rows = all("tbody tr", table);
    const keys = keyed(rows, column);
    table.tBodies[0].append(...rows.sort((a, b) => compare(keys.get(a), keys.get(b), direction)));
  }
  function sortable(table, sort) {
    const headings = all("thead th", table);
    headings.forEach((heading, column) => {
      const label = heading.querySelector(".heading");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label.textContent;
      label.replaceWith(button);
      button.addEventListener("click", () => {
        const ascending = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sort(table, column, ascending ? 1 : -1);
      });
    });
  }
  all("table.sortable").forEach((table) => sortable(table, sortRows));

  // lines of a table as CSV, written as pandas writes it
  const quoted = (value) => {
    const text = value === null ? "" : value === true ? "True" : value === false ? "False" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (lines) => `${lines.map((cells) => cells.map(quoted).join(",")).join("\n")}\n`;
  function save(text, type, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not everywhere allowed for a file
      const field = document.createElement("textarea");
      field.value = text;
      (button.closest("dialog") ?? document.body).append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    const words = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = words; }, 1500);
  }
  const download = document.getElementById("download");
  if (document.getElementById("csv")) {
    download?.addEventListener("click", async () => save(await read("csv"), "text/csv", download.dataset.file ?? "results.csv"));
  }

  // a link to a place opens what it is folded into
  function reveal() {
    let target = null;
    try {
      target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch { /* a link that was cut off leads nowhere */ }
    if (!target) return;
    for (let outer = target.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
    target.scrollIntoView({ block: "center" });
  }
  addEventListener("hashchange", reveal);
  reveal();

  // on paper: light colours, and drawings as wide as half a page or a whole one. The button waits until all charts are drawn;
  // the browser's own command takes those that are there, and a line stands in for the others
  const MOST_PRINTED = 80;
  const PAPER = { half: 335, whole: 680, height: 235 }; // CSS pixels: A4 or letter upright, with usual margins
  let before = null;
  addEventListener("beforeprint", () => {
    if (!printing) before = root.dataset.theme ?? "";
    printing = true;
    root.dataset.theme = "light";
    if (!window.Plotly) return;
    for (const chart of all(".chart[data-drawn]").filter((one) => drawn.has(one))) {
      const [traces, layout] = themed(chart, drawn.get(chart));
      const half = chart.closest(".panels, .trends");
      const height = half ? PAPER.height : layout.height ?? chart.clientHeight;
      window.Plotly.react(chart, traces, { ...layout, autosize: false, width: half ? PAPER.half : PAPER.whole, height }, { ...OPTIONS, responsive: false });
    }
  });
  addEventListener("afterprint", () => {
    printing = false;
    applyTheme(before ?? "");
  });
  const ready = () => Promise.all(all(".chart[data-figure]:not([data-drawn])").slice(0, MOST_PRINTED).map((chart) => draw(chart)));
  document.getElementById("print")?.addEventListener("click", async () => {
    await ready();
    window.print();
  });

  return { all, read, typed, draw, forget, redraw, filters, filter, hiding, listeners, compare, sortable, csv, save, copy, reveal, shortName, ready };
})();
