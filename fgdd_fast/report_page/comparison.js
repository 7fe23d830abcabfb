const form = document.getElementById("tools"), shells = [...document.querySelectorAll("details.class")];

function tile(letter, side) {
  if (!side) return element("span", { class: "absent" }, `not in ${letter}`);
  const words = side.kind ? "whole" : "crop";
  const image = element("img", { src: picture(side.picture), alt: `the tile in ${letter}`, decoding: "async" });
  return element("span", { class: "side " + words }, image, element("span", {}, element("b", {}, letter), ` ${words}${side.o === null ? "" : `, ${fixed(side.o, 2)}`}`), element("small", {}, `loss ${fixed(side.l, 3)}`));
}
function open(shell) {
  if (shell.filled) return;
  shell.filled = true;
  const changes = json(shell.id.replace("class", "changes"));
  const items = changes.map((change) => element("li", { class: "change" }, tile("A", change.sides[0]), tile("B", change.sides[1]), element("p", {}, element("code", {}, change.path), " ", change.reason)));
  shell.querySelector(".body").replaceChildren(items.length ? element("ul", { class: "changes" }, ...items) : element("p", {}, "All of its tiles are the same."));
}
function apply() {
  const text = form.elements.text.value.trim().toLowerCase(), differ = form.elements.differ.checked;
  let shown = 0;
  for (const shell of shells) {
    const keep = shell.dataset.name.toLowerCase().includes(text) && (!differ || +shell.dataset.changes > 0);
    shell.hidden = !keep;
    shown += keep;
  }
  document.getElementById("count").value = `${shown.toLocaleString("en")} of ${shells.length.toLocaleString("en")} classes`;
  document.getElementById("none").hidden = shown > 0;
}
shells.forEach((shell) => shell.addEventListener("toggle", () => { if (shell.open) when(shell.id.replace("class", "changes"), () => open(shell)); }));
form.addEventListener("input", apply);
form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target.tagName !== "INPUT") { event.preventDefault(); form.elements.text.focus(); }
});
apply();
const first = shells.find((shell) => !shell.hidden);
if (first) first.open = true;
document.documentElement.dataset.ready = Math.round(performance.now());
