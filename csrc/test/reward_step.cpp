// A round as a whole: the same bits as its steps one at a time, in every way to call it.
#include "support.h"

namespace test {
namespace {

struct Results {
  Results(int64_t n, int64_t d, int64_t s, DType dtype)
      : importance(n),
        cosines(n),
        norms(n),
        quotas(n * s),
        last_index(n * s),
        aggregate(d * size_of(aggregate_dtype(dtype)), 0),
        magnitude(n * s * size_of(aggregate_dtype(dtype)), size_of(aggregate_dtype(dtype))),
        rewards(n * d * size_of(dtype), size_of(dtype)),
        valid(n) {}
  Guarded<double> importance, cosines, norms;
  Guarded<int64_t> quotas, last_index;
  Guarded<std::byte> aggregate, magnitude, rewards;
  Guarded<char> valid;

  bool intact() const {
    return importance.intact() && cosines.intact() && norms.intact() && quotas.intact() &&
           last_index.intact() && aggregate.intact() && magnitude.intact() && rewards.intact() &&
           valid.intact();
  }
  bool same_as(Results& other) {
    return same_bits(importance.values(), other.importance.values()) &&
           same_bits(cosines.values(), other.cosines.values()) &&
           same_bits(norms.values(), other.norms.values()) &&
           same_bits(quotas.values(), other.quotas.values()) &&
           same_bits(last_index.values(), other.last_index.values()) &&
           same_bits(aggregate.values(), other.aggregate.values()) &&
           same_bits(magnitude.values(), other.magnitude.values()) &&
           same_bits(rewards.values(), other.rewards.values()) &&
           same_bits(valid.values(), other.valid.values());
  }
};

constexpr double gamma = 0.5, alpha = 0.9, beta = 2, least = 1e-3;

MutableRows rows_of(Results& r, int64_t n, int64_t d, DType dtype) {
  MutableRows rows;
  rows.base = r.rewards.data();
  rows.n = n;
  rows.d = d;
  rows.row_stride = d;
  rows.dtype = dtype;
  return rows;
}

void whole_against_steps(DType dtype, int64_t n, int64_t d, bool segmented) {
  Updates updates(dtype, n, d, Updates::strided, unsigned(d));
  if (n > 3) updates.set(2, d - 1, NAN);
  std::vector<double> importance;
  for (int64_t i = 0; i < n; ++i) importance.push_back(double(i + 1) / double(n * (n + 1) / 2));
  std::vector<int64_t> sizes = {d};
  if (segmented) sizes = {d / 3, 0, d - d / 3};
  const int64_t s = int64_t(sizes.size());
  const Segments segments{sizes.data(), s};

  Results steps(n, d, s, dtype);
  const Aggregate u{steps.aggregate.data(), d, aggregate_dtype(dtype)};
  core::aggregate(updates.rows(), importance.data(), nullptr, gamma, steps.aggregate.data(),
                  steps.cosines.data(), steps.norms.data(), one_way());
  for (int64_t i = 0; i < n; ++i) steps.valid[i] = is_valid(steps.norms[i]);
  core::update_importance(n, importance.data(), steps.cosines.data(), alpha, least,
                          steps.importance.data(), one_way());
  core::quotas(n, steps.importance.data(), segments, beta, steps.quotas.data(), one_way());
  core::select(u, n, steps.quotas.data(), segments, steps.magnitude.data(), steps.last_index.data(),
               one_way());
  core::download(u, {steps.magnitude.data(), steps.last_index.data()}, segments,
                 rows_of(steps, n, d, dtype), one_way());

  for (const Way& way : all_ways()) {
    for (bool given_norms : {false, true}) {
      if (simulated && given_norms == (n % 2 != 0)) continue;
      Results got(n, d, s, dtype);
      cpu::RewardStep step{};
      step.updates = updates.rows();
      step.importance = importance.data();
      step.given_norms = given_norms ? steps.norms.data() : nullptr;
      step.gamma = gamma;
      step.alpha = alpha;
      step.beta = beta;
      step.floor = least;
      if (segmented) step.segments = segments;
      step.rewards = rows_of(got, n, d, dtype);
      step.new_importance = got.importance.data();
      step.cosines = got.cosines.data();
      step.quotas = got.quotas.data();
      step.aggregate = got.aggregate.data();
      step.magnitude = got.magnitude.data();
      step.last_index = got.last_index.data();
      step.norms = got.norms.data();
      step.valid = reinterpret_cast<bool*>(got.valid.data());
      core::reward_step(step, way);
      CHECK(got.intact());
      CHECK(got.same_as(steps));
    }
  }
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t l = 0; l < s; ++l) kept = std::max(kept, steps.quotas[i * s + l] - sizes[l]);
    if (n > 3) CHECK((steps.valid[i] != 0) == (i != 2));
  }
  CHECK(kept == 0);
}

