// PyTorch's random stream on the CPU: torch.manual_seed, randint and randn, number for number, so that the figures
// which the tutorials print can be computed again. Mersenne Twister: Matsumoto & Nishimura 1998. How PyTorch turns its
// words into numbers: ATen/native/cpu/DistributionTemplates.h and ATen/core/DistributionsHelper.h.

const N = 624;
const M = 397;

export class TorchRandom {
  readonly #state = new Uint32Array(N);
  #next = N;
  /** The second number of a Box-Muller pair, which single draws keep for the next one. */
  #kept: number | undefined;

  /** torch.manual_seed(seed) */
  constructor(seed: number) {
    this.#state[0] = seed;
    for (let i = 1; i < N; i++) {
      const before = this.#state[i - 1]! ^ (this.#state[i - 1]! >>> 30);
      this.#state[i] = Math.imul(1812433253, before) + i;
    }
  }

  /** The next 32 bits. */
  word(): number {
    if (this.#next === N) this.#twist();
    let y = this.#state[this.#next++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  #twist(): void {
    const s = this.#state;
    for (let i = 0; i < N; i++) {
      const y = (s[i]! & 0x80000000) | (s[(i + 1) % N]! & 0x7fffffff);
      s[i] = s[(i + M) % N]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }

  /** torch.randint(low, high, (count,)), for ranges below 2^28 */
  randint(low: number, high: number, count: number): Int32Array {
    return Int32Array.from({ length: count }, () => low + (this.word() % (high - low)));
  }

  /** torch.randn of a float32 tensor of so many elements. */
  randn(count: number): Float32Array {
    const out = new Float32Array(count);
    if (count < 16) {
      for (let i = 0; i < count; i++) out[i] = this.#normal();
      return out;
    }
    for (let i = 0; i < count; i++) out[i] = this.#uniform24();
    for (let i = 0; i + 16 <= count; i += 16) boxMuller16(out.subarray(i, i + 16));
    if (count % 16 !== 0) {
      const last = out.subarray(count - 16);
      for (let i = 0; i < 16; i++) last[i] = this.#uniform24();
      boxMuller16(last);
    }
    return out;
  }

  /** Uniform in [0, 1), a float32's 24 bits. */
  #uniform24(): number {
    return (this.word() & 0xffffff) / 2 ** 24;
  }

  /** Uniform in [0, 1), a double's 53 bits. */
  #uniform53(): number {
    const high = this.word() & 0x1fffff;
    return (high * 2 ** 32 + this.word()) / 2 ** 53;
  }

  #normal(): number {
    if (this.#kept !== undefined) {
      const kept = this.#kept;
      this.#kept = undefined;
      return kept;
    }
    const angle = 2 * Math.PI * this.#uniform53();
    const radius = Math.sqrt(-2 * Math.log1p(-this.#uniform53()));
    this.#kept = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** Sixteen uniform numbers to sixteen normal ones, in place: element j is paired with element j + 8. */
function boxMuller16(x: Float32Array): void {
  for (let j = 0; j < 8; j++) {
    const radius = Math.sqrt(-2 * Math.log(1 - x[j]!));
    const angle = 2 * Math.PI * x[j + 8]!;
    x[j] = radius * Math.cos(angle);
    x[j + 8] = radius * Math.sin(angle);
  }
}
