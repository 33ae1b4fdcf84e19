// The runtime API on one device whose memory is the host's and whose streams run at once.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "scheduler.h"
#include "shared.h"

namespace {

constexpr int threads_per_multiprocessor = 2048, blocks_per_multiprocessor = 32;
std::atomic<int> multiprocessors{3};
std::atomic<cudaError_t> last_error{cudaSuccess};
std::mutex guards_opted_in;
std::map<const void*, int> opted_in;  // dynamic shared memory a kernel may have

cudaError_t set(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

size_t most_dynamic_shared(const void* kernel) {
  const std::lock_guard<std::mutex> lock(guards_opted_in);
  const auto found = opted_in.find(kernel);
  return std::max(simt::shared_per_block, found == opted_in.end() ? 0 : size_t(found->second));
}

int active_blocks(long long threads, size_t dynamic_shared) {
  const long long warps = (threads + simt::warp_size - 1) / simt::warp_size;
  const long long by_threads = threads_per_multiprocessor / (warps * simt::warp_size);
  const long long by_shared =
      simt::shared_per_multiprocessor / (dynamic_shared + simt::shared_reserved);
  return int(std::min({by_threads, by_shared, (long long)(blocks_per_multiprocessor)}));
}

cudaError_t check(const simt::Launch& launch) {
  const dim3 &g = launch.grid, &b = launch.block;
  const unsigned long long threads = 1ull * b.x * b.y * b.z, blocks = 1ull * g.x * g.y * g.z;
  if (threads == 0 || threads > simt::most_threads || b.x > 1024 || b.y > 1024 || b.z > 64 ||
      blocks == 0 || g.x > 0x7fffffff || g.y > 0xffff || g.z > 0xffff) {
    return cudaErrorInvalidConfiguration;
  }
  if (blocks > 0xffffffff) return cudaErrorNotSupported;
  if (launch.dynamic_shared > most_dynamic_shared(launch.kernel)) return cudaErrorInvalidValue;
  if (launch.cooperative &&
      blocks >
          1ull * multiprocessors * active_blocks((long long)(threads), launch.dynamic_shared)) {
    return cudaErrorCooperativeLaunchTooLarge;
  }
  return cudaSuccess;
}

}  // namespace

namespace simt {

void set_multiprocessors(int count) { multiprocessors = count; }

cudaError_t launch(const Launch& launch) {
  const cudaError_t error = set(check(launch));
  if (error == cudaSuccess) run(launch);
  return error;
}

cudaError_t set_function_attribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;  // a hint
  if (value < 0 || size_t(value) > shared_opt_in) return set(cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(guards_opted_in);
  opted_in[kernel] = value;
  return cudaSuccess;
}

cudaError_t function_attributes(cudaFuncAttributes* attributes, const void* kernel) {
  *attributes = {};
  attributes->maxThreadsPerBlock = most_threads;
  attributes->numRegs = 32;
  attributes->ptxVersion = attributes->binaryVersion = 90;
  attributes->maxDynamicSharedSizeBytes = int(most_dynamic_shared(kernel));
  return cudaSuccess;
}

cudaError_t max_active_blocks(int* blocks, const void* kernel, int block_size, size_t shared) {
  if (block_size < 1) return set(cudaErrorInvalidValue);
  const bool fits = block_size <= most_threads && shared <= most_dynamic_shared(kernel);
  *blocks = fits ? active_blocks(block_size, shared) : 0;
  return cudaSuccess;
}

}  // namespace simt

// ---------------------------------------------------------------------------------------- errors

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorCooperativeLaunchTooLarge:
      return "cudaErrorCooperativeLaunchTooLarge";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
    case cudaErrorUnknown:
      break;
  }
  return "cudaErrorUnknown";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return last_error.exchange(cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

// ---------------------------------------------------------------------------------------- device

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return set(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      return *value = simt::most_threads, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return *value = simt::shared_per_block, cudaSuccess;
    case cudaDevAttrWarpSize:
      return *value = simt::warp_size, cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      return *value = multiprocessors, cudaSuccess;
    case cudaDevAttrL2CacheSize:
      return *value = 4 << 20, cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return *value = threads_per_multiprocessor, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = 9, cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      return *value = 0, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return *value = simt::shared_per_multiprocessor, cudaSuccess;
    case cudaDevAttrCooperativeLaunch:
      return *value = 1, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = simt::shared_opt_in, cudaSuccess;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return *value = blocks_per_multiprocessor, cudaSuccess;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return *value = simt::shared_reserved, cudaSuccess;
  }
  return set(cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : set(cudaErrorInvalidDevice);
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

// ---------------------------------------------------------------------------------------- memory

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (posix_memalign(memory, 256, bytes) != 0) return set(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xff, bytes);  // a NaN; also -1
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) { return std::free(memory), cudaSuccess; }

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  return bytes != 0 ? (void)std::memcpy(to, from, bytes) : void(), cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return bytes != 0 ? (void)std::memset(to, value, bytes) : void(), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(to, value, bytes);
}
cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t) {
  return cudaMalloc(memory, bytes);
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t) { return cudaFree(memory); }

// ---------------------------------------------------------------------------------------- streams

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  static char streams[256];
  static std::atomic<unsigned> count{0};
  *stream = reinterpret_cast<cudaStream_t>(&streams[count++ % sizeof(streams)]);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
