const settings = json("settings");
const factor = settings.factor || 1;
const FIRST = 120, OPENED = 50;
const shells = [...document.querySelectorAll("details.class")];
const list = document.getElementById("classes"), form = document.getElementById("tools");
const facts = new Map(), pictures = new Map();
const noPictures = { mosaics: [], sources: [] };

function factsOf(number) {
  if (!facts.has(number)) {
    const data = json("facts-" + number);
    data.number = number;
    data.tiles = data.tiles.map(([s, m, place, rank, kind, o, l, x, y, w, h]) => ({ data, s, m, place, rank, kind, o, l, box: [x, y, w, h], path: data.sources[s][0] }));
    facts.set(number, data);
  }
  return facts.get(number);
}
function picturesOf(number) {
  if (!pictures.has(number)) pictures.set(number, json("pictures-" + number));
  return pictures.get(number) || noPictures;
}

// What is said of a tile, or of an image near the threshold.

function why(item) {
  const { data, kind, o } = item, threshold = data.threshold;
  if (settings.always === "full" && kind) return `The rule ${settings.rule} keeps every image whole.`;
  if (settings.always === "crop") return `The rule ${settings.rule} takes a crop of every image: of ${settings.crops}, the one with the lowest loss.`;
  if (threshold === null) return "";
  const [has, needs] = percents(o, threshold);
  const exchanged = `, but the rule ${settings.rule} exchanges occupancies on purpose.`;
  if (kind) {
    if (settings.control && o < threshold) return `Its foreground fills ${has} of the image, less than ${needs}${exchanged}`;
    return `Its foreground fills ${has} of the image; from ${needs} on, this class keeps images whole.`;
  }
  if (o === 0) return "No foreground was found in it, and such an image is never kept whole." + best(item);
  if (o < threshold) return `Its foreground fills only ${has} of the image; from ${needs} on, this class keeps images whole.${best(item)}`;
  if (settings.control) return `Its foreground fills ${has} of the image, and images are kept whole from ${needs} on${exchanged}`;
  return "A further crop of this image: the class has too few images for its tiles.";
}
function best(item) {
  if (item.near) return "";
  const kept = settings.keep_foreground, area = settings.least_area;
  const asked = [kept ? `keep ${Math.round(100 * kept)}% of the foreground` : "", area ? `cover ${Math.round(100 * area)}% of the image` : ""].filter(Boolean).join(" and ");
  return ` Of its ${settings.crops} candidate crops, this has the lowest loss` + (asked ? ` among those that ${asked}.` : ".");
}
const words = (kind) => (kind ? "whole" : "crop");
function spoken(item) {
  const what = item.near ? (item.kind ? "would be kept whole" : "would be cropped") : words(item.kind);
  const seen = settings.searched ? `, occupancy ${fixed(item.o, 2)}` : "";
  return `${item.data.name}, ${item.path}: ${what}${seen}, loss ${fixed(item.l, 2)}` + (item.rank ? `, rank ${item.rank} of ${item.data.tiles.length}` : "");
}