// Importance and quotas are short enough for the formulas themselves.
void formulas() {
  const double before[] = {0.5, NAN, 0.2, 0.0}, cosines[] = {0.5, 0.25, -1, 0};
  double r[4];
  core::update_importance(4, before, cosines, 0.5, 0.125, r, one_way());
  CHECK(r[0] == 0.5 / 0.875 && r[1] == 0.125 / 0.875 && r[2] == r[1] && r[3] == r[1]);
  core::update_importance(4, before, cosines, 0.5, -INFINITY, r, one_way());
  CHECK(std::fabs(r[2] + 0.4 / 0.225) < 1e-12);
  const double all_negative[] = {-1, -1, -1, -1};
  core::update_importance(4, all_negative, all_negative, 0.5, -INFINITY, r, one_way());
  CHECK(r[0] == 0 && r[3] == 0);

  const double importance[] = {0.5, 0.25, 0, -0.25};
  const int64_t sizes[] = {1000, 0, 7};
  int64_t q[12];
  core::quotas(4, importance, {sizes, 3}, 1, q, one_way());
  const double ratio = std::tanh(0.25) / std::tanh(0.5);
  CHECK(q[0] == 1000 && q[1] == 0 && q[2] == 7);
  CHECK(q[3] == int64_t(1000 * ratio) && q[4] == 0 && q[5] == int64_t(7 * ratio));
  for (int k = 6; k < 12; ++k) CHECK(q[k] == 0);
  core::quotas(4, importance, {sizes, 3}, INFINITY, q, one_way());
  CHECK(q[0] == 1000 && q[3] == 1000 && q[6] == 0 && q[9] == 0);
}

// More agents than a block of threads holds, and segments than a warp, and neither in whole numbers.
void quotas_of_many() {
  for (int64_t n : {1, 37, 300}) {
    for (int64_t count : {1, 2, 5, 32, 33, 71}) {
      std::vector<double> importance(static_cast<size_t>(n));
      for (int64_t i = 0; i < n; ++i) importance[i] = double(i * 7 % n + 1) / double(n);
      std::vector<int64_t> sizes;
      for (int64_t l = 0; l < count; ++l) sizes.push_back(l * 1000 % 777);
      Guarded<int64_t> quotas(n * count);
      core::quotas(n, importance.data(), {sizes.data(), count}, 1, quotas.data(), one_way());
      CHECK(quotas.intact());
      bool right = true;
      for (int64_t i = 0; i < n; ++i) {
        const double ratio = std::tanh(importance[i]) / std::tanh(1.0);
        for (int64_t l = 0; l < count; ++l) {
          right &= quotas[i * count + l] == int64_t(double(sizes[l]) * ratio);
        }
      }
      CHECK(right);
    }
  }
}

// Without a non-zero importance, NaN counting as none, everyone weighs 1/N.
void first_round() {
  const int64_t n = 3, d = 40;
  Updates updates(DType::f32, n, d, Updates::aligned, 3);
  const std::vector<double> uniform(n, 1.0 / n);
  for (const std::vector<double>& none : {std::vector<double>{0, 0, 0}, {NAN, 0, -INFINITY}}) {
    Results got(n, d, 1, DType::f32), expected(n, d, 1, DType::f32);
    for (Results* r : {&got, &expected}) {
      cpu::RewardStep step{};
      step.updates = updates.rows();
      step.importance = none.data();
      step.weights = r == &got ? nullptr : uniform.data();
      step.gamma = gamma, step.alpha = alpha, step.beta = beta, step.floor = least;
      step.rewards = rows_of(*r, n, d, DType::f32);
      step.new_importance = r->importance.data(), step.cosines = r->cosines.data();
      step.quotas = r->quotas.data(), step.aggregate = r->aggregate.data();
      step.magnitude = r->magnitude.data(), step.last_index = r->last_index.data();
      step.norms = r->norms.data(), step.valid = reinterpret_cast<bool*>(r->valid.data());
      core::reward_step(step, one_way());
    }
    CHECK(got.same_as(expected) && got.quotas[0] + got.quotas[1] + got.quotas[2] >= d);
  }
}

void run() {
  formulas();
  quotas_of_many();
  first_round();
  for (DType dtype : dtypes) {
    for (bool segmented : {false, true}) {
      for (int64_t d : {1, 50, 5003}) {
        for (int64_t n : {1, 5}) whole_against_steps(dtype, n, d, segmented);
      }
      for (int64_t n : {2, 13}) whole_against_steps(dtype, n, 101, segmented);
      if (!simulated) whole_against_steps(dtype, 6, 150'001, segmented);
    }
  }
  whole_against_steps(DType::f16, 40, 101, false);
  whole_against_steps(DType::bf16, 130, 40, true);
  whole_against_steps(DType::f32, 6, 10'001, false);
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
