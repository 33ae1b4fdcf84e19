// The wire in both directions against the same an entry at a time, and messages that must be refused.
#include "../core/wire.h"

#include <functional>
#include <set>
#include <stdexcept>

#include "wire_plain.h"

namespace test {
namespace {

using plain::Bytes;

std::set<int> kinds_seen;

// The bits of u_j on the wire.
template <class A>
uint32_t rounded(A u, DType values) {
  const float f = float(u);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (values == DType::f32) return bits;
  return std::isnan(f) ? bits >> 16 | 0x40 : half_bits(f, 7, -126, 127);
}

std::vector<Bytes> encoded(const Aggregate& u, int64_t n, const Selection* selection,
                           const Segments& segments, DType values, const Way& way) {
  wire::Encoder encoder(u, n, selection, segments, values, way);
  Guarded<uint64_t> stream(encoder.bytes_of(encoder.blocks()) / 8, 0);
  encoder.write(reinterpret_cast<std::byte*>(stream.data()), way);
  CHECK(stream.intact());
  std::vector<Bytes> messages;
  for (int64_t i = 0; i < n; ++i) {
    wire::Header header;
    header.values = values;
    header.blocks = encoder.blocks_of(i);
    header.size = u.d;
    header.round = 7;
    header.since = 3;
    header.body_bytes = encoder.bytes_of(header.blocks);
    Bytes message(size_t(wire::header_bytes + header.body_bytes));
    wire::write_header(header, encoder.crc_of(header.blocks),
                       reinterpret_cast<std::byte*>(message.data()));
    std::copy_n(reinterpret_cast<uint8_t*>(stream.data()), header.body_bytes, &message[0] + 48);
    messages.push_back(message);
  }
  return messages;
}

// What the decoder makes of it, from an address aligned to nothing; or nothing, where it refuses.
std::optional<std::vector<uint32_t>> decoded(const Bytes& message, const Way& way,
                                             int64_t size = -1, int64_t limit = 1 << 24) {
  std::unique_ptr<std::byte[]> copy(new std::byte[message.size() + 1]);
  std::copy_n(reinterpret_cast<const std::byte*>(message.data()), message.size(), copy.get() + 1);
  try {
    const wire::Decoder decoder(copy.get() + 1, int64_t(message.size()), size, limit, way);
    Guarded<float> elements(decoder.header().size);
    decoder.read(elements.data(), way);
    CHECK(elements.intact());
    std::vector<uint32_t> bits(size_t(decoder.header().size));
    if (!bits.empty()) std::memcpy(bits.data(), elements.data(), bits.size() * 4);
    return bits;
  } catch (const std::invalid_argument& error) {
    CHECK(std::string(error.what()).find("expected ") == 0);
    CHECK(std::string(error.what()).find(", got ") != std::string::npos);
    return {};
  }
}

// n agents with these quotas, (n, segments), none larger than another in one segment and smaller in the
// next.
template <class A>
void both_ways(const std::vector<A>& u, const std::vector<int64_t>& quotas,
               const std::vector<int64_t>& sizes, DType values) {
  const int64_t d = int64_t(u.size()), s = int64_t(sizes.size()), n = int64_t(quotas.size()) / s;
  const Aggregate aggregate{u.data(), d, sizeof(A) == 8 ? DType::f64 : DType::f32};
  const Segments segments{sizes.data(), s};
  std::vector<A> magnitude(quotas.size());
  std::vector<int64_t> last_index(quotas.size());
  cpu::select(aggregate, n, quotas.data(), segments, magnitude.data(), last_index.data(), serial());
  const Selection selection{magnitude.data(), last_index.data()};

  std::set<std::vector<int64_t>> different;
  for (int64_t i = 0; i < n; ++i) {
    different.insert({quotas.begin() + i * s, quotas.begin() + (i + 1) * s});
  }
  const std::vector<std::vector<int64_t>> levels(different.begin(), different.end());
  std::vector<int> level(u.size(), int(levels.size()));
  for (int64_t l = 0, start = 0; l < s; start += sizes[size_t(l++)]) {
    const auto order = ranking(u.data(), start, start + sizes[size_t(l)]);
    for (size_t k = 0; k < order.size(); ++k) {
      int g = 0;
      while (g < int(levels.size()) && levels[size_t(g)][size_t(l)] <= int64_t(k)) ++g;
      level[size_t(order[k])] = g;
    }
  }
  std::vector<uint32_t> bits;
  for (A v : u) bits.push_back(rounded(v, values));

  const auto ways = d > 4096 ? two_ways() : all_ways();
  std::vector<std::vector<Bytes>> by_way;
  for (const Way& way : ways) {
    by_way.push_back(encoded(aggregate, n, &selection, segments, values, way));
  }
  for (int64_t i = 0; i < n; ++i) {
    const std::vector<int64_t> own(quotas.begin() + i * s, quotas.begin() + (i + 1) * s);
    const int mine = int(std::find(levels.begin(), levels.end(), own) - levels.begin());
    const Bytes message = plain::encode(bits, level, mine + 1, values == DType::f32 ? 4 : 2, 7, 3);
    std::vector<uint32_t> expected;
    for (size_t j = 0; j < u.size(); ++j) {
      expected.push_back(level[j] > mine ? 0 : values == DType::f32 ? bits[j] : bits[j] << 16);
    }
    CHECK(plain::decode(message, 1 << 24) == expected);
    for (size_t w = 0; w < ways.size(); ++w) {
      CHECK(by_way[w][size_t(i)] == message);
      CHECK(decoded(message, ways[w], d) == expected);
    }
    if (message.size() > 48) kinds_seen.insert(message[48]);
  }
}

template <class A>
std::vector<A> aggregate_of(int64_t d, double share_of_zeros, unsigned seed) {
  std::vector<A> u;
  std::mt19937 engine(seed);
  for (double v : random_values(d, seed)) {
    const double chance = std::uniform_real_distribution<>()(engine);
    u.push_back(chance < share_of_zeros ? A(0) : A(chance > 0.9 ? std::round(v) : v));
  }
  const A special[] = {A(-0.0),   A(NAN),   A(-NAN),   A(INFINITY), A(-INFINITY), A(1e-45),
                       A(-1e-45), A(1e-41), A(3.4e38), A(2),        A(-2),        A(2)};
  for (size_t k = 0; k < std::size(special) && u.size() > 20; ++k)
    u[k * u.size() / 13] = special[k];
  return u;
}

template <class A>
void all_of(DType values) {
  for (int64_t d : {0, 1, 2, 64, 65, 333, 4096, 4097, 9001}) {
    for (double zeros : {0.0, 0.7}) {
      const auto u = aggregate_of<A>(d, zeros, unsigned(d));
      both_ways(u, {d}, {d}, values);
      both_ways(u, {d / 2, d / 100, d, 0, d / 100, d / 3, d / 50, d * 9 / 10}, {d}, values);
      if (d < 3) continue;
      std::vector<int64_t> sizes = {d / 3, 0, 1, d - d / 3 - 1, 0}, quotas;
      for (double ratio : {0.02, 1.0, 0.5, 0.31, 0.0}) {
        for (int64_t size : sizes) quotas.push_back(int64_t(double(size) * ratio));
      }
      both_ways(u, quotas, sizes, values);
      if (d > 333) continue;
      sizes.assign(size_t(d), 1);
      both_ways(u, std::vector<int64_t>(size_t(d), 1), sizes, values);
    }
  }
  // Many chunks and, with several threads, several spans.
  constexpr int64_t d = 100'000;
  both_ways(aggregate_of<A>(d, 0.3, 1), {d / 200, d / 2, d}, {d}, values);
}

// Without a selection: what is not +0.
void one_vector() {
  for (DType values : {DType::f32, DType::bf16}) {
    for (double zeros : {0.0, 0.02, 0.5, 0.9, 0.98, 0.999, 1.0}) {
      for (int64_t d : {1, 70, 5000}) {
        const auto u = aggregate_of<float>(d, zeros, 5);
        std::vector<uint32_t> bits;
        for (float v : u) bits.push_back(rounded(v, values));
        const Bytes expected =
            plain::encode(bits, std::vector<int>(u.size()), 1, values == DType::f32 ? 4 : 2, 7, 3);
        for (const Way& way : all_ways()) {
          CHECK(encoded({u.data(), d, DType::f32}, 1, nullptr, {}, values, way)[0] == expected);
        }
        if (expected.size() > 48) kinds_seen.insert(expected[48]);
      }
    }
  }
}

// Selections that the caller made up.
void made_up() {
  const std::vector<float> u = {5, -4, 3, -2, 1, 0};
  const Aggregate aggregate{u.data(), 6, DType::f32};
  const int64_t sizes[] = {3, 3};
  const auto accepted = [&](std::vector<float> magnitude, std::vector<int64_t> last_index) {
    const Selection selection{magnitude.data(), last_index.data()};
    try {
      encoded(aggregate, 2, &selection, {sizes, 2}, DType::f32, serial());
      return true;
    } catch (const std::invalid_argument&) {
      return false;
    }
  };
  CHECK(accepted({4, 2, 3, 1}, {1, 3, 2, 4}));
  CHECK(accepted({-1, -1, INFINITY, INFINITY}, {-1, 0, -1, -1}));
  CHECK(accepted({2.5, 1.5, 0, 0}, {INT64_MAX, INT64_MIN, INT64_MAX, INT64_MAX}));
  // Each has what the other lacks.
  CHECK(!accepted({4, 1, 3, 2}, {1, 4, 2, 3}));
  CHECK(!accepted({5, 0, 3, 2}, {0, 5, 2, 3}));
}

// ---------------------------------------------------------------------------------------- refused

// A message with all three kinds, in this order.
Bytes example(DType values, int64_t d) {
  std::vector<float> u;
  for (double v : random_values(d, 3)) u.push_back(float(v));
  const std::vector<int64_t> quotas = {d / 100 + 1, d / 2, d};
  std::vector<float> magnitude(3);
  std::vector<int64_t> last_index(3);
  const Aggregate aggregate{u.data(), d, DType::f32};
  cpu::select(aggregate, 3, quotas.data(), {&d, 1}, magnitude.data(), last_index.data(), serial());
  const Selection selection{magnitude.data(), last_index.data()};
  return encoded(aggregate, 3, &selection, {&d, 1}, values, serial())[2];
}

void damaged() {
  for (DType values : {DType::f32, DType::bf16}) {
    const Bytes good = example(values, 333);
    CHECK(decoded(good, serial()).has_value());
    for (size_t length = 0; length < good.size(); ++length) {
      CHECK(!decoded(Bytes(good.begin(), good.begin() + int64_t(length)), serial()));
    }
    for (size_t k = 0; k < good.size(); ++k) {
      for (int change : {1, 0x80, 0xff}) {
        Bytes bad = good;
        bad[k] ^= uint8_t(change);
        CHECK(!decoded(bad, serial()));
      }
    }
    Bytes longer = good;
    longer.resize(longer.size() + 8);
    CHECK(!decoded(longer, serial()));
  }
}

// What a right checksum does not make right.
void forged(int64_t d, const Way& way) {
  const Bytes good = example(DType::f32, d);
  const size_t first = 48;
  const size_t count = plain::get(good, first + 8, 8);
  CHECK(good[first] == 1 && count > 2);
  const size_t second = first + (16 + count * 8 + 7) / 8 * 8;
  CHECK(good[second] == 2);
  const size_t open = size_t(d) - count, set = plain::get(good, second + 8, 8);
  const size_t map = (open + 63) / 64 * 8;
  const size_t third = second + (16 + map + set * 4 + 7) / 8 * 8;
  CHECK(good[third] == 3 && plain::get(good, third + 8, 8) == open - set);

  const auto refused = [&](const std::function<void(Bytes&)>& change) {
    Bytes bad = good;
    change(bad);
    plain::repair(bad);
    return !decoded(bad, way) && !plain::decode(bad, 1 << 24);
  };
  const auto put = [](Bytes& m, size_t at, uint64_t value, size_t bytes) {
    for (size_t k = 0; k < bytes; ++k) m[at + k] = uint8_t(value >> (8 * k));
  };
  CHECK(!refused([](Bytes&) {}));
  CHECK(refused([](Bytes& m) { m[0] = 'c'; }));
  CHECK(refused([](Bytes& m) { m[4] = 2; }));
  CHECK(refused([](Bytes& m) { m[5] = 2; }));
  CHECK(refused([](Bytes& m) { m[6] = 1; }));
  CHECK(refused([](Bytes& m) { m[7] = 1; }));
  for (uint64_t blocks : {uint64_t(0), uint64_t(2), uint64_t(4), uint64_t(0xffffffff)}) {
    CHECK(refused([&](Bytes& m) { put(m, 8, blocks, 4); }));
  }
  for (uint64_t size :
       {uint64_t(0), uint64_t(d) - 1, uint64_t(d) + 1, uint64_t(1) << 56, ~uint64_t(0)}) {
    CHECK(refused([&](Bytes& m) { put(m, 12, size, 8); }));
  }
  CHECK(refused([&](Bytes& m) { put(m, 28, 8, 8); }));
  CHECK(refused([&](Bytes& m) { put(m, 28, ~uint64_t(0), 8); }));
  for (size_t block : {first, second, third}) {
    CHECK(refused([&](Bytes& m) { m[block] = 0; }));
    CHECK(refused([&](Bytes& m) { m[block] = 4; }));
    CHECK(refused([&](Bytes& m) { m[block + 7] = 1; }));
    const uint64_t held = plain::get(good, block + 8, 8);
    for (uint64_t other :
         {uint64_t(0), held - 1, held + 1, uint64_t(d) + 1, ~uint64_t(0), uint64_t(1) << 62}) {
      CHECK(refused([&](Bytes& m) { put(m, block + 8, other, 8); }));
    }
  }
  for (size_t k : {size_t(0), count / 2, count - 1}) {
    const size_t at = first + 16 + 4 * k;
    const uint64_t index = plain::get(good, at, 4);
    CHECK(refused([&](Bytes& m) { put(m, at, uint64_t(d), 4); }));
    CHECK(refused([&](Bytes& m) { put(m, at, ~uint64_t(0), 4); }));
    if (k > 0) CHECK(refused([&](Bytes& m) { put(m, at, plain::get(m, at - 4, 4), 4); }));
    if (k + 1 < count) {
      CHECK(refused([&](Bytes& m) {
        put(m, at, plain::get(m, at + 4, 4), 4);
        put(m, at + 4, index, 4);
      }));
    }
  }
  // Every place of a bit: one more, or one less, than the count says.
  for (size_t bit = 0; bit < map * 8; bit += 1 + map / 16) {
    CHECK(refused([&](Bytes& m) { m[second + 16 + bit / 8] ^= uint8_t(1 << bit % 8); }));
  }
  CHECK(refused([&](Bytes& m) { m.resize(m.size() + 8); }));
  CHECK(refused([&](Bytes& m) { m.resize(m.size() - 8); }));
  if (third - second > 16 + map + set * 4) CHECK(refused([&](Bytes& m) { m[third - 1] = 1; }));
  // A block of nothing.
  for (int kind : {1, 2, 3}) {
    CHECK(refused([&](Bytes& m) {
      m[8] = 4;
      m.resize(m.size() + 16);
      m[m.size() - 16] = uint8_t(kind);
    }));
  }
  // The index block once more: its positions are taken.
  CHECK(refused([&](Bytes& m) {
    const Bytes block(m.begin() + int64_t(first), m.begin() + int64_t(second));
    m.resize(third);
    m.insert(m.end(), block.begin(), block.end());
  }));

  CHECK(decoded(good, way, d).has_value() && decoded(good, way, -1, d).has_value());
  CHECK(!decoded(good, way, d + 1) && !decoded(good, way, -1, d - 1));
}

// More blocks than are read in spans.
void many_blocks() {
  constexpr int64_t d = 70'000, n = 200;
  const auto u = aggregate_of<float>(d, 0, 9);
  std::vector<int64_t> quotas;
  for (int64_t i = 0; i < n; ++i) quotas.push_back(d * (i + 1) / n);
  std::vector<float> magnitude(n);
  std::vector<int64_t> last_index(n);
  const Aggregate aggregate{u.data(), d, DType::f32};
  cpu::select(aggregate, n, quotas.data(), {&d, 1}, magnitude.data(), last_index.data(), serial());
  const Selection selection{magnitude.data(), last_index.data()};
  const auto messages = encoded(aggregate, n, &selection, {&d, 1}, DType::f32, parallel(3));
  CHECK(messages == encoded(aggregate, n, &selection, {&d, 1}, DType::f32, serial()));
  std::vector<uint32_t> bits;
  for (float v : u) bits.push_back(rounded(v, DType::f32));
  CHECK(decoded(messages.back(), parallel(3)) == bits);
}

void checksums() {
  Bytes text(300'000);
  for (size_t k = 0; k < text.size(); ++k) text[k] = uint8_t(k * k >> 3);
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  for (size_t bytes = 0; bytes < 400; ++bytes) {
    const uint32_t crc = wire::crc32(data + 1, int64_t(bytes), serial());
    CHECK(crc == plain::crc32(text.data() + 1, bytes));
    const uint32_t more = wire::crc32(data + 1 + bytes, 77, serial());
    CHECK(wire::crc32_joined(crc, more, 77) == plain::crc32(text.data() + 1, bytes + 77));
  }
  for (const Way& way : all_ways()) {
    CHECK(wire::crc32(data, 300'000, way) == plain::crc32(text.data(), text.size()));
    CHECK(wire::crc32(data, 65'536 * 2, way) == plain::crc32(text.data(), 65'536 * 2));
  }
  CHECK(plain::crc32(reinterpret_cast<const uint8_t*>("123456789"), 9) == 0xcbf43926u);
}

void run() {
  checksums();
  all_of<float>(DType::f32);
  all_of<float>(DType::bf16);
  all_of<double>(DType::f32);
  all_of<double>(DType::bf16);
  // Chunks of more than one tile.
  both_ways(aggregate_of<float>(600'000, 0, 1), {600'000}, {600'000}, DType::bf16);
  one_vector();
  made_up();
  many_blocks();
  damaged();
  for (const Way& way : all_ways()) forged(333, way);
  forged(70'000, two_ways().back());
  CHECK(kinds_seen.size() == 3);
}

}  // namespace
}  // namespace test

int main() { return test::run_test(test::run); }
