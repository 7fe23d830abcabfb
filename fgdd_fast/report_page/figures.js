"use strict";
// What both pages draw: a source with its foreground and box, tiles cut from mosaics, numbers in words.

const SVG = "http://www.w3.org/2000/svg";

function make(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const element = (name, attributes, ...children) => make(document.createElement(name), attributes, children);
const drawn = (name, attributes, ...children) => make(document.createElementNS(SVG, name), attributes, children);
// The data of a class stand at the end of a long page: what asks for them earlier waits.
const waiting = [];
function when(id, act) {
  if (document.getElementById(id) || document.readyState !== "loading") act();
  else waiting.push([id, act]);
}
function look() {
  const ready = waiting.filter(([id]) => document.getElementById(id) || document.readyState !== "loading");
  for (const each of ready) { waiting.splice(waiting.indexOf(each), 1); each[1](); }
  if (document.readyState === "loading") setTimeout(look, 60);
}
setTimeout(look, 60);
document.addEventListener("DOMContentLoaded", look);
const json = (id) => JSON.parse(document.getElementById(id).textContent);
const picture = (base64) => "data:image/jpeg;base64," + base64;
const fixed = (value, digits) => (value === null || value === undefined ? "not finite" : value.toFixed(digits));

// Two shares in percent, with as many digits as it takes to tell them apart.
function percents(one, other) {
  for (let digits = 0; digits < 3; digits++) {
    const pair = [one, other].map((value) => (100 * value).toFixed(digits));
    if (pair[0] !== pair[1] || one === other) return pair.map((text) => text + "%");
  }
  return [one, other].map((value) => (100 * value).toFixed(3) + "%");
}

// A tile, cut from its mosaic; its pictures are asked for when it is seen.
function tilePicture(mosaic, factor, place, label) {
  const column = place % factor, row = Math.floor(place / factor);
  const box = `${column} ${row} 1 1`;
  const image = drawn("image", { width: factor, height: factor, preserveAspectRatio: "none" });
  if (mosaic) image.setAttribute("href", picture(mosaic));
  return drawn("svg", { viewBox: box, preserveAspectRatio: "none", role: label ? "img" : null, "aria-label": label, "aria-hidden": label ? null : "true" }, image);
}

// A source with what was decided about it.
// shown: {width, height, box, kind, outline, source: picture or null, mosaic: picture or null, factor, place, label}
function sourcePicture(shown) {
  let { width, height } = shown;
  const box = shown.box;
  let [left, top] = [0, 0];
  if (!width) [left, top, width, height] = box || [0, 0, 1, 1];
  const svg = drawn("svg", { class: "picture", viewBox: `${left} ${top} ${width} ${height}`, role: "img", "aria-label": shown.label });
  if (shown.source) {
    svg.append(drawn("image", { href: picture(shown.source), x: left, y: top, width, height, preserveAspectRatio: "none" }));
  } else {
    svg.append(drawn("rect", { class: "unknown", x: left, y: top, width, height }));
    if (shown.mosaic && box) {
      const inner = tilePicture(shown.mosaic, shown.factor, shown.place, null);
      for (const [name, value] of Object.entries({ x: box[0], y: box[1], width: box[2], height: box[3] })) inner.setAttribute(name, value);
      svg.append(inner);
    }
  }
  if (box && shown.kind === 0 && shown.source) {
    const [x, y, w, h] = box;
    svg.append(drawn("path", { class: "veil", d: `M${left} ${top}h${width}v${height}h${-width}zM${x} ${y}h${w}v${h}h${-w}z` }));
  }
  if (shown.outline) {
    const place = `translate(${left} ${top}) scale(${width / 1000} ${height / 1000})`;
    for (const name of ["halo", "border"]) svg.append(drawn("path", { class: name, d: shown.outline, transform: place }));
  }
  if (box) {
    const inset = Math.max(width, height) * 0.008;
    const frame = { x: box[0] + inset, y: box[1] + inset, width: box[2] - 2 * inset, height: box[3] - 2 * inset };
    svg.append(drawn("rect", { class: "frame paper", ...frame }));
    svg.append(drawn("rect", { class: "frame " + (shown.kind ? "whole" : "crop"), ...frame }));
  }
  return svg;
}
