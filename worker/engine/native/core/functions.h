// Elementary functions of our own in float64, where their values reach the weights: libm's differ between C libraries in
// the last bit. Twins: shared/arithmetic/functions.ts, the same bits, with the errors. No branches, so that loops over
// them are vectorised. Included inside the namespace of each instruction set.

static inline __attribute__((always_inline)) double log_of(double x) {
  uint64_t bits;
  __builtin_memcpy(&bits, &x, 8);
  const uint64_t mantissa = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
  double m;
  __builtin_memcpy(&m, &mantissa, 8);
  const bool above = m > 1.4142135623730951;
  const double exponent = (double)((int32_t)(bits >> 52) - 1023 + (above ? 1 : 0));
  m = above ? m * 0.5 : m;
  const double s = (m - 1) / (m + 1), z = s * s;
  double p = 2.0 / 23;
  p = p * z + 2.0 / 21;
  p = p * z + 2.0 / 19;
  p = p * z + 2.0 / 17;
  p = p * z + 2.0 / 15;
  p = p * z + 2.0 / 13;
  p = p * z + 2.0 / 11;
  p = p * z + 2.0 / 9;
  p = p * z + 2.0 / 7;
  p = p * z + 2.0 / 5;
  p = p * z + 2.0 / 3;
  return exponent * 0.6931471803691238 + (exponent * 1.9082149292705877e-10 + (2 * s + s * (z * p)));
}

// Of a float that is at least its smallest normal number, infinity or NaN.
static inline float log_float(float x) {
  return x < __builtin_inff() ? (float)log_of((double)x) : x;
}

// cos(2 pi v), v in [0, 1].
static inline __attribute__((always_inline)) double cos_turns(double v) {
  const int32_t quarter = (int32_t)(4 * v + 0.5);
  const double r = (v - (double)quarter * 0.25) * 6.283185307179586, z = r * r;
  double c = -1.0 / 6402373705728000;
  c = c * z + 1.0 / 20922789888000;
  c = c * z - 1.0 / 87178291200;
  c = c * z + 1.0 / 479001600;
  c = c * z - 1.0 / 3628800;
  c = c * z + 1.0 / 40320;
  c = c * z - 1.0 / 720;
  c = c * z + 1.0 / 24;
  c = c * z - 0.5;
  c = c * z + 1;
  double s = 1.0 / 355687428096000;
  s = s * z - 1.0 / 1307674368000;
  s = s * z + 1.0 / 6227020800;
  s = s * z - 1.0 / 39916800;
  s = s * z + 1.0 / 362880;
  s = s * z - 1.0 / 5040;
  s = s * z + 1.0 / 120;
  s = s * z - 1.0 / 6;
  s = s * z + 1;
  const double value = quarter & 1 ? r * s : c;
  return (quarter + 1) & 2 ? -value : value;
}
