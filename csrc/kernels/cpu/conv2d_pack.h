// Packed weights: [groups][blocks of width][taps of rows][taps of columns][depth][block width], where a block is
// kBlockWidth channels of the result (kLanes for a short last one), zero-padded. The taps stand in the order of
// TapOrder. Only for kernel sources.
#pragma once

#include "kernels/cpu/conv2d_plan.h"
#include "kernels/cpu/gemm_product.h"
#include "kernels/cpu/transpose.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

// Channels of the result in one register tile: two vectors.
template <typename T>
constexpr int64_t kBlockWidth = 2 * kLanes<T>;

constexpr int64_t kPrefetchDistance = 12;

template <typename T>
struct PackedLayout {
  int64_t depth, width;
  TapOrder rows, columns;
  int64_t weight_depth, weight_width, weight_row, weight_column;  // element strides of the unpacked weight
  int64_t weight_pair = 0;                                        // see conv2d_kernel.h
  int64_t padding = 0;                                            // rows of zeros behind those of the depth

  int64_t blocks() const { return ceil_div(width, kBlockWidth<T>); }
  int64_t rows_per_block() const { return rows.taps * columns.taps * (depth + padding); }
  int64_t block_width(int64_t block) const {
    return width - block * kBlockWidth<T> > kLanes<T> ? kBlockWidth<T> : kLanes<T>;
  }
  int64_t block_offset(int64_t block) const { return block * kBlockWidth<T> * rows_per_block(); }
  int64_t group_size() const { return block_offset(blocks() - 1) + block_width(blocks() - 1) * rows_per_block(); }

  // The packed row of element (d, r, s).
  D2L_INLINE int64_t row(int64_t d, int64_t r, int64_t s) const {
    return (rows.position(r) * columns.taps + columns.position(s)) * (depth + padding) + d;
  }
};

// How far elements (d, r, s) lie contiguously in the unpacked weight, in the order d, r, s or d alone.
enum class Run { depth, taps, depth_and_taps, none };

template <typename T>
D2L_INLINE Run contiguous_run(const PackedLayout<T>& layout) {
  const int64_t taps = layout.rows.taps * layout.columns.taps;
  const bool dense_taps = (layout.weight_column == 1 || layout.columns.taps == 1) &&
                          (layout.weight_row == layout.columns.taps || layout.rows.taps == 1);
  if (dense_taps && (layout.weight_depth == taps || layout.depth == 1)) return Run::depth_and_taps;
  if (layout.weight_depth == 1) return Run::depth;
  return dense_taps ? Run::taps : Run::none;
}

// Calls visit(d, r, s, length) for the first element of every contiguous run.
template <typename T, typename Visit>
D2L_INLINE void for_each_run(const PackedLayout<T>& layout, Run run, Visit&& visit) {
  const int64_t row_taps = layout.rows.taps, column_taps = layout.columns.taps;
  if (run == Run::depth_and_taps) {
    visit(0, 0, 0, layout.depth * row_taps * column_taps);
  } else if (run == Run::taps) {
    for (int64_t d = 0; d < layout.depth; ++d) visit(d, 0, 0, row_taps * column_taps);
  } else {
    for (int64_t r = 0; r < row_taps; ++r) {
      for (int64_t s = 0; s < column_taps; ++s) {
        if (run == Run::depth) {
          visit(0, r, s, layout.depth);
        } else {
          for (int64_t d = 0; d < layout.depth; ++d) visit(d, r, s, 1);
        }
      }
    }
  }
}

// The packed rows of a run's elements i .. i + count.
template <typename T>
D2L_INLINE void packed_rows(const PackedLayout<T>& layout, Run run, int64_t d, int64_t r, int64_t s, int64_t i,
                            int64_t count, int64_t* rows) {
  if (run == Run::depth || run == Run::none) {
    const int64_t first = layout.row(d + i, r, s);
    for (int64_t j = 0; j < count; ++j) rows[j] = first + j;
    return;
  }
  const int64_t taps = layout.rows.taps * layout.columns.taps;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t tap = (i + j) % taps;
    rows[j] = layout.row(d + (i + j) / taps, tap / layout.columns.taps, tap % layout.columns.taps);
  }
}

