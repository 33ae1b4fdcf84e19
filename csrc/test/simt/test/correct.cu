// Correct kernels, one for each thing that kernels do.
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cassert>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "cases.h"

namespace cgsv::cuda {
extern __shared__ __align__(16) unsigned char dynamic_shared[];
}
using cgsv::cuda::dynamic_shared;

namespace cases {
namespace {

constexpr unsigned all = 0xffffffffu;
using Ints = std::vector<int>;

// ---------------------------------------------------------------------------------------- blocks

template <int kThreads>
__global__ void __launch_bounds__(kThreads) sum_kernel(const float* x, int n, float* out) {
  __shared__ float part[kThreads / 32];
  float s = 0;
  for (int i = int(blockIdx.x) * kThreads + int(threadIdx.x); i < n;
       i += int(gridDim.x) * kThreads) {
    s += __ldcg(x + i);
  }
#pragma unroll
  for (int d = 16; d > 0; d >>= 1) s += __shfl_xor_sync(all, s, d);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x != 0) return;
  float total = 0;
  for (float p : part) total += p;
  atomicAdd(out, total);
}

bool sum() {
  std::vector<float> x(5000);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i % 7);
  float expected = 0, out = 0;
  for (float v : x) expected += v;
  return launch(5, 128, 0, false, sum_kernel<128>, x.data(), 5000, &out) == cudaSuccess &&
         out == expected;
}

// A loop that reuses its shared memory needs both barriers.
__global__ void reverse_kernel(int* x, int rounds) {
  int* s = reinterpret_cast<int*>(dynamic_shared);
  const int t = int(threadIdx.x), n = int(blockDim.x);
  for (int r = 0; r < rounds; ++r) {
    s[t] = x[t] + 1;
    __syncthreads();
    x[t] = s[n - 1 - t];
    __syncthreads();
  }
}

bool reverse() {
  Ints x(200);
  for (int i = 0; i < 200; ++i) x[size_t(i)] = i;
  if (launch(1, 200, 800, false, reverse_kernel, x.data(), 3) != cudaSuccess) return false;
  for (int i = 0; i < 200; ++i) {
    if (x[size_t(i)] != 199 - i + 3) return false;
  }
  return true;
}

__global__ void votes_kernel(int* out) {
  const int t = int(threadIdx.x);
  const int count = __syncthreads_count(t % 3 == 0);
  const int any = __syncthreads_or(t == 50);
  const int every = __syncthreads_and(t < 99);
  out[t] = count * 100 + any * 10 + every;
}

bool votes() {
  Ints out(100);
  if (launch(1, 100, 0, false, votes_kernel, out.data()) != cudaSuccess) return false;
  for (int v : out) {
    if (v != 3410) return false;
  }
  return true;
}

__global__ void shape_kernel(int* out) {
  const unsigned in_block = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[b * blockDim.x * blockDim.y * blockDim.z + in_block] = int(threadIdx.z * 100 + blockIdx.y);
}

bool shape() {
  const dim3 grid(2, 3, 2), block(4, 5, 3);
  Ints out(12 * 60, -1);
  if (launch(grid, block, 0, false, shape_kernel, out.data()) != cudaSuccess) return false;
  for (int i = 0; i < 12 * 60; ++i) {
    if (out[size_t(i)] != i % 60 / 20 * 100 + i / 60 / 2 % 3) return false;
  }
  return true;
}

// ---------------------------------------------------------------------------------------- warps

__device__ bool shuffles_right(int lane) {
  bool ok = __shfl_sync(all, lane * 3, 5) == 15;
  ok &=
      __shfl_sync(all, unsigned(lane), lane + 1, 16) == unsigned(lane / 16 * 16 + (lane + 1) % 16);
  ok &= __shfl_up_sync(all, (long long)(lane) << 40, 3) == (long long)(lane < 3 ? lane : lane - 3)
                                                               << 40;
  ok &= __shfl_down_sync(all, float(lane), 2, 8) == float(lane % 8 < 6 ? lane + 2 : lane);
  ok &= __shfl_xor_sync(all, double(lane), 9) == double(lane ^ 9);
  return ok;
}

