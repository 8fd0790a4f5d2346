// Convolution and its gradients with the images of a batch in the lanes of a vector, for one instruction set.
//
// A group of kLanes images goes through the whole operation at once, in the L2 cache: the maps are transposed, so that
// every element is a vector of its values in the images; tiles of 2 x 2 pixels by some channels are summed in
// registers, where the activation and the average of the 2 x 2 pixels follow; results are transposed back. The gradient
// of an average, of the activation and of the sums is likewise one pass over the group.
// FLOPs: 2 N P Q K C R S for each of forward, input gradient and weight gradient, less what falls on padding in whole
// tiles. Memory: every map is read and written once.
// Threads: groups of images. Sums of the weight gradient are kept per lane and slice (one per thread) and added in a
// fixed order at the end.
#include "kernels/cpu/conv2d_images_kernel.h"

#include "kernels/cpu/activation_math.h"
#include "kernels/cpu/conv2d_images_tile.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/progress_reporter.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {
namespace {

// Of the gradient, read again for every tap: they stay in the L1 cache.
constexpr int64_t kChunkBytes = 32 << 10;

// Pieces of equal size, up to one, of at most `most` items.
D2L_INLINE int64_t even_piece(int64_t count, int64_t most) { return ceil_div(count, ceil_div(count, most)); }

// A correlation of stride 1 of whole maps: the forward pass, or the input gradient with flipped taps.
template <typename T>
struct Correlator {
  int64_t depth, width, taps_h, taps_w, pad_h, pad_w;
  int64_t block;  // channels of a tile

  Correlator(int64_t depth, int64_t width, int64_t taps_h, int64_t taps_w, int64_t pad_h, int64_t pad_w)
      : depth(depth),
        width(width),
        taps_h(taps_h),
        taps_w(taps_w),
        pad_h(pad_h),
        pad_w(pad_w),
        block(even_piece(width, kImagesWidth)) {}

  int64_t block_elements() const { return depth * taps_h * taps_w * block; }
  int64_t packed_elements() const { return ceil_div(width, block) * (block_elements() + block); }

  // Weights and bias of each block of channels. The strides are those of depth, width and taps, negative for flipped
  // ones; `weight` is the first in that order.
  void pack(const T* weight, int64_t of_depth, int64_t of_width, int64_t of_row, int64_t of_column, const T* bias,
            T* to) const {
    for (int64_t first = 0; first < width; first += block) {
      const int64_t count = min(block, width - first);
      T* packed = to;
      for (int64_t d = 0; d < depth; ++d) {
        for (int64_t r = 0; r < taps_h; ++r) {
          for (int64_t s = 0; s < taps_w; ++s) {
            for (int64_t k = 0; k < count; ++k) {
              *packed++ = weight[d * of_depth + (first + k) * of_width + r * of_row + s * of_column];
            }
          }
        }
      }
      for (int64_t k = 0; k < count; ++k) to[block_elements() + k] = bias == nullptr ? T(0) : bias[first + k];
      to += block_elements() + block;
    }
  }

  void run(const ImagesMap<T>& source, const T* packed, Activation activation, int64_t rows, int64_t columns,
           const ImagesMap<T>* result, const ImagesMap<T>* pooled) const {
    for (int64_t p = 0; p < rows; p += 2) {
      for (int64_t first = 0; first < width; first += block) {
        const int64_t count = min(block, width - first);
        ImagesTile<T> t{};
        t.source_channel = source.channel;
        t.source_row = source.row;
        t.source_column = source.column;
        t.depth = depth;
        t.taps_h = taps_h;
        t.taps_w = taps_w;
        t.weights = packed + first / block * (block_elements() + block);
        t.bias = t.weights + block_elements();
        t.activation = activation;
        t.rows = taps_inside(p, min(2, rows - p), taps_h, pad_h, source.rows);
        if (result != nullptr) {
          t.result_channel = result->channel;
          t.result_row = result->row;
          t.result_column = result->column;
        }
        if (pooled != nullptr) t.pooled_channel = pooled->channel;
        for (int64_t q = 0; q < columns; q += 2) {
          t.source = source.at(0, p - pad_h, q - pad_w);
          t.columns = taps_inside(q, min(2, columns - q), taps_w, pad_w, source.columns);
          t.result = result == nullptr ? nullptr : result->at(first, p, q);
          t.pooled = pooled == nullptr ? nullptr : pooled->at(first, p / 2, q / 2);
          images_tile_function<T>(min(2, rows - p), min(2, columns - q), count)(t);
        }
      }
    }
  }
};

// Of a source: one pixel on each side, which tiles of two pixels may read.
template <typename T>
ImagesMap<T> with_margin(Layout layout, int64_t channels, int64_t rows, int64_t columns) {
  return ImagesMap<T>(layout, channels, rows, columns, 1, 1);
}

template <typename T>
ImagesMap<T> without_margin(Layout layout, int64_t channels, int64_t rows, int64_t columns) {
  return ImagesMap<T>(layout, channels, rows, columns, 0, 0);
}

// function(first image, images, group) for the groups from begin to end - 1.
template <typename T, typename Function>
void for_groups(int64_t images, int64_t begin, int64_t end, Function&& function) {
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group * kLanes<T>;
    function(first, min(kLanes<T>, images - first));
  }
}

