// The cosine gradient Shapley reward mechanism on raw memory: no torch, no Python, no ownership.
//
// N agents' updates become N different downloads of one aggregate, each as large as its agent's
// contribution deserves. Data flow one way, a function a step, under the paper's names:
//
//   updates -> norms -> aggregate -> cosines -> importance -> quotas -> select -> download
//
// Ties       Entries rank by magnitude descending, then by index ascending; a NaN ranks above
//            infinity and equals every other NaN. A selection keeps exactly as many entries as its
//            quota says.
// Bits       The same input gives the same bits, whatever the number of threads and the instruction
//            set: work is cut into chunks and tiles that the input's shape and dtype fix, and partial
//            sums are added in chunk order.
// Aliasing   An output shares no memory with any input. Only download_ updates in place.
// Failure    Nothing here checks its arguments: the caller has. Running out of memory throws
//            std::bad_alloc before rewards or parameters are touched.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cgsv {

enum class DType : int32_t { f64, f32, bf16, f16 };

constexpr int64_t size_of(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

// The aggregate is float64 for float64 updates and float32 for all others.
constexpr DType aggregate_dtype(DType updates) {
  return updates == DType::f64 ? DType::f64 : DType::f32;
}

// n rows of d elements with unit stride: either a matrix (base, and a row stride in elements), or
// separate rows (one pointer each).
template <class Byte>
struct RowsOf {
  Byte* base = nullptr;
  int64_t row_stride = 0;
  Byte* const* pointers = nullptr;
  int64_t n = 0;
  int64_t d = 0;
  DType dtype = DType::f32;

  Byte* row(int64_t i) const {
    return pointers ? pointers[i] : base + i * row_stride * size_of(dtype);
  }
};
using Rows = RowsOf<const std::byte>;
using MutableRows = RowsOf<std::byte>;

// One of the consecutive parts that a row is packed from: contiguous, aligned to its elements.
struct Part {
  const std::byte* data;
  int64_t size;  // in elements; 0 is allowed
  DType dtype;
};
struct PartList {
  const Part* parts;
  int64_t count;
};

// u_N: d contiguous elements, f32 or f64.
struct Aggregate {
  const void* data;
  int64_t d;
  DType dtype;
};

// Sizes of consecutive parts of the aggregate (layers), each with quotas of its own; they sum to d.
struct Segments {
  const int64_t* sizes;
  int64_t count;
};

// Per agent and segment, (n, segments) row by row: agent i keeps entry j of a segment when
// |u_j| > magnitude, or |u_j| == magnitude and j <= last_index. (inf, -1) keeps nothing, not even a
// NaN.
struct Selection {
  const void* magnitude;  // the aggregate's dtype
  const int64_t* last_index;
};

// A digit of keys to count, under (n, segments) prefixes row by row.
struct Prefixes {
  const int64_t* data;
  int64_t n;
  int shift, bits;
};
constexpr int most_digit_bits = 16;

// How the host offers its threads, in the shape of torch's parallel_for: body is called with
// disjoint parts of [begin, end) that cover it, from at most `count` threads.
struct Threads {
  using Body = void (*)(int64_t begin, int64_t end, void* context);
  int count = 1;
  void (*parallel_for)(int64_t begin, int64_t end, int64_t grain, Body body,
                       void* context) = [](int64_t begin, int64_t end, int64_t, Body body,
                                           void* context) { body(begin, end, context); };
};

// What a round reads and writes, on a CPU or a GPU. The RewardStep of either adds the numbers that agents
// come with.
struct AnyRewardStep {
  Rows updates;
  double gamma, alpha, beta, floor;
  Segments segments;  // count 0: the whole vector is one

  MutableRows rewards;  // n = 0: not wanted
  double* new_importance;
  double* cosines;
  int64_t* quotas;
  void* aggregate;
  void* magnitude;
  int64_t* last_index;
  double* norms;
  bool* valid;
};

// An agent takes part when its norm is finite and positive.
bool is_valid(double norm);

namespace cpu {

// norms[i] = ‖Δw_i‖. Reads the updates once. A row's norm has the same bits in any matrix.
void norms(const Rows& updates, double* norms, const Threads& threads);

// squares[i] = Σ_j x_ij², of which norms[i] is the root: for rows of which others hold further columns.
void partial_norms(const Rows& updates, double* squares, const Threads& threads);

// The parts, one after the other, as the one row of `row`, of whose d elements their sizes are the sum:
// each element rounded once, to nearest even (a float64 to a half type, too), and copied bit by bit
// where the dtypes agree. *norm = ‖row‖ as written, to the bit as `norms` has it. Reads the parts once.
void pack_row(const PartList& parts, const MutableRows& row, double* norm, const Threads& threads);

// Equations (1) and (3): u_N = Σ_i weights[i] · Γ · Δw_i / norms[i] and cosines[i] = cos(u_i, u_N),
// over the agents whose norm is valid; a weight that is not finite counts as 0.
// Reads the updates once.
void aggregate(const Rows& updates, const double* weights, const double* norms, double gamma,
               void* aggregate, double* cosines, const Threads& threads);

// u_N of the columns at hand, the norms being those of whole rows, and what the cosines are made of:
// dots[i] = ⟨Δw_i, u_N⟩, 0 for an agent that takes no part, and dots[n] = ‖u_N‖².
void partial_aggregate(const Rows& updates, const double* weights, const double* norms,
                       double gamma, void* aggregate, double* dots, const Threads& threads);

// dots[i] = ⟨Δw_i, aggregate⟩, of every row and in float64. The aggregate has as many columns, and the dtype
// that one of these updates has. Reads the updates once.
void partial_dots(const Rows& updates, const Aggregate& aggregate, double* dots,
                  const Threads& threads);

// Equation (4): result = normalise(max(floor, α · importance + (1 − α) · cosines)); floor = −inf
// turns the clamp off. All zero where the sum is not positive.
void update_importance(int64_t n, const double* importance, const double* cosines, double alpha,
                       double floor, double* result);

// Equation (5): quotas[i][l] = max(0, ⌊sizes[l] · tanh(β r_i) / max_j tanh(β r_j)⌋).
void quotas(int64_t n, const double* importance, const Segments& segments, double beta,
            int64_t* quotas);

// Magnitude and index of each agent's quota-th entry, in each segment; quotas are clamped to
// [0, size]. Reads the aggregate once to count, once to place;
// once or twice more for each digit that does not tell entries apart.
void select(const Aggregate& aggregate, int64_t n, const int64_t* quotas, const Segments& segments,
            void* magnitude, int64_t* last_index, const Threads& threads);

// What one machine's entries tell those who select from the entries of many. Of the entries of segment
// l whose key >> (shift + bits) is prefixes[p][l], counts[p][l][digit] have
// (key >> shift) mod 2^bits == digit; the key is that of key.h. A prefix that no key has, −1 say,
// counts nothing; the same one twice counts twice. Needs shift ≥ 0, 1 ≤ bits ≤ most_digit_bits, and
// shift + bits at most the bits of a key. Reads the aggregate once.
void histogram(const Aggregate& aggregate, const Prefixes& prefixes, const Segments& segments,
               int64_t* counts, const Threads& threads);

// v_i: the aggregate where agent i keeps it, rounded to the row's dtype, and +0 elsewhere.
void download(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
              const MutableRows& rewards, const Threads& threads);

// w_i += scale · v_i on the entries agent i keeps and on no others, computed in the wider of the two
// dtypes with product and sum rounded separately, then rounded once into the row.
void download_(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
               double scale, const MutableRows& parameters, const Threads& threads);

// gram[i · n + j] = ⟨Δw_i, Δw_j⟩ / (‖Δw_i‖ ‖Δw_j‖), in [−1, 1] and symmetric; 1 on the diagonal; zero
// for an agent whose norm is not valid. Sums are f64 for every dtype. Reads the updates once for up to
// 32 agents.
void gram(const Rows& updates, double* gram, const Threads& threads);

// One round, all of the above but the Gram matrix. In the first round (neither weights nor a non-zero importance) every
// agent weighs 1/N.
struct RewardStep : AnyRewardStep {
  const double* importance;
  const double* weights;      // null: the importance
  const double* given_norms;  // null: measured
};
void reward_step(const RewardStep& step, const Threads& threads);

// Advice to the operating system that all of this memory will be written; worth it for fresh memory
// of several MB, harmless for any other.
void expect_writes(void* data, int64_t bytes);

// The instruction set in use: "avx512", "avx2" or "baseline"; the best this machine has among those
// compiled in, or what the environment variable CGSV_ISA names.
const char* isa();
const char* compiled_isas();  // separated by spaces, best first

}  // namespace cpu
}  // namespace cgsv
