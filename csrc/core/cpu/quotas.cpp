// Step 5: how many entries each agent keeps, equation (5).
#include <algorithm>
#include <cmath>

#include "../cgsv.h"

namespace cgsv::cpu {
namespace {

// tanh(β r); for β = ∞ the sign of r, with nothing for nothing.
double altruistic(double beta, double r) {
  return r == 0 || !std::isfinite(r) ? 0 : std::copysign(std::tanh(beta * std::fabs(r)), r);
}

}  // namespace

void quotas(int64_t n, const double* importance, const Segments& segments, double beta,
            int64_t* quotas) {
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, altruistic(beta, importance[i]));
  for (int64_t i = 0; i < n; ++i) {
    const double ratio = largest > 0 ? altruistic(beta, importance[i]) / largest : 0;
    for (int64_t l = 0; l < segments.count; ++l) {
      const int64_t size = segments.sizes[l];
      const double share = std::floor(double(size) * ratio);
      quotas[i * segments.count + l] = share >= double(size) ? size
                                       : share > 0           ? int64_t(share)
                                                             : 0;
    }
  }
}

}  // namespace cgsv::cpu
