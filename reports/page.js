"use strict";
(() => {
  const root = document.documentElement;
  const nonce = document.currentScript.nonce;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures");
  root.classList.add("js");

  // plotly arrives gzipped; it is unpacked when the first chart comes into view, once
  let library = null;
  function plotly() {
    library ??= window.Plotly ? Promise.resolve(window.Plotly) : unpack();
    return library;
  }
  async function unpack() {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return window.Plotly;
  }

  const darkSystem = matchMedia("(prefers-color-scheme: dark)");
  let printing = false;
  const isDark = () => !printing && (root.dataset.theme ? root.dataset.theme === "dark" : darkSystem.matches);
  const filters = { operator: "", kernel: "", dtype: "" };
  const shortName = (kernel) => kernel.slice(kernel.indexOf("/") + 1);

  function isShown(chart, kernel) {
    if (!kernel) return true;
    const box = all(".legend input", chart.closest(".block")).find((input) => input.value === kernel);
    return (!box || box.checked) && (!filters.kernel || shortName(kernel) === filters.kernel);
  }

  function themed(chart) {
    const style = getComputedStyle(root);
    const color = (name) => style.getPropertyValue(name).trim();
    const { data, layout } = figures[chart.dataset.figure];
    const traces = data.map((trace) => {
      const own = trace.meta[isDark() ? "dark" : "light"];
      const themedTrace = { ...trace, line: { ...trace.line, color: own }, visible: isShown(chart, trace.meta.kernel) };
      if (trace.marker) themedTrace.marker = { ...trace.marker, color: own, line: { ...trace.marker.line, color: own } };
      for (const bar of ["error_x", "error_y"]) if (trace[bar]) themedTrace[bar] = { ...trace[bar], color: own };
      return themedTrace;
    });
    const axis = (given) => {
      const title = { ...given.title, font: { size: 11, color: color("--muted") } };
      return { ...given, title, gridcolor: color("--line"), linecolor: color("--line"), zerolinecolor: color("--line"), tickfont: { size: 11, color: color("--muted") } };
    };
    const page = {
      ...layout, autosize: true, showlegend: false, dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: color("--ink") },
      hoverlabel: { bgcolor: color("--soft"), bordercolor: color("--line"), font: { color: color("--ink"), size: 12 }, align: "left" },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    };
    return [traces, page];
  }

  async function draw(chart) {
    try {
      const library = await plotly();
      await library.react(chart, ...themed(chart), { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false });
      chart.dataset.drawn = chart.dataset.figure;
    } catch (error) {
      chart.innerHTML = "";
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = "This browser could not draw the chart; the table below has its numbers.";
      chart.append(note);
      console.error(error);
    }
  }
  const redraw = (within = document) => all(".chart[data-drawn]", within).forEach(draw);

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  all(".chart").forEach((chart) => seen.observe(chart));

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

  all(".legend input").forEach((box) => box.addEventListener("change", () => redraw(box.closest(".block"))));
  all("select.shape").forEach((select) => select.addEventListener("change", () => {
    const chart = select.closest(".chosen").querySelector(".chart");
    chart.dataset.figure = select.value;
    chart.previousElementSibling.textContent = select.selectedOptions[0].textContent;
    chart.setAttribute("aria-label", `Latency against error at ${select.selectedOptions[0].textContent}`);
    draw(chart);
  }));

  // filters act on everything that names an operator, a kernel or a data type
  const search = document.getElementById("search");
  function filter() {
    for (const element of all("[data-operator], [data-kernel], [data-dtype]")) {
      const names = Object.keys(filters).filter((name) => element.dataset[name] !== undefined);
      element.hidden = names.some((name) => filters[name] && element.dataset[name] !== filters[name]);
    }
    const wanted = search.value.trim().toLowerCase();
    const listed = all("#listing tbody tr");
    for (const row of listed) row.hidden ||= !row.cells[1].textContent.toLowerCase().includes(wanted);
    const left = listed.filter((row) => !row.hidden).length;
    document.getElementById("shown").textContent = left === listed.length ? "" : `${left} of ${listed.length} shown`;
    redraw();
  }
  all("select[data-filter]").forEach((select) => select.addEventListener("change", () => {
    filters[select.dataset.filter] = select.value;
    filter();
  }));
  search.addEventListener("input", filter);

  // sorting: numbers as numbers, what is not there last in both directions
  function sort(table, column, direction) {
    const keyed = all("tbody tr", table).map((row) => [row.cells[column].dataset.key, row]);
    const numeric = keyed.every(([key]) => key === "" || !Number.isNaN(Number(key)));
    const order = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b)) * direction;
    keyed.sort(([a], [b]) => (a === "") - (b === "") || (a === "" ? 0 : order(a, b)));
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  }
  for (const table of all("table.sortable")) {
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

  document.getElementById("download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([read("csv")], { type: "text/csv" }));
    link.download = document.getElementById("download").dataset.file ?? "results.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });

  // a link to a case opens what it is folded into
  function reveal() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let outer = target.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
    target.scrollIntoView({ block: "center" });
  }
  addEventListener("hashchange", reveal);
  reveal();

  // on paper: every chart, in the light colours
  const chosen = () => root.dataset.theme;
  let before;
  addEventListener("beforeprint", () => { before = chosen(); printing = true; root.dataset.theme = "light"; all(".chart").forEach(draw); });
  addEventListener("afterprint", () => { printing = false; applyTheme(before ?? ""); });
})();
