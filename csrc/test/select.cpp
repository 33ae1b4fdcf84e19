// The selection against a stable sort, on inputs with ties of every kind.
#include "support.h"

namespace test {
namespace {

template <class A>
constexpr DType dtype_of = sizeof(A) == 8 ? DType::f64 : DType::f32;

template <class A>
void against_sort(const std::vector<A>& values, const std::vector<int64_t>& quotas,
                  const std::vector<int64_t>& sizes, const std::vector<Way>& ways) {
  const int64_t d = int64_t(values.size()), s = int64_t(sizes.size());
  const int64_t n = int64_t(quotas.size()) / s;
  Guarded<A> u(d, d % 4);
  std::copy(values.begin(), values.end(), u.data());

  std::vector<A> magnitude(quotas.size(), std::numeric_limits<A>::infinity());
  std::vector<int64_t> last_index(quotas.size(), -1);
  int64_t begin = 0;
  for (int64_t l = 0; l < s; ++l) {
    const std::vector<int64_t> order = ranking(u.data(), begin, begin + sizes[l]);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t q = std::clamp<int64_t>(quotas[i * s + l], 0, sizes[l]);
      if (q == 0) continue;
      last_index[i * s + l] = order[q - 1];
      magnitude[i * s + l] = std::fabs(u[order[q - 1]]);
    }
    begin += sizes[l];
  }

  for (const Way& way : ways) {
    Guarded<A> found(n * s);
    Guarded<int64_t> index(n * s);
    core::select({u.data(), d, dtype_of<A>}, n, quotas.data(), {sizes.data(), s}, found.data(),
                 index.data(), way);
    CHECK(found.intact() && index.intact());
    CHECK(same_bits(index.values(), last_index));
    for (int64_t k = 0; k < n * s; ++k) {
      CHECK(std::isnan(magnitude[k]) ? std::isnan(found[k]) : found[k] == magnitude[k]);
    }
  }
  CHECK(same_bits(u.values(), values) && u.intact());
}

template <class A>
std::vector<std::vector<A>> hard_inputs(int64_t d) {
  std::mt19937_64 engine(static_cast<unsigned long>(d));
  std::uniform_real_distribution<double> uniform;
  const A nan = std::numeric_limits<A>::quiet_NaN(), inf = std::numeric_limits<A>::infinity();
  const A few[] = {A(-1), A(0.5), A(2)}, odd[] = {nan, -nan, inf, -inf, A(1), A(0), A(-0.0)};
  std::vector<std::vector<A>> inputs(9, std::vector<A>(size_t(d), A(0)));
  for (int64_t j = 0; j < d; ++j) {
    inputs[0][j] = A(uniform(engine) - 0.5);
    inputs[1][j] = few[engine() % 3];
    inputs[2][j] = A(-0.75);
    inputs[3][j] = j % 2 ? A(0) : A(-0.0);
    inputs[4][j] = odd[engine() % 7];
    inputs[5][j] = A(1 + uniform(engine) / 256);
    inputs[6][j] = A(1 + std::floor(uniform(engine) * 9) * 0x1p-20);
    inputs[7][j] = uniform(engine) < 0.5 ? A(0) : A(std::exp2(-100 * uniform(engine)));
    inputs[8][j] = A(j) / A(d);
  }
  return inputs;
}

// NaNs of several payloads are one value.
template <class A>
void payloads() {
  std::vector<A> u(1025, A(1));
  for (size_t j = 0; j < u.size(); j += 3) {
    const uint64_t bits = (sizeof(A) == 4 ? 0x7fc00000u : 0x7ff8000000000000u) + j * 977;
    std::memcpy(&u[j], &bits, sizeof(A));
  }
  std::vector<int64_t> quotas;
  for (int64_t q = 0; q <= 1025; q += 41) quotas.push_back(q);
  against_sort(u, quotas, {1025}, two_ways());
}

std::vector<int64_t> spread(int64_t d, int64_t n) {
  std::vector<int64_t> quotas;
  for (int64_t i = 0; i < n; ++i) quotas.push_back(d * i / (n - 1));
  return quotas;
}

template <class A>
void small() {
  for (int64_t d : {1, 2, 40, 1024, 1025, 5003}) {
    if (simulated && d == 1024) continue;
    const std::vector<int64_t> quotas = {
        0, 1, d, d / 2, d / 2, d - 1, d + 9, -4, std::min(d, int64_t(3))};
    const std::vector<std::vector<A>> inputs = hard_inputs<A>(d);
    for (size_t k = 0; k < inputs.size(); ++k) {
      if (simulated && d > 5000 && k % 2 != sizeof(A) / 8) continue;
      const std::vector<A>& u = inputs[k];
      against_sort(u, quotas, {d}, two_ways());
      against_sort(u, spread(d, 50), {d}, {one_way()});
      const std::vector<int64_t> sizes = {0, d / 3, 0, d - d / 3};
      against_sort(u, {5, d, 0, d, 0, 1, -1, 2, 9, d / 6, 9, d / 2}, sizes, two_ways());
    }
  }
}

// More quotas than a block has threads.
template <class A>
void crowded() {
  const int64_t d = 5003, n = simulated ? 260 : 3000;
  const std::vector<std::vector<A>> inputs = hard_inputs<A>(d);
  for (int k : {1, 6}) against_sort(inputs[size_t(k)], spread(d, n), {d}, {one_way()});
}

// Quotas that end in 20 bins, among blocks whose entries are all in the first 16.
template <class A>
void many_bins() {
  const int64_t d = 128 * 2048, bins = 20, usual = 16;
  std::mt19937_64 engine(1);
  std::uniform_real_distribution<double> uniform;
  std::vector<A> u;
  std::vector<int64_t> counts(bins), quotas;
  for (int64_t j = 0; j < d; ++j) {
    const int64_t bin = j % (j < d - 2048 ? usual : bins);
    u.push_back(A(std::exp2(-double(bin)) * (1 + uniform(engine) / 256)));
    ++counts[bin];
  }
  int64_t before = 0;
  for (int64_t count : counts) {
    quotas.push_back(before + count / 2);
    before += count;
  }
  against_sort(u, quotas, {d}, two_ways());
}

// Too many candidates to collect at once: the passes that narrow them down, in many threads.
template <class A>
void large() {
  const int64_t d = simulated ? 100'003 : 1'100'003;
  const std::vector<int64_t> quotas = {0, 1, 7, d / 9, d / 3, d / 2, d - d / 5, d - 1, d};
  std::vector<std::vector<A>> inputs = hard_inputs<A>(d);
  for (int k : {1, 5, 6, 7}) {
    if (!simulated || k % 4 == int(sizeof(A) / 4))
      against_sort(inputs[size_t(k)], quotas, {d}, two_ways());
  }
}

void run() {
  // A segment that begins among the second block's columns.
  against_sort(hard_inputs<float>(12'000)[6], {9, 2, 7'000, 1, 0, 6'900}, {5'000, 0, 7'000},
               two_ways());
  payloads<float>();
  payloads<double>();
  // More agents than one launch takes: long under a sanitizer, and nothing it would see.
  if (two_ways().size() > 1) {
    against_sort(hard_inputs<float>(40)[0], spread(40, 4100), {40}, {one_way()});
  }
  small<float>();
  small<double>();
  crowded<float>();
  crowded<double>();
  if (!simulated) {  // about the CPU's way to find a block's candidates
    many_bins<float>();
    many_bins<double>();
  }
  large<float>();
  large<double>();
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
