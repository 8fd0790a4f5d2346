// Parts of an axis. Only for kernel sources.
#pragma once

#include "kernels/cpu/integers.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

struct Range {
  int64_t begin, end;
  D2L_INLINE int64_t size() const { return end - begin; }
};

// Part `index` of `parts` of a range of `size`, cut between units.
D2L_INLINE Range part_of(int64_t size, int64_t unit, int64_t parts, int64_t index) {
  const int64_t units = ceil_div(size, unit);
  return {min(size, index * units / parts * unit), min(size, (index + 1) * units / parts * unit)};
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
