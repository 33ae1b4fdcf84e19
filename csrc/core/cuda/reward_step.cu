// All steps of one round, in the paper's order: six launches, or seven and more with tables of rows or
// segments to bring to the device.
//
//   sum_squares  weigh  aggregate  reward  select  download
//
// Reads the updates twice, once with given norms; writes the rewards once. The aggregate is written
// once and read once for every digit after the first, and once by the download.
#include "aggregate.cuh"
#include "download.cuh"
#include "importance.cuh"
#include "quotas.cuh"
#include "select.cuh"

namespace cgsv::cuda {
namespace {

constexpr int threads = 256;

struct Reward {
  int64_t n;
  const double* partial;  // of the aggregation
  int64_t chunks;
  const double* norms;
  double* cosines;
  ImportanceUpdate importance;
  Parts segments;
  double beta;
  int64_t* quotas;
  unsigned* ticket;  // how many blocks are done
};

// A block an agent for its cosine; the last one to finish goes on with what needs all of them.
__global__ void __launch_bounds__(threads) reward_kernel(Reward r) {
  __shared__ bool last;
  const int64_t i = blockIdx.x;
  const double cosine = cosine_of(i, r.n, r.partial, r.chunks, r.norms[i]);
  if (threadIdx.x == 0) {
    r.cosines[i] = cosine;
    __threadfence();
    last = atomicAdd(r.ticket, 1u) == gridDim.x - 1;
    // In front of the barrier: what it orders behind the others' fences it orders for all threads.
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  update_importance_in_block(r.n, r.importance, doubles(r.cosines));
  // In front of its barrier a thread reads no importance but what it wrote itself.
  quotas_in_block(r.n, doubles(r.importance.result), r.segments, r.beta, r.quotas);
}

}  // namespace

cudaError_t reward_step(const RewardStep& step, const Stream& stream) {
  const Rows& updates = step.updates;
  const int64_t n = updates.n, d = updates.d;
  const DType dtype = aggregate_dtype(updates.dtype);
  const bool whole = step.segments.count == 0;
  const Segments segments = whole ? Segments{&d, 1} : step.segments;
  // Over the whole vector, the first digits of the selection are counted along with the aggregation.
  const bool counts = segments.count == 1 && selects_at_once(n);
  const NormChunks norm_chunks(d);
  const Tiling tiling = cuda::tiling(n, d, updates.dtype);

  int64_t *row_pointers, *starts;
  double* partial;
  Row* rows;
  Count* table;
  unsigned* ticket;
  Scratch scratch;
  scratch.reserve(&row_pointers, table_size(updates));
  scratch.reserve(&starts, table_size(segments));
  // The sums of the norms, then those of the aggregation, then what the selection needs: each is done with
  // when the next one begins.
  const Aggregate u = {step.aggregate, d, dtype};
  int64_t selecting;
  CGSV_TRY(select_scratch(u, n, segments.count, counts, &selecting));
  const int64_t sums = std::max({step.given_norms ? 0 : n * norm_chunks.count,
                                 (n + 1) * tiling.chunks, ceil_div(selecting, sizeof(double))});
  scratch.reserve(&partial, sums);
  scratch.reserve(&rows, tiling.row_count());
  scratch.reserve(&table, counts ? first_digits : 0);
  scratch.reserve(&ticket, 1);
  CGSV_TRY(scratch.allocate(stream));
  if (!counts) table = nullptr;

  RowView<const std::byte> view_of_updates;
  CGSV_TRY(view(updates, row_pointers, stream, &view_of_updates));
  Parts parts;
  CGSV_TRY(view(segments, d, starts, stream, &parts));

  Weighing weighing = {};
  if (step.given_norms) {
    weighing.given_norms = *step.given_norms;
  } else {
    weighing.partial = partial;
    weighing.partial_count = norm_chunks.count;
    CGSV_TRY(sum_squares(view_of_updates, updates.dtype, partial, stream));
  }
  weighing.weights = step.weights ? *step.weights : step.importance;
  weighing.first_round = step.weights == nullptr;
  weighing.gamma = step.gamma;
  weighing.norms = step.norms;
  weighing.valid = step.valid;
  weighing.rows = rows;
  weighing.row_count = tiling.row_count();
  weighing.table = table;
  weighing.ticket = ticket;
  CGSV_TRY(weigh(view_of_updates, weighing, stream));
  CGSV_TRY(aggregate_chunks(view_of_updates, updates.dtype, rows, step.aggregate, partial, table,
                            stream));

  const ImportanceUpdate importance = {step.importance, step.alpha, step.floor,
                                       step.new_importance};
  const Reward reward = {n,          partial, tiling.chunks, step.norms,  step.cosines,
                         importance, parts,   step.beta,     step.quotas, ticket};
  CGSV_TRY(launch(stream, {n, threads}, reward_kernel, reward));

  const Lent lent(partial, sums * int64_t(sizeof(double)), stream);
  CGSV_TRY(select(u, n, step.quotas, parts, table, step.magnitude, step.last_index, lent.stream()));
  if (step.rewards.n == 0) return cudaSuccess;
  return download(u, {step.magnitude, step.last_index}, parts, step.rewards, stream);
}

}  // namespace cgsv::cuda
