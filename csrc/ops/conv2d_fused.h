// What the fused convolutions and their backward share.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/SymInt.h>

#include <optional>
#include <string_view>
#include <tuple>

#include "kernels/shapes.h"
#include "ops/conv2d.h"
#include "ops/pool2d.h"

namespace d2l {

struct PoolOptions {
  at::IntArrayRef size, stride, padding;
  bool ceil_mode;
  bool count_include_pad = true;  // average

  PoolWindow window(const char* op) const { return PoolWindow::regular(op, size, stride, padding, {1, 1}); }
};

// What stands for a result that is not wanted.
inline at::Tensor nothing_like(const at::Tensor& tensor) {
  return at::empty({0}, tensor.options().memory_format(std::nullopt));
}

// Windows of 2x2 side by side, which cpu::conv2d_images averages. The last row of an odd map is in none of them.
inline bool is_images_pool(const Pool2dShape& pool) {
  return pool.R == 2 && pool.S == 2 && pool.stride_h == 2 && pool.stride_w == 2 && pool.pad_h == 0 && pool.pad_w == 0 &&
         pool.P == pool.H / 2 && pool.Q == pool.W / 2;
}

// Through the dispatcher: the gradient of the map under an average pool.
at::Tensor call_avg_pool_grad(const at::Tensor& grad_output, c10::SymIntArrayRef map_size, const PoolOptions& pool);

// Through the dispatcher: the gradients of input, weight and bias of conv2d_avg_pool2d.
std::tuple<at::Tensor, at::Tensor, at::Tensor> call_conv2d_avg_pool2d_grad(
    const at::Tensor& grad_output, const std::optional<at::Tensor>& activated, const at::Tensor& input,
    const at::Tensor& weight, const Conv2dOptions& options, std::string_view activation, const PoolOptions& pool,
    bool needs_input_grad, bool needs_bias_grad);

}  // namespace d2l
