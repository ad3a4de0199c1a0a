const CHOICES = { stage: Object.keys(content.stages), scope: ["local", "global", "both"],
                  by: ["similarity", "attention"], head: ["mean", ...Array(HEADS).keys()].map(String),
                  picture: ["original", "restored"], map: ["none", "score", "quota", "degree", "bits"] };
const DEFAULTS = Object.fromEntries(Object.entries(CHOICES).map(([name, values]) => [name, values[0]]));
DEFAULTS.scope = "both";
const byId = (id) => document.getElementById(id);

// ---- state, and the link that holds it ----------------------------------------------------------------

// stage, scope, by, picture, map, layer, head, node: [row, column], pin: [row, column] or null, similarity, degree
let state = null;
let held = false;   // whether the node stays while the pointer moves

const zeroNode = () => stages[state.stage].height * stages[state.stage].width;

// The places of the layers that are chosen: one on the local graph, and the next one, if any, on the global.
const layerOf = (scope) => 2 * Number(state.layer) + SCOPES.indexOf(scope);

function leastSimilarity() {
  return Math.floor(1000 * Math.min(...SCOPES.map((scope) => stages[state.stage][scope].least))) / 1000;
}

// A map: its values and how many pixels each stands for; where both graphs are shown, the sum of theirs.
function mapOf(name) {
  const stage = stages[state.stage], { height, width, side } = stage;
  if (name === "bits") {
    const rows = (height * side) / content.bitsSide, columns = (width * side) / content.bitsSide;
    return { values: bits, height: rows, width: columns, side: content.bitsSide, told: name };
  }
  if (name === "score") return { values: stage.score, height, width, side, told: name };
  const maps = scopesOf(state.scope).map((scope) => stage[scope][name]);
  const values = maps.length === 1 ? maps[0] : maps[0].map((value, i) => value + maps[1][i]);
  return { values, height, width, side, told: maps.length === 1 ? name : `${name}, local + global` };
}

const mostDegree = () => mapOf("degree").values.reduce((a, b) => Math.max(a, b));

// Layers come in pairs, the second of which works on the global graph; a last one may be alone.
const layerChoices = () => [...Array(Math.ceil(stages[state.stage].layers.length / 2)).keys()].map(String);

function layerNames(pair) {
  const [first, count] = [2 * Number(pair), stages[state.stage].layers.length];
  return first + 1 < count ? `${first} local, ${first + 1} global` : `${first} local`;
}

function clampNode([row, column]) {
  const { height, width } = stages[state.stage];
  return [Math.max(0, Math.min(height - 1, row)), Math.max(0, Math.min(width - 1, column))];
}

function readLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const read = (text) => (/^\d+,\d+$/.test(text ?? "") ? text.split(",").map(Number) : null);
  const number = (text) => (text !== null && Number.isFinite(Number(text)) ? Number(text) : -1);
  state = { similarity: number(link.get("similarity")), degree: number(link.get("degree")) };
  for (const [name, values] of Object.entries(CHOICES)) {
    state[name] = values.includes(link.get(name)) ? link.get(name) : DEFAULTS[name];
  }
  state.layer = layerChoices().includes(link.get("layer")) ? link.get("layer") : "0";
  const { side } = stages[state.stage], { height, width } = content.photo;
  state.node = clampNode(read(link.get("node")) ?? [height, width].map((length) => Math.floor(length / side / 2)));
  const pin = read(link.get("pin"));
  state.pin = pin && clampNode(pin);
  held = link.has("node");  // who opens a link wants its node, not the pointer's
}

