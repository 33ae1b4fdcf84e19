// The order of magnitudes, as integers: what selection ranks by and what a download compares with.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define CGSV_HOST_DEVICE __host__ __device__
#else
#define CGSV_HOST_DEVICE
#endif

namespace cgsv {

// The rank of a magnitude: the bits of |u| as an integer, which orders as |u| does; every NaN counts
// as the first one above infinity. A float has 31 such bits, a double 63.
template <class A>
struct KeyOf;
template <>
struct KeyOf<float> {
  using type = uint32_t;
  static constexpr int bits = 31;
  static constexpr uint32_t infinity = 0x7f800000u;
};
template <>
struct KeyOf<double> {
  using type = uint64_t;
  static constexpr int bits = 63;
  static constexpr uint64_t infinity = 0x7ff0000000000000u;
};
template <class A>
using Key = typename KeyOf<A>::type;

// Always inlined: a copy emitted for AVX-512 must not become everyone's.
template <class A>
CGSV_HOST_DEVICE __attribute__((always_inline)) inline Key<A> key_of(A u) {
  Key<A> bits;
  memcpy(&bits, &u, sizeof(bits));
  bits &= ~Key<A>(0) >> 1;
  return bits > KeyOf<A>::infinity ? KeyOf<A>::infinity + 1 : bits;
}

// Where one agent's part of one segment ends: an entry is kept when its key, as a signed number,
// exceeds `through` up to last_index, and `beyond` after it.
struct Boundary {
  int64_t through, beyond, last_index;
};

// That of a selection, also of one that the caller made up: a negative magnitude keeps everything.
template <class A>
CGSV_HOST_DEVICE inline Boundary boundary(A magnitude, int64_t last_index) {
  constexpr int64_t none = int64_t(~Key<A>(0) >> 1), all = -1;
  const int64_t key = int64_t(key_of(magnitude));
  if (last_index < 0 && key == int64_t(KeyOf<A>::infinity)) return {none, none, last_index};
  if (magnitude < 0) return {all, all, last_index};
  const bool nan = key > int64_t(KeyOf<A>::infinity);
  return {key - 1, nan ? none : key, last_index};
}

}  // namespace cgsv
