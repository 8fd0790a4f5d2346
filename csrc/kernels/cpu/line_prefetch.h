// Cache lines that are brought into the L2 cache a few at a time, while something else is computed: the memory works
// while the multiply units do. Only for kernel sources.
#pragma once

#include "kernels/cpu/integers.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// `count` lines, in runs of `run` adjacent ones. The next is `line`, with `left` to the end of its run; from there to
// the start of the next run it is `gap` bytes.
struct LinePrefetch {
  const char* line;
  int64_t left, run, gap, count;

  // `runs` runs of so many elements whose starts lie `distance` elements apart.
  template <typename T>
  static D2L_INLINE LinePrefetch of(const T* start, int64_t elements, int64_t runs, int64_t distance) {
    const int64_t size = sizeof(T), run = ceil_div(elements * size, kLineBytes);
    return {reinterpret_cast<const char*>(start), run, run, distance * size - run * kLineBytes, run * runs};
  }

  // What each of so many calls, of so many steps, has to fetch.
  D2L_INLINE int64_t share(int64_t calls, int64_t steps) const { return min(steps, ceil_div(count, calls)); }

  // Fetches the next `lines` of them.
  D2L_INLINE void fetch(int64_t lines) {
    count -= lines;
#pragma GCC unroll 1
    for (; lines > 0; --lines) {
      __builtin_prefetch(line, 0, 2);
      line += kLineBytes;
      if (--left == 0) line += gap, left = run;
    }
  }
};

// Calls step() `steps` times; with the first `share` of them goes a line.
template <typename Step>
D2L_INLINE void run_steps(int64_t steps, int64_t share, LinePrefetch& lines, Step&& step) {
  lines.count -= share;
  for (int64_t fetched = 0; fetched < share;) {
    const int64_t part = min(share - fetched, lines.left);
    const char* const end = lines.line + part * kLineBytes;
#pragma GCC unroll 1
    for (const char* line = lines.line; line != end; line += kLineBytes) {
      __builtin_prefetch(line, 0, 2);
      step();
    }
    fetched += part;
    lines.line = end;
    lines.left -= part;
    if (lines.left == 0) {
      lines.line += lines.gap;
      lines.left = lines.run;
    }
  }
#pragma GCC unroll 1
  for (int64_t i = share; i < steps; ++i) step();
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
