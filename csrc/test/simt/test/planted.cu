// Mistakes, each a small kernel that would be right without its marked lines.
#include <cooperative_groups.h>
#include <cuda_runtime.h>

#include <cassert>
#include <vector>

#include "cases.h"

namespace cgsv::cuda {
extern __shared__ __align__(16) unsigned char dynamic_shared[];
}

namespace cases {
namespace {

constexpr unsigned all = 0xffffffffu;

// ---------------------------------------------------------------------------------------- races

// A tile loaded by all and read by all: one __syncthreads() short.
__global__ void removed_barrier_kernel(const int* x, int* out) {
  __shared__ int tile[64];
  const int t = int(threadIdx.x);
  tile[t] = x[t];                                 // removed_barrier
  const int sum = tile[t] ^ tile[(t + 63) % 64];  // removed_barrier
  atomicXor(out, sum | t << 16);
}
bool removed_barrier() {
  int x[64], out = 0, expected = 0;
  for (int i = 0; i < 64; ++i) x[i] = i * i;
  for (int i = 0; i < 64; ++i) expected ^= (x[i] ^ x[(i + 63) % 64]) | i << 16;
  return launch(1, 64, 0, false, removed_barrier_kernel, x, &out) == cudaSuccess && out == expected;
}

// Thread 0 prepares the next round while others may still read: it writes what is there already, so
// no order of running shows it.
__global__ void write_after_read_kernel(int* out) {
  __shared__ int base;
  if (threadIdx.x == 0) base = 7;
  __syncthreads();
  const int mine = base + int(threadIdx.x);  // write_after_read
  if (threadIdx.x == 33) base = 7;           // write_after_read
  atomicAdd(out, mine);
}
bool write_after_read() {
  int out = 0;
  return launch(1, 64, 0, false, write_after_read_kernel, &out) == cudaSuccess &&
         out == 64 * 7 + 63 * 32;
}

// Threads that run one at a time between barriers lose no update; a GPU's do.
__global__ void lost_update_kernel(int* out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  count += 1;  // lost_update
  __syncthreads();
  if (threadIdx.x == 0) *out = count;
}
bool lost_update() {
  int out = 0;
  return launch(1, 64, 0, false, lost_update_kernel, &out) == cudaSuccess && out == 64;
}

__global__ void removed_syncwarp_kernel(int* out) {
  __shared__ int s[32];
  const int t = int(threadIdx.x);
  s[t] = t;                // removed_syncwarp
  const int v = s[t ^ 1];  // removed_syncwarp
  __syncwarp();
  atomicXor(out, v | t << 16);
}
bool removed_syncwarp() {
  int out = 0, expected = 0;
  for (int t = 0; t < 32; ++t) expected ^= (t ^ 1) | t << 16;
  return launch(1, 32, 0, false, removed_syncwarp_kernel, &out) == cudaSuccess && out == expected;
}

// A warp's barrier orders nothing for another warp.
__global__ void only_syncwarp_kernel(int* out) {
  __shared__ int s[64];
  const int t = int(threadIdx.x);
  s[t] = t;  // only_syncwarp
  __syncwarp();
  out[t] = s[t ^ 32];  // only_syncwarp
}
bool only_syncwarp() {
  int out[64];
  if (launch(1, 64, 0, false, only_syncwarp_kernel, out) != cudaSuccess) return false;
  for (int t = 0; t < 64; ++t) {
    if (out[t] != (t ^ 32)) return false;
  }
  return true;
}

// The writer's own read came last, and that of its lane neighbours: another warp's counts as well.
__global__ void hidden_reader_kernel(int* out) {
  __shared__ int s;
  if (threadIdx.x == 0) s = 1;
  __syncthreads();
  const int mine = s;  // hidden_reader
  __syncwarp();
  if (threadIdx.x == 5) s = mine;  // hidden_reader
  atomicAdd(out, mine);
}
bool hidden_reader() {
  int out = 0;
  return launch(1, 64, 0, false, hidden_reader_kernel, &out) == cudaSuccess && out == 64;
}

// Each thread writes a byte of its own and reads the word that its neighbours' are in.
__global__ void bytes_and_words_kernel(unsigned char* bytes, int* out) {
  const int t = int(threadIdx.x);
  bytes[t] = (unsigned char)(t);  // bytes_and_words
  const unsigned word =
      __ldcg(reinterpret_cast<const unsigned*>(bytes) + t / 4);  // bytes_and_words
  out[t] = int(word >> t % 4 * 8 & 0xff);
}
bool bytes_and_words() {
  alignas(4) unsigned char bytes[64] = {};
  int out[64];
  return launch(1, 64, 0, false, bytes_and_words_kernel, bytes, out) == cudaSuccess && out[9] == 9;
}

// Half a warp meets; the other half's writes are not known to it.
__global__ void half_syncwarp_kernel(int* out) {
  __shared__ int s[32];
  const int t = int(threadIdx.x);
  s[t] = t;  // half_syncwarp
  __syncwarp(t < 16 ? 0x0000ffffu : 0xffff0000u);
  out[t] = s[t ^ 1] + s[t ^ 16];  // half_syncwarp
}
bool half_syncwarp() {
  int out[32];
  if (launch(1, 32, 0, false, half_syncwarp_kernel, out) != cudaSuccess) return false;
  for (int t = 0; t < 32; ++t) {
    if (out[t] != (t ^ 1) + (t ^ 16)) return false;
  }
  return true;
}

__global__ void atomic_and_plain_kernel(int* out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);                  // atomic_and_plain
  if (threadIdx.x == 63) count += *out;  // atomic_and_plain
  __syncthreads();
  if (threadIdx.x == 0) *out = count;
}
bool atomic_and_plain() {
  int out = 0;
  return launch(1, 64, 0, false, atomic_and_plain_kernel, &out) == cudaSuccess && out == 64;
}

// The blocks' parts overlap by one element.
__global__ void overlapping_blocks_kernel(int* out, int n) {
  const int begin = int(blockIdx.x) * n;
  for (int i = int(threadIdx.x); i <= n; i += int(blockDim.x))
    out[begin + i] = 1;  // overlapping_blocks
}
bool overlapping_blocks() {
  std::vector<int> out(4 * 40 + 1);
  return launch(4, 32, 0, false, overlapping_blocks_kernel, out.data(), 40) == cudaSuccess;
}

__global__ void removed_grid_sync_kernel(const int* x, int* y, int* out) {
  const int t = int(blockIdx.x * blockDim.x + threadIdx.x), n = int(gridDim.x * blockDim.x);
  y[t] = x[t];  // removed_grid_sync
  cooperative_groups::this_thread_block().sync();
  out[t] = y[(t + 32) % n];  // removed_grid_sync
}
bool removed_grid_sync() {
  int x[96], y[96] = {}, out[96];
  for (int i = 0; i < 96; ++i) x[i] = i + 1;
  if (launch(3, 32, 0, true, removed_grid_sync_kernel, x, y, out) != cudaSuccess) return false;
  for (int i = 0; i < 96; ++i) {
    if (out[i] != (i + 32) % 96 + 1) return false;
  }
  return true;
}

__global__ void last_block_without_fence_kernel(int* parts, int* out, unsigned* ticket) {
  if (threadIdx.x != 0) return;
  parts[blockIdx.x] = int(blockIdx.x);  // last_block_without_fence
  if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
  int total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += parts[b];  // last_block_without_fence
  *out = total;
}
// A fence by one thread, before the barrier that the others' writes precede.
__global__ void last_block_with_early_fence_kernel(int* copy, int* out, unsigned* ticket) {
  __shared__ bool last;
  const unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
  copy[t] = int(t);  // last_block_with_early_fence
  if (threadIdx.x == 0) __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  __syncthreads();
  if (last) atomicAdd(out, copy[(t + 64) % 256]);  // last_block_with_early_fence
}
bool last_block_without_fence() {
  int parts[10], out = 0;
  unsigned ticket = 0;
  return launch(10, 32, 0, false, last_block_without_fence_kernel, parts, &out, &ticket) ==
             cudaSuccess &&
         out == 45;
}
bool last_block_with_early_fence() {
  int copy[256], out = 0;
  unsigned ticket = 0;
  return launch(4, 64, 0, false, last_block_with_early_fence_kernel, copy, &out, &ticket) ==
         cudaSuccess;
}

// ---------------------------------------------------------------------------------------- bounds

__global__ void beyond_static_kernel(int n, int* out) {
  __shared__ int s[64];
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) s[i] = i;  // beyond_static
  __syncthreads();
  if (threadIdx.x == 0) *out = s[63];
}
bool beyond_static() {
  int out = 0;
  return launch(1, 32, 0, false, beyond_static_kernel, 65, &out) == cudaSuccess && out == 63;
}

