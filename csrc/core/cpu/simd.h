// Vectors of a fixed number of lanes for the one instruction set a kernels_*.cpp file is compiled
// for, on the compiler's vector extension; intrinsics only where a plain expression compiles badly.
//
// Everything stands in a namespace of that instruction set, and nothing of the standard library is
// called: an inline function emitted for AVX-512 and shared by name with a baseline file could be
// the copy that the linker keeps, and would then stop an older machine.
//
// CGSV_ISA            namespace: baseline, avx2, avx512
// CGSV_VECTOR_BYTES   16, 32, 64
#include <cstddef>
#include <cstdint>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"

namespace cgsv::cpu::CGSV_ISA {
namespace {

template <class T, int L>
struct VecOf {
  typedef T type __attribute__((vector_size(sizeof(T) * L)));
};
template <class T, int L>
using Vec = typename VecOf<T, L>::type;

template <class To, class V>
inline To bit_cast(const V& v) {
  static_assert(sizeof(To) == sizeof(V), "bit_cast keeps the size");
  To to;
  __builtin_memcpy(&to, &v, sizeof(to));
  return to;
}

template <class T, int L>
inline Vec<T, L> load(const T* p) {
  Vec<T, L> v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

// Asks for the `count` elements that lie `ahead` bytes on from p, there or not, to be brought into the second-level
// cache.
template <int count, class T>
inline void fetch(const T* p, int64_t ahead) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(p) + uintptr_t(ahead);
  for (size_t line = 0; line < count * sizeof(T); line += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(at + line), 0, 2);
  }
}

template <class T, int L>
inline void store(T* p, const Vec<T, L>& v) {
  __builtin_memcpy(p, &v, sizeof(v));
}

// A store that leaves the caches alone; p is aligned to the vector.
template <class T, int L>
inline void stream(T* p, const Vec<T, L>& v) {
#if defined(__x86_64__)
  constexpr int bytes = sizeof(v);
  if constexpr (bytes == 8) {
    long long word;
    __builtin_memcpy(&word, &v, 8);
    _mm_stream_si64(reinterpret_cast<long long*>(p), word);
    return;
  }
  if constexpr (bytes == 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), bit_cast<__m128i>(v));
    return;
  }
#if CGSV_VECTOR_BYTES >= 32
  if constexpr (bytes == 32) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), bit_cast<__m256i>(v));
    return;
  }
#endif
#if CGSV_VECTOR_BYTES >= 64
  if constexpr (bytes == 64) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), bit_cast<__m512i>(v));
    return;
  }
#endif
#endif
  store<T, L>(p, v);
}

// GCC compiles __builtin_convertvector between different sizes half by half; these four say it in one
// instruction where there is one.

template <int L>
inline Vec<double, L> to_double(const Vec<float, L>& f) {
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 64
  if constexpr (L == 8) return bit_cast<Vec<double, L>>(_mm512_cvtps_pd(bit_cast<__m256>(f)));
#endif
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 32
  if constexpr (L == 4) return bit_cast<Vec<double, L>>(_mm256_cvtps_pd(bit_cast<__m128>(f)));
#endif
  return __builtin_convertvector(f, Vec<double, L>);
}

template <int L>
inline Vec<uint32_t, L> zero_extend(const Vec<uint16_t, L>& h) {
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 64
  if constexpr (L == 16) {
    return bit_cast<Vec<uint32_t, L>>(_mm512_cvtepu16_epi32(bit_cast<__m256i>(h)));
  }
#endif
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 32
  if constexpr (L == 8) {
    return bit_cast<Vec<uint32_t, L>>(_mm256_cvtepu16_epi32(bit_cast<__m128i>(h)));
  }
  if constexpr (L == 4) {
    return bit_cast<Vec<uint32_t, L>>(_mm_cvtepu16_epi32(_mm_cvtsi64_si128(bit_cast<int64_t>(h))));
  }
#endif
  return __builtin_convertvector(h, Vec<uint32_t, L>);
}

