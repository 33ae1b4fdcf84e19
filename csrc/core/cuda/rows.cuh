// What kernels see of the arguments: rows, vectors and segments.
#pragma once

#include "../key.h"
#include "elements.cuh"
#include "launch.cuh"

namespace cgsv::cuda {

// Rows on the device: a matrix, or a table of row pointers.
template <class Byte>
struct RowView {
  Byte* base;
  int64_t stride;  // bytes
  Byte* const* table;
  int64_t n, d;
  int alignment;  // of every row, in bytes; 16 at most

  template <class T>
  __device__ auto row(int64_t i) const {
    using Element = std::conditional_t<std::is_const_v<Byte>, const T, T>;
    return reinterpret_cast<Element*>(table ? table[i] : base + i * stride);
  }
};

// The greatest power of two up to 16 that divides an address, or those of all rows.
inline int alignment_of(uintptr_t bits) { return int((bits | 16) & (~(bits | 16) + 1)); }
inline int alignment_of(const void* p) { return alignment_of(reinterpret_cast<uintptr_t>(p)); }
template <class Byte>
int alignment_of(const RowsOf<Byte>& rows) {
  uintptr_t bits = 0;
  if (rows.pointers == nullptr) {
    bits |= reinterpret_cast<uintptr_t>(rows.base);
    if (rows.n > 1) bits |= uintptr_t(rows.row_stride * size_of(rows.dtype));
  } else {
    for (int64_t i = 0; i < rows.n; ++i) bits |= reinterpret_cast<uintptr_t>(rows.pointers[i]);
  }
  return alignment_of(bits);
}

// Makes rows visible to kernels. `table` holds rows.n pointers, and is needed for separate rows only.
template <class Byte>
cudaError_t view(const RowsOf<Byte>& rows, int64_t* table, const Stream& stream,
                 RowView<Byte>* view) {
  *view = {rows.base,         rows.row_stride * size_of(rows.dtype), nullptr, rows.n, rows.d,
           alignment_of(rows)};
  if (rows.pointers == nullptr) return cudaSuccess;
  view->table = reinterpret_cast<Byte* const*>(table);
  return upload(rows.n, table, stream,
                [&](int64_t i) { return reinterpret_cast<int64_t>(rows.pointers[i]); });
}
template <class Byte>
int64_t table_size(const RowsOf<Byte>& rows) {
  return rows.pointers ? rows.n : 0;
}

// That of cgsv.h, for kernels.
__device__ inline bool is_valid(double norm) { return norm > 0 && isfinite(norm); }

__device__ inline double value_at(const Values& values, int64_t i) {
  const int64_t at = i * values.stride;
  switch (values.dtype) {
    case DType::f64:
      return static_cast<const double*>(values.data)[at];
    case DType::f32:
      return double(static_cast<const float*>(values.data)[at]);
    case DType::bf16:
      return double(widen(static_cast<const __nv_bfloat16*>(values.data)[at]));
    default:
      return double(widen(static_cast<const __half*>(values.data)[at]));
  }
}
CGSV_HOST_DEVICE inline Values doubles(const double* data) { return {data, DType::f64, 1}; }

// Consecutive parts of the columns: segment l begins at starts[l]. Without a table the one segment is
// the whole vector.
struct Parts {
  int64_t count;
  const int64_t* starts;
  int64_t d;

  __device__ int64_t begin(int64_t l) const { return starts ? starts[l] : 0; }
  __device__ int64_t end(int64_t l) const { return starts ? starts[l + 1] : d; }
  __device__ int64_t size(int64_t l) const { return end(l) - begin(l); }
  // The segment that column j < d belongs to.
  __device__ int64_t of(int64_t j) const {
    if (starts == nullptr) return 0;
    int64_t low = 0, high = count;  // starts[low] <= j < starts[high]
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (starts[middle] <= j ? low : high) = middle;
    }
    return low;
  }
};

inline int64_t table_size(const Segments& segments) {
  return segments.count == 1 ? 0 : segments.count + 1;
}
inline cudaError_t view(const Segments& segments, int64_t d, int64_t* table, const Stream& stream,
                        Parts* parts) {
  *parts = {segments.count, nullptr, d};
  if (segments.count == 1) return cudaSuccess;
  parts->starts = table;
  int64_t start = 0;
  return upload(segments.count + 1, table, stream, [&](int64_t l) {
    const int64_t begin = start;
    if (l < segments.count) start += segments.sizes[l];
    return begin;
  });
}

// The same with scratch memory of its own for the table.
inline cudaError_t view(const Segments& segments, int64_t d, const Stream& stream, Parts* parts) {
  int64_t* table;
  Scratch scratch;
  scratch.reserve(&table, table_size(segments));
  CGSV_TRY(scratch.allocate(stream));
  return view(segments, d, table, stream, parts);
}

}  // namespace cgsv::cuda
