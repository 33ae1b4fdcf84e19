// Atomics: overloads for CUDA's types and no others, so that what compiles here compiles there.
// Always inline, as are cached loads: a race is reported where the kernel calls them.
#pragma once

namespace simt {

// Atomics are where a random order lets other threads in between.
extern bool preemptive;
void preempt();
[[noreturn]] void misaligned(const void* p, size_t size, const char* file, int line);

// Plain moves that the race detector sees as atomic. No other thread runs in between.
template <class T, class F>
__forceinline__ T read_modify_write(T* p, F f, const char* file, int line) {
  if (reinterpret_cast<size_t>(p) % sizeof(T) != 0) misaligned(p, sizeof(T), file, line);
  if (preemptive) preempt();
  T before, after;
  __atomic_load(p, &before, __ATOMIC_RELAXED);
  after = f(before);
  __atomic_store(p, &after, __ATOMIC_RELAXED);
  return before;
}

}  // namespace simt

#define SIMT_ATOMIC(T, name, expression)                                    \
  __forceinline__ T atomic##name(T* p, T v, SIMT_HERE) {                    \
    const auto f = [v]([[maybe_unused]] T old) -> T { return expression; }; \
    return simt::read_modify_write(p, f, file, line);                       \
  }
#define SIMT_ATOMIC_INTEGER(T)           \
  SIMT_ATOMIC(T, Min, old < v ? old : v) \
  SIMT_ATOMIC(T, Max, old < v ? v : old) \
  SIMT_ATOMIC(T, And, old& v)            \
  SIMT_ATOMIC(T, Or, old | v)            \
  SIMT_ATOMIC(T, Xor, old ^ v)
SIMT_ATOMIC_INTEGER(int)
SIMT_ATOMIC_INTEGER(unsigned)
SIMT_ATOMIC_INTEGER(unsigned long long)
SIMT_ATOMIC(long long, Min, old < v ? old : v)
SIMT_ATOMIC(long long, Max, old < v ? v : old)
SIMT_ATOMIC(int, Add, int(unsigned(old) + unsigned(v)))
SIMT_ATOMIC(unsigned, Add, old + v)
SIMT_ATOMIC(unsigned long long, Add, old + v)
SIMT_ATOMIC(float, Add, old + v)
SIMT_ATOMIC(double, Add, old + v)
SIMT_ATOMIC(int, Sub, int(unsigned(old) - unsigned(v)))
SIMT_ATOMIC(unsigned, Sub, old - v)
SIMT_ATOMIC(unsigned, Inc, old >= v ? 0 : old + 1)
SIMT_ATOMIC(unsigned, Dec, old == 0 || old > v ? v : old - 1)
SIMT_ATOMIC(int, Exch, v)
SIMT_ATOMIC(unsigned, Exch, v)
SIMT_ATOMIC(unsigned long long, Exch, v)
SIMT_ATOMIC(float, Exch, v)
#undef SIMT_ATOMIC_INTEGER
#undef SIMT_ATOMIC

#define SIMT_CAS(T)                                                      \
  __forceinline__ T atomicCAS(T* p, T compare, T v, SIMT_HERE) {         \
    const auto f = [=](T old) -> T { return old == compare ? v : old; }; \
    return simt::read_modify_write(p, f, file, line);                    \
  }
SIMT_CAS(int)
SIMT_CAS(unsigned)
SIMT_CAS(unsigned short)
SIMT_CAS(unsigned long long)
#undef SIMT_CAS
