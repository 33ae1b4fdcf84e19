// Bits and arithmetic, with CUDA's names, types and roundings.
#pragma once

// ---------------------------------------------------------------------------------------- bits

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll((unsigned long long)(v)); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned long long __brevll(unsigned long long v) {
  unsigned long long r = 0;
  for (int i = 0; i < 64; ++i) r |= (v >> i & 1) << (63 - i);
  return r;
}
inline unsigned __brev(unsigned v) { return unsigned(__brevll(v) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return unsigned(static_cast<unsigned long long>(a) * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(Wide(a) * b >> 64);
}
inline unsigned __float_as_uint(float v) { return simt::bit_cast<unsigned>(v); }
inline int __float_as_int(float v) { return simt::bit_cast<int>(v); }
inline float __uint_as_float(unsigned v) { return simt::bit_cast<float>(v); }
inline float __int_as_float(int v) { return simt::bit_cast<float>(v); }
inline long long __double_as_longlong(double v) { return simt::bit_cast<long long>(v); }
inline double __longlong_as_double(long long v) { return simt::bit_cast<double>(v); }

// -------------------------------------------------------------------------------------- arithmetic

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __double2float_rn(double v) { return float(v); }
inline float __int2float_rn(int v) { return float(v); }
inline float __uint2float_rn(unsigned v) { return float(v); }
inline double __ll2double_rn(long long v) { return double(v); }

// A float to an integer as the hardware does it: rounded, saturated, NaN to 0.
namespace simt {
template <class To, class From>
inline To to_integer(From v) {
  if (!(v == v)) return 0;
  if (v <= From(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (v >= From(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return To(v);
}
}  // namespace simt
inline int __float2int_rz(float v) { return simt::to_integer<int>(v); }
inline int __float2int_rn(float v) { return simt::to_integer<int>(std::nearbyint(v)); }
inline int __float2int_rd(float v) { return simt::to_integer<int>(std::floor(v)); }
inline int __float2int_ru(float v) { return simt::to_integer<int>(std::ceil(v)); }
inline unsigned __float2uint_rz(float v) { return simt::to_integer<unsigned>(v); }
inline unsigned __float2uint_rn(float v) { return simt::to_integer<unsigned>(std::nearbyint(v)); }
inline unsigned __float2uint_rd(float v) { return simt::to_integer<unsigned>(std::floor(v)); }
inline unsigned __float2uint_ru(float v) { return simt::to_integer<unsigned>(std::ceil(v)); }
inline long long __double2ll_rz(double v) { return simt::to_integer<long long>(v); }
inline long long __double2ll_rd(double v) { return simt::to_integer<long long>(std::floor(v)); }

inline float rsqrtf(float v) { return 1 / std::sqrt(v); }
inline double rsqrt(double v) { return 1 / std::sqrt(v); }

// Mixed operands meet where C's arithmetic conversions meet; a NaN loses, as in fmin and fmax.
#define SIMT_MIN_MAX(A, B)                                                                    \
  inline auto min(A a, B b) -> decltype(a + b) { return simt::least<decltype(a + b)>(a, b); } \
  inline auto max(A a, B b) -> decltype(a + b) { return simt::greatest<decltype(a + b)>(a, b); }
#define SIMT_MIN_MAX_PAIR(A, B) \
  SIMT_MIN_MAX(A, A) SIMT_MIN_MAX(B, B) SIMT_MIN_MAX(A, B) SIMT_MIN_MAX(B, A)
namespace simt {
template <class T>
inline T least(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmin(a, b);
  return b < a ? b : a;
}
template <class T>
inline T greatest(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) return std::fmax(a, b);
  return a < b ? b : a;
}
}  // namespace simt
SIMT_MIN_MAX_PAIR(int, unsigned)
SIMT_MIN_MAX_PAIR(long, unsigned long)
SIMT_MIN_MAX_PAIR(long long, unsigned long long)
SIMT_MIN_MAX_PAIR(float, double)
#undef SIMT_MIN_MAX_PAIR
#undef SIMT_MIN_MAX
