// The contents are open where they stand at the side.
document.querySelector(".contents details").open = matchMedia("(min-width: 80rem)").matches;

// Tables of class "sortable": a click on a column's head sorts its rows, a second click the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const text = (row) => row.cells[column].textContent.trim();
      const number = (row) => parseFloat(text(row).replace(/^[^\d+-]+/, ""));
      const numeric = [...body.rows].every((row) => !text(row) || row.cells[column].classList.contains("number"));
      const compare = (a, b) =>
        !text(a) - !text(b) || sign * (numeric ? number(a) - number(b) || 0 : text(a).localeCompare(text(b)));
      body.append(...[...body.rows].sort(compare)); // sort is stable; what is empty stays last
    });
  });
}

// On paper nothing stays folded but code.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not(.code)")) folded.open = true;
});
