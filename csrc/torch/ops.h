// Every op, the same for all backends: check, allocate, call.
//
// A Backend is where one call of one op runs, made once the arguments are known to be good. It has
//   device()    where results go,
//   Vector      one number an agent as its core reads them, and vector(tensor), which makes one,
//   RewardStep  its core's,
// and the functions of its core under their own names.
#pragma once

#include <torch/csrc/stable/library.h>

#include <limits>
#include <tuple>

#include "checks.h"
#include "tensors.h"

namespace cgsv::binding {

inline Segments view(const Sizes& sizes) { return {sizes.data(), int64_t(sizes.size())}; }

inline double clamp_of(std::optional<double> floor) {
  return floor.value_or(-std::numeric_limits<double>::infinity());
}

template <class Backend>
std::optional<typename Backend::Vector> vector(const std::optional<Tensor>& t) {
  if (!t) return std::nullopt;
  return Backend::vector(*t);
}

template <class T>
const T* pointer(const std::optional<T>& value) {
  return value ? &*value : nullptr;
}

template <class Backend>
Tensor norms(const std::vector<Tensor>& updates) {
  const Checks checks("norms", updates);
  const RowList<const std::byte> list(checks, "updates", updates);
  Backend backend(checks, updates[0]);
  Tensor norms = new_tensor(backend.device(), {list.n()}, ScalarType::Double);
  backend.norms(list.rows(), out<double>(norms));
  return norms;
}

template <class Backend>
Tensor partial_norms(const std::vector<Tensor>& updates) {
  const Checks checks("partial_norms", updates);
  const RowList<const std::byte> list(checks, "updates", updates);
  Backend backend(checks, updates[0]);
  Tensor squares = new_tensor(backend.device(), {list.n()}, ScalarType::Double);
  backend.partial_norms(list.rows(), out<double>(squares));
  return squares;
}

template <class Backend>
Tensor pack_row_(const Tensor& row, const std::vector<Tensor>& parts) {
  const Checks checks("pack_row_", {row});
  materialize(row);
  const MutableRows to = checks.row(row);
  const std::vector<Part> from = checks.parts(parts, to.d);
  Overlap overlap(checks);
  overlap.writes("row", row);
  for (const Tensor& part : parts) overlap.reads("parts", part);
  overlap.check();
  Backend backend(checks, row);
  Tensor norm = new_tensor(backend.device(), {}, ScalarType::Double);
  backend.pack_row({from.data(), int64_t(from.size())}, to, out<double>(norm));
  return norm;
}

template <class Backend>
std::tuple<Tensor, Tensor, Tensor> aggregate(const std::vector<Tensor>& updates,
                                             const Tensor& weights, double gamma,
                                             const std::optional<Tensor>& norms) {
  const Checks checks("aggregate", updates);
  const RowList<const std::byte> list(checks, "updates", updates);
  const Rows rows = list.rows();
  checks.vector("weights", weights, rows.n);
  if (norms) checks.vector("norms", *norms, rows.n);
  checks.gamma(gamma);

  Backend backend(checks, weights);
  Tensor u = new_aggregate(backend.device(), rows.d, rows.dtype);
  Tensor cosines = new_tensor(backend.device(), {rows.n}, ScalarType::Double);
  Tensor found = new_tensor(backend.device(), {rows.n}, ScalarType::Double);
  backend.aggregate(rows, Backend::vector(weights), pointer(vector<Backend>(norms)), gamma, out(u),
                    out<double>(cosines), out<double>(found));
  return {u, cosines, found};
}

template <class Backend>
std::tuple<Tensor, Tensor> partial_aggregate(const std::vector<Tensor>& updates,
                                             const Tensor& weights, double gamma,
                                             const Tensor& norms) {
  const Checks checks("partial_aggregate", updates);
  const RowList<const std::byte> list(checks, "updates", updates);
  const Rows rows = list.rows();
  checks.vector("weights", weights, rows.n);
  checks.vector("norms", norms, rows.n);
  checks.gamma(gamma);

  Backend backend(checks, weights);
  Tensor u = new_aggregate(backend.device(), rows.d, rows.dtype);
  Tensor dots = new_tensor(backend.device(), {rows.n + 1}, ScalarType::Double);
  backend.partial_aggregate(rows, Backend::vector(weights), Backend::vector(norms), gamma, out(u),
                            out<double>(dots));
  return {u, dots};
}

inline Aggregate aggregate_of(const Checks& checks, const Tensor& u) {
  const DType dtype = checks.aggregate(u);
  return {u.const_data_ptr(), u.numel(), dtype};
}

template <class Backend>
Tensor partial_dots(const std::vector<Tensor>& updates, const Tensor& aggregate) {
  const Checks checks("partial_dots", updates);
  const RowList<const std::byte> list(checks, "updates", updates);
  const Rows rows = list.rows();
  const Aggregate u = aggregate_of(checks, aggregate);
  checks.aggregate_fits(aggregate, rows);
  Backend backend(checks, aggregate);
  Tensor dots = new_tensor(backend.device(), {rows.n}, ScalarType::Double);
  backend.partial_dots(rows, u, out<double>(dots));
  return dots;
}

template <class Backend>
Tensor update_importance(const Tensor& importance, const Tensor& cosines, double alpha,
                         std::optional<double> floor) {
  const Checks checks("update_importance", {importance});
  const int64_t n = checks.agents("importance", importance);
  checks.vector("cosines", cosines, n);
  checks.alpha(alpha);
  checks.floor(floor);
  Backend backend(checks, importance);
  Tensor result = new_tensor(backend.device(), {n}, ScalarType::Double);
  backend.update_importance(n, Backend::vector(importance), Backend::vector(cosines), alpha,
                            clamp_of(floor), out<double>(result));
  return result;
}

template <class Backend>
Tensor quotas(const Tensor& importance, const Sizes& sizes, double beta) {
  const Checks checks("quotas", {importance});
  const int64_t n = checks.agents("importance", importance);
  checks.sizes(sizes);
  checks.beta(beta);
  Backend backend(checks, importance);
  Tensor q = new_tensor(backend.device(), {n, int64_t(sizes.size())}, ScalarType::Long);
  backend.quotas(n, Backend::vector(importance), view(sizes), beta, out<int64_t>(q));
  return q;
}

template <class Backend>
std::tuple<Tensor, Tensor> select(const Tensor& aggregate, const Tensor& quotas,
                                  const std::optional<Sizes>& segments) {
  const Checks checks("select", {aggregate});
  const Aggregate u = aggregate_of(checks, aggregate);
  const Sizes sizes = checks.segments(segments, u.d);
  checks.per_agent("quotas", quotas, segments, ScalarType::Long);
  const int64_t n = quotas.size(0);
  const Tensor given = table(quotas);
  Backend backend(checks, aggregate);
  Tensor magnitude = new_per_agent(backend.device(), n, segments, aggregate.scalar_type());
  Tensor last_index = new_per_agent(backend.device(), n, segments, ScalarType::Long);
  backend.select(u, n, in<int64_t>(given), view(sizes), out(magnitude), out<int64_t>(last_index));
  return {magnitude, last_index};
}

template <class Backend>
Tensor histogram(const Tensor& aggregate, const Tensor& prefixes, int64_t shift, int64_t bits,
                 const std::optional<Sizes>& segments) {
  const Checks checks("histogram", {aggregate});
  const Aggregate u = aggregate_of(checks, aggregate);
  const Sizes sizes = checks.segments(segments, u.d);
  checks.per_agent("prefixes", prefixes, segments, ScalarType::Long);
  checks.digit(shift, bits, u.dtype);
  const int64_t n = prefixes.size(0), digits = int64_t(1) << bits;
  const Tensor given = table(prefixes);
  Backend backend(checks, aggregate);
  Tensor counts =
      segments ? new_tensor(backend.device(), {n, int64_t(sizes.size()), digits}, ScalarType::Long)
               : new_tensor(backend.device(), {n, digits}, ScalarType::Long);
  backend.histogram(u, {in<int64_t>(given), n, int(shift), int(bits)}, view(sizes),
                    out<int64_t>(counts));
  return counts;
}

// A selection handed in by the caller, checked and laid out as the core wants it.
class GivenSelection {
 public:
  GivenSelection(const Checks& checks, const Aggregate& u, const Tensor& magnitude,
                 const Tensor& last_index, const std::optional<Sizes>& segments, int64_t n)
      : magnitude_(magnitude), last_index_(last_index) {
    checks.per_agent("magnitude", magnitude, segments,
                     u.dtype == DType::f64 ? ScalarType::Double : ScalarType::Float);
    checks.per_agent("last_index", last_index, segments, ScalarType::Long);
    checks.one_per_row("magnitude", magnitude, n);
    checks.one_per_row("last_index", last_index, n);
    magnitude_ = table(magnitude);
    last_index_ = table(last_index);
  }
  Selection selection() const { return {magnitude_.const_data_ptr(), in<int64_t>(last_index_)}; }