function show(pane, item) {
  if (pane.item === item) return;
  pane.item = item;
  const { data } = item, images = picturesOf(data.number), [path, width, height, outline] = data.sources[item.s];
  const label = `${path}, ${item.near ? "" : item.kind ? "kept whole" : "with its crop framed"}${outline ? ", its foreground outlined" : ""}`;
  const svg = sourcePicture({
    width, height, outline, label, box: item.near ? null : item.box, kind: item.kind, source: images.sources[item.s],
    mosaic: item.near ? null : images.mosaics[item.m], factor, place: item.place,
  });
  const lines = settings.searched ? [["Occupancy", fixed(item.o, 3), data.threshold === null ? "" : `threshold ${fixed(data.threshold, 3)}`]] : [];
  lines.push(["Loss", fixed(item.l, 3), item.near ? "of the whole image, nats" : "nats"]);
  if (item.rank) lines.push(["Rank", `${item.rank} of ${data.tiles.length}`, settings.ranking === "loss" ? "lowest loss first" : `by ${settings.ranking}`]);
  if (width) lines.push(["Image", `${width} × ${height}`, item.near || item.kind ? "" : `crop ${item.box[2]} × ${item.box[3]}`]);
  const rows = lines.map(([name, value, note]) => element("div", {}, element("dt", {}, name), element("dd", {}, value, " ", element("small", {}, note))));
  const notes = [why(item)];
  if (item.near) notes.push(item.chosen ? "It is among the tiles." : "It is not among the tiles: others rank before it.");
  if (!images.sources[item.s]) notes.push(item.near ? "The image is not in this page." : item.kind ? "The picture is the tile, at the image's proportions." : "What lies around the crop is not in this page.");
  pane.replaceChildren(svg, element("p", { class: "path" }, element("code", {}, path)),
    element("p", { class: "why" }, element("span", { class: "mark " + words(item.kind) }, item.near ? (item.kind ? "Above the threshold." : "Below the threshold.") : item.kind ? "Kept whole." : "Cropped."), " ", notes.filter(Boolean).join(" ")),
    element("dl", {}, ...rows));
}

// Buttons that show a tile: pointing shows it for a moment; a click, a tap or the keyboard stays.
function shows(button, item, pane) {
  button.item = item;
  button.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") show(pane, item); });
  button.addEventListener("pointerleave", () => { if (pane.stays) show(pane, pane.stays.item); });
  const stay = () => {
    if (pane.stays) { pane.stays.classList.remove("shown"); pane.stays.setAttribute("aria-pressed", "false"); }
    pane.stays = button;
    button.classList.add("shown");
    button.setAttribute("aria-pressed", "true");
    show(pane, item);
  };
  button.addEventListener("click", stay);
  button.addEventListener("focus", stay);
  button.stay = stay;
  return button;
}

const unseen = new Set();
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) see(target);
}, { rootMargin: "300px" });
function see(node) { seen.unobserve(node); if (unseen.delete(node)) node.fill(); }
function whenSeen(node, fill) { node.fill = fill; unseen.add(node); seen.observe(node); return node; }

function card(item, pane, lines) {
  const svg = item.near ? nearPicture(item) : tilePicture(null, factor, item.place, null);
  if (!item.near) whenSeen(svg, () => {
    const mosaic = picturesOf(item.data.number).mosaics[item.m];
    if (mosaic) svg.firstChild.setAttribute("href", picture(mosaic));
  });
  return shows(element("button", { type: "button", class: "card " + words(item.kind), "aria-label": spoken(item), "aria-pressed": "false" }, svg, ...lines), item, pane);
}
function nearPicture(item) {
  const [, width, height, outline] = item.data.sources[item.s];
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "xMidYMid meet", "aria-hidden": "true" });
  return whenSeen(svg, () => {
    const source = picturesOf(item.data.number).sources[item.s];
    if (source) svg.append(drawn("image", { href: picture(source), width, height }));
    if (outline) for (const name of ["halo", "border"]) svg.append(drawn("path", { class: name, d: outline, transform: `scale(${width / 1000} ${height / 1000})` }));
  });
}

// A class that is opened.

