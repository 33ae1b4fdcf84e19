#include "scheduler.h"

#include <cstdio>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>

#include "error.h"
#include "race/race.h"
#include "shared.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {

const Launch* running = nullptr;
Block* block = nullptr;
unsigned rank = 0;

namespace {
unsigned long long switched = 0;
Context host;
}  // namespace

unsigned long long switches() { return switched; }

// ---------------------------------------------------------------------------------------- threads

namespace {

// Every fiber runs one thread after the other, as long as the next in turn has not begun.
void thread_main() {
  fiber_entered();
  for (;;) {
    running->invoke(running->arguments);
    Thread& self = block->thread[rank];
    Warp& warp = block->warp[rank / warp_size];
    const unsigned lane = 1u << rank % warp_size;
    if (block->arrived != 0) {
      fail("leaves the kernel while others wait at the barrier %s:%d", block->site.file,
           block->site.line);
    }
    for (int i = 0; i < warp.groups; ++i) {
      if (warp.group[i].mask & lane) {
        fail("leaves the kernel while others of its warp wait for it at %s:%d",
             warp.group[i].site.file, warp.group[i].site.line);
      }
    }
    warp.exited |= lane;
    ++block->exited;
    char* stack = self.stack;
    self.context = nullptr;
    if (block->ready.empty()) {
      give_stack(stack);
      switch_fiber(nullptr, host, nullptr);
    }
    rank = block->ready.pop();
    Thread& next = block->thread[rank];
    threadIdx = next.index;
    if (next.context != nullptr) {
      give_stack(stack);
      ++switched;
      switch_fiber(nullptr, next.context, next.stack);
    }
    next.stack = stack;
  }
}

// Continues the thread whose turn it is, leaving the running flow of control in `from`.
void run_next(Context* from) {
  rank = block->ready.pop();
  Thread& next = block->thread[rank];
  if (from == &next.context) return;
  threadIdx = next.index;
  if (next.context == nullptr) {
    next.stack = take_stack();
    next.context = new_fiber(next.stack, thread_main);
  }
  ++switched;
  switch_fiber(from, next.context, next.stack);
}

}  // namespace

void reschedule() {
  Context* here = &block->thread[rank].context;
  if (block->ready.empty()) {
    switch_fiber(here, host, nullptr);
  } else {
    run_next(here);
  }
}

void preempt() {
  if (order == Order::random && random_below(8) != 0) return;
  block->ready.push(rank);
  reschedule();
}

// ---------------------------------------------------------------------------------------- barriers

namespace {

// Returns when all threads of the block have come, having counted those with a true predicate.
int arrive(Vote vote, bool at_grid, int predicate, Site site) {
  Block& b = *block;
  if (b.exited != 0) {
    fail("waits at the barrier %s:%d, but %u threads of its block have left the kernel", site.file,
         site.line, b.exited);
  }
  if (b.arrived == 0) {
    b.site = site, b.vote = vote, b.at_grid = at_grid, b.votes = 0;
  } else if (b.vote != vote || b.at_grid != at_grid || !(b.site == site)) {
    fail("waits at the barrier %s:%d while others wait at %s:%d", site.file, site.line, b.site.file,
         b.site.line);
  }
  b.votes += predicate != 0;
  if (++b.arrived == b.size && !at_grid) {
    b.arrived = 0, b.result = b.votes;
    race::block_barrier();
    b.ready.push_all(b.size);
  }
  reschedule();
  return b.result;
}

}  // namespace

int block_barrier(Vote vote, int predicate, const char* file, int line) {
  const int count = arrive(vote, false, predicate, {file, line});
  return vote == Vote::any ? count != 0 : vote == Vote::all ? count == int(block->size) : count;
}

void grid_barrier(const char* file, int line) {
  if (!running->cooperative) {
    fail("%s:%d: syncs the grid of a launch that is not cooperative", file, line);
  }
  arrive(Vote::none, true, 0, {file, line});
}

void misaligned(const void* p, size_t size, const char* file, int line) {
  fail("%s:%d: an atomic on %zu bytes at %p, which is misaligned", file, line, size, p);
}
void fence() { race::fence(); }
bool cooperative() { return running->cooperative; }

// ---------------------------------------------------------------------------------------- blocks

