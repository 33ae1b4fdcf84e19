// Shared memory: the thread-local block of this library, given to one thread block after the other.
#pragma once

#include <cstddef>

namespace simt {

constexpr size_t shared_per_block = 48 << 10, shared_opt_in = 227 << 10,
                 shared_per_multiprocessor = 228 << 10, shared_reserved = 1 << 10;

// Finds it for the calling thread; `dynamic` bytes of the dynamic part are in use until close.
void open_shared(size_t dynamic);
void close_shared();

bool is_shared(const void* p);
ptrdiff_t dynamic_offset(const void* p);     // in the dynamic part; negative: elsewhere
bool is_unused(const void* p, size_t size);  // any of it behind the dynamic part

// What a block finds: anything but what it hopes for.
void fill_shared();
// Whether all bytes behind the dynamic part are as fill_shared left them.
bool shared_intact();

size_t shared_size();  // of a saved copy
void save_shared(unsigned char* to);
void restore_shared(const unsigned char* from);

}  // namespace simt