__device__ bool votes_right(int lane) {
  bool ok = __ballot_sync(all, lane % 5 == 0) == 0x42108421u;
  ok &= __any_sync(all, lane == 31) == 1;
  ok &= __all_sync(all, lane < 31) == 0;
  ok &= __match_any_sync(all, lane / 8) == 0xffu << (lane / 8 * 8);
  return ok;
}

// Halves of a warp go different ways and meet again.
__device__ bool partial_right(int lane) {
  bool ok = true;
  if (lane < 16) {
    ok &= __ballot_sync(0x0000ffffu, lane & 1) == 0xaaaau;
    ok &= __shfl_sync(0x0000ffffu, lane, 3) == 3;
  } else {
    ok &= __ballot_sync(0xffff0000u, lane & 1) == 0xaaaa0000u;
  }
  __syncwarp();
  return ok;
}

__global__ void warps_kernel(int* wrong) {
  const int lane = int(threadIdx.x) % 32;
  if (!shuffles_right(lane)) atomicAdd(wrong, 1);
  if (!votes_right(lane)) atomicAdd(wrong, 1);
  if (!partial_right(lane)) atomicAdd(wrong, 1);
}

bool warps() {
  int wrong = 0;
  return launch(2, 96, 0, false, warps_kernel, &wrong) == cudaSuccess && wrong == 0;
}

// Shared memory ordered by __syncwarp alone; the last warp has 16 lanes.
__global__ void warp_memory_kernel(int* out) {
  __shared__ int s[48];
  const int t = int(threadIdx.x), lane = t % 32, lanes = t < 32 ? 32 : 16;
  const unsigned mask = t < 32 ? all : 0xffffu;
  s[t] = t;
  __syncwarp(mask);
  const int v = s[t - lane + (lane + 1) % lanes];
  __syncwarp(mask);
  s[t] = v + 1;
  __syncwarp(mask);
  out[t] = s[t - lane + (lane + 1) % lanes];
}

bool warp_memory() {
  Ints out(48);
  if (launch(1, 48, 0, false, warp_memory_kernel, out.data()) != cudaSuccess) return false;
  for (int t = 0; t < 48; ++t) {
    const int first = t / 32 * 32, lanes = t < 32 ? 32 : 16;
    if (out[size_t(t)] != first + (t - first + 2) % lanes + 1) return false;
  }
  return true;
}

// What lane 0 wrote reaches the last lane from neighbour to neighbour.
__global__ void warp_chain_kernel(int* out) {
  __shared__ int s;
  const int lane = int(threadIdx.x);
  if (lane == 0) s = 7;
  for (int i = 0; i < 31; ++i) {
    if (lane == i || lane == i + 1) __syncwarp(3u << i);
  }
  if (lane == 31) *out = s;
}

bool warp_chain() {
  int out = 0;
  return launch(1, 32, 0, false, warp_chain_kernel, &out) == cudaSuccess && out == 7;
}

// ---------------------------------------------------------------------------------------- grids

__global__ void histogram_kernel(const unsigned char* x, int n, unsigned* table,
                                 unsigned long long* total, int* least) {
  __shared__ unsigned local[256];
  for (int i = int(threadIdx.x); i < 256; i += int(blockDim.x)) local[i] = 0;
  __syncthreads();
  const int step = int(gridDim.x * blockDim.x);
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += step) {
    atomicAdd(&local[x[i]], 1u);
    atomicAdd(total, 1ull << 33);
    atomicMin(least, -i);
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < 256; i += int(blockDim.x)) {
    if (local[i] != 0) atomicAdd(&table[i], local[i]);
  }
}

