// What is seen: files come in by dropping or choosing, the worker codes, canvases show.

import { modelFile } from "./model.js";
import { png } from "./png.js";

const $ = (id) => document.getElementById(id);
const RAMP = [[8, 8, 30], [70, 20, 110], [165, 45, 110], [235, 95, 60], [252, 180, 60], [252, 255, 190]];
const state = { first: null, second: null, model: null, worker: null, waiting: null, question: 0, photo: null, work: null };

// --- the worker

/** Start a worker, in place of one that cannot go on. */
function startWorker() {
  state.worker?.terminate();
  state.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  state.worker.postMessage({ model: state.model });
  state.worker.onmessage = ({ data }) => {
    if (data.id !== state.waiting?.id) return;
    if (data.share === undefined) finish(data);
    else showProgress(data.share, data.text);
  };
  state.worker.onerror = (event) => {
    event.preventDefault();
    finish({ error: event.message || "Expected a browser that runs module workers and WebAssembly (got none)" });
  };
}

function finish({ result, error, broken }) {
  const { waiting } = state;
  state.waiting = null;
  $("busy").hidden = true;
  if (broken) startWorker();
  if (error) waiting?.reject(new Error(error));
  else waiting.resolve(result);
}

/** Give up what the worker is doing. */
function giveUp() {
  if (!state.waiting) return;
  state.waiting.reject(null);
  state.waiting = null;
  $("busy").hidden = true;
  state.worker.postMessage({ id: ++state.question, kind: "nothing" });
}

async function ask(question, transfer = []) {
  await loaded;
  return new Promise((resolve, reject) => {
    const id = ++state.question;
    state.waiting = { id, resolve, reject };
    state.worker.postMessage({ id, ...question }, transfer);
  });
}

function showProgress(share, text) {
  $("busy").hidden = false;
  $("progress").value = share;
  $("doing").textContent = text;
}

// --- files

function open(file, { beside = false } = {}) {
  giveUp();
  return attempt(async () => {
    const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    const isGlic = String.fromCharCode(...head) === "GLIC" || /\.glic$/i.test(file.name);
    const picture = await (isGlic ? decode(file) : readPhoto(file)).catch((error) => {
      throw error && new Error(`${file.name}: ${error.message}`);
    });
    if (beside) {
      state.second = picture;
    } else {
      state.first = picture;
      state.second = null;
    }
    state.photo = picture.photo ? picture : beside ? state.photo : null;
    show();
  });
}

/** Do some work, and tell of what goes wrong in a line. */
function attempt(work) {
  $("error").hidden = true;
  state.work = work().catch((error) => {
    if (error === null) return; // given up for a newer file
    $("error").textContent = error.message;
    $("error").hidden = false;
  });
  return state.work;
}

async function decode(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const result = await ask({ kind: "decode", bytes });
  const { width, height, chunks, raw } = result;
  if (chunks.ALPH) await takeAlpha(result);
  const canvas = canvasOf(width, height);
  const plain = !chunks.ALPH && !chunks.ICCP;
  if (plain) canvas.getContext("2d").putImageData(new ImageData(raw, width), 0, 0);
  else canvas.getContext("2d").drawImage(await createImageBitmap(await png(result)), 0, 0); // to sRGB
  return { ...result, name: file.name, canvas, rgba: plain ? raw : onWhite(canvas), bytes };
}

async function takeAlpha({ raw, width, height, chunks }) {
  const alpha = await createImageBitmap(new Blob([chunks.ALPH], { type: "image/png" })).catch(() => ({}));
  if (alpha.width !== width || alpha.height !== height) {
    throw new Error(`Expected alpha of ${width} x ${height} pixels (got another picture): damaged`);
  }
  const context = canvasOf(width, height).getContext("2d");
  context.drawImage(alpha, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  for (let i = 0; i < raw.length; i += 4) raw[i + 3] = data[i];
}

/** The pixels of a canvas, white where it is transparent. */
function onWhite(canvas) {
  const { width, height } = canvas;
  const context = canvasOf(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(canvas, 0, 0);
  return context.getImageData(0, 0, width, height).data;
}

async function readPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`Expected a .glic file or a photo that this browser reads (got another)`);
  }
  const { width, height } = bitmap;
  const canvas = canvasOf(width, height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  return { name: file.name, width, height, rgba: onWhite(canvas), canvas, photo: true, size: file.size };
}

