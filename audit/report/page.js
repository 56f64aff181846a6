"use strict";
// Opens the finding that the address names, as when a line of the drawing is chosen.
function show() {
  const finding = document.getElementById(location.hash.slice(1));
  for (const way of document.querySelectorAll(".way")) {
    way.classList.toggle("chosen", way.getAttribute("href") === location.hash);
  }
  if (!(finding instanceof HTMLDetailsElement)) {
    return;
  }
  finding.open = true;
  finding.querySelector("summary").focus({preventScroll: true});
  finding.scrollIntoView({block: "nearest"});
}
addEventListener("hashchange", show);
for (const way of document.querySelectorAll(".way")) {
  way.addEventListener("click", () => setTimeout(show)); // also if it is chosen already
}
show();
