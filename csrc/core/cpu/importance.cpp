// Step 4: the normalised moving average of the cosines, equation (4).
#include <algorithm>
#include <cmath>

#include "../cgsv.h"

namespace cgsv::cpu {

void update_importance(int64_t n, const double* importance, const double* cosines, double alpha,
                       double floor, double* result) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double before = std::isfinite(importance[i]) ? importance[i] : 0;
    const double cosine = std::isfinite(cosines[i]) ? cosines[i] : 0;
    result[i] = std::max(floor, alpha * before + (1 - alpha) * cosine);
    sum += result[i];
  }
  for (int64_t i = 0; i < n; ++i) result[i] = sum > 0 ? result[i] / sum : 0;
}

}  // namespace cgsv::cpu