let linkTimer = 0;
function writeLink() {
  clearTimeout(linkTimer);  // browsers refuse too many changes a second
  linkTimer = setTimeout(() => {
    const { stage, scope, by, picture, map } = state;
    const link = new URLSearchParams({ stage, scope, by, picture, map });
    link.set("node", state.node.join(","));
    if (by === "attention") {
      link.set("layer", state.layer);
      link.set("head", state.head);
    }
    if (state.pin) link.set("pin", state.pin.join(","));
    if (state.similarity > leastSimilarity()) link.set("similarity", state.similarity);
    if (state.degree > 0) link.set("degree", state.degree);
    try {
      history.replaceState(null, "", "#" + link.toString().replaceAll("%2C", ","));
    } catch {
      // A page inside a notebook has no address to change.
    }
  }, 150);
}

function show(change) {
  const old = stages[state.stage];
  const whole = { ...change };
  if (change.stage && change.stage !== state.stage) {
    const { side } = stages[change.stage];
    const moved = (node) => node && node.map((x) => Math.floor(((x + 0.5) * old.side) / side));
    whole.node = change.node ?? moved(state.node);
    whole.pin = change.pin ?? moved(state.pin);
    whole.similarity = change.similarity ?? -1;
  }
  state = { ...state, ...whole };
  if (!layerChoices().includes(state.layer)) state.layer = "0";
  state.node = clampNode(state.node);
  if (Object.keys(change).some((name) => name !== "node")) updateControls();
  writeLink();
  requestPaint();
}

// ---- colours ------------------------------------------------------------------------------------------

const NEIGHBORS = ramp("440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725");  // viridis
const HEAT = ramp("ffc83c f07818 d02020 8c0030");
const OUTLINE = "#000", HALO = "#fff", NO_LAYER = "#888";
const HEAT_OPACITY = 0.7;  // of the greatest value; the least has none, so that the photo shows through

function ramp(text) {
  const colors = text.split(" ").map((color) => [0, 2, 4].map((at) => parseInt(color.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (colors.length - 1), low = Math.min(Math.floor(at), colors.length - 2);
    return colors[low].map((a, c) => Math.round(a + (colors[low + 1][c] - a) * (at - low)));
  });
}

const step = (part) => Math.max(0, Math.min(255, Math.round(255 * part)));

// The least and the greatest of what the shown neighbours tell, without the node itself and zero nodes.
function rangeOf(views) {
  let [low, high] = [Infinity, -Infinity];
  for (const { id, shown } of views) {
    for (const scope of scopesOf(state.scope)) {
      const { source, [state.by]: values } = shown[scope];
      if (!values) continue;
      source.forEach((other, i) => {
        if (other !== id && other !== zeroNode()) [low, high] = [Math.min(low, values[i]), Math.max(high, values[i])];
      });
    }
  }
  if (low > high) [low, high] = state.by === "similarity" ? [0, 1] : [0.01, 1];
  if (state.by === "attention") return { low, high: Math.max(high, 1.05 * low) };
  return { low, high: Math.max(high, low + 0.001) };
}

function colorOf(value, { low, high }) {
  if (value === undefined) return NO_LAYER;
  const part = state.by === "similarity" ? (value - low) / (high - low) : Math.log(value / low) / Math.log(high / low);
  return `rgb(${NEIGHBORS[step(part)].join()})`;
}

// A number with the digits that tell it from another.
function told(value, other) {
  return value.toFixed(Math.max(2, Math.min(4, 1 - Math.floor(Math.log10(Math.abs(other - value) || 1)))));
}

// What a map's colours span: a few extreme nodes would leave the rest without differences.
function spanOf(values) {
  const sorted = Float32Array.from(values).sort(), at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  const low = at(0.005);
  return { low, high: Math.max(at(0.995), low + 1e-6) };
}

// ---- panes --------------------------------------------------------------------------------------------

const NEAR = 290;  // side of the enlarged window, and the least width of what stands beside the photo
const pictures = { original: new Image(), restored: new Image() };
const greys = {};  // the same without colour, under a map
const panes = {};
const ROWS = ["quota", "kept", "shown", "zero node", "padding", "self edge", "mean similarity", "furthest"];
const LABELS = { "zero node": "zero nodes", padding: "in the padding", furthest: "furthest, pixels" };

function makePane(name) {
  const root = document.createElement("section");
  root.className = "pane";
  const lines = ROWS.map((row) => `<tr><th>${word(row, LABELS[row] ?? row)}</th><td></td><td></td></tr>`);
  root.innerHTML =
    '<h2></h2><canvas class="photo" tabindex="0"></canvas><div class="aside"><div><canvas class="near"></canvas>' +
    '<div class="steps"><button aria-label="left">←</button><button aria-label="up">↑</button>' +
    '<button aria-label="down">↓</button><button aria-label="right">→</button></div></div><table><thead>' +
    `<tr><th>${word("score")}</th><td colspan="2"></td></tr><tr><th>${word("bits", "bits here")}</th>` +
    `<td colspan="2"></td></tr><tr><th></th><th>${word("local")}</th><th>${word("global")}</th></tr></thead>` +
    `<tbody>${lines.join("")}</tbody></table></div>`;
  byId("panes").append(root);
  const [heading, wide, aside] = root.children, table = aside.lastChild, near = aside.querySelector(".near");
  wide.setAttribute("aria-label", "photo: choose a node by pointer, tap or arrow keys");
  near.setAttribute("aria-label", "the window around the node, enlarged: choose a node by click or tap");
  const cells = [...table.querySelectorAll("td")];
  const moves = ["ArrowLeft", "ArrowUp", "ArrowDown", "ArrowRight"];
  [...aside.querySelectorAll("button")].forEach((button, i) => {
    button.addEventListener("click", () => moveNode(MOVES[moves[i]]));
  });
  panes[name] = { root, heading, wide, aside, near, table, cells };
}

function resize(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  }
}

