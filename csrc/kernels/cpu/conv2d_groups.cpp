#include "kernels/cpu/conv2d_groups.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/conv2d_groups_kernel.h"
#include "kernels/cpu/workspace.h"

namespace d2l::cpu {
namespace {

// Parts of a weight gradient, whose sums are joined: enough for some threads, and so few that joining costs little.
constexpr int64_t kMostParts = 16;
constexpr int64_t kElementsPerSum = 16;

// Whether a tap of the result at `place` of an axis falls into the source, and where.
bool find_source(const CorrelationAxis& axis, bool transposed, int64_t place, int64_t tap, int64_t& source) {
  const int64_t offset = tap * axis.dilation - axis.pad;
  source = transposed ? place - offset : place * axis.stride + offset;
  if (transposed && source % axis.stride != 0) return false;
  if (transposed) source /= axis.stride;
  return source >= 0 && source < axis.source;
}

// In the order in which they lie in the source, in which the taps of a transposed problem are counted, too.
std::vector<AxisTap> find_taps(const CorrelationAxis& axis, bool transposed, int64_t place) {
  std::vector<AxisTap> taps;
  for (int64_t tap = 0; tap < axis.taps; ++tap) {
    int64_t source;
    if (find_source(axis, transposed, place, tap, source)) {
      taps.push_back({transposed ? axis.taps - 1 - tap : tap, source});
    }
  }
  if (transposed) std::reverse(taps.begin(), taps.end());
  return taps;
}

// The tables that GroupsAxes points to.
class AxesTables {
 public:
  AxesTables(const CorrelationAxis& rows, const CorrelationAxis& columns, bool transposed)
      : rows_(rows), columns_(columns) {
    for (int64_t row = 0; row < rows.result; ++row) {
      row_begin_.push_back(static_cast<int64_t>(row_taps_.size()));
      const auto taps = find_taps(rows, transposed, row);
      row_taps_.insert(row_taps_.end(), taps.begin(), taps.end());
    }
    row_begin_.push_back(static_cast<int64_t>(row_taps_.size()));
    const int64_t step = transposed ? columns.stride : 1;
    for (int64_t phase = 0; phase < std::min(step, columns.result); ++phase) {
      add_runs(transposed, phase, step);
    }
    // The taps have their places only now.
    for (size_t i = 0; i < runs_.size(); ++i) runs_[i].taps = run_taps_.data() + run_begin_[i];
  }

  GroupsAxes axes() const {
    return {rows_.source,
            columns_.source,
            rows_.result,
            columns_.result,
            row_taps_.data(),
            row_begin_.data(),
            runs_.data(),
            static_cast<int64_t>(runs_.size()),
            rows_.taps * columns_.taps,
            columns_.taps};
  }

 private:
  void add_runs(bool transposed, int64_t first, int64_t step) {
    std::vector<AxisTap> last;
    bool is_first = true;
    for (int64_t column = first; column < columns_.result; column += step) {
      auto taps = find_taps(columns_, transposed, column);
      const auto same_tap = [](const AxisTap& a, const AxisTap& b) { return a.tap == b.tap; };
      if (!is_first && std::equal(taps.begin(), taps.end(), last.begin(), last.end(), same_tap)) {
        ++runs_.back().count;
        continue;
      }
      runs_.push_back({column, step, 1, transposed ? 1 : columns_.stride, nullptr, static_cast<int64_t>(taps.size())});
      run_begin_.push_back(static_cast<int64_t>(run_taps_.size()));
      run_taps_.insert(run_taps_.end(), taps.begin(), taps.end());
      last = std::move(taps);
      is_first = false;
    }
  }

