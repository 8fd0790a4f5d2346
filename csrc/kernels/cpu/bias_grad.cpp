#include "kernels/cpu/bias_grad.h"

#include <algorithm>

#include "kernels/cpu/bias_grad_kernel.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerPart = 131072;  // joining the sums of parts must cost little
constexpr int64_t kElementsPerTask = 32768;   // fewer are not worth a thread
constexpr int64_t kNarrow = 64;               // columns: fewer make short loops
constexpr int64_t kSmall = 16;                // pixels or columns: fewer do not fill a register

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How the maps are cut into parts, whose sums are joined in order: by the shape, not by the number of threads.
//
// By planes, a part is some images of one channel. By columns, a part is some rows of all channels; column j belongs to
// channel j / run % C. Rows of few columns are taken `repeat` at a time, but for the last ones, which do not fill a
// wide row: they are the last part.
struct Partition {
  bool by_columns;
  int64_t channels, pixels;
  int64_t run = 1, row = 1, repeat = 1;
  int64_t items, items_per_part, whole_parts, narrow_rows = 0;  // items: images, or wide rows

  Partition(const BiasGradShape& shape, Layout layout)
      : by_columns(layout == Layout::nhwc || shape.pixels < kSmall), channels(shape.C), pixels(shape.pixels) {
    if (by_columns) {
      run = layout == Layout::nchw ? pixels : 1;
      row = channels * run;
      repeat = row >= kNarrow ? 1 : row >= kSmall ? 4 : 16;
      const int64_t rows = shape.N * pixels / run;
      items = rows / repeat;
      narrow_rows = rows % repeat;
      items_per_part = std::max<int64_t>(64, ceil_div(kElementsPerPart, width()));
    } else {
      items = shape.N;
      items_per_part = ceil_div(kElementsPerPart, pixels);
    }
    whole_parts = ceil_div(items, items_per_part);
  }

  int64_t width() const { return row * repeat; }
  int64_t parts() const { return whole_parts + (narrow_rows > 0 ? 1 : 0); }
  int64_t items_of(int64_t part) const { return std::min(items_per_part, items - part * items_per_part); }
  BiasColumns columns(int64_t part) const {
    return part < whole_parts ? BiasColumns{items_of(part), width()} : BiasColumns{narrow_rows, row};
  }
  int64_t first_item(int64_t part) const { return std::min(part * items_per_part, items); }
};

template <typename E>
struct Maps {
  Activation activation;
  const E* grad_output;
  const E* output;
  E* grad_pre;

  // From an element on; without an activation only the gradient is there.
  Maps at(int64_t offset) const {
    if (activation == Activation::none) return {activation, grad_output + offset, nullptr, nullptr};
    return {activation, grad_output + offset, output + offset, grad_pre + offset};
  }
};

template <typename E>
void sum_columns(const Partition& cut, const Maps<E>& maps, computed_t<E>* grad_bias) {
  const int64_t parts = cut.parts(), width = cut.width();
  auto* const partials =
      static_cast<double*>(workspace(Workspace::call, (parts + 1) * width * static_cast<int64_t>(sizeof(double))));
  const auto sum_parts = [&](int64_t begin, int64_t end) {
    using T = computed_t<E>;
    auto* const scratch = static_cast<T*>(workspace(Workspace::task, width * static_cast<int64_t>(sizeof(T))));
    for (int64_t part = begin; part < end; ++part) {
      const Maps<E> from = maps.at(cut.first_item(part) * width);
      D2L_CALL_BEST(bias_grad_columns, from.activation, cut.columns(part), from.grad_output, from.output, from.grad_pre,
                    scratch, partials + part * width);
    }
  };
  parallel_for(0, parts, 1, sum_parts);
  double* const sums = partials + parts * width;
  std::fill_n(sums, cut.channels, 0.0);
  for (int64_t part = 0; part < parts; ++part) {
    const double* const partial = partials + part * width;
    const int64_t rows = cut.columns(part).width / cut.row;
    for (int64_t i = 0, j = 0; i < rows; ++i) {
      for (int64_t c = 0; c < cut.channels; ++c) {
        for (int64_t k = 0; k < cut.run; ++k, ++j) sums[c] += partial[j];
      }
    }
  }
  for (int64_t c = 0; c < cut.channels; ++c) grad_bias[c] = static_cast<computed_t<E>>(sums[c]);
}

template <typename E>
void sum_planes(const Partition& cut, const Maps<E>& maps, computed_t<E>* grad_bias) {
  const int64_t parts = cut.parts(), stride = cut.channels * cut.pixels;
  auto* const partials =
      static_cast<double*>(workspace(Workspace::call, cut.channels * parts * static_cast<int64_t>(sizeof(double))));
  const auto sum_parts = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t c = task / parts, part = task % parts;
      const Maps<E> from = maps.at(cut.first_item(part) * stride + c * cut.pixels);
      const BiasPlanes planes{cut.items_of(part), cut.pixels, stride};
      D2L_CALL_BEST(bias_grad_planes, from.activation, planes, from.grad_output, from.output, from.grad_pre,
                    partials + task);
    }
  };
  const int64_t tasks = cut.channels * parts, elements = cut.items * stride;
  parallel_for(0, tasks, ceil_div(kElementsPerTask, ceil_div(elements, tasks)), sum_parts);
  for (int64_t c = 0; c < cut.channels; ++c) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += partials[c * parts + part];
    grad_bias[c] = static_cast<computed_t<E>>(sum);
  }
}

template <typename E>
void run(const BiasGradShape& shape, Layout layout, const Maps<E>& maps, computed_t<E>* grad_bias) {
  if (shape.C == 0) return;
  if (shape.N * shape.pixels == 0) {
    std::fill_n(grad_bias, shape.C, computed_t<E>(0));
    return;
  }
  const Partition cut(shape, layout);
  if (cut.by_columns) {
    sum_columns(cut, maps, grad_bias);
  } else {
    sum_planes(cut, maps, grad_bias);
  }
}

}  // namespace

template <typename E>
void bias_grad(const BiasGradShape& shape, Layout layout, const E* grad_output, computed_t<E>* grad_bias) {
  run<E>(shape, layout, {Activation::none, grad_output, nullptr, nullptr}, grad_bias);
}

template <typename E>
void activation_bias_grad(const BiasGradShape& shape, Layout layout, Activation activation, const E* grad_output,
                          const E* output, E* grad_pre, computed_t<E>* grad_bias) {
  run<E>(shape, layout, {activation, grad_output, output, grad_pre}, grad_bias);
}

#define D2L_INSTANTIATE(E)                                                         \
  template void bias_grad(const BiasGradShape&, Layout, const E*, computed_t<E>*); \
  template void activation_bias_grad(const BiasGradShape&, Layout, Activation, const E*, const E*, E*, computed_t<E>*);
D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
