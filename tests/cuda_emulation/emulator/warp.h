// Warp shuffles, votes and reductions. All are collectives: lanes deposit their arguments, the last one of the mask to
// come computes for all. A lane that the mask names must come, and must name the same mask.
#pragma once

#include <cstdint>
#include <type_traits>

#include "emulator/block.h"

namespace d2l::emulator {

template <typename T>
struct Shuffled {
  T value;
  int source;  // lane
};

template <typename T>
T shuffle(const char* name, uint32_t mask, T value, int source, const Location& where) {
  static_assert(std::is_trivially_copyable_v<T>);
  if ((mask >> source & 1) == 0) {
    block().fail(cudaErrorLaunchFailure,
                 std::string(name) + " reads lane " + std::to_string(source) + ", which its mask leaves out");
  }
  const Shuffled<T> argument{value, source};
  T result;
  block().collective(
      name, mask,
      [](const Lanes& lanes) {
        for (int i = 0; i < kWarpLanes; ++i) {
          if (lanes.results[i] == nullptr) continue;
          const int from = static_cast<const Shuffled<T>*>(lanes.arguments[i])->source;
          *static_cast<T*>(lanes.results[i]) = static_cast<const Shuffled<T>*>(lanes.arguments[from])->value;
        }
      },
      &argument, &result, where);
  return result;
}

// Folds the values of the mask's lanes, in the order of the lanes.
template <typename T, typename Operation>
T reduce(const char* name, uint32_t mask, T value, Operation, const Location& where) {
  T result;
  block().collective(
      name, mask,
      [](const Lanes& lanes) {
        T total{};
        bool any = false;
        for (int i = 0; i < kWarpLanes; ++i) {
          if (lanes.arguments[i] == nullptr) continue;
          const T one = *static_cast<const T*>(lanes.arguments[i]);
          total = any ? Operation{}(total, one) : one;
          any = true;
        }
        for (void* result : lanes.results) {
          if (result != nullptr) *static_cast<T*>(result) = total;
        }
      },
      &value, &result, where);
  return result;
}

inline uint32_t ballot(const char* name, uint32_t mask, int predicate, const Location& where) {
  struct Or {
    uint32_t operator()(uint32_t a, uint32_t b) const { return a | b; }
  };
  const uint32_t own = predicate != 0 ? 1u << block().lane() : 0;
  return reduce(name, mask, own, Or{}, where);
}

}  // namespace d2l::emulator

inline void __syncwarp(uint32_t mask = 0xffffffffu,
                       const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  d2l::emulator::block().collective("__syncwarp()", mask, [](const d2l::emulator::Lanes&) {}, &mask, &mask, where);
}

// The lanes of a segment of `width` exchange values; a source outside the segment is the lane itself.
template <typename T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
              const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  const int begin = d2l::emulator::block().lane() & ~(width - 1);
  return d2l::emulator::shuffle("__shfl_sync()", mask, value, begin + (source & (width - 1)), where);
}

template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                 const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  const int lane = d2l::emulator::block().lane();
  const int source = lane - static_cast<int>(delta);
  return d2l::emulator::shuffle("__shfl_up_sync()", mask, value, source >= (lane & ~(width - 1)) ? source : lane,
                                where);
}

template <typename T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                   const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  const int lane = d2l::emulator::block().lane();
  const int source = lane + static_cast<int>(delta);
  return d2l::emulator::shuffle("__shfl_down_sync()", mask, value, source < (lane | (width - 1)) + 1 ? source : lane,
                                where);
}

template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                  const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  const int lane = d2l::emulator::block().lane();
  const int source = lane ^ lane_mask;
  return d2l::emulator::shuffle("__shfl_xor_sync()", mask, value, source <= (lane | (width - 1)) ? source : lane,
                                where);
}

inline unsigned __ballot_sync(uint32_t mask, int predicate,
                              const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  return d2l::emulator::ballot("__ballot_sync()", mask, predicate, where);
}

inline int __any_sync(uint32_t mask, int predicate,
                      const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  return d2l::emulator::ballot("__any_sync()", mask, predicate, where) != 0;
}

inline int __all_sync(uint32_t mask, int predicate,
                      const d2l::emulator::Location& where = d2l::emulator::Location::current()) {
  return d2l::emulator::ballot("__all_sync()", mask, predicate, where) == mask;
}

#define D2L_WARP_REDUCTION(T, name, expression)                                                                      \
  inline T name(uint32_t mask, T value, const d2l::emulator::Location& where = d2l::emulator::Location::current()) { \
    struct Operation {                                                                                               \
      T operator()(T a, T b) const { return expression; }                                                            \
    };                                                                                                               \
    return d2l::emulator::reduce(#name "()", mask, value, Operation{}, where);                                       \
  }
D2L_WARP_REDUCTION(unsigned, __reduce_add_sync, a + b)
D2L_WARP_REDUCTION(unsigned, __reduce_min_sync, a < b ? a : b)
D2L_WARP_REDUCTION(unsigned, __reduce_max_sync, a > b ? a : b)
D2L_WARP_REDUCTION(int, __reduce_add_sync, static_cast<int>(static_cast<unsigned>(a) + static_cast<unsigned>(b)))
D2L_WARP_REDUCTION(int, __reduce_min_sync, a < b ? a : b)
D2L_WARP_REDUCTION(int, __reduce_max_sync, a > b ? a : b)
D2L_WARP_REDUCTION(unsigned, __reduce_and_sync, a& b)
D2L_WARP_REDUCTION(unsigned, __reduce_or_sync, a | b)
D2L_WARP_REDUCTION(unsigned, __reduce_xor_sync, a ^ b)
#undef D2L_WARP_REDUCTION
