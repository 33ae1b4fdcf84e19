// Products of rows with an aggregate that is there already.
//
// Reads N·D elements, and of the aggregate D a row, all but the first from the cache; writes
// N · (1920 at most) partial sums.
#include "dots.cuh"

#include "norms.cuh"

namespace cgsv::cuda {
namespace {

// As many entries of the aggregate as there are columns in 16 bytes of a row, zeros after the first
// `count`.
template <class T>
struct Factors {
  using A = Wide<T>;
  static constexpr int columns = Pack<T>::columns, each = Pack<A>::columns;
  A u[columns];

  __device__ Factors(const A* p, int alignment, int count) {
#pragma unroll
    for (int k = 0; k < columns; k += each) {
      const Pack<A> pack = load_pack(p + k, alignment, count - k);
#pragma unroll
      for (int l = 0; l < each; ++l) u[k + l] = pack[l];
    }
  }
};

// Rows that share a chunk of the aggregate are neighbours.
template <class T>
__global__ void __launch_bounds__(norm_threads)
    dots_kernel(RowView<const std::byte> updates, const Wide<T>* aggregate, int alignment,
                NormChunks chunks, double* partial) {
  sum_chunk<T>(updates, chunks, partial, [&](const Pack<T>& x, int64_t j, int count) {
    return dot<false>(x, Factors<T>(aggregate + j, alignment, count).u);
  });
}

}  // namespace

cudaError_t partial_dots(const Rows& updates, const Aggregate& aggregate, double* dots,
                         const Stream& stream) {
  const NormChunks chunks(updates.d);
  int64_t* table;
  double* partial;
  Scratch scratch;
  scratch.reserve(&table, table_size(updates));
  scratch.reserve(&partial, updates.n * chunks.count);
  CGSV_TRY(scratch.allocate(stream));

  RowView<const std::byte> rows;
  CGSV_TRY(view(updates, table, stream, &rows));
  CGSV_TRY(with_type(updates.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return launch(stream, {chunks.count * updates.n, norm_threads}, dots_kernel<T>, rows,
                  static_cast<const Wide<T>*>(aggregate.data), alignment_of(aggregate.data), chunks,
                  partial);
  }));
  return finish_sums(partial, updates.n, chunks.count, false, dots, stream);
}

}  // namespace cgsv::cuda
