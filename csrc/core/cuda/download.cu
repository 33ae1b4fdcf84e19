// Step 7: what each agent downloads, as rows of their own or added to its parameters in place.
//
// Reads D elements of the aggregate, once for all agents where there are columns enough to occupy the
// device. `download` writes N·D elements with streaming stores; `download_` reads and writes the
// 16-byte packs of the parameters in which an agent keeps anything, and no others.
#include "download.cuh"

namespace cgsv::cuda {
namespace {

constexpr int threads = 256;
// Blocks for each multiprocessor, before agents are left to one block.
constexpr int64_t enough_blocks = 4;
// Whose boundaries a block holds at once: a thread brings one.
constexpr int64_t most_rows = limit(threads, 2);

// Keys compare as signed numbers: a boundary may lie below all of them.
template <class A>
using SignedKey = std::make_signed_t<Key<A>>;

// v_i where kept, else +0.
template <class A, class T>
struct Write {
  static constexpr int columns = Pack<T>::columns;
  __device__ void one(T* to, A u, bool kept) const { *to = narrow<T>(kept ? u : A(0)); }
  __device__ void pack(T* to, const A (&u)[columns], const bool (&kept)[columns]) const {
    T values[columns];
#pragma unroll
    for (int k = 0; k < columns; ++k) values[k] = narrow<T>(kept[k] ? u[k] : A(0));
    stream_pack(to, values);
  }
};

// w_i += scale · v_i where kept: in the wider type, product and sum rounded one by one.
template <class A, class T>
struct Add {
  static constexpr int columns = Pack<T>::columns;
  using Sum =
      std::conditional_t<std::is_same_v<A, double> || std::is_same_v<T, double>, double, float>;
  Sum scale;

  __device__ T sum(T w, A u) const {
    if constexpr (std::is_same_v<Sum, double>) {
      return narrow<T>(__dadd_rn(double(widen(w)), __dmul_rn(scale, double(u))));
    } else {
      return narrow<T>(__fadd_rn(widen(w), __fmul_rn(scale, u)));
    }
  }
  __device__ void one(T* to, A u, bool kept) const {
    if (kept) *to = sum(*to, u);
  }
  __device__ void pack(T* to, const A (&u)[columns], const bool (&kept)[columns]) const {
    bool any = false;
#pragma unroll
    for (int k = 0; k < columns; ++k) any |= kept[k];
    if (!any) return;
    T values[columns];
    uint4 bits = *reinterpret_cast<const uint4*>(to);
    memcpy(values, &bits, 16);
#pragma unroll
    for (int k = 0; k < columns; ++k) {
      if (kept[k]) values[k] = sum(values[k], u[k]);
    }
    stream_pack(to, values);
  }
};

template <class A>
struct Downloading {
  const A* u;
  int alignment;
  Parts segments;
  const A* magnitude;
  const int64_t* last_index;
  RowView<std::byte> rows;
  int64_t rows_each;  // of a block

