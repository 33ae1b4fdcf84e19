// Step 5: how many entries each agent keeps, equation (5).
//
// Reads N importances twice and S boundaries of segments for every agent, writes N·S int64: one block.
#include "quotas.cuh"

namespace cgsv::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads)
    quotas_kernel(int64_t n, Values importance, Parts segments, double beta, int64_t* quotas) {
  quotas_in_block(n, importance, segments, beta, quotas);
}

}  // namespace

cudaError_t quotas(int64_t n, const Values& importance, const Segments& segments, double beta,
                   int64_t* quotas, const Stream& stream) {
  int64_t* table;
  Scratch scratch;
  scratch.reserve(&table, table_size(segments));
  CGSV_TRY(scratch.allocate(stream));
  Parts parts;
  CGSV_TRY(view(segments, segments.count == 1 ? segments.sizes[0] : 0, table, stream, &parts));
  return launch(stream, {1, threads}, quotas_kernel, n, importance, parts, beta, quotas);
}

}  // namespace cgsv::cuda
