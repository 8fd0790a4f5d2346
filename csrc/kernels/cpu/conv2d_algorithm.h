// Which algorithm computes a convolution on the CPU.
//
// direct:   the sums of the definition, in the order of the taps. Relative L2 error of float against float64, for
//           normally distributed inputs: forward and input gradient 2e-7 (16 channels) to 1.2e-6 (512), weight gradient
//           1.5e-7 to 6e-7. An element whose products are all zero is exact. This is the strict switch.
// winograd: float, 3x3 taps, stride 1, dilation 1, one group: up to 4x fewer multiplications. The relative L2 error is
//           below kWinogradError; the error of an element is relative to its tile, not to the element. An infinity or
//           a NaN of the input spoils the whole tiles (4x4 pixels of the result) that it touches, not 3x3 pixels.
//           Everything else runs direct.
// automatic: winograd where it is possible and faster (double never is), else direct.
#pragma once

#include "kernels/shapes.h"

namespace d2l::cpu {

enum class Conv2dAlgorithm { automatic, direct, winograd };
enum class Conv2dPass { forward, input_grad, weight_grad };

// Bounds of the relative L2 error of winograd, for normally distributed inputs of up to 512 channels, by the size of
// its tiles. Measured for 16, 64, 256, 512 channels: forward and input gradient 0.5, 0.8, 1.5, 2.0e-6 (tiles of 4)
// and 1.7, 2.7, 4.9, 6.9e-7 (tiles of 2); weight gradient, which depends on the number of pixels, 0.6 to 1.4e-6 and 2.5
// to 5e-7.
constexpr double kWinogradError4 = 2.5e-6, kWinogradError2 = 8e-7;

// For the whole process. At first what D2LKERNELS_CONV_ALGORITHM=auto|direct|winograd says, else automatic; throws
// std::invalid_argument for any other value of it.
Conv2dAlgorithm conv2d_algorithm();
void set_conv2d_algorithm(Conv2dAlgorithm algorithm);

const char* name_of(Conv2dAlgorithm algorithm);  // auto, direct, winograd

// What a float convolution of this shape gets: direct or winograd.
Conv2dAlgorithm chosen_algorithm(const Conv2dShape& shape, Conv2dPass pass);

// The same, with the size of winograd's tiles (of the result; of grad_output in weight_grad): 4, 2, or 0 for direct.
int winograd_tile(const Conv2dShape& shape, Conv2dPass pass);

// "direct", "winograd F(4x4,3x3)", ...
const char* describe_algorithm(const Conv2dShape& shape, Conv2dPass pass);

}  // namespace d2l::cpu
