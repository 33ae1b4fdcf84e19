// Asking for what is far ahead of its use changes no result and needs no more rows than there are. Of exactly
// allocated memory, so that AddressSanitizer sees every pointer that is read in vain.
#include "../core/cpu/kernels.h"
#include "cpu_backend.h"

namespace test {
namespace {

// What f(far, result) leaves in `count` numbers that all begin as 1.
template <class T, class F>
void same_either_way(int64_t count, const F& f) {
  std::vector<T> near(count, T(1)), far(count, T(1));
  f(false, near.data());
  f(true, far.data());
  CHECK(same_bits(near, far));
}

template <class A>
void on_updates(DType dtype, int64_t n, int64_t count) {
  const Updates x(dtype, n, count, Updates::separate, unsigned(n));
  std::vector<const void*> rows(n);
  for (int64_t i = 0; i < n; ++i) rows[i] = x.rows().row(i);
  const std::vector<double> weights = random_values(n, 1);
  const cpu::UpdateKernels& kernel = cpu::kernels().updates[int(dtype)];
  const int64_t bytes = count * size_of(dtype);

  same_either_way<double>(cpu::square_lanes, [&](bool far, double* lanes) {
    kernel.add_squares(rows[0], count, lanes, far);
  });
  std::vector<A> u(count);
  for (const int64_t next : {int64_t(0), bytes, -bytes}) {
    same_either_way<A>(count, [&](bool far, A* sum) {
      kernel.weighted_sum(rows.data(), weights.data(), n, count, sum, far, next);
      std::copy_n(sum, count, u.data());
    });
  }
  for (const auto dots : {kernel.dots, kernel.wide_dots}) {
    same_either_way<double>(n * cpu::dot_sums, [&](bool far, double* sums) {
      dots(rows.data(), n, u.data(), count, sums, far);
    });
  }
  if (n <= cpu::gram_rows) {
    same_either_way<double>(cpu::gram_rows * cpu::gram_rows * cpu::gram_lanes,
                            [&](bool far, double* sums) {
                              kernel.own_products(rows.data(), int(n), count, sums, far);
                            });
  }
}

template <class A>
void on_aggregate(int64_t count) {
  const std::vector<double> values = random_values(count, 7);
  const std::vector<A> u(values.begin(), values.end());
  const auto& kernel = cpu::kernels().on<A>();

  same_either_way<uint32_t>(cpu::first_digit_bins, [&](bool far, uint32_t* table) {
    Key<A> min = ~Key<A>(0) >> 1, max = 0;
    kernel.histogram(u.data(), count, table, &min, &max, far);
    CHECK(count == 0 || min <= max);
  });
  constexpr int shift = KeyOf<A>::bits - cpu::first_digit_bits;
  std::vector<Key<A>> prefixes;
  for (int64_t j = 0; j < std::min<int64_t>(count, 3); ++j) {
    prefixes.push_back(key_of(u[j]) >> shift);
  }
  same_either_way<uint32_t>(count + 64, [&](bool far, uint32_t* hits) {
    const int64_t found =
        kernel.match(u.data(), count, shift, prefixes.data(), int(prefixes.size()), hits, far);
    CHECK(found >= int64_t(prefixes.size()));
    std::fill(hits + found, hits + count + 64, 0);
  });
  for (const DType dtype : dtypes) {
    same_either_way<std::byte>(count * size_of(dtype), [&](bool far, std::byte* w) {
      kernel.add_kept[int(dtype)](u.data(), count, int64_t(key_of(A(0.5))), 0.25, w, far);
    });
  }
}

void run() {
  for (const int64_t count : {1, 31, 64, 200, 2048}) {
    for (const int64_t n : {1, 2, 3, 4, 11, 12, 13, 24, 25, 38, 101}) {
      on_updates<double>(DType::f64, n, count);
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
        on_updates<float>(dtype, n, count);
      }
    }
    on_aggregate<float>(count);
    on_aggregate<double>(count);
  }
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
