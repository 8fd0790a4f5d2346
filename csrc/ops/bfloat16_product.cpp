#include "ops/bfloat16_product.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include "common/memory_format.h"
#include "kernels/cpu/gemm_bfloat16.h"

namespace d2l {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// Planes of fewer pixels are transposed: half a vector of them would be empty.
constexpr int64_t kLeastPlane = 32;
// Casts of smaller weights are next to nothing.
constexpr int64_t kLeastFloats = 1 << 20;

const uint16_t* bits_of(const Tensor& tensor) {
  return reinterpret_cast<const uint16_t*>(tensor.const_data_ptr<at::BFloat16>());
}

bool begins_at_a_pair(const Tensor& tensor) { return reinterpret_cast<uintptr_t>(bits_of(tensor)) % 4 == 0; }

// A matrix whose columns are the depth, copied unless it lies as the product reads it. Of float32, it is not.
struct Matrix {
  Tensor storage;
  cpu::BFloat16Matrix matrix;

  explicit Matrix(const Tensor& given) : storage(given) {
    const int64_t rows = given.size(0), columns = given.size(1);
    if (given.scalar_type() == at::kFloat) {
      const bool adjacent = given.stride(1) != 1;
      matrix = {nullptr, adjacent ? 1 : given.stride(0), given.stride(1), adjacent, 0, given.const_data_ptr<float>()};
      return;
    }
    if (given.stride(0) == 1 && rows > 1) {
      matrix = {bits_of(given), 1, given.stride(1), true, 0};
      return;
    }
    const bool lies_in_pairs =
        columns % 2 == 0 && given.stride(1) == 1 && (rows == 1 || given.stride(0) % 2 == 0) && begins_at_a_pair(given);
    if (!lies_in_pairs) storage = at::constant_pad_nd(given, {0, columns % 2}).contiguous();
    matrix = {bits_of(storage), rows == 1 ? columns + columns % 2 : storage.stride(0), 1, false, 0};
  }
};

// Of float32, or undefined.
Tensor bias_of(const OptionalTensor& bias) { return bias.has_value() ? bias->to(at::kFloat).contiguous() : Tensor(); }

cpu::BFloat16Gemm problem_of(int64_t rows, int64_t columns, int64_t depth, const Tensor& bias, const Tensor& output,
                             Activation activation) {
  cpu::BFloat16Gemm problem{};
  problem.rows = rows;
  problem.columns = columns;
  problem.depth = depth;
  problem.bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
  if (output.scalar_type() == at::kFloat) {
    problem.exact = output.mutable_data_ptr<float>();
  } else {
    problem.c = reinterpret_cast<uint16_t*>(output.mutable_data_ptr<at::BFloat16>());
  }
  problem.c_row = columns;
  problem.activation = activation;
  problem.images = 1;
  return problem;
}

// The channels of each pixel as a row; a view of a map in NHWC and of a range of its channels.
Tensor rows_of(const Tensor& map) {
  const NhwcMap found = as_nhwc(map);
  const int64_t pixels = map.numel() / map.size(1);
  return found.tensor.as_strided({pixels, map.size(1)}, {found.pixel, 1});
}

int64_t plane_of(const Tensor& map) { return map.size(2) * map.size(3); }

}  // namespace

bool has_bfloat16_product(const Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 && tensor.device().is_cpu() && cpu::has_bfloat16_gemm();
}

bool can_be_floats(const Tensor& weight) {
  return weight.scalar_type() == at::kFloat && weight.device().is_cpu() && weight.dim() == 2 &&
         weight.is_contiguous() && weight.size(1) % 2 == 0 && weight.numel() >= kLeastFloats &&
         cpu::has_bfloat16_gemm();
}

void bfloat16_product(const Tensor& input, const Tensor& weight, const OptionalTensor& bias, const Tensor& output,
                      Activation activation) {
  const Matrix a(input), b(weight);
  const Tensor bias32 = bias_of(bias);
  cpu::BFloat16Gemm problem = problem_of(input.size(0), weight.size(0), input.size(1), bias32, output, activation);
  problem.a = a.matrix;
  problem.b = b.matrix;
  if (input.size(0) > 1) problem.c_row = output.stride(0);
  cpu::gemm(problem);
}

void bfloat16_pointwise(Layout layout, const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                        const Tensor& output, Activation activation) {
  if (layout == Layout::nhwc || output.is_contiguous(at::MemoryFormat::ChannelsLast)) {
    bfloat16_product(rows_of(input), weight, bias, rows_of(output), activation);
    return;
  }
  const int64_t plane = plane_of(input), channels = input.size(1);
  if (plane < kLeastPlane) {
    const Tensor rows = at::empty(output.sizes(), output.options().memory_format(at::MemoryFormat::ChannelsLast));
    bfloat16_pointwise(Layout::nhwc, input, weight, bias, rows, activation);
    output.copy_(rows);
    return;
  }
  // Each image by itself: the weight times its planes.
  const Matrix a(weight);
  const Tensor x = input.contiguous(), bias32 = bias_of(bias);
  cpu::BFloat16Gemm problem = problem_of(weight.size(0), plane, channels, bias32, output, activation);
  problem.a = a.matrix;
  problem.b = {bits_of(x), 1, plane, true, channels * plane};
  problem.is_row_bias = bias32.defined();
  problem.images = input.size(0);
  cpu::gemm(problem);
}

void bfloat16_pointwise_weight_grad(const Tensor& grad_output, const Tensor& input, const Tensor& grad_weight) {
  const int64_t plane = plane_of(input), rows = grad_output.size(1), columns = input.size(1);
  if (!grad_output.is_contiguous() || plane % 2 != 0 || plane < kLeastPlane) {
    bfloat16_product(rows_of(grad_output).t(), rows_of(input).t(), std::nullopt, grad_weight, Activation::none);
    return;
  }
  const auto in_pairs = [](const Tensor& map) {
    const Tensor dense = map.contiguous();
    return begins_at_a_pair(dense) ? dense : dense.clone();
  };
  const Tensor dy = in_pairs(grad_output), x = in_pairs(input);
  cpu::BFloat16Gemm problem = problem_of(rows, columns, plane, {}, grad_weight, Activation::none);
  problem.a = {bits_of(dy), plane, 1, false, rows * plane};
  problem.b = {bits_of(x), plane, 1, false, columns * plane};
  problem.images = input.size(0);
  problem.adds_images = true;
  cpu::gemm(problem);
}

}  // namespace d2l
