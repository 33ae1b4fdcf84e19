// All steps of one round, in the paper's order.
#include <cmath>
#include <cstring>
#include <optional>

#include "aggregate.h"
#include "select.h"

namespace cgsv::cpu {
namespace {

// p of equation (1): the weights if given, else the importance, else 1/N in the first round.
std::vector<double> weights_of(const RewardStep& step) {
  const int64_t n = step.updates.n;
  const double* given = step.weights ? step.weights : step.importance;
  std::vector<double> p(given, given + n);
  bool any = false;
  for (double& p_i : p) {
    if (!std::isfinite(p_i)) p_i = 0;
    any |= p_i != 0;
  }
  if (!step.weights && !any) p.assign(p.size(), 1.0 / double(n));
  return p;
}

template <class A>
void run(const RewardStep& step, const Threads& threads) {
  const int64_t n = step.updates.n, d = step.updates.d;
  if (step.given_norms) {
    std::memcpy(step.norms, step.given_norms, size_t(n) * sizeof(double));
  } else {
    norms(step.updates, step.norms, threads);
  }
  for (int64_t i = 0; i < n; ++i) step.valid[i] = is_valid(step.norms[i]);

  A* u = static_cast<A*>(step.aggregate);
  A* magnitude = static_cast<A*>(step.magnitude);
  const bool whole = step.segments.count == 0;
  const Segments segments = whole ? Segments{&d, 1} : step.segments;

  // Over the whole vector, the first pass of the selection rides along with the aggregation.
  std::optional<Histogram<A>> counted;
  if (whole && d > few_entries) counted.emplace(slots_for(threads, Chunks(d).count, n * d), d);
  Histogram<A>* const histogram = counted ? &*counted : nullptr;
  std::vector<double> dots(n + 1);
  aggregate_into<A>(step.updates, weights_of(step).data(), step.norms, step.gamma, u, dots.data(),
                    histogram, threads);
  cosines_of(n, dots.data(), step.norms, step.cosines);
  update_importance(n, step.importance, step.cosines, step.alpha, step.floor, step.new_importance);
  quotas(n, step.new_importance, segments, step.beta, step.quotas);
  if (whole) {
    select_segment<A>(u, d, 0, n, 1, step.quotas, magnitude, step.last_index, histogram, threads);
  } else {
    select({u, d, aggregate_dtype(step.updates.dtype)}, n, step.quotas, segments, magnitude,
           step.last_index, threads);
  }
  if (step.rewards.n > 0) {
    download({u, d, aggregate_dtype(step.updates.dtype)}, {magnitude, step.last_index}, segments,
             step.rewards, threads);
  }
}

}  // namespace

void reward_step(const RewardStep& step, const Threads& threads) {
  if (aggregate_dtype(step.updates.dtype) == DType::f64) {
    run<double>(step, threads);
  } else {
    run<float>(step, threads);
  }
}

}  // namespace cgsv::cpu
