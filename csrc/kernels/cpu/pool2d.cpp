// Launchers of 2-D pooling: they tabulate which taps each item reads, choose between vectors over the channels (NHWC,
// for a pixel at a time or a strip of them), over columns in phases, and over spans of columns (NCHW), give each thread
// its scratch memory and share out the work. What is seldom wanted runs here, one element at a time: maxima in NCHW
// over irregular or very wide strides, gather and indices. No result depends on the number of threads: each output is
// written once, by one thread, summed in an order that depends on the shape alone.
#include "kernels/cpu/pool2d.h"

#include <functional>
#include <limits>

#include "kernels/cpu/cache.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/pool2d_global_kernel.h"
#include "kernels/cpu/pool2d_strips_kernel.h"
#include "kernels/cpu/pool2d_tables.h"
#include "kernels/cpu/pool2d_tiles.h"
#include "kernels/cpu/short_array.h"

namespace d2l::cpu {

namespace {

constexpr int64_t kElementsPerTask = 32768;  // fewer are not worth a thread
constexpr int64_t kScratchBytes = 32768;     // of a band of rows: well inside the first cache
constexpr int64_t kElementsPerStep = 1024;   // of rows that are pooled as one
constexpr int64_t kWindowRowsPerBand = 8;    // that a strip goes down, times the stride
constexpr int64_t kPixelRowsPerBand = 12;    // likewise for a gradient, whatever the stride
constexpr int64_t kPageBytes = 4096;         // addresses that far apart share a set of the first cache
constexpr int64_t kFarBytes = 8 << 20;       // of a map that comes from memory for the most part
constexpr int64_t kLongRowBytes = 24 << 10;  // which strips of such a map cross too slowly

template <typename Function>
void parallel_units(int64_t units, int64_t elements, Function&& function) {
  if (units == 0) return;
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask * units / std::max<int64_t>(1, elements));
  parallel_for(0, units, grain, [&](int64_t begin, int64_t end) { function(Span{begin, end}); });
}

int64_t elements_of(const Pool2dShape& shape) { return shape.N * shape.C * (shape.H * shape.W + shape.P * shape.Q); }

// A map of one channel is the same in both layouts, and columns make longer vectors than one channel.
bool runs_over_channels(const Pool2dShape& shape, Layout layout) { return layout == Layout::nhwc && shape.C > 1; }

Pool2dNhwc forward_nhwc(const Pool2dShape& shape, const AxisTable& rows, const AxisTable& columns) {
  return {shape.P, shape.Q, shape.H, shape.W, shape.C, rows.view(), columns.view()};
}

Pool2dNhwc backward_nhwc(const Pool2dShape& shape, const AxisTable& rows, const AxisTable& columns) {
  return {shape.H, shape.W, shape.P, shape.Q, shape.C, rows.view(), columns.view()};
}

Pool2dNchw forward_nchw(const Pool2dShape& shape, const AxisTable& rows) {
  Pool2dNchw work{};
  work.rows = shape.P;
  work.columns = shape.Q;
  work.source_rows = shape.H;
  work.source_columns = shape.W;
  work.band_rows = std::max<int64_t>(1, kElementsPerStep / std::max(shape.W, shape.Q));
  work.bands = work.stride = 1;
  work.row_taps = rows.view();
  return work;
}

Pool2dNchw backward_nchw(const Pool2dShape& shape, const AxisTable& rows) {
  Pool2dNchw work = forward_nchw(shape, rows);
  std::swap(work.rows, work.source_rows);
  std::swap(work.columns, work.source_columns);
  return work;
}

void set_bands(Pool2dNchw& work, int64_t bytes_per_item_row) {
  work.band_rows = std::clamp<int64_t>(kScratchBytes / bytes_per_item_row, 1, work.rows);
  work.bands = ceil_div(work.rows, work.band_rows);
}

// Lanes of a register of what E is computed in, where they can be moved about, else 0.
template <typename E>
int64_t movable_lanes() {
  using T = computed_t<E>;
  switch (capability()) {
    case Capability::amx:
    case Capability::avx512:
      return 64 / static_cast<int64_t>(sizeof(T));
    case Capability::avx2:
      return 32 / static_cast<int64_t>(sizeof(T));
    case Capability::baseline:
      break;
  }
  return 0;
}

// Calls write(tiles, units) for all rows of windows if these lie side by side and that makes it fast.
template <typename E, typename Write>
bool write_tiles(const Pool2dShape& shape, Layout layout, Write&& write) {
  if (!Tiles::cover(shape)) return false;
  const Tiles tiles(shape, layout == Layout::nhwc ? shape.C : 1, movable_lanes<E>());
  if (!tiles.is_fast()) return false;
  parallel_units(tiles.view().units, elements_of(shape), [&](Span units) { write(tiles.view(), units); });
  return true;
}

// The same for the forward pass. Other ways to a maximum take longer than other ways to a sum: fewer lanes will do.
template <typename E, typename Write>
bool write_tile_blocks(const Pool2dShape& shape, Layout layout, bool maximum, Write&& write) {
  const int64_t channels = layout == Layout::nhwc ? shape.C : 1;
  if (!Tiles::cover(shape)) return false;
  const TileBlocks blocks(shape, channels, movable_lanes<E>(), maximum ? 4 : 2);
  if (!blocks.is_fast()) return false;
  parallel_units(shape.N * shape.C / channels * shape.P, elements_of(shape),
                 [&](Span units) { write(blocks.view(), units); });
  return true;
}

// Calls write(work, units) for all windows if each is a whole map.
template <typename Write>
bool write_global(const Pool2dShape& shape, Layout layout, Write&& write) {
  if (shape.P != 1 || shape.Q != 1) return false;
  const bool regular = shape.R == shape.H && shape.S == shape.W && shape.pad_h == 0 && shape.pad_w == 0 &&
                       shape.dilation_h == 1 && shape.dilation_w == 1;
  if (!shape.adaptive && !regular) return false;
  const Pool2dGlobal work{shape.H * shape.W, layout == Layout::nhwc ? shape.C : 1};
  parallel_units(shape.N * shape.C / work.channels, elements_of(shape), [&](Span units) { write(work, units); });
  return true;
}

// Whether the windows are those of the kernels that go down strips of the map.
bool has_strips(const Pool2dShape& shape) {
  return !shape.adaptive && shape.R == 3 && shape.S == 3 && shape.dilation_h == 1 && shape.dilation_w == 1 &&
         shape.stride_h <= 2;
}

// Whether an average reads long rows from memory: better one after the other, as they lie, than in bands. Both take
// sums in orders of their own, of which bfloat16 has that of float32.
template <typename E>
bool reads_long_rows(const Pool2dShape& shape) {
  const int64_t row_bytes = shape.W * shape.C * static_cast<int64_t>(sizeof(computed_t<E>));
  return row_bytes >= kLongRowBytes && shape.N * shape.H * row_bytes >= kFarBytes;
}

// Calls write(work, units) for all items of the map.
template <typename Write>
void write_strips(const Pool2dShape& shape, const Pool2dNhwc& map, int64_t rows_per_band, Write&& write) {
  const int64_t most = std::min(rows_per_band, ceil_div(shape.N * map.rows, max_threads()));
  const int64_t band_rows = ceil_div(map.rows, std::max<int64_t>(1, (map.rows + most / 2) / most));
  const Pool2dStrips work{map, band_rows, ceil_div(map.rows, band_rows), shape.stride_h, shape.pad_h};
  parallel_units(shape.N * work.bands, elements_of(shape), [&](Span units) { write(work, units); });
}

// Where an offset points to. Outside the map for a window that has no tap inside.
struct Place {
  int64_t h, w;
};
Place place_of(const Pool2dShape& shape, int64_t p, int64_t q, int64_t offset) {
  const Window rows = shape.rows(p);
  const Window columns = shape.columns(q);
  return {rows.begin + offset / shape.S * rows.step, columns.begin + offset % shape.S * columns.step};
}

// Calls visit(output element, input element of its place, or -1 if outside the map, place) for the outputs of an image
// (NHWC) or of a plane (NCHW), in order.
template <typename Offset, typename Visit>
void visit_places(const Pool2dShape& shape, Layout layout, const Offset* offsets, int64_t unit, Visit&& visit) {
  const int64_t channels = layout == Layout::nhwc ? shape.C : 1;
  int64_t output = unit * shape.P * shape.Q * channels;
  for (int64_t p = 0; p < shape.P; ++p) {
    for (int64_t q = 0; q < shape.Q; ++q) {
      for (int64_t c = 0; c < channels; ++c, ++output) {
        const Place place = place_of(shape, p, q, static_cast<int64_t>(offsets[output]));
        const bool inside = place.h >= 0 && place.h < shape.H && place.w >= 0 && place.w < shape.W;
        const int64_t pixel = (unit * shape.H + place.h) * shape.W + place.w;
        visit(output, inside ? pixel * channels + c : -1, place);
      }
    }
  }
}

template <typename Function>
void parallel_images(const Pool2dShape& shape, Layout layout, Function&& function) {
  const int64_t units = layout == Layout::nhwc ? shape.N : shape.N * shape.C;
  parallel_units(units, elements_of(shape), [&](Span span) {
    for (int64_t unit = span.begin; unit < span.end; ++unit) function(unit);
  });
}

// Columns innermost, windows of any shape.
template <typename E, typename Offset>
void max_pool2d_any_nchw(const Pool2dShape& shape, const E* input, E* output, Offset* offsets) {
  using T = computed_t<E>;
  const AxisTable row_table = tabulate_windows({shape, true}, shape.W, shape.S);
  const AxisTable column_table = tabulate_windows({shape, false}, 1, 1);
  const AxisTaps rows = row_table.view();
  const AxisTaps columns = column_table.view();
  parallel_images(shape, Layout::nchw, [&](int64_t unit) {
    const E* plane = input + unit * shape.H * shape.W;
    int64_t at = unit * shape.P * shape.Q;
    for (int64_t p = 0; p < shape.P; ++p) {
      for (int64_t q = 0; q < shape.Q; ++q, ++at) {
        T best = -std::numeric_limits<T>::infinity();
        int64_t code = 0;
        if (rows.first[p] < rows.first[p + 1]) code += rows.taps[rows.first[p]].code;
        if (columns.first[q] < columns.first[q + 1]) code += columns.taps[columns.first[q]].code;
        for (int64_t i = rows.first[p]; i < rows.first[p + 1]; ++i) {
          for (int64_t j = columns.first[q]; j < columns.first[q + 1]; ++j) {
            const T value = read_one(plane[rows.taps[i].place + columns.taps[j].place]);
            if (value > best || value != value) {
              best = value;
              code = rows.taps[i].code + columns.taps[j].code;
            }
          }
        }
        output[at] = rounded_one<E>(best);
        if (offsets != nullptr) offsets[at] = static_cast<Offset>(code);
      }
    }
  });
}

template <typename E, typename Offset>
void max_pool2d_phased_nchw(const Pool2dShape& shape, const PhasedColumns& phased, const E* input, E* output,
                            Offset* offsets) {
  using T = computed_t<E>;
  const AxisTable rows = tabulate_windows({shape, true}, 1, shape.S);
  Pool2dNchw work = forward_nchw(shape, rows);
  work.stride = phased.stride;
  work.pad = phased.pad;
  work.phase_length = shape.Q + phased.reach();
  work.copies_rows = kIsRounded<E> || phased.stride > 1 || phased.pad > 0 || work.phase_length > shape.W;
  const AxisTable columns = phased.forward_taps(work.phase_length);
  work.column_taps = columns.view();
  const int64_t row_elements = work.stride * work.phase_length;
  set_bands(work, row_elements * static_cast<int64_t>(sizeof(T)) * ceil_div(shape.H, shape.P));

  std::vector<Offset> first_columns(static_cast<size_t>(shape.Q + kMostLanes));
  for (int64_t q = 0; q < shape.Q; ++q) {
    const Window window = shape.columns(q);
    const int64_t skipped = window.begin < 0 ? ceil_div(-window.begin, window.step) : 0;
    const bool any = window.begin + skipped * window.step < std::min(window.end, shape.W);
    first_columns[static_cast<size_t>(q)] = static_cast<Offset>(any ? skipped : 0);
  }
  const size_t scratch_size =
      work.copies_rows ? static_cast<size_t>(rows.largest_span(work.band_rows) * row_elements + kMostLanes) : 0;
  parallel_units(shape.N * shape.C * work.bands, elements_of(shape), [&](Span units) {
    std::vector<T> scratch(scratch_size, -std::numeric_limits<T>::infinity());
    D2L_CALL_BEST(max_pool2d_nchw, work, input, first_columns.data(), output, offsets, scratch.data(), units);
  });
}

// Where windows begin along an axis, times `scale`; kNowhere for those without a tap inside the map.
std::vector<int64_t> places_of_windows(const PoolAxis& axis, int64_t scale) {
  std::vector<int64_t> places;
  places.reserve(static_cast<size_t>(axis.windows()));
  for (int64_t i = 0; i < axis.windows(); ++i) {
    const Window window = axis.window(i);
    bool any = false;
    for (int64_t place = window.begin; place < window.end; place += window.step)
      any |= place >= 0 && place < axis.size();
    places.push_back(any ? window.begin * scale : kNowhere);
  }
  return places;
}

template <typename E, typename Offset>
void max_pool2d_input_grad_in_nchw(const Pool2dShape& shape, const E* grad_output, const Offset* offsets,
                                   E* grad_input) {
  const std::vector<int64_t> rows = places_of_windows({shape, true}, shape.W);
  const std::vector<int64_t> columns = places_of_windows({shape, false}, 1);
  std::vector<int64_t> steps;
  steps.reserve(std::max<size_t>(static_cast<size_t>(shape.R * shape.S), 256));
  for (int64_t r = 0; r < shape.R; ++r) {
    for (int64_t s = 0; s < shape.S; ++s) {
      steps.push_back(r * shape.rows(0).step * shape.W + s * shape.columns(0).step);
    }
  }
  steps.resize(std::max<size_t>(steps.size(), 256), kNowhere);
  const int64_t plane = shape.H * shape.W;
  const int64_t planes = std::max<int64_t>(1, kElementsPerStep / plane);
  const Pool2dScatter work{shape.P, shape.Q,     shape.R * shape.S, plane,
                           planes,  rows.data(), columns.data(),    steps.data()};
  parallel_units(shape.N * shape.C, elements_of(shape), [&](Span units) {
    std::vector<computed_t<E>> sums(static_cast<size_t>(kIsRounded<E> ? planes * plane : 0));
    D2L_CALL_BEST(max_pool2d_input_grad_scatter, work, grad_output, offsets, grad_input, sums.data(), units);
  });
}

// The divisors of all windows.
template <typename T>
class Divisors {
 public:
  explicit Divisors(const Pool2dShape& shape) : rows_(shape.P), columns_(shape.Q) {
    for (int64_t p = 0; p < shape.P; ++p) rows_[p] = static_cast<T>(PoolAxis{shape, true}.divisor(p));
    for (int64_t q = 0; q < shape.Q; ++q) columns_[q] = static_cast<T>(PoolAxis{shape, false}.divisor(q));
  }

