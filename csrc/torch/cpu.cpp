// The ops on the CPU.
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>

#include "ops.h"
#include "threads.h"

namespace cgsv::binding {
namespace {

template <class T>
std::vector<double> doubles(const Tensor& t) {
  std::vector<double> values(t.numel());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(in<T>(t)[int64_t(i) * t.stride(0)]);
  }
  return values;
}

class Cpu {
 public:
  using Vector = std::vector<double>;
  using RewardStep = cpu::RewardStep;

  Cpu(const Checks&, const Tensor&) {}
  Device device() const { return {aoti_torch_device_type_cpu(), 0}; }

  static Vector vector(const Tensor& t) {
    switch (t.scalar_type()) {
      case ScalarType::Double:
        return doubles<double>(t);
      case ScalarType::Float:
        return doubles<float>(t);
      case ScalarType::Half:
        return doubles<torch::headeronly::Half>(t);
      default:
        return doubles<torch::headeronly::BFloat16>(t);
    }
  }

  void norms(const Rows& updates, double* norms) { cpu::norms(updates, norms, threads_); }

  void partial_norms(const Rows& updates, double* squares) {
    cpu::partial_norms(updates, squares, threads_);
  }

  void pack_row(const PartList& parts, const MutableRows& row, double* norm) {
    cpu::expect_writes(row.base, row.d * size_of(row.dtype));
    cpu::pack_row(parts, row, norm, threads_);
  }

  void aggregate(const Rows& updates, const Vector& weights, const Vector* given_norms,
                 double gamma, void* aggregate, double* cosines, double* norms) {
    expect_aggregate(aggregate, updates);
    if (given_norms) {
      std::copy(given_norms->begin(), given_norms->end(), norms);
    } else {
      cpu::norms(updates, norms, threads_);
    }
    cpu::aggregate(updates, weights.data(), norms, gamma, aggregate, cosines, threads_);
  }

  void partial_aggregate(const Rows& updates, const Vector& weights, const Vector& norms,
                         double gamma, void* aggregate, double* dots) {
    expect_aggregate(aggregate, updates);
    cpu::partial_aggregate(updates, weights.data(), norms.data(), gamma, aggregate, dots, threads_);
  }

  void partial_dots(const Rows& updates, const Aggregate& aggregate, double* dots) {
    cpu::partial_dots(updates, aggregate, dots, threads_);
  }

  void update_importance(int64_t n, const Vector& importance, const Vector& cosines, double alpha,
                         double floor, double* result) {
    cpu::update_importance(n, importance.data(), cosines.data(), alpha, floor, result);
  }

  void quotas(int64_t n, const Vector& importance, const Segments& segments, double beta,
              int64_t* quotas) {
    cpu::quotas(n, importance.data(), segments, beta, quotas);
  }

  void select(const Aggregate& aggregate, int64_t n, const int64_t* quotas,
              const Segments& segments, void* magnitude, int64_t* last_index) {
    cpu::select(aggregate, n, quotas, segments, magnitude, last_index, threads_);
  }

  void histogram(const Aggregate& aggregate, const Prefixes& prefixes, const Segments& segments,
                 int64_t* counts) {
    cpu::histogram(aggregate, prefixes, segments, counts, threads_);
  }

  void download(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
                const MutableRows& rewards) {
    expect_rewards(rewards);
    cpu::download(aggregate, selection, segments, rewards, threads_);
  }

  void download_(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
                 double scale, const MutableRows& parameters) {
    cpu::download_(aggregate, selection, segments, scale, parameters, threads_);
  }

  void reward_step(RewardStep& step, const Vector& importance, const Vector* weights,
                   const Vector* norms) {
    expect_aggregate(step.aggregate, step.updates);
    expect_rewards(step.rewards);
    step.importance = importance.data();
    step.weights = weights ? weights->data() : nullptr;
    step.given_norms = norms ? norms->data() : nullptr;
    cpu::reward_step(step, threads_);
  }

  void gram(const Rows& updates, double* gram) { cpu::gram(updates, gram, threads_); }

 private:
  static void expect_aggregate(void* aggregate, const Rows& updates) {
    cpu::expect_writes(aggregate, updates.d * size_of(aggregate_dtype(updates.dtype)));
  }
  static void expect_rewards(const MutableRows& rewards) {
    if (rewards.n) cpu::expect_writes(rewards.base, rewards.n * rewards.d * size_of(rewards.dtype));
  }

  const Threads threads_ = torch_threads();
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cgsv_ext, CPU, m) { implement<Cpu>(m); }

}  // namespace cgsv::binding