 private:
  Tensor magnitude_, last_index_;
};

template <class Backend>
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
  Backend backend(checks, aggregate);
  backend.download(u, given.selection(), view(sizes), rows);
}

template <class Backend>
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
  Backend backend(checks, aggregate);
  backend.download_(u, given.selection(), view(sizes), scale, rows);
}

template <class Backend>
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

  typename Backend::RewardStep step{};
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

  Backend backend(checks, importance);
  const Device device = backend.device();
  Tensor new_importance = new_tensor(device, {rows.n}, ScalarType::Double);
  Tensor cosines = new_tensor(device, {rows.n}, ScalarType::Double);
  Tensor quotas = new_per_agent(device, rows.n, segments, ScalarType::Long);
  Tensor u = new_aggregate(device, rows.d, rows.dtype);
  Tensor magnitude = new_per_agent(device, rows.n, segments, u.scalar_type());
  Tensor last_index = new_per_agent(device, rows.n, segments, ScalarType::Long);
  Tensor found = new_tensor(device, {rows.n}, ScalarType::Double);
  Tensor valid = new_tensor(device, {rows.n}, ScalarType::Bool);

  step.updates = rows;
  step.gamma = gamma;
  step.alpha = alpha;
  step.beta = beta;
  step.floor = clamp_of(floor);
  if (segments) step.segments = view(*segments);
  step.new_importance = out<double>(new_importance);
  step.cosines = out<double>(cosines);
  step.quotas = out<int64_t>(quotas);
  step.aggregate = out(u);
  step.magnitude = out(magnitude);
  step.last_index = out<int64_t>(last_index);
  step.norms = out<double>(found);
  step.valid = out<bool>(valid);
  backend.reward_step(step, Backend::vector(importance), pointer(vector<Backend>(weights)),
                      pointer(vector<Backend>(norms)));
  return {new_importance, cosines, quotas, u, magnitude, last_index, found, valid};
}