function mosaicsOf(data, pane) {
  const group = element("div", { class: data.files.length > 4 ? "mosaics" : "mosaics few", role: "group", "aria-label": `Tiles of ${data.name}; arrows walk from one to the next` });
  data.files.forEach((file, m) => {
    const cells = element("div", { class: "cells", style: `grid-template: repeat(${factor}, 1fr) / repeat(${factor}, 1fr)` });
    const image = element("img", { alt: `Mosaic ${m + 1} of ${data.name}`, decoding: "async" });
    whenSeen(image, () => { const content = picturesOf(data.number).mosaics[m]; if (content) image.src = picture(content); });
    for (const item of data.tiles.filter((tile) => tile.m === m)) {
      const button = element("button", { type: "button", class: "tile " + words(item.kind), tabindex: "-1", "aria-label": spoken(item), "aria-pressed": "false" });
      cells.append(shows(button, item, pane));
    }
    group.append(element("figure", { class: "mosaic" }, element("div", {}, image, cells), element("figcaption", { title: file }, file.split("/").pop())));
  });
  const tiles = [...group.querySelectorAll(".tile")];
  if (tiles.length) tiles[0].tabIndex = 0;
  group.addEventListener("focusin", (event) => { for (const tile of tiles) tile.tabIndex = tile === event.target ? 0 : -1; });
  group.addEventListener("keydown", (event) => walk(event, tiles));
  return group;
}

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
function walk(event, tiles) {
  const from = tiles.indexOf(event.target);
  if (from < 0) return;
  let to = null;
  if (event.key === "Home") to = tiles[0];
  else if (event.key === "End") to = tiles[tiles.length - 1];
  else if (event.key in DIRECTIONS) {
    const [dx, dy] = DIRECTIONS[event.key], here = event.target.getBoundingClientRect();
    let nearest = Infinity;
    for (const tile of tiles) {
      const there = tile.getBoundingClientRect(), x = there.x - here.x, y = there.y - here.y;
      const along = x * dx + y * dy, across = Math.abs(x * dy) + Math.abs(y * dx);
      if (along > 1 && along + 4 * across < nearest) { nearest = along + 4 * across; to = tile; }
    }
    if (!to && dx) to = tiles[from + dx];
  } else return;
  event.preventDefault();
  if (to) { to.focus({ preventScroll: true }); to.scrollIntoView({ block: "nearest" }); }
}

function histogramOf(data) {
  if (!settings.searched) return [];
  const total = [data.below, data.above].map((counts) => counts.reduce((sum, count) => sum + count, 0));
  const highest = Math.max(1, ...data.below.map((count, place) => count + data.above[place]));
  const n = data.below.length, threshold = data.threshold;
  const label = `Histogram of the occupancies of ${total[0] + total[1]} images` + (threshold === null ? "." : `: ${total[0]} lie below the threshold of ${fixed(threshold, 3)}, ${total[1]} at or above it.`);
  const plot = element("div", { class: "hist", role: "img", "aria-label": label });
  for (let place = 0; place < n; place++) {
    const left = `left:${(100 * place) / n}%`;
    const [low, high] = [data.below[place], data.above[place]].map((count) => (100 * count) / highest);
    if (low) plot.append(element("i", { class: "below", style: `${left};height:${low}%` }));
    if (high) plot.append(element("i", { class: "above", style: `${left};height:${high}%;bottom:${low}%` }));
  }
  if (threshold !== null) {
    const side = threshold < 0.15 ? " left" : threshold > 0.85 ? " right" : "";
    plot.append(element("div", { class: "line" + side, style: `left:${100 * threshold}%` }, element("span", {}, `threshold ${fixed(threshold, 3)}`)));
  }
  const ticks = (kind) => data.tiles.filter((tile) => tile.kind === kind).map((tile) => `M${(1000 * tile.o).toFixed(0)} 0V9`).join("");
  const rug = drawn("svg", { class: "rug", viewBox: "0 0 1000 9", preserveAspectRatio: "none", "aria-hidden": "true" }, drawn("path", { class: "whole", d: ticks(1) }), drawn("path", { class: "crop", d: ticks(0) }));
  const scale = element("div", { class: "scale", "aria-hidden": "true" }, ...[0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => element("span", { style: `left:${100 * value}%` }, value.toFixed(1))));
  const note = threshold === null ? `${total[0] + total[1]} images.` : `${total[0]} below the threshold (striped), ${total[1]} at or above it.`;
  const which = data.images === null ? " Of the tiles alone: what else was measured is not recorded." : "";
  const nothing = data.nothing ? ` In ${data.nothing} nothing was found: they have no say in the threshold.` : "";
  return [element("h3", {}, "Occupancies", element("small", {}, "the share of an image that its foreground fills")), plot, rug, scale, element("p", { class: "hist-note" }, note + which + nothing + " The ticks below are the tiles.")];
}

