// What the holder of some columns computes of them: sums against long double and against what norms and
// aggregate make of them, counts against one entry at a time.
#include "../core/key.h"
#include "support.h"

namespace test {
namespace {

// Columns [begin, end) of updates, as another holder's rows.
struct Shard {
  Shard(const Rows& whole, int64_t begin, int64_t end) : rows(whole) {
    for (int64_t i = 0; i < whole.n; ++i) {
      pointers.push_back(whole.row(i) + begin * size_of(whole.dtype));
    }
    rows.pointers = pointers.data();
    rows.d = end - begin;
  }
  std::vector<const std::byte*> pointers;
  Rows rows;
};

double cosine_of(double dot, double square, double norm) {
  const double length = std::sqrt(square);
  if (!is_valid(norm) || !is_valid(length)) return 0;
  return std::min(1.0, std::max(-1.0, dot / (norm * length)));
}

void sums(DType dtype, int64_t n, int64_t d, Updates::Layout layout, double scale = 1) {
  Updates updates(dtype, n, d, layout, unsigned(5 * n + d));
  for (int64_t i = 0; i < n && scale != 1; ++i) {
    for (int64_t j = 0; j < d; ++j) updates.set(i, j, updates.values[i][j] * scale);
  }
  if (n > 2) updates.set(1, d - 1, NAN);
  if (n > 3) updates.set(3, 0, -INFINITY);
  std::vector<double> weights = random_values(n, 98);
  if (n > 4) weights[4] = INFINITY;
  const bool wide = aggregate_dtype(dtype) == DType::f64;
  const double gamma = 0.5;

  std::vector<double> first_dots;
  for (const Way& way : two_ways()) {
    Guarded<double> squares(n), norms(n), cosines(n), dots(n + 1), u64(d, 0), again64(d, 0);
    Guarded<float> u32(d, 0), again32(d, 0);
    void* u = wide ? static_cast<void*>(u64.data()) : u32.data();
    void* again = wide ? static_cast<void*>(again64.data()) : again32.data();
    core::partial_norms(updates.rows(), squares.data(), way);
    core::norms(updates.rows(), norms.data(), way);
    core::partial_aggregate(updates.rows(), weights.data(), norms.data(), gamma, u, dots.data(),
                            way);
    std::vector<double> found(n);
    core::aggregate(updates.rows(), weights.data(), norms.data(), gamma, again, cosines.data(),
                    found.data(), way);
    CHECK(squares.intact() && dots.intact() && u64.intact() && u32.intact());
    CHECK(same_bits(static_cast<char*>(u), static_cast<char*>(again), d * (wide ? 8 : 4)));
    for (int64_t i = 0; i < n; ++i) {
      const double root = std::sqrt(squares[i]);
      CHECK(std::isnan(root) ? std::isnan(norms[i]) : root == norms[i]);
      CHECK(cosines[i] == cosine_of(dots[i], dots[n], norms[i]));
    }

    for (int64_t i = 0; i <= n; ++i) {
      long double dot = 0, spread = 0, square = 0;
      for (int64_t j = 0; j < d; ++j) {
        const long double v = wide ? u64[j] : double(u32[j]);
        const long double x = i < n ? updates.values[i][j] : v;
        dot += x * v;
        spread += std::fabs(x * v);
        square += x * x;
      }
      if (i < n && !is_valid(norms[i])) {
        CHECK(dots[i] == 0 && !std::signbit(dots[i]));
        CHECK(!std::isfinite(squares[i]));
        continue;
      }
      CHECK(std::fabs(dots[i] - dot) <= 1e-6 * spread);
      if (i < n) CHECK(std::fabs(squares[i] - square) <= 1e-6 * square);
    }
    if (first_dots.empty()) first_dots = dots.values();
    CHECK(same_bits(dots.values(), first_dots));

    // Uneven shards: the same u, entry by entry, and sums that add up.
    std::vector<double> total_squares(n), total_dots(n + 1), spread(n + 1);
    std::vector<char> joined;
    const int64_t ends[] = {(d + 2) / 3, (d + 2) / 3 + d / 2, d};
    int64_t begin = 0;
    for (int64_t end : ends) {
      if (begin == end) continue;
      const Shard shard(updates.rows(), begin, end);
      std::vector<double> part(n + 1), u_part(end - begin);  // u is of doubles or floats
      core::partial_norms(shard.rows, part.data(), way);
      for (int64_t i = 0; i < n; ++i) total_squares[i] += part[i];
      core::partial_aggregate(shard.rows, weights.data(), norms.data(), gamma, u_part.data(),
                              part.data(), way);
      for (int64_t i = 0; i <= n; ++i) total_dots[i] += part[i];
      const char* raw = reinterpret_cast<const char*>(u_part.data());
      joined.insert(joined.end(), raw, raw + (end - begin) * (wide ? 8 : 4));
      begin = end;
    }
    CHECK(same_bits(joined.data(), static_cast<const char*>(u), int64_t(joined.size())));
    for (int64_t i = 0; i <= n; ++i) {
      const double length = i < n ? norms[i] : std::sqrt(dots[n]);
      if (!is_valid(length)) continue;
      CHECK(std::fabs(total_dots[i] - dots[i]) <= 1e-6 * length * std::sqrt(dots[n]));
      if (i < n) CHECK(std::fabs(total_squares[i] - squares[i]) <= 1e-6 * squares[i]);
    }
  }
}

// Products of all rows, NaNs and infinities too, with an aggregate that is not theirs.
void products(DType dtype, int64_t n, int64_t d, Updates::Layout layout) {
  Updates updates(dtype, n, d, layout, unsigned(7 * n + d));
  if (n > 2) updates.set(1, d - 1, NAN);
  if (n > 3) updates.set(3, 0, -INFINITY);
  const bool wide = aggregate_dtype(dtype) == DType::f64;
  // Of any alignment, and nothing after the end.
  std::vector<double> u64 = random_values(d + d % 4, 77);
  for (double& value : u64) value = float(value);
  const std::vector<float> u32(u64.begin(), u64.end());
  const double* const factors = u64.data() + d % 4;
  const Aggregate u = {wide ? static_cast<const void*>(factors) : u32.data() + d % 4, d,
                       wide ? DType::f64 : DType::f32};
  std::vector<double> first;
  for (const Way& way : two_ways()) {
    Guarded<double> dots(n);
    core::partial_dots(updates.rows(), u, dots.data(), way);
    CHECK(dots.intact());
    for (int64_t i = 0; i < n; ++i) {
      long double dot = 0, spread = 0;
      for (int64_t j = 0; j < d; ++j) {
        dot += static_cast<long double>(updates.values[i][j]) * factors[j];
        spread += std::fabs(updates.values[i][j] * factors[j]);
      }
      if (std::isnan(dot)) {
        CHECK(std::isnan(dots[i]));
      } else if (std::isinf(dot)) {
        CHECK(dots[i] == double(dot));
      } else {
        CHECK(std::fabs(dots[i] - dot) <= 1e-6 * spread);
      }
    }
    if (first.empty()) first = dots.values();
    CHECK(same_bits(dots.values(), first));
  }
}

void zeros_times_infinity() {
  Updates updates(DType::f32, 1, 9, Updates::aligned, 1);
  for (int64_t j = 0; j < 9; ++j) updates.set(0, j, 0);
  const std::vector<float> u(9, INFINITY);
  double dot = 0;
  core::partial_dots(updates.rows(), {u.data(), 9, DType::f32}, &dot, one_way());
  CHECK(std::isnan(dot));
}

template <class A>
void counts(const std::vector<A>& u, const std::vector<int64_t>& prefixes, int shift, int bits,
            const std::vector<int64_t>& sizes, const std::vector<Way>& ways) {
  const int64_t d = int64_t(u.size()), s = int64_t(sizes.size()), n = int64_t(prefixes.size()) / s;
  const int64_t digits = int64_t(1) << bits;
  std::vector<int64_t> expected(size_t(n * s * digits));
  int64_t j = 0;
  for (int64_t l = 0; l < s; ++l) {
    for (int64_t end = j + sizes[l]; j < end; ++j) {
      const uint64_t key = key_of(u[j]);
      for (int64_t p = 0; p < n; ++p) {
        if (int64_t(key >> shift >> bits) != prefixes[p * s + l]) continue;
        ++expected[(p * s + l) * digits + int64_t(key >> shift) % digits];
      }
    }
  }
  Guarded<A> values(d, d % 4);
  std::copy(u.begin(), u.end(), values.data());
  for (const Way& way : ways) {
    Guarded<int64_t> found(n * s * digits);
    core::histogram({values.data(), d, sizeof(A) == 8 ? DType::f64 : DType::f32},
                    {prefixes.data(), n, shift, bits}, {sizes.data(), s}, found.data(), way);
    CHECK(found.intact());
    CHECK(same_bits(found.values(), expected));
  }
  CHECK(same_bits(values.values(), u) && values.intact());
}

template <class A>
std::vector<std::vector<A>> inputs(int64_t d) {
  std::mt19937_64 engine(static_cast<unsigned long>(d));
  std::normal_distribution<double> normal;
  const A nan = std::numeric_limits<A>::quiet_NaN(), inf = std::numeric_limits<A>::infinity();
  const A odd[] = {nan, -nan, inf, -inf, A(1), A(0), A(-0.0), std::numeric_limits<A>::denorm_min()};
  std::vector<std::vector<A>> found(4, std::vector<A>(size_t(d)));
  for (int64_t j = 0; j < d; ++j) {
    found[0][j] = A(normal(engine));
    found[1][j] = odd[engine() % 8];
    found[2][j] = j % 2 ? A(0) : A(std::exp2(-60 * std::fabs(normal(engine))));
    found[3][j] = A(1 + std::floor(normal(engine) * 3) * 0x1p-20);
  }
  return found;
}

// Prefixes of entries here and there, some of them more than once, and some of no entry.
template <class A>
std::vector<int64_t> prefixes_of(const std::vector<A>& u, int64_t n, int64_t s, int above) {
  std::vector<int64_t> prefixes;
  for (int64_t k = 0; k < n * s; ++k) {
    const int64_t j = int64_t(uint64_t(k) * 7919 % u.size());
    prefixes.push_back(int64_t(uint64_t(key_of(u[size_t(j)])) >> above));
  }
  const int64_t none[] = {-1, -4, std::numeric_limits<int64_t>::max(),
                          std::numeric_limits<int64_t>::min(), int64_t(1) << 33};
  for (int64_t k = 3; k < n * s; k += 5) prefixes[size_t(k)] = none[k / 5 % 5];
  return prefixes;
}

template <class A>
void every_digit() {
  const int all = KeyOf<A>::bits;
  for (int64_t d : {1, 5, 4099}) {
    if (simulated && d == 5) continue;
    int turn = 0;
    for (const std::vector<A>& u : inputs<A>(d)) {
      const std::vector<int64_t> sizes = {0, d / 3, 0, d - d / 3};
      for (int shift = 0; shift < all; shift += simulated ? 13 : 3) {
        for (int bits : {1, 8, 11}) {
          if (shift + bits > all || (simulated && ++turn % 2)) continue;
          const int64_t n = shift % 4 == 0 ? 23 : 4;
          counts(u, prefixes_of(u, n, 1, shift + bits), shift, bits, {d}, {one_way()});
          counts(u, prefixes_of(u, n, 4, shift + bits), shift, bits, sizes, {one_way()});
        }
      }
      for (int bits : {1, 11, 16}) {  // the leading and the last digit
        counts(u, {0}, all - bits, bits, {d}, {one_way()});
        counts(u, prefixes_of(u, 6, 1, bits), 0, bits, {d}, {one_way()});
      }
    }
  }
}

// Many blocks, and chunks for threads, of few prefixes and of many.
template <class A>
void large() {
  const int64_t d = simulated ? 30'001 : 300'003;
  const int all = KeyOf<A>::bits;
  for (const std::vector<A>& u : inputs<A>(d)) {
    counts(u, {0}, all - 11, 11, {d}, two_ways());
    counts(u, prefixes_of(u, 40, 1, all - 11), all - 21, 10, {d}, two_ways());
    counts(u, prefixes_of(u, 5, 1, all - 21), all - 31, 10, {d}, two_ways());
    counts(u, prefixes_of(u, 40, 3, all - 21), all - 31, 10, {d - 20'000, 7, 19'993}, two_ways());
  }
}

void run() {
  for (DType dtype : dtypes) {
    for (Updates::Layout layout : layouts) {
      for (int64_t d : {1, 33, 2049}) {
        sums(dtype, d == 33 ? 7 : 4, d, layout);
        products(dtype, d == 33 ? 7 : 4, d, layout);
      }
    }
    products(dtype, 70, 40, Updates::separate);  // more rows than one call of a kernel takes
    products(dtype, 3, simulated ? 20'003 : 200'003, Updates::strided);
    sums(dtype, 20, 100, Updates::separate);
    sums(dtype, 5, simulated ? 10'003 : 200'003, Updates::strided);
  }
  zeros_times_infinity();
  sums(DType::f32, 2, 70, Updates::strided, 1e-25);
  sums(DType::f64, 2, 70, Updates::aligned, 1e30);
  every_digit<float>();
  every_digit<double>();
  large<float>();
  large<double>();
  // More prefixes than one launch takes.
  const std::vector<float> u = inputs<float>(3000)[0];
  counts(u, prefixes_of(u, 1100, 2, 20), 18, 2, {1100, 1900}, {one_way()});
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
