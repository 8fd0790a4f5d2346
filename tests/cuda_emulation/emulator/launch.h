// Kernel launches. A launch returns when the kernel has ended; its first fault becomes the thread's last CUDA error.
#pragma once

#include <tuple>
#include <utility>

#include "emulator/block.h"

namespace d2l::emulator {

// Checks the launch as CUDA would, and runs it.
void run(Launch launch, const void* kernel);

template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t,
            Arguments&&... arguments) {
  using Values = std::tuple<std::remove_cv_t<Parameters>...>;
  const std::pair<void (*)(Parameters...), Values> call{kernel, Values(std::forward<Arguments>(arguments)...)};
  Launch description{name, grid, block, shared_bytes, {}, nullptr, &call};
  description.call = [](const void* context) {
    const auto& bound = *static_cast<const std::pair<void (*)(Parameters...), Values>*>(context);
    std::apply(bound.first, bound.second);
  };
  run(description, reinterpret_cast<const void*>(kernel));
}

}  // namespace d2l::emulator

#define D2L_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::d2l::emulator::launch(#kernel, kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)