// The picture with its padding, in pixels.
function paddedSize() {
  const { height, width, side } = stages[state.stage];
  return { height: height * side, width: width * side };
}

const isPadding = (row, column) => {
  const { side } = stages[state.stage], { height, width } = content.photo;
  return row * side >= height || column * side >= width;
};

const narrow = window.matchMedia("(max-width: 800px)");

// The photo as large as it can be, with the window and the figures beside it or below.
function layOut() {
  panes.pinned.root.hidden = !state.pin;
  const shown = Object.values(panes).filter((pane) => !pane.root.hidden);
  const all = byId("panes").clientWidth || document.body.clientWidth - 32;
  const room = narrow.matches ? all : (all - 20 * (shown.length - 1)) / shown.length;
  const { height, width } = paddedSize();
  const free = window.innerHeight - 44 - (narrow.matches ? 0 : byId("panes").getBoundingClientRect().top + window.scrollY);
  const beside = Math.min((room - NEAR - 24) / width, free / height);
  const above = Math.min(room / width, Math.max(240, free - NEAR - 12) / height);
  const scale = narrow.matches ? Math.min(room / width, (0.45 * window.innerHeight) / height) : Math.max(beside, above);
  for (const pane of shown) {
    resize(pane.wide, Math.max(120, width * scale), Math.max(40, height * scale));
    resize(pane.near, NEAR, NEAR);
    pane.aside.style.flex = beside >= above && !narrow.matches ? `1 0 ${NEAR}px` : "1 0 100%";
  }
}

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const ground = (opacity) => (dark.matches ? `rgba(20,23,27,${opacity})` : `rgba(255,255,255,${opacity})`);

function grey(image) {
  const { height, width } = content.photo, canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const data = context.getImageData(0, 0, width, height), { data: pixels } = data;
  for (let i = 0; i < pixels.length; i += 4) {
    const luma = 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2];
    pixels[i] = pixels[i + 1] = pixels[i + 2] = luma;
  }
  context.putImageData(data, 0, 0);
  return canvas;
}

