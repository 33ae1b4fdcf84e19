// What g++ -fsanitize=thread calls, in place of the thread sanitizer's own library.
#include <cstddef>
#include <cstdint>

#include "../fiber.h"
#include "../shared.h"
#include "order.h"
#include "race.h"

using simt::race::Kind;
using simt::race::touch;

#define HERE __builtin_return_address(0)
#pragma GCC visibility push(hidden)  // not for a real thread sanitizer elsewhere

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_read_range(const void* p, size_t size) { touch(p, size, Kind::read, HERE); }
void __tsan_write_range(const void* p, size_t size) { touch(p, size, Kind::write, HERE); }

#define SIZE(n)                                                                   \
  void __tsan_read##n(const void* p) { touch(p, n, Kind::read, HERE); }           \
  void __tsan_write##n(const void* p) { touch(p, n, Kind::write, HERE); }         \
  void __tsan_unaligned_read##n(const void* p) { touch(p, n, Kind::read, HERE); } \
  void __tsan_unaligned_write##n(const void* p) { touch(p, n, Kind::write, HERE); }
SIZE(1)
SIZE(2)
SIZE(4)
SIZE(8)
SIZE(16)
#undef SIZE

}  // extern "C"

// Atomics are done here, not only seen. Those on shared memory publish nothing to other blocks.
namespace {

bool is_global_in_kernel(const volatile void* p) {
  const void* q = const_cast<const void*>(p);
  return simt::race::in_kernel() && !simt::is_stack(q) && !simt::is_shared(q);
}

void before(const volatile void* p, size_t size, const void* pc) {
  touch(const_cast<const void*>(p), size, Kind::atomic, pc);
  if (is_global_in_kernel(p)) simt::race::acquire(const_cast<const void*>(p));
}
void behind(const volatile void* p) {
  if (is_global_in_kernel(p)) simt::race::publish(const_cast<const void*>(p));
}

}  // namespace

extern "C" {

void __tsan_atomic_thread_fence(int) {
  if (simt::race::in_kernel()) simt::race::fence();
}
void __tsan_atomic_signal_fence(int) {}

#define UPDATE(T, bits, name)                               \
  T __tsan_atomic##bits##_##name(volatile T* p, T v, int) { \
    before(p, sizeof(T), HERE);                             \
    const T old = __atomic_##name(p, v, __ATOMIC_SEQ_CST);  \
    behind(p);                                              \
    return old;                                             \
  }
#define SWAP(T, bits, strength, weak)                                                          \
  int __tsan_atomic##bits##_compare_exchange_##strength(volatile T* p, T* expected, T v, int,  \
                                                        int) {                                 \
    before(p, sizeof(T), HERE);                                                                \
    const bool done =                                                                          \
        __atomic_compare_exchange_n(p, expected, v, weak, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    behind(p);                                                                                 \
    return done;                                                                               \
  }
#define ATOMICS(T, bits)                                       \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {     \
    before(p, sizeof(T), HERE);                                \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);               \
  }                                                            \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {  \
    touch(const_cast<T*>(p), sizeof(T), Kind::atomic, HERE);   \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                  \
    behind(p);                                                 \
  }                                                            \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {  \
    before(p, sizeof(T), HERE);                                \
    const T old = __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); \
    behind(p);                                                 \
    return old;                                                \
  }                                                            \
  UPDATE(T, bits, fetch_add)                                   \
  UPDATE(T, bits, fetch_sub)                                   \
  UPDATE(T, bits, fetch_and)                                   \
  UPDATE(T, bits, fetch_or)                                    \
  UPDATE(T, bits, fetch_xor)                                   \
  SWAP(T, bits, strong, false)                                 \
  SWAP(T, bits, weak, true)
ATOMICS(uint8_t, 8)
ATOMICS(uint16_t, 16)
ATOMICS(uint32_t, 32)
ATOMICS(uint64_t, 64)

}  // extern "C"

#pragma GCC visibility pop
