{
  // a run's page: its tables made from packed columns, the list of all cases page by page, downloads, links to views
  const { all, read, typed, filters, filter, listeners, compare, sortable, csv, save, shortName, copy, redraw } = kerneldyno;
  const PAGE = 100; // rows of the list shown at once: a browser is slow with ten thousand

  // one column of the results: a function from row number to value, null where there is none
  function column(packed) {
    if (!packed) return () => null;
    if (packed.numbers) {
      const numbers = typed(packed.numbers);
      return (row) => (Number.isNaN(numbers[row]) ? null : numbers[row]);
    }
    const codes = typed(packed.codes);
    return (row) => packed.values[codes[row]];
  }
  const opened = (async () => {
    const run = await read("run");
    const columns = new Map(Object.entries(run.columns).map(([name, packed]) => [name, column(packed)]));
    const get = (name, row) => columns.get(name)?.(row) ?? null;
    const cases = run.cases;
    const count = typed(Object.values(run.columns).find((packed) => packed?.codes).codes).length;
    const places = new Map(Array.from({ length: count }, (_, row) => [get("case", row), row]));
    return { run, columns, get, places, count, cases };
  })();

  const element = (tag, attributes = {}, ...inner) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
    made.append(...inner.filter((one) => one !== null && one !== undefined));
    return made;
  };
  const region = (name, ...inner) => element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": name }, ...inner);
  const link = (text, get, row) => element("a", { href: `#case-${get("case", row)}` }, text);

  // a table kernel × shape of one quantity
  function grid(frame, shown, get, name) {
    const several = new Set(frame.columns.map(([, dtype]) => dtype)).size > 1;
    const of = (dtype) => (several ? { "data-dtype": dtype } : {});
    const head = element("thead");
    if (frame.columns.some(([title]) => title)) {
      head.append(element("tr", {}, element("td"), ...frame.columns.map(([title, dtype, shapes]) => element("th", { scope: "colgroup", class: "variant", colspan: shapes.length, ...of(dtype) }, title))));
    }
    const flat = frame.columns.flatMap(([, dtype, shapes]) => shapes.map((shape) => [dtype, shape]));
    head.append(element("tr", {}, element("th", { scope: "col", class: "corner" }, "batch × length"), ...flat.map(([dtype, [batch, length]]) => element("th", { scope: "col", ...of(dtype) }, `${batch} × ${length}`))));
    const table = element("table", { class: "grid" }, head);
    let line = 0;
    frame.divisions.forEach((kernels, division) => {
      if (!kernels.length) return;
      const body = element("tbody");
      if (division) body.append(element("tr", { class: "division" }, element("th", { scope: "rowgroup", colspan: flat.length + 1 }, "approximate: another result on purpose, ranked apart")));
      for (const kernel of kernels) {
        const rows = typed(frame.cells[line++]);
        const cells = flat.map(([dtype], place) => {
          const row = rows[place];
          if (row < 0) return element("td", { class: "unplanned", ...of(dtype) }, "·");
          const why = get("reason", row) ?? (shown(row) === "–" ? get("energy_reason", row) : null);
          return element("td", { class: get("status", row) === "ok" ? null : `state ${get("status", row)}`, title: why, ...of(dtype) }, link(shown(row), get, row));
        });
        body.append(element("tr", { "data-kernel": shortName(kernel) }, element("th", { scope: "row", title: kernel }, shortName(kernel)), ...cells));
      }
      table.append(body);
    });
    return element("div", { class: "gridded" }, element("p", { class: "muted" }, frame.common), region(name, table));
  }

  function listing(table, get) {
    const head = element("thead", {}, element("tr", {}, ...table.headings.map(([heading, below, number]) => element("th", { scope: "col", class: number && "number" }, heading, below ? element("small", {}, below) : null))));
    const made = element("table", { class: "trade" }, head);
    for (const [title, rows] of table.bodies) {
      const body = element("tbody");
      if (title) body.append(element("tr", { class: "division" }, element("th", { scope: "rowgroup", colspan: table.headings.length }, title)));
      for (const [row, cells] of rows) {
        const shown = cells.map((cell, place) => {
          const [text, target] = Array.isArray(cell) ? cell : [cell, -1];
          const inner = target < 0 ? text : link(text, get, target);
          return place === 0 ? element("th", { scope: "row" }, inner) : element("td", { class: table.headings[place][2] && "number" }, inner);
        });
        body.append(element("tr", { "data-kernel": table.single && shortName(get("kernel", row)), "data-dtype": get("dtype", row) }, ...shown));
      }
      made.append(body);
    }
    return region(table.name, made);
  }

  // folded tables are made when they are first opened
  for (const details of all("details[data-grids], details[data-listing]")) {
    details.addEventListener("toggle", async () => {
      if (!details.open || details.dataset.made) return;
      details.dataset.made = "yes";
      const { run, get } = await opened;
      if (details.dataset.grids) {
        const shown = column(run.shown[details.dataset.grids]);
        details.append(...run.grids.filter((frame) => frame.operator === details.dataset.of).map((frame, number) => grid(frame, shown, get, `${details.firstElementChild.textContent}, part ${number + 1}`)));
      } else details.append(listing(run.listings[details.dataset.listing], get));
      filter();
    });
  }

  // the list of all measured cases
  const search = document.getElementById("search");
  const view = { column: null, direction: 1, page: 0 };
  let matching = [];
  const wanted = (get, row) =>
    (!filters.operator || get("operator", row) === filters.operator) && (!filters.kernel || shortName(get("kernel", row)) === filters.kernel)
    && (!filters.dtype || get("dtype", row) === filters.dtype) && get("label", row).toLowerCase().includes(search.value.trim().toLowerCase());

  opened.then(({ run, get, cases, count }) => {
    const rows = typed(cases.rows);
    const texts = cases.texts.map((packed) => column(packed));
    const keys = cases.keys.map((packed, place) => (packed ? typed(packed) : { length: rows.length, at: (line) => texts[place](line) }));
    const key = (place, line) => (keys[place] instanceof Float32Array ? keys[place][line] : keys[place].at(line));
    const table = document.getElementById("listing");
    const head = element("thead", {}, element("tr", {}, ...cases.headings.map(([heading, below]) => element("th", { scope: "col" }, element("span", { class: "heading" }, heading), below ? element("small", {}, below) : null))));
    table.append(head, element("tbody"));
    sortable(table, (_, place, direction) => {
      [view.column, view.direction, view.page] = [place, direction, 0];
      show();
      keep();
    });

    function line(number) {
      const row = rows[number];
      const cells = texts.map((text, place) => {
        if (place > 0) return element("td", { class: place > 1 && "number" }, text(number) || "–");
        const warned = get("warnings", row) ? element("sup", { class: "warned", title: get("warnings", row) }, "!") : null;
        const tag = get("approximate", row) ? element("small", { class: "tag" }, "approximate") : null;
        return element("td", {}, link(text(number), get, row), tag && " ", tag, warned);
      });
      return element("tr", {}, ...cells);
    }

    const pager = document.getElementById("pager");
    function show() {
      matching = Array.from(rows.keys()).filter((number) => wanted(get, rows[number]));
      if (view.column !== null) matching.sort((a, b) => compare(key(view.column, a), key(view.column, b), view.direction));
      const pages = Math.max(1, Math.ceil(matching.length / PAGE));
      view.page = Math.min(view.page, pages - 1);
      table.tBodies[0].replaceChildren(...matching.slice(view.page * PAGE, (view.page + 1) * PAGE).map(line));
      document.getElementById("shown").textContent = `${matching.length} of ${rows.length} rows${matching.length > 20 ? ", more by scrolling" : ""}`;
      pager.hidden = pages === 1;
      const step = (text, to) => {
        const button = element("button", { type: "button", disabled: to < 0 || to >= pages || to === view.page }, text);
        button.addEventListener("click", () => {
          view.page = to;
          show();
          const same = all("button", pager).find((other) => other.textContent === text);
          (same.disabled ? pager.querySelector("button:not([disabled])") : same)?.focus({ preventScroll: true });
        });
        return button;
      };
      pager.replaceChildren(step("First", 0), step("Previous", view.page - 1), element("span", { role: "status" }, `rows ${view.page * PAGE + 1} to ${Math.min(matching.length, (view.page + 1) * PAGE)} of ${matching.length}`), step("Next", view.page + 1), step("Last", pages - 1));
    }
    const choices = () => JSON.stringify([...all("select[data-filter]").map((select) => select.value), search.value]);
    let before = choices();
    listeners.push(() => {
      const now = choices();
      if (now === before) return; // a table was opened, nothing else was chosen
      [before, view.page] = [now, 0];
      show();
      keep();
    });

    // downloads: every column, numbers to the digits that float32 has
    const digits = (value) => (typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(7)) : value);
    const chosen = () => Array.from({ length: count }, (_, row) => row).filter((row) => wanted(get, row));
    const names = Object.keys(run.columns);
    document.getElementById("save-csv").addEventListener("click", () => {
      const lines = [names, ...chosen().map((row) => names.map((name) => digits(get(name, row))))];
      save(csv(lines), "text/csv", `${run.file}.csv`);
    });
    document.getElementById("save-json").addEventListener("click", () => {
      const told = chosen().map((row) => Object.fromEntries(names.map((name) => [name, digits(get(name, row))])));
      save(JSON.stringify(told, null, 1), "application/json", `${run.file}.json`);
    });

    // a view has an address: what is filtered and how it is sorted. It is kept while one works; a copied one leads to the list
    function address(place) {
      const state = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
      if (search.value) state.set("shape", search.value);
      if (view.column !== null) state.set(view.direction > 0 ? "up" : "down", cases.headings[view.column][0]);
      const asked = state.toString();
      return asked || place === "cases" ? `#${place}?${asked}` : location.href.split("#")[0];
    }
    function keep() {
      if (!/^#case-/.test(location.hash)) history.replaceState(null, "", address("view"));
    }
    function restore() {
      const [place, asked] = location.hash.split("?");
      if (!["#cases", "#view"].includes(place) || asked === undefined) return;
      const state = new URLSearchParams(asked);
      for (const select of all("select[data-filter]")) select.value = state.get(select.dataset.filter) ?? "";
      search.value = state.get("shape") ?? "";
      view.column = null;
      for (const heading of table.tHead.rows[0]?.cells ?? []) heading.removeAttribute("aria-sort");
      for (const [name, direction] of [["up", 1], ["down", -1]]) {
        const found = cases.headings.findIndex(([heading]) => heading === state.get(name));
        if (found >= 0) {
          [view.column, view.direction] = [found, direction];
          table.tHead.rows[0].cells[found].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        }
      }
      filter();
      show();
      redraw();
      if (place === "#cases") document.getElementById("cases").scrollIntoView();
    }
    document.getElementById("save-link").addEventListener("click", ({ currentTarget }) => {
      copy(location.href.split("#")[0] + address("cases"), currentTarget);
    });
    addEventListener("hashchange", restore);
    show();
    restore();
    document.documentElement.dataset.ready = "yes";
  });

  kerneldyno.run = { opened, column, element, region, link };
}
