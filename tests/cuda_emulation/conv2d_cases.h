// The convolutions that test_conv2d_launchers runs: chapter layers made small, and what is easily forgotten.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/shapes.h"

namespace d2l::tests {

struct Case {
  const char* name;
  int64_t input[4];   // N, C, H, W
  int64_t kernel[3];  // K, R, S
  int64_t stride[2] = {1, 1};
  int64_t pad[4] = {0, 0, 0, 0};  // top, bottom, left, right
  int64_t dilation[2] = {1, 1};
  int64_t groups = 1;
  int misalign = 0;  // elements by which every tensor starts after an aligned address

  Conv2dShape shape() const {
    const auto [N, C, H, W] = input;
    const auto [K, R, S] = kernel;
    const int64_t P = (H + pad[0] + pad[1] - dilation[0] * (R - 1) - 1) / stride[0] + 1;
    const int64_t Q = (W + pad[2] + pad[3] - dilation[1] * (S - 1) - 1) / stride[1] + 1;
    return {N, C, H, W, K, R, S, P, Q, stride[0], stride[1], pad[0], pad[2], dilation[0], dilation[1], groups};
  }
};

inline const std::vector<Case> kCases = {
    {.name = "lenet.conv1", .input = {3, 1, 12, 12}, .kernel = {6, 5, 5}, .pad = {2, 2, 2, 2}},
    {.name = "lenet.conv2", .input = {2, 6, 14, 14}, .kernel = {16, 5, 5}},
    {.name = "rgb stem", .input = {2, 3, 17, 17}, .kernel = {8, 7, 7}, .stride = {2, 2}, .pad = {3, 3, 3, 3}},
    {.name = "1x1", .input = {2, 16, 7, 7}, .kernel = {24, 1, 1}},
    {.name = "1x1 stride 2", .input = {2, 16, 7, 8}, .kernel = {16, 1, 1}, .stride = {2, 2}},
    {.name = "3x3", .input = {2, 16, 9, 9}, .kernel = {72, 3, 3}, .pad = {1, 1, 1, 1}},
    {.name = "3x3 wide both", .input = {1, 72, 5, 6}, .kernel = {80, 3, 3}, .pad = {1, 1, 1, 1}},
    {.name = "3x3 stride 2", .input = {2, 8, 11, 10}, .kernel = {16, 3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}},
    {.name = "dilation 2", .input = {1, 8, 11, 13}, .kernel = {8, 3, 3}, .pad = {2, 2, 2, 2}, .dilation = {2, 2}},
    {.name = "stride 2 dilation 2",
     .input = {1, 8, 11, 13},
     .kernel = {8, 3, 2},
     .stride = {2, 2},
     .pad = {1, 0, 3, 0},
     .dilation = {2, 2}},
    {.name = "stride 4x6 dilation 6x4",
     .input = {2, 4, 29, 31},
     .kernel = {5, 4, 5},
     .stride = {4, 6},
     .pad = {5, 2, 1, 7},
     .dilation = {6, 4}},
    {.name = "stride 3 dilation 2",
     .input = {1, 8, 16, 17},
     .kernel = {8, 4, 3},
     .stride = {3, 3},
     .pad = {2, 1, 0, 2},
     .dilation = {2, 2}},
    {.name = "stride > kernel", .input = {2, 5, 13, 11}, .kernel = {7, 2, 1}, .stride = {5, 3}},
    {.name = "stride > map", .input = {2, 8, 3, 4}, .kernel = {8, 3, 2}, .stride = {7, 9}},
    {.name = "asymmetric padding", .input = {2, 3, 6, 7}, .kernel = {4, 4, 4}, .pad = {1, 2, 0, 3}},
    {.name = "padding > kernel", .input = {1, 2, 3, 2}, .kernel = {3, 2, 2}, .pad = {4, 3, 3, 5}},
    {.name = "groups 2", .input = {2, 16, 6, 6}, .kernel = {32, 3, 3}, .pad = {1, 1, 1, 1}, .groups = 2},
    {.name = "groups 3, odd channels", .input = {1, 9, 6, 5}, .kernel = {15, 3, 3}, .groups = 3},
    {.name = "depthwise", .input = {2, 12, 7, 7}, .kernel = {12, 3, 3}, .pad = {1, 1, 1, 1}, .groups = 12},
    {.name = "depthwise, 2 outputs", .input = {1, 5, 8, 6}, .kernel = {10, 3, 3}, .stride = {2, 2}, .groups = 5},
    {.name = "one pixel", .input = {1, 8, 1, 1}, .kernel = {8, 1, 1}},
    {.name = "width 1", .input = {3, 4, 19, 1}, .kernel = {4, 5, 1}, .pad = {2, 2, 0, 0}},
    {.name = "odd tails", .input = {3, 7, 9, 11}, .kernel = {67, 3, 2}, .pad = {0, 0, 1, 0}},
    {.name = "kernel = map", .input = {5, 8, 5, 5}, .kernel = {24, 5, 5}},
    {.name = "slices", .input = {4, 8, 20, 21}, .kernel = {8, 3, 3}, .pad = {1, 1, 1, 1}},
    {.name = "slices, one channel", .input = {5, 1, 16, 15}, .kernel = {1, 3, 3}},
    {.name = "even channels", .input = {2, 6, 9, 8}, .kernel = {10, 3, 3}, .stride = {2, 1}, .pad = {1, 1, 1, 1}},
    {.name = "unaligned", .input = {2, 16, 5, 6}, .kernel = {16, 3, 3}, .misalign = 1},
    {.name = "aligned to a word only", .input = {1, 16, 5, 6}, .kernel = {8, 3, 3}, .misalign = 2},
};

}  // namespace d2l::tests