template <typename T>
T* task_memory(int64_t elements) {
  return static_cast<T*>(workspace(Workspace::task, elements * static_cast<int64_t>(sizeof(T))));
}

template <typename T>
struct Gradients {
  const ImagesGradients<T>& problem;
  const Conv2dShape& shape;
  Correlator<T> correlator;  // of the input gradient

  explicit Gradients(const ImagesGradients<T>& problem)
      : problem(problem),
        shape(problem.shape),
        correlator(shape.K, shape.C, shape.R, shape.S, shape.R - 1 - shape.pad_top, shape.S - 1 - shape.pad_left) {}

  int64_t weights() const { return shape.K * shape.C * shape.R * shape.S; }
  int64_t totals() const { return weights() + shape.K; }
  int64_t slice_elements() const { return totals() * kLanes<T>; }

  void run() const {
    const int64_t groups = ceil_div(shape.N, kLanes<T>), slices = max(1, min(max_threads(), groups));
    T* const sums = static_cast<T*>(workspace(
        Workspace::call,
        (slices * slice_elements() + correlator.packed_elements() + totals()) * static_cast<int64_t>(sizeof(T))));
    T* const packed = sums + slices * slice_elements();
    if (problem.grad_input != nullptr) {
      const WeightStrides& of = problem.weight_strides;
      correlator.pack(problem.weight + (shape.R - 1) * of.r + (shape.S - 1) * of.s, of.k, of.c, -of.r, -of.s, nullptr,
                      packed);
    }
    parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
      for (int64_t slice = begin; slice < end; ++slice) {
        run_slice(slice * groups / slices, (slice + 1) * groups / slices, packed, sums + slice * slice_elements());
      }
      trim_workspace(Workspace::task);
    });
    write_totals(sums, slices, packed + correlator.packed_elements());
    trim_workspace(Workspace::call);
  }

  void run_slice(int64_t begin, int64_t end, const T* packed, T* sums) const {
    __builtin_memset(sums, 0, static_cast<size_t>(slice_elements()) * sizeof(T));
    const int64_t C = shape.C, H = shape.H, W = shape.W, K = shape.K, P = shape.P, Q = shape.Q;
    const bool needs_output = problem.activation != Activation::none, copies_grad = needs_output || problem.is_pooled;
    // Columns beyond the input's that the weight gradient reads.
    const int64_t column_margin = max(shape.pad_left, Q - 1 + shape.S - 1 - shape.pad_left - (W - 1));
    ImagesMap<T> grad = with_margin<T>(needs_output ? problem.output_layout : problem.grad_output_layout, K, P, Q);
    ImagesMap<T> outer =
        without_margin<T>(problem.grad_output_layout, K, problem.is_pooled ? P / 2 : P, problem.is_pooled ? Q / 2 : Q);
    ImagesMap<T> input(problem.input_layout, C, H, W, 0, max(0, column_margin));
    ImagesMap<T> grad_input = without_margin<T>(problem.input_layout, C, H, W);
    T* memory = task_memory<T>(grad.elements() + outer.elements() + input.elements() + grad_input.elements());
    memory = grad.place(memory);
    if (copies_grad) memory = outer.place(memory);
    if (problem.grad_weight != nullptr) memory = input.place(memory);
    if (problem.grad_input != nullptr) grad_input.place(memory);
    for_groups<T>(shape.N, begin, end, [&](int64_t first, int64_t images) {
      if (images < kLanes<T>) clear_lanes(grad, outer, input);
      const T* const source = problem.grad_output + first * outer.image_elements();
      if (copies_grad) {
        outer.read(source, images);
        if (needs_output) grad.read(problem.output + first * grad.image_elements(), images);
        visit_activation(problem.activation,
                         [&](auto kind) { differentiate<kind>(outer, grad, sums + weights() * kLanes<T>); });
      } else {
        grad.read(source, images);
        if (problem.grad_bias != nullptr) add_bias(grad, sums + weights() * kLanes<T>);
      }
      if (problem.grad_weight != nullptr) {
        input.read(problem.input + first * input.image_elements(), images);
        add_weights(grad, input, sums);
      }
      if (problem.grad_input != nullptr) {
        correlator.run(grad, packed, Activation::none, H, W, &grad_input, nullptr);
        grad_input.write(problem.grad_input + first * grad_input.image_elements(), images);
      }
    });
  }

  // The last group may leave lanes empty, which still hold the images before; their gradients have to be zeros.
  static void clear_lanes(ImagesMap<T>& grad, ImagesMap<T>& outer, ImagesMap<T>& input) {
    for (ImagesMap<T>* map : {&grad, &outer, &input}) {
      if (map->data != nullptr) map->place(map->data - map->row_margin * map->row - map->column_margin * map->column);
    }
  }

  // grad holds the activated map, and then the gradient of what was activated, whose sums are added for the bias.
  template <Activation kActivation>
  void differentiate(const ImagesMap<T>& outer, const ImagesMap<T>& grad, T* bias_sums) const {
    const int shift = problem.is_pooled ? 1 : 0;
    const T scale = problem.is_pooled ? T(0.25) : T(1);
    for (int64_t k = 0; k < shape.K; ++k) {
      vec_t<T> sum = load(bias_sums + k * kLanes<T>);
      for (int64_t p = 0; p < shape.P; ++p) {
        for (int64_t q = 0; q < shape.Q; ++q) {
          T* const at = grad.at(k, p, q);
          const bool is_inside = (p >> shift) < outer.rows && (q >> shift) < outer.columns;
          const vec_t<T> from = is_inside ? scale * load(outer.at(k, p >> shift, q >> shift)) : vec_t<T>{};
          const vec_t<T> gradient = activation_gradient<kActivation, T>(from, load(at));
          store(at, gradient);
          sum += gradient;
        }
      }
      store(bias_sums + k * kLanes<T>, sum);
    }
  }

  void add_bias(const ImagesMap<T>& grad, T* sums) const {
    for (int64_t k = 0; k < shape.K; ++k) {
      vec_t<T> sum{};
      for (int64_t p = 0; p < shape.P; ++p) {
        for (int64_t q = 0; q < shape.Q; ++q) sum += load(grad.at(k, p, q));
      }
      store(sums + k * kLanes<T>, load(sums + k * kLanes<T>) + sum);
    }
  }

  void add_weights(const ImagesMap<T>& grad, const ImagesMap<T>& input, T* sums) const {
    const int64_t taps = shape.R * shape.S, block = even_piece(shape.K, kImagesGradWidth);
    const int64_t row_bytes = block * shape.Q * kVectorBytes, chunk = max(1, kChunkBytes / row_bytes);
    ImagesWeightTile<T> t{};
    t.grad_channel = grad.channel;
    t.grad_row = grad.row;
    t.grad_column = grad.column;
    t.input_row = input.row;
    t.input_column = input.column;
    t.columns = shape.Q;
    t.sums_channel = shape.C * taps * kLanes<T>;
    for (int64_t k = 0; k < shape.K; k += block) {
      const auto function = images_weight_function<T>(min(block, shape.K - k), shape.S);
      for (int64_t row = 0; row < shape.P; row += chunk) {
        for (int64_t c = 0; c < shape.C; ++c) {
          for (int64_t r = 0; r < shape.R; ++r) {
            const int64_t first = max(row, shape.pad_top - r);
            t.rows = min(min(row + chunk, shape.P), shape.H + shape.pad_top - r) - first;
            t.grad = grad.at(k, first, 0);
            t.input = input.at(c, first + r - shape.pad_top, -shape.pad_left);
            t.sums = sums + ((k * shape.C + c) * taps + r * shape.S) * kLanes<T>;
            if (t.rows > 0) function(t);
          }
        }
      }
    }
  }

  // The sums of all slices and lanes, the latter of kLanes sums at a time.
  void add_lanes(const T* sums, int64_t slices, T* to) const {
    for (int64_t first = 0; first < totals(); first += kLanes<T>) {
      const int64_t count = min(kLanes<T>, totals() - first);
      vec_t<T> lanes[kLanes<T>] = {};
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t slice = 0; slice < slices; ++slice) {
          lanes[i] += load(sums + slice * slice_elements() + (first + i) * kLanes<T>);
        }
      }
      transpose_registers<T>(lanes);
      vec_t<T> total{};
      for (const vec_t<T>& lane : lanes) total += lane;
      store_partial(to + first, total, count);
    }
  }

  void write_totals(const T* sums, int64_t slices, T* totals) const {
    add_lanes(sums, slices, totals);
    const WeightStrides& of = problem.grad_weight_strides;
    const T* total = totals;
    for (int64_t k = 0; problem.grad_weight != nullptr && k < shape.K; ++k) {
      for (int64_t c = 0; c < shape.C; ++c) {
        for (int64_t r = 0; r < shape.R; ++r) {
          for (int64_t s = 0; s < shape.S; ++s) {
            problem.grad_weight[k * of.k + c * of.c + r * of.r + s * of.s] = *total++;
          }
        }
      }
    }
    for (int64_t k = 0; problem.grad_bias != nullptr && k < shape.K; ++k) problem.grad_bias[k] = totals[weights() + k];
  }
};

}  // namespace

