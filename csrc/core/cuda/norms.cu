// Step 1: the length of every update.
//
// Reads N·D elements, writes N · (some thousands of) partial sums.
#include "norms.cuh"

namespace cgsv::cuda {
namespace {

constexpr int threads = 256;

// Σ x² of 16 bytes: in float32 where that is exact enough, that is within [1e-30, 1e30].
template <class T>
__device__ double sum_squares(const Pack<T>& x) {
  if constexpr (!std::is_same_v<T, double>) {
    float sum = 0;
#pragma unroll
    for (int k = 0; k < Pack<T>::columns; ++k) sum = fmaf(x[k], x[k], sum);
    if (sum >= 1e-30f && sum <= 1e30f) return double(sum);
  }
  double sum = 0;
#pragma unroll
  for (int k = 0; k < Pack<T>::columns; ++k) {
    const double v = double(x[k]);
    sum = fma(v, v, sum);
  }
  return sum;
}

// One block a chunk of one row, chunk by chunk so that neighbours in time are neighbours in memory
// across all rows: what comes last is in the cache when the aggregation, backwards, comes first.
template <class T>
__global__ void __launch_bounds__(threads)
    sum_squares_kernel(RowView<const std::byte> updates, NormChunks chunks, double* partial) {
  const int64_t c = blockIdx.x / updates.n, i = blockIdx.x % updates.n;
  const T* row = updates.row<T>(i);
  const int64_t end = min(updates.d, (c + 1) * chunks.columns);
  constexpr int columns = Pack<T>::columns, step = threads * columns;

  double sum = 0;
  int64_t j = c * chunks.columns + int64_t(threadIdx.x) * columns;
  for (; j + 3 * step + columns <= end; j += 4 * step) {
    Pack<T> x[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) x[k] = load_pack(row + j + k * step, updates.alignment, columns);
#pragma unroll
    for (int k = 0; k < 4; ++k) sum += sum_squares(x[k]);
  }
  for (; j < end; j += step) {
    sum += sum_squares(load_pack(row + j, updates.alignment, int(min(end - j, int64_t(columns)))));
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[i * chunks.count + c] = sum;
}

__global__ void __launch_bounds__(threads)
    finish_norms_kernel(const double* partial, int64_t count, double* norms) {
  const double norm = norm_of(partial + blockIdx.x * count, count);
  if (threadIdx.x == 0) norms[blockIdx.x] = norm;
}

}  // namespace

cudaError_t sum_squares(const RowView<const std::byte>& updates, DType dtype, double* partial,
                        const Stream& stream) {
  const NormChunks chunks(updates.n, updates.d);
  return with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return launch(stream, {chunks.count * updates.n, threads}, sum_squares_kernel<T>, updates,
                  chunks, partial);
  });
}

cudaError_t norms(const Rows& updates, double* norms, const Stream& stream) {
  const NormChunks chunks(updates.n, updates.d);
  int64_t* table;
  double* partial;
  Scratch scratch;
  scratch.reserve(&table, table_size(updates));
  scratch.reserve(&partial, updates.n * chunks.count);
  CGSV_TRY(scratch.allocate(stream));

  RowView<const std::byte> rows;
  CGSV_TRY(view(updates, table, stream, &rows));
  CGSV_TRY(sum_squares(rows, updates.dtype, partial, stream));
  return launch(stream, {updates.n, threads}, finish_norms_kernel, partial, chunks.count, norms);
}

}  // namespace cgsv::cuda