function encodePhoto() {
  const { photo } = state;
  giveUp();
  return attempt(async () => {
    const { width, height } = photo;
    const quality = Number($("quality").value);
    const made = await ask({ kind: "encode", rgba: photo.rgba, width, height, quality });
    const name = photo.name.replace(/\.[^.]*$/, "") + ".glic";
    const picture = await decode(new File([made.bytes], name));
    Object.assign(state, { first: { ...picture, encodeSeconds: made.seconds }, second: photo });
    show();
    choose("view", "slider");
    showView();
  });
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function savePng() {
  const { first } = state;
  const name = first.name.replace(/\.[^.]*$/, "") + ".png";
  attempt(async () => save(first.raw ? await png(first) : await new Promise((done) => first.canvas.toBlob(done)), name));
}

// --- pictures

function canvasOf(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

function draw(target, source) {
  Object.assign(target, { width: source.width, height: source.height });
  target.getContext("2d").drawImage(source, 0, 0);
}

function comparable() {
  const { first, second } = state;
  return Boolean(first && second && first.width === second.width && first.height === second.height);
}

/** Mean squared error over red, green and blue, in steps of 8 bits. */
function squaredError(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i += 4) {
    sum += (a[i] - b[i]) ** 2 + (a[i + 1] - b[i + 1]) ** 2 + (a[i + 2] - b[i + 2]) ** 2;
  }
  return sum / (0.75 * a.length);
}

function drawDifference(target) {
  const { first, second } = state;
  const times = Number($("times").value);
  Object.assign(target, { width: first.width, height: first.height });
  const image = new ImageData(first.width, first.height);
  for (let i = 0; i < image.data.length; i++) {
    image.data[i] = i % 4 === 3 ? 255 : times * Math.abs(first.rgba[i] - second.rgba[i]);
  }
  target.getContext("2d").putImageData(image, 0, 0);
}

function colourOf(share) {
  const place = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1);
  const below = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[below].map((value, i) => value + (place - below) * (RAMP[below + 1][i] - value));
}

/** Draw bits per position of y, of 16 x 16 pixels; the last ones may reach beyond the picture. */
function drawBits(target) {
  const { bits, width, height } = state.first;
  const most = bits.data.reduce((a, b) => Math.max(a, b), 1e-9);
  const small = canvasOf(bits.width, bits.height);
  const image = new ImageData(bits.width, bits.height);
  bits.data.forEach((value, i) => image.data.set([...colourOf(value / most), 255], 4 * i));
  small.getContext("2d").putImageData(image, 0, 0);
  Object.assign(target, { width, height });
  const context = target.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, 16 * bits.width, 16 * bits.height);
  return most / 256;
}

function drawRamp(grey) {
  const image = new ImageData(256, 1);
  for (let i = 0; i < 256; i++) image.data.set([...(grey ? [i, i, i] : colourOf(i / 255)), 255], 4 * i);
  $("ramp").getContext("2d").putImageData(image, 0, 0);
}

// --- what is shown

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;

function choose(name, value) {
  const input = document.querySelector(`input[name=${name}][value="${value}"]`);
  if (input && !input.disabled) input.checked = true;
}

function show() {
  const { first, second, model, photo } = state;
  const both = comparable();
  $("drop").hidden = Boolean(first);
  for (const id of ["frame", "facts", "views", "zooms", "openOther", "savePng"]) $(id).hidden = !first;
  $("saveGlic").hidden = !first?.encodeSeconds;
  $("encode").hidden = !(photo && model);
  if (!first) return;
  for (const label of document.querySelectorAll(".both")) label.firstChild.disabled = !both;
  document.querySelector(".glic").firstChild.disabled = !first.bits;
  if (document.querySelector("input[name=view]:checked").disabled) choose("view", "picture");
  draw($("picture"), first.canvas);
  if (both) draw($("other"), second.canvas);
  [$("left").textContent, $("right").textContent] = [first.name, second?.name ?? ""];
  showFacts();
  showView();
}

