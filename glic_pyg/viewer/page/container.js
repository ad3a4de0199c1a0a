// The .glic file, see docs/format.md.

export const OLDEST = 3; // probabilities of older files are in floating point, which differs from machine to machine
export const NEWEST = 4;
const PLAIN = 3; // files of RGB pictures without chunks
const MAX_STRINGS = 129;
const MAX_CHUNKS = 64;
const MAGIC = [0x47, 0x4c, 0x49, 0x43];

/** A file that cannot be shown; the message is one line for the user. */
export class FileError extends Error {}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

/** Return the CRC-32 of bytes, as zlib has it. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

export const hex = (value) => value.toString(16).padStart(8, "0");

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.position = 0;
  }
  atEnd() {
    return this.position === this.bytes.length;
  }
  take(count) {
    const end = this.position + count;
    if (end > this.bytes.length) {
      throw new FileError(`Expected ${end} bytes and a checksum (got ${this.bytes.length}): cut short`);
    }
    const part = this.bytes.subarray(this.position, end);
    this.position = end;
    return part;
  }
  number() {
    for (let value = 0, scale = 1, i = 0; i < 5; i++, scale *= 128) {
      const byte = this.take(1)[0];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new FileError("Expected a number of at most 5 bytes (got more): damaged");
  }
  word() {
    const bytes = this.take(4);
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  }
}

/** Read the bytes of a .glic file. */
export function unpack(bytes) {
  if (!MAGIC.every((letter, i) => bytes[i] === letter)) {
    throw new FileError(`Expected a .glic file (got one of ${bytes.length} bytes that is none)`);
  }
  const reader = new Reader(bytes.subarray(0, Math.max(5, bytes.length - 4)));
  reader.take(4);
  const version = reader.take(1)[0];
  if (version > NEWEST || version < 1) {
    throw new FileError(`Expected format version ${OLDEST}..${NEWEST} (got ${version}): a newer glic_pyg made it`);
  }
  if (version < OLDEST) {
    throw new FileError(
      `Expected format version ${OLDEST} or later (got ${version}), whose probabilities depend on the machine: ` +
        "glic decompress reads it",
    );
  }
  const content = bytes.subarray(0, bytes.length - 4);
  const [expected, computed] = [new Reader(bytes.subarray(bytes.length - 4)).word(), crc32(content)];
  if (expected !== computed) {
    throw new FileError(`Expected checksum ${hex(computed)} (got ${hex(expected)}): damaged or cut short`);
  }
  const identity = Array.from(reader.take(8), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const [quality, height, width] = [reader.number(), reader.number(), reader.number()];
  const channels = version > PLAIN ? reader.take(1)[0] : 3;
  if (channels < 1 || channels > 4) throw new FileError(`Expected 1 to 4 channels (got ${channels}): damaged`);
  const latents = reader.word();
  const count = version > PLAIN ? reader.take(1)[0] : null;
  const strings = [];
  while (count === null ? !reader.atEnd() : strings.length < count) {
    if (strings.length === MAX_STRINGS) throw new FileError(`Expected at most ${MAX_STRINGS} strings (got more): damaged`);
    strings.push(reader.take(reader.number()));
  }
  const chunks = {};
  while (!reader.atEnd()) {
    const name = String.fromCharCode(...reader.take(4));
    if (name in chunks) throw new FileError(`Expected one chunk ${name} (got two): damaged`);
    if (Object.keys(chunks).length === MAX_CHUNKS) throw new FileError(`Expected at most ${MAX_CHUNKS} chunks (got more): damaged`);
    chunks[name] = reader.take(reader.number());
  }
  if ((channels % 2 === 0) !== ("ALPH" in chunks)) {
    throw new FileError(`Expected a chunk ALPH with 2 or 4 channels, and with no others (got ${channels} channels)`);
  }
  return { version, identity, quality, height, width, channels, latents, strings, chunks };
}

/** Return the bytes of the .glic file of an RGB picture without chunks. */
export function pack({ identity, quality, height, width, latents, strings }) {
  const bytes = [...MAGIC, PLAIN, ...identity.match(/../g).map((pair) => parseInt(pair, 16))];
  const number = (value) => {
    for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value & 127) | 128);
    bytes.push(value);
  };
  const word = (value) => bytes.push(value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24);
  [quality, height, width].forEach(number);
  word(latents);
  for (const string of strings) {
    number(string.length);
    for (const byte of string) bytes.push(byte);
  }
  word(crc32(Uint8Array.from(bytes)));
  return Uint8Array.from(bytes);
}