  CorrelationAxis rows_, columns_;
  std::vector<AxisTap> row_taps_, run_taps_;
  std::vector<int64_t> row_begin_, run_begin_;
  std::vector<ColumnRun> runs_;
};

template <typename T>
int64_t lanes() {
  return vector_bytes() / static_cast<int64_t>(sizeof(T));
}

template <typename T>
GroupsChannels<T> channels_of(int64_t groups, int64_t depth, int64_t width) {
  GroupsChannels<T> channels{};
  channels.groups = groups;
  channels.depth = depth;
  channels.width = width;
  channels.groups_in_vector = lanes<T>() / std::max(depth, width);
  channels.vectors = (groups + channels.groups_in_vector - 1) / channels.groups_in_vector;
  for (int64_t j = 0; j < depth; ++j) {
    for (int64_t lane = 0; lane < channels.groups_in_vector * width; ++lane) {
      channels.sources[j][lane] = static_cast<int>(lane / width * depth + j);
    }
  }
  return channels;
}

// Elements of a weight in [vectors][taps][depth][lanes].
template <typename T, typename Problem>
int64_t packed_size(const Problem& problem, const GroupsChannels<T>& channels) {
  return channels.vectors * problem.rows.taps * problem.columns.taps * channels.depth * lanes<T>();
}

// Calls function(packed, weight) with the places of every weight in [vectors][taps][depth][lanes] and in the tensor.
template <typename T, typename Problem, typename Function>
void for_weights(const Problem& problem, const GroupsChannels<T>& channels, bool transposed, Function&& function) {
  const int64_t taps = problem.rows.taps * problem.columns.taps;
  for (int64_t vector = 0; vector < channels.vectors; ++vector) {
    const int64_t first = vector * channels.groups_in_vector;
    const int64_t last = std::min(first + channels.groups_in_vector, channels.groups);
    for (int64_t number = 0; number < taps; ++number) {
      const int64_t tap = vector * taps + (transposed ? taps - 1 - number : number);
      const int64_t place =
          number / problem.columns.taps * problem.weight_row + number % problem.columns.taps * problem.weight_column;
      for (int64_t j = 0; j < channels.depth; ++j) {
        int64_t lane = (tap * channels.depth + j) * lanes<T>();
        for (int64_t group = first; group < last; ++group) {
          const int64_t from = place + group * problem.weight_group + j * problem.weight_depth;
          for (int64_t k = 0; k < channels.width; ++k, ++lane) function(lane, from + k * problem.weight_width);
        }
      }
    }
  }
}

}  // namespace

bool conv2d_suits_groups(const Conv2dShape& shape, int64_t element_bytes) {
  if (shape.groups < 2) return false;
  const int64_t channels = std::max(shape.group_c(), shape.group_k());
  return channels == 1 || 2 * channels * element_bytes <= vector_bytes();
}

template <typename T, typename E>
void conv2d_groups(const Correlation<T, E>& problem) {
  const AxesTables tables(problem.rows, problem.columns, problem.transposed);
  const GroupsChannels<T> channels = channels_of<T>(problem.groups, problem.depth, problem.width);
  const int64_t weights = packed_size(problem, channels);
  const int64_t biases = problem.bias == nullptr ? 0 : channels.vectors * lanes<T>();
  T* const packed = static_cast<T*>(workspace(Workspace::call, (weights + biases) * static_cast<int64_t>(sizeof(T))));
  T* const bias = biases > 0 ? packed + weights : nullptr;
  std::fill_n(packed, weights + biases, T(0));
  for_weights(problem, channels, problem.transposed,
              [&](int64_t at, int64_t from) { packed[at] = problem.weight[from]; });
  if (bias != nullptr) {
    for (int64_t group = 0; group < channels.groups; ++group) {
      const int64_t at =
          group / channels.groups_in_vector * lanes<T>() + group % channels.groups_in_vector * channels.width;
      std::copy_n(problem.bias + group * channels.width, channels.width, bias + at);
    }
  }
  const GroupsCorrelation<E> work{problem.images,
                                  tables.axes(),
                                  channels,
                                  {problem.source_layout, problem.source_channels, problem.source},
                                  {problem.result_layout, problem.result_channels, problem.result},
                                  packed,
                                  bias,
                                  problem.activation,
                                  problem.progress};
  D2L_CALL_BEST(correlate_groups, work);
  trim_workspace(Workspace::call);
}

template <typename T, typename E>
void conv2d_groups_weight_grad(const WeightGradient<T, E>& problem) {
  const AxesTables tables(problem.rows, problem.columns, false);
  const GroupsChannels<T> channels = channels_of<T>(problem.groups, problem.depth, problem.width);
  const int64_t size = packed_size(problem, channels);
  const bool is_nhwc = problem.input_layout == Layout::nhwc;
  const int64_t pieces = is_nhwc ? problem.images * problem.rows.result : problem.images;
  const int64_t elements =
      problem.images * problem.rows.result * problem.columns.result * channels.vectors * lanes<T>();
  const int64_t parts = std::min(std::clamp<int64_t>(elements / (kElementsPerSum * size), 2, kMostParts), pieces);
  T* const sums = static_cast<T*>(workspace(Workspace::call, parts * size * static_cast<int64_t>(sizeof(T))));
  const GroupsWeightGradient<E> work{problem.images,
                                     tables.axes(),
                                     channels,
                                     {problem.input_layout, problem.input_channels, problem.input},
                                     {problem.output_layout, problem.output_channels, problem.grad_output},
                                     parts,
                                     sums};
  D2L_CALL_BEST(weight_gradient_groups, work);
  for (int64_t part = 1; part < parts; ++part) {
    for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * size + i];
  }
  for_weights(problem, channels, false,
              [&](int64_t from, int64_t at) { problem.grad_weight[at] = rounded_one<E>(sums[from]); });
  trim_workspace(Workspace::call);
}

#define D2L_INSTANTIATE(E)                                           \
  template void conv2d_groups(const Correlation<computed_t<E>, E>&); \
  template void conv2d_groups_weight_grad(const WeightGradient<computed_t<E>, E>&)
D2L_INSTANTIATE(float);
D2L_INSTANTIATE(double);
D2L_INSTANTIATE(BFloat16);
#undef D2L_INSTANTIATE

}  // namespace d2l::cpu
