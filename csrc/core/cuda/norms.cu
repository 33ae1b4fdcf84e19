// Step 1: the length of every update.
//
// Reads N·D elements, writes N · (1920 at most) partial sums.
#include "norms.cuh"

namespace cgsv::cuda {
namespace {

// What comes last is in the cache when the aggregation, backwards, comes first.
template <class T>
__global__ void __launch_bounds__(norm_threads)
    sum_squares_kernel(RowView<const std::byte> updates, NormChunks chunks, double* partial) {
  sum_chunk<T>(updates, chunks, partial,
               [](const Pack<T>& x, int64_t, int) { return sum_squares(x); });
}

__global__ void __launch_bounds__(norm_threads)
    finish_sums_kernel(const double* partial, int64_t count, bool root, double* sums) {
  const double sum = sum_of(partial + blockIdx.x * count, count);
  if (threadIdx.x == 0) sums[blockIdx.x] = root ? sqrt(sum) : sum;
}

cudaError_t measure(const Rows& updates, bool root, double* norms, const Stream& stream) {
  const NormChunks chunks(updates.d);
  int64_t* table;
  double* partial;
  Scratch scratch;
  scratch.reserve(&table, table_size(updates));
  scratch.reserve(&partial, updates.n * chunks.count);
  CGSV_TRY(scratch.allocate(stream));

  RowView<const std::byte> rows;
  CGSV_TRY(view(updates, table, stream, &rows));
  CGSV_TRY(sum_squares(rows, updates.dtype, partial, stream));
  return finish_sums(partial, updates.n, chunks.count, root, norms, stream);
}

}  // namespace

cudaError_t sum_squares(const RowView<const std::byte>& updates, DType dtype, double* partial,
                        const Stream& stream) {
  const NormChunks chunks(updates.d);
  return with_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return launch(stream, {chunks.count * updates.n, norm_threads}, sum_squares_kernel<T>, updates,
                  chunks, partial);
  });
}

cudaError_t finish_sums(const double* partial, int64_t n, int64_t count, bool root, double* sums,
                        const Stream& stream) {
  return launch(stream, {n, norm_threads}, finish_sums_kernel, partial, count, root, sums);
}

cudaError_t norms(const Rows& updates, double* norms, const Stream& stream) {
  return measure(updates, true, norms, stream);
}

cudaError_t partial_norms(const Rows& updates, double* squares, const Stream& stream) {
  return measure(updates, false, squares, stream);
}

}  // namespace cgsv::cuda
