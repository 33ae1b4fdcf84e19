// The ops on the CPU: check, allocate, call the core.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "checks.h"

namespace cgsv::binding {
namespace {

// torch's own threads, so that torch.set_num_threads rules here, too.
Threads torch_threads() {
  Threads threads;
  threads.count = int(torch::stable::get_num_threads());
  threads.parallel_for = [](int64_t begin, int64_t end, int64_t grain, Threads::Body body,
                            void* context) {
    torch::stable::parallel_for(begin, end, grain,
                                [&](int64_t b, int64_t e) { body(b, e, context); });
  };
  return threads;
}

// What a result can be made of.
int32_t code_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    case ScalarType::Float:
      return aoti_torch_dtype_float32();
    case ScalarType::Long:
      return aoti_torch_dtype_int64();
    default:
      return aoti_torch_dtype_bool();
  }
}

// Contiguous and uninitialised. Straight from the C interface, at half the price of the dispatched
// torch::stable::empty: a small step feels the eight of these.
Tensor new_tensor(std::initializer_list<int64_t> sizes, ScalarType dtype) {
  const int64_t strides[] = {sizes.size() == 2 ? sizes.begin()[1] : 1, 1};
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.begin(),
                                                         strides, code_of(dtype),
                                                         aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

// (n,), or (n, S) with segments.
Tensor new_per_agent(int64_t n, const std::optional<Sizes>& segments, ScalarType dtype) {
  return segments ? new_tensor({n, int64_t(segments->size())}, dtype) : new_tensor({n}, dtype);
}

Tensor new_aggregate(int64_t d, DType updates) {
  const bool wide = aggregate_dtype(updates) == DType::f64;
  Tensor u = new_tensor({d}, wide ? ScalarType::Double : ScalarType::Float);
  cpu::expect_writes(u.mutable_data_ptr(), d * size_of(aggregate_dtype(updates)));
  return u;
}

template <class T>
const T* in(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T = void>
T* out(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

template <class T>
std::vector<double> doubles_of(const Tensor& t) {
  std::vector<double> values(t.numel());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(in<T>(t)[int64_t(i) * t.stride(0)]);
  }
  return values;
}

// One value an agent, of any floating dtype and stride, in float64.
std::vector<double> doubles(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double:
      return doubles_of<double>(t);
    case ScalarType::Float:
      return doubles_of<float>(t);
    case ScalarType::Half:
      return doubles_of<torch::headeronly::Half>(t);
    default:
      return doubles_of<torch::headeronly::BFloat16>(t);
  }
}

// (N,) or (N, S) values of any strides, row by row.
template <class T>
std::vector<T> table(const Tensor& t) {
  const bool flat = t.dim() == 1;
  const int64_t n = t.size(0), s = flat ? 1 : t.size(1), step = flat ? 0 : t.stride(1);
  std::vector<T> values(n * s);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t l = 0; l < s; ++l) values[i * s + l] = in<T>(t)[i * t.stride(0) + l * step];
  }
  return values;
}

Tensor norms(const std::vector<Tensor>& updates) {
  const Checks checks("norms", updates);
  const RowList<const std::byte> rows(checks, "updates", updates);
  Tensor norms = new_tensor({rows.n()}, ScalarType::Double);
  cpu::norms(rows.rows(), out<double>(norms), torch_threads());
  return norms;
}

std::tuple<Tensor, Tensor, Tensor> aggregate(const std::vector<Tensor>& updates,
                                             const Tensor& weights, double gamma,
                                             const std::optional<Tensor>& norms) {
  const Checks checks("aggregate", updates);
  const RowList<const std::byte> list(checks, "updates", updates);
  const Rows rows = list.rows();
  checks.vector("weights", weights, rows.n);
  if (norms) checks.vector("norms", *norms, rows.n);
  checks.gamma(gamma);

  Tensor u = new_aggregate(rows.d, rows.dtype);
  Tensor cosines = new_tensor({rows.n}, ScalarType::Double);
  Tensor found = new_tensor({rows.n}, ScalarType::Double);
  const Threads threads = torch_threads();
  if (norms) {
    const std::vector<double> given = doubles(*norms);
    std::copy(given.begin(), given.end(), out<double>(found));
  } else {
    cpu::norms(rows, out<double>(found), threads);
  }
  cpu::aggregate(rows, in<double>(found), doubles(weights).data(), gamma, out(u),
                 out<double>(cosines), threads);
  return {u, cosines, found};
}

