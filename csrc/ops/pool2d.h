// What the pooling ops share: windows, output sizes and the checks of both.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <c10/util/SmallVector.h>
#include <torch/csrc/autograd/custom_function.h>

#include "common/check.h"
#include "kernels/shapes.h"

namespace d2l {

// Kernel, stride, padding and dilation of regular windows, or adaptive windows. As an op argument (int[] window) it is
// a flat list of the eight numbers, or the empty list.
struct PoolWindow {
  bool adaptive = false;
  int64_t kernel_h = 0, kernel_w = 0;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_h = 0, pad_w = 0;
  int64_t dilation_h = 1, dilation_w = 1;

  static PoolWindow adaptive_windows() { return {.adaptive = true}; }

  // Checks each argument. An empty stride means the kernel size, as in torch.
  static PoolWindow regular(const char* op, at::IntArrayRef kernel_size, at::IntArrayRef stride,
                            at::IntArrayRef padding, at::IntArrayRef dilation);

  static PoolWindow from_list(const char* op, at::IntArrayRef window);
  std::vector<int64_t> to_list() const;
};

// The size of the output map, checked to be at least 1 x 1.
template <typename Int>
std::array<Int, 2> pool_output_size(const char* op, c10::ArrayRef<Int> input_size, const PoolWindow& window,
                                    bool ceil_mode);

// Bounds of the window size, which an offset counts in.
template <typename Int>
std::array<Int, 2> pool_window_bound(const PoolWindow& window, const Int& H, const Int& W, const Int& P, const Int& Q) {
  if (!window.adaptive) {
    return {window.kernel_h, window.kernel_w};
  }
  const auto bound = [](const Int& size, const Int& windows) -> Int {
    return size % windows == 0 ? size / windows : size / windows + 2;
  };
  return {bound(H, P), bound(W, Q)};
}

// uint8 where the places inside a window fit, else int32.
template <typename Int>
at::ScalarType pool_offset_dtype(const PoolWindow& window, const Int& H, const Int& W, const Int& P, const Int& Q) {
  const auto bound = pool_window_bound<Int>(window, H, W, P, Q);
  return bound[0] * bound[1] <= 256 ? at::kByte : at::kInt;
}

// input_size is [N, C, H, W], output_size [P, Q].
Pool2dShape pool_shape(const PoolWindow& window, at::IntArrayRef input_size, at::IntArrayRef output_size);

// A 4-D floating tensor with something in every image.
void check_pool_input(const char* op, const char* argument, const at::Tensor& input);

void check_adaptive_output_size(const char* op, at::IntArrayRef output_size);

// [N, C, P, Q] must follow from an input of size [N, C, H, W]: checked for gradients and offsets.
template <typename Int>
void check_pool_output(const char* op, const char* argument, const at::Tensor& output, c10::ArrayRef<Int> input_size,
                       const PoolWindow& window);

// What a backward needs to know: the size of the input, and what else the op counts with. In one entry of saved_data,
// read where it lies: a look-up, and each list that an entry is turned into, take longer than the numbers are worth.
struct SavedPooling {
  std::array<c10::SymInt, 4> input_size;
  c10::SmallVector<int64_t, 12> numbers;

  static void save(torch::autograd::AutogradContext* ctx, c10::SymIntArrayRef input_size, at::IntArrayRef numbers);
  explicit SavedPooling(torch::autograd::AutogradContext* ctx);
};

}  // namespace d2l
