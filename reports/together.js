// the page of several runs: runs can be hidden everywhere, and its table can be saved
(() => {
  const { all, read, redraw, hiding, csv, save } = kerneldyno;
  const hidden = new Set();
  hiding.push((_, meta) => hidden.has(meta.run));

  function showRuns() {
    for (const element of all("[data-run]")) element.hidden = hidden.has(element.dataset.run);
    const columns = all("#listing thead th").flatMap((heading, place) => (heading.dataset.runColumn ? [[place, hidden.has(heading.dataset.runColumn)]] : []));
    for (const row of all("#listing tr")) for (const [place, hides] of columns) row.cells[place].hidden = hides;
    redraw();
  }
  document.addEventListener("change", ({ target }) => {
    const run = target.dataset.runSwitch;
    if (run === undefined) return;
    if (target.checked) hidden.delete(run); else hidden.add(run);
    for (const box of all(`[data-run-switch="${run}"]`)) box.checked = target.checked;
    showRuns();
  });

  document.getElementById("save-csv").addEventListener("click", async () => {
    const { columns, rows } = await read("table");
    save(csv([columns, ...rows]), "text/csv", "together.csv");
  });
  document.getElementById("save-json").addEventListener("click", async () => {
    const { columns, rows } = await read("table");
    const named = rows.map((row) => Object.fromEntries(row.map((value, place) => [columns[place], value])));
    save(JSON.stringify(named, null, 1) + "\n", "application/json", "together.json");
  });
})();
