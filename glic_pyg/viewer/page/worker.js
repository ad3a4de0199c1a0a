// Codes in a thread of its own, so that the page never waits. Answers carry the number of their question.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { Codec } from "./codec.js";
import { FileError } from "./container.js";
import { FeatureMap } from "./maps.js";
import { modelFile } from "./model.js";

const FLOATING = ["g_a", "g_s", "h_a"]; // of all others every operator is computed by itself, for the same bits
const sessions = new Map();
let model = null;
let latest = 0; // an older question than this is given up

ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

class Cancelled extends Error {}

function session(name) {
  if (!sessions.has(name)) {
    const graphOptimizationLevel = FLOATING.includes(name) ? "all" : "disabled";
    const opened = modelFile(`${name}.onnx`)
      .then((answer) => answer.arrayBuffer())
      .then((bytes) => {
        const options = { executionProviders: ["wasm"], graphOptimizationLevel };
        return ort.InferenceSession.create(new Uint8Array(bytes), options);
      });
    opened.catch(() => sessions.delete(name));
    sessions.set(name, opened);
  }
  return sessions.get(name);
}

/** The networks whose bits count. */
function exact() {
  const ofGroups = model.groups.flatMap((_, k) => [`channel_context_${k}`, `context_${k}`, `parameters_${k}`]);
  return ["h_s", ...ofGroups.filter((name) => name !== "channel_context_0")];
}

/** Open the networks that are needed, before any time is measured. */
async function open(names, progress) {
  for (const [i, name] of names.entries()) {
    await progress(i / names.length, `networks: ${name}`);
    await session(name);
  }
}

async function run(name, x) {
  const opened = await session(name);
  const input = new ort.Tensor("float32", x.data, [1, x.channels, x.height, x.width]);
  const { y } = await opened.run({ x: input });
  const [, channels, height, width] = y.dims;
  return new FeatureMap(channels, height, width, y.data);
}

async function answer({ id, kind, ...question }) {
  if (kind === "nothing") throw new Cancelled();
  const progress = async (share, text) => {
    postMessage({ id, share, text });
    await new Promise((resolve) => setTimeout(resolve)); // lets a newer question in
    if (id !== latest) throw new Cancelled();
  };
  await open(kind === "decode" ? ["g_s", ...exact()] : ["g_a", "h_a", ...exact()], progress);
  const codec = new Codec(model, run, progress);
  if (kind === "decode") {
    const result = await codec.decode(question.bytes);
    return { result, transfer: [result.raw.buffer] };
  }
  const start = performance.now();
  const bytes = await codec.encode(question.rgba, question.height, question.width, question.quality);
  return { result: { bytes, seconds: (performance.now() - start) / 1000 }, transfer: [bytes.buffer] };
}

onmessage = async ({ data }) => {
  if (data.model) {
    model = data.model;
    return;
  }
  latest = data.id;
  try {
    const { result, transfer = [] } = await answer(data);
    postMessage({ id: data.id, result }, transfer);
  } catch (error) {
    if (error instanceof Cancelled) return;
    const broken = !(error instanceof FileError); // after which WebAssembly may not go on
    const text = String(error.message ?? error).split("\n")[0];
    const memory = error instanceof RangeError || /memory|bad_alloc|alloc|abort/i.test(text);
    const line = broken && memory ? `Expected enough memory for this picture (got no more: ${text})` : text;
    postMessage({ id: data.id, error: line, broken });
  }
};
