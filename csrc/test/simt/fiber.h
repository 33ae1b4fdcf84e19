// Fibers: stacks that are pooled and reused, and the switch from one to another.
#pragma once

#include <cstddef>

namespace simt {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t stack_size = 256 << 10;
#else
constexpr size_t stack_size = 64 << 10;
#endif

// Where a fiber that does not run was left.
using Context = void*;

char* take_stack();  // its lower end
void give_stack(char* stack);
bool is_stack(const void* p);

// A fiber that will run `entry` on `stack` when first switched to; `entry` never returns.
Context new_fiber(char* stack, void (*entry)());

// Leaves the running fiber in `*from` and continues `to`, whose stack is `stack` (null: the
// host's). Without `from` the running fiber is over.
void switch_fiber(Context* from, Context to, char* stack);

// Every entry calls this first.
void fiber_entered();

}  // namespace simt