function nearOf(data, pane) {
  if (!data.near.length) return [];
  const items = data.near.map((each) => ({ data, near: true, s: each.s, o: each.o, l: each.l, chosen: each.chosen, kind: each.k, path: data.sources[each.s][0] }));
  const side = (title, some) => element("div", {}, element("h4", {}, title), some.length ? element("div", { class: "cards" }, ...some.map((item) => card(item, pane, [element("b", {}, fixed(item.o, 3)), element("small", {}, item.chosen ? "a tile" : "not a tile")]))) : element("p", { class: "faint" }, "none"));
  return [element("h3", {}, "Nearest to the threshold", element("small", {}, `of ${fixed(data.threshold, 3)}; does the decision look right?`)),
    element("div", { class: "sides" }, side("just below: cropped", items.filter((item) => !item.kind)), side("just above: kept whole", items.filter((item) => item.kind)))];
}

function lossesOf(data, pane) {
  const order = data.tiles.filter((tile) => tile.l !== null).sort((one, other) => one.l - other.l);
  const count = Math.min(4, Math.floor(order.length / 2));
  if (!count) return [];
  const side = (title, some) => element("div", {}, element("h4", {}, title), element("div", { class: "cards" }, ...some.map((item) => card(item, pane, [element("b", {}, fixed(item.l, 3)), element("small", {}, words(item.kind))]))));
  return [element("h3", {}, "Lowest and highest loss", element("small", {}, "of the tiles: what the teacher finds easiest and hardest")),
    element("div", { class: "sides" }, side("lowest", order.slice(0, count)), side("highest", order.slice(-count).reverse()))];
}

function open(shell) {
  if (shell.filled) return;
  shell.filled = true;
  const data = factsOf(+shell.id.slice(6)), pane = element("aside", { class: "source", "aria-label": `Source of a tile of ${data.name}`, "aria-live": "polite" });
  const notes = data.prompts.length ? [`The foreground model was asked for: ${data.prompts.join(", ")}.`] : [];
  if (data.further) notes.push(`${data.further} of its tiles are further crops of images that had given one: the class has too few images.`);
  const skipped = data.skipped.length ? [element("h3", {}, `Left out: ${data.skipped.length}`), element("ul", { class: "skipped" }, ...data.skipped.map(([source, reason]) => element("li", {}, element("code", {}, source), " ", reason)))] : [];
  const left = element("div", {}, element("h3", {}, data.files.length === 1 ? "Mosaic" : "Mosaics", element("small", {}, notes.join(" "))), mosaicsOf(data, pane), ...histogramOf(data), ...nearOf(data, pane), ...lossesOf(data, pane), ...skipped);
  shell.querySelector(".body").replaceChildren(element("div", { class: "split" }, left, pane));
  if (data.tiles.length) {
    const first = data.tiles.reduce((one, other) => (other.rank < one.rank ? other : one));
    [...left.querySelectorAll(".tile")].find((button) => button.item === first).stay();
  }
  dim(shell);
}
shells.forEach((shell) => shell.addEventListener("toggle", () => { if (shell.open) when("pictures-" + shell.id.slice(6), () => open(shell)); }));
shells.forEach((shell, number) => {
  const strip = shell.querySelector(".strip");
  const images = () => picturesOf(number).mosaics.slice(0, 4).map((content) => element("img", { src: picture(content), alt: "", decoding: "async" }));
  whenSeen(strip, () => when("pictures-" + number, () => strip.append(...images())));
});

// Filters and order.

