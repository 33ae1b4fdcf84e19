// Bits of the 16-bit floating types. Rounding is to nearest even; every NaN narrows to 0x7fff.
#pragma once

#include "cuda_runtime.h"

namespace simt {

inline float half_to_float(unsigned short h) {
  const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 0x1f, mantissa = h & 0x3ff;
  if (exponent == 31) return bit_cast<float>(mantissa ? 0x7fffffffu : sign | 0x7f800000u);
  if (exponent != 0) return bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float v = float(mantissa) * 0x1p-24f;
  return sign ? -v : v;
}

inline unsigned short float_to_half(float f) {
  const unsigned bits = bit_cast<unsigned>(f), sign = bits >> 16 & 0x8000, a = bits & 0x7fffffff;
  if (a > 0x7f800000) return 0x7fff;
  if (a >= 0x47800000) return (unsigned short)(sign | 0x7c00);  // 65536 and more
  // Below the least normal half, adding 0.5 leaves the rounded multiple of 2^-24 in the last bits.
  if (a < 0x38800000) {
    return (unsigned short)(sign | (bit_cast<unsigned>(bit_cast<float>(a) + 0.5f) - 0x3f000000));
  }
  return (unsigned short)(sign | (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13);
}

inline float bfloat16_to_float(unsigned short h) { return bit_cast<float>(unsigned(h) << 16); }

inline unsigned short float_to_bfloat16(float f) {
  const unsigned u = bit_cast<unsigned>(f);
  return (unsigned short)(f == f ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : 0x7fff);
}

// The float that rounds on to any shorter type as the double itself does: an inexact one is odd.
inline float round_to_odd(double d) {
  const float f = float(d);
  if (double(f) == d || d != d) return f;
  const unsigned bits = bit_cast<unsigned>(f);
  return bit_cast<float>((std::fabs(double(f)) > std::fabs(d) ? bits - 1 : bits) | 1);
}

}  // namespace simt
