// What conv2d shares with the ops that are fused from it: its kernels, its derivatives, what its backward keeps.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <optional>
#include <vector>

#include "kernels/cpu/conv2d.h"
#include "kernels/shapes.h"
#include "ops/channel_moments.h"

namespace d2l {

struct Conv2dOptions {
  at::IntArrayRef stride, padding /* top, bottom, left, right */, dilation;
  int64_t groups;
};

// Both check their arguments.
Conv2dShape conv2d_shape(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                         const Conv2dOptions& options);
std::array<c10::SymInt, 4> conv2d_output_size(const at::Tensor& input, const at::Tensor& weight,
                                              const std::optional<at::Tensor>& bias, const Conv2dOptions& options);

// A tensor of the size, dtype and device of the result, with next to no memory: for checks of what follows. Checks the
// arguments.
at::Tensor conv2d_result_like(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                              const Conv2dOptions& options);

// activation(conv2d(...)), on CPU and CUDA tensors. `moments` of a convolution alone: those of the result, if a kernel
// gathers them while it writes it; else they are left undefined.
at::Tensor conv2d_activated(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const Conv2dOptions& options, Activation activation, ChannelMoments* moments = nullptr);

// Through the dispatcher.
at::Tensor call_conv2d(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups);
at::Tensor call_conv2d_input_grad(const at::Tensor& grad_output, const at::Tensor& weight,
                                  c10::SymIntArrayRef input_size, at::IntArrayRef stride, at::IntArrayRef padding,
                                  at::IntArrayRef dilation, int64_t groups);
at::Tensor call_conv2d_weight_grad(const at::Tensor& grad_output, const at::Tensor& input,
                                   c10::SymIntArrayRef weight_size, at::IntArrayRef stride, at::IntArrayRef padding,
                                   at::IntArrayRef dilation, int64_t groups);

// All that a backward needs besides tensors, kept as one list: options first, then the sizes of input and weight.
void save_geometry(torch::autograd::AutogradContext* ctx, const Conv2dOptions& options, c10::SymIntArrayRef input_size,
                   c10::SymIntArrayRef weight_size);

struct SavedGeometry {
  std::vector<c10::SymInt> values;
  std::array<int64_t, 9> ints;

  explicit SavedGeometry(torch::autograd::AutogradContext* ctx);
  at::IntArrayRef stride() const { return {&ints[0], 2}; }
  at::IntArrayRef padding() const { return {&ints[2], 4}; }
  at::IntArrayRef dilation() const { return {&ints[6], 2}; }
  int64_t groups() const { return ints[8]; }
  c10::SymIntArrayRef input_size() const { return {&values[9], 4}; }
  c10::SymIntArrayRef weight_size() const { return {&values[13], 4}; }

  at::Tensor conv2d(const at::Tensor& input, const at::Tensor& weight) const {
    return call_conv2d(input, weight, std::nullopt, stride(), padding(), dilation(), groups());
  }
  at::Tensor input_grad(const at::Tensor& grad_output, const at::Tensor& weight) const {
    return call_conv2d_input_grad(grad_output, weight, input_size(), stride(), padding(), dilation(), groups());
  }
  at::Tensor weight_grad(const at::Tensor& grad_output, const at::Tensor& input) const {
    return call_conv2d_weight_grad(grad_output, input, weight_size(), stride(), padding(), dilation(), groups());
  }
};

// What a convolution without an activation keeps, and its gradients: of (input, weight, bias) among the arguments
// (input, weight, bias, stride, padding, dilation, groups).
void save_convolution(torch::autograd::AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias, const Conv2dOptions& options);
torch::autograd::variable_list convolution_grads(torch::autograd::AutogradContext* ctx, const at::Tensor& grad_output);

}  // namespace d2l
