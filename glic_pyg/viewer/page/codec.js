// Between .glic files and pictures. Networks are run by somebody else; all else is here, in the arithmetic of
// docs/format.md: what is kept in a Float32Array is rounded to float32 once per operation, as it has to be.

import { FileError, crc32, hex, pack, unpack } from "./container.js";
import { FeatureMap } from "./maps.js";
import { Decoder, Encoder, Tables } from "./range_coder.js";
import { tiles } from "./tiles.js";

const LARGEST = 2 ** 23; // of the values that are coded
export const MAX_PIXELS = 2 ** 26;

export class Codec {
  /**
   * @param model What model.json says.
   * @param run Runs a network: its name, a FeatureMap -> a promise of a FeatureMap.
   * @param progress Is told of every step: the share of the work that is done, and what follows. May throw.
   */
  constructor(model, run, progress) {
    Object.assign(this, { model, run, progress });
    this.tables = { y: new Tables(model.y, model.precision), z: new Tables(model.z, model.precision) };
    this.scales = Float32Array.from(model.y.scales).subarray(0, -1);
    this.medians = Float32Array.from(model.z.medians);
  }

  /** Restore the picture of a .glic file: its pixels, what the file says, and where its bits went. */
  async decode(bytes) {
    const { model } = this;
    const stream = unpack(bytes);
    const { height, width, strings } = stream;
    if (stream.identity !== model.identity) {
      const expected = `${model.name}, ${model.identity}`;
      throw new FileError(`Expected a file of model ${expected} (got one of model ${stream.identity})`);
    }
    checkSize(height, width);
    if (strings.length !== 2 * model.groups.length + 1) {
      throw new FileError(`Expected ${2 * model.groups.length + 1} strings of one picture (got ${strings.length})`);
    }
    const gains = this.gains(stream.quality);
    const start = performance.now();
    const [rows, columns] = [height, width].map((side) => Math.ceil(side / model.hyper_stride));
    const ofZ = strings.at(-1);
    const least = (rows * columns * model.z.rows.reduce((sum, _, c) => sum + this.tables.z.least(c), 0)) / 8;
    if (ofZ.length < Math.floor(least * (1 - 1e-4))) {
      throw new FileError(`Expected a string of at least ${Math.ceil(least)} bytes (got ${ofZ.length}): cut short`);
    }
    const bits = new BitMap(4 * rows, 4 * columns);
    const z = this.#decodeZ(ofZ, rows, columns, bits);
    const y = await this.#latents(z.times(gains.z_inverse), (k, half, tables, rowsOf, means) => {
      const decoder = new Decoder(strings[2 * k + half], tables);
      const hat = new FeatureMap(means.channels, means.height, means.width);
      for (let i = 0; i < hat.data.length; i++) {
        hat.data[i] = decoder.value(rowsOf[i]) + means.data[i];
        bits.add(half, i, decoder.bits);
      }
      decoder.finish();
      return hat;
    });
    y.times(gains.y_inverse);
    const checksum = checksumOf(y);
    if (checksum !== stream.latents) {
      throw new FileError(`Expected latents with checksum ${hex(stream.latents)} (got ${hex(checksum)}): damaged`);
    }
    const latentSeconds = (performance.now() - start) / 1000;
    const raw = await this.#synthesise(y, height, width);
    if (stream.channels < 3) toGrey(raw);
    const seconds = (performance.now() - start) / 1000;
    return { ...stream, strings: strings.map((s) => s.length), raw, bits, checksum, seconds, latentSeconds };
  }

  /** Return the bytes of the .glic file of a picture, of red, green, blue and alpha that is not read. */
  async encode(rgba, height, width, quality) {
    const { model } = this;
    checkSize(height, width);
    const steps = model.gains ? Math.round(quality * model.quality_steps) : 0;
    const gains = this.gains(steps);
    const y = (await this.#analyse(rgba, height, width)).times(gains.y);
    await this.progress(0.4, "side information");
    const z = (await this.run("h_a", y)).times(gains.z);
    const coder = new Encoder(this.tables.z);
    const size = z.height * z.width;
    for (let i = 0; i < z.data.length; i++) {
      const c = Math.floor(i / size);
      const symbol = codable(rounded(Math.fround(z.data[i] - this.medians[c])));
      coder.value(symbol, c);
      z.data[i] = symbol + this.medians[c];
    }
    const strings = [];
    const first = this.#firstOfGroups();
    const yHat = await this.#latents(z.times(gains.z_inverse), (k, half, tables, rowsOf, means) => {
      const part = y.channelsOf(first[k], first[k + 1]).half(half);
      const ofHalf = new Encoder(tables);
      for (let i = 0; i < part.data.length; i++) {
        const symbol = codable(rounded(Math.fround(part.data[i] - means.data[i])));
        ofHalf.value(symbol, rowsOf[i]);
        part.data[i] = symbol + means.data[i];
      }
      strings.push(ofHalf.finish());
      return part;
    });
    strings.push(coder.finish());
    const latents = checksumOf(yHat.times(gains.y_inverse));
    return pack({ identity: model.identity, quality: steps, height, width, latents, strings });
  }

  /** The factors of y and z, and their inverses, of a quality in 256ths. */
  gains(steps) {
    const { gains, qualities, quality_steps } = this.model;
    const quality = steps / quality_steps;
    if (gains ? quality < 1 || quality > qualities : steps !== 0) {
      const expected = gains ? `a quality in 1..${qualities}` : "no quality for a model of one";
      throw new FileError(`Expected ${expected} (got ${quality})`);
    }
    if (!gains) {
      const ones = (count) => new Float32Array(count).fill(1);
      const [y, z] = [ones(this.model.latent_channels), ones(this.model.hyper_channels)];
      return { y, y_inverse: y, z, z_inverse: z };
    }
    const below = Math.min(Math.max(Math.floor(quality) - 1, 0), qualities - 1);
    const above = Math.min(below + 1, qualities - 1);
    const share = quality - below - 1;
    const between = (logs) => logs[below].map((log, c) => exponential((1 - share) * log + share * logs[above][c]));
    return Object.fromEntries(Object.entries(gains).map(([k, logs]) => [k, Float32Array.from(between(logs))]));
  }

  #firstOfGroups() {
    const first = [0];
    for (const channels of this.model.groups) first.push(first.at(-1) + channels);
    return first;
  }

  #decodeZ(string, rows, columns, bits) {
    const z = new FeatureMap(this.model.hyper_channels, rows, columns);
    const decoder = new Decoder(string, this.tables.z);
    const size = rows * columns;
    for (let i = 0; i < z.data.length; i++) {
      const c = Math.floor(i / size);
      z.data[i] = decoder.value(c) + this.medians[c];
      bits.addCoarse(i % size, columns, decoder.bits);
    }
    decoder.finish();
    return z;
  }

  /** Go through the groups of channels, each in two halves; `code` makes a half's y_hat of rows and means. */
  async #latents(zHat, code) {
    const { groups } = this.model;
    await this.progress(0, "probabilities");
    const parameters = await this.run("h_s", zHat);
    const first = this.#firstOfGroups();
    const yHat = new FeatureMap(first.at(-1), parameters.height, parameters.width);
    for (const [k, channels] of groups.entries()) {
      await this.progress(0.5 * (first[k] / first.at(-1)), `channels ${first[k] + 1} to ${first[k + 1]}`);
      const contexts = k > 0 ? [await this.run(`channel_context_${k}`, yHat.channelsOf(0, first[k]))] : [];
      const side = FeatureMap.concat(...contexts, parameters);
      const own = yHat.channelsOf(first[k], first[k + 1]);
      for (const half of [0, 1]) {
        const context =
          half === 0
            ? new FeatureMap(2 * channels, side.height, side.width / 2)
            : (await this.run(`context_${k}`, own)).half(1);
        const both = await this.run(`parameters_${k}`, FeatureMap.concat(context, side.half(half)));
        const means = both.channelsOf(channels, 2 * channels);
        const rows = this.#rows(both.channelsOf(0, channels).data);
        own.setHalf(half, code(k, half, this.tables.y, rows, means));
      }
    }
    return yHat;
  }

  /** The row of the table of each scale: how many of the table's scales, without the last, are below it. */
  #rows(scales) {
    const { scales: table } = this;
    const least = this.model.y.least_scale;
    return Uint8Array.from(scales, (scale) => {
      scale = Math.max(scale, least);
      let [low, high] = [0, table.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (table[middle] < scale) low = middle + 1;
        else high = middle;
      }
      return low;
    });
  }

  async #synthesise(y, height, width) {
    const rgba = new Uint8ClampedArray(4 * height * width).fill(255);
    const parts = tiles(height, width, this.model.tiling);
    for (const [i, { rows, columns }] of parts.entries()) {
      const of = parts.length > 1 ? `, tile ${i + 1} of ${parts.length}` : "";
      await this.progress(0.5 + 0.5 * (i / parts.length), `picture${of}`);
      const unit = this.model.latent_stride;
      const inY = [rows.start, rows.stop, columns.start, columns.stop].map((side) => side / unit);
      const tile = await this.run("g_s", y.cut(...inY));
      const [bottom, right] = [Math.min(rows.last, height), Math.min(columns.last, width)];
      for (let c = 0; c < 3; c++) {
        for (let row = rows.first; row < bottom; row++) {
          const from = (c * tile.height + row - rows.start) * tile.width - columns.start;
          const to = 4 * row * width + c;
          for (let column = columns.first; column < right; column++) {
            rgba[to + 4 * column] = 255 * tile.data[from + column]; // clamped, and rounded half to even
          }
        }
      }
    }
    return rgba;
  }

  async #analyse(rgba, height, width) {
    const { hyper_stride, latent_stride: unit } = this.model;
    const [rows, columns] = [height, width].map((side) => (Math.ceil(side / hyper_stride) * hyper_stride) / unit);
    const y = new FeatureMap(this.model.latent_channels, rows, columns);
    const parts = tiles(height, width, this.model.tiling);
    for (const [i, tile] of parts.entries()) {
      const of = parts.length > 1 ? `, tile ${i + 1} of ${parts.length}` : "";
      await this.progress(0.4 * (i / parts.length), `latents${of}`);
      const { rows, columns } = tile;
      const x = new FeatureMap(3, rows.stop - rows.start, columns.stop - columns.start);
      for (let c = 0, to = 0; c < 3; c++) {
        for (let row = rows.start; row < rows.stop; row++) {
          const from = 4 * Math.min(row, height - 1) * width + c;
          for (let column = columns.start; column < columns.stop; column++) {
            x.data[to++] = rgba[from + 4 * Math.min(column, width - 1)] / 255;
          }
        }
      }
      const part = await this.run("g_a", x);
      const core = [rows.first - rows.start, rows.last - rows.start, columns.first - columns.start, columns.last - columns.start];
      y.paste(part.cut(...core.map((side) => side / unit)), rows.first / unit, columns.first / unit);
    }
    return y;
  }
}

