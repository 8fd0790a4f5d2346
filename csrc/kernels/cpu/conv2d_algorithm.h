// Which algorithm computes a convolution on the CPU.
//
// direct:   the sums of the definition, in the order of the taps. Relative L2 error of float against float64, for
//           normally distributed inputs: forward and input gradient 2e-7 (16 channels) to 1.2e-6 (512), weight gradient
//           1.5e-7 to 6e-7. An element whose products are all zero is exact. This is the strict switch.
// winograd: float, 3x3 or 5x5 taps, stride 1, dilation 1, one group: up to 6.25x fewer multiplications; 3x3 taps with
//           stride 2 as well (the input gradient with a padding of 1): 1.65x fewer. The relative L2 error is below that
//           of kWinogradTiles; the error of an element is relative to its tile, not to the element.
//           An infinity or a NaN of the input spoils the whole tiles (up to 6x6 pixels of the result) that it touches,
//           not 3x3 pixels. Everything else runs direct.
//           With AMX, forward passes and input gradients with many tiles multiply parts of bfloat16 (float_parts.h), at
//           about half the error.
//           Weight gradients of bfloat16 may multiply pairs (gemm_bfloat16.h): subnormal factors then count as zero.
// automatic: winograd where it is possible and faster (double never is), else direct.
#pragma once

#include <string>

#include "kernels/shapes.h"

namespace d2l::cpu {

enum class Conv2dAlgorithm { automatic, direct, winograd };
enum class Conv2dPass { forward, input_grad, weight_grad };

// Winograd's F(tile x tile, taps x taps); with a stride the input gradient has tiles of stride * tile pixels.
struct WinogradTile {
  int taps, stride, tile;
  // Bound of the relative L2 error, for normally distributed inputs of up to 512 channels.
  double error;
};

constexpr WinogradTile kWinogradTiles[] = {
    {3, 1, 2, 6e-7}, {3, 1, 3, 1.2e-6}, {3, 1, 4, 1.5e-6}, {3, 1, 6, 3.5e-6},
    {3, 2, 3, 8e-7}, {5, 1, 2, 1.6e-6}, {5, 1, 4, 3.5e-6},
};

// For the whole process. At first what D2LKERNELS_CONV_ALGORITHM=auto|direct|winograd says, else automatic; throws
// std::invalid_argument for any other value of it.
Conv2dAlgorithm conv2d_algorithm();
void set_conv2d_algorithm(Conv2dAlgorithm algorithm);

const char* name_of(Conv2dAlgorithm algorithm);  // auto, direct, winograd

// What a float convolution of this shape gets: direct or winograd.
Conv2dAlgorithm chosen_algorithm(const Conv2dShape& shape, Conv2dPass pass);

// The same, with the size of winograd's tiles (of the result; of grad_output in weight_grad), or 0 for direct.
int winograd_tile(const Conv2dShape& shape, Conv2dPass pass);

// Whether the weight gradient with tiles of this size is faster with parts of float32 in the tiles of AMX
// (float_parts.h), where the machine has them.
bool winograd_suits_parts(const Conv2dShape& shape, int tile);

// Whether the direct kernel on pairs of bfloat16, which multiplies twice as fast (conv2d_bfloat16.h), is chosen before
// float copies: where they would run direct too, or take longer with winograd.
bool are_pairs_faster(const Conv2dShape& shape, Conv2dPass pass);

// "direct", "winograd F(4x4,3x3)", "winograd F(3x3,3x3) with stride 2", ...
std::string describe_algorithm(const Conv2dShape& shape, Conv2dPass pass);

}  // namespace d2l::cpu
