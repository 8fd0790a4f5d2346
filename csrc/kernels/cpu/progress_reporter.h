// The reports of one thread that writes a range of pixels in order (see Progress). Only for kernel sources.
#pragma once

#include "kernels/cpu/capability.h"
#include "kernels/cpu/progress.h"

namespace d2l::cpu::D2L_CPU_CAPABILITY {

class ProgressReporter {
 public:
  ProgressReporter(const Progress& progress, int64_t begin) : progress_(progress), begin_(begin), end_(begin) {}

  void finished(int64_t end) {
    if (progress_.report == nullptr || end <= end_) return;
    progress_.report(progress_.context, begin_, end_, end);
    end_ = end;
  }

 private:
  const Progress& progress_;
  int64_t begin_, end_;
};

}  // namespace d2l::cpu::D2L_CPU_CAPABILITY