// A small picture of one dot per value, of a map's colours or of what is covered.
function dots({ values, height, width }, colorOfValue) {
  const canvas = document.createElement("canvas"), data = new ImageData(width, height);
  [canvas.width, canvas.height] = [width, height];
  for (let i = 0; i < values.length; i++) data.data.set(colorOfValue(values[i]), 4 * i);
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

// What lies under the marks: the picture, paled, or grey under a map; what is padding; what is covered.
let layers = null, layersKey = "";
function makeLayers() {
  const { stage, scope, map, picture, degree } = state;
  const key = [stage, scope, map, picture, degree, dark.matches].join();
  if (key === layersKey) return;
  layersKey = key;
  let image = pictures[picture];
  if (map !== "none") image = greys[picture] ??= grey(image);
  layers = { image, over: [] };
  if (map !== "none") {
    const shown = mapOf(map), span = spanOf(shown.values);
    const heat = dots(shown, (value) => {
      const color = step((value - span.low) / (span.high - span.low));
      return [...HEAT[color], HEAT_OPACITY * color];
    });
    layers.over.push({ canvas: heat, side: shown.side });
    layers.map = { told: shown.told, ...span };
  }
  if (degree > 0) {
    const shown = mapOf("degree"), cover = dark.matches ? [20, 23, 27, 235] : [255, 255, 255, 235];
    layers.over.push({ canvas: dots(shown, (value) => (value < degree ? cover : [0, 0, 0, 0])), side: shown.side });
  }
}

// Paint a part of the layers, in coordinates of nodes, on a whole canvas.
function paintLayers(context, { left, top, size }) {
  const { width, height } = context.canvas, { side } = stages[state.stage], scale = size / side;
  const [x, y] = [-left * size, -top * size], padded = paddedSize(), { photo } = content;
  context.fillStyle = dark.matches ? "#2b3138" : "#d5d9de";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingEnabled = scale < 2;
  context.save();
  context.beginPath();
  context.rect(x, y, padded.width * scale, padded.height * scale);
  context.clip();
  hatch(context, width, height);
  context.drawImage(layers.image, x, y, photo.width * scale, photo.height * scale);
  context.fillStyle = ground(state.map === "none" ? 0.3 : 0.15);
  context.fillRect(x, y, photo.width * scale, photo.height * scale);
  context.imageSmoothingEnabled = false;
  for (const { canvas, side: pixels } of layers.over) {
    context.drawImage(canvas, x, y, canvas.width * pixels * scale, canvas.height * pixels * scale);
  }
  context.restore();
}

// What is not in the photo: the padding that the model adds.
function hatch(context, width, height) {
  const ratio = window.devicePixelRatio || 1;
  context.fillStyle = dark.matches ? "#14171b" : "#ffffff";
  context.fillRect(0, 0, width, height);
  context.strokeStyle = dark.matches ? "#3d454f" : "#c9ced6";
  context.lineWidth = ratio;
  context.beginPath();
  for (let x = -height; x < width; x += 7 * ratio) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
}

const baseCanvas = document.createElement("canvas");
let baseKey = "";

// The layers under a whole photo, painted only when they change.
function base(width, height, size) {
  const key = [layersKey, width, height].join();
  if (key !== baseKey) {
    baseKey = key;
    [baseCanvas.width, baseCanvas.height] = [width, height];
    paintLayers(baseCanvas.getContext("2d"), { left: 0, top: 0, size });
  }
  return baseCanvas;
}

function drawStar(context, x, y, radius) {
  context.beginPath();
  for (let i = 0; i < 10; i++) {
    const r = i % 2 ? radius * 0.42 : radius, angle = (Math.PI * i) / 5 - Math.PI / 2;
    context.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
  }
  context.closePath();
  context.fillStyle = HALO;
  context.strokeStyle = OUTLINE;
  context.lineWidth = Math.max(1.5, radius / 6);
  context.fill();
  context.stroke();
}

// Marks in coordinates of nodes: `x = (column - left) * size`.
function drawMarks(context, { shown }, range, { left, top, size, least }) {
  const zero = zeroNode(), ratio = window.devicePixelRatio || 1;
  for (const scope of scopesOf(state.scope)) {
    const { source, row, column, [state.by]: values } = shown[scope];
    const side = Math.max(least[scope], (scope === "local" ? 0.8 : 0.9) * size);
    for (let i = 0; i < source.length; i++) {
      const x = (column[i] - left + 0.5) * size, y = (row[i] - top + 0.5) * size, real = source[i] !== zero;
      const draw = (length) => {
        context.beginPath();
        if (scope === "local") context.rect(x - length / 2, y - length / 2, length, length);
        else context.arc(x, y, length / 2, 0, 2 * Math.PI);
      };
      const padding = real && isPadding(row[i], column[i]);
      draw(side);
      if (real) {
        if (side > 7 * ratio) {
          context.lineWidth = 3 * ratio;
          context.strokeStyle = HALO;
          context.stroke();
        }
        context.fillStyle = padding ? HALO : colorOf(values?.[i], range);
        context.fill();
      }
      context.lineWidth = side > 7 ? 1 : 0.6;
      context.strokeStyle = !real && dark.matches ? "#a9b2bd" : OUTLINE;  // outside the photo
      context.stroke();
      if (padding) {
        draw(side / 2);
        context.fillStyle = colorOf(values?.[i], range);
        context.fill();
      }
    }
  }
}

function drawWindow(context, [row, column], { left, top, size }) {
  const [y, x] = [row, column].map((c) => QUERIES * Math.floor(c / QUERIES) - MARGIN);
  const ratio = window.devicePixelRatio || 1;
  for (const [color, dash] of [[HALO, []], [OUTLINE, [4 * ratio, 3 * ratio]]]) {
    context.setLineDash(dash);
    context.strokeStyle = color;
    context.lineWidth = ratio;
    context.strokeRect((x - left) * size, (y - top) * size, CANDIDATES * size, CANDIDATES * size);
  }
  context.setLineDash([]);
}

// A node with its kept neighbours, and those of them that are shown.
function viewOf(node) {
  const stage = stages[state.stage], id = node[0] * stage.width + node[1];
  const view = { id, kept: {}, shown: {} };
  for (const scope of SCOPES) {
    const kept = view.kept[scope] = neighbors(state.stage, scope, id);
    if (state.by === "attention" && layerOf(scope) < stage.layers.length) {
      kept.attention = attention(state.stage, layerOf(scope), id, kept, state.head);
    }
    const enough = kept.similarity.map((s) => s >= state.similarity);
    const some = Object.entries(kept).map(([name, values]) => [name, values.filter((_, i) => enough[i])]);
    view.shown[scope] = Object.fromEntries(some);
  }
  return view;
}

// The enlarged window around a node: a node more than that of the local candidates on every side.
function nearOf(node, width) {
  const [top, left] = node.map((c) => QUERIES * Math.floor(c / QUERIES) - MARGIN - 1);
  return { left, top, size: width / (CANDIDATES + 2), least: { local: 0, global: 0 } };
}

function paintPane(pane, node, view, range, label) {
  const ratio = window.devicePixelRatio || 1;
  const { width, height } = pane.wide, context = pane.wide.getContext("2d");
  const size = width / stages[state.stage].width;
  const whole = { left: 0, top: 0, size, least: { local: 6 * ratio, global: 9 * ratio } };
  context.drawImage(base(width, height, size), 0, 0);
  if (state.scope !== "global") drawWindow(context, node, whole);
  drawMarks(context, view, range, whole);
  drawStar(context, (node[1] + 0.5) * size, (node[0] + 0.5) * size, 8 * ratio);

  const close = pane.near.getContext("2d"), part = nearOf(node, pane.near.width);
  paintLayers(close, part);
  if (state.scope !== "global") drawWindow(close, node, part);
  drawMarks(close, view, range, part);
  drawStar(close, (node[1] - part.left + 0.5) * part.size, (node[0] - part.top + 0.5) * part.size, 7 * ratio);

  pane.heading.textContent = `${label}row ${node[0]}, column ${node[1]}`;
  writeFigures(pane, node, view);
}

function writeFigures({ cells }, [row, column], { id, kept, shown }) {
  const stage = stages[state.stage], zero = zeroNode(), { bitsSide } = content;
  const [y, x] = [row, column].map((c) => Math.floor((c * stage.side) / bitsSide));
  const here = bits[(y * stage.width * stage.side) / bitsSide + x];
  const figures = [stage.score[id].toPrecision(3), here.toFixed(1)];
  const columns = SCOPES.map((scope) => {
    const found = kept[scope], real = found.source.map((s, i) => i).filter((i) => found.source[i] !== zero);
    const others = real.filter((i) => found.source[i] !== id);
    const mean = others.reduce((sum, i) => sum + found.similarity[i], 0) / others.length;
    const far = others.map((i) => stage.side * Math.hypot(found.row[i] - row, found.column[i] - column));
    return [
      stage[scope].quota[id].toFixed(1),
      found.source.length,
      shown[scope].source.length,
      found.source.length - real.length,
      real.filter((i) => isPadding(found.row[i], found.column[i])).length,
      real.length > others.length ? "yes" : "no",
      others.length ? mean.toFixed(3) : "–",
      others.length ? Math.max(...far).toFixed(0) : "–",
    ];
  });
  for (let i = 0; i < ROWS.length; i++) figures.push(columns[0][i], columns[1][i]);
  figures.forEach((figure, i) => { cells[i].textContent = figure; });
  const hide = (name, unneeded) => { cells[2 + 2 * ROWS.indexOf(name)].parentNode.hidden = unneeded; };
  hide("shown", state.similarity <= leastSimilarity());
  hide("padding", !isPadding(stage.height - 1, stage.width - 1));
}

function writeAbout(view, range) {
  const last = stages[state.stage], padded = isPadding(last.height - 1, last.width - 1);
  const told_ = aboutTold({ node: state.node, view, range, map: layers.map && state.map !== "none" ? layers.map : null,
                            padded });
  for (const [id, html] of Object.entries(told_)) {
    const item = byId(id), text = item.querySelector("span");
    item.hidden = html === null;
    if (html !== null && text.dataset.html !== html) {  // a word that is read stays
      text.dataset.html = html;
      text.innerHTML = html;
    }
  }
  writeScale("ofColor", told(range.low, range.high), told(range.high, range.low));
  if (told_.ofMap) {
    const { low, high } = layers.map, digits = state.map === "degree" ? String : (value) => value.toPrecision(3);
    writeScale("ofMap", `≤ ${digits(low)}`, `≥ ${digits(high)}`);
  }
}

function writeScale(id, low, high) {
  const [first, , last] = byId(id).querySelector(".scale").children;
  first.textContent = low;
  last.textContent = high;
}

// ---- painting, and what people do -----------------------------------------------------------------------

let painted = null;     // what the current pane shows
let paintMilliseconds = 0;
let waiting = false;

function paint() {
  waiting = false;
  const start = performance.now();
  layOut();
  makeLayers();
  painted = viewOf(state.node);
  const pinned = state.pin && viewOf(state.pin);
  const range = rangeOf(pinned ? [pinned, painted] : [painted]);
  if (pinned) paintPane(panes.pinned, state.pin, pinned, range, "pinned: ");
  paintPane(panes.current, state.node, painted, range, held ? "held: " : "");
  writeAbout(painted, range);
  paintMilliseconds = performance.now() - start;
}

function requestPaint() {
  if (!waiting) requestAnimationFrame(paint);
  waiting = true;
}

function updateControls() {
  if (byId("layer").dataset.of !== state.stage) {
    byId("layer").dataset.of = state.stage;
    for (const label of byId("layer").querySelectorAll("label")) label.remove();
    makeChoices("layer", layerChoices(), layerNames);
  }
  for (const name of ["layer", "head"]) byId(name).hidden = state.by !== "attention";
  for (const name of [...Object.keys(CHOICES), "layer"]) {
    for (const input of byId(name).querySelectorAll("input")) input.checked = input.value === state[name];
  }
  const least = leastSimilarity(), most = mostDegree();
  state.similarity = Math.max(least, Math.min(1, state.similarity));
  state.degree = Math.max(0, Math.min(most, state.degree));
  Object.assign(byId("similarity"), { min: least, max: 1, step: 0.001, value: state.similarity });
  Object.assign(byId("degree"), { max: most, value: state.degree });
  byId("similarity").nextSibling.textContent = state.similarity.toFixed(3);
  byId("degree").nextSibling.textContent = state.degree;
  byId("pin").textContent = pinTold(state.pin);
}

function makeChoices(name, values, shown = (value) => value) {
  for (const value of values) {
    const label = document.createElement("label"), told_ = `${name} ${value}`;
    if (told_ in WORDS) label.dataset.word = told_;
    label.innerHTML = `<input type="radio" name="${name}" value="${value}"><span>${shown(value)}</span>`;
    label.firstChild.addEventListener("change", () => show({ [name]: value }));
    // Whoever clicks wants the keys to move the node; whoever comes by Tab wants them to choose.
    label.addEventListener("click", (event) => {
      if (event.detail > 0) requestAnimationFrame(() => panes.current.wide.focus({ preventScroll: true }));
    });
    byId(name).append(label);
  }
}

function makeControls() {
  for (const [name, values] of Object.entries(CHOICES)) makeChoices(name, values);
  for (const name of ["similarity", "degree"]) {
    byId(name).addEventListener("input", (event) => show({ [name]: Number(event.target.value) }));
  }
  byId("pin").addEventListener("click", togglePin);
  for (const [id, colors] of [["ofColor", NEIGHBORS], ["ofMap", HEAT]]) {
    const context = byId(id).querySelector("canvas").getContext("2d");
    colors.forEach((color, i) => {
      context.fillStyle = `rgba(${color.join()},${id === "ofMap" ? (HEAT_OPACITY * i) / 255 : 1})`;
      context.fillRect(i, 0, 1, 1);
    });
  }
}

const togglePin = () => show({ pin: state.pin ? null : state.node });

function moveNode([down, right], by = 1) {
  held = true;
  show({ node: [state.node[0] + by * down, state.node[1] + by * right] });
}

// The place under the pointer, in nodes from the upper left one.
function placeAt(pane, canvas, event) {
  const box = canvas.getBoundingClientRect(), node = pane === panes.pinned ? state.pin : state.node;
  const { left, top, size } = canvas === pane.near ? nearOf(node, box.width)
    : { left: 0, top: 0, size: box.width / stages[state.stage].width };
  return [top + (event.clientY - box.top) / size, left + (event.clientX - box.left) / size, size];
}

function nodeAt(pane, canvas, event) {
  return clampNode(placeAt(pane, canvas, event).slice(0, 2).map(Math.floor));
}

// What a mark under the pointer tells.
function tellMark(pane, canvas, event) {
  const [row, column, size] = placeAt(pane, canvas, event), reach = Math.max(0.5, 5 / size);
  let nearest = null;
  for (const scope of scopesOf(state.scope)) {
    const { source, row: rows, column: columns, similarity, attention: share } = painted.shown[scope];
    source.forEach((id, i) => {
      const distance = Math.max(Math.abs(rows[i] + 0.5 - row), Math.abs(columns[i] + 0.5 - column));
      if (distance > reach || distance >= (nearest?.distance ?? Infinity)) return;
      const kind = id === zeroNode() ? "zero node, outside the picture" : id === painted.id ? "the node itself"
        : `row ${rows[i]}, column ${columns[i]}${isPadding(rows[i], columns[i]) ? ", in the padding" : ""}`;
      const of = share ? `, attention ${share[i].toPrecision(2)}` : "";
      nearest = { distance, text: `${scope}: ${kind}; similarity ${similarity[i].toFixed(3)}${of}` };
    });
  }
  if (nearest) tell(nearest.text, { left: event.clientX, top: event.clientY, bottom: event.clientY + 12 });
  else byId("hint").hidden = true;
}

function listen(pane) {
  const { wide, near } = pane;
  for (const canvas of [wide, near]) {
    canvas.addEventListener("pointermove", (event) => {
      const mouse = event.pointerType === "mouse";
      if (canvas === wide && !(held && mouse)) show({ node: nodeAt(pane, canvas, event) });
      else if (mouse && pane === panes.current) tellMark(pane, canvas, event);
    });
    canvas.addEventListener("pointerdown", (event) => {
      held = event.pointerType === "mouse" && canvas === wide ? !held : true;
      byId("hint").hidden = true;
      show({ node: nodeAt(pane, canvas, event) });
    });
    canvas.addEventListener("pointerleave", () => { byId("hint").hidden = true; });
  }
}

const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key.toLowerCase() === "p") {
    togglePin();
  } else if (event.key === "Escape") {
    byId("hint").hidden = true;
  } else if (event.key in MOVES && !event.target.matches("input")) {  // which arrows choose or slide
    moveNode(MOVES[event.key], event.shiftKey ? QUERIES : 1);
    event.preventDefault();
  }
});