bool histogram() {
  std::vector<unsigned char> x(3000);
  std::vector<unsigned> expected(256), table(256);
  for (size_t i = 0; i < x.size(); ++i) ++expected[x[i] = (unsigned char)(i * i % 251)];
  unsigned long long total = 0;
  int least = 0;
  return launch(4, 96, 0, false, histogram_kernel, x.data(), 3000, table.data(), &total, &least) ==
             cudaSuccess &&
         table == expected && total == 3000ull << 33 && least == -2999;
}

__global__ void phases_kernel(int* x, int n, int rounds) {
  int* mine = reinterpret_cast<int*>(dynamic_shared);
  const int t = int(blockIdx.x * blockDim.x + threadIdx.x);
  mine[threadIdx.x] = t;
  for (int r = 0; r < rounds; ++r) {
    const int v = t < n ? __ldcg(&x[(t + 1) % n]) : 0;
    cooperative_groups::this_grid().sync();
    if (t < n) x[t] = v + 1;
    cooperative_groups::this_grid().sync();
  }
  if (t < n && mine[threadIdx.x] != t) x[t] = -1;
}

bool phases() {
  Ints x(300);
  for (int i = 0; i < 300; ++i) x[size_t(i)] = i;
  if (launch(5, 64, 256, true, phases_kernel, x.data(), 300, 3) != cudaSuccess) return false;
  for (int i = 0; i < 300; ++i) {
    if (x[size_t(i)] != (i + 3) % 300 + 3) return false;
  }
  return true;
}

// The last block to finish adds up what all have written.
__global__ void last_block_kernel(const int* x, int* parts, int* out, unsigned* ticket) {
  __shared__ bool last;
  __shared__ int s;
  if (threadIdx.x == 0) s = 0;
  __syncthreads();
  atomicAdd(&s, x[blockIdx.x * blockDim.x + threadIdx.x]);
  __syncthreads();
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = s;
    __threadfence();
    last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  if (threadIdx.x == 0) {
    __threadfence();
    int total = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) total += __ldcg(&parts[b]);
    *out = total;
    *ticket = 0;
  }
}

// The same where all threads write, then fence, then meet.
__global__ void last_block_all_kernel(const int* x, int* copy, int* out, unsigned* ticket) {
  __shared__ bool last;
  const unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
  copy[t] = x[t];
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  for (unsigned i = threadIdx.x; i < gridDim.x * blockDim.x; i += blockDim.x) {
    atomicAdd(out, __ldcg(&copy[i]));
  }
}

bool last_block() {
  Ints x(640), parts(20), copy(640);
  int expected = 0, out = -1, out_all = 0;
  for (int i = 0; i < 640; ++i) expected += x[size_t(i)] = i * i % 13;
  unsigned ticket = 0, ticket_all = 0;
  return launch(20, 32, 0, false, last_block_kernel, x.data(), parts.data(), &out, &ticket) ==
             cudaSuccess &&
         launch(10, 64, 0, false, last_block_all_kernel, x.data(), copy.data(), &out_all,
                &ticket_all) == cudaSuccess &&
         out == expected && out_all == expected && ticket == 0;
}

// ---------------------------------------------------------------------------------------- launches

struct Table {
  int64_t value[500];
};

__global__ void parameters_kernel(const __grid_constant__ Table table, int count, int64_t* out) {
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) out[i] = table.value[i];
}

bool parameters() {
  Table table;
  for (int i = 0; i < 500; ++i) table.value[i] = i * 1000003ll;
  int64_t out[500] = {};
  return launch(1, 64, 0, false, parameters_kernel, table, 500, out) == cudaSuccess &&
         std::memcmp(out, table.value, sizeof(out)) == 0;
}

__global__ void large_kernel(int* out) {
  for (unsigned i = threadIdx.x; i < 100000; i += blockDim.x)
    dynamic_shared[i] = (unsigned char)(i);
  __syncthreads();
  out[threadIdx.x] = dynamic_shared[99999 - threadIdx.x];
}