// The low halves of the lanes.
template <int L>
inline Vec<uint16_t, L> low_halves(const Vec<uint32_t, L>& v) {
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 64
  if constexpr (L == 16) {
    return bit_cast<Vec<uint16_t, L>>(_mm512_cvtepi32_epi16(bit_cast<__m512i>(v)));
  }
#elif defined(__x86_64__) && CGSV_VECTOR_BYTES == 32
  if constexpr (L == 8) {
    const __m256i low = _mm256_and_si256(bit_cast<__m256i>(v), _mm256_set1_epi32(0xffff));
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
    return bit_cast<Vec<uint16_t, L>>(_mm256_castsi256_si128(packed));
  }
#elif defined(__x86_64__)
  if constexpr (L == 4) {
    const __m128i low = _mm_srai_epi32(_mm_slli_epi32(bit_cast<__m128i>(v), 16), 16);
    return bit_cast<Vec<uint16_t, L>>(_mm_cvtsi128_si64(_mm_packs_epi32(low, low)));
  }
#endif
  return __builtin_convertvector(v, Vec<uint16_t, L>);
}

// float16 -> float32, exact: natively, or by moving exponent and mantissa into place and scaling.
template <int L>
inline Vec<float, L> widen_half(const Vec<uint16_t, L>& h) {
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 64
  if constexpr (L == 16) {
    return bit_cast<Vec<float, L>>(_mm512_cvtph_ps(bit_cast<__m256i>(h)));
  }
#endif
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 32
  if constexpr (L == 8) {
    return bit_cast<Vec<float, L>>(_mm256_cvtph_ps(bit_cast<__m128i>(h)));
  }
  if constexpr (L == 4) {
    return bit_cast<Vec<float, L>>(_mm_cvtph_ps(_mm_cvtsi64_si128(bit_cast<int64_t>(h))));
  }
#endif
  using U = Vec<uint32_t, L>;
  const U wide = zero_extend<L>(h);
  const U sign = (wide & 0x8000u) << 16;
  const Vec<float, L> scaled = bit_cast<Vec<float, L>>((wide & 0x7fffu) << 13) * 0x1p112f;
  const U special = bit_cast<U>((wide & 0x7c00u) == 0x7c00u) & 0x7f800000u;
  // A signalling NaN becomes a quiet one, as in hardware.
  const U quiet = bit_cast<U>((wide & 0x7fffu) > 0x7c00u) & 0x400000u;
  return bit_cast<Vec<float, L>>(bit_cast<U>(scaled) | special | quiet | sign);
}

// float32 -> float16, to nearest even; a NaN stays a (quiet) NaN.
template <int L>
inline Vec<uint16_t, L> narrow_half(const Vec<float, L>& f) {
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 64
  if constexpr (L == 16) {
    return bit_cast<Vec<uint16_t, L>>(_mm512_cvtps_ph(bit_cast<__m512>(f), _MM_FROUND_NO_EXC));
  }
#endif
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 32
  if constexpr (L == 8) {
    return bit_cast<Vec<uint16_t, L>>(_mm256_cvtps_ph(bit_cast<__m256>(f), _MM_FROUND_NO_EXC));
  }
#endif
  using U = Vec<uint32_t, L>;
  using I = Vec<int32_t, L>;
  const U bits = bit_cast<U>(f);
  const U sign = (bits >> 16) & 0x8000u;
  const U mag = bits & 0x7fffffffu;
  // Normal results: add just under half a unit, plus one when the kept part is odd.
  const U normal = (mag - (112u << 23) + 0x0fffu + ((mag >> 13) & 1u)) >> 13;
  // Results below 2^-14: adding 0.5 rounds to a multiple of 2^-24 in the low mantissa bits.
  const U tiny = bit_cast<U>(bit_cast<Vec<float, L>>(mag) + 0.5f) - 0x3f000000u;
  const U is_tiny = bit_cast<U>(bit_cast<I>(mag) < 0x38800000);
  const U is_huge = bit_cast<U>(bit_cast<I>(mag) >= 0x477ff000);
  const U is_nan = bit_cast<U>(bit_cast<I>(mag) > 0x7f800000);
  U half = (tiny & is_tiny) | (normal & ~is_tiny);
  half = (half & ~is_huge) | (is_huge & 0x7c00u);
  half = (half & ~is_nan) | (is_nan & (0x7e00u | ((mag >> 13) & 0x3ffu)));
  return low_halves<L>(half | sign);
}

