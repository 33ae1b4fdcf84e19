// Norms, aggregate and cosines against sums in long double.
#include "support.h"

namespace test {
namespace {

void against_long_double(DType dtype, int64_t n, int64_t d, Updates::Layout layout) {
  Updates updates(dtype, n, d, layout, unsigned(7 * n + d));
  const bool wide = aggregate_dtype(dtype) == DType::f64;
  if (n > 2) updates.set(1, d / 2, NAN);
  if (n > 3) updates.set(3, 0, INFINITY);
  std::vector<double> weights = random_values(n, 99);
  if (n > 4) weights[4] = NAN;
  const double gamma = 0.5;

  std::vector<double> norms, sums(static_cast<size_t>(d)), spread(static_cast<size_t>(d));
  for (const auto& row : updates.values) {
    long double sum = 0;
    for (double v : row) sum += static_cast<long double>(v) * v;
    norms.push_back(double(std::sqrt(sum)));
  }
  for (int64_t i = 0; i < n; ++i) {
    if (!is_valid(norms[i]) || std::isnan(weights[i])) continue;
    for (int64_t j = 0; j < d; ++j) {
      const double term = weights[i] * gamma * updates.values[i][j] / norms[i];
      sums[j] += term;
      spread[j] += std::fabs(term);
    }
  }
  long double length = 0;
  for (double v : sums) length += static_cast<long double>(v) * v;

  std::vector<double> first_norms, first_cosines;
  std::vector<char> first_u;
  for (const Way& way : all_ways()) {
    Guarded<double> found(n), measured(n), cosines(n), u64(d, 0);
    Guarded<float> u32(d, 0);
    void* u = wide ? static_cast<void*>(u64.data()) : u32.data();
    core::norms(updates.rows(), measured.data(), way);
    const double* given = (n + d) % 2 ? nullptr : measured.data();
    core::aggregate(updates.rows(), weights.data(), given, gamma, u, cosines.data(), found.data(),
                    way);
    CHECK(found.intact() && measured.intact() && cosines.intact() && u64.intact() && u32.intact());
    CHECK(same_bits(found.values(), measured.values()));

    double misfit = 0;
    for (int64_t j = 0; j < d; ++j) {
      const double v = wide ? u64[j] : double(u32[j]);
      misfit = std::max(misfit, std::fabs(v - sums[j]) - 1e-6 * spread[j]);
    }
    CHECK(misfit <= 0);
    for (int64_t i = 0; i < n; ++i) {
      CHECK(is_valid(found[i]) == is_valid(norms[i]));
      if (!is_valid(norms[i])) {
        CHECK(cosines[i] == 0);
        continue;
      }
      CHECK(std::fabs(found[i] - norms[i]) <= 1e-6 * norms[i]);
      long double dot = 0;
      for (int64_t j = 0; j < d; ++j)
        dot += static_cast<long double>(updates.values[i][j]) * sums[j];
      const double cosine = length > 0 ? double(dot / (norms[i] * std::sqrt(length))) : 0;
      CHECK(std::fabs(cosines[i] - cosine) <= 1e-6);
    }

    const char* raw = static_cast<const char*>(u);
    const std::vector<char> bytes(raw, raw + d * (wide ? 8 : 4));
    if (first_norms.empty()) {
      first_norms = found.values();
      first_cosines = cosines.values();
      first_u = bytes;
    }
    CHECK(same_bits(found.values(), first_norms));
    CHECK(same_bits(cosines.values(), first_cosines));
    CHECK(same_bits(bytes, first_u));
  }
}

// The same bits from rows that are aligned to their elements, to 16 bytes, or to anything in between.
void every_alignment(DType dtype, int64_t n) {
  const int64_t d = 2100, size = size_of(dtype);
  const std::vector<double> weights = random_values(n, 9);
  std::vector<double> first_cosines;
  std::vector<char> first_u;
  for (int64_t alignment = size; alignment <= 16; alignment *= 2) {
    const int64_t stride = (d * size + 15) / 16 * 16 + alignment;
    Guarded<std::byte> memory(n * stride + 32, 0);
    std::byte* base = memory.data() + alignment;
    while (reinterpret_cast<uintptr_t>(base) % 16 != uintptr_t(alignment % 16)) ++base;
    for (int64_t i = 0; i < n; ++i) {
      const std::vector<double> row = random_values(d, unsigned(i));
      for (int64_t j = 0; j < d; ++j) put(dtype, base + i * stride + j * size, row[j]);
    }
    const Rows rows = {base, stride / size, nullptr, n, d, dtype};
    Guarded<double> norms(n), cosines(n), u(d, 0);
    core::aggregate(rows, weights.data(), nullptr, 1, u.data(), cosines.data(), norms.data(),
                    one_way());
    const char* raw = reinterpret_cast<const char*>(u.data());
    const std::vector<char> bytes(raw, raw + d * size_of(aggregate_dtype(dtype)));
    if (first_u.empty()) first_cosines = cosines.values(), first_u = bytes;
    CHECK(same_bits(cosines.values(), first_cosines) && same_bits(bytes, first_u));
  }
}

void every_element_counts(DType dtype) {
  for (int64_t d = 1; d <= 100; d += simulated ? 33 : 1) {
    Updates updates(dtype, 1, d, Updates::contiguous, 0);
    for (int64_t j = 0; j < d; ++j) updates.set(0, j, 0);
    for (int64_t j = 0; j < d; j += simulated ? 3 : 1) {
      updates.set(0, j, -3);
      double norm = 0, cosine = 0, weight = 2;
      alignas(16) double u64[100];
      alignas(16) float u32[100];
      const bool wide = dtype == DType::f64;
      core::aggregate(updates.rows(), &weight, nullptr, 0.5, wide ? static_cast<void*>(u64) : u32,
                      &cosine, &norm, one_way());
      CHECK(norm == 3);
      for (int64_t k = 0; k < d; ++k) CHECK((wide ? u64[k] : double(u32[k])) == (k == j ? -1 : 0));
      CHECK(cosine == 1);
      updates.set(0, j, 0);
    }
  }
}

// Every half-precision number there is, through the norm of a row of its own.
void every_half(DType dtype) {
  for (int64_t bits = 0; bits < 1 << 16; bits += simulated ? 1021 : 61) {
    const uint16_t raw[3] = {uint16_t(bits), uint16_t(bits), uint16_t(bits)};
    Rows row;
    row.base = reinterpret_cast<const std::byte*>(raw);
    row.n = 1;
    row.d = 3;
    row.row_stride = 3;
    row.dtype = dtype;
    double norm;
    core::norms(row, &norm, one_way());
    const double v = std::fabs(get(dtype, raw));
    CHECK(std::isfinite(v) ? std::fabs(norm - v * std::sqrt(3.0)) <= 1e-6 * v
                           : !std::isfinite(norm));
  }
}

// Products that float32 cannot hold, or only as denormals.
void far_from_one(DType dtype, double scale, double weight) {
  const int64_t n = 2, d = 70;
  Updates updates(dtype, n, d, Updates::strided, 5);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < d; ++j) updates.set(i, j, updates.values[i][j] * scale);
  }
  const std::vector<double> weights(n, weight);
  std::vector<double> norms(n), cosines(n), u(d);
  core::aggregate(updates.rows(), weights.data(), nullptr, 1, u.data(), cosines.data(),
                  norms.data(), one_way());
  double dots[2][2] = {};
  for (int i = 0; i < 2; ++i)
    for (int k = 0; k < 2; ++k)
      for (int64_t j = 0; j < d; ++j) dots[i][k] += updates.values[i][j] * updates.values[k][j];
  const double a = std::sqrt(dots[0][0]), b = std::sqrt(dots[1][1]), c = dots[0][1] / a / b;
  for (int i = 0; i < 2; ++i) CHECK(std::fabs(cosines[i] - (1 + c) / std::sqrt(2 + 2 * c)) <= 1e-6);
}

