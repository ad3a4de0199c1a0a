// CompressAI's range coder: rANS with a state of 64 bits, here its upper and lower 32, and words of 32 bits.
// Probabilities have 16 bits. A value outside of its row of the table is coded as the row's last, the escape,
// and digits of 4 bits: how many follow, and those of twice the distance, with the sign in the lowest bit.

import { FileError } from "./container.js";

const DIGIT = 4;
const MORE = 15; // a count that goes on
const LEAST = 0x80000000; // of the state

/** Probability tables: rows of cumulated probabilities, and the value of each row's first symbol. */
export class Tables {
  constructor({ rows, offsets }, precision) {
    if (precision !== 16) throw new Error(`Expected probabilities of 16 bits (got ${precision})`);
    this.rows = rows.map((row) => Uint32Array.from(row));
    this.offsets = offsets;
  }
  /** Bits of a row's most likely value. */
  least(row) {
    const steps = this.rows[row].map((value, i, all) => (i + 1 < all.length ? all[i + 1] - value : 0));
    return 16 - Math.log2(steps.reduce((a, b) => Math.max(a, b)));
  }
}

export class Decoder {
  constructor(bytes, tables) {
    this.words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.tables = tables;
    this.position = 0;
    this.bits = 0; // of the last value
    this.low = this.#word();
    this.high = this.#word();
  }

  #word() {
    if (this.position + 4 > this.words.byteLength) {
      throw new FileError(`Expected a longer string (got ${this.words.byteLength} bytes): cut short`);
    }
    this.position += 4;
    return this.words.getUint32(this.position - 4, true);
  }

  #refill() {
    if (this.high === 0 && this.low < LEAST) {
      this.high = this.low;
      this.low = this.#word();
    }
  }

  #digit() {
    const value = this.low & 15;
    this.low = ((this.low >>> DIGIT) | (this.high << (32 - DIGIT))) >>> 0;
    this.high >>>= DIGIT;
    this.#refill();
    this.bits += DIGIT;
    return value;
  }

  /** Return the next value, by a row of the tables. */
  value(row) {
    const cumulated = this.tables.rows[row];
    const place = this.low & 0xffff;
    let symbol = 0;
    for (let end = cumulated.length - 1; end - symbol > 1; ) {
      const middle = (symbol + end) >> 1;
      if (cumulated[middle] <= place) symbol = middle;
      else end = middle;
    }
    const start = cumulated[symbol];
    const frequency = cumulated[symbol + 1] - start;
    // state = frequency * (state >> 16) + place - start, all of it below 2^63
    const upper = frequency * this.high; // times 2^16
    const lower = frequency * (this.low >>> 16) + place - start + (upper % 0x10000) * 0x10000;
    this.low = lower % 0x100000000;
    this.high = Math.floor(upper / 0x10000) + Math.floor(lower / 0x100000000);
    this.#refill();
    this.bits = 16 - Math.log2(frequency);
    const escape = cumulated.length - 2;
    return (symbol === escape ? this.#beyond(escape) : symbol) + this.tables.offsets[row];
  }

  #beyond(escape) {
    let [count, digit] = [0, MORE];
    while (digit === MORE) {
      digit = this.#digit();
      count += digit;
      if (count > 8) throw new FileError("Expected values of at most 32 bits (got longer ones): damaged");
    }
    let twice = 0;
    for (let i = 0; i < count; i++) twice += this.#digit() * 16 ** i;
    return twice % 2 ? -(twice + 1) / 2 : twice / 2 + escape;
  }

  /** Refuse a string in which more follows: the state ends as the encoder's began. */
  finish() {
    if (this.position !== this.words.byteLength || this.high !== 0 || this.low !== LEAST) {
      throw new FileError("Expected a string to end with its last symbol (got another end): damaged");
    }
  }
}

export class Encoder {
  constructor(tables) {
    this.tables = tables;
    this.parts = []; // start and frequency, or -1 and a digit
  }

  /** Append a value, by a row of the tables. */
  value(value, row) {
    const cumulated = this.tables.rows[row];
    const escape = cumulated.length - 2;
    value -= this.tables.offsets[row];
    const within = value >= 0 && value < escape;
    const symbol = within ? value : escape;
    this.parts.push(cumulated[symbol], cumulated[symbol + 1] - cumulated[symbol]);
    if (within) return;
    let rest = value < 0 ? -2 * value - 1 : 2 * (value - escape);
    const digits = [];
    for (; rest > 0; rest = Math.floor(rest / 16)) digits.push(rest % 16);
    let count = digits.length;
    for (; count >= MORE; count -= MORE) this.parts.push(-1, MORE);
    this.parts.push(-1, count);
    for (const digit of digits) this.parts.push(-1, digit);
  }

  /** Return the string: it is made from its end, so that a decoder reads it from its beginning. */
  finish() {
    const words = [];
    let [high, low] = [0, LEAST];
    const renormalise = (limit) => {
      if (high >= limit) {
        words.push(low);
        [high, low] = [0, high];
      }
    };
    for (let i = this.parts.length - 2; i >= 0; i -= 2) {
      const [start, frequency] = [this.parts[i], this.parts[i + 1]];
      if (start < 0) {
        renormalise(2 ** (31 - DIGIT));
        high = ((high << DIGIT) | (low >>> (32 - DIGIT))) >>> 0;
        low = ((low << DIGIT) | frequency) >>> 0;
        continue;
      }
      renormalise(frequency * 0x8000); // of the state: frequency times 2^47
      // state = (state / frequency) * 2^16 + state % frequency + start
      const above = Math.floor(high / frequency);
      const rest = (high % frequency) * 0x100000000 + low;
      const below = Math.floor(rest / frequency);
      high = above * 0x10000 + Math.floor(below / 0x10000);
      low = (below % 0x10000) * 0x10000 + (rest - below * frequency) + start;
    }
    words.push(high, low);
    const bytes = new DataView(new ArrayBuffer(4 * words.length));
    words.reverse().forEach((word, i) => bytes.setUint32(4 * i, word, true));
    return new Uint8Array(bytes.buffer);
  }
}
