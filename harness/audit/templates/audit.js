const body = document.querySelector("#folders"), search = document.querySelector("#search"), verdict = document.querySelector("#verdict");
const groups = () => [...body.querySelectorAll("tr.folder")].map(row => [row, row.nextElementSibling]);
function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const [row, detail] of groups()) {
    const text = (row.textContent + " " + row.dataset.rules).toLowerCase();
    const hit = words.every(word => text.includes(word)) && (!verdict.value || row.dataset.verdict === verdict.value);
    row.hidden = !hit;
    detail.hidden = !hit || row.getAttribute("aria-expanded") !== "true";
    shown += hit;
  }
  document.querySelector("#shown").textContent = shown;
}
function toggle(row) {
  const open = row.getAttribute("aria-expanded") !== "true";
  row.setAttribute("aria-expanded", open);
  row.nextElementSibling.hidden = !open;
}
function sort(head, column) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  document.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.key;
  const order = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");  // missing values come last in either order
    const difference = isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", {numeric: true}) : a - b;
    return up ? difference : -difference;
  };
  groups().sort(([a], [b]) => order(key(a), key(b))).forEach(pair => body.append(...pair));
}
search.addEventListener("input", filter);
verdict.addEventListener("change", filter);
document.querySelectorAll("thead th").forEach((head, column) => head.addEventListener("click", () => sort(head, column)));
for (const [row] of groups()) {
  row.addEventListener("click", () => toggle(row));
  row.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(row); } });
}
