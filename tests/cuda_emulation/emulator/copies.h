// The cp.async copies of one thread, in groups, carried out when they are issued or when they are waited for.
#pragma once

#include <cstddef>
#include <vector>

namespace d2l::emulator {

class Copies {
 public:
  void reset() { pending_.clear(), group_ends_.clear(), groups_done_ = 0, copies_done_ = 0; }

  // Without `from`, zeros are written.
  void issue(void* to, const void* from, size_t bytes, bool at_once);
  void commit() { group_ends_.push_back(pending_.size()); }
  // Carries out all groups but the last `allowed`.
  void wait(size_t allowed);

 private:
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };

  std::vector<Copy> pending_;
  std::vector<size_t> group_ends_;  // in pending_
  size_t groups_done_ = 0;
  size_t copies_done_ = 0;
};

}  // namespace d2l::emulator
