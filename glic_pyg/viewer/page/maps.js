// Maps of features: values in the order channel, row, column.

export class FeatureMap {
  constructor(channels, height, width, data = new Float32Array(channels * height * width)) {
    Object.assign(this, { channels, height, width, data });
  }

  /** The channels from `first` to `end`, without a copy. */
  channelsOf(first, end) {
    const size = this.height * this.width;
    return new FeatureMap(end - first, this.height, this.width, this.data.subarray(first * size, end * size));
  }

  /** Multiply each channel by its factor. */
  times(factors) {
    const size = this.height * this.width;
    for (let c = 0; c < this.channels; c++) {
      for (let i = c * size; i < (c + 1) * size; i++) this.data[i] *= factors[c];
    }
    return this;
  }

  /** Copy out the positions of rows and columns. */
  cut(top, bottom, left, right) {
    const part = new FeatureMap(this.channels, bottom - top, right - left);
    let to = 0;
    for (let c = 0; c < this.channels; c++) {
      for (let row = top; row < bottom; row++, to += right - left) {
        const from = (c * this.height + row) * this.width;
        part.data.set(this.data.subarray(from + left, from + right), to);
      }
    }
    return part;
  }

  /** Copy another map, of as many channels, to a place. */
  paste(part, top, left) {
    for (let c = 0; c < this.channels; c++) {
      for (let row = 0; row < part.height; row++) {
        const from = (c * part.height + row) * part.width;
        this.data.set(part.data.subarray(from, from + part.width), (c * this.height + top + row) * this.width + left);
      }
    }
  }

  /** One half of the checkerboard: half 0 is the anchors, where row and column are both even or both odd. */
  half(which) {
    const part = new FeatureMap(this.channels, this.height, this.width / 2);
    let to = 0;
    for (let row = 0; row < this.channels * this.height; row++) {
      const from = row * this.width + (((row % this.height) + which) % 2);
      for (let i = 0; i < part.width; i++) part.data[to++] = this.data[from + 2 * i];
    }
    return part;
  }

  /** Put one half of the checkerboard where it belongs. */
  setHalf(which, part) {
    let from = 0;
    for (let row = 0; row < this.channels * this.height; row++) {
      const to = row * this.width + (((row % this.height) + which) % 2);
      for (let i = 0; i < part.width; i++) this.data[to + 2 * i] = part.data[from++];
    }
  }

  /** Maps of one size, one after the other. */
  static concat(...maps) {
    const { height, width } = maps[0];
    const all = new FeatureMap(maps.reduce((sum, map) => sum + map.channels, 0), height, width);
    let to = 0;
    for (const map of maps) {
      all.data.set(map.data, to);
      to += map.data.length;
    }
    return all;
  }
}
