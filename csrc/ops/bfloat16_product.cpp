#include "ops/bfloat16_product.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include "kernels/cpu/gemm_bfloat16.h"

namespace d2l {
namespace {

using at::Tensor;

const uint16_t* bits_of(const Tensor& tensor) {
  return reinterpret_cast<const uint16_t*>(tensor.const_data_ptr<at::BFloat16>());
}

// A matrix as pairs of values that follow one another in its rows. In place where they lie so, else a copy.
struct Pairs {
  Tensor storage;
  const cpu::BFloat16Pair* data;
  int64_t row, depth;  // strides in pairs; one is 1

  explicit Pairs(const Tensor& matrix) {
    const int64_t rows = matrix.size(0), columns = matrix.size(1), count = (columns + 1) / 2;
    if (matrix.stride(0) == 1 && rows > 1) {
      storage = at::empty({count, rows}, matrix.options().dtype(at::kInt));
      auto* to = reinterpret_cast<cpu::BFloat16Pair*>(storage.mutable_data_ptr<int>());
      cpu::pair_neighbours(bits_of(matrix), matrix.stride(1), rows, columns, to);
      data = to;
      row = 1;
      depth = rows;
      return;
    }
    storage = matrix;
    const bool lies_in_pairs = columns % 2 == 0 && matrix.stride(1) == 1 && (rows == 1 || matrix.stride(0) % 2 == 0) &&
                               reinterpret_cast<uintptr_t>(bits_of(matrix)) % sizeof(cpu::BFloat16Pair) == 0;
    if (!lies_in_pairs) storage = at::constant_pad_nd(matrix, {0, columns % 2}).contiguous();
    data = reinterpret_cast<const cpu::BFloat16Pair*>(bits_of(storage));
    row = rows == 1 ? count : storage.stride(0) / 2;
    depth = 1;
  }
};

}  // namespace

bool has_bfloat16_product(const Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 && tensor.device().is_cpu() && cpu::has_bfloat16_gemm();
}

void bfloat16_product(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                      const Tensor& output, Activation activation) {
  const Pairs a(input), b(weight);
  const Tensor bias32 = bias.has_value() ? bias->to(at::kFloat).contiguous() : Tensor();
  cpu::BFloat16Gemm problem{};
  problem.rows = input.size(0);
  problem.columns = weight.size(0);
  problem.depth = (input.size(1) + 1) / 2;
  problem.a = a.data;
  problem.a_row = a.row;
  problem.a_depth = a.depth;
  problem.b = b.data;
  problem.b_column = b.row;
  problem.b_depth = b.depth;
  problem.bias = bias32.defined() ? bias32.const_data_ptr<float>() : nullptr;
  problem.c = reinterpret_cast<uint16_t*>(output.mutable_data_ptr<at::BFloat16>());
  problem.activation = activation;
  cpu::gemm(problem);
}

}  // namespace d2l
