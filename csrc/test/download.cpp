// Both downloads against one entry at a time, in every dtype, at every alignment, between guards.
#include "support.h"

namespace test {
namespace {

template <class A>
struct Case {
  int64_t d;
  std::vector<A> u;
  std::vector<int64_t> sizes;
  int64_t n;
  std::vector<A> magnitude;
  std::vector<int64_t> last_index;
  std::vector<std::vector<bool>> keep;

  // Agent i keeps (i / (n − 1)) of every segment.
  Case(int64_t d, const std::vector<int64_t>& sizes, int64_t n)
      : d(d), u(size_t(d)), sizes(sizes), n(n) {
    std::mt19937_64 engine(static_cast<unsigned long>(d));
    const A values[] = {A(1.0 / 3), A(-2.0 / 3), A(-0.0), A(1e-9), A(-70000), A(1 + 0x1p-9)};
    for (A& v : u) v = values[engine() % 6];
    keep.assign(size_t(n), std::vector<bool>(size_t(d)));
    magnitude.assign(size_t(n) * sizes.size(), std::numeric_limits<A>::infinity());
    last_index.assign(size_t(n) * sizes.size(), -1);
    int64_t begin = 0;
    for (size_t l = 0; l < sizes.size(); ++l) {
      const std::vector<int64_t> order = ranking(u.data(), begin, begin + sizes[l]);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t q = sizes[l] * i / std::max<int64_t>(1, n - 1);
        if (q == 0) continue;
        magnitude[i * sizes.size() + l] = std::fabs(u[order[q - 1]]);
        last_index[i * sizes.size() + l] = order[q - 1];
        for (int64_t k = 0; k < q; ++k) keep[i][order[k]] = true;
      }
      begin += sizes[l];
    }
  }
  Aggregate aggregate() const { return {u.data(), d, sizeof(A) == 8 ? DType::f64 : DType::f32}; }
  Selection selection() const { return {magnitude.data(), last_index.data()}; }
  Segments segments() const { return {sizes.data(), int64_t(sizes.size())}; }
};

// n guarded rows, `gap` elements apart, or separate; without a gap all are aligned to 16 bytes.
struct Target {
  Target(DType dtype, int64_t n, int64_t d, int64_t gap, bool separate)
      : bytes(size_of(dtype)),
        stride(gap ? d + gap : (d + 15) / 8 * 8),
        memory(((n - 1) * stride + d) * bytes, gap ? bytes : 0) {
    rows.dtype = dtype;
    rows.n = n;
    rows.d = d;
    rows.base = memory.data();
    rows.row_stride = stride;
    for (int64_t i = 0; i < n; ++i) pointers.push_back(memory.data() + i * stride * bytes);
    if (separate) rows.pointers = pointers.data();
  }
  int64_t bytes, stride;
  Guarded<std::byte> memory;
  std::vector<std::byte*> pointers;
  MutableRows rows;
};

template <class A>
void check(const Case<A>& c, DType dtype, int64_t gap, bool separate, const Way& way) {
  Target got(dtype, c.n, c.d, gap, separate), expected(dtype, c.n, c.d, gap, separate);
  for (int64_t i = 0; i < c.n; ++i) {
    for (int64_t j = 0; j < c.d; ++j) {
      put(dtype, expected.pointers[i] + j * got.bytes, c.keep[i][j] ? double(c.u[j]) : 0.0);
    }
  }
  core::download(c.aggregate(), c.selection(), c.segments(), got.rows, way);
  CHECK(got.memory.intact());
  CHECK(same_bits(got.memory.values(), expected.memory.values()));

  // w_i += scale · v_i, on top of what is there: the download itself and a few rounds more.
  const double scale = -0.3;
  const bool wide = sizeof(A) == 8 || dtype == DType::f64;
  for (int64_t i = 0; i < c.n; ++i) {
    for (int64_t j = 0; j < c.d; ++j) {
      if (!c.keep[i][j]) continue;
      std::byte* p = expected.pointers[i] + j * got.bytes;
      const double w = get(dtype, p);
      if (wide) {
        volatile double product = double(c.u[j]) * scale;
        put(dtype, p, w + product);
      } else {
        volatile float product = float(c.u[j]) * float(scale);
        put(dtype, p, float(w) + product);
      }
    }
  }
  core::download_(c.aggregate(), c.selection(), c.segments(), scale, got.rows, way);
  CHECK(got.memory.intact());
  CHECK(same_bits(got.memory.values(), expected.memory.values()));
}

template <class A>
void every_shape() {
  for (int64_t d : {1, 7, 64, 513, 4097}) {
    for (const auto& sizes : {std::vector<int64_t>{d}, {0, d / 2, 0, d - d / 2, 0}, {1, d - 1}}) {
      const Case<A> c(d, sizes, 4);
      for (DType dtype : dtypes) {
        for (int64_t gap : {0, 1, 6}) check(c, dtype, gap, gap == 6, one_way());
      }
    }
  }
  for (int64_t n : {1, 2, 13, 40, 130, 1100}) {
    const Case<A> c(50 + n % 7, {50 + n % 7}, n);
    for (DType dtype : dtypes) check(c, dtype, n % 4, n % 4 == 3, one_way());
  }
  const int64_t third = simulated ? 3'333 : 23'333;
  const Case<A> large(3 * third + 2, {third, 1, 2 * third + 1}, 5);
  for (DType dtype : dtypes) {
    for (const Way& way : all_ways()) check(large, dtype, 3, false, way);
  }
  // More than the caches are asked to hold, and chunks of more than one tile.
  const int64_t half = simulated ? 50'000 : 350'000;
  const Case<A> streamed(2 * half + 9, {half, 0, half + 9}, simulated ? 3 : 7);
  for (DType dtype : dtypes) check(streamed, dtype, 1, dtype == DType::f32, two_ways().back());
}

// A NaN ranks above infinity; (inf, -1) keeps nothing; a negative magnitude keeps everything.
template <class A>
void unusual_selections() {
  const A nan = std::numeric_limits<A>::quiet_NaN(), inf = std::numeric_limits<A>::infinity();
  const A magnitude[] = {nan, nan, inf, inf, inf, A(-1), A(0)};
  const int64_t last[] = {3, 40, -1, 1, 40, -1, -1};
  for (int64_t d : {4, 40}) {  // one by one, and in packs
    std::vector<A> u(size_t(d), A(1));
    u[1] = inf, u[2] = 0, u[0] = u[3] = nan;
    if (d > 30) u[17] = nan, u[30] = -inf;
    Target got(sizeof(A) == 4 ? DType::f32 : DType::f64, 7, d, 0, false);
    core::download({u.data(), d, got.rows.dtype}, {magnitude, last}, {&d, 1}, got.rows, one_way());
    for (int64_t i = 0; i < 7; ++i) {
      for (int64_t j = 0; j < d; ++j) {
        const bool isnan = std::isnan(u[j]),
                   above = isnan ? !std::isnan(magnitude[i]) : std::fabs(u[j]) > magnitude[i];
        const bool tie = (isnan && std::isnan(magnitude[i])) || std::fabs(u[j]) == magnitude[i];
        const bool none = magnitude[i] == inf && last[i] < 0;
        const bool keep = !none && (above || (tie && j <= last[i]));
        const double v = get(got.rows.dtype, got.pointers[i] + j * got.bytes);
        CHECK(keep ? (isnan ? std::isnan(v) : v == double(u[j])) : v == 0 && !std::signbit(v));
      }
    }
  }
}

void run() {
  unusual_selections<float>();
  unusual_selections<double>();
  every_shape<float>();
  every_shape<double>();
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