namespace {

void begin_block(Block& b, unsigned number) {
  if (b.shape.x != blockDim.x || b.shape.y != blockDim.y || b.shape.z != blockDim.z) {
    b.shape = blockDim;
    unsigned i = 0;
    for (unsigned z = 0; z < blockDim.z; ++z) {
      for (unsigned y = 0; y < blockDim.y; ++y) {
        for (unsigned x = 0; x < blockDim.x; ++x) b.thread[i++].index = {x, y, z};
      }
    }
    b.size = i;
  }
  b.number = number;
  for (unsigned w = 0; w * warp_size < b.size; ++w) {
    const unsigned rest = b.size - w * warp_size;
    b.warp[w].lanes = rest < warp_size ? (1u << rest) - 1 : ~0u;
    b.warp[w].exited = 0;
    b.warp[w].groups = 0;
  }
  b.arrived = b.exited = 0;
  b.at_grid = false;
  b.ready.push_all(b.size);
}

void report_deadlock() {
  std::string text = "deadlock: no thread can run";
  char line[256];
  const Block& b = *block;
  if (b.arrived != 0) {
    std::snprintf(line, sizeof(line), "\n  %u of %u threads wait at the barrier %s:%d", b.arrived,
                  b.size, b.site.file, b.site.line);
    text += line;
  }
  for (unsigned w = 0; w * warp_size < b.size; ++w) {
    for (int i = 0; i < b.warp[w].groups; ++i) {
      const Group& g = b.warp[w].group[i];
      std::snprintf(line, sizeof(line), "\n  lanes 0x%08x of 0x%08x of warp %u wait at %s:%d",
                    g.arrived, g.mask, w, g.site.file, g.site.line);
      text += line;
    }
  }
  fail("%s", text.c_str());
}

// Runs the block until all its threads are gone, or wait for the grid; returns whether they are
// gone.
bool run_block(Block& b) {
  block = &b;
  blockIdx = {b.number % gridDim.x, b.number / gridDim.x % gridDim.y,
              b.number / gridDim.x / gridDim.y};
  race::continue_block();
  run_next(&host);
  const bool over = b.exited == b.size;
  if (!over && !(b.at_grid && b.arrived == b.size)) report_deadlock();
  if (over && !shared_intact()) {
    fail("the block wrote behind its %zu bytes of dynamic shared memory", running->dynamic_shared);
  }
  block = nullptr;
  return over;
}

std::vector<std::unique_ptr<Block>> pool;

Block& pooled(unsigned i) {
  while (pool.size() <= i) pool.emplace_back(new Block());
  return *pool[i];
}

void run_one_by_one(unsigned blocks) {
  static std::vector<unsigned> numbers;
  Block& b = pooled(0);
  if (order == Order::random || order == Order::run_ahead) {
    numbers.resize(blocks);
    std::iota(numbers.begin(), numbers.end(), 0u);
  }
  for (unsigned i = 0; i < blocks; ++i) {
    unsigned number = order == Order::reversed ? blocks - 1 - i : i;
    if (order == Order::random || order == Order::run_ahead) {
      std::swap(numbers[i], numbers[i + random_below(blocks - i)]);
      number = numbers[i];
    }
    begin_block(b, number);
    fill_shared();
    run_block(b);
  }
}

void run_together(unsigned blocks) {
  static Ready ready;
  ready.reserve(blocks);
  for (unsigned i = 0; i < blocks; ++i) begin_block(pooled(i), i);
  ready.push_all(blocks);
  unsigned over = 0;
  for (bool begun = false; over == 0; begun = true) {
    for (unsigned i = 0; i < blocks; ++i) {
      Block& b = pooled(ready.pop());
      if (begun) {
        restore_shared(b.shared.data());
        b.arrived = 0;
        b.ready.push_all(b.size);
      } else {
        fill_shared();
      }
      over += run_block(b);
      if (over != 0 && over != i + 1) {
        block = &b;
        fail(b.exited ? "leaves the kernel before a grid barrier where other blocks wait"
                      : "waits at a grid barrier, but other blocks have left the kernel");
      }
      b.shared.resize(shared_size());
      save_shared(b.shared.data());
    }
    if (over == 0) {
      race::grid_barrier();
      ready.push_all(blocks);
    }
  }
}

}  // namespace

void run(const Launch& launch) {
  static std::mutex one_launch;
  const std::lock_guard<std::mutex> lock(one_launch);
  running = &launch;
  blockDim = launch.block;
  gridDim = launch.grid;
  open_shared(launch.dynamic_shared);
  race::begin_launch();
  const unsigned blocks = launch.grid.x * launch.grid.y * launch.grid.z;
  launch.cooperative ? run_together(blocks) : run_one_by_one(blocks);
  close_shared();
  running = nullptr;
}

}  // namespace simt
