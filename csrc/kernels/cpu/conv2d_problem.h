// From the shape of a convolution to the correlation that computes it; the pointers are left to the launcher.
#pragma once

#include "kernels/cpu/conv2d.h"
#include "kernels/cpu/conv2d_kernel.h"

namespace d2l::cpu {

template <typename Problem>
Problem forward_problem(const Conv2dShape& shape, Layout layout, WeightStrides weight_strides) {
  Problem problem{};
  problem.transposed = false;
  problem.images = shape.N;
  problem.groups = shape.groups;
  problem.depth = shape.group_c();
  problem.width = shape.group_k();
  problem.rows = {shape.H, shape.P, shape.R, shape.stride_h, shape.pad_top, shape.dilation_h};
  problem.columns = {shape.W, shape.Q, shape.S, shape.stride_w, shape.pad_left, shape.dilation_w};
  problem.source_layout = problem.result_layout = layout;
  problem.source_channels = shape.input_pixel_stride();
  problem.result_channels = shape.output_pixel_stride();
  problem.weight_group = shape.group_k() * weight_strides.k;
  problem.weight_depth = weight_strides.c;
  problem.weight_width = weight_strides.k;
  problem.weight_row = weight_strides.r;
  problem.weight_column = weight_strides.s;
  return problem;
}

template <typename Problem>
Problem input_grad_problem(const Conv2dShape& shape, Layout layout, WeightStrides weight_strides) {
  Problem problem{};
  problem.transposed = true;
  problem.images = shape.N;
  problem.groups = shape.groups;
  problem.depth = shape.group_k();
  problem.width = shape.group_c();
  problem.rows = {shape.P, shape.H, shape.R, shape.stride_h, shape.pad_top, shape.dilation_h};
  problem.columns = {shape.Q, shape.W, shape.S, shape.stride_w, shape.pad_left, shape.dilation_w};
  problem.source_layout = problem.result_layout = layout;
  problem.source_channels = shape.output_pixel_stride();
  problem.result_channels = shape.input_pixel_stride();
  problem.weight_group = shape.group_k() * weight_strides.k;
  problem.weight_depth = weight_strides.k;
  problem.weight_width = weight_strides.c;
  problem.weight_row = weight_strides.r;
  problem.weight_column = weight_strides.s;
  return problem;
}

}  // namespace d2l::cpu
