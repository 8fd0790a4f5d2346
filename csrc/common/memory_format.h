// torch's rule for memory formats: an output is channels_last if one of the inputs is.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/MemoryFormat.h>

#include "kernels/shapes.h"

namespace d2l {

inline at::MemoryFormat output_format(const at::Tensor& a) {
  return a.suggest_memory_format() == at::MemoryFormat::ChannelsLast ? at::MemoryFormat::ChannelsLast
                                                                     : at::MemoryFormat::Contiguous;
}

inline at::MemoryFormat output_format(const at::Tensor& a, const at::Tensor& b) {
  return output_format(a) == at::MemoryFormat::ChannelsLast ? at::MemoryFormat::ChannelsLast : output_format(b);
}

inline Layout layout_of(at::MemoryFormat format) {
  return format == at::MemoryFormat::ChannelsLast ? Layout::nhwc : Layout::nchw;
}

}  // namespace d2l
