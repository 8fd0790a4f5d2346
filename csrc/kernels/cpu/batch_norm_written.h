// The statistics of a map that is being written: batch_norm_moments, but each part of the map is summed by the thread
// that has just written it, from its cache.
#pragma once

#include <vector>

#include "kernels/cpu/batch_norm_partition.h"
#include "kernels/cpu/progress.h"

namespace d2l::cpu {

// The parts are those of batch_norm_moments and are joined in the same order: the result is the same to the last bit,
// whoever sums which of them, and when. For T = float and double.
template <typename T>
class WrittenMoments {
 public:
  WrittenMoments(const BatchNormShape& shape, Layout layout, const T* map);
  WrittenMoments(const WrittenMoments&) = delete;
  WrittenMoments& operator=(const WrittenMoments&) = delete;

  // For the kernel that writes the map. It need not report everything, or anything.
  Progress progress() { return {&WrittenMoments::report, this}; }

  // Sums what was not reported in time.
  void join(double* mean, double* var);

 private:
  static void report(void* moments, int64_t begin, int64_t before, int64_t end);
  void sum(int64_t part);

  BatchNormShape shape_;
  NormMaps<const T> map_;
  Partition cut_;
  PartialSums sums_;
  std::vector<char> is_summed_;  // one for each part
};

}  // namespace d2l::cpu