  WindowSizes<T> view() const {
    const bool uniform = all_equal(rows_) && all_equal(columns_) && rows_.size() > 0 && columns_.size() > 0;
    return {rows_.data(), columns_.data(), uniform ? rows_[0] * columns_[0] : T(0)};
  }

 private:
  using Lengths = ShortArray<T, 64>;

  static bool all_equal(const Lengths& values) {
    return std::adjacent_find(values.begin(), values.end(), std::not_equal_to<T>()) == values.end();
  }

  Lengths rows_, columns_;
};

template <typename E>
void avg_pool2d_in_nchw(const Pool2dShape& shape, const E* input, E* output) {
  using T = computed_t<E>;
  const PhasedColumns phased(shape);
  const Divisors<T> divisors(shape);
  const WindowSizes<T> sizes = divisors.view();
  const AxisTable rows = tabulate_windows({shape, true}, 1, 0);
  Pool2dNchw work = forward_nchw(shape, rows);
  AxisTable columns;
  std::vector<Span> spans;
  if (phased.possible) {
    work.rows_in_one = sizes.uniform != 0 && phased.tile(shape);
    work.stride = phased.stride;
    work.pad = phased.pad;
    work.phase_length = (work.rows_in_one ? work.band_rows : 1) * shape.Q + phased.reach();
    work.copies_rows = phased.stride > 1 || phased.pad > 0 || shape.Q + phased.reach() > shape.W;
    columns = phased.forward_taps(work.phase_length);
    work.column_taps = columns.view();
  } else {
    for (int64_t q = 0; q < shape.Q; ++q) {
      const Window window = shape.columns(q);
      spans.push_back({std::max<int64_t>(window.begin, 0), std::min(window.end, shape.W)});
    }
    work.spans = spans.data();
  }
  const int64_t scratch_size = work.band_rows * (shape.W + work.stride * work.phase_length);
  parallel_units(shape.N * shape.C * shape.P, elements_of(shape), [&](Span units) {
    std::vector<T> scratch(static_cast<size_t>(scratch_size));
    D2L_CALL_BEST(avg_pool2d_nchw, work, sizes, input, output, scratch.data(), units);
  });
}

// Runs of columns that lie in the same windows, with these windows.
AxisTable merge_equal_columns(const AxisTable& covers, std::vector<Span>& spans) {
  AxisTable merged;
  const AxisTaps taps = covers.view();
  const auto same_place = [](const Tap& a, const Tap& b) { return a.place == b.place; };
  for (int64_t w = 0; w < covers.items(); ++w) {
    const Tap* begin = taps.taps + taps.first[w];
    const Tap* end = taps.taps + taps.first[w + 1];
    if (w > 0 && std::equal(taps.taps + taps.first[w - 1], begin, begin, end, same_place)) {
      ++spans.back().end;
      continue;
    }
    spans.push_back({w, w + 1});
    for (const Tap* tap = begin; tap != end; ++tap) merged.add(tap->place, tap->code);
    merged.end_item();
  }
  return merged;
}

template <typename E>
void avg_pool2d_input_grad_in_nchw(const Pool2dShape& shape, const E* grad_output, E* grad_input) {
  using T = computed_t<E>;
  const PhasedColumns phased(shape);
  const Divisors<T> divisors(shape);
  const WindowSizes<T> sizes = divisors.view();
  const PoolAxis vertical{shape, true};
  const AxisTable rows = tabulate_covers(vertical, 1, [&](int64_t p, int64_t) { return vertical.divisor(p); });
  Pool2dNchw work = backward_nchw(shape, rows);
  AxisTable columns;
  std::vector<Span> spans;
  if (phased.possible) {
    work.rows_in_one = sizes.uniform != 0 && phased.tile(shape);
    work.stride = phased.stride;
    work.pad = phased.pad;
    work.phase_length = work.rows_in_one ? work.band_rows * shape.Q : ceil_div(shape.W + phased.pad, phased.stride);
    work.margin = phased.reach();
    columns = phased.backward_taps();
  } else {
    columns = merge_equal_columns(tabulate_covers({shape, false}, 1, [](int64_t, int64_t) { return 0; }), spans);
    work.spans = spans.data();
    work.span_count = columns.items();
  }
  work.column_taps = columns.view();
  const int64_t scratch_size =
      work.band_rows * (work.margin + std::max(work.phase_length, shape.Q) + work.stride * work.phase_length);
  parallel_units(shape.N * shape.C * shape.H, elements_of(shape), [&](Span units) {
    std::vector<T> scratch(static_cast<size_t>(scratch_size));
    D2L_CALL_BEST(avg_pool2d_input_grad_nchw, work, sizes, grad_output, grad_input, scratch.data(), units);
  });
}

}  // namespace

