// Step 7: what each agent downloads, as rows of their own or added to its parameters in place.
#include <vector>

#include "parallel.h"

namespace cgsv::cpu {
namespace {

// Columns written row by row while their part of the aggregate is in the L1 cache.
constexpr int64_t tile_columns = 4096;

// f(slot, first column, last column, rows) over tiles of columns, in parallel, where rows(g) calls
// g(row, first column, count, threshold) for every row's part, which begins on a cache line except at the
// ends of a chunk: parts do not end with the tile, but overlap with one that is up to a line longer.
template <class A, class F>
void for_each_tile(int64_t d, const Selection& selection, const Segments& segments,
                   const MutableRows& rows, const Threads& threads, const F& f) {
  const int64_t bytes = size_of(rows.dtype);
  std::vector<Boundary> boundaries(rows.n * segments.count);
  for (int64_t k = 0; k < rows.n * segments.count; ++k) {
    boundaries[k] =
        boundary(static_cast<const A*>(selection.magnitude)[k], selection.last_index[k]);
  }

  const auto parts = [&](int64_t i, int64_t l, int64_t begin, int64_t end, const auto& g) {
    const Boundary& b = boundaries[i * segments.count + l];
    const int64_t split = std::clamp(b.last_index, begin - 1, end - 1) + 1;
    if (begin < split) g(i, begin, split - begin, b.through);
    if (split < end) g(i, split, end - split, b.beyond);
  };

  std::vector<int64_t> starts(segments.count + 1);
  for (int64_t l = 0; l < segments.count; ++l) starts[l + 1] = starts[l] + segments.sizes[l];

  // A task is a chunk of columns of some rows: long parts of each row, yet enough tasks for many
  // threads.
  const Chunks chunks(d, 2 * tile_columns);
  const int64_t blocks = std::min(rows.n, (128 + chunks.count - 1) / chunks.count);
  const int64_t tasks = chunks.count * blocks;
  for_each(threads, slots_for(threads, tasks, rows.n * d), tasks, [&](int64_t task, int slot) {
    const int64_t c = task / blocks, block = task % blocks;
    const int64_t chunk_end = chunks.end(c);
    int64_t l =
        std::upper_bound(starts.begin(), starts.end(), chunks.begin(c)) - starts.begin() - 1;
    for (int64_t begin = chunks.begin(c); begin < chunk_end; ++l) {
      const int64_t end = std::min(chunk_end, starts[l + 1]);
      for (int64_t tile = begin; tile < end; tile += tile_columns) {
        const int64_t tile_end = std::min(end, tile + tile_columns + cache_line / bytes);
        f(slot, tile, tile_end, [&](const auto& g) {
          for (int64_t i = rows.n * block / blocks; i < rows.n * (block + 1) / blocks; ++i) {
            const auto address = reinterpret_cast<uintptr_t>(rows.row(i)) + tile * bytes;
            const int64_t to_line = int64_t(-address % cache_line) / bytes;
            const int64_t from = tile == begin ? begin : std::min(end, tile + to_line);
            const int64_t to =
                tile + tile_columns >= end ? end : std::min(end, tile + tile_columns + to_line);
            parts(i, l, from, to, g);
          }
        });
      }
      begin = end;
    }
    // Streamed stores are ordered by nothing less.
    std::atomic_thread_fence(std::memory_order_seq_cst);
  });
}

template <class A>
void download_as(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
                 const MutableRows& rewards, const Threads& threads) {
  const A* u = static_cast<const A*>(aggregate.data);
  const auto keep = kernels().on<A>().keep[int(rewards.dtype)];
  const auto round_to = kernels().on<A>().round_to[int(rewards.dtype)];
  const int64_t bytes = size_of(rewards.dtype);
  // Of rows that no cache keeps, stores that leave the caches alone save the read.
  const bool streamed = is_far(rewards.n * rewards.d * bytes);
  // Rounded once for all agents, where there is anything to round.
  const bool rounds = rewards.dtype != aggregate.dtype;
  const int64_t tile_bytes = tile_columns * bytes + 2 * cache_line;
  std::vector<std::byte> rounded(rounds ? threads.count * tile_bytes : 0);
  for_each_tile<A>(aggregate.d, selection, segments, rewards, threads,
                   [&](int slot, int64_t first, int64_t last, const auto& rows) {
                     const void* v = u + first;
                     if (rounds) {
                       round_to(u + first, last - first, &rounded[slot * tile_bytes]);
                       v = &rounded[slot * tile_bytes];
                     }
                     rows([&](int64_t i, int64_t j, int64_t count, int64_t threshold) {
                       const auto v_j = static_cast<const std::byte*>(v) + (j - first) * bytes;
                       keep(u + j, v_j, count, threshold, rewards.row(i) + j * bytes, streamed);
                     });
                   });
}

template <class A>
void add_as(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
            double scale, const MutableRows& parameters, const Threads& threads) {
  const A* u = static_cast<const A*>(aggregate.data);
  const auto add_kept = kernels().on<A>().add_kept[int(parameters.dtype)];
  const int64_t bytes = size_of(parameters.dtype);
  const bool far = is_far(parameters.n * parameters.d * bytes);
  for_each_tile<A>(aggregate.d, selection, segments, parameters, threads,
                   [&](int, int64_t, int64_t, const auto& rows) {
                     rows([&](int64_t i, int64_t j, int64_t count, int64_t threshold) {
                       add_kept(u + j, count, threshold, scale, parameters.row(i) + j * bytes, far);
                     });
                   });
}

}  // namespace

void download(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
              const MutableRows& rewards, const Threads& threads) {
  const auto run = aggregate.dtype == DType::f64 ? download_as<double> : download_as<float>;
  run(aggregate, selection, segments, rewards, threads);
}

void download_(const Aggregate& aggregate, const Selection& selection, const Segments& segments,
               double scale, const MutableRows& parameters, const Threads& threads) {
  const auto run = aggregate.dtype == DType::f64 ? add_as<double> : add_as<float>;
  run(aggregate, selection, segments, scale, parameters, threads);
}

}  // namespace cgsv::cpu
