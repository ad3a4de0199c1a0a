const content = JSON.parse(document.getElementById("content").textContent);
const { queries: QUERIES, candidates: CANDIDATES } = content;
// An edge's offset per axis, its least and their number: between the two grids, or among the candidates.
const GRID = content.position === "grid";
const LEAST = GRID ? 1 - QUERIES : 1 - CANDIDATES;
const OFFSETS = CANDIDATES - LEAST;
const MARGIN = (CANDIDATES - QUERIES) / 2;
const SCOPES = ["local", "global"];
const HEADS = Object.values(content.stages)[0].layers[0].factor.length;

// ---- data -----------------------------------------------------------------------------------------------

async function unpack(text, Values) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const inflated = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Values(await new Response(inflated).arrayBuffer());
}

async function unpackMap({ most, values }) {
  return Float32Array.from(await unpack(values, Uint16Array), (v) => (v * most) / 65535);
}

async function unpackGraph(packed) {
  const degree = await unpack(packed.degree, Uint16Array);
  const indptr = new Uint32Array(degree.length + 1);
  for (let i = 0; i < degree.length; i++) indptr[i + 1] = indptr[i] + degree[i];
  const distance = await unpack(packed.distance, Uint8Array);
  const place = await unpack(packed.advance, Uint8Array);
  for (let i = 0; i < degree.length; i++) {
    for (let edge = indptr[i] + 1; edge < indptr[i + 1]; edge++) place[edge] += place[edge - 1];
  }
  const { least } = packed, { distanceSteps } = content;
  const similarity = Float32Array.from(distance, (d) => 1 - (1 - least) * (d / distanceSteps) ** 2);
  return { degree: Float32Array.from(degree), indptr, place, similarity, least, quota: await unpackMap(packed.quota) };
}

async function unpackLayer({ factor, bias, mean, basis, step, value }) {
  return { factor, mean, step, bias: await unpack(bias, Int16Array), basis: await unpack(basis, Int16Array),
           value: await unpack(value, Int8Array) };
}

const stages = {};
let bits = null;  // of every position of y
async function unpackAll() {
  for (const [name, packed] of Object.entries(content.stages)) {
    const { height, width, side } = packed;
    stages[name] = { height, width, side, score: await unpackMap(packed.score),
                     local: await unpackGraph(packed.local), global: await unpackGraph(packed.global),
                     layers: await Promise.all(packed.layers.map(unpackLayer)) };
  }
  bits = await unpackMap(content.bits);
}

// A node's candidates, per axis: its window of 16 nodes, or the mesh of 16 that spans the map; and where offsets
// begin: at the node's place among the 8 that share them, or at its place among the candidates.
function candidateAxis(scope, coordinate, length) {
  if (scope === "local") {
    const slot = coordinate % QUERIES;
    return { start: coordinate - slot - MARGIN, stride: 1, origin: GRID ? slot : slot + MARGIN };
  }
  const stride = Math.ceil(length / CANDIDATES);
  return { start: coordinate % stride, stride, origin: Math.floor(coordinate / ((GRID ? 2 : 1) * stride)) };
}

// The kept edges towards a node. `source` is the id of the neighbour, height * width for the zero node.
function neighbors(stageName, scope, node) {
  const stage = stages[stageName], graph = stage[scope], { height, width } = stage;
  const rows = candidateAxis(scope, Math.floor(node / width), height);
  const columns = candidateAxis(scope, node % width, width);
  const found = { source: [], row: [], column: [], offset: [], similarity: [] };
  for (let edge = graph.indptr[node]; edge < graph.indptr[node + 1]; edge++) {
    const place = graph.place[edge];
    const row = rows.start + rows.stride * Math.floor(place / CANDIDATES);
    const column = columns.start + columns.stride * (place % CANDIDATES);
    const inside = row >= 0 && row < height && column >= 0 && column < width;
    found.source.push(inside ? row * width + column : height * width);
    found.row.push(row);
    found.column.push(column);
    found.similarity.push(graph.similarity[edge]);
    const down = Math.floor(place / CANDIDATES) - rows.origin, right = (place % CANDIDATES) - columns.origin;
    found.offset.push((down - LEAST) * OFFSETS + right - LEAST);
  }
  return found;
}

// A node's queries (half 0) or keys (half 1) in a layer, each head's normalised, one head after the other.
function normalised(layer, nodes, node, half) {
  const { mean, basis, value, step } = layer, width = mean.length / 2, rank = basis.length / mean.length;
  const vector = Float64Array.from(mean.slice(half * width, (half + 1) * width));
  for (let r = 0; r < rank; r++) {
    const amount = (value[r * nodes + node] * step) / content.basisSteps;
    if (amount) for (let i = 0; i < width; i++) vector[i] += amount * basis[(2 * r + half) * width + i];
  }
  const size = width / HEADS;
  for (let start = 0; start < width; start += size) {
    const head = vector.subarray(start, start + size), length = Math.max(Math.hypot(...head), 1e-12);
    head.forEach((x, i) => { head[i] = x / length; });
  }
  return vector;
}

// The attention of a layer for the edges towards a node, by one head or the mean of all.
function attention(stageName, layerNumber, node, found, head) {
  const stage = stages[stageName], layer = stage.layers[layerNumber], nodes = stage.height * stage.width;
  const query = normalised(layer, nodes, node, 0), size = query.length / HEADS;
  const keys = found.source.map((source) => (source === nodes ? null : normalised(layer, nodes, source, 1)));
  const total = new Array(keys.length).fill(0), heads = head === "mean" ? [...Array(HEADS).keys()] : [Number(head)];
  for (const h of heads) {
    const weights = keys.map((key, i) => {
      let cosine = 0;
      if (key) for (let c = h * size; c < (h + 1) * size; c++) cosine += query[c] * key[c];
      return Math.exp(layer.factor[h] * cosine + layer.bias[found.offset[i] * HEADS + h] * content.biasStep);
    });
    const sum = weights.reduce((a, b) => a + b, 0);
    weights.forEach((weight, i) => { total[i] += weight / sum / heads.length; });
  }
  return total;
}

const scopesOf = (scope) => (scope === "both" ? SCOPES : [scope]);