template <typename E, typename Offset>
void max_pool2d(const Pool2dShape& shape, Layout layout, const E* input, E* output, Offset* offsets) {
  if (shape.N * shape.C * shape.P * shape.Q == 0) return;
  if (write_global(shape, layout, [&](const Pool2dGlobal& work, Span units) {
        D2L_CALL_BEST(max_pool2d_global, work, input, output, offsets, units);
      })) {
    return;
  }
  if (write_tile_blocks<E>(shape, layout, true, [&](const Pool2dTileBlocks& work, Span units) {
        D2L_CALL_BEST(max_pool2d_tiles, work, input, output, offsets, units);
      })) {
    return;
  }
  if (runs_over_channels(shape, layout)) {
    const AxisTable rows = tabulate_windows({shape, true}, 1, shape.S);
    const AxisTable columns = tabulate_windows({shape, false}, shape.C, 1);
    const Pool2dNhwc work = forward_nhwc(shape, rows, columns);
    if constexpr (sizeof(Offset) == 1) {
      if (has_strips(shape)) {
        return write_strips(shape, work, kWindowRowsPerBand / shape.stride_h, [&](const auto& strips, Span units) {
          D2L_CALL_BEST(max_pool2d_strips, strips, input, output, offsets, units);
        });
      }
    }
    parallel_units(shape.N * shape.P, elements_of(shape),
                   [&](Span units) { D2L_CALL_BEST(max_pool2d_nhwc, work, input, output, offsets, units); });
  } else if (const PhasedColumns phased(shape); phased.possible) {
    max_pool2d_phased_nchw(shape, phased, input, output, offsets);
  } else {
    max_pool2d_any_nchw(shape, input, output, offsets);
  }
}

