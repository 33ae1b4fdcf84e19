// Steps 2 and 3 in three parts, for those who put something between them.
#pragma once

#include "histogram.cuh"
#include "norms.cuh"

namespace cgsv::cuda {

// A row as the aggregation wants it.
struct Row {
  const std::byte* data;  // null: takes no part
  double coefficient;     // Γ p_i / ‖Δw_i‖
};

// Before the aggregation: what each agent's update is multiplied by.
struct Weighing {
  const double* partial;  // of the norms, or null: given
  int64_t partial_count;
  Values given_norms;
  Values weights;
  bool first_round;  // the weights are an importance: 1/N each where none is non-zero
  double gamma;

  double* norms;
  bool* valid;  // or null
  Row* rows;    // of which those past n take no part
  int64_t row_count;
  Count* table;      // or null: first_digits counters to set to zero
  unsigned* ticket;  // or null: to set to zero
};
cudaError_t weigh(const RowView<const std::byte>& updates, const Weighing& weighing,
                  const Stream& stream);

// How the aggregation cuts the columns into tiles, and the rows into groups of a block's threads. A block takes
// the tiles of a chunk, one after the other. Chunks share regions in which their tiles take turns: with many rows
// a tile is narrow, and blocks that run at the same time read what lies side by side in memory.
// Fixed by shape and dtype alone.
struct Tiling {
  static constexpr int64_t side_by_side = limit(256, 4);  // chunks in a region

  int rows;     // a thread holds
  int groups;   // of threads, each with rows of its own
  int lanes;    // threads in a group, side by side along the columns: a power of two
  int batches;  // of groups · rows rows
  int64_t row_count() const { return int64_t(rows) * groups * batches; }
  int64_t columns;  // of a tile
  int64_t chunks;
  int64_t stride;  // from a tile of a chunk to its next one
  int64_t reach;   // the columns of a region: a chunk has every tile within it that is stride apart
  CGSV_HOST_DEVICE int64_t begin(int64_t chunk) const {
    return chunk / side_by_side * reach + chunk % side_by_side * columns;
  }
};
Tiling tiling(int64_t n, int64_t d, DType updates);

// u_N; partial[i · chunks + c] = ⟨Δw_i, u_N⟩ over chunk c, and ‖u_N‖² as row n; and, added to the
// table if there is one, the first digits of |u_N|.
cudaError_t aggregate_chunks(const RowView<const std::byte>& updates, DType dtype, const Row* rows,
                             void* aggregate, double* partial, Count* table, const Stream& stream);

// cos(u_i, u_N) from the sums over the chunks, by a whole block.
__device__ inline double cosine_of(int64_t i, int64_t n, const double* partial, int64_t chunks,
                                   double norm) {
  const double dot = sum_of(partial + i * chunks, chunks);
  const double length = sqrt(sum_of(partial + n * chunks, chunks));
  const bool valid = is_valid(norm) && is_valid(length);
  return valid ? fmin(1.0, fmax(-1.0, dot / (norm * length))) : 0;
}

}  // namespace cgsv::cuda