__global__ void beyond_dynamic_kernel(int n, int* out) {
  int* s = reinterpret_cast<int*>(cgsv::cuda::dynamic_shared);
  for (int i = int(threadIdx.x); i < n; i += int(blockDim.x)) s[i] = i;  // beyond_dynamic
  __syncthreads();
  if (threadIdx.x == 0) *out = s[63];
}
bool beyond_dynamic() {
  int out = 0;
  return launch(1, 32, 256, false, beyond_dynamic_kernel, 65, &out) == cudaSuccess && out == 63;
}

__global__ void beyond_global_kernel(const float* x, int n, int* out) {
  float s = 0;
  for (int i = int(threadIdx.x); i <= n; i += int(blockDim.x)) s += x[i] != x[i];  // beyond_global
  atomicAdd(out, s < 0 ? 1 : 2);
}
bool beyond_global() {
  std::vector<float> x(100, 1.0f);
  int out = 0;
  return launch(1, 32, 0, false, beyond_global_kernel, x.data(), 100, &out) == cudaSuccess &&
         out == 64;
}

__global__ void misaligned_kernel(unsigned char* p) {
  atomicAdd(reinterpret_cast<unsigned long long*>(p + 4), 1ull);  // misaligned
}
bool misaligned() {
  alignas(8) unsigned char bytes[16] = {};
  return launch(1, 1, 0, false, misaligned_kernel, bytes) == cudaSuccess;
}