// float32 -> bfloat16, to nearest even; a NaN stays a (quiet) NaN.
template <int L>
inline Vec<uint16_t, L> narrow_bfloat(const Vec<float, L>& f) {
  using U = Vec<uint32_t, L>;
  using I = Vec<int32_t, L>;
  const U bits = bit_cast<U>(f);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U is_nan = bit_cast<U>(bit_cast<I>(bits & 0x7fffffffu) > 0x7f800000);
  return low_halves<L>((rounded & ~is_nan) | (is_nan & ((bits >> 16) | 0x40u)));
}

// The float that rounds on to a shorter type as the double itself would: where inexact, that one of its
// two neighbours whose last bit is 1.
template <int L>
inline Vec<float, L> round_to_odd(const Vec<double, L>& v) {
  using I = Vec<int32_t, L>;
  const Vec<float, L> nearest = __builtin_convertvector(v, Vec<float, L>);
  const Vec<double, L> back = to_double<L>(nearest);
  // −1 where the value at hand is too large, +1 where it is too small, 0 for a NaN.
  const I off = __builtin_convertvector((back > v) - (back < v), I);
  const I bits = bit_cast<I>(nearest);
  const I sign = bits >> 31, even = (bits & 1) - 1;
  return bit_cast<Vec<float, L>>(bits + (((off ^ sign) - sign) & even));
}

// L elements of a stored type as lanes of a computing type (float or double), and back. Rounding from
// double to a half type goes through float, as torch does.
template <class Lane, int L, class T>
inline Vec<Lane, L> widen(const T* p) {
  if constexpr (sizeof(T) == sizeof(Lane)) {
    return load<Lane, L>(reinterpret_cast<const Lane*>(p));
  } else if constexpr (sizeof(T) == 4) {
    return to_double<L>(load<float, L>(reinterpret_cast<const float*>(p)));
  } else {
    const Vec<uint16_t, L> raw = load<uint16_t, L>(reinterpret_cast<const uint16_t*>(p));
    Vec<float, L> f;
    if constexpr (T::is_bfloat) {
      f = bit_cast<Vec<float, L>>(zero_extend<L>(raw) << 16);
    } else {
      f = widen_half<L>(raw);
    }
    if constexpr (sizeof(Lane) == 4) {
      return f;
    } else {
      return to_double<L>(f);
    }
  }
}

// Two vectors' worth of elements in float64; the half types are widened to float32 together.
template <class Lane, int L>
struct Two {
  Vec<Lane, L> first, second;
};
template <int L, class T>
inline Two<double, L> widen_two(const T* p) {
  if constexpr (sizeof(T) >= 4) {
    return {widen<double, L>(p), widen<double, L>(p + L)};
  } else {
    const auto f = bit_cast<Two<float, L>>(widen<float, 2 * L>(p));
    return {to_double<L>(f.first), to_double<L>(f.second)};
  }
}

// sum + a · b, where the product of two T is exact in float64, so that fusing them changes no bit.
template <class T, int L>
inline Vec<double, L> add_product(const Vec<double, L>& a, const Vec<double, L>& b,
                                  const Vec<double, L>& sum) {
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 64
  if constexpr (sizeof(T) < 8) {
    return bit_cast<Vec<double, L>>(
        _mm512_fmadd_pd(bit_cast<__m512d>(a), bit_cast<__m512d>(b), bit_cast<__m512d>(sum)));
  }
#elif defined(__x86_64__) && CGSV_VECTOR_BYTES >= 32
  if constexpr (sizeof(T) < 8) {
    return bit_cast<Vec<double, L>>(
        _mm256_fmadd_pd(bit_cast<__m256d>(a), bit_cast<__m256d>(b), bit_cast<__m256d>(sum)));
  }
#endif
  return sum + a * b;
}