function wishes() {
  const values = new FormData(form), limit = (name, other) => (values.get(name) === "" ? other : +values.get(name));
  return {
    view: values.get("view"), text: values.get("text").trim().toLowerCase(), path: values.get("path"), down: values.get("down") !== null,
    sort: values.get("sort"), order: values.get("order"), omin: limit("omin", -Infinity), omax: limit("omax", Infinity), lmin: limit("lmin", -Infinity), lmax: limit("lmax", Infinity),
  };
}
const ofTiles = (wish) => wish.path !== "" || wish.omin > -Infinity || wish.omax < Infinity || wish.lmin > -Infinity || wish.lmax < Infinity;
const fits = (wish, tile) => (wish.path === "" || tile.kind === +wish.path) && tile.o >= wish.omin && tile.o <= wish.omax && (tile.l === null ? Infinity : tile.l) >= wish.lmin && (tile.l === null ? Infinity : tile.l) <= wish.lmax;
const named = (wish, tile) => tile.path.toLowerCase().includes(wish.text) || tile.data.name.toLowerCase().includes(wish.text);

let wish = wishes(), found = [], listed = 0;
function dim(shell) {
  for (const button of shell.querySelectorAll(".tile, .card")) if (!button.item.near) button.classList.toggle("off", !fits(wish, button.item));
}
const inFile = (number) => factsOf(number).tiles.some((tile) => tile.path.toLowerCase().includes(wish.text));
function apply() {
  wish = wishes();
  for (const label of form.querySelectorAll("[data-view]")) label.hidden = label.dataset.view !== wish.view;
  const inTiles = wish.view === "tiles", count = document.getElementById("count");
  list.hidden = inTiles;
  document.getElementById("tiles").hidden = !inTiles;
  document.getElementById("open").hidden = document.getElementById("close").hidden = inTiles;
  const narrow = ofTiles(wish);
  if (document.readyState === "loading" && (inTiles || narrow || wish.text)) {
    count.value = "still reading the page …";
    return;
  }
  if (inTiles) {
    listTiles();
    count.value = found.length === 1 ? "1 tile" : `${found.length.toLocaleString("en")} tiles`;
    document.getElementById("none").hidden = found.length > 0;
    return;
  }
  let shown = 0;
  shells.forEach((shell, number) => {
    const byName = wish.text === "" || shell.dataset.name.toLowerCase().includes(wish.text) || inFile(number);
    const keep = byName && (!narrow || factsOf(number).tiles.some((tile) => fits(wish, tile)));
    shell.hidden = !keep;
    shown += keep;
    if (shell.filled) dim(shell);
  });
  count.value = shown === shells.length ? `${shown.toLocaleString("en")} ${shown === 1 ? "class" : "classes"}` : `${shown.toLocaleString("en")} of ${shells.length.toLocaleString("en")} classes`;
  document.getElementById("none").hidden = shown > 0;
  arrange();
}
let arranged = "label false";
function arrange() {
  if (arranged === `${wish.sort} ${wish.down}`) return;
  arranged = `${wish.sort} ${wish.down}`;
  const key = (shell) => (wish.sort === "name" ? shell.dataset.name.toLowerCase() : wish.sort === "label" ? +shell.id.slice(6) : +shell.dataset[wish.sort]);
  const order = shells.map((shell) => [key(shell), shell]).sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
  if (wish.down) order.reverse();
  list.append(...order.map(([, shell]) => shell));
}

// All tiles at once.