// The element at an offset of the unpacked weight.
template <typename T>
D2L_INLINE T weight_element(const T* weight, int64_t offset, [[maybe_unused]] int64_t pair) {
#if defined(__AVX512BF16__)
  if (pair != 0) {
    const uint16_t* const first = reinterpret_cast<const uint16_t*>(weight) + offset;
    return Neighbours<T>{first, first + pair, 0xffff}.at(0, 1)[0];
  }
#endif
  return weight[offset];
}

#if defined(__AVX512BF16__)
// Packs one block whose pairs do not lie in memory, while the result channels do.
template <typename T>
void weave_block(const PackedLayout<T>& layout, const uint16_t* weight, int64_t block, T* packed) {
  constexpr int64_t kSize = kLanes<T>;
  const int64_t block_width = layout.block_width(block);
  const int64_t width = min(block_width, layout.width - block * kBlockWidth<T>);
  for (int64_t r = 0; r < layout.rows.taps; ++r) {
    for (int64_t s = 0; s < layout.columns.taps; ++s) {
      const uint16_t* from = weight + block * kBlockWidth<T> + r * layout.weight_row + s * layout.weight_column;
      T* to = packed + layout.row(0, r, s) * block_width;
      for (int64_t d = 0; d < layout.depth; ++d, from += layout.weight_depth, to += block_width) {
        const Neighbours<T> pairs{from, from + layout.weight_pair, 0xffff};
        pairs.prefetch(kPrefetchDistance * layout.weight_depth);
        for (int64_t k = 0; k < block_width; k += kSize) store(to + k, pairs.at(k, clamp(width - k, 0, kSize)));
      }
    }
  }
}
#endif

// Packs one block of one group; `weight` points at the group.
template <typename T>
void pack_block(const PackedLayout<T>& layout, const T* weight, int64_t block, T* packed) {
  for (int64_t tap = 0; layout.padding > 0 && tap < layout.rows.taps * layout.columns.taps; ++tap) {
    const int64_t first = tap * (layout.depth + layout.padding) + layout.depth, width = layout.block_width(block);
    __builtin_memset(packed + first * width, 0, static_cast<size_t>(layout.padding * width) * sizeof(T));
  }
#if defined(__AVX512BF16__)
  if (layout.weight_pair != 0) return weave_block(layout, reinterpret_cast<const uint16_t*>(weight), block, packed);
#endif
  constexpr int kSize = kLanes<T>;
  const int64_t block_width = layout.block_width(block);
  const int64_t width = min(block_width, layout.width - block * kBlockWidth<T>);
  const T* first = weight + block * kBlockWidth<T> * layout.weight_width;
  if (layout.weight_width == 1 && layout.weight_depth != 1) {
    for (int64_t r = 0; r < layout.rows.taps; ++r) {
      for (int64_t s = 0; s < layout.columns.taps; ++s) {
        const T* from = first + r * layout.weight_row + s * layout.weight_column;
        T* to = packed + layout.row(0, r, s) * block_width;
        for (int64_t d = 0; d < layout.depth; ++d, from += layout.weight_depth, to += block_width) {
          // Too far apart for the machine's own prefetch. Behind the last row of a tap comes the first of the next one.
          const T* ahead = from + kPrefetchDistance * layout.weight_depth;
          if (d + kPrefetchDistance >= layout.depth) ahead += layout.weight_column - layout.depth * layout.weight_depth;
          __builtin_prefetch(ahead);
          __builtin_prefetch(ahead + kSize);
          for (int64_t k = 0; k < block_width; k += kSize) {
            store(to + k, load_partial(from + k, clamp(width - k, 0, kSize)));
          }
        }
      }
    }
    return;
  }
  const Run run = contiguous_run(layout);
  // Where the run that comes after one starts, seen from it.
  const int64_t next_run = run == Run::depth ? layout.weight_column : layout.weight_depth;
  for_each_run(layout, run, [&](int64_t d, int64_t r, int64_t s, int64_t length) {
    const T* from = first + d * layout.weight_depth + r * layout.weight_row + s * layout.weight_column;
    for (int64_t i = 0; i < length; i += kSize) {
      const int64_t count = min(kSize, length - i);
      const int64_t ahead = i + 2 * kSize < length ? i + 2 * kSize : i + 2 * kSize - length + next_run;
      int64_t rows[kSize];
      packed_rows(layout, run, d, r, s, i, count, rows);
      for (int64_t k = 0; k < block_width; k += kSize) {
        vec_t<T> values[kSize];
        const T* const block_from = from + k * layout.weight_width;
#pragma GCC unroll 16
        for (int j = 0; j < kSize; ++j) __builtin_prefetch(block_from + j * layout.weight_width + ahead);
        if (count == kSize && k + kSize <= width) {
#pragma GCC unroll 16
          for (int j = 0; j < kSize; ++j) values[j] = load(block_from + j * layout.weight_width + i);
        } else {
#pragma GCC unroll 16
          for (int j = 0; j < kSize; ++j) {
            values[j] = k + j < width ? load_partial(block_from + j * layout.weight_width + i, count) : vec_t<T>{};
          }
        }
        transpose_registers<T>(values);
#pragma GCC unroll 16
        for (int j = 0; j < kSize; ++j) {
          if (j < count) store(packed + rows[j] * block_width + k, values[j]);
        }
      }
    }
  });
}