// Two comparisons' results as one of half the width, `first` in the low lanes.
template <int L>
inline Vec<int16_t, 2 * L> narrow_masks(const Vec<int32_t, L>& first,
                                        const Vec<int32_t, L>& second) {
  using Out = Vec<int16_t, 2 * L>;
#if defined(__x86_64__) && CGSV_VECTOR_BYTES >= 64
  const __m512i packed = _mm512_packs_epi32(bit_cast<__m512i>(first), bit_cast<__m512i>(second));
  return bit_cast<Out>(_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), packed));
#elif defined(__x86_64__) && CGSV_VECTOR_BYTES == 32
  const __m256i packed = _mm256_packs_epi32(bit_cast<__m256i>(first), bit_cast<__m256i>(second));
  return bit_cast<Out>(_mm256_permute4x64_epi64(packed, 0xd8));
#elif defined(__x86_64__)
  return bit_cast<Out>(_mm_packs_epi32(bit_cast<__m128i>(first), bit_cast<__m128i>(second)));
#else
  Out both;
  for (int l = 0; l < L; ++l) both[l] = int16_t(first[l]), both[L + l] = int16_t(second[l]);
  return both;
#endif
}

// One bit a lane of a comparison's result, lane 0 lowest.
template <class M>
inline uint32_t bits_of(const M& mask) {
#if defined(__x86_64__)
  constexpr bool wide = sizeof(mask[0]) == 8;
#if CGSV_VECTOR_BYTES >= 64
  if constexpr (wide) return _mm512_movepi64_mask(bit_cast<__m512i>(mask));
  return _mm512_movepi32_mask(bit_cast<__m512i>(mask));
#elif CGSV_VECTOR_BYTES >= 32
  if constexpr (wide) return uint32_t(_mm256_movemask_pd(bit_cast<__m256d>(mask)));
  return uint32_t(_mm256_movemask_ps(bit_cast<__m256>(mask)));
#else
  if constexpr (wide) return uint32_t(_mm_movemask_pd(bit_cast<__m128d>(mask)));
  return uint32_t(_mm_movemask_ps(bit_cast<__m128>(mask)));
#endif
#else
  uint32_t bits = 0;
  for (int l = 0; l < int(sizeof(mask) / sizeof(mask[0])); ++l) bits |= uint32_t(mask[l] & 1) << l;
  return bits;
#endif
}

template <class T>
struct BitsOf;  // an unsigned integer of the same size
template <>
struct BitsOf<double> {
  using type = uint64_t;
};
template <>
struct BitsOf<float> {
  using type = uint32_t;
};
template <>
struct BitsOf<bfloat16> {
  using type = uint16_t;
};
template <>
struct BitsOf<float16> {
  using type = uint16_t;
};
template <class T>
using Bits = typename BitsOf<T>::type;

// The bits of v rounded to T.
template <class T, int L, class V>
inline Vec<Bits<T>, L> narrow(const V& v) {
  using Out = Vec<Bits<T>, L>;
  if constexpr (sizeof(v[0]) == sizeof(T)) {
    return bit_cast<Out>(v);
  } else if constexpr (sizeof(T) == 8) {
    return bit_cast<Out>(to_double<L>(v));
  } else {
    Vec<float, L> f;
    if constexpr (sizeof(v[0]) == 8) {
      f = __builtin_convertvector(v, Vec<float, L>);
    } else {
      f = v;
    }
    if constexpr (sizeof(T) == 4) {
      return bit_cast<Out>(f);
    } else if constexpr (T::is_bfloat) {
      return narrow_bfloat<L>(f);
    } else {
      return narrow_half<L>(f);
    }
  }
}

}  // namespace
}  // namespace cgsv::cpu::CGSV_ISA
