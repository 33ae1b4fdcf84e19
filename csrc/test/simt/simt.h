// CUDA kernels on the CPU: g++ compiles a .cu file unchanged against include/, and every thread of
// a block becomes a fiber. Launches run synchronously, one at a time. simt.cmake builds it.
//
// It proves logic: indices, bounds, barriers, masks, races, uninitialised shared memory, and that a
// result does not depend on the order in which threads and blocks run. It proves nothing about
// memory ordering, programmatic dependent launches, registers, occupancy or speed.
//
// A mistake ends the process with a message that names kernel, block, thread and source line: a
// barrier that not every thread reaches, threads at different barriers, a warp mask without its
// caller or with lanes that are not there, a deadlock, a misaligned atomic, a write behind dynamic
// shared memory, a failed assert. The sanitize flavour adds ASan and UBSan; the race flavour finds
// accesses that no barrier orders, whatever the schedule (race/shadow.cpp states the rule).
//
// A launch the device would refuse returns the device's error: more than 1024 threads, dynamic
// shared memory over 48 KB without cudaFuncSetAttribute, a cooperative grid that does not fit. Not
// looked at are __launch_bounds__ and what static shared memory adds to the dynamic.
//
// What a kernel file must obey, beyond CUDA's own rules, to be read and judged here and to mean the same on
// every GPU:
//   - it includes the headers of CUDA, of the project and of the standard library, no CUB and no Thrust;
//   - inline PTX and code of one architecture stand in small helpers with a portable #else;
//   - masks are explicit: all lanes, or those that a ballot named, never __activemask(); they name only
//     lanes that exist and have not left;
//   - one barrier or collective a source line: the line is its identity, and all who meet there
//     must come from the same one; a barrier is spelled `__syncthreads();`, alone in its line, for
//     barriers.py to find;
//   - nothing waits for another thread by reading memory in a loop; blocks meet by grid sync or by
//     the last one's taking over, which fences on both sides of its atomic;
//   - between two barriers a word of shared memory is written by one thread, or by atomics alone;
//   - where bits matter, the roundings are explicit: fma, __dadd_rn, __dmul_rn, never an expression that a
//     compiler may contract or not;
//   - dynamic shared memory is declared `extern __shared__ __align__(16) unsigned char
//     dynamic_shared[];` in namespace cgsv::cuda, not in an unnamed one; SIMT_SHARED_NAMESPACE and
//     SIMT_SHARED_NAME, defined for shared.cpp, change that;
//   - its sources keep no thread_local of their own;
//   - launches name the kernel itself, never its address as a const void*;
//   - a thread needs less than 60 KB of stack, its parameters included.
#pragma once

namespace simt {

// Who runs next, among threads that can and among blocks that have not begun. `run_ahead` stays
// with the thread, and the warp, that came furthest. With `random`, atomics too let others run.
// Threads change places at barriers, collectives and atomics alone; blocks of a launch that is not
// cooperative run one after the other.
enum class Order { in_order, reversed, random, run_ahead };

// At first from the environment: SIMT_ORDER (one of the names above) and SIMT_SEED.
void set_schedule(unsigned long long seed, Order order);

// How many multiprocessors the device has; 3 at first. Each holds 2048 threads in 32 blocks with
// 228 KB of shared memory.
void set_multiprocessors(int count);

// Fiber switches since the process began.
unsigned long long switches();

}  // namespace simt