template <typename E, typename Offset>
void max_pool2d_input_grad(const Pool2dShape& shape, Layout layout, const E* grad_output, const Offset* offsets,
                           E* grad_input) {
  if (shape.N * shape.C * shape.H * shape.W == 0) return;
  if (write_global(shape, layout, [&](const Pool2dGlobal& work, Span units) {
        D2L_CALL_BEST(max_pool2d_input_grad_global, work, grad_output, offsets, grad_input, units);
      })) {
    return;
  }
  const bool short_rows =
      layout == Layout::nchw && shape.W < movable_lanes<E>() && !Tiles::is_run(shape, 1, movable_lanes<E>());
  if (!short_rows && write_tiles<E>(shape, layout, [&](const Pool2dTiles& work, Span units) {
        D2L_CALL_BEST(max_pool2d_input_grad_tiles, work, grad_output, offsets, grad_input, units);
      })) {
    return;
  }
  if (runs_over_channels(shape, layout)) {
    const AxisTable rows = tabulate_covers({shape, true}, 1, [&](int64_t, int64_t tap) { return tap * shape.S; });
    const AxisTable columns = tabulate_covers({shape, false}, shape.C, [](int64_t, int64_t tap) { return tap; });
    const Pool2dNhwc work = backward_nhwc(shape, rows, columns);
    if constexpr (sizeof(Offset) == 1) {
      // Results that go to memory are better written row by row than in bands, unless reading takes longer; and rows a
      // multiple of a page apart share the sets of the first cache, too few for a band.
      const bool aliases = shape.W * shape.C * static_cast<int64_t>(sizeof(E)) % kPageBytes == 0;
      const bool streams = is_streamed(shape.N * shape.C * shape.H * shape.W, grad_input);
      const bool by_rows = shape.stride_h > 1 && (aliases || streams);
      if (has_strips(shape) && !by_rows) {
        return write_strips(shape, work, kPixelRowsPerBand, [&](const auto& strips, Span units) {
          D2L_CALL_BEST(max_pool2d_input_grad_strips, strips, grad_output, offsets, grad_input, units);
        });
      }
    }
    parallel_units(shape.N * shape.H, elements_of(shape), [&](Span units) {
      D2L_CALL_BEST(max_pool2d_input_grad_nhwc, work, grad_output, offsets, grad_input, units);
    });
  } else {
    max_pool2d_input_grad_in_nchw(shape, grad_output, offsets, grad_input);
  }
}

