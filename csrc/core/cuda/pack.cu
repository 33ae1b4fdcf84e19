// The parts of an update become one row, and its norm comes along.
//
// Reads D elements of the parts, writes D of the row: a block a chunk of `norms`, each thread with the
// 16-byte packs that are its own there, so that their squares are added in the same order.
#include "norms.cuh"

namespace cgsv::cuda {
namespace {

// Parts on the device: where each begins in the row, its memory and its dtype.
struct PartTable {
  Parts parts;
  const int64_t* data;
  const int64_t* dtypes;
};

// To nearest even, rounded once.
template <class T, class S>
__device__ inline T rounded(S x) {
  if constexpr (std::is_same_v<S, T>) {
    return x;
  } else if constexpr (std::is_same_v<S, double> && std::is_same_v<T, __half>) {
    return __double2half(x);
  } else if constexpr (std::is_same_v<S, double> && std::is_same_v<T, __nv_bfloat16>) {
    return __double2bfloat16(x);
  } else {
    return narrow<T>(widen(x));
  }
}

// f(source) with the part's elements as what they are.
template <class F>
__device__ inline void with_source(const PartTable& table, int64_t p, const F& f) {
  const auto address = uintptr_t(table.data[p]);
  switch (DType(table.dtypes[p])) {
    case DType::f64:
      return f(reinterpret_cast<const double*>(address));
    case DType::f32:
      return f(reinterpret_cast<const float*>(address));
    case DType::bf16:
      return f(reinterpret_cast<const __nv_bfloat16*>(address));
    default:
      return f(reinterpret_cast<const __half*>(address));
  }
}

// As many elements as fill a pack of T, rounded to T.
template <class T, class S>
__device__ inline Pack<T> gather(const S* from) {
  constexpr int columns = Pack<T>::columns, at_once = Pack<S>::columns;
  S elements[columns];
  if constexpr (at_once <= columns) {
    const int alignment = uintptr_t(from) % 16 == 0 ? 16 : uintptr_t(from) % 8 == 0 ? 8 : 1;
#pragma unroll
    for (int k = 0; k < columns; k += at_once) {
      const Pack<S> part = load_pack(from + k, alignment, at_once);
      memcpy(elements + k, &part, 16);
    }
  } else {
#pragma unroll
    for (int k = 0; k < columns; ++k) elements[k] = from[k];
  }
  T values[columns];
#pragma unroll
  for (int k = 0; k < columns; ++k) values[k] = rounded<T>(elements[k]);
  Pack<T> pack;
  memcpy(&pack, values, 16);
  return pack;
}

template <class T>
__global__ void __launch_bounds__(norm_threads)
    pack_kernel(PartTable table, T* row, int alignment, NormChunks chunks, double* partial) {
  constexpr int columns = Pack<T>::columns, step = norm_threads * columns;
  const int64_t first = blockIdx.x * chunks.columns,
                end = min(table.parts.d, first + chunks.columns);
  double sum = 0;
  int64_t p = 0, begin = 0, past = 0;  // the part at hand
  const auto go_to = [&](int64_t j) {
    if (j < past) return;
    p = table.parts.of(j);
    begin = table.parts.begin(p);
    past = table.parts.end(p);
  };
  for (int64_t j = first + int64_t(threadIdx.x) * columns; j < end; j += step) {
    const int count = int(min(end - j, int64_t(columns)));
    Pack<T> pack;
    go_to(j);
    if (count == columns && j + columns <= past) {
      with_source(table, p, [&](auto* source) { pack = gather<T>(source + (j - begin)); });
      store_pack(row + j, alignment, pack);
    } else {
#pragma unroll 1
      for (int64_t k = j; k < j + count; ++k) {
        go_to(k);
        with_source(table, p, [&](auto* source) { row[k] = rounded<T>(source[k - begin]); });
      }
      pack = load_pack(row + j, alignment, count);
    }
    sum += sum_squares(pack);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

}  // namespace

cudaError_t pack_row(const PartList& list, const MutableRows& row, double* norm,
                     const Stream& stream) {
  const int64_t count = list.count;
  const NormChunks chunks(row.d);
  int64_t* starts;
  double* partial;
  Scratch scratch;
  scratch.reserve(&starts, 3 * count + 1);
  scratch.reserve(&partial, chunks.count);
  CGSV_TRY(scratch.allocate(stream));

  int64_t start = 0;
  CGSV_TRY(upload(3 * count + 1, starts, stream, [&](int64_t i) {
    if (i > 2 * count) return int64_t(list.parts[i - 2 * count - 1].dtype);
    if (i > count) return int64_t(reinterpret_cast<uintptr_t>(list.parts[i - count - 1].data));
    const int64_t begin = start;
    if (i < count) start += list.parts[i].size;
    return begin;
  }));
  const int64_t* data = starts + count + 1;
  const PartTable table = {{count, starts, row.d}, data, data + count};
  CGSV_TRY(with_type(row.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    T* to = reinterpret_cast<T*>(row.row(0));
    return launch(stream, {chunks.count, norm_threads}, pack_kernel<T>, table, to, alignment_of(to),
                  chunks, partial);
  }));
  return finish_sums(partial, 1, chunks.count, true, norm, stream);
}

}  // namespace cgsv::cuda