template <class Backend>
Tensor gram(const std::vector<Tensor>& updates) {
  const Checks checks("gram", updates);
  const RowList<const std::byte> list(checks, "updates", updates);
  Backend backend(checks, updates[0]);
  Tensor gram = new_tensor(backend.device(), {list.n(), list.n()}, ScalarType::Double);
  backend.gram(list.rows(), out<double>(gram));
  return gram;
}

template <class Backend>
void implement(torch::stable::detail::StableLibrary& library) {
  library.impl("norms", TORCH_BOX(&norms<Backend>));
  library.impl("partial_norms", TORCH_BOX(&partial_norms<Backend>));
  library.impl("pack_row_", TORCH_BOX(&pack_row_<Backend>));
  library.impl("aggregate", TORCH_BOX(&aggregate<Backend>));
  library.impl("partial_aggregate", TORCH_BOX(&partial_aggregate<Backend>));
  library.impl("partial_dots", TORCH_BOX(&partial_dots<Backend>));
  library.impl("update_importance", TORCH_BOX(&update_importance<Backend>));
  library.impl("quotas", TORCH_BOX(&quotas<Backend>));
  library.impl("select", TORCH_BOX(&select<Backend>));
  library.impl("histogram", TORCH_BOX(&histogram<Backend>));
  library.impl("download", TORCH_BOX(&download<Backend>));
  library.impl("download_", TORCH_BOX(&download_<Backend>));
  library.impl("reward_step", TORCH_BOX(&reward_step<Backend>));
  library.impl("gram", TORCH_BOX(&gram<Backend>));
}

}  // namespace cgsv::binding
