// The functions kernels call: barriers, warp collectives and cached loads here, atomics and
// arithmetic next door.
#pragma once

#include <math.h>  // as CUDA does: tanh(float), isfinite and the like without std::

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

// Where a barrier or a collective stands in the source: its identity.
#define SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace simt {

enum class Vote { none, count, any, all };
enum class Op {
  sync,
  shfl,
  up,
  down,
  bfly,
  ballot,
  any,
  all,
  match,
  add,
  min,
  max,
  imin,
  imax,
  and_,
  or_,
  xor_
};

int block_barrier(Vote vote, int predicate, const char* file, int line);
void grid_barrier(const char* file, int line);
unsigned long long collective(Op op, unsigned mask, unsigned long long value, int argument,
                              int width, const char* file, int line);
void fence();
bool cooperative();

template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T>
inline T shuffle(Op op, unsigned mask, T v, int argument, int width, const char* file, int line) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "");
  using Bits = std::conditional_t<sizeof(T) == 4, unsigned, unsigned long long>;
  const unsigned long long value = bit_cast<Bits>(v);
  return bit_cast<T>(Bits(collective(op, mask, value, argument, width, file, line)));
}

}  // namespace simt

#include "simt_atomics.h"

// ---------------------------------------------------------------------------------------- barriers

inline void __syncthreads(SIMT_HERE) { simt::block_barrier(simt::Vote::none, 0, file, line); }
inline int __syncthreads_count(int predicate, SIMT_HERE) {
  return simt::block_barrier(simt::Vote::count, predicate, file, line);
}
inline int __syncthreads_or(int predicate, SIMT_HERE) {
  return simt::block_barrier(simt::Vote::any, predicate, file, line);
}
inline int __syncthreads_and(int predicate, SIMT_HERE) {
  return simt::block_barrier(simt::Vote::all, predicate, file, line);
}
inline void __threadfence() { simt::fence(); }
inline void __threadfence_system() { simt::fence(); }
inline void __threadfence_block() {}
inline void cudaGridDependencySynchronize() {}
inline void cudaTriggerProgrammaticLaunchCompletion() {}

// ---------------------------------------------------------------------------------------- warps

inline void __syncwarp(unsigned mask = 0xffffffff, SIMT_HERE) {
  simt::collective(simt::Op::sync, mask, 0, 0, 32, file, line);
}
template <class T>
T __shfl_sync(unsigned mask, T v, int lane, int width = 32, SIMT_HERE) {
  return simt::shuffle(simt::Op::shfl, mask, v, lane, width, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, SIMT_HERE) {
  return simt::shuffle(simt::Op::up, mask, v, int(delta), width, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, SIMT_HERE) {
  return simt::shuffle(simt::Op::down, mask, v, int(delta), width, file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32, SIMT_HERE) {
  return simt::shuffle(simt::Op::bfly, mask, v, lanes, width, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_HERE) {
  return unsigned(simt::collective(simt::Op::ballot, mask, predicate != 0, 0, 32, file, line));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_HERE) {
  return int(simt::collective(simt::Op::any, mask, predicate != 0, 0, 32, file, line));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_HERE) {
  return int(simt::collective(simt::Op::all, mask, predicate != 0, 0, 32, file, line));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T v, SIMT_HERE) {
  using Bits = std::conditional_t<sizeof(T) == 4, unsigned, unsigned long long>;
  return unsigned(
      simt::collective(simt::Op::match, mask, simt::bit_cast<Bits>(v), 0, 32, file, line));
}
#define SIMT_REDUCE(T, name, op)                                                    \
  inline T __reduce_##name##_sync(unsigned mask, T v, SIMT_HERE) {                  \
    return T(simt::collective(simt::Op::op, mask, unsigned(v), 0, 32, file, line)); \
  }
SIMT_REDUCE(int, add, add)
SIMT_REDUCE(unsigned, add, add)
SIMT_REDUCE(int, min, imin)
SIMT_REDUCE(unsigned, min, min)
SIMT_REDUCE(int, max, imax)
SIMT_REDUCE(unsigned, max, max)
SIMT_REDUCE(unsigned, and, and_)
SIMT_REDUCE(unsigned, or, or_)
SIMT_REDUCE(unsigned, xor, xor_)
#undef SIMT_REDUCE

// ---------------------------------------------------------------------------------------- memory

#define SIMT_LOAD(name)                \
  template <class T>                   \
  __forceinline__ T name(const T* p) { \
    return *p;                         \
  }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldcv)
SIMT_LOAD(__ldlu)
#undef SIMT_LOAD
#define SIMT_STORE(name)                                            \
  template <class T>                                                \
  __forceinline__ void name(T* p, const std::common_type_t<T>& v) { \
    *p = v;                                                         \
  }
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_STORE

#include "simt_math.h"
