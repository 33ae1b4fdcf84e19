// A row packed from parts against one element after the other, and its norm against that of the row.
#include "support.h"

namespace test {
namespace {

// The value that x, an element of one dtype, has in another, as raw bytes, rounded once.
void put_once(DType to, void* p, double x) {
  if (to == DType::bf16 || to == DType::f16) {
    const uint16_t bits =
        to == DType::bf16 ? half_bits(x, 7, -126, 127) : half_bits(x, 10, -14, 15);
    std::memcpy(p, &bits, 2);
  } else {
    put(to, p, x);
  }
}

// Values that are hard to round in any of the dtypes, among random ones of all sizes.
double hard_value(int64_t j, std::mt19937_64& engine) {
  constexpr double least = 0x1p-1074, tie = 0x1p-9, beyond = 0x1p-40;
  const double hard[] = {0.0,
                         -0.0,
                         least,
                         INFINITY,
                         65504,
                         65519.99,
                         65520,
                         0x1.ffffffp127,
                         0x1.fefffffffp127,
                         0x1.ffp127,
                         1e300,
                         1 + 2 * tie,
                         1 + 2 * tie + beyond,
                         1 + tie - beyond,
                         1 + tie / 2,
                         1 + tie / 4 + beyond,
                         1 + 3 * (tie / 4) - beyond,
                         0x1p-25,
                         0x1p-25 + 0x1p-60,
                         0x1.8p-24 - 0x1p-60,
                         0x1p-134 + 0x1p-170,
                         0x1.8p-133 - 0x1p-180,
                         0x1p-150,
                         0x1.00000000001p-150};
  constexpr int64_t count = int64_t(std::size(hard));
  if (j % 3 == 0) return (j % 2 ? -1 : 1) * hard[j / 3 % count];
  return std::ldexp(std::normal_distribution<double>()(engine), int(engine() % 40) - 20);
}

class Source {
 public:
  // Parts of these sizes, their dtypes in turn, each at an address aligned to its element only or, where
  // `aligned`, to 16 bytes. Of values that are not hard, the norm depends on every one.
  Source(const std::vector<int64_t>& sizes, const std::vector<DType>& types, bool aligned,
         bool hard) {
    std::mt19937_64 engine(unsigned(sizes.size()));
    std::normal_distribution<double> normal;
    size_t bytes = 16;
    for (int64_t size : sizes) bytes += size_t(size) * 8 + 32;
    memory_.assign(bytes, std::byte(0xff));
    std::byte* p = memory_.data();
    for (size_t k = 0; k < sizes.size(); ++k) {
      const DType dtype = types[k % types.size()];
      const auto address = reinterpret_cast<uintptr_t>(p);
      p += (16 - address % 16) % 16 + (aligned ? 0 : size_of(dtype) * int64_t(1 + k % 3));
      parts_.push_back({p, sizes[k], dtype});
      for (int64_t j = 0; j < sizes[k]; ++j, p += size_of(dtype)) {
        put_once(dtype, p, hard ? hard_value(int64_t(values.size()), engine) : normal(engine));
        values.push_back(get(dtype, p));
      }
    }
  }
  PartList list() const { return {parts_.data(), int64_t(parts_.size())}; }
  void set(size_t part, int64_t j, double v) {
    put(parts_[part].dtype,
        const_cast<std::byte*>(parts_[part].data) + j * size_of(parts_[part].dtype), v);
  }

  std::vector<double> values;  // all elements, as stored

