// Damages messages at random, repairs their length and checksum, and decodes them: whatever comes of it must
// be what the decoder that goes an entry at a time makes of it, within the memory and time that are promised.
//
//   wire_fuzz [inputs] [seed]
#include <ctime>
#include <new>
#include <stdexcept>

#include "../core/wire.h"
#include "wire_plain.h"

namespace {
int64_t allocated = 0, most_allocated = 0;
}

// Each block of memory begins with its own size.
void* operator new(size_t bytes) {
  auto* const block = static_cast<size_t*>(std::malloc(bytes + 16));
  if (!block) throw std::bad_alloc();
  block[0] = bytes;
  allocated += int64_t(bytes);
  most_allocated = std::max(most_allocated, allocated);
  return block + 2;
}
void operator delete(void* p) noexcept {
  if (!p) return;
  size_t* const block = static_cast<size_t*>(p) - 2;
  allocated -= int64_t(block[0]);
  std::free(block);
}
void operator delete(void* p, size_t) noexcept { operator delete(p); }

namespace test {
namespace {

using plain::Bytes;

constexpr int64_t limit = 1 << 14;

class Fuzzer {
 public:
  explicit Fuzzer(uint64_t seed) : engine_(seed) {}

  // A good message of up to `limit` elements.
  Bytes message() {
    const int64_t d = below(20) == 0 ? below(limit) : 1 + below(500);
    const int levels = 1 + int(below(below(4) ? 4 : 30));
    std::vector<uint32_t> bits(size_t(d), 0u);
    std::vector<int> level(size_t(d), 0);
    const int64_t zeros = below(3) * 45, skew = 1 + below(3);
    for (size_t j = 0; j < bits.size(); ++j) {
      bits[j] = below(100) < zeros ? 0 : uint32_t(engine_()) & 0xffff;
      level[j] = int(below(levels + 1));
      for (int64_t k = 1; k < skew; ++k) level[j] = std::max(level[j], int(below(levels + 1)));
    }
    return plain::encode(bits, level, levels, below(2) ? 4 : 2, below(9), 0);
  }

  void damage(Bytes& m) {
    for (int64_t times = 1 + below(4); times > 0; --times) {
      if (m.empty()) return;
      const size_t at = size_t(below(int64_t(m.size())));
      const size_t aligned = at / 8 * 8;
      switch (below(9)) {
        case 0:
          m[at] ^= uint8_t(1 << below(8));
          break;
        case 1:
          m[at] = uint8_t(engine_());
          break;
        case 2:
          m.resize(at);
          break;
        case 3:
          m.insert(m.end(), size_t(below(24)), uint8_t(below(2)));
          break;
        case 4: {  // what counts, sizes and indices might be
          const uint64_t values[] = {
              0,          1,          uint64_t(below(600)), uint64_t(limit), ~0ull,
              1ull << 31, 1ull << 32, 1ull << 62,           1ull << 63,      uint64_t(limit) + 1};
          const uint64_t value = values[below(std::size(values))];
          const size_t bytes = below(2) ? 8 : 4;
          for (size_t k = 0; k < bytes && aligned + k < m.size(); ++k) {
            m[aligned + k] = uint8_t(value >> (8 * k));
          }
          break;
        }
        case 5: {  // a part of it once more, elsewhere
          const size_t from = size_t(below(int64_t(m.size()))) / 8 * 8;
          const size_t bytes = std::min(m.size() - from, size_t(8 * (1 + below(40))));
          const Bytes part(m.begin() + int64_t(from), m.begin() + int64_t(from + bytes));
          m.insert(m.begin() + int64_t(aligned), part.begin(), part.end());
          break;
        }
        case 6: {  // without a part
          const size_t bytes = std::min(m.size() - aligned, size_t(8 * (1 + below(10))));
          m.erase(m.begin() + int64_t(aligned), m.begin() + int64_t(aligned + bytes));
          break;
        }
        case 7:  // one more or less
          m[at] = uint8_t(m[at] + (below(2) ? 1 : 255));
          break;
        case 8:  // another number of blocks, kind or dtype
          if (m.size() > 48) m[below(3) == 0 ? 8 : below(2) ? 48 : 5] = uint8_t(below(5));
          break;
      }
    }
  }

  int64_t below(int64_t n) { return int64_t(engine_() % uint64_t(n)); }

 private:
  std::mt19937_64 engine_;
};

struct Outcome {
  int64_t accepted = 0;
  double slowest = 0;
};

void decode(const Bytes& message, const Way& way, Outcome& outcome) {
  // An array of its own, so that AddressSanitizer sees both ends.
  std::unique_ptr<std::byte[]> copy(new std::byte[message.size()]);
  std::copy_n(reinterpret_cast<const std::byte*>(message.data()), message.size(), copy.get());
  std::vector<float> elements;
  std::optional<std::vector<uint32_t>> found;
  const int64_t before = allocated;
  int64_t needed = 0, size = 0;
  const std::clock_t start = std::clock();  // of this process, whoever else is running
  try {
    most_allocated = allocated;
    const wire::Decoder decoder(copy.get(), int64_t(message.size()), -1, limit, way);
    needed = most_allocated - before;
    size = decoder.header().size;
    elements.resize(size_t(size));
    most_allocated = allocated;
    const int64_t with_result = allocated - needed;
    decoder.read(elements.data(), way);
    needed = std::max(needed, most_allocated - with_result);
    found.emplace(elements.size());
    if (!elements.empty()) std::memcpy(found->data(), elements.data(), elements.size() * 4);
  } catch (const std::invalid_argument&) {
    if (size == 0) needed = most_allocated - before;
  }
  const double seconds = double(std::clock() - start) / CLOCKS_PER_SEC;
  outcome.slowest = std::max(outcome.slowest, seconds);
  outcome.accepted += found.has_value();
  // 4 KiB for the text of an error and the like.
  CHECK(needed <= std::max(size / 8, 8 * int64_t(message.size())) + 4096);
  CHECK(seconds < 1);
  CHECK(found == plain::decode(message, uint64_t(limit)));
}

int run(int64_t inputs, uint64_t seed) {
  where = "seed " + std::to_string(seed);
  Fuzzer fuzzer(seed);
  Outcome outcome;
  Bytes good;
  for (int64_t k = 0; k < inputs; ++k) {
    if (k % 16 == 0) good = fuzzer.message();
    Bytes message = good;
    if (k % 16 != 0) fuzzer.damage(message);
    if (fuzzer.below(32) != 0) plain::repair(message);
    where = "seed " + std::to_string(seed) + ", input " + std::to_string(k);
    decode(message, serial(), outcome);
  }
  std::printf("%lld inputs, %lld accepted, slowest %.1f ms, %d failures\n",
              static_cast<long long>(inputs), static_cast<long long>(outcome.accepted),
              outcome.slowest * 1e3, failures);
  return failures != 0;
}

}  // namespace
}  // namespace test

int main(int argc, char** argv) {
  const long long inputs = argc > 1 ? std::atoll(argv[1]) : 5000;
  return test::run(inputs, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
}
