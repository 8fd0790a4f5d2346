// Index arithmetic of one axis of a correlation, forward and transposed alike. Only for kernel sources.
//
// Result index o = i * phases + phase. A phase is an ordinary correlation of the source with some of the taps: forward
// has one phase with all of them, the input gradient of a convolution with stride n has n phases with every n-th tap
// (for dilation 1), in reverse order; a phase may have none. In source indices, its tap j reads
// offset(phase) + i * stride + j * step.
// Where stride and step have a common divisor `grid`, only every grid-th source index matters; a strip holds those.
#pragma once

#include "kernels/cpu/conv2d_kernel.h"
#include "kernels/cpu/integers.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

struct AxisPlan {
  int64_t source, result;
  int64_t phases, count;  // i runs below `count`, in the first phase
  int64_t grid;
  int64_t stride, step;  // in strip indices
  int64_t low, span;     // the strip for i in [begin, end) starts at source index low + begin * stride * grid and
                         // holds (end - begin - 1) * stride + span indices
  int64_t strip_size(int64_t i_count) const { return (i_count - 1) * stride + span; }
  int64_t strip_begin(int64_t i_begin) const { return low + i_begin * stride * grid; }
};

struct Phase {
  int64_t taps;
  int64_t first_tap;     // position of its taps in the packed weights
  int64_t strip_offset;  // of its first tap, for i = begin of the strip
};

// Taps period apart share a phase. In packed weights the taps stand phase by phase, each phase in order of its source.
struct TapOrder {
  int64_t taps, period;
  bool reversed;

  D2L_INLINE int64_t count(int64_t residue) const { return ceil_div(taps - residue, period); }
  D2L_INLINE int64_t first(int64_t residue) const { return residue * (taps / period) + min(residue, taps % period); }
  D2L_INLINE int64_t position(int64_t tap) const {
    const int64_t residue = tap % period, index = tap / period;
    return first(residue) + (reversed ? count(residue) - 1 - index : index);
  }
};

D2L_INLINE TapOrder tap_order(const CorrelationAxis& axis, bool transposed) {
  const int64_t period = transposed ? axis.stride / gcd(axis.stride, axis.dilation) : 1;
  return {axis.taps, period, transposed};
}

// The tap < period that phase `phase` of the input gradient starts with, or -1 if it has none.
D2L_INLINE int64_t first_residue(const CorrelationAxis& axis, int64_t phase) {
  const int64_t period = axis.stride / gcd(axis.stride, axis.dilation);
  for (int64_t tap = 0; tap < min(period, axis.taps); ++tap) {
    if ((phase + axis.pad - tap * axis.dilation) % axis.stride == 0) return tap;
  }
  return -1;
}

// Source index that tap `residue` reads for i = 0.
D2L_INLINE int64_t residue_source(const CorrelationAxis& axis, int64_t phase, int64_t residue) {
  return (phase + axis.pad - residue * axis.dilation) / axis.stride;
}

inline AxisPlan plan_axis(const CorrelationAxis& axis, bool transposed) {
  AxisPlan plan{};
  plan.source = axis.source;
  plan.result = axis.result;
  if (!transposed) {
    plan.phases = 1;
    plan.count = axis.result;
    plan.grid = axis.taps == 1 ? axis.stride : gcd(axis.stride, axis.dilation);
    plan.stride = axis.stride / plan.grid;
    plan.step = axis.taps == 1 ? 1 : axis.dilation / plan.grid;
    plan.low = -axis.pad;
    plan.span = (axis.taps - 1) * plan.step + 1;
    return plan;
  }
  const TapOrder order = tap_order(axis, true);
  plan.phases = axis.stride;
  plan.count = ceil_div(axis.result, axis.stride);
  plan.grid = 1;
  plan.stride = 1;
  plan.step = axis.dilation / gcd(axis.stride, axis.dilation);
  bool any = false;
  int64_t high = 0;
  for (int64_t phase = 0; phase < min(axis.stride, axis.result); ++phase) {
    const int64_t residue = first_residue(axis, phase);
    if (residue < 0) continue;
    const int64_t last = residue_source(axis, phase, residue);
    const int64_t first = last - (order.count(residue) - 1) * plan.step;
    plan.low = any ? min(plan.low, first) : first;
    high = any ? max(high, last) : last;
    any = true;
  }
  plan.span = high - plan.low + 1;
  return plan;
}

inline Phase plan_phase(const CorrelationAxis& axis, bool transposed, const AxisPlan& plan, int64_t phase) {
  if (!transposed) return {axis.taps, 0, 0};
  const TapOrder order = tap_order(axis, true);
  const int64_t residue = first_residue(axis, phase);
  if (residue < 0) return {0, 0, 0};
  const int64_t taps = order.count(residue);
  const int64_t first_source = residue_source(axis, phase, residue) - (taps - 1) * plan.step;
  return {taps, order.first(residue), first_source - plan.low};
}

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