Tensor update_importance(const Tensor& importance, const Tensor& cosines, double alpha,
                         std::optional<double> floor) {
  const Checks checks("update_importance", {importance});
  const int64_t n = checks.agents("importance", importance);
  checks.vector("cosines", cosines, n);
  checks.alpha(alpha);
  checks.floor(floor);
  Tensor result = new_tensor({n}, ScalarType::Double);
  cpu::update_importance(n, doubles(importance).data(), doubles(cosines).data(), alpha,
                         floor.value_or(-std::numeric_limits<double>::infinity()),
                         out<double>(result));
  return result;
}

Tensor quotas(const Tensor& importance, const Sizes& sizes, double beta) {
  const Checks checks("quotas", {importance});
  const int64_t n = checks.agents("importance", importance);
  checks.sizes(sizes);
  checks.beta(beta);
  Tensor q = new_tensor({n, int64_t(sizes.size())}, ScalarType::Long);
  cpu::quotas(n, doubles(importance).data(), {sizes.data(), int64_t(sizes.size())}, beta,
              out<int64_t>(q));
  return q;
}

Aggregate aggregate_of(const Checks& checks, const Tensor& u) {
  const DType dtype = checks.aggregate(u);
  return {u.const_data_ptr(), u.numel(), dtype};
}

std::tuple<Tensor, Tensor> select(const Tensor& aggregate, const Tensor& quotas,
                                  const std::optional<Sizes>& segments) {
  const Checks checks("select", {aggregate});
  const Aggregate u = aggregate_of(checks, aggregate);
  const Sizes sizes = checks.segments(segments, u.d);
  checks.per_agent("quotas", quotas, segments, ScalarType::Long);
  const int64_t n = quotas.size(0);
  Tensor magnitude = new_per_agent(n, segments, aggregate.scalar_type());
  Tensor last_index = new_per_agent(n, segments, ScalarType::Long);
  cpu::select(u, n, table<int64_t>(quotas).data(), {sizes.data(), int64_t(sizes.size())},
              out(magnitude), out<int64_t>(last_index), torch_threads());
  return {magnitude, last_index};
}

// A selection handed in by the caller, checked and laid out as the core wants it.
class GivenSelection {
 public:
  GivenSelection(const Checks& checks, const Aggregate& u, const Tensor& magnitude,
                 const Tensor& last_index, const std::optional<Sizes>& segments, int64_t n) {
    checks.per_agent("magnitude", magnitude, segments,
                     u.dtype == DType::f64 ? ScalarType::Double : ScalarType::Float);
    checks.per_agent("last_index", last_index, segments, ScalarType::Long);
    checks.one_per_row("magnitude", magnitude, n);
    checks.one_per_row("last_index", last_index, n);
    if (u.dtype == DType::f64) {
      doubles_ = table<double>(magnitude);
    } else {
      floats_ = table<float>(magnitude);
    }
    last_index_ = table<int64_t>(last_index);
  }
  Selection selection() const {
    if (!doubles_.empty()) return {doubles_.data(), last_index_.data()};
    return {floats_.data(), last_index_.data()};
  }

 private:
  std::vector<double> doubles_;
  std::vector<float> floats_;
  std::vector<int64_t> last_index_;
};

// A copy-on-write tensor parts from its twin when its data is asked for to be written: before anyone
// compares addresses.
void materialize(const Tensor& t) { t.mutable_data_ptr(); }

void download(const Tensor& aggregate, const Tensor& magnitude, const Tensor& last_index,
              const std::optional<Sizes>& segments, const Tensor& rewards) {
  const Checks checks("download", {aggregate});
  materialize(rewards);
  const Aggregate u = aggregate_of(checks, aggregate);
  const Sizes sizes = checks.segments(segments, u.d);
  const MutableRows rows = checks.out(rewards, magnitude.dim() ? magnitude.size(0) : 0, u.d);
  const GivenSelection given(checks, u, magnitude, last_index, segments, rows.n);
  Overlap overlap(checks);
  overlap.writes("out", rewards);
  overlap.reads("aggregate", aggregate);
  overlap.reads("magnitude", magnitude);
  overlap.reads("last_index", last_index);
  overlap.check();
  cpu::download(u, given.selection(), {sizes.data(), int64_t(sizes.size())}, rows, torch_threads());
}

