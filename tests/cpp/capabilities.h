// The instruction sets that the kernels are tested with.
#pragma once

#include <vector>

#include "kernels/cpu/capability.h"

namespace d2l::test {

// Those that this machine has.
inline std::vector<cpu::Capability> supported_capabilities() {
  std::vector<cpu::Capability> found;
  for (const cpu::Capability capability : cpu::kCapabilities) {
    if (cpu::is_supported(capability)) found.push_back(capability);
  }
  return found;
}

}  // namespace d2l::test