function showView() {
  const view = chosen("view");
  const both = view === "slider";
  $("other").hidden = $("compare").hidden = !both;
  $("sheet").classList.toggle("sliding", both);
  $("overlay").hidden = $("legend").hidden = !["difference", "bits"].includes(view);
  $("strength").hidden = view !== "difference";
  if (view === "difference") {
    drawDifference($("overlay"));
    drawRamp(true);
    $("timesShown").textContent = $("times").value;
    [$("legendLow").textContent, $("legendHigh").textContent] = ["equal", `${(255 / $("times").value).toFixed(0)} of 255 apart`];
  } else if (view === "bits") {
    const most = drawBits($("overlay"));
    drawRamp(false);
    [$("legendLow").textContent, $("legendHigh").textContent] = ["0", `${most.toFixed(2)} bits per pixel`];
  }
  showZoom();
}

/** Divide the part of the picture that is in sight: the file is on the left, the other on the right. */
function showSplit() {
  const [sheet, scene, compare] = [$("sheet").getBoundingClientRect(), $("scene"), $("compare")];
  const frame = scene.getBoundingClientRect();
  const left = Math.max(sheet.left, frame.left);
  const top = Math.max(sheet.top, frame.top);
  const width = Math.min(sheet.right, frame.left + scene.clientWidth) - left;
  const height = Math.min(sheet.bottom, frame.top + scene.clientHeight) - top;
  const place = { left: left - frame.left, top: top - frame.top, width, height };
  for (const [name, value] of Object.entries(place)) compare.style[name] = `${value}px`;
  const share = Number($("split").value) / 100;
  $("line").style.left = `${100 * share}%`;
  $("other").style.clipPath = `inset(0 0 0 ${left - sheet.left + share * width}px)`;
}

function showZoom() {
  const { width, height } = state.first;
  const zoom = chosen("zoom");
  const scene = $("scene");
  const fit = Math.min((scene.clientWidth - 2) / width, (scene.clientHeight - 2) / height, 4);
  const scale = zoom === "fit" ? fit : Number(zoom) / devicePixelRatio;
  $("sheet").style.width = `${width * scale}px`;
  $("sheet").style.height = `${height * scale}px`;
  $("sheet").classList.toggle("close", scale * devicePixelRatio >= 2);
  showSplit();
}

function showFacts() {
  const { first, second, model } = state;
  const facts = [["file", first.name], ["pixels", `${first.width} x ${first.height}`]];
  const rate = (bytes) => `${bytes.toLocaleString("en")} bytes, ${((8 * bytes) / (first.width * first.height)).toFixed(4)} bpp`;
  if (first.bytes) {
    facts.push(["size", rate(first.bytes.length)]);
    facts.push(["quality", first.quality ? `${+(first.quality / model.quality_steps).toFixed(2)} of ${model.qualities}` : "the model's only one"]);
    facts.push(["model", `${model.name} (${first.identity})`]);
    const carried = { ALPH: "alpha", ICCP: "colour profile", EXIF: "EXIF", "XMP ": "XMP" };
    const names = Object.keys(first.chunks).map((name) => carried[name] ?? name);
    if (first.channels < 3) names.unshift("grey");
    if (names.length) facts.push(["with", names.join(", ")]);
    facts.push(["latents", `${first.checksum.toString(16).padStart(8, "0")}, as the file says`]);
    facts.push(["decoded in", `${first.seconds.toFixed(1)} s, ${first.latentSeconds.toFixed(1)} of them latents`]);
    if (first.encodeSeconds) facts.push(["encoded in", `${first.encodeSeconds.toFixed(1)} s`]);
  } else {
    facts.push(["size", rate(first.size)]);
  }
  if (second) {
    facts.push(["beside", `${second.name}, ${(second.bytes?.length ?? second.size).toLocaleString("en")} bytes`]);
    if (comparable()) {
      const error = squaredError(first.rgba, second.rgba);
      facts.push(["PSNR", error ? `${(10 * Math.log10(255 ** 2 / error)).toFixed(2)} dB (RGB)` : "equal"]);
    } else {
      facts.push(["compared", `not: the other has ${second.width} x ${second.height} pixels`]);
    }
  }
  $("facts").replaceChildren(
    ...facts.map(([name, text]) => {
      const box = document.createElement("div");
      box.append(Object.assign(document.createElement("dt"), { textContent: name }));
      box.append(Object.assign(document.createElement("dd"), { textContent: text }));
      return box;
    }),
  );
}

