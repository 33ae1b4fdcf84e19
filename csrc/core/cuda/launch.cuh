// Launches, scratch memory and tables: what every step needs of the CUDA runtime.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "../cgsv_cuda.h"

// Leaves the function with the first error.
#define CGSV_TRY(call)                                            \
  do {                                                            \
    if (const cudaError_t error = (call); error != cudaSuccess) { \
      return error;                                               \
    }                                                             \
  } while (false)

namespace cgsv::cuda {

// All kernels declare their dynamic shared memory as this.
extern __shared__ __align__(16) unsigned char dynamic_shared[];

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// A limit of the work's division; a small one in tests, so that small inputs pass it, too.
constexpr int64_t limit([[maybe_unused]] int64_t usual, [[maybe_unused]] int64_t small) {
#ifdef CGSV_SMALL_LIMITS
  return small;
#else
  return usual;
#endif
}

// More than this much dynamic shared memory a kernel must ask for, with 1 KB left for its static part.
constexpr int64_t default_shared = 47 << 10;
// What is asked for then: always the same, since another thread of the host may launch the kernel.
constexpr int64_t most_shared = 60 << 10;

template <class Kernel>
cudaError_t allow_shared(Kernel* kernel, int64_t shared) {
  if (shared <= default_shared) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              int(most_shared));
}

struct Shape {
  int64_t blocks;
  int threads;
  int64_t shared = 0;
  int64_t rows = 1;          // of blocks
  bool cooperative = false;  // all blocks run at once and may wait for each other
};

template <class... P, class... A>
cudaError_t launch(const Stream& stream, const Shape& shape, void (*kernel)(P...),
                   const A&... arguments) {
  if (shape.blocks > INT32_MAX || shape.rows > UINT16_MAX) return cudaErrorInvalidConfiguration;
  CGSV_TRY(allow_shared(kernel, shape.shared));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(shape.blocks), unsigned(shape.rows));
  config.blockDim = dim3(unsigned(shape.threads));
  config.dynamicSmemBytes = size_t(shape.shared);
  config.stream = stream.handle;
  config.attrs = &attribute;
  config.numAttrs = shape.cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
}

inline cudaError_t multiprocessors(int* count) {
  int device;
  CGSV_TRY(cudaGetDevice(&device));
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

// How many blocks of a kernel the device holds at once.
template <class Kernel>
cudaError_t resident_blocks(Kernel* kernel, int threads, int64_t shared, int64_t* blocks) {
  int count, each;
  CGSV_TRY(multiprocessors(&count));
  CGSV_TRY(allow_shared(kernel, shared));
  CGSV_TRY(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, size_t(shared)));
  *blocks = std::max<int64_t>(1, int64_t(count) * each);
  return cudaSuccess;
}

// The arrays a call keeps for itself, in one allocation: reserve each, then allocate.
class Scratch {
 public:
  template <class T>
  void reserve(T** array, int64_t count) {
    *array = nullptr;
    pieces_[count_++] = {array, size_, [](void* target, std::byte* base) {
                           *static_cast<T**>(target) = reinterpret_cast<T*>(base);
                         }};
    size_ += round_up(count * int64_t(sizeof(T)), 256);
  }
  int64_t size() const { return size_; }
  cudaError_t allocate(const Stream& stream) {
    if (size_ == 0) return cudaSuccess;
    auto* base = static_cast<std::byte*>(stream.allocate(size_, stream.context));
    if (base == nullptr) return cudaErrorMemoryAllocation;
    for (int i = 0; i < count_; ++i) pieces_[i].set(pieces_[i].array, base + pieces_[i].offset);
    return cudaSuccess;
  }

 private:
  struct Piece {
    void* array;
    int64_t offset;
    void (*set)(void* array, std::byte* at);
  };
  Piece pieces_[24];
  int count_ = 0;
  int64_t size_ = 0;
};

// The same stream, on which a call that allocates once finds its scratch in memory that the work enqueued so
// far is done with, if it fits there.
class Lent {
 public:
  Lent(void* memory, int64_t bytes, const Stream& stream)
      : memory_(memory), bytes_(bytes), lender_(stream) {}
  Stream stream() const {
    return {lender_.handle,
            [](int64_t bytes, void* context) -> void* {
              const auto& lent = *static_cast<const Lent*>(context);
              if (bytes <= lent.bytes_) return lent.memory_;
              return lent.lender_.allocate(bytes, lent.lender_.context);
            },
            const_cast<Lent*>(this)};
  }

 private:
  void* memory_;
  int64_t bytes_;
  Stream lender_;
};

// A table on its way to the device, by value in a kernel's arguments: unlike a copy from pageable
// memory, a CUDA graph can replay it after the host's memory is gone.
struct TablePart {
  static constexpr int most = 448;  // 3.5 KB of the 4 KB that arguments may take
  int64_t values[most];
};

template <class T>
__global__ void store_table(TablePart part, int count, T* table) {
  for (int i = int(threadIdx.x); i < count; i += int(blockDim.x)) table[i] = T(part.values[i]);
}

// value(i), an int64_t, for each i < count.
template <class F>
cudaError_t upload(int64_t count, int64_t* table, const Stream& stream, const F& value) {
  for (int64_t begin = 0; begin < count; begin += TablePart::most) {
    const int n = int(std::min<int64_t>(count - begin, TablePart::most));
    TablePart part = {};
    for (int i = 0; i < n; ++i) part.values[i] = value(begin + i);
    CGSV_TRY(launch(stream, {1, 128}, store_table<int64_t>, part, n, table + begin));
  }
  return cudaSuccess;
}

}  // namespace cgsv::cuda