#ifdef CGSV_SIMT
// Vectors of any floating dtype, elements apart, which the CPU's core leaves to the binding.
void strided_values() {
  Updates updates(DType::f32, 3, 40, Updates::aligned, 1);
  for (DType dtype : dtypes) {
    std::vector<double> norms(3), cosines(3), plain(3);
    std::vector<float> u(44), expected(44);
    const double weights[] = {0.5, -2, 0.25};
    std::vector<std::byte> raw(size_t(3 * 3 * size_of(dtype)), std::byte(0xff));
    for (int i = 0; i < 3; ++i) put(dtype, raw.data() + 3 * i * size_of(dtype), weights[i]);
    const cuda::Values values = {raw.data(), dtype, 3};
    float* to = u.data();
    float* want = expected.data();
    while (reinterpret_cast<uintptr_t>(to) % 16) ++to;
    while (reinterpret_cast<uintptr_t>(want) % 16) ++want;
    core::aggregate(updates.rows(), weights, nullptr, 1, want, plain.data(), norms.data(),
                    one_way());
    core::run(one_way(), [&](const cuda::Stream& on) {
      return cuda::aggregate(updates.rows(), values, nullptr, 1, to, cosines.data(), norms.data(),
                             on);
    });
    CHECK(same_bits(to, want, 40) && same_bits(cosines, plain));
  }
}
#endif

void run() {
  far_from_one(DType::f32, 1e-25, 1e-15);
  far_from_one(DType::f32, 1e30, 1e12);
#ifdef CGSV_SIMT
  strided_values();
#endif
  // Rows in several batches; where limits are small, of fewer rows, and chunks of several tiles.
  if (two_ways().size() > 1) {
    against_long_double(DType::f32, 1600, 40, Updates::strided);
  } else {
    for (DType dtype : dtypes) {
      against_long_double(dtype, 400, 1100 / size_of(dtype), Updates::strided);
    }
  }
  for (DType dtype : dtypes) {
    for (Updates::Layout layout : layouts) {
      for (int64_t d : {1, 33, 512, 2049}) {
        for (int64_t n : {1, 4, 7}) {
          if (!simulated || n != 4) against_long_double(dtype, n, d, layout);
        }
      }
    }
    for (int64_t n : {2, 3, 5, 8, 12, 13, 16, 17, 24, 33, 40}) {
      against_long_double(dtype, n, 100, n % 2 ? Updates::aligned : Updates::separate);
    }
    against_long_double(dtype, 5, simulated ? 10'003 : 70'003, Updates::strided);
    every_element_counts(dtype);
    for (int64_t n : {2, 5, 10}) every_alignment(dtype, n);
  }
  against_long_double(DType::f16, 130, 75, Updates::aligned);
  against_long_double(DType::f32, 1100, 70, Updates::strided);
  against_long_double(DType::f32, 3, 100'000, Updates::aligned);
  every_half(DType::bf16);
  every_half(DType::f16);
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
