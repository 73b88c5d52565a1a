{
  // verdict.json, as it was saved
  document.getElementById("save").addEventListener("click", async () => {
    kerneldyno.save(JSON.stringify(await kerneldyno.read("verdict"), null, 2), "application/json", "verdict.json");
  });
}
