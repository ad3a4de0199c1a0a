// PNG files of pictures as they were decoded: a canvas would convert their colours and lose some under alpha.

import { crc32 } from "./container.js";

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const COLOUR_TYPES = { 1: 0, 2: 4, 3: 2, 4: 6 };

const text = (string) => new TextEncoder().encode(string);

async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function joined(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let to = 0;
  for (const part of parts) {
    all.set(part, to);
    to += part.length;
  }
  return all;
}

function word(value) {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
}

function chunk(name, content) {
  const named = joined(text(name), content);
  return joined(word(content.length), named, word(crc32(named)));
}

/** The samples of a PNG's rows, each behind the number of its filter: each sample minus the one to its left. */
function filtered(rgba, width, height, channels) {
  const kept = { 1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3] }[channels];
  const rows = new Uint8Array(height * (1 + channels * width));
  let to = 0;
  for (let row = 0; row < height; row++) {
    rows[to++] = 1;
    const from = 4 * row * width;
    for (let column = 0; column < width; column++) {
      for (const c of kept) rows[to++] = rgba[from + 4 * column + c] - (column ? rgba[from + 4 * column - 4 + c] : 0);
    }
  }
  return rows;
}

/** Return the PNG file of a decoded picture, with its profile and what else it brought along. */
export async function png({ raw, width, height, channels, chunks }) {
  const parts = [chunk("IHDR", joined(word(width), word(height), [8, COLOUR_TYPES[channels], 0, 0, 0]))];
  if (chunks.ICCP) parts.push(chunk("iCCP", joined(text("ICC"), [0, 0], await deflated(chunks.ICCP))));
  if (chunks.EXIF) parts.push(chunk("eXIf", chunks.EXIF));
  if (chunks["XMP "]) parts.push(chunk("iTXt", joined(text("XML:com.adobe.xmp"), [0, 0, 0, 0, 0], chunks["XMP "])));
  parts.push(chunk("IDAT", await deflated(filtered(raw, width, height, channels))), chunk("IEND", []));
  return new Blob([Uint8Array.from(SIGNATURE), ...parts], { type: "image/png" });
}
