// How drivers of weight gradients share their tasks: those are dealt to slices, one per thread, each with its own sums
// in the layout of packed weights; where that leaves threads without work, the blocks of channels are dealt out to
// parts, too. Slices are added in their order: deterministic for a given number of threads. Only for kernel sources.
//
// A driver has problem, packing, slices, parts, tasks(), slice_size(), and
// run_task(task, fresh, group, first block, end of blocks, sums of the group), where fresh sums hold nothing yet.
#pragma once

#include "kernels/cpu/conv2d_pack.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

struct Shares {
  int64_t slices, parts;
};

D2L_INLINE Shares share_tasks(int64_t tasks, int64_t multiply_adds, int64_t units, int64_t slice_bytes) {
  constexpr int64_t kMultiplyAdds = 1 << 18;          // worth a thread
  constexpr int64_t kMostBytes = int64_t{128} << 20;  // sums of all slices
  const int64_t threads = max_threads(), most = max(1, multiply_adds / kMultiplyAdds);
  const int64_t slices = clamp(clamp(min(threads, tasks), 1, most), 1, max(1, kMostBytes / slice_bytes));
  return {slices, clamp(threads / slices, 1, min(most, units))};
}

// The tasks of one slice for the blocks from begin to end, counted over all groups.
template <typename Driver, typename T>
void run_slice(const Driver& driver, int64_t slice, int64_t begin, int64_t end, T* sums) {
  const int64_t blocks = driver.packing.blocks();
  const int64_t first = slice * driver.tasks() / driver.slices;
  for (int64_t task = first; task < (slice + 1) * driver.tasks() / driver.slices; ++task) {
    for (int64_t group = begin / blocks; group * blocks < end; ++group) {
      driver.run_task(task, task == first, group, max(0, begin - group * blocks), min(blocks, end - group * blocks),
                      sums + group * driver.packing.group_size());
    }
  }
}

template <typename Driver, typename T>
void run_slices(const Driver& driver, T* sums) {
  const int64_t units = driver.problem.groups * driver.packing.blocks(), parts = driver.parts;
  parallel_for(0, driver.slices * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t slice = i / parts, part = i % parts;
      run_slice(driver, slice, part * units / parts, (part + 1) * units / parts, sums + slice * driver.slice_size());
    }
    trim_workspace(Workspace::task);
  });
}

// Into the weight's gradient.
template <typename Driver, typename T>
void add_slices(const Driver& driver, const T* sums) {
  constexpr int64_t kSumsPerThread = 1 << 15;  // fewer are not worth one
  const auto& packing = driver.packing;
  const int64_t units = driver.problem.groups * packing.blocks(), size = driver.slice_size();
  parallel_for(0, units, max(1, kSumsPerThread * units / (driver.slices * size)), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t group = unit / packing.blocks(), block = unit % packing.blocks();
      unpack_block(packing, sums + group * packing.group_size() + packing.block_offset(block), driver.slices, size,
                   block, driver.problem.grad_weight + group * driver.problem.weight_group);
    }
  });
}

template <typename T, typename Driver>
void compute_slices(const Driver& driver) {
  T* sums = static_cast<T*>(
      workspace(Workspace::call, driver.slices * driver.slice_size() * static_cast<int64_t>(sizeof(T))));
  run_slices(driver, sums);
  add_slices(driver, static_cast<const T*>(sums));
  trim_workspace(Workspace::call);
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