const ORDERS = {
  rank: (tile) => tile.data.number * 1e6 + tile.rank, loss: (tile) => (tile.l === null ? Infinity : tile.l), occupancy: (tile) => tile.o,
  margin: (tile) => (tile.data.threshold === null ? 0 : Math.abs(tile.o - tile.data.threshold)), path: (tile) => tile.kind,
};
function listTiles() {
  const narrow = ofTiles(wish), key = ORDERS[wish.order];
  found = [];
  shells.forEach((_, number) => { for (const tile of factsOf(number).tiles) if ((!narrow || fits(wish, tile)) && (!wish.text || named(wish, tile))) found.push(tile); });
  const keyed = found.map((tile) => [key(tile), tile]).sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0));
  if (wish.down) keyed.reverse();
  found = keyed.map(([, tile]) => tile);
  document.querySelector("#tiles .grid").replaceChildren();
  for (const node of unseen) if (!node.isConnected) unseen.delete(node);
  const pane = document.querySelector("#tiles .source");
  pane.stays = null;
  listed = 0;
  further();
  const first = document.querySelector("#tiles .card");
  pane.hidden = !first;
  if (first) first.stay();
}
function further() {
  const grid = document.querySelector("#tiles .grid"), pane = document.querySelector("#tiles .source");
  const cards = found.slice(listed, listed + FIRST).map((tile) => card(tile, pane, [element("b", { class: "class-name" }, tile.data.name), element("small", {}, `${words(tile.kind)}${settings.searched ? `, ${fixed(tile.o, 2)}` : ""}`), element("small", {}, `loss ${fixed(tile.l, 2)}`)]));
  grid.append(...cards);
  listed += cards.length;
  document.getElementById("further").hidden = listed >= found.length;
  return cards[0];
}
document.getElementById("further").addEventListener("click", () => { const first = further(); if (first) first.focus(); });
document.querySelector("#tiles .grid").addEventListener("keydown", (event) => walk(event, [...document.querySelectorAll("#tiles .card")]));

// A table for programs and spreadsheets, of the tiles that the filters leave.
document.getElementById("save").addEventListener("click", () => {
  if (document.readyState === "loading") return;
  const rows = [["class", "file", "cell", "source", "path", "occupancy", "threshold", "loss", "rank", "x", "y", "width", "height"]];
  shells.forEach((_, number) => {
    const data = factsOf(number);
    for (const tile of data.tiles) if (fits(wish, tile) && (!wish.text || named(wish, tile)))
      rows.push([data.name, data.files[tile.m], tile.place, tile.path, tile.kind ? "full" : "crop", tile.o, data.threshold ?? "", tile.l ?? "", tile.rank, ...tile.box]);
  });
  const text = rows.map((row) => row.map((cell) => (/[",\r\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : cell)).join(",")).join("\r\n");
  const link = element("a", { href: URL.createObjectURL(new Blob([text + "\r\n"], { type: "text/csv" })), download: "tiles.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

let typed = 0;
form.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(apply, 60); });
document.addEventListener("DOMContentLoaded", apply);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(apply));
document.getElementById("again").addEventListener("click", () => { const view = wish.view; form.reset(); form.elements.view.value = view; setTimeout(apply); });
document.getElementById("open").addEventListener("click", () => { for (const shell of shells.filter((each) => !each.hidden).slice(0, OPENED)) shell.open = true; });
document.getElementById("close").addEventListener("click", () => { for (const shell of shells) shell.open = false; });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "radio" && event.target.type !== "checkbox";
  if (event.key === "Escape") {
    const shell = event.target.closest("details.class");
    if (shell) shell.querySelector("summary").focus();
    else if (typing) event.target.blur();
  } else if (typing) return;
  else if (event.key === "/") { event.preventDefault(); form.elements.text.focus(); }
  else if (event.key === "j" || event.key === "k") {
    const order = [...list.children].filter((each) => !each.hidden), here = order.indexOf(document.activeElement.closest("details.class"));
    const next = order[here < 0 ? 0 : here + (event.key === "j" ? 1 : -1)];
    if (next) { next.querySelector("summary").focus(); next.scrollIntoView({ block: "nearest" }); }
  }
});

// On paper nothing can be opened, nor scrolled to.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("[data-printed]")) part.open = true;
  for (const node of [...unseen]) if (node.closest(".class[open] .body, #tiles")) see(node);
});

// The first class is open, or the one that the address names.
const asked = location.hash.startsWith("#class-") ? document.getElementById(location.hash.slice(1)) : null;
for (const shell of shells) if (shell === asked || (!asked && "begin" in shell.dataset)) shell.open = true;
apply();
document.documentElement.dataset.ready = Math.round(performance.now());
