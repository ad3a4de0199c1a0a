// Two pictures under one slider: split, zoom, pan, difference.
(() => {
  const at = id => document.getElementById(id);
  const pictures = JSON.parse(at("pictures").textContent);
  if (!pictures.length) { at("viewer").hidden = true; return; }
  const stage = at("stage");
  const sides = {left: at("over"), right: at("under")};
  const MOST = 32;  // screen pixels per pixel
  const view = {picture: 0, left: 0, right: 0, split: 50, scale: 1, x: 0, y: 0, fitted: true};
  const picture = () => pictures[view.picture];
  const size = () => ({width: stage.clientWidth, height: stage.clientHeight});
  const fitScale = () => Math.min(size().width / picture().width, size().height / picture().height);
  const between = (value, least, most) => Math.min(Math.max(value, least), most);

  function layout() {
    const whole = stage.clientWidth * picture().height / picture().width;
    stage.style.height = `${Math.min(whole, 0.68 * innerHeight)}px`;
    if (view.fitted) fit(); else draw();
  }
  function fit() {
    const {width, height} = size();
    view.scale = fitScale();
    view.x = (width - picture().width * view.scale) / 2;
    view.y = (height - picture().height * view.scale) / 2;
    view.fitted = true;
    draw();
  }
  function zoomTo(scale, x = size().width / 2, y = size().height / 2) {
    const least = fitScale();
    scale = between(scale, least, MOST);
    if (scale <= least * 1.001) { fit(); return; }
    view.x = x - (x - view.x) * scale / view.scale;
    view.y = y - (y - view.y) * scale / view.scale;
    view.scale = scale;
    view.fitted = false;
    draw();
  }
  function pan(dx, dy) { view.x += dx; view.y += dy; draw(); }
  function keepInside() {
    for (const [axis, length] of [["x", "width"], ["y", "height"]]) {
      const shown = size()[length], whole = picture()[length] * view.scale;
      view[axis] = whole <= shown ? (shown - whole) / 2 : between(view[axis], shown - whole, 0);
    }
  }
  function draw() {
    keepInside();
    for (const image of Object.values(sides)) {
      image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    }
    sides.left.parentElement.style.clipPath = `inset(0 ${100 - view.split}% 0 0)`;
    at("handle").style.left = `${view.split}%`;
    at("handle").setAttribute("aria-valuenow", Math.round(view.split));
    stage.classList.toggle("zoomed", !view.fitted);
    stage.classList.toggle("large", view.scale * devicePixelRatio >= 2);
    at("zoom").textContent = `${Math.round(100 * view.scale * devicePixelRatio)} %`;
  }
  function choose(side, index) {
    const layers = picture().layers;
    view[side] = (index + layers.length) % layers.length;
    const layer = layers[view[side]];
    sides[side].src = layer.uri;
    sides[side].alt = layer.name;
    at(side).selectedIndex = view[side];
    at(`${side}-tag`).textContent = layer.name;
    at(`${side}-text`).textContent = layer.text;
  }
  function choosePicture(index) {
    const before = picture().layers;
    const kept = ["left", "right"].map(side => ({name: before[view[side]].name, index: view[side]}));
    view.picture = (index + pictures.length) % pictures.length;
    const names = picture().layers.map(layer => layer.name);
    at("picture").selectedIndex = view.picture;
    at("about").textContent = picture().about;
    ["left", "right"].forEach((side, i) => {
      at(side).replaceChildren(...names.map(name => new Option(name)));
      const same = names.indexOf(kept[i].name);
      choose(side, same >= 0 ? same : Math.min(kept[i].index, names.length - 1));
    });
    view.fitted = true;
    layout();
  }
  function swap() { const {left, right} = view; choose("left", right); choose("right", left); }
  function difference() {
    const on = stage.classList.toggle("difference");
    at("difference").setAttribute("aria-pressed", on);
  }
  function split(percent) { view.split = between(percent, 0, 100); draw(); }
  const inStage = event => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  // The handle splits; elsewhere a mouse pans, and a finger where there is something to pan: else it scrolls the page.
  const handle = at("handle");
  handle.onpointerdown = event => { handle.setPointerCapture(event.pointerId); event.stopPropagation(); };
  handle.onpointermove = event => {
    if (handle.hasPointerCapture(event.pointerId)) split(100 * inStage(event)[0] / size().width);
  };
  const pointers = new Map();
  let moved = false;
  stage.onpointerdown = event => {
    if (event.button) return;
    if (!pointers.size) moved = false;
    pointers.set(event.pointerId, inStage(event));
  };
  stage.onpointermove = event => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = inStage(event), others = [...pointers].filter(([id]) => id !== event.pointerId);
    if (!moved && !others.length && Math.hypot(now[0] - before[0], now[1] - before[1]) < 4) return;
    if (!moved) { moved = true; stage.setPointerCapture(event.pointerId); }
    pointers.set(event.pointerId, now);
    if (others.length) {
      const other = others[0][1], apart = point => Math.hypot(point[0] - other[0], point[1] - other[1]);
      zoomTo(view.scale * apart(now) / Math.max(apart(before), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (!view.fitted) {
      pan(now[0] - before[0], now[1] - before[1]);
    }
  };
  stage.onpointerup = stage.onpointercancel = event => pointers.delete(event.pointerId);
  stage.onclick = event => {
    const once = event.detail === 1;  // not the second click of two
    if (!moved && once && !handle.contains(event.target)) split(100 * inStage(event)[0] / size().width);
  };
  stage.ondblclick = event => { if (view.fitted) zoomTo(3 * view.scale, ...inStage(event)); else fit(); };
  stage.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;  // it scrolls the page
    event.preventDefault();
    zoomTo(view.scale * Math.exp(-event.deltaY / 300), ...inStage(event));
  }, {passive: false});

  at("in").onclick = () => zoomTo(view.scale * 1.5);
  at("out").onclick = () => zoomTo(view.scale / 1.5);
  at("fit").onclick = fit;
  at("actual").onclick = () => zoomTo(1 / devicePixelRatio);
  at("difference").onclick = difference;
  at("swap").onclick = swap;
  at("picture").onchange = () => choosePicture(at("picture").selectedIndex);
  for (const side of ["left", "right"]) at(side).onchange = () => choose(side, at(side).selectedIndex);
  for (const select of document.querySelectorAll(".viewer select")) {
    select.addEventListener("change", () => select.blur());  // else the keys would be the select's
  }
  const keys = {
    ArrowLeft: event => split(view.split - (event.shiftKey ? 10 : 2)),
    ArrowRight: event => split(view.split + (event.shiftKey ? 10 : 2)),
    "+": () => zoomTo(view.scale * 1.5), "=": () => zoomTo(view.scale * 1.5), "-": () => zoomTo(view.scale / 1.5),
    0: fit, 1: () => zoomTo(1 / devicePixelRatio), d: difference, s: swap,
    l: () => choose("left", view.left + 1), r: () => choose("right", view.right + 1),
    n: () => choosePicture(view.picture + 1),
  };
  document.addEventListener("keydown", event => {
    const key = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!key || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
    event.preventDefault();
    key(event);
  });
  addEventListener("resize", layout);

  at("picture").replaceChildren(...pictures.map(some => new Option(some.name)));
  for (const some of document.querySelectorAll(".viewer .several")) some.hidden = pictures.length < 2;
  view.left = Math.min(1, picture().layers.length - 1);
  view.right = Math.min(2, picture().layers.length - 1);
  choosePicture(0);
})();
