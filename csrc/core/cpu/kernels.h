// The inner loops of every step, as a table of plain functions on (pointer, count): one table per
// instruction set, all giving the same bits. kernels.inc has the one source of them all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../cgsv.h"
#include "../key.h"
#include "coalitions.h"
#include "wire_kernels.h"

namespace cgsv::cpu {

struct bfloat16 {
  static constexpr bool is_bfloat = true;
  uint16_t bits;
};
struct float16 {
  static constexpr bool is_bfloat = false;
  uint16_t bits;
};

// The first digit of the radix selection: exponent and leading mantissa bits.
constexpr int first_digit_bits = 15;
constexpr int64_t first_digit_bins = int64_t(1) << first_digit_bits;

// The lanes that a sum of squares runs in.
constexpr int square_lanes = 32;
// Columns that weighted_sum takes at most.
constexpr int64_t most_columns = 2048;
// Columns within which `dots` adds up in the aggregate's own type, and the lanes of an agent's sum in
// f64. In f32, the 8 additions to a lane and the two of lanes are off by less than 6e-7 of the sum of
// magnitudes, should all of them err in the same direction.
constexpr int64_t dot_columns = 128;
constexpr int dot_sums = 4;
// Rows whose products with each other are formed together, and the lanes that a product's sum runs in.
constexpr int gram_rows = 4, gram_lanes = 8;
// match and extent look at up to this many prefixes in one go.
constexpr int max_prefixes = 16;

// How often, and between which keys, the elements under one prefix occur.
template <class A>
struct Extent {
  int64_t count = 0;
  Key<A> min = ~Key<A>(0);
  Key<A> max = 0;
};

// `far`: what is read comes from memory rather than a cache, so that it pays to ask for it well before it is
// needed. It changes no result.

// Kernels that read updates of type T.
struct UpdateKernels {
  // lanes[j % square_lanes] += x_j² in f64, j ascending.
  void (*add_squares)(const void* x, int64_t count, double* lanes, bool far);
  // u_j = Σ_i coefficients[i] · rows[i][j], added in the order of i in f64 and rounded once;
  // count ≤ most_columns. If far, the columns `next` bytes on are wanted after these.
  void (*weighted_sum)(const void* const* rows, const double* coefficients, int64_t n,
                       int64_t count, void* u, bool far, int64_t next);
  // Adds Σ_j rows[i][j] · u[j] to the dot_sums lanes of sums[i], in the aggregate's type within
  // dot_columns columns, ...
  void (*dots)(const void* const* rows, int64_t n, const void* u, int64_t count, double* sums,
               bool far);
  // ... and in f64 throughout.
  void (*wide_dots)(const void* const* rows, int64_t n, const void* u, int64_t count, double* sums,
                    bool far);
  // sums[r][s][j % gram_lanes] += x[r][j] · x[s][j] for s ≤ r < n ≤ gram_rows; sums is
  // [gram_rows][gram_rows][gram_lanes]. If far, as many columns again are wanted after these, ...
  void (*own_products)(const void* const* x, int n, int64_t count, double* sums, bool far);
  // ... += x[r][j] · y[s][j] for r < gram_rows and s < n ≤ gram_rows.
  void (*products)(const void* const* x, const void* const* y, int n, int64_t count, double* sums);
};

// Kernels on an aggregate of type A.
template <class A>
struct AggregateKernels {
  // table[key >> (bits − 15)] += 1 for every element, and [min, max] grows to hold every key, where the
  // key of a NaN is all of its bits.
  void (*histogram)(const A* u, int64_t count, uint32_t* table, Key<A>* min, Key<A>* max, bool far);
  // Local indices, ascending, of the elements whose key >> shift is one of n ≤ max_prefixes.
  int64_t (*match)(const A* u, int64_t count, int shift, const Key<A>* prefixes, int n,
                   uint32_t* hits, bool far);
  // Extends extents[k] by the elements whose key >> shift is prefixes[k], n ≤ max_prefixes.
  void (*extent)(const A* u, int64_t count, int shift, const Key<A>* prefixes, int n,
                 Extent<A>* extents);
  // out_j = u_j rounded to the output's dtype.
  void (*round_to[4])(const A* u, int64_t count, void* out);
  // out_j = rounded_j where the key of u_j > threshold (signed), else +0; by output dtype. `streamed`
  // keeps the caches out of it.
  void (*keep[4])(const A* u, const void* rounded, int64_t count, int64_t threshold, void* out,
                  bool streamed);
  // w_j += scale · u_j where key_j > threshold (signed); by the dtype of w.
  void (*add_kept[4])(const A* u, int64_t count, int64_t threshold, double scale, void* w,
                      bool far);
};

struct Kernels {
  const char* isa;
  UpdateKernels updates[4];  // by DType
  // out_j = x_j, rounded once, to nearest even; by the dtypes of x and out. Bits are copied where they agree.
  void (*convert[4][4])(const void* x, int64_t count, void* out);
  AggregateKernels<float> f32;
  AggregateKernels<double> f64;
  // The worth v of the union of `high` with each subset of the 8 low agents, where cross[b] is twice the
  // inner product of low agent b's part of u_N with u_high:
  //   joined[S] += weights.joined[S] · v and all[S % lanes] += weights.all[S] · v,
  //   of_block[S % lanes] = the sum of weights.joined[S] · v.
  void (*coalitions)(const Coalitions& low, const Coalition& high, const double* cross,
                     const CoalitionWeights& weights, double* joined, double* of_block,
                     double* all);
  WireKernels wire;

  template <class A>
  const AggregateKernels<A>& on() const {
    if constexpr (sizeof(A) == 4) {
      return f32;
    } else {
      return f64;
    }
  }
};

// The table for this machine, chosen once.
const Kernels& kernels();

namespace baseline {
extern const Kernels table;
}
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}

}  // namespace cgsv::cpu