bool opt_in() {
  Ints out(64);
  if (launch(1, 64, 100000, false, large_kernel, out.data()) != cudaErrorInvalidValue) return false;
  if (cudaGetLastError() != cudaErrorInvalidValue || cudaGetLastError() != cudaSuccess)
    return false;
  if (cudaFuncSetAttribute(large_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 300000) !=
      cudaErrorInvalidValue) {
    return false;
  }
  cudaGetLastError();
  if (cudaFuncSetAttribute(large_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 100000) !=
      cudaSuccess) {
    return false;
  }
  if (launch(1, 64, 100000, false, large_kernel, out.data()) != cudaSuccess) return false;
  int blocks = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, large_kernel, 64, 100000);
  cudaFuncSetAttribute(large_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 0);
  for (int i = 0; i < 64; ++i) {
    if (out[size_t(i)] != (99999 - i) % 256) return false;
  }
  return blocks == 2;
}

bool refused() {
  int x = 0, blocks = 0, multiprocessors = 0;
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, phases_kernel, 512, 2048);
  const unsigned most = unsigned(blocks * multiprocessors);
  const bool fits = launch(most, 512, 2048, true, phases_kernel, &x, 0, 1) == cudaSuccess;
  const bool larger = launch(most + 1, 512, 2048, true, phases_kernel, &x, 0, 1) ==
                      cudaErrorCooperativeLaunchTooLarge;
  const bool wide =
      launch(1, 1025, 8192, false, phases_kernel, &x, 0, 0) == cudaErrorInvalidConfiguration;
  const bool empty =
      launch(0, 32, 128, false, phases_kernel, &x, 0, 0) == cudaErrorInvalidConfiguration;
  cudaGetLastError();
  return fits && larger && wide && empty;
}

bool from_many_threads() {
  bool right[4] = {};
  std::vector<std::thread> threads;
  for (bool& r : right) threads.emplace_back([&r] { r = sum() && reverse() && phases(); });
  for (std::thread& t : threads) t.join();
  return right[0] && right[1] && right[2] && right[3];
}

// ---------------------------------------------------------------------------------------- values

__global__ void vectors_kernel(const uint4* in, uint4* out, const float4* f, float* sums, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  const uint4 v = __ldcs(in + i);
  __stcs(out + i, make_uint4(v.w, v.z, v.y, v.x));
  const float4 q = __ldg(f + i);
  __stcg(sums + i, q.x + q.y + q.z + q.w);
}

bool vectors() {
  alignas(16) unsigned in[400], out[400];
  alignas(16) float f[400], sums[100];
  for (unsigned i = 0; i < 400; ++i) in[i] = i, f[i] = float(i);
  const cudaError_t error =
      launch(2, 64, 0, false, vectors_kernel, reinterpret_cast<uint4*>(in),
             reinterpret_cast<uint4*>(out), reinterpret_cast<float4*>(f), sums, 100);
  for (unsigned i = 0; i < 400; ++i) {
    if (out[i] != i / 4 * 4 + 3 - i % 4) return false;
    if (sums[i / 4] != float(i / 4 * 16 + 6)) return false;
  }
  return error == cudaSuccess;
}

// Neighbours write neighbouring bytes and halves: no race.
__global__ void narrow_kernel(const float* x, __half* h, __nv_bfloat16* b, unsigned char* c) {
  const int t = int(threadIdx.x);
  h[t] = __float2half_rn(x[t]);
  b[t] = __double2bfloat16(double(x[t]));
  c[t] = (unsigned char)(t);
  __syncthreads();
  const int u = (t + 1) % int(blockDim.x);
  assert(__half2float(h[u]) == x[u] && __bfloat162float(b[u]) == x[u] && c[u] == u);
}

bool narrow() {
  float x[64];
  for (int i = 0; i < 64; ++i) x[i] = float(i) - 8;
  __half h[64];
  __nv_bfloat16 b[64];
  unsigned char c[64];
  return launch(1, 64, 0, false, narrow_kernel, x, h, b, c) == cudaSuccess && c[63] == 63;
}