// Shared memory holds zeros only by luck.
__global__ void uninitialised_kernel(int* out) {
  __shared__ int count;
  atomicAdd(&count, 1);
  __syncthreads();
  if (threadIdx.x == 0) *out = count;
}
bool uninitialised() {
  int out = 0;
  return launch(1, 32, 0, false, uninitialised_kernel, &out) == cudaSuccess && out == 32;
}

__global__ void assertion_kernel(int limit) {
  assert(int(threadIdx.x) < limit);  // assertion
}
bool assertion() { return launch(2, 32, 0, false, assertion_kernel, 31) == cudaSuccess; }

// ---------------------------------------------------------------------------------------- barriers

__global__ void early_exit_kernel(int n) {
  if (int(threadIdx.x) >= n) return;
  __syncthreads();  // early_exit
}
bool early_exit() { return launch(1, 64, 0, false, early_exit_kernel, 40) == cudaSuccess; }

__global__ void divergent_barrier_kernel(int n) {
  if (int(threadIdx.x) < n) {
    __syncthreads();  // divergent_barrier
  } else {
    __syncthreads();  // divergent_barrier
  }
}
bool divergent_barrier() {
  return launch(1, 64, 0, false, divergent_barrier_kernel, 32) == cudaSuccess;
}

__global__ void deadlock_kernel() {
  if (threadIdx.x < 16) {
    __syncwarp();  // deadlock
  } else {
    __syncthreads();  // deadlock
  }
}
bool deadlock() { return launch(1, 32, 0, false, deadlock_kernel) == cudaSuccess; }

__global__ void early_exit_of_block_kernel() {
  if (blockIdx.x == 1) return;
  cooperative_groups::this_grid().sync();
}
bool early_exit_of_block() {
  return launch(3, 32, 0, true, early_exit_of_block_kernel) == cudaSuccess;
}

__global__ void not_cooperative_kernel() {
  cooperative_groups::this_grid().sync();  // not_cooperative
}
bool not_cooperative() { return launch(2, 32, 0, false, not_cooperative_kernel) == cudaSuccess; }

