"use strict";
(() => {
  // verdict.json travels in the page as inert text that is JSON already
  document.getElementById("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([document.getElementById("verdict").textContent], { type: "application/json" }));
    link.download = "verdict.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
})();
