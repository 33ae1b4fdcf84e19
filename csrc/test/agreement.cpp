// Both cores on the same data: the same bits where the arithmetic is exact, and rounding apart where it is not.
#include "../core/key.h"
#include "support.h"

namespace test {
namespace {

const Threads one_thread;

bool same_value(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}
// Elements of the dtype; any NaN is as good as another.
bool same_values(DType dtype, const std::byte* a, const std::byte* b, int64_t count) {
  bool same = true;
  for (int64_t j = 0; j < count; ++j, a += size_of(dtype), b += size_of(dtype)) {
    same &= same_value(get(dtype, a), get(dtype, b));
  }
  return same;
}
bool near(double a, double b, double most) {
  return std::isfinite(b) ? std::fabs(a - b) <= most : !std::isfinite(a);
}

// n rows of the dtype, aligned to their elements only.
struct Matrix {
  Matrix(DType dtype, int64_t n, int64_t d)
      : bytes(n * d * size_of(dtype)), memory(bytes, size_of(dtype)) {
    std::memset(memory.data(), 0x3c, size_t(bytes));
    rows.base = memory.data();
    rows.n = n;
    rows.d = rows.row_stride = d;
    rows.dtype = dtype;
  }
  int64_t bytes;
  Guarded<std::byte> memory;
  MutableRows rows;
  bool same_as(Matrix& other) {
    return memory.intact() &&
           same_values(rows.dtype, memory.data(), other.memory.data(), rows.n * rows.d);
  }
};

// ------------------------------------------------------------------------------------------ exact

// Ties, zeros of both signs, NaNs and infinities among entries of many sizes.
template <class A>
std::vector<A> entries(int64_t d) {
  const A nan = std::numeric_limits<A>::quiet_NaN(), inf = std::numeric_limits<A>::infinity();
  const A few[] = {nan, -inf, A(-0.0), A(0), A(0.5), A(-0.5), A(1 + 0x1p-9), A(70000), A(1e-9)};
  std::mt19937_64 engine(static_cast<unsigned long>(d));
  std::vector<A> u;
  for (double v : random_values(d, 4)) u.push_back(engine() % 3 ? few[engine() % 9] : A(v));
  return u;
}

template <class A>
void selections_and_downloads(int64_t d, const std::vector<int64_t>& sizes, int64_t n) {
  const std::vector<A> u = entries<A>(d);
  const DType dtype = sizeof(A) == 8 ? DType::f64 : DType::f32;
  const Aggregate aggregate = {u.data(), d, dtype};
  const int64_t s = int64_t(sizes.size());
  const Segments segments = {sizes.data(), s};
  std::vector<int64_t> quotas, index(size_t(n * s)), expected_index(size_t(n * s)), prefixes;
  for (int64_t k = 0; k < n * s; ++k)
    quotas.push_back(sizes[size_t(k % s)] * (k / s) / n + k % 3 - 1);
  std::vector<A> magnitude(size_t(n * s)), expected(size_t(n * s));
  core::select(aggregate, n, quotas.data(), segments, magnitude.data(), index.data(), one_way());
  cpu::select(aggregate, n, quotas.data(), segments, expected.data(), expected_index.data(),
              one_thread);
  CHECK(index == expected_index);
  for (size_t k = 0; k < magnitude.size(); ++k) CHECK(same_value(magnitude[k], expected[k]));

  const int shift = KeyOf<A>::bits - 20, bits = 9;
  for (A m : expected) prefixes.push_back(int64_t(key_of(m) >> shift >> bits));
  std::vector<int64_t> counts(prefixes.size() << bits), expected_counts(counts.size());
  core::histogram(aggregate, {prefixes.data(), n, shift, bits}, segments, counts.data(), one_way());
  cpu::histogram(aggregate, {prefixes.data(), n, shift, bits}, segments, expected_counts.data(),
                 one_thread);
  CHECK(counts == expected_counts);

  const Selection selection = {expected.data(), expected_index.data()};
  for (DType to : dtypes) {
    Matrix got(to, n, d), want(to, n, d);
    core::download(aggregate, selection, segments, got.rows, one_way());
    cpu::download(aggregate, selection, segments, want.rows, one_thread);
    CHECK(got.same_as(want));
    core::download_(aggregate, selection, segments, -0.3, got.rows, one_way());
    cpu::download_(aggregate, selection, segments, -0.3, want.rows, one_thread);
    CHECK(got.same_as(want));
  }
}

void packed(DType to) {
  const std::vector<double> f64 = entries<double>(2999);
  std::vector<std::byte> source[4];
  std::vector<Part> parts;
  int64_t d = 0;
  for (int k = 0; k < 9; ++k) {
    const int64_t size = k == 3 ? 0 : 37 * k * k + 1;
    const DType dtype = dtypes[k % 4];
    std::vector<std::byte>& memory = source[k % 4];
    if (memory.empty()) {
      memory.resize(f64.size() * 8);
      for (size_t j = 0; j < f64.size(); ++j)
        put(dtype, memory.data() + j * size_of(dtype), f64[j]);
    }
    parts.push_back({memory.data() + k * size_of(dtype), size, dtype});
    d += size;
  }
  Matrix got(to, 1, d), want(to, 1, d);
  double norm, expected;
  core::pack_row({parts.data(), 9}, got.rows, &norm, one_way());
  cpu::pack_row({parts.data(), 9}, want.rows, &expected, one_thread);
  CHECK(got.same_as(want) && near(norm, expected, 1e-6 * expected));
}

// The same tanh here, so not even a last bit of it differs.
void quotas_and_importance(int64_t n, const std::vector<int64_t>& sizes, double beta) {
  std::vector<double> importance = random_values(n, 11), cosines = random_values(n, 12);
  if (n > 3)
    importance[1] = NAN, importance[2] = INFINITY, importance[3] = 0, cosines[3] = INFINITY;
  const int64_t s = int64_t(sizes.size());
  std::vector<int64_t> quotas(size_t(n * s)), expected(size_t(n * s));
  core::quotas(n, importance.data(), {sizes.data(), s}, beta, quotas.data(), one_way());
  cpu::quotas(n, importance.data(), {sizes.data(), s}, beta, expected.data());
  CHECK(quotas == expected);
  for (double floor : {1e-3, double(-INFINITY)}) {
    std::vector<double> got(static_cast<size_t>(n)), want(static_cast<size_t>(n));
    core::update_importance(n, importance.data(), cosines.data(), 0.75, floor, got.data(),
                            one_way());
    cpu::update_importance(n, importance.data(), cosines.data(), 0.75, floor, want.data());
    for (int64_t i = 0; i < n; ++i) CHECK(near(got[i], want[i], 1e-11 * std::fabs(want[i])));
  }
}

// ------------------------------------------------------------------------------------------ sums

void sums(DType dtype, int64_t n, int64_t d, Updates::Layout layout) {
  Updates updates(dtype, n, d, layout, unsigned(13 * n + d));
  if (n > 3) {
    updates.set(1, d - 1, NAN);
    updates.set(2, 0, -INFINITY);
    for (int64_t j = 0; j < d; ++j) updates.set(3, j, 0);
  }
  std::vector<double> weights = random_values(n, 5);
  if (n > 4) weights[4] = INFINITY;
  const Rows& rows = updates.rows();
  const double gamma = 0.5;

  const size_t many = size_t(n);
  std::vector<double> norms(many), expected(many), squares(many), expected_squares(many);
  core::norms(rows, norms.data(), one_way());
  cpu::norms(rows, expected.data(), one_thread);
  core::partial_norms(rows, squares.data(), one_way());
  cpu::partial_norms(rows, expected_squares.data(), one_thread);
  for (int64_t i = 0; i < n; ++i) {
    CHECK(near(norms[i], expected[i], 1e-6 * expected[i]));
    CHECK(near(squares[i], expected_squares[i], 2e-6 * expected_squares[i]));
  }

  const DType wide = aggregate_dtype(dtype);
  std::vector<double> u(size_t(d) + 2), u_expected(size_t(d) + 2);  // of doubles or floats
  void* to = u.data() + reinterpret_cast<uintptr_t>(u.data()) / 8 % 2;
  std::vector<double> cosines(many), cosines_expected(many), dots(many + 1),
      dots_expected(many + 1);
  const auto same_aggregate = [&] {
    double misfit = 0;
    for (int64_t j = 0; j < d; ++j) {
      double spread = 0;
      for (int64_t i = 0; i < n; ++i) {
        if (is_valid(expected[i]) && std::isfinite(weights[i])) {
          spread += std::fabs(weights[i] * gamma * updates.values[i][j] / expected[i]);
        }
      }
      const auto at = [&](const void* p) {
        return get(wide, static_cast<const std::byte*>(p) + j * size_of(wide));
      };
      misfit = std::max(misfit, std::fabs(at(to) - at(u_expected.data())) - 1e-6 * spread);
    }
    return misfit <= 0;
  };
  core::aggregate(rows, weights.data(), nullptr, gamma, to, cosines.data(), norms.data(),
                  one_way());
  cpu::aggregate(rows, weights.data(), expected.data(), gamma, u_expected.data(),
                 cosines_expected.data(), one_thread);
  CHECK(same_aggregate());
  for (int64_t i = 0; i < n; ++i) CHECK(near(cosines[i], cosines_expected[i], 1e-6));

  std::fill(u.begin(), u.end(), NAN);
  core::partial_aggregate(rows, weights.data(), expected.data(), gamma, to, dots.data(), one_way());
  cpu::partial_aggregate(rows, weights.data(), expected.data(), gamma, u_expected.data(),
                         dots_expected.data(), one_thread);
  CHECK(same_aggregate());
  const double length = std::sqrt(dots_expected[many]);
  for (int64_t i = 0; i <= n; ++i) {
    const double own = i < n && is_valid(expected[i]) ? expected[i] : i < n ? 0 : length;
    CHECK(near(dots[i], dots_expected[i], 1e-6 * own * length));
  }

  core::partial_dots(rows, {u_expected.data(), d, wide}, dots.data(), one_way());
  cpu::partial_dots(rows, {u_expected.data(), d, wide}, dots_expected.data(), one_thread);
  for (int64_t i = 0; i < n; ++i) {
    CHECK(near(dots[i], dots_expected[i], 1e-6 * expected[i] * length));
  }

  std::vector<double> gram(many * many), gram_expected(many * many);
  core::gram(rows, gram.data(), one_way());
  cpu::gram(rows, gram_expected.data(), one_thread);
  for (size_t k = 0; k < gram.size(); ++k) CHECK(near(gram[k], gram_expected[k], 1e-13));
}

// ------------------------------------------------------------------------------------------ a round

struct Round {
  Round(const Rows& updates, const double* importance, const std::vector<int64_t>& sizes,
        std::vector<double>* given)
      : n(updates.n),
        d(updates.d),
        many(size_t(n) * std::max<size_t>(1, sizes.size())),
        importance(size_t(n)),
        cosines(size_t(n)),
        norms(size_t(n)),
        quotas(many),
        last_index(many),
        magnitude(many),
        aggregate(size_t(d) + 2),
        valid(size_t(n)),
        rewards(updates.dtype, n, d) {
    step.updates = updates;
    step.importance = importance;
    step.weights = nullptr;
    step.given_norms = given ? given->data() : nullptr;
    step.gamma = step.alpha = 0.5;
    step.beta = 2;
    step.floor = 0x1p-6;
    step.segments = {sizes.data(), int64_t(sizes.size())};
    step.rewards = rewards.rows;
    step.new_importance = this->importance.data();
    step.cosines = cosines.data();
    step.quotas = quotas.data();
    step.aggregate = aggregate.data() + reinterpret_cast<uintptr_t>(aggregate.data()) / 8 % 2;
    step.magnitude = magnitude.data();
    step.last_index = last_index.data();
    step.norms = norms.data();
    step.valid = reinterpret_cast<bool*>(valid.data());
  }
  bool same_as(Round& other) {
    const DType wide = aggregate_dtype(step.updates.dtype);
    const auto bytes = [](const void* p) { return static_cast<const std::byte*>(p); };
    return importance == other.importance && cosines == other.cosines && quotas == other.quotas &&
           last_index == other.last_index && valid == other.valid &&
           same_values(DType::f64, bytes(norms.data()), bytes(other.norms.data()), n) &&
           same_values(wide, bytes(step.aggregate), bytes(other.step.aggregate), d) &&
           same_values(wide, bytes(magnitude.data()), bytes(other.magnitude.data()),
                       int64_t(many)) &&
           rewards.same_as(other.rewards);
  }
  int64_t n, d;
  size_t many;
  std::vector<double> importance, cosines, norms;
  std::vector<int64_t> quotas, last_index;
  std::vector<double> magnitude, aggregate;  // of doubles or floats
  std::vector<char> valid;
  Matrix rewards;
  cpu::RewardStep step = {};
};

// Every number of the round has few bits. An agent has the columns that leave its number modulo 7, and in
// them 1, 1, 1, 1, 2, 2, 2 again and again, whose squares sum to 16, so that its norm is a power of two;
// the weights' squares sum to 1/4, and every cosine is an agent's weight times two.
void exact_rounds(DType dtype, int64_t times, const std::vector<int64_t>& sizes, int64_t d) {
  const int64_t n = 7;
  const double eighths[n] = {1, 1, 1, 3, 2, 2, 2};  // the last two take no part
  std::vector<double> importance;
  for (double k : eighths) importance.push_back(k / 8);
  Updates updates(dtype, n, d, Updates::strided, 1);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < d; ++j) {
      const int64_t k = j / n;
      const double size = (k % 7 < 4 ? 1 : 2) * (k % 3 ? 1 : -1) * std::exp2(double(i));
      updates.set(i, j, j % n == i && k < 7 * times && i < 5 ? size : 0);
    }
  }
  updates.set(6, d - 1, NAN);
  std::vector<double> norms(n);
  cpu::norms(updates.rows(), norms.data(), one_thread);
  for (std::vector<double>* given : {static_cast<std::vector<double>*>(nullptr), &norms}) {
    Round got(updates.rows(), importance.data(), sizes, given);
    Round want(updates.rows(), importance.data(), sizes, given);
    core::reward_step(got.step, one_way());
    cpu::reward_step(want.step, one_thread);
    CHECK(got.same_as(want));
    CHECK(want.cosines[3] == 0.75 && want.norms[3] == 32 * std::sqrt(double(times)));
    CHECK(want.quotas[3 * std::max<size_t>(1, sizes.size())] == (sizes.empty() ? d : sizes[0]));
  }
}

void run() {
  for (int64_t d : {1, 33, 2051, 9001}) {
    const std::vector<int64_t> sizes = {d / 3, 0, d / 7, d - d / 3 - d / 7};
    selections_and_downloads<float>(d, {d}, 5);
    selections_and_downloads<float>(d, sizes, d < 2051 ? 40 : 9);
    selections_and_downloads<double>(d, {d}, d < 2051 ? 40 : 9);
    selections_and_downloads<double>(d, sizes, 5);
  }
  quotas_and_importance(1, {10}, 1);
  quotas_and_importance(37, {1000, 0, 7}, 1.5);
  quotas_and_importance(300, {123'456'789}, INFINITY);
  for (DType dtype : dtypes) {
    packed(dtype);
    sums(dtype, 1, 33, Updates::contiguous);
    sums(dtype, 7, 2051, Updates::strided);
    sums(dtype, 14, 300, Updates::separate);
    sums(dtype, 40, 70, Updates::aligned);
    exact_rounds(dtype, 1, {}, 7 * 7);
    exact_rounds(dtype, 16, {300, 0, 503}, 803);
    exact_rounds(dtype, 64, {}, 5003);
  }
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