 private:
  std::vector<std::byte> memory_;
  std::vector<Part> parts_;
};

MutableRows row_of(std::byte* base, int64_t d, DType dtype) {
  MutableRows row;
  row.base = base;
  row.n = 1;
  row.d = d;
  row.dtype = dtype;
  return row;
}

// ‖row‖ as the third row of a matrix of five.
double norm_in_a_matrix(const std::byte* row, int64_t d, DType dtype, const Way& way) {
  const int64_t bytes = d * size_of(dtype);
  std::vector<std::byte> matrix(size_t(5 * bytes));
  std::memcpy(matrix.data() + 2 * bytes, row, size_t(bytes));
  Rows rows;
  rows.base = matrix.data();
  rows.row_stride = rows.d = d;
  rows.n = 5;
  rows.dtype = dtype;
  double norms[5];
  core::norms(rows, norms, way);
  return norms[2];
}

void packs(const std::vector<int64_t>& sizes, const std::vector<DType>& types, DType to,
           bool aligned, bool hard, const std::vector<Way>& ways) {
  const Source source(sizes, types, aligned, hard);
  const int64_t d = int64_t(source.values.size()), bytes = size_of(to);
  std::vector<std::byte> expected(size_t(d * bytes));
  for (int64_t j = 0; j < d; ++j)
    put_once(to, expected.data() + j * bytes, source.values[size_t(j)]);

  double first = 0;
  for (size_t w = 0; w < ways.size(); ++w) {
    Guarded<std::byte> row(d * bytes, aligned ? 0 : bytes);
    Guarded<double> norm(1);
    core::pack_row(source.list(), row_of(row.data(), d, to), norm.data(), ways[w]);
    CHECK(row.intact() && norm.intact());
    CHECK(d == 0 || same_bits(row.data(), expected.data(), d * bytes));
    if (w == 0) first = norm[0];
    CHECK(same_bits(norm.data(), &first, 1));
    if (d == 0) {
      CHECK(norm[0] == 0);
    } else {
      const double alone = norm_in_a_matrix(expected.data(), d, to, ways[w]);
      CHECK(same_bits(norm.data(), &alone, 1));
    }
  }
}

// Sizes that sum to d, with cuts at random places.
std::vector<int64_t> ragged(int64_t d, int64_t count, unsigned seed) {
  std::mt19937_64 engine(seed);
  std::vector<int64_t> cuts = {0, d}, sizes;
  for (int64_t k = 1; k < count; ++k) cuts.push_back(int64_t(engine() % uint64_t(d + 1)));
  std::sort(cuts.begin(), cuts.end());
  for (size_t k = 1; k < cuts.size(); ++k) sizes.push_back(cuts[k] - cuts[k - 1]);
  return sizes;
}

void not_a_number(DType from, DType to) {
  Source source({5, 70, 9}, {from}, false, false);
  source.set(1, 33, NAN);
  source.set(2, 8, -INFINITY);
  Guarded<std::byte> row(84 * size_of(to), size_of(to));
  double norm;
  core::pack_row(source.list(), row_of(row.data(), 84, to), &norm, one_way());
  CHECK(row.intact());
  CHECK(std::isnan(norm));
  for (int64_t j = 0; j < 84; ++j) {
    CHECK(std::isnan(get(to, row.data() + j * size_of(to))) == (j == 38));
  }
  CHECK(get(to, row.data() + 83 * size_of(to)) == -INFINITY);
}

void run() {
  const std::vector<DType> all(std::begin(dtypes), std::end(dtypes));
  for (DType to : dtypes) {
    for (DType from : dtypes) {
      for (bool aligned : {false, true}) {
        packs({150}, {from}, to, aligned, true, two_ways());
        packs({1, 0, 31, 64, 2, 33, 0, 16}, {from}, to, aligned, false, two_ways());
      }
      not_a_number(from, to);
    }
    packs({}, all, to, false, false, all_ways());
    packs({0, 0}, all, to, false, false, all_ways());
    packs({1}, all, to, false, false, all_ways());
    packs({0, 1, 0}, all, to, true, false, all_ways());
    packs(std::vector<int64_t>(2500, 1), all, to, false, true, two_ways());
    packs(std::vector<int64_t>(2500, 1), all, to, false, false, two_ways());
    packs(ragged(5003, 40, 1), all, to, false, false, all_ways());
    packs(ragged(20011, 9, 2), all, to, true, false, two_ways());
    if (!simulated) {  // more than one chunk of the CPU's, and of its blocks
      packs(ragged(300011, 700, 3), all, to, false, false, all_ways());
      packs(ragged(262144, 3, 4), {to}, to, true, false, all_ways());
    }
  }
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
