#include "ops/bfloat16_convolution.h"

#include <ATen/ops/empty.h>

#include "common/dispatch.h"
#include "common/memory_format.h"
#include "kernels/cpu/conv2d_bfloat16.h"
#include "ops/conv2d.h"

namespace d2l {
namespace {

using at::Tensor;
using cpu::BFloat16;
using cpu::Conv2dPass;

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

bool has_bfloat16_convolution(const Conv2dShape& shape, at::MemoryFormat format, Conv2dPass pass, const Tensor& map) {
  if (map.scalar_type() != at::kBFloat16) return false;
  if (pass == Conv2dPass::forward && cpu::conv2d_takes_row_pairs(shape, layout_of(format))) return true;
  return cpu::conv2d_takes_bfloat16(shape, pass) || cpu::conv2d_takes_pairs(shape, layout_of(format), pass);
}

void bfloat16_conv2d(const Conv2dShape& shape, at::MemoryFormat format, const Tensor& input, const Tensor& weight,
                     const std::optional<Tensor>& bias, const Tensor& output, Activation activation) {
  const Tensor b = bias.has_value() ? bias->to(at::kFloat).contiguous() : Tensor();
  const float* bias32 = b.defined() ? b.const_data_ptr<float>() : nullptr;
  if (cpu::conv2d_takes_pairs(shape, layout_of(format), Conv2dPass::forward)) {
    const PairedWeight w = pairs_of_inputs(weight);
    cpu::conv2d_pairs(shape, elements<BFloat16>(input), w.data(), w.strides, bias32, mutable_elements<BFloat16>(output),
                      activation);
    return;
  }
  if (cpu::conv2d_takes_row_pairs(shape, layout_of(format))) {
    cpu::conv2d_row_pairs(shape, layout_of(format), elements<BFloat16>(input), elements<BFloat16>(weight),
                          weight_strides(weight), bias32, mutable_elements<BFloat16>(output), activation);
    return;
  }
  const Tensor w = weight.to(at::kFloat);
  cpu::conv2d(shape, layout_of(format), elements<BFloat16>(input), w.const_data_ptr<float>(), weight_strides(w), bias32,
              mutable_elements<BFloat16>(output), activation);
}

void bfloat16_conv2d_input_grad(const Conv2dShape& shape, at::MemoryFormat format, const Tensor& grad_output,
                                const Tensor& weight, const Tensor& grad_input) {
  if (cpu::conv2d_takes_pairs(shape, layout_of(format), Conv2dPass::input_grad)) {
    const Tensor given = dense(weight);
    const cpu::WeightStrides strides = weight_strides(given);
    if (strides.c == 1) {
      cpu::conv2d_input_grad_pairs(shape, elements<BFloat16>(grad_output), elements<BFloat16>(given), strides,
                                   mutable_elements<BFloat16>(grad_input));
      return;
    }
    const PairedWeight w = pairs_of_outputs(given);
    cpu::conv2d_input_grad_pairs(shape, elements<BFloat16>(grad_output), w.data(), w.strides,
                                 mutable_elements<BFloat16>(grad_input));
    return;
  }
  const Tensor w = weight.to(at::kFloat);
  cpu::conv2d_input_grad(shape, layout_of(format), elements<BFloat16>(grad_output), w.const_data_ptr<float>(),
                         weight_strides(w), mutable_elements<BFloat16>(grad_input));
}

}  // namespace d2l