template <typename E, typename Offset>
void max_pool2d_gather(const Pool2dShape& shape, Layout layout, const E* input, const Offset* offsets, E* output) {
  parallel_images(shape, layout, [&](int64_t image) {
    visit_places(shape, layout, offsets, image,
                 [&](int64_t to, int64_t from, Place) { output[to] = from >= 0 ? input[from] : E{}; });
  });
}

template <typename Offset>
void max_pool2d_indices(const Pool2dShape& shape, Layout layout, const Offset* offsets, int64_t* indices) {
  parallel_images(shape, layout, [&](int64_t image) {
    visit_places(shape, layout, offsets, image,
                 [&](int64_t to, int64_t, Place place) { indices[to] = place.h * shape.W + place.w; });
  });
}

template <typename E>
void avg_pool2d(const Pool2dShape& shape, Layout layout, const E* input, E* output) {
  if (shape.N * shape.C * shape.P * shape.Q == 0) return;
  const Divisors<computed_t<E>> divisors(shape);
  const auto sizes = divisors.view();
  if (write_global(shape, layout, [&](const Pool2dGlobal& work, Span units) {
        D2L_CALL_BEST(avg_pool2d_global, work, sizes.uniform, input, output, units);
      })) {
    return;
  }
  if (write_tile_blocks<E>(shape, layout, false, [&](const Pool2dTileBlocks& work, Span units) {
        D2L_CALL_BEST(avg_pool2d_tiles, work, sizes.uniform, input, output, units);
      })) {
    return;
  }
  if (!runs_over_channels(shape, layout)) return avg_pool2d_in_nchw(shape, input, output);
  const AxisTable rows = tabulate_windows({shape, true}, 1, 0);
  const AxisTable columns = tabulate_windows({shape, false}, shape.C, 0);
  const Pool2dNhwc work = forward_nhwc(shape, rows, columns);
  if (has_strips(shape) && !reads_long_rows<E>(shape)) {
    return write_strips(shape, work, kWindowRowsPerBand / shape.stride_h, [&](const auto& strips, Span units) {
      D2L_CALL_BEST(avg_pool2d_strips, strips, sizes, input, output, units);
    });
  }
  parallel_units(shape.N * shape.P, elements_of(shape),
                 [&](Span units) { D2L_CALL_BEST(avg_pool2d_nhwc, work, sizes, input, output, units); });
}

