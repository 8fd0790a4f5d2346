// Atomic functions of CUDA C++. Blocks run on several OS threads, so these are the host's atomics.
#pragma once

#include <algorithm>
#include <atomic>
#include <type_traits>

namespace d2l::emulator {

template <typename T, typename Operation>
T atomic_update(T* address, Operation operation) {
  std::atomic_ref<T> value(*address);
  T old = value.load(std::memory_order_relaxed);
  while (!value.compare_exchange_weak(old, operation(old), std::memory_order_relaxed)) {
  }
  return old;
}

}  // namespace d2l::emulator

#define D2L_ATOMIC(name, expression)                                                          \
  template <typename T>                                                                       \
  T name(T* address, std::type_identity_t<T> value) {                                         \
    return d2l::emulator::atomic_update(address, [value](T old) -> T { return expression; }); \
  }
D2L_ATOMIC(atomicAdd, old + value)
D2L_ATOMIC(atomicSub, old - value)
D2L_ATOMIC(atomicMin, std::min(old, value))
D2L_ATOMIC(atomicMax, std::max(old, value))
D2L_ATOMIC(atomicAnd, old& value)
D2L_ATOMIC(atomicOr, old | value)
D2L_ATOMIC(atomicXor, old ^ value)
D2L_ATOMIC(atomicExch, (static_cast<void>(old), value))
D2L_ATOMIC(atomicInc, old >= value ? T{0} : old + 1)
#undef D2L_ATOMIC

template <typename T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  std::atomic_ref<T>(*address).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}
