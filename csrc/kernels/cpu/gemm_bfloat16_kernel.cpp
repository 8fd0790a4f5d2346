// Matrix products of bfloat16: the kernels of float on pairs of bfloat16 (see gemm_product.h).
#include "kernels/cpu/gemm_bfloat16.h"

#include "kernels/cpu/gemm_driver.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Sums that are kept stay in L2 until they are rounded: those of a chunk of rows.
constexpr int64_t kChunkBytes = 512 << 10;
// A chunk packs b anew, which this many rows are worth.
constexpr int64_t kLeastRows = 16 * kGemmRows;

Operand<float> operand(const BFloat16Matrix& matrix, int64_t depth, int64_t image) {
  const int64_t from = image * matrix.image;
  Operand<float> result{matrix.data + from, matrix.line, matrix.depth, matrix.image, matrix.adjacent, depth};
  if (matrix.floats != nullptr) result.floats = matrix.floats + from;
  return result;
}

void multiply_rows(const Product<float>& whole, Range rows) {
  Product<float> part = whole;
  part.rows = rows.size();
  part.a.data += rows.begin * part.a.line;
  if (is_exact(part)) {
    part.exact.data += rows.begin * part.exact.row;
  } else {
    part.c += rows.begin * part.c_row;
  }
  if (part.bias != nullptr && part.is_row_bias) part.bias += rows.begin;
  multiply(part);
}

void multiply_chunks(const Product<float>& product) {
  const int64_t fitting = kChunkBytes / (product.columns * static_cast<int64_t>(sizeof(float)));
  const int64_t threads = threads_for(product);
  int64_t chunks = keeps_sums(product) ? product.rows / max(fitting, kLeastRows) : 0;
  if (chunks < threads) {  // few rows: the threads share each product
    chunks = max(1, chunks);
    for (int64_t i = 0; i < chunks; ++i) multiply_rows(product, part_of(product.rows, kGemmRows, chunks, i));
    return;
  }
  chunks = ceil_div(chunks, threads) * threads;
  parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) multiply_rows(product, part_of(product.rows, kGemmRows, chunks, i));
  });
}

void multiply_images(const BFloat16Gemm& g) {
  const int64_t products = g.adds_images ? 1 : g.images;
  const auto multiply_image = [&](int64_t image) {
    const int64_t result = image * g.rows * g.columns;
    Product<float> product{g.rows,
                           g.columns,
                           ceil_div(g.depth, 2),
                           g.adds_images ? g.images : 1,
                           operand(g.a, g.depth, image),
                           operand(g.b, g.depth, image),
                           g.bias,
                           g.is_row_bias,
                           g.exact == nullptr ? g.c + result : nullptr,
                           g.c_row,
                           g.activation,
                           {}};
    if (g.exact != nullptr) product.exact = {g.exact + result, g.c_row};
    multiply_chunks(product);
  };
  if (products < 2 * max_threads()) {  // the threads share each of them
    for (int64_t i = 0; i < products; ++i) multiply_image(i);
    return;
  }
  parallel_for(0, products, max(1, kGrain / max(1, g.rows * g.columns * g.depth / 2)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) multiply_image(i);
  });
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
