// Launcher of add_relu on the CPU, for E = float, double and BFloat16. Elements lie side by side, in any order that all
// tensors share. Not a number stays not a number.
#pragma once

#include "kernels/cpu/element.h"

namespace d2l::cpu {

// output[i] = max(input[i] + other[i], 0)
template <typename E>
void add_relu(int64_t count, const E* input, const E* other, E* output);

}  // namespace d2l::cpu
