#include "ops/bfloat16_convolution.h"

#include <ATen/ops/empty.h>

#include "common/dispatch.h"
#include "ops/bfloat16_product.h"
#include "ops/conv2d_cpu.h"

namespace d2l {
namespace {

using at::Tensor;
using cpu::BFloat16;
using cpu::BFloat16Kernel;

// A weight whose channels (of one axis, for each of the others) are pairs.
struct PairedWeight {
  Tensor storage;
  cpu::WeightStrides strides;  // in pairs

  const cpu::BFloat16Pair* data() const { return elements<cpu::BFloat16Pair>(storage); }
};

// Pairs of neighbouring rows of `row` values, which follow one another.
Tensor paired_rows(const Tensor& dense, int64_t row) {
  const int64_t pairs = dense.numel() / (2 * row);
  Tensor result = at::empty({pairs, row}, dense.options().dtype(at::kInt).memory_format(std::nullopt));
  cpu::pair_rows(elements<BFloat16>(dense), pairs, row, mutable_elements<cpu::BFloat16Pair>(result));
  return result;
}

Tensor dense(const Tensor& weight) {
  return weight.is_contiguous(at::MemoryFormat::ChannelsLast) ? weight : weight.contiguous();
}

PairedWeight pairs_of_inputs(const Tensor& weight) {
  const Tensor given = dense(weight);
  const cpu::WeightStrides s = weight_strides(given);
  if (s.c == 1 && reinterpret_cast<uintptr_t>(given.const_data_ptr()) % sizeof(cpu::BFloat16Pair) == 0) {
    return {given, {s.k / 2, 1, s.r / 2, s.s / 2}};
  }
  const Tensor by_taps = given.contiguous();
  const int64_t taps = given.size(2) * given.size(3), channels = given.size(1);
  return {paired_rows(by_taps, taps), {channels / 2 * taps, taps, given.size(3), 1}};
}

PairedWeight pairs_of_outputs(const Tensor& given) {
  const cpu::WeightStrides s = weight_strides(given);
  const int64_t row = given.numel() / given.size(0);
  return {paired_rows(given, row), {row, s.c, s.r, s.s}};
}

}  // namespace

void bfloat16_conv2d(BFloat16Kernel kernel, const Conv2dShape& shape, Layout layout, const Tensor& input,
                     const Tensor& weight, const std::optional<Tensor>& bias, const Tensor& output,
                     Activation activation) {
  if (kernel == BFloat16Kernel::product) {
    bfloat16_pointwise(layout, input, weight.flatten(1), bias, output, activation);
    return;
  }
  const auto* const x = elements<BFloat16>(input);
  auto* const y = mutable_elements<BFloat16>(output);
  const Tensor b = bias.has_value() ? bias->to(at::kFloat).contiguous() : Tensor();
  const float* bias32 = b.defined() ? b.const_data_ptr<float>() : nullptr;
  if (kernel == BFloat16Kernel::pairs) {
    const PairedWeight w = pairs_of_inputs(weight);
    cpu::conv2d_pairs(shape, x, w.data(), w.strides, bias32, y, activation);
  } else if (kernel == BFloat16Kernel::row_pairs) {
    cpu::conv2d_row_pairs(shape, layout, x, elements<BFloat16>(weight), weight_strides(weight), bias32, y, activation);
  } else {
    const Tensor w = weight.to(at::kFloat);
    cpu::conv2d(shape, layout, x, w.const_data_ptr<float>(), weight_strides(w), bias32, y, activation);
  }
}

void bfloat16_conv2d_input_grad(BFloat16Kernel kernel, const Conv2dShape& shape, Layout layout,
                                const Tensor& grad_output, const Tensor& weight, const Tensor& grad_input) {
  if (kernel == BFloat16Kernel::product) {
    bfloat16_pointwise(layout, grad_output, weight.flatten(1).t(), std::nullopt, grad_input, Activation::none);
    return;
  }
  const auto* const dy = elements<BFloat16>(grad_output);
  auto* const dx = mutable_elements<BFloat16>(grad_input);
  if (kernel == BFloat16Kernel::elements) {
    const Tensor w = weight.to(at::kFloat);
    cpu::conv2d_input_grad(shape, layout, dy, w.const_data_ptr<float>(), weight_strides(w), dx);
    return;
  }
  const Tensor given = dense(weight);
  const cpu::WeightStrides strides = weight_strides(given);
  if (strides.c == 1) {
    cpu::conv2d_input_grad_pairs(shape, dy, elements<BFloat16>(given), strides, dx);
  } else {
    const PairedWeight w = pairs_of_outputs(given);
    cpu::conv2d_input_grad_pairs(shape, dy, w.data(), w.strides, dx);
  }
}

void bfloat16_conv2d_weight_grad(BFloat16Kernel kernel, const Conv2dShape& shape, Layout layout,
                                 const Tensor& grad_output, const Tensor& input, const Tensor& grad_weight) {
  if (kernel == BFloat16Kernel::product) {
    bfloat16_pointwise_weight_grad(grad_output, input, grad_weight.flatten(1));
    return;
  }
  cpu::conv2d_weight_grad(shape, layout, elements<BFloat16>(grad_output), elements<BFloat16>(input),
                          mutable_elements<BFloat16>(grad_weight), weight_strides(grad_weight));
}

}  // namespace d2l
