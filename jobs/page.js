"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
function el(parent, name, attributes = {}, text) {
  const node = parent.appendChild(document.createElementNS(SVG, name));
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return node;
}
const percent = x => (100 * x).toFixed(1).replace("-", "−") + " %";
const cut = (text, n) => text.length > n ? text.slice(0, n - 1) + "…" : text;
const clamp = (x, a, b) => Math.min(b, Math.max(a, x));
function tip(lines, x, y) {
  const box = $("tip");
  box.hidden = !lines;
  if (!lines) return;
  box.textContent = "";
  lines.slice(0, 12).forEach((line, i) => box.appendChild(document.createElement(i ? "div" : "b")).textContent = line);
  box.style.left = clamp(x + 14, 6, document.documentElement.clientWidth - box.offsetWidth - 6) + "px";
  box.style.top = (y + 18 + box.offsetHeight > innerHeight ? y - box.offsetHeight - 14 : y + 18) + "px";
}
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    if (!head.textContent.trim() || head.querySelector("[hidden]")) return;
    const button = document.createElement("button");
    button.append(...head.childNodes); head.append(button);
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") === "descending";
      heads.forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = r => { const c = r.cells[column]; return c.dataset.v === undefined ? c.textContent : +c.dataset.v; };
      const rows = [...body.rows].sort((p, q) => { const a = value(p), b = value(q); return (typeof a === "string" ? a.localeCompare(b) : a - b) * (up ? 1 : -1); });
      body.append(...rows);
    };
  });
}
addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details")) d.open = true; });
