// The threads of the C++ tests: kernels/cpu/parallel.h on std::thread. One program includes this once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace d2l::test {
inline int64_t g_threads = 1;
}

namespace d2l::cpu {

// Pays no regard to the grain: small shapes are to be split, too.
void run_parallel(int64_t begin, int64_t end, int64_t, RangeFunction function, void* context) {
  if (begin >= end) return;
  const int64_t size = (end - begin + test::g_threads - 1) / test::g_threads;
  std::vector<std::thread> threads;
  for (int64_t b = begin + size; b < end; b += size) {
    threads.emplace_back(function, context, b, std::min(end, b + size));
  }
  function(context, begin, std::min(end, begin + size));
  for (std::thread& thread : threads) thread.join();
}

int64_t max_threads() { return test::g_threads; }

}  // namespace d2l::cpu
