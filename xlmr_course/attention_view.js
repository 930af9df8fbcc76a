// BertViz draws with d3 5, jQuery 2 and require.js and loads them from the internet. These are stand-ins for the calls
// it makes, so that its own code runs unchanged on a page that reaches nothing. They behave as the originals do where
// BertViz looks; they are no libraries.

const schemeCategory10 = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
  "#bcbd22", "#17becf"];

// A d3 selection: groups of elements, each with the parent that it was found in. An element's datum is `__data__`.
class Selection {
  constructor(groups) { this.groups = groups; }

  each(visit) {
    this.groups.forEach(({nodes}) => nodes.forEach((node, i) => visit.call(node, node.__data__, i, nodes)));
    return this;
  }

  // Set something on every element; a value may be a function of datum and index, with the element as `this`.
  set(value, change) {
    return this.each(function (d, i, nodes) {
      change(this, typeof value === "function" ? value.call(this, d, i, nodes) : value);
    });
  }

  attr(name, value) {
    return this.set(value, (node, v) => v === null ? node.removeAttribute(name) : node.setAttribute(name, v));
  }
  style(name, value) { return this.set(value, (node, v) => node.style.setProperty(name, v)); }
  text(value) { return this.set(value, (node, v) => { node.textContent = v; }); }
  classed(name, on) { return this.set(on, (node, v) => node.classList.toggle(name, Boolean(v))); }
  remove() { return this.each(function () { this.remove(); }); }

  on(type, listener) {
    return this.each(function (d, i, nodes) {
      this.addEventListener(type, () => listener.call(this, this.__data__, i, nodes));
    });
  }

  // One descendant for each element. It takes over the element's datum.
  select(selector) { return this.derive(node => node.querySelector(selector)); }
  append(name) { return this.derive(node => node.appendChild(create(name))); }
  derive(find) {
    return new Selection(this.groups.map(({parent, nodes}) => ({parent, nodes: nodes.flatMap(node => {
      const found = find(node);
      if (found && "__data__" in node) found.__data__ = node.__data__;
      return found ? [found] : [];
    })})));
  }

  // All descendants of each element, a group for each.
  selectAll(selector) {
    const found = [];
    this.each(function () { found.push({parent: this, nodes: Array.from(this.querySelectorAll(selector))}); });
    return new Selection(found);
  }

  // Give the elements of each group their data by index; `enter()` then makes those that are missing.
  data(values) {
    const missing = [];
    const groups = this.groups.map(({parent, nodes}, i) => {
      const list = Array.from(typeof values === "function" ? values.call(parent, parent.__data__, i) : values);
      const bound = nodes.slice(0, list.length);
      bound.forEach((node, j) => { node.__data__ = list[j]; });
      missing.push({parent, list: list.slice(bound.length)});
      return {parent, nodes: bound};
    });
    const update = new Selection(groups);
    update.enter = () => ({append: name => new Selection(missing.map(({parent, list}) => ({parent, nodes:
      list.map(d => Object.assign(parent.appendChild(create(name)), {__data__: d}))})))});
    return update;
  }
}

function create(name) {
  return document.createElementNS("http://www.w3.org/2000/svg", name.replace("svg:", ""));
}

// "#1f77b4" -> hue in degrees, saturation and lightness in 0 … 1, which may be changed and then used as a colour.
function hsl(colour) {
  const [r, g, b] = [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16) / 255);
  const high = Math.max(r, g, b), range = high - Math.min(r, g, b), l = high - range / 2;
  const h = !range ? 0 : high === r ? (g - b) / range : high === g ? (b - r) / range + 2 : (r - g) / range + 4;
  const s = range && range / (1 - Math.abs(2 * l - 1));
  const percent = x => `${Math.min(Math.max(x, 0), 1) * 100}%`;
  return {h: 60 * h, s, l, toString() { return `hsl(${this.h}, ${percent(this.s)}, ${percent(this.l)})`; }};
}

const d3 = {
  version: "stand-in for 5.7.0",
  schemeCategory10,
  scaleOrdinal: range => i => range[i % range.length],
  hsl,
  select: what => new Selection([{parent: null, nodes: typeof what === "string" ? all(what).slice(0, 1) : [what]}]),
};

function all(selector) { return Array.from(document.querySelectorAll(selector)); }

// jQuery's `$`: of the ways to call it only a selector and "<tag />".
function $(what) {
  const nodes = what.startsWith("<") ? [document.createElement(what.match(/\w+/)[0])] : all(what);
  const chain = change => (...args) => { nodes.forEach(node => change(node, ...args)); return wrapped; };
  const wrapped = {
    nodes,
    append: chain((node, child) => child.nodes.forEach(c => node.appendChild(c))),
    attr: chain((node, name, value) => node.setAttribute(name, value)),
    change: chain(node => node.dispatchEvent(new Event("change"))),
    empty: chain(node => node.replaceChildren()),
    on: chain((node, type, listener) => node.addEventListener(type, listener)),
    text: chain((node, value) => { node.textContent = value; }),
    val: chain((node, value) => { node.value = value; }),
  };
  return wrapped;
}

const require = {config() {}};
const requirejs = (names, use) => use($, d3);

// Shrink a drawing that is wider than the page instead of cutting it off.
function fit(live) {
  live.querySelectorAll("svg").forEach(svg => {
    const [width, height] = ["width", "height"].map(name => svg.getAttribute(name));
    if (width.endsWith("%")) return;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    Object.assign(svg.style, {maxWidth: "100%", height: "auto"});
  });
}

// Where to draw: beside the running script, or where nothing has been drawn yet if a front end runs scripts elsewhere.
function place(script) {
  const beside = script && script.previousElementSibling;
  if (beside && beside.className === "live") return beside;
  return all("div.live").find(live => !live.firstElementChild.id);
}

// Let BertViz draw, and put away the still picture that stood in its place. Each drawing on a page gets an
// id of its own, however often the same view is shown.
function draw(script, params, bertviz) {
  const live = place(script), still = live.previousElementSibling;
  const weights = x => Array.isArray(x) ? x.map(weights) : x / 1000; // they are stored as whole thousandths
  params.attention.forEach(part => { part.attn = weights(part.attn); });
  let number = 1;
  while (document.getElementById(`attention-view-${number}`)) number += 1;
  params.root_div_id = live.firstElementChild.id = `attention-view-${number}`;
  live.style.display = "";
  try {
    bertviz(params);
    fit(live);
    live.addEventListener("change", () => fit(live)); // another choice in a menu makes another drawing
    still.remove();
  } catch (error) {
    live.remove();
    still.querySelector("p").textContent = `BertViz could not draw here (${error.message}), so this is a still picture.`;
  }
}