template <typename T>
void images_forward(const ImagesForward<T>& problem) {
  const Conv2dShape& s = problem.shape;
  const Correlator<T> correlator(s.C, s.K, s.R, s.S, s.pad_top, s.pad_left);
  T* const packed =
      static_cast<T*>(workspace(Workspace::call, correlator.packed_elements() * static_cast<int64_t>(sizeof(T))));
  const WeightStrides& of = problem.weight_strides;
  correlator.pack(problem.weight, of.c, of.k, of.r, of.s, problem.bias, packed);
  parallel_for(0, ceil_div(s.N, kLanes<T>), 1, [&](int64_t begin, int64_t end) {
    ImagesMap<T> input = with_margin<T>(problem.input_layout, s.C, s.H, s.W);
    ImagesMap<T> output = without_margin<T>(problem.output_layout, s.K, s.P, s.Q);
    ImagesMap<T> pooled = without_margin<T>(problem.output_layout, s.K, s.P / 2, s.Q / 2);
    const bool has_output = problem.output != nullptr, is_pooled = problem.pooled != nullptr;
    T* memory = task_memory<T>(input.elements() + (has_output ? output.elements() : 0) + pooled.elements());
    memory = input.place(memory);
    if (has_output) memory = output.place(memory);
    pooled.place(memory);
    ProgressReporter reporter(problem.progress, begin * kLanes<T> * s.P * s.Q);
    for_groups<T>(s.N, begin, end, [&](int64_t first, int64_t images) {
      input.read(problem.input + first * input.image_elements(), images);
      correlator.run(input, packed, problem.activation, has_output ? s.P : s.P / 2 * 2, has_output ? s.Q : s.Q / 2 * 2,
                     has_output ? &output : nullptr, is_pooled ? &pooled : nullptr);
      if (has_output) output.write(problem.output + first * output.image_elements(), images);
      if (is_pooled) pooled.write(problem.pooled + first * pooled.image_elements(), images);
      reporter.finished((first + images) * s.P * s.Q);
    });
    trim_workspace(Workspace::task);
  });
  trim_workspace(Workspace::call);
}

template <typename T>
void images_gradients(const ImagesGradients<T>& problem) {
  Gradients<T>(problem).run();
}

template void images_forward<float>(const ImagesForward<float>&);
template void images_forward<double>(const ImagesForward<double>&);
template void images_gradients<float>(const ImagesGradients<float>&);
template void images_gradients<double>(const ImagesGradients<double>&);

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
