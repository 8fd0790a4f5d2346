#include "kernels/cpu/cross_entropy.h"

#include <algorithm>

#include "kernels/cpu/cross_entropy_kernel.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerTask = 8192;  // fewer are not worth a thread

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows whose losses are summed in order: a task's worth, in whole registers of any width.
int64_t rows_per_part(const CrossEntropyShape& shape) {
  constexpr int64_t kRegister = 16, kMost = 256;
  return std::clamp(kElementsPerTask / shape.C / kRegister * kRegister, kRegister, kMost);
}

template <typename T>
T total_of(const CrossEntropyShape& shape, const T* weight) {
  if (weight == nullptr) return static_cast<T>(shape.C);
  double total = 0;
  for (int64_t c = 0; c < shape.C; ++c) total += static_cast<double>(weight[c]);
  return static_cast<T>(total);
}

}  // namespace

template <typename E, typename T>
CrossEntropySums cross_entropy(const CrossEntropyShape& shape, const E* input, const int64_t* target, const T* weight,
                               E* losses, T* statistics) {
  const T total = total_of(shape, weight);
  const int64_t part_rows = rows_per_part(shape), parts = ceil_div(shape.rows(), part_rows);
  auto* const sums = static_cast<CrossEntropySums*>(
      workspace(Workspace::call, parts * static_cast<int64_t>(sizeof(CrossEntropySums))));
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / (part_rows * shape.C));
  parallel_for(0, parts, grain, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) {
      const int64_t begin = part * part_rows, end = std::min(shape.rows(), begin + part_rows);
      D2L_CALL_BEST(cross_entropy_rows, shape, begin, end, input, target, weight, total, losses, statistics,
                    sums + part);
    }
  });
  CrossEntropySums result{0, 0, -1};
  for (int64_t part = 0; part < parts; ++part) {
    result.loss += sums[part].loss;
    result.weight += sums[part].weight;
    if (result.row_out_of_range < 0) result.row_out_of_range = sums[part].row_out_of_range;
  }
  return result;
}

template <typename E, typename T>
void cross_entropy_input_grad(const CrossEntropyShape& shape, const E* grad_output, int64_t grad_stride, T scale,
                              const E* input, const int64_t* target, const T* weight, const T* statistics,
                              E* grad_input) {
  const T total = total_of(shape, weight);
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / shape.C);
  parallel_for(0, shape.rows(), grain, [&](int64_t begin, int64_t end) {
    D2L_CALL_BEST(cross_entropy_grad_rows, shape, begin, end, grad_output, grad_stride, scale, input, target, weight,
                  total, statistics, grad_input);
  });
}

#define D2L_INSTANTIATE(E)                                                                                          \
  template CrossEntropySums cross_entropy(const CrossEntropyShape&, const E*, const int64_t*, const computed_t<E>*, \
                                          E*, computed_t<E>*);                                                      \
  template void cross_entropy_input_grad(const CrossEntropyShape&, const E*, int64_t, computed_t<E>, const E*,      \
                                         const int64_t*, const computed_t<E>*, const computed_t<E>*, E*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