template <typename E>
void avg_pool2d_input_grad(const Pool2dShape& shape, Layout layout, const E* grad_output, E* grad_input) {
  if (shape.N * shape.C * shape.H * shape.W == 0) return;
  const Divisors<computed_t<E>> divisors(shape);
  const auto sizes = divisors.view();
  if (write_global(shape, layout, [&](const Pool2dGlobal& work, Span units) {
        D2L_CALL_BEST(avg_pool2d_input_grad_global, work, sizes.uniform, grad_output, grad_input, units);
      })) {
    return;
  }
  if (write_tiles<E>(shape, layout, [&](const Pool2dTiles& work, Span units) {
        D2L_CALL_BEST(avg_pool2d_input_grad_tiles, work, sizes.uniform, grad_output, grad_input, units);
      })) {
    return;
  }
  if (!runs_over_channels(shape, layout)) return avg_pool2d_input_grad_in_nchw(shape, grad_output, grad_input);
  const PoolAxis vertical{shape, true};
  const PoolAxis horizontal{shape, false};
  const AxisTable rows = tabulate_covers(vertical, 1, [&](int64_t p, int64_t) { return vertical.divisor(p); });
  const AxisTable columns =
      tabulate_covers(horizontal, shape.C, [&](int64_t q, int64_t) { return horizontal.divisor(q); });
  const Pool2dNhwc work = backward_nhwc(shape, rows, columns);
  if (has_strips(shape) && (shape.stride_h > 1 || !reads_long_rows<E>(shape))) {
    return write_strips(shape, work, kPixelRowsPerBand, [&](const auto& strips, Span units) {
      D2L_CALL_BEST(avg_pool2d_input_grad_strips, strips, sizes, grad_output, grad_input, units);
    });
  }
  parallel_units(shape.N * shape.H, elements_of(shape), [&](Span units) {
    D2L_CALL_BEST(avg_pool2d_input_grad_nhwc, work, sizes.uniform, grad_output, grad_input, units);
  });
}