void download_(const std::vector<Tensor>& parameters, const Tensor& aggregate,
               const Tensor& magnitude, const Tensor& last_index,
               const std::optional<Sizes>& segments, double scale) {
  const Checks checks("download_", {aggregate});
  checks.scale(scale);
  for (const Tensor& row : parameters) materialize(row);
  const Aggregate u = aggregate_of(checks, aggregate);
  const Sizes sizes = checks.segments(segments, u.d);
  const RowList<std::byte> list(checks, "parameters", parameters);
  const MutableRows rows = list.rows();
  checks.columns("parameters", rows.d, u.d);
  const GivenSelection given(checks, u, magnitude, last_index, segments, rows.n);
  Overlap overlap(checks);
  overlap.writes("parameters", rows);
  overlap.reads("aggregate", aggregate);
  overlap.reads("magnitude", magnitude);
  overlap.reads("last_index", last_index);
  overlap.check();
  cpu::download_(u, given.selection(), {sizes.data(), int64_t(sizes.size())}, scale, rows,
                 torch_threads());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> reward_step(
    const std::vector<Tensor>& updates, const Tensor& importance, double gamma, double alpha,
    double beta, std::optional<double> floor, const std::optional<Tensor>& weights,
    const std::optional<Tensor>& norms, const std::optional<Sizes>& segments,
    const std::optional<Tensor>& rewards) {
  const Checks checks("reward_step", updates);
  if (rewards) materialize(*rewards);
  const RowList<const std::byte> list(checks, "updates", updates);
  const Rows rows = list.rows();
  checks.vector("importance", importance, rows.n);
  if (weights) checks.vector("weights", *weights, rows.n);
  if (norms) checks.vector("norms", *norms, rows.n);
  checks.gamma(gamma);
  checks.alpha(alpha);
  checks.beta(beta);
  checks.floor(floor);
  if (segments) checks.segments(segments, rows.d);

  cpu::RewardStep step{};
  if (rewards) {
    step.rewards = checks.out(*rewards, rows.n, rows.d);
    checks.same_dtype("out", *rewards, updates[0]);
    Overlap overlap(checks);
    overlap.writes("out", *rewards);
    overlap.reads("updates", rows);
    overlap.reads("importance", importance);
    if (weights) overlap.reads("weights", *weights);
    if (norms) overlap.reads("norms", *norms);
    overlap.check();
  }

  Tensor new_importance = new_tensor({rows.n}, ScalarType::Double);
  Tensor cosines = new_tensor({rows.n}, ScalarType::Double);
  Tensor quotas = new_per_agent(rows.n, segments, ScalarType::Long);
  Tensor u = new_aggregate(rows.d, rows.dtype);
  Tensor magnitude = new_per_agent(rows.n, segments, u.scalar_type());
  Tensor last_index = new_per_agent(rows.n, segments, ScalarType::Long);
  Tensor found = new_tensor({rows.n}, ScalarType::Double);
  Tensor valid = new_tensor({rows.n}, ScalarType::Bool);

  const std::vector<double> r = doubles(importance);
  const std::vector<double> p = weights ? doubles(*weights) : std::vector<double>();
  const std::vector<double> given = norms ? doubles(*norms) : std::vector<double>();
  step.updates = rows;
  step.importance = r.data();
  step.weights = weights ? p.data() : nullptr;
  step.given_norms = norms ? given.data() : nullptr;
  step.gamma = gamma;
  step.alpha = alpha;
  step.beta = beta;
  step.floor = floor.value_or(-std::numeric_limits<double>::infinity());
  if (segments) step.segments = {segments->data(), int64_t(segments->size())};
  step.new_importance = out<double>(new_importance);
  step.cosines = out<double>(cosines);
  step.quotas = out<int64_t>(quotas);
  step.aggregate = out(u);
  step.magnitude = out(magnitude);
  step.last_index = out<int64_t>(last_index);
  step.norms = out<double>(found);
  step.valid = out<bool>(valid);
  cpu::reward_step(step, torch_threads());
  return {new_importance, cosines, quotas, u, magnitude, last_index, found, valid};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cgsv_ext, CPU, m) {
  m.impl("norms", TORCH_BOX(&norms));
  m.impl("aggregate", TORCH_BOX(&aggregate));
  m.impl("update_importance", TORCH_BOX(&update_importance));
  m.impl("quotas", TORCH_BOX(&quotas));
  m.impl("select", TORCH_BOX(&select));
  m.impl("download", TORCH_BOX(&download));
  m.impl("download_", TORCH_BOX(&download_));
  m.impl("reward_step", TORCH_BOX(&reward_step));
}

}  // namespace cgsv::binding