// A line about a word, below it or, at the foot of the page, above.
function tell(text, { left, top, bottom }) {
  const hint = byId("hint");
  hint.textContent = text;
  hint.hidden = false;
  const { width, height } = hint.getBoundingClientRect();
  hint.style.left = `${Math.max(4, Math.min(left, window.innerWidth - width - 4))}px`;
  hint.style.top = `${bottom + height + 10 < window.innerHeight ? bottom + 6 : top - height - 6}px`;
}

function tellWord(target) {
  const named = target instanceof Element && target.closest("[data-word]");
  if (named) tell(WORDS[named.dataset.word], named.getBoundingClientRect());
  else if (!(target instanceof Element && target.matches("canvas"))) byId("hint").hidden = true;
}

function listenForWords() {
  document.addEventListener("pointerover", (event) => event.pointerType === "mouse" && tellWord(event.target));
  document.addEventListener("click", (event) => touch && tellWord(event.target));
  document.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && tellWord(event.target));
  document.addEventListener("scroll", () => { byId("hint").hidden = true; }, { passive: true });
  document.addEventListener("pointerdown", (event) => {
    if (touch === (event.pointerType !== "mouse")) return;
    touch = !touch;
    updateControls();
    requestPaint();
  }, { capture: true });
}

async function start() {
  const about = document.createElement("small"), { width, height } = content.photo;
  about.textContent = ` graphs of ${content.model}, ${width} x ${height} pixels`;
  byId("title").append(content.title, about);
  document.title = `${content.title}: graphs of ${content.model}`;
  for (const [name, image] of Object.entries(pictures)) image.src = content.photo[name];
  await Promise.all([...Object.values(pictures).map((image) => image.decode()), unpackAll()]);
  makeControls();
  for (const name of ["pinned", "current"]) {
    makePane(name);
    listen(panes[name]);
  }
  panes.current.table.before(byId("about"));
  listenForWords();
  readLink();
  updateControls();
  paint();
  window.addEventListener("resize", requestPaint);
  dark.addEventListener("change", requestPaint);
  window.addEventListener("hashchange", () => {
    readLink();
    updateControls();
    requestPaint();
  });
}

window.glic = {
  ready: start(),
  neighbors,
  attention,
  show,
  state: () => ({ ...state }),
  shown: () => painted,
  paintMilliseconds: () => paintMilliseconds,
};
