// What the race detector must be told; shadow.cpp states its rule. Other flavours tell it nothing.
#pragma once

#include <cstddef>

namespace simt::race {

#if defined(SIMT_RACE)
void begin_launch();
void continue_block();                            // the running block is another one than before
void block_barrier();                             // all its threads have come
void grid_barrier();                              // all threads have come
void warp_barrier(unsigned warp, unsigned mask);  // these lanes have come
void fence();                                     // of the running thread

bool in_kernel();  // whether the caller runs as a kernel's thread

// The running thread touches memory; `pc` is where.
enum class Kind { read, write, atomic };
void touch(const void* p, size_t size, Kind kind, const void* pc);
#else
inline void begin_launch() {}
inline void continue_block() {}
inline void block_barrier() {}
inline void grid_barrier() {}
inline void warp_barrier(unsigned, unsigned) {}
inline void fence() {}
#endif

}  // namespace simt::race
