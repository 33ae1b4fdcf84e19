// The Gram matrix of the unit rows against sums in long double.
#include "support.h"

namespace test {
namespace {

void against_long_double(DType dtype, int64_t n, int64_t d, Updates::Layout layout) {
  Updates updates(dtype, n, d, layout, unsigned(11 * n + d));
  if (n > 3) updates.set(1, d / 2, NAN);
  if (n > 4) {
    for (int64_t j = 0; j < d; ++j) updates.set(3, j, 0);
  }
  const auto dot = [&](int64_t i, int64_t k) {
    long double sum = 0;
    for (int64_t j = 0; j < d; ++j) {
      sum += static_cast<long double>(updates.values[i][j]) * updates.values[k][j];
    }
    return double(sum);
  };
  std::vector<double> expected(size_t(n * n)), lengths;
  for (int64_t i = 0; i < n; ++i) lengths.push_back(std::sqrt(dot(i, i)));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t k = 0; k < n; ++k) {
      const bool valid = is_valid(lengths[i]) && is_valid(lengths[k]);
      expected[i * n + k] = !valid ? 0 : i == k ? 1 : dot(i, k) / lengths[i] / lengths[k];
    }
  }

  std::vector<double> first;
  for (const Way& way : all_ways()) {
    Guarded<double> gram(n * n);
    core::gram(updates.rows(), gram.data(), way);
    CHECK(gram.intact());
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t k = 0; k < n; ++k) {
        const double g = gram[i * n + k];
        CHECK(std::fabs(g - expected[i * n + k]) <= 1e-6 && std::fabs(g) <= 1);
        CHECK(g == gram[k * n + i]);
        if (i == k) CHECK(g == expected[i * n + k]);
      }
    }
    if (first.empty()) first = gram.values();
    CHECK(same_bits(gram.values(), first));
  }
}

void run() {
  for (DType dtype : dtypes) {
    for (Updates::Layout layout : layouts) {
      for (int64_t n : {1, 2, 5, 9}) against_long_double(dtype, n, 67, layout);
    }
    against_long_double(dtype, 4, 5003, Updates::strided);
  }
  against_long_double(DType::f32, 40, 100, Updates::aligned);
  against_long_double(DType::bf16, 70, 33, Updates::separate);
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
