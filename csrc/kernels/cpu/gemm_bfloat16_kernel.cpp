// Matrix products of bfloat16: the kernels of float on pairs of bfloat16 (see gemm_product.h), for the rows of a few
// chunks, whose float32 sums are rounded while they are in the L2 cache.
#include "kernels/cpu/gemm_bfloat16.h"

#include "kernels/cpu/gemm_driver.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

constexpr int64_t kChunkBytes = 512 << 10;
// A chunk packs b anew, which this many rows are worth.
constexpr int64_t kLeastRows = 16 * kGemmRows;

void round_to_bfloat16(const float* from, int64_t count, uint16_t* to) {
  int64_t i = 0;
  for (; i + kLanes<float> <= count; i += kLanes<float>) {
    _mm256_storeu_epi16(to + i, (__m256i)_mm512_cvtneps_pbh((__m512)load(from + i)));
  }
  if (i < count) {
    const auto lanes = static_cast<__mmask16>((1u << (count - i)) - 1);
    const auto rest = (__m512)load_partial(from + i, count - i);
    _mm256_mask_storeu_epi16(to + i, lanes, (__m256i)_mm512_cvtneps_pbh(rest));
  }
}

void multiply_rows(const BFloat16Gemm& problem, Range rows) {
  float* sums = static_cast<float*>(
      workspace(Workspace::sums, rows.size() * problem.columns * static_cast<int64_t>(sizeof(float))));
  // Pairs travel through the kernels as the bits of a float; nothing but multiply_add looks at them.
  const float* a = reinterpret_cast<const float*>(problem.a) + rows.begin * problem.a_row;
  const float* b = reinterpret_cast<const float*>(problem.b);
  multiply(Gemm<float>{rows.size(), problem.columns, problem.depth, a, problem.a_row, problem.a_depth, b,
                       problem.b_depth, problem.b_column, problem.bias, sums, problem.columns, problem.activation});
  const int64_t count = rows.size() * problem.columns;
  parallel_for(0, count, kGrain / 4, [&](int64_t begin, int64_t end) {
    round_to_bfloat16(sums + begin, end - begin, problem.c + rows.begin * problem.columns + begin);
  });
  trim_workspace(Workspace::sums);
}

void multiply_pairs(const BFloat16Gemm& problem) {
  const int64_t fitting = kChunkBytes / (problem.columns * static_cast<int64_t>(sizeof(float)));
  const int64_t threads = clamp(problem.rows * problem.columns * problem.depth / kGrain, 1, max_threads());
  int64_t chunks = problem.rows / max(fitting, kLeastRows);
  if (chunks < threads) {  // few rows: the threads share each product
    chunks = max(1, chunks);
    for (int64_t i = 0; i < chunks; ++i) multiply_rows(problem, part_of(problem.rows, kGemmRows, chunks, i));
    return;
  }
  chunks = ceil_div(chunks, threads) * threads;
  parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) multiply_rows(problem, part_of(problem.rows, kGemmRows, chunks, i));
  });
}

D2L_INLINE __m512i widened(const uint16_t* from, __mmask16 lanes) {
  return _mm512_maskz_cvtepu16_epi32(lanes, _mm256_maskz_loadu_epi16(lanes, from));
}

void interleave_pairs(const uint16_t* from, int64_t stride, int64_t rows, int64_t depth, BFloat16Pair* to) {
  parallel_for(0, ceil_div(depth, 2), max(1, kGrain / 8 / max(1, rows)), [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) {
      const uint16_t* low = from + 2 * d * stride;
      const bool is_pair = 2 * d + 1 < depth;
      const uint16_t* high = is_pair ? low + stride : low;
      for (int64_t i = 0; i < rows; i += kLanes<float>) {
        const auto lanes = static_cast<__mmask16>(rows - i >= kLanes<float> ? 0xffff : (1u << (rows - i)) - 1);
        const __m512i first = widened(low + i, lanes);
        const __m512i second = widened(high + i, is_pair ? lanes : 0);
        _mm512_mask_storeu_epi32(to + d * rows + i, lanes,
                                 _mm512_maskz_or_epi32(lanes, first, _mm512_maskz_slli_epi32(lanes, second, 16)));
      }
    }
  });
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