// ---------------------------------------------------------------------------------------- masks

__global__ void mask_lacks_caller_kernel() {
  __syncwarp(0xfffffffeu);  // mask_lacks_caller
}
bool mask_lacks_caller() {
  return launch(1, 32, 0, false, mask_lacks_caller_kernel) == cudaSuccess;
}

// The second warp has 16 lanes.
__global__ void mask_names_absent_kernel(int* out) {
  const int v = __shfl_xor_sync(all, int(threadIdx.x), 1);  // mask_names_absent
  atomicAdd(out, v);
}
bool mask_names_absent() {
  int out = 0;
  return launch(1, 48, 0, false, mask_names_absent_kernel, &out) == cudaSuccess;
}

__global__ void mask_names_exited_kernel() {
  if (threadIdx.x == 3) return;
  __syncwarp();  // mask_names_exited
}
bool mask_names_exited() {
  return launch(1, 32, 0, false, mask_names_exited_kernel) == cudaSuccess;
}

__global__ void masks_overlap_kernel() {
  if (threadIdx.x >= 24) return;
  if (threadIdx.x < 8) {
    __syncwarp(0x0000ffffu);  // masks_overlap
  } else {
    __syncwarp(0x00ffffffu);  // masks_overlap
  }
}
bool masks_overlap() { return launch(1, 32, 0, false, masks_overlap_kernel) == cudaSuccess; }

}  // namespace

const Planted planted[] = {
    {"removed_barrier", removed_barrier, "*", "*", "race: "},
    {"write_after_read", write_after_read, nullptr, nullptr, "race: "},
    {"lost_update", lost_update, nullptr, nullptr, "race: "},
    {"removed_syncwarp", removed_syncwarp, "*", "*", "race: "},
    {"only_syncwarp", only_syncwarp, "*", "*", "race: "},
    {"hidden_reader", hidden_reader, nullptr, nullptr, "race: "},
    {"half_syncwarp", half_syncwarp, "*", "*", "race: "},
    {"bytes_and_words", bytes_and_words, nullptr, nullptr, "race: "},
    {"atomic_and_plain", atomic_and_plain, nullptr, nullptr, "race: "},
    {"overlapping_blocks", overlapping_blocks, nullptr, nullptr, "race: writes 4 bytes of global"},
    {"removed_grid_sync", removed_grid_sync, "*", "*", "race: "},
    {"last_block_without_fence", last_block_without_fence, nullptr, nullptr, "race: reads"},
    {"last_block_with_early_fence", last_block_with_early_fence, nullptr, nullptr, "race: reads"},

    {"beyond_static", beyond_static, nullptr, "out of bounds", nullptr},
    {"beyond_dynamic", beyond_dynamic, "~behind its 256 bytes", "use-after-poison",
     "behind its 256"},
    {"beyond_global", beyond_global, nullptr, "heap-buffer-overflow", nullptr},
    {"misaligned", misaligned, "misaligned", "misaligned", "misaligned"},
    {"uninitialised", uninitialised, "*", "*", "*"},
    {"assertion", assertion, "Assertion", "Assertion", "Assertion"},

    {"early_exit", early_exit, "the kernel", "the kernel", "the kernel"},
    {"divergent_barrier", divergent_barrier, "while others wait at", "while others wait at",
     "while others wait at"},
    {"deadlock", deadlock, "deadlock", "deadlock", "deadlock"},
    {"early_exit_of_block", early_exit_of_block, "grid barrier", "grid barrier", "grid barrier"},
    {"not_cooperative", not_cooperative, "not cooperative", "not cooperative", "not cooperative"},

    {"mask_lacks_caller", mask_lacks_caller, "lacks its caller", "lacks its caller",
     "lacks its caller"},
    {"mask_names_absent", mask_names_absent, "not there", "not there", "not there"},
    {"mask_names_exited", mask_names_exited, "the kernel", "the kernel", "the kernel"},
    {"masks_overlap", masks_overlap, "0x", "0x", "0x"},
};
const int planted_count = int(sizeof(planted) / sizeof(planted[0]));

}  // namespace cases
