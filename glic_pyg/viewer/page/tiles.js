// Large pictures: both transforms go over tiles that overlap, as `glic_pyg/tiles.py` cuts them.

const STEP = 64;

function spans(length, { side, margin }) {
  length = Math.ceil(length / STEP) * STEP;
  if (length <= side) return [{ start: 0, stop: length, first: 0, last: length }];
  const inner = length - 2 * margin;
  const count = Math.ceil(inner / (side - 2 * margin));
  const step = Math.ceil(inner / count / STEP) * STEP;
  const starts = Array.from({ length: count }, (_, i) => Math.min(i * step, inner - step));
  const stops = starts.map((start) => start + step + 2 * margin);
  const cuts = [0, ...starts.slice(1).map((start, i) => Math.floor((stops[i] + start) / 2)), length];
  return starts.map((start, i) => ({ start, stop: stops[i], first: cuts[i], last: cuts[i + 1] }));
}

/** Return the tiles of a picture: rows and columns in pixels, from `start` to `stop`, of which `first` to `last` is kept. */
export function tiles(height, width, tiling) {
  const columns = spans(width, tiling);
  return spans(height, tiling).flatMap((rows) => columns.map((column) => ({ rows, columns: column })));
}