// --- what the reader does

function take(files, beside) {
  const [first, second] = files;
  if (!first) return;
  const wanted = open(first, { beside });
  if (second) state.work = wanted.then(() => $("error").hidden && open(second, { beside: true }));
}

/** A second file comes beside a first one, unless both are photos, or both slots are taken. */
function takeDropped(files) {
  const besides = state.first && !state.second && files.length === 1 && !state.first.photo;
  take(files, Boolean(besides));
}

for (const [id, beside] of [["file", false], ["firstFile", false], ["otherFile", true]]) {
  $(id).addEventListener("change", ({ target }) => {
    take([...target.files], beside);
    target.value = "";
  });
}
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
}
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  takeDropped([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => takeDropped([...event.clipboardData.files]));

$("encode").addEventListener("submit", (event) => {
  event.preventDefault();
  encodePhoto();
});
$("quality").addEventListener("input", () => ($("qualityShown").textContent = $("quality").value));
$("savePng").addEventListener("click", savePng);
$("saveGlic").addEventListener("click", () => save(new Blob([state.first.bytes]), state.first.name));
$("split").addEventListener("input", showSplit);
$("times").addEventListener("input", showView);
for (const input of document.querySelectorAll("input[name=view]")) input.addEventListener("change", showView);
for (const input of document.querySelectorAll("input[name=zoom]")) input.addEventListener("change", showZoom);
new ResizeObserver(() => state.first && showZoom()).observe($("scene"));
$("scene").addEventListener("scroll", showSplit);

$("sheet").addEventListener("pointermove", (event) => {
  if (chosen("view") !== "slider" || !(event.buttons & 1)) return;
  const box = $("compare").getBoundingClientRect();
  $("split").value = (100 * (event.clientX - box.left)) / box.width;
  showSplit();
});

addEventListener("keydown", (event) => {
  if (!state.first || event.ctrlKey || event.metaKey || event.altKey) return;
  const zooms = ["fit", "1", "3"];
  const views = ["picture", "slider", "difference", "bits"];
  const inField = event.target.matches("input[type=range]");
  if (event.key >= "1" && event.key <= "4") {
    choose("view", views[event.key - 1]);
    showView();
  } else if (["0", "+", "=", "-"].includes(event.key)) {
    const step = event.key === "0" ? -9 : event.key === "-" ? -1 : 1;
    choose("zoom", zooms[Math.min(Math.max(zooms.indexOf(chosen("zoom")) + step, 0), 2)]);
    showZoom();
  } else if (["ArrowLeft", "ArrowRight"].includes(event.key) && chosen("view") === "slider" && !inField) {
    event.preventDefault();
    $("split").value = Number($("split").value) + (event.key === "ArrowLeft" ? -2 : 2);
    showSplit();
  } else if (event.key === "s") {
    savePng();
  }
});

const loaded = attempt(async () => {
  const model = await (await modelFile("model.json")).json();
  state.model = model;
  startWorker();
  $("about").textContent = `Model ${model.name} (${model.identity}), ${model.qualities} ${model.qualities > 1 ? "qualities" : "quality"}.`;
  if (model.gains) {
    Object.assign($("quality"), { max: model.qualities, value: model.default_quality });
    $("qualityShown").textContent = model.default_quality;
  } else {
    for (const part of [$("quality"), $("qualityShown"), $("encode").firstElementChild]) part.hidden = true;
  }
  show();
});
globalThis.glic = { state, loaded };