// The reverse: weight = sum of `parts` packed blocks, part_stride apart, in this order, as elements E.
template <typename T, typename E>
void unpack_block(const PackedLayout<T>& layout, const T* packed, int64_t parts, int64_t part_stride, int64_t block,
                  E* weight) {
  constexpr int kSize = kLanes<T>;
  const int64_t block_width = layout.block_width(block);
  const int64_t width = min(block_width, layout.width - block * kBlockWidth<T>);
  E* first = weight + block * kBlockWidth<T> * layout.weight_width;
  if (layout.weight_width == 1 && layout.weight_depth != 1) {
    for (int64_t r = 0; r < layout.rows.taps; ++r) {
      for (int64_t s = 0; s < layout.columns.taps; ++s) {
        const T* from = packed + layout.row(0, r, s) * block_width;
        E* to = first + r * layout.weight_row + s * layout.weight_column;
        for (int64_t d = 0; d < layout.depth; ++d, from += block_width, to += layout.weight_depth) {
          for (int64_t k = 0; k < width; k += kSize) {
            vec_t<T> sum = load(from + k);
            for (int64_t part = 1; part < parts; ++part) sum += load(from + part * part_stride + k);
            write_partial(to + k, sum, min(kSize, width - k));
          }
        }
      }
    }
    return;
  }
  const Run run = contiguous_run(layout);
  for_each_run(layout, run, [&](int64_t d, int64_t r, int64_t s, int64_t length) {
    E* to = first + d * layout.weight_depth + r * layout.weight_row + s * layout.weight_column;
    for (int64_t i = 0; i < length; i += kSize) {
      const int64_t count = min(kSize, length - i);
      int64_t rows[kSize];
      packed_rows(layout, run, d, r, s, i, count, rows);
      for (int64_t k = 0; k < width; k += kSize) {
        vec_t<T> values[kSize];
#pragma GCC unroll 16
        for (int j = 0; j < kSize; ++j) {
          values[j] = j < count ? load(packed + rows[j] * block_width + k) : vec_t<T>{};
        }
        for (int64_t part = 1; part < parts; ++part) {
#pragma GCC unroll 16
          for (int j = 0; j < kSize; ++j) {
            if (j < count) values[j] += load(packed + part * part_stride + rows[j] * block_width + k);
          }
        }
        transpose_registers<T>(values);
#pragma GCC unroll 16
        for (int j = 0; j < kSize; ++j) {
          if (k + j < width) write_partial(to + (k + j) * layout.weight_width + i, values[j], count);
        }
      }
    }
  });
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
