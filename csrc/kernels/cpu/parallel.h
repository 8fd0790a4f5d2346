// Threads for the CPU kernels. The extension implements run_parallel with at::parallel_for, so that kernels obey
// torch.set_num_threads and run serially inside another parallel region; plain C++ tests bring their own.
#pragma once

#include <cstdint>
#include <type_traits>

namespace d2l::cpu {

using RangeFunction = void (*)(void* context, int64_t begin, int64_t end);

// Calls function(context, b, e) over disjoint ranges that cover [begin, end); each but the last holds at least
// `grain` items. The split depends on the number of threads alone, never on timing.
void run_parallel(int64_t begin, int64_t end, int64_t grain, RangeFunction function, void* context);

// Threads that run_parallel uses at most (1 inside a parallel region).
int64_t max_threads();

// parallel_for(begin, end, grain, [&](int64_t b, int64_t e) { ... });
template <typename Function>
inline void parallel_for(int64_t begin, int64_t end, int64_t grain, Function&& function) {
  if (begin < end && end - begin <= grain) {
    function(begin, end);  // small problems need not ask the threads
    return;
  }
  using Callable = std::remove_reference_t<Function>;
  run_parallel(
      begin, end, grain, [](void* context, int64_t b, int64_t e) { (*static_cast<Callable*>(context))(b, e); },
      const_cast<void*>(static_cast<const void*>(&function)));
}

}  // namespace d2l::cpu
