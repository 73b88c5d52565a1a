{
  // one case in full: opened by its address, #case-ID, closed by the browser's own means
  const { all, read, typed, draw, forget, shortName } = kerneldyno;
  const { opened, element, region, link } = kerneldyno.run;
  const dialog = document.getElementById("case");
  const title = document.getElementById("case-title");
  const body = document.getElementById("case-body");
  const STEPS = 65535;

  const SCALES = { s: [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]] };
  function scale(value, unit) {
    return SCALES[unit].find(([factor]) => value >= factor) ?? SCALES[unit].at(-1);
  }
  const told = (seconds) => {
    const [factor, unit] = scale(seconds, "s");
    return `${Number((seconds / factor).toPrecision(4))} ${unit}`;
  };
  const facts = (pairs) => {
    const list = element("dl");
    for (const [name, value] of pairs) if (value !== null && value !== undefined && value !== "") list.append(element("dt", {}, name), element("dd", {}, value));
    return list;
  };
  const folded = (words, ...inner) => element("details", { class: "numbers" }, element("summary", {}, words), ...inner);

  // samples come as steps between the fastest and the slowest
  function unpack(packed) {
    const steps = typed(packed.values);
    const values = Array.from(steps, (step) => packed.low + (step / STEPS) * (packed.high - packed.low));
    return { values, at: packed.at ? Array.from(typed(packed.at)) : values.map((_, place) => place), of: packed.of, ends: packed.ends };
  }

  // of a case that is not ok nothing was worked out: its samples are shown as they are
  function quantiles(taken, get, row) {
    const ordered = [...taken.values].sort((a, b) => a - b);
    const worked = [["5th percentile", "latency_p5_s"], ["median", "latency_s"], ["95th percentile", "latency_p95_s"]].map(([name, column]) => [name, get(column, row)]);
    return [["fastest", ordered[0]], ...worked.filter(([, value]) => value !== null), ["slowest", ordered.at(-1)]];
  }

  function samples(taken, get, row) {
    const [factor, unit] = scale(get("latency_s", row) ?? taken.values[0], "s");
    const look = { light: "#0072b2", dark: "#2f8fd0" };
    const grey = { light: "#808080", dark: "#808080" };
    const y = taken.values.map((value) => value / factor);
    const x = taken.at.map((place) => place + 1);
    const lines = [["latency_p5_s", "dot", "5th percentile"], ["latency_s", "solid", "median"], ["latency_p95_s", "dot", "95th percentile"]];
    const across = ([column, dash, name]) => ({ type: "scatter", mode: "lines", x: [1, taken.of], y: [get(column, row) / factor, get(column, row) / factor], name, hoverinfo: "name", line: { width: 1.5, dash }, meta: grey });
    const points = { type: "scatter", mode: "markers", x, y, name: "sample", marker: { size: 5, opacity: 0.75, line: { width: 0 } }, hovertemplate: `sample %{x}: %{y:.4g} ${unit}<extra></extra>`, meta: look };
    const spread = { type: "histogram", y, xaxis: "x2", nbinsy: 40, marker: { line: { width: 0 } }, hovertemplate: `%{x} samples around %{y} ${unit}<extra></extra>`, meta: look };
    const borders = taken.ends.slice(0, -1).map((end) => ({ type: "line", x0: end + 0.5, x1: end + 0.5, yref: "paper", y0: 0, y1: 1, line: { width: 1, dash: "dot", color: "#808080" } }));
    return {
      data: [...lines.filter(([column]) => get(column, row) !== null).map(across), points, spread],
      layout: {
        xaxis: { title: { text: "sample, in the order of measuring" }, domain: [0, 0.8] },
        xaxis2: { title: { text: "how many" }, domain: [0.84, 1], anchor: "y" },
        yaxis: { title: { text: `latency, ${unit}, lower is better` }, automargin: true },
        margin: { l: 56, r: 12, t: 12, b: 44 }, hovermode: "closest", shapes: borders, bargap: 0.05,
      },
    };
  }

  function sampled(packed, get, row) {
    const taken = unpack(packed);
    const left = taken.of > taken.values.length ? ` Drawn are ${taken.values.length} of ${taken.of}, in their order, the fastest and the slowest among them; the other numbers are of all, and samples.parquet holds every one.` : "";
    const processes = taken.ends.length ? ` Dotted upright lines part the ${taken.ends.length} processes.` : "";
    const chart = element("div", { class: "chart", role: "img", "aria-label": `${taken.of} samples in the order of measuring, and how often each latency came` });
    const named = quantiles(taken, get, row);
    const table = element("table", { class: "trade" }, element("thead", {}, element("tr", {}, ...named.map(([name]) => element("th", { scope: "col", class: "number" }, name)))), element("tbody", {}, element("tr", {}, ...named.map(([, value]) => element("td", { class: "number" }, told(value))))));
    return [element("h3", {}, "Every sample"), element("p", { class: "takeaway" }, `A slope would be drift, two bands two states of the machine.${processes}${left}`), chart, region("percentiles of the samples", table), () => draw(chart, samples(taken, get, row))];
  }

  function neighbours({ run, get, count, cases }, row) {
    const rows = typed(cases.rows);
    const texts = Object.fromEntries(cases.headings.map(([heading], place) => [heading, cases.texts[place]]));
    const shown = (name, line) => (texts[name] ? texts[name].values[typed(texts[name].codes)[line]] : "");
    const own = Array.from(rows.keys()).filter((line) => get("group", rows[line]) === get("group", row)).sort((a, b) => get("latency_s", rows[a]) - get("latency_s", rows[b]));
    if (own.length < 2) return [];
    const names = ["latency", "interval", "speedup", "error", "peak memory"].filter((name) => texts[name]);
    const lines = own.map((line) => element("tr", { class: rows[line] === row && "here" }, element("th", { scope: "row" }, link(shown("kernel", line), get, rows[line]), get("approximate", rows[line]) ? " (approximate)" : ""), ...names.map((name) => element("td", { class: "number" }, shown(name, line) || "–"))));
    const table = element("table", { class: "trade" }, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "kernel"), ...names.map((name) => element("th", { scope: "col", class: "number" }, name)))), element("tbody", {}, ...lines));
    return [folded(`All ${own.length} kernels at this shape, fastest first`, region("kernels at this shape", table))];
  }

  const list = (given) => Object.entries(given ?? {}).map(([name, value]) => [name, String(value)]);
  function evidence(more, get, row) {
    const windows = more.windows?.length ? `${more.windows.join(", ")} J per call` : null;
    const clocks = get("clock_before_mhz", row) === null ? null : `${get("clock_before_mhz", row)} → ${get("clock_after_mhz", row) ?? "–"} MHz`;
    const device = [["clock, before → after", clocks], ["temperature", get("temperature_c", row) === null ? null : `${get("temperature_c", row)} °C`], ["rounds dropped", get("dropped_rounds", row)], ["held back by", more.throttled?.join(", ")], ["mean power", get("power_w", row) === null ? null : `${Number(get("power_w", row).toPrecision(4))} W`], ["idle power", get("idle_w", row) === null ? null : `${Number(get("idle_w", row).toPrecision(4))} W`], ["energy windows", windows], ["temperatures at their starts", more.temperatures?.length ? `${more.temperatures.join(" – ")} °C` : null], ["energy", get("energy_reason", row)]];
    const made = [element("h3", {}, "The device meanwhile"), facts(device.map(([name, value]) => [name, value === null || value === undefined ? null : String(value)]))];
    if (!made[1].childElementCount) made[1] = element("p", { class: "takeaway" }, "No clocks, temperatures or power are on record for this case.");
    if (more.probes) made.push(folded(`${Object.keys(more.probes).length} probes of the gate, with their error ratios`, facts(list(more.probes))));
    if (more.left_out) made.push(folded("Probes that were left out, and why", facts(list(more.left_out))));
    if (more.phases) made.push(folded("Where the seconds went", facts(list(more.phases).map(([name, value]) => [name, `${value} s`]))));
    if (more.stderr) made.push(folded("What the worker said last", element("pre", { class: "command" }, more.stderr)));
    return made;
  }

  function headline({ run, get, places, cases }, row) {
    const line = typed(cases.rows).indexOf(row);
    if (line < 0) return facts([["status", get("status", row)], ["why", get("reason", row)]]);
    const shown = cases.headings.map(([heading, below], place) => [below ? `${heading} (${below})` : heading, cases.texts[place].values[typed(cases.texts[place].codes)[line]]]);
    const between = (low, high, one) => (get(low, row) === null ? "" : ` (${one(get(low, row))} – ${one(get(high, row))})`);
    const times = (ratio) => `${ratio.toFixed(2)}×`;
    const named = shown.slice(2).map(([name, text]) => {
      if (name.startsWith("latency")) return [name, text + between("latency_low_s", "latency_high_s", told)];
      if (name.startsWith("speedup") && get("kernel", row) !== get("baseline", row)) return [`${name} ${shortName(get("baseline", row))}`, text + between("speedup_low", "speedup_high", times)];
      return [name, text];
    });
    return facts(named);
  }

  const clear = () => {
    all(".chart", body).forEach(forget);
    body.replaceChildren();
  };
  let asked = "";
  async function show(id) {
    asked = id;
    const loaded = await opened;
    const row = loaded.places.get(id);
    if (row === undefined || asked !== id) return;
    const { get, run } = loaded;
    title.textContent = get("kernel", row);
    document.getElementById("case-shape").textContent = `${get("label", row)} · ${get("device", row)}${get("approximate", row) ? " · approximate: another result on purpose" : ""}`;
    clear();
    body.append(headline(loaded, row));
    if (!dialog.open) dialog.showModal();
    title.focus();
    const details = await read("details");
    if (asked !== id || !dialog.open) return; // another one was opened meanwhile, or none is wanted
    const more = details.told[row];
    const warnings = more.warnings?.length ? [element("div", { class: "strip" }, element("ul", {}, ...more.warnings.map(([code, text]) => element("li", {}, element("b", {}, code), `: ${text}`))))] : [];
    const parts = details.samples[row] ? sampled(details.samples[row], get, row) : [];
    const later = parts.pop();
    const command = details.commands[row];
    const copy = element("button", { type: "button" }, "Copy");
    copy.addEventListener("click", () => kerneldyno.copy(command, copy));
    const note = / --(model|weights|inputs|load) /.test(command) ? [element("p", { class: "takeaway" }, "Of files and folders the names alone are on record: put your own paths in their place.")] : [];
    const known = Object.keys(run.columns).filter((name) => get(name, row) !== null).map((name) => [name, String(get(name, row))]);
    const meanings = known.map(([name, value]) => [name, element("span", { title: run.meanings[name] }, value)]);
    body.append(...warnings, ...parts, ...neighbours(loaded, row), ...evidence(more, get, row), element("h3", {}, "Measure it again"), element("pre", { class: "command", tabindex: 0 }, element("code", {}, command)), ...note, copy, folded(`All ${known.length} columns of this row`, facts(meanings)));
    await later?.();
  }

  function follow() {
    const found = /^#case-([0-9a-f]+)$/.exec(location.hash);
    if (found) show(found[1]);
    else if (dialog.open) dialog.close();
  }
  addEventListener("hashchange", follow);
  // closing leaves the address of the page as it was before
  let before = "";
  addEventListener("click", ({ target }) => {
    if (target.closest?.("a[href^='#case-']") && !dialog.open) before = /^#case-/.test(location.hash) ? "" : location.hash;
  });
  dialog.addEventListener("close", () => {
    if (/^#case-/.test(location.hash)) history.replaceState(null, "", before || location.href.split("#")[0]);
    clear();
  });
  document.getElementById("case-close").addEventListener("click", () => dialog.close());
  document.getElementById("case-link").addEventListener("click", ({ currentTarget }) => kerneldyno.copy(location.href, currentTarget));
  follow();
}