/** Bits per position of y, row by row. */
class BitMap {
  constructor(height, width) {
    Object.assign(this, { height, width, data: new Float32Array(height * width) });
  }
  /** Add those of a value of one half of the checkerboard; `i` counts channels, rows and columns. */
  add(half, i, bits) {
    const inHalf = i % (this.data.length / 2);
    const row = Math.floor(inHalf / (this.width / 2));
    this.data[2 * inHalf + ((row + half) % 2)] += bits;
  }
  /** Add those of a value of z to its 4 x 4 positions. */
  addCoarse(i, columns, bits) {
    const [top, left] = [4 * Math.floor(i / columns), 4 * (i % columns)];
    for (let p = 0; p < 16; p++) this.data[(top + (p >> 2)) * this.width + left + (p & 3)] += bits / 16;
  }
}

function checkSize(height, width) {
  if (height < 1 || width < 1 || height * width > MAX_PIXELS) {
    throw new FileError(`Expected a picture of 1 to ${MAX_PIXELS} pixels (got ${width} x ${height})`);
  }
}

function checksumOf({ data }) {
  return crc32(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)); // float32, little-endian everywhere today
}

/** Put the luma of each pixel in place of its colours. */
function toGrey(rgba) {
  for (let i = 0; i < rgba.length; i += 4) {
    rgba.fill((19595 * rgba[i] + 38470 * rgba[i + 1] + 7471 * rgba[i + 2] + 32768) >> 16, i, i + 3);
  }
}

/** Round half to even, as float32 of up to 2^22 do when they lose their fractions. */
function rounded(x) {
  const whole = Math.floor(x);
  const rest = x - whole;
  return rest < 0.5 || (rest === 0.5 && whole % 2 === 0) ? whole : whole + 1;
}

function codable(symbol) {
  if (!(Math.abs(symbol) < LARGEST)) {
    throw new Error(`Expected values below ${LARGEST} (got ${symbol}): the model's weights are not sound`);
  }
  return symbol;
}

/** The exponential by operations that have the same bits everywhere, see docs/format.md. */
function exponential(x) {
  x *= 1 / 256;
  let y = 1;
  for (let n = 8; n > 0; n--) y = 1 + x * (1 / n) * y;
  for (let i = 0; i < 8; i++) y *= y;
  return y;
}
