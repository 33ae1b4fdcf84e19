// Step 4: the normalised moving average of the cosines, equation (4).
//
// Reads N importances and N cosines, writes N float64 and reads and writes them once more: one block.
#include "importance.cuh"

namespace cgsv::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads)
    update_importance_kernel(int64_t n, ImportanceUpdate update, Values cosines) {
  update_importance_in_block(n, update, cosines);
}

}  // namespace

cudaError_t update_importance(int64_t n, const Values& importance, const Values& cosines,
                              double alpha, double floor, double* result, const Stream& stream) {
  const ImportanceUpdate update = {importance, alpha, floor, result};
  return launch(stream, {1, threads}, update_importance_kernel, n, update, cosines);
}

}  // namespace cgsv::cuda
