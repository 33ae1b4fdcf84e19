// The AVX-512 kernels for machines without it: the same source, with each of its instructions spelled
// out lane by lane. Their logic is tested so, not what a compiler makes of it.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v3")
#include <immintrin.h>

#include <cstdint>

namespace {

template <class Lane, int L>
struct Lanes {
  Lane v[L];
};
template <class To, class From>
To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "as keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}
// f on the lower and the upper half, of whose results Out is made.
template <class Out, class Half, class HalfOut, class In, class F>
Out by_halves(const In& in, const F& f) {
  Half halves[2];
  __builtin_memcpy(halves, &in, sizeof(in));
  const HalfOut results[2] = {f(halves[0]), f(halves[1])};
  Out out;
  __builtin_memcpy(&out, results, sizeof(out));
  return out;
}

__m512d cvtps_pd(__m256 x) {
  return by_halves<__m512d, __m128, __m256d>(x, [](__m128 h) { return _mm256_cvtps_pd(h); });
}
__m512 cvtph_ps(__m256i x) {
  return by_halves<__m512, __m128i, __m256>(x, [](__m128i h) { return _mm256_cvtph_ps(h); });
}
__m256i cvtps_ph(__m512 x) {
  return by_halves<__m256i, __m256, __m128i>(
      x, [](__m256 h) { return _mm256_cvtps_ph(h, _MM_FROUND_NO_EXC); });
}
__m512i cvtepu16_epi32(__m256i x) {
  return by_halves<__m512i, __m128i, __m256i>(x,
                                              [](__m128i h) { return _mm256_cvtepu16_epi32(h); });
}
__m512d sqrt_pd(__m512d x) {
  return by_halves<__m512d, __m256d, __m256d>(x, [](__m256d h) { return _mm256_sqrt_pd(h); });
}

__m256i cvtepi32_epi16(__m512i x) {
  const auto in = as<Lanes<int32_t, 16>>(x);
  Lanes<int16_t, 16> out;
  for (int l = 0; l < 16; ++l) out.v[l] = int16_t(in.v[l]);
  return as<__m256i>(out);
}

__m512d fmadd_pd(__m512d a, __m512d b, __m512d c) {
  const auto x = as<Lanes<double, 8>>(a), y = as<Lanes<double, 8>>(b);
  auto z = as<Lanes<double, 8>>(c);
  for (int l = 0; l < 8; ++l) z.v[l] = __builtin_fma(x.v[l], y.v[l], z.v[l]);
  return as<__m512d>(z);
}

// A bit a lane: its sign.
template <class Lane>
uint32_t signs(__m512i x) {
  constexpr int lanes = 64 / int(sizeof(Lane));
  const auto in = as<Lanes<Lane, lanes>>(x);
  uint32_t mask = 0;
  for (int l = 0; l < lanes; ++l) mask |= uint32_t(in.v[l] < 0) << l;
  return mask;
}

// In every 128 bits the four of a, then the four of b, each clamped.
__m512i packs_epi32(__m512i a, __m512i b) {
  const auto x = as<Lanes<int32_t, 16>>(a), y = as<Lanes<int32_t, 16>>(b);
  const auto clamped = [](int32_t v) {
    return int16_t(v < INT16_MIN ? INT16_MIN : v > INT16_MAX ? INT16_MAX : v);
  };
  Lanes<int16_t, 32> out;
  for (int l = 0; l < 16; ++l) {
    const int at = l / 4 * 8 + l % 4;
    out.v[at] = clamped(x.v[l]);
    out.v[at + 4] = clamped(y.v[l]);
  }
  return as<__m512i>(out);
}

__m512i permutexvar_epi64(__m512i places, __m512i x) {
  const auto from = as<Lanes<int64_t, 8>>(places), in = as<Lanes<int64_t, 8>>(x);
  Lanes<int64_t, 8> out;
  for (int l = 0; l < 8; ++l) out.v[l] = in.v[from.v[l] & 7];
  return as<__m512i>(out);
}

// Faults at an address that is not aligned, as the instruction does.
void stream_si512(__m512i* p, __m512i x) {
  if (reinterpret_cast<uintptr_t>(p) % 64 != 0) __builtin_trap();
  __builtin_memcpy(static_cast<void*>(p), &x, sizeof(x));
}

}  // namespace

#undef _mm512_setr_epi64
#undef _mm512_cvtps_ph
#define _mm512_cvtps_pd cvtps_pd
#define _mm512_cvtph_ps cvtph_ps
#define _mm512_cvtps_ph(x, rounding) cvtps_ph(x)
#define _mm512_cvtepu16_epi32 cvtepu16_epi32
#define _mm512_cvtepi32_epi16 cvtepi32_epi16
#define _mm512_sqrt_pd sqrt_pd
#define _mm512_fmadd_pd fmadd_pd
#define _mm512_movepi32_mask signs<int32_t>
#define _mm512_movepi64_mask signs<int64_t>
#define _mm512_packs_epi32 packs_epi32
#define _mm512_permutexvar_epi64 permutexvar_epi64
#define _mm512_setr_epi64(...) as<__m512i>(Lanes<int64_t, 8>{{__VA_ARGS__}})
#define _mm512_stream_si512 stream_si512

#define CGSV_ISA avx512
#define CGSV_ISA_NAME "avx512"
#define CGSV_VECTOR_BYTES 64
#include "../core/cpu/kernels.inc"
#endif
