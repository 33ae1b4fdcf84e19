// The same mechanism on a GPU: the functions of cgsv.h on device memory, under the same names.
//
// Calls    Every function enqueues its work on a stream and returns at once. None synchronises, reads
//          device memory from the host, or decides by the data what to launch, so a CUDA graph can
//          capture any of them. Everything a call keeps for itself it takes from the stream's
//          allocator.
// Memory   What a function reads and writes lies on the current device; sizes of segments, pointers
//          to rows and lists of parts lie on the host and are read during the call. An aggregate that is written is
//          aligned to 16 bytes; everything else only to its elements.
// Bits     The same input gives the same bits in every run, whatever the GPU's number of
//          multiprocessors: sums are cut into chunks that the shape and dtype fix and added in a fixed
//          order. (tanh may differ in the last bit between generations of GPUs.) Agents
//          with equal updates get equal bits. Against the CPU, sums agree to rounding, and a selection
//          from the same aggregate and quotas is identical.
// Failure  The first error of the CUDA runtime, or success. Nothing here checks its arguments.
#pragma once

#include <cuda_runtime_api.h>

#include "cgsv.h"

namespace cgsv::cuda {

// Where the work goes and where its scratch memory comes from.
struct Stream {
  cudaStream_t handle = nullptr;
  // Device memory, aligned to 256 bytes, that stays valid until the work enqueued so far and by the
  // running call is done; null when there is none.
  void* (*allocate)(int64_t bytes, void* context) = nullptr;
  void* context = nullptr;
};

// One number an agent, of any floating dtype, `stride` elements apart.
struct Values {
  const void* data = nullptr;
  DType dtype = DType::f64;
  int64_t stride = 1;
};

// norms[i] = ‖Δw_i‖. Reads the updates once. A row's norm has the same bits in any matrix.
cudaError_t norms(const Rows& updates, double* norms, const Stream& stream);

// squares[i] = Σ_j x_ij², of which norms[i] is the root.
cudaError_t partial_norms(const Rows& updates, double* squares, const Stream& stream);

// The parts, one after the other, as the one row of `row`, each element rounded once; *norm = ‖row‖ as
// written, to the bit as `norms` has it. Reads the parts once.
cudaError_t pack_row(const PartList& parts, const MutableRows& row, double* norm,
                     const Stream& stream);

// Equations (1) and (3), as on the CPU. Without given norms they are measured, with one more read of
// the updates; `norms` receives them either way.
cudaError_t aggregate(const Rows& updates, const Values& weights, const Values* given_norms,
                      double gamma, void* aggregate, double* cosines, double* norms,
                      const Stream& stream);

// u_N of the columns at hand, the norms being those of whole rows, and n + 1 dots, as on the CPU.
cudaError_t partial_aggregate(const Rows& updates, const Values& weights, const Values& norms,
                              double gamma, void* aggregate, double* dots, const Stream& stream);

// dots[i] = ⟨Δw_i, aggregate⟩, of every row.
cudaError_t partial_dots(const Rows& updates, const Aggregate& aggregate, double* dots,
                         const Stream& stream);

// Equation (4), and (5).
cudaError_t update_importance(int64_t n, const Values& importance, const Values& cosines,
                              double alpha, double floor, double* result, const Stream& stream);
cudaError_t quotas(int64_t n, const Values& importance, const Segments& segments, double beta,
                   int64_t* quotas, const Stream& stream);

// Magnitude and index of each agent's quota-th entry, in each segment. Quotas and results are (n, S),
// row by row. Reads the aggregate once for each digit: three times up to 16 agents in f32.
cudaError_t select(const Aggregate& aggregate, int64_t n, const int64_t* quotas,
                   const Segments& segments, void* magnitude, int64_t* last_index,
                   const Stream& stream);

// A digit of the keys under (n, S) prefixes, as on the CPU. Reads the aggregate once for up to 1024
// prefixes.
cudaError_t histogram(const Aggregate& aggregate, const Prefixes& prefixes,
                      const Segments& segments, int64_t* counts, const Stream& stream);

// v_i, and w_i += scale · v_i. The selection is (n, S), row by row.
cudaError_t download(const Aggregate& aggregate, const Selection& selection,
                     const Segments& segments, const MutableRows& rewards, const Stream& stream);
cudaError_t download_(const Aggregate& aggregate, const Selection& selection,
                      const Segments& segments, double scale, const MutableRows& parameters,
                      const Stream& stream);

// gram[i · n + j] = ⟨Δw_i, Δw_j⟩ / (‖Δw_i‖ ‖Δw_j‖), in [-1, 1] and symmetric; 1 on the diagonal; zero
// for an agent whose norm is not valid.
cudaError_t gram(const Rows& updates, double* gram, const Stream& stream);

// One round, all of the above but the Gram matrix.
struct RewardStep : AnyRewardStep {
  Values importance;
  const Values* weights = nullptr;      // null: the importance
  const Values* given_norms = nullptr;  // null: measured
};
cudaError_t reward_step(const RewardStep& step, const Stream& stream);

}  // namespace cgsv::cuda