  __device__ Boundary boundary_of(int64_t i, int64_t l) const {
    const int64_t t = i * segments.count + l;
    return boundary(magnitude[t], last_index[t]);
  }
};

// kCount entries of u from column j on, zeros past the end. j is a multiple of kStep.
template <int kCount, int kStep, class A>
__device__ void load_entries(const A* u, int64_t j, int64_t d, int alignment,
                             A (&entries)[kCount]) {
  constexpr int each = Pack<A>::columns;
  if constexpr (kStep % each == 0) {
#pragma unroll
    for (int k = 0; k < kCount; k += each) {
      const Pack<A> pack =
          load_pack(u + j + k, alignment, int(max(int64_t(0), min(d - j - k, int64_t(each)))));
#pragma unroll
      for (int e = 0; e < each; ++e) entries[k + e] = pack[e];
    }
  } else {
#pragma unroll
    for (int k = 0; k < kCount; ++k) entries[k] = j + k < d ? u[j + k] : A(0);
  }
}

// f(integral_constant) for the value, known when compiling from there on.
template <int kMost, int kValue = 0, class F>
__device__ void with_constant(int value, const F& f) {
  if constexpr (kValue < kMost) {
    if (value != kValue) return with_constant<kMost, kValue + 1>(value, f);
  }
  f(std::integral_constant<int, kValue>());
}

// What a row keeps of a block's segment.
template <class A>
struct Kept {
  std::byte* row;
  int64_t last_index;
  SignedKey<A> through, beyond;
};

template <class A, class T, class Store>
__global__ void __launch_bounds__(threads, 2) download_kernel(Downloading<A> s, Store store) {
  constexpr int columns = Pack<T>::columns;
  __shared__ Kept<A> rows[most_rows];
  const int64_t d = s.rows.d, block_first = int64_t(blockIdx.x) * threads * columns;
  const int64_t first = block_first + int64_t(threadIdx.x) * columns;
  A u[2 * columns];
  SignedKey<A> keys[2 * columns];
  if (s.rows.alignment == 16) {
    A own[columns];
    load_entries<columns, columns>(s.u, first, d, s.alignment, own);
#pragma unroll
    for (int k = 0; k < columns; ++k) u[k] = own[k], u[columns + k] = A(0);
  } else {
    load_entries<2 * columns, columns>(s.u, first, d, s.alignment, u);
  }
#pragma unroll
  for (int k = 0; k < 2 * columns; ++k) keys[k] = SignedKey<A>(key_of(u[k]));
  const int64_t segment = s.segments.of(block_first);
  const bool one_segment = s.segments.end(segment) >= min(d, block_first + (threads + 1) * columns);

  const int64_t begin = blockIdx.y * s.rows_each, end = min(s.rows.n, begin + s.rows_each);
  for (int64_t from = begin; from < end; from += most_rows) {
    const int count = int(min(end - from, most_rows));
    __syncthreads();
    if (int(threadIdx.x) < count) {
      const int64_t i = from + threadIdx.x;
      const Boundary b = s.boundary_of(i, segment);
      rows[threadIdx.x] = {reinterpret_cast<std::byte*>(s.rows.template row<T>(i)), b.last_index,
                           SignedKey<A>(b.through), SignedKey<A>(b.beyond)};
    }
    __syncthreads();
    for (int r = 0; r < count && first < d; ++r) {
      const Kept<A> b = rows[r];
      T* row = reinterpret_cast<T*>(b.row);
      const int phase = int(-reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
      const int64_t j = first + phase;
      if (one_segment && j + columns <= d && (first != 0 || phase == 0)) {
        const auto write = [&](auto constant, const auto& through) {
          constexpr int shift = decltype(constant)::value;
          A entries[columns];
          bool kept[columns];
#pragma unroll
          for (int k = 0; k < columns; ++k) {
            entries[k] = u[shift + k];
            kept[k] = keys[shift + k] > through(k);
          }
          store.pack(row + j, entries, kept);
        };
        with_constant<columns - 1>(phase, [&](auto constant) {
          if (b.last_index < j || b.last_index >= j + columns - 1) {
            const auto bound = b.last_index < j ? b.beyond : b.through;
            write(constant, [&](int) { return bound; });
          } else {
            const int last = int(b.last_index - j);
            write(constant, [&](int k) { return k <= last ? b.through : b.beyond; });
          }
        });
      } else {
        int64_t l = s.segments.of(first);
        for (int64_t k = first == 0 ? 0 : j; k < min(d, j + columns); ++k) {
          while (k >= s.segments.end(l)) ++l;
          const Boundary bk = s.boundary_of(from + r, l);
          const A entry = s.u[k];
          store.one(row + k, entry,
                    int64_t(key_of(entry)) > (k <= bk.last_index ? bk.through : bk.beyond));
        }
      }
    }
  }
}

template <class A, class T, class Store>
cudaError_t run(Downloading<A> s, const Store& store, const Stream& stream) {
  if (s.rows.d == 0) return cudaSuccess;
  int count;
  CGSV_TRY(multiprocessors(&count));
  const int64_t tiles = ceil_div(s.rows.d, threads * Pack<T>::columns);
  const int64_t parts = std::min(s.rows.n, ceil_div(count * enough_blocks, tiles));
  s.rows_each = ceil_div(s.rows.n, parts);
  return launch(stream, {tiles, threads, 0, ceil_div(s.rows.n, s.rows_each)},
                download_kernel<A, T, Store>, s, store);
}

// run<A, T>(what the kernel needs, Type<T>) once the types are known.
template <class F>
cudaError_t with_arguments(const Aggregate& aggregate, const Selection& selection,
                           const Parts& segments, const MutableRows& rows, const Stream& stream,
                           const F& run) {
  int64_t* table;
  Scratch scratch;
  scratch.reserve(&table, table_size(rows));
  CGSV_TRY(scratch.allocate(stream));
  RowView<std::byte> row_view;
  CGSV_TRY(view(rows, table, stream, &row_view));
  return with_aggregate_type(aggregate.dtype, [&](auto aggregate_type) {
    using A = typename decltype(aggregate_type)::type;
    const Downloading<A> s = {static_cast<const A*>(aggregate.data),
                              alignment_of(aggregate.data),
                              segments,
                              static_cast<const A*>(selection.magnitude),
                              selection.last_index,
                              row_view,
                              0};
    return with_type(rows.dtype, [&](auto type) { return run(s, type); });
  });
}

}  // namespace

cudaError_t download(const Aggregate& aggregate, const Selection& selection, const Parts& segments,
                     const MutableRows& rewards, const Stream& stream) {
  return with_arguments(aggregate, selection, segments, rewards, stream, [&](auto s, auto type) {
    using A = std::remove_const_t<std::remove_pointer_t<decltype(s.u)>>;
    using T = typename decltype(type)::type;
    return run<A, T>(s, Write<A, T>(), stream);
  });
}

cudaError_t download(const Aggregate& aggregate, const Selection& selection,
                     const Segments& segments, const MutableRows& rewards, const Stream& stream) {
  Parts parts;
  CGSV_TRY(view(segments, aggregate.d, stream, &parts));
  return download(aggregate, selection, parts, rewards, stream);
}

cudaError_t download_(const Aggregate& aggregate, const Selection& selection,
                      const Segments& segments, double scale, const MutableRows& parameters,
                      const Stream& stream) {
  Parts parts;
  CGSV_TRY(view(segments, aggregate.d, stream, &parts));
  return with_arguments(aggregate, selection, parts, parameters, stream, [&](auto s, auto type) {
    using A = std::remove_const_t<std::remove_pointer_t<decltype(s.u)>>;
    using T = typename decltype(type)::type;
    using Sum = typename Add<A, T>::Sum;
    return run<A, T>(s, Add<A, T>{Sum(scale)}, stream);
  });
}

}  // namespace cgsv::cuda
