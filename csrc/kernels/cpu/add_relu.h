// Launcher of add_relu on the CPU, for T = float and double. Elements lie side by side, in any order that all tensors
// share. Not a number stays not a number.
#pragma once

#include <cstdint>

namespace d2l::cpu {

// output[i] = max(input[i] + other[i], 0)
template <typename T>
void add_relu(int64_t count, const T* input, const T* other, T* output);

}  // namespace d2l::cpu