__global__ void arithmetic_kernel(int* wrong) {
  const auto want = [=](bool right) {
    if (!right) atomicAdd(wrong, 1);
  };
  want(__popc(0xf0f0u) == 8 && __popcll(~0ull) == 64);
  want(__ffs(0) == 0 && __ffs(8) == 4 && __ffsll(1ll << 40) == 41);
  want(__clz(0) == 32 && __clz(1) == 31 && __clz(-1) == 0 && __clzll(0) == 64 && __clzll(1) == 63);
  want(__brev(1u) == 0x80000000u);
  want(__float_as_uint(1.0f) == 0x3f800000u && __uint_as_float(0x40000000u) == 2);
  want(__double_as_longlong(__longlong_as_double(77)) == 77);
  want(__fmul_rn(3, 4) == 12 && __fadd_rn(1, 2) == 3 && __dmul_rn(3, 4) == 12 &&
       __dadd_rn(1, 2) == 3);
  want(fmaf(3, 4, 5) == 17 && fma(3.0, 4.0, 5.0) == 17);
  want(isfinite(1.0f) && !isfinite(1 / 0.0) && isnan(nanf("")));
  want(min(3, -2) == -2 && max(3u, 7u) == 7 && min(2.5, 1.5f) == 1.5 && max(1ll, 2ll) == 2);
  want(tanh(0.0) == 0 && fabsf(tanhf(1.0f) - 0.7615942f) < 1e-6f);
  want(__float2int_rn(2.5f) == 2 && __float2int_rz(-2.5f) == -2 && __float2uint_rz(-1.0f) == 0);
  want(__umulhi(0x80000000u, 4) == 2 && __umul64hi(1ull << 63, 4) == 2);
}

__global__ void atomics_kernel(int* wrong, unsigned* u, unsigned long long* w) {
  const auto want = [=](bool right) {
    if (!right) atomicAdd(wrong, 1);
  };
  want(atomicCAS(u, 5u, 9u) == 5 && atomicExch(u, 6u) == 9 && atomicSub(u, 2u) == 6);
  want(atomicOr(u, 3u) == 4 && atomicAnd(u, 5u) == 7 && atomicXor(u, 1u) == 5 &&
       atomicInc(u, 4u) == 4);
  want(atomicMax(w, 1ull << 40) == 3 && atomicCAS(w, 1ull << 40, 8ull) == 1ull << 40);
  want(atomicMin(w, 2ull) == 8 && atomicExch(w, 1ull) == 2);
}

bool values() {
  int wrong = 0;
  unsigned u = 5;
  unsigned long long w = 3;
  return launch(1, 1, 0, false, arithmetic_kernel, &wrong) == cudaSuccess &&
         launch(1, 1, 0, false, atomics_kernel, &wrong, &u, &w) == cudaSuccess && wrong == 0 &&
         u == 0 && w == 1;
}

bool memory() {
  int* a = nullptr;
  int b[64] = {};
  if (cudaMalloc(&a, sizeof(b)) != cudaSuccess || reinterpret_cast<size_t>(a) % 256 != 0)
    return false;
  cudaMemsetAsync(a, 1, sizeof(b), nullptr);
  cudaMemcpyAsync(b, a, sizeof(b), cudaMemcpyDeviceToHost, nullptr);
  cudaStreamSynchronize(nullptr);
  cudaFree(a);
  return b[63] == 0x01010101;
}

}  // namespace

const Correct correct[] = {
    {"sum", sum},
    {"reverse", reverse},
    {"votes", votes},
    {"shape", shape},
    {"warps", warps},
    {"warp_memory", warp_memory},
    {"warp_chain", warp_chain},
    {"histogram", histogram},
    {"phases", phases},
    {"last_block", last_block},
    {"parameters", parameters},
    {"opt_in", opt_in},
    {"refused", refused},
    {"from_many_threads", from_many_threads},
    {"vectors", vectors},
    {"narrow", narrow},
    {"values", values},
    {"memory", memory},
};
const int correct_count = int(sizeof(correct) / sizeof(correct[0]));

}  // namespace cases
