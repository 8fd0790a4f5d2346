// Random numbers of dropout: Philox 4x32-10, a function of a counter and a key without further state, so that CPU and
// CUDA kernels, any number of threads, and forward and backward passes agree on every element.
//
// Elements are taken 64 at a time: word w of counter 16 b + l belongs to element 64 b + 16 w + l.
//
// Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
#pragma once

#include <cstdint>

#include "kernels/shapes.h"

namespace d2l::philox {

constexpr int kCounters = 16;  // of a block
constexpr int kWords = 4;
constexpr int kBlock = kCounters * kWords;
constexpr int kRounds = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kStep0 = 0x9E3779B9, kStep1 = 0xBB67AE85;

// An element is dropped if its number is below this: with probability p to 2^-32.
inline uint32_t threshold(double p) {
  const double limit = p * 4294967296.0 + 0.5;
  return limit >= 4294967295.0 ? 0xFFFFFFFFu : static_cast<uint32_t>(limit);
}

}  // namespace d2l::philox