#define D2L_INSTANTIATE(E, Offset)                                                              \
  template void max_pool2d(const Pool2dShape&, Layout, const E*, E*, Offset*);                  \
  template void max_pool2d_input_grad(const Pool2dShape&, Layout, const E*, const Offset*, E*); \
  template void max_pool2d_gather(const Pool2dShape&, Layout, const E*, const Offset*, E*);

D2L_INSTANTIATE(float, uint8_t)
D2L_INSTANTIATE(float, int32_t)
D2L_INSTANTIATE(double, uint8_t)
D2L_INSTANTIATE(double, int32_t)
D2L_INSTANTIATE(BFloat16, uint8_t)
D2L_INSTANTIATE(BFloat16, int32_t)
#undef D2L_INSTANTIATE

template void max_pool2d_indices(const Pool2dShape&, Layout, const uint8_t*, int64_t*);
template void max_pool2d_indices(const Pool2dShape&, Layout, const int32_t*, int64_t*);

#define D2L_INSTANTIATE(E)                                            \
  template void avg_pool2d(const Pool2dShape&, Layout, const E*, E*); \
  template void avg_pool2d_input_grad(const Pool2dShape&, Layout, const E*, E*);

D2L_INSTANTIATE(float)
D2L_INSTANTIATE(double)
D2L_INSTANTIATE(BFloat16)

}  // namespace d2l::cpu
