// Warp collectives: the lanes a mask names wait for each other and get what they agreed on.
#include <algorithm>

#include "error.h"
#include "race/race.h"
#include "scheduler.h"

namespace simt {
namespace {

// The lane a shuffle reads from; out of its segment, the lane itself.
unsigned source_lane(Op op, unsigned lane, unsigned argument, unsigned width) {
  const unsigned first = lane & ~(width - 1), last = first + width - 1;
  unsigned from = lane;
  switch (op) {
    case Op::shfl:
      return first | (argument & (width - 1));
    case Op::up:
      from = lane - argument % warp_size;
      return from >= first && from <= last ? from : lane;
    case Op::down:
      from = lane + argument % warp_size;
      return from <= last ? from : lane;
    default:
      from = lane ^ (argument % warp_size);
      return from <= last ? from : lane;
  }
}

void shuffle(Warp& w, Op op, unsigned mask) {
  constexpr unsigned long long garbage = 0xfff7dead'fff7deadull;  // from a lane that did not come
  for (unsigned m = mask; m != 0; m &= m - 1) {
    const unsigned lane = __builtin_ctz(m);
    const unsigned from = source_lane(op, lane, w.argument[lane], w.width[lane]);
    w.result[lane] = mask >> from & 1 ? w.value[from] : garbage;
  }
}

void match(Warp& w, unsigned mask) {
  for (unsigned m = mask; m != 0; m &= m - 1) {
    const unsigned lane = __builtin_ctz(m);
    w.result[lane] = 0;
    for (unsigned i = 0; i < warp_size; ++i) {
      if (mask >> i & 1 && w.value[i] == w.value[lane]) w.result[lane] |= 1u << i;
    }
  }
}

unsigned long long combine(Op op, unsigned long long a, unsigned long long b) {
  switch (op) {
    case Op::add:
      return a + b;
    case Op::min:
      return std::min(a, b);
    case Op::max:
      return std::max(a, b);
    case Op::imin:
      return unsigned(std::min(int(a), int(b)));
    case Op::imax:
      return unsigned(std::max(int(a), int(b)));
    case Op::any:
    case Op::or_:
      return a | b;
    case Op::xor_:
      return a ^ b;
    default:
      return a & b;
  }
}

// One result for all.
void reduce(Warp& w, Op op, unsigned mask) {
  unsigned long long all = 0;
  for (unsigned m = mask; m != 0; m &= m - 1) {
    const unsigned lane = __builtin_ctz(m);
    if (op == Op::ballot) {
      all |= w.value[lane] << lane;
    } else {
      all = m == mask ? w.value[lane] : combine(op, all, w.value[lane]);
    }
  }
  for (unsigned m = mask; m != 0; m &= m - 1) w.result[__builtin_ctz(m)] = all;
}

void compute(Warp& w, Op op, unsigned mask) {
  switch (op) {
    case Op::sync:
      return;
    case Op::shfl:
    case Op::up:
    case Op::down:
    case Op::bfly:
      return shuffle(w, op, mask);
    case Op::match:
      return match(w, mask);
    default:
      return reduce(w, op, mask);
  }
}

// The lanes that wait for the running one, or a group it is the first of.
Group& join(Warp& w, Op op, unsigned mask, Site site) {
  const unsigned me = 1u << rank % warp_size;
  for (int i = 0; i < w.groups; ++i) {
    Group& g = w.group[i];
    if (g.mask == mask && g.op == op && g.site == site) return g;
    if (g.mask & me && g.arrived & mask) {
      fail("%s:%d: waits for lanes 0x%08x, but lanes 0x%08x wait for 0x%08x at %s:%d", site.file,
           site.line, mask, g.arrived, g.mask, g.site.file, g.site.line);
    }
  }
  Group& g = w.group[w.groups++];
  g = {mask, 0, op, site};
  return g;
}

}  // namespace

unsigned long long collective(Op op, unsigned mask, unsigned long long value, int argument,
                              int width, const char* file, int line) {
  const unsigned lane = rank % warp_size, me = 1u << lane;
  Warp& w = block->warp[rank / warp_size];
  if (!(mask & me)) fail("%s:%d: mask 0x%08x lacks its caller, lane %u", file, line, mask, lane);
  if (mask & ~w.lanes) {
    fail("%s:%d: mask 0x%08x names lanes that are not there; the warp has 0x%08x", file, line, mask,
         w.lanes);
  }
  if (mask & w.exited) {
    fail("%s:%d: mask 0x%08x names lanes 0x%08x, which have left the kernel", file, line, mask,
         mask & w.exited);
  }
  if (width < 1 || width > warp_size || (width & (width - 1)) != 0) {
    fail("%s:%d: width %d is no power of two up to 32", file, line, width);
  }
  w.value[lane] = value, w.argument[lane] = argument, w.width[lane] = width;
  Group& g = join(w, op, mask, {file, line});
  g.arrived |= me;
  if (g.arrived == mask) {
    compute(w, op, mask);
    g = w.group[--w.groups];
    race::warp_barrier(rank / warp_size, mask);
    block->ready.push_lanes(rank - lane, mask);
  }
  reschedule();
  return w.result[lane];
}

}  // namespace simt
