#include "emulator/block.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstring>
#include <new>
#include <numeric>

#include "emulator/sanitizer.h"

namespace d2l::emulator {

thread_local Block* current_block = nullptr;

namespace {

// Red zones make AddressSanitizer's frames several times larger. Pages that are never touched cost nothing.
constexpr size_t kStackBytes = D2L_ADDRESS_SANITIZER ? 256 * 1024 : 128 * 1024;
constexpr size_t kGuardBytes = 4096;
constexpr size_t kStackOffset = 320;
constexpr int kStackOffsets = 64;

std::string triple(const uint3& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string at(const Location& where) {
  const std::string path = where.file_name();
  return path.substr(path.rfind('/') + 1) + ":" + std::to_string(where.line());
}

std::string hexadecimal(uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", value);
  return text;
}

const char* barrier_name(Reduction reduction) {
  switch (reduction) {
    case Reduction::count:
      return "__syncthreads_count()";
    case Reduction::any:
      return "__syncthreads_or()";
    case Reduction::all:
      return "__syncthreads_and()";
    case Reduction::none:
      break;
  }
  return "__syncthreads()";
}

}  // namespace

Block::Block() = default;

Block::~Block() {
  if (stacks_ != nullptr) munmap(stacks_, stacks_bytes_);
}

// Stacks are kept from launch to launch. Below each lies a page that may not be touched, so that an overflow is a
// crash and not a wrong result.
void Block::reserve(int threads) {
  if (static_cast<int>(threads_.size()) >= threads) return;
  if (stacks_ != nullptr) munmap(stacks_, stacks_bytes_);
  stacks_ = nullptr;
  threads_.clear();
  stacks_bytes_ = threads * (kStackBytes + kGuardBytes);
  void* memory =
      mmap(nullptr, stacks_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stacks_ = static_cast<char*>(memory);
  for (int i = 0; i < threads; ++i) {
    mprotect(stacks_ + i * (kStackBytes + kGuardBytes), kGuardBytes, PROT_NONE);
    threads_.push_back(std::make_unique<Thread>());
  }
}

void Block::start(const Launch& launch, size_t block_number) {
  launch_ = &launch;
  index_ = {static_cast<unsigned>(block_number % launch.grid.x),
            static_cast<unsigned>(block_number / launch.grid.x % launch.grid.y),
            static_cast<unsigned>(block_number / launch.grid.x / launch.grid.y)};
  thread_count_ = launch.thread_count();
  reserve(thread_count_);
  warps_.assign(warp_count(), Warp{});
  shared_.reset(launch.shared_bytes, static_cast<size_t>(launch.configuration.max_shared_bytes()));
  random_.seed(launch.configuration.seed * 0x9e3779b97f4a7c15u + block_number);
  at_barrier_ = predicates_ = last_predicates_ = done_ = 0;
  first_at_barrier_ = nullptr;
  fault_ = {};
  const dim3& size = launch.block;
  for (int i = 0; i < thread_count_; ++i) {
    Thread& thread = *threads_[i];
    const unsigned number = static_cast<unsigned>(i);
    thread.number = i;
    thread.index = {number % size.x, number / size.x % size.y, number / size.x / size.y};
    thread.state = State::ready;
    thread.copies.reset();
    // Stacks end at different places of a page, or their tops would fight for the same few sets of the cache.
    const size_t unused = i % kStackOffsets * kStackOffset;
    thread.fiber.start(stacks_ + i * (kStackBytes + kGuardBytes) + kGuardBytes, kStackBytes - unused,
                       &Block::run_thread);
  }
}

void Block::run_thread() {
  Block& block = *current_block;
  block.launch_->call(block.launch_->arguments);
  block.running_->state = State::done;
  block.warp_of(*block.running_).done |= 1u << block.lane();
  ++block.done_;
  block.running_->fiber.finish();
}

Fault Block::run(const Launch& launch, size_t block_number) {
  current_block = this;
  start(launch, block_number);
  while (done_ < thread_count_ && fault_.error == cudaSuccess) {
    if (run_ready_threads() || fault_.error != cudaSuccess) continue;
    if (at_barrier_ > 0 && at_barrier_ == thread_count_) {
      release_barrier();
    } else {
      report_deadlock();
    }
  }
  if (fault_.error == cudaSuccess && !shared_.intact()) {
    set_fault(cudaErrorLaunchFailure, nullptr, "wrote shared memory beyond the end of a variable");
  }
  current_block = nullptr;
  return fault_;
}

// Runs threads that can run, in the order of the schedule; false if there is none.
bool Block::run_ready_threads() {
  const Schedule schedule = launch_->configuration.schedule;
  const bool backwards = schedule == Schedule::reverse || schedule == Schedule::greedy_reverse;
  const bool greedy = schedule == Schedule::greedy || schedule == Schedule::greedy_reverse;
  const bool shuffled = schedule == Schedule::random;
  std::array<int, 1024 / kWarpLanes> warps;
  const auto end = warps.begin() + warp_count();
  std::iota(warps.begin(), end, 0);
  if (backwards) std::reverse(warps.begin(), end);
  if (shuffled) std::shuffle(warps.begin(), end, random_);
  bool any = false;
  for (auto warp = warps.begin(); warp != end; ++warp) {
    // Warps that run several times in a row get ahead of the others, as they may on a GPU.
    uint64_t turns = greedy ? UINT64_MAX : shuffled ? 1 + random_() % 4 : 1;
    for (; turns > 0 && run_warp(*warp, backwards, shuffled); --turns) any = true;
  }
  return any;
}

// Runs each thread of the warp that can run to the next place where it must wait; false if there is none.
bool Block::run_warp(int warp, bool backwards, bool shuffled) {
  const int begin = warp * kWarpLanes;
  const int count = std::min(thread_count_ - begin, kWarpLanes);
  std::array<int, kWarpLanes> order;
  std::iota(order.begin(), order.begin() + count, begin);
  if (backwards) std::reverse(order.begin(), order.begin() + count);
  if (shuffled) std::shuffle(order.begin(), order.begin() + count, random_);
  bool any = false;
  for (int i = 0; i < count; ++i) {
    Thread& thread = *threads_[order[i]];
    if (thread.state != State::ready) continue;
    any = true;
    running_ = &thread;
    thread.fiber.resume();
    if (fault_.error != cudaSuccess) return false;
  }
  return any;
}

void Block::suspend(State state) {
  Thread& self = *running_;
  self.state = state;
  self.fiber.suspend();
}

int Block::barrier(Reduction reduction, int predicate, const Location& where) {
  Thread& self = *running_;
  self.name = barrier_name(reduction);
  self.where = where;
  if (at_barrier_ == 0) {
    first_at_barrier_ = &self;
  } else if (const Thread& first = *first_at_barrier_;
             first.where.line() != where.line() || std::strcmp(first.where.file_name(), where.file_name()) != 0) {
    fail(cudaErrorLaunchFailure, "divergent barrier: reached " + describe_waiting(self) + " while " + describe(first) +
                                     " waits at " + describe_waiting(first));
  }
  ++at_barrier_;
  predicates_ += predicate != 0;
  suspend(State::at_barrier);
  switch (reduction) {
    case Reduction::any:
      return last_predicates_ > 0;
    case Reduction::all:
      return last_predicates_ == thread_count_;
    case Reduction::none:
    case Reduction::count:
      break;
  }
  return last_predicates_;
}

void Block::release_barrier() {
  for (int i = 0; i < thread_count_; ++i) threads_[i]->state = State::ready;
  last_predicates_ = predicates_;
  at_barrier_ = predicates_ = 0;
}

void Block::check_mask(const Thread& self) {
  const auto refuse = [&](const std::string& reason) {
    fail(cudaErrorLaunchFailure, std::string(self.name) + " with mask " + hexadecimal(self.mask) + ", which " + reason);
  };
  if ((self.mask >> lane() & 1) == 0) refuse("leaves out the calling lane");
  const int lanes = std::min(kWarpLanes, thread_count_ - (self.number - lane()));
  if (const uint32_t missing = lanes < kWarpLanes ? self.mask >> lanes : 0; missing != 0) {
    refuse("names lane " + std::to_string(lanes + std::countr_zero(missing)) + " of an incomplete warp");
  }
  if (const uint32_t exited = self.mask & warp_of(self).done; exited != 0) {
    refuse("names " + describe(lane_of(self, std::countr_zero(exited))) + ": it has exited");
  }
}

void Block::check_same_collective(const Thread& self, int lane) {
  const Thread& other = lane_of(self, lane);
  if (other.mask == self.mask && std::strcmp(other.name, self.name) == 0) return;
  fail(cudaErrorLaunchFailure, std::string(self.name) + " with mask " + hexadecimal(self.mask) + ", while " +
                                   describe(other) + " waits at " + describe_waiting(other));
}

void Block::collective(const char* name, uint32_t mask, Collective compute, const void* argument, void* result,
                       const Location& where) {
  Thread& self = *running_;
  self.name = name;
  self.where = where;
  self.mask = mask;
  self.argument = argument;
  self.result = result;
  check_mask(self);
  Warp& warp = warp_of(self);
  const uint32_t others = mask & ~(1u << lane());
  if ((warp.waiting & others) != others) {
    if (const uint32_t before = warp.waiting & others; before != 0)
      check_same_collective(self, std::countr_zero(before));
    warp.waiting |= 1u << lane();
    suspend(State::in_collective);
    return;
  }
  Lanes lanes;
  lanes.mask = mask;
  for (uint32_t left = mask; left != 0; left &= left - 1) {
    const int i = std::countr_zero(left);
    Thread& other = lane_of(self, i);
    check_same_collective(self, i);
    lanes.arguments[i] = other.argument;
    lanes.results[i] = other.result;
    other.state = State::ready;
  }
  warp.waiting &= ~mask;
  compute(lanes);
}

void* Block::shared_variable(const void* key, size_t bytes, size_t alignment) {
  void* variable = shared_.variable(key, bytes, alignment);
  if (variable == nullptr) {
    fail(cudaErrorInvalidValue, "needs more shared memory than the " +
                                    std::to_string(launch_->configuration.max_shared_bytes()) + " bytes of sm_" +
                                    std::to_string(launch_->configuration.arch));
  }
  return variable;
}

void Block::copy(void* to, const void* from, size_t bytes, bool predicate) {
  const auto aligned = [bytes](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; };
  if (!aligned(to) || !aligned(from)) {
    fail(cudaErrorMisalignedAddress, "misaligned cp.async: " + std::to_string(bytes) + " bytes " +
                                         (aligned(to) ? "from a global" : "to a shared") +
                                         " address that is no multiple");
  }
  if (!shared_.contains(to, bytes)) fail(cudaErrorInvalidAddressSpace, "cp.async to an address outside shared memory");
  running_->copies.issue(to, predicate ? from : nullptr, bytes, launch_->configuration.copies == CopyModel::eager);
}

void Block::fail(cudaError_t error, const std::string& text) {
  set_fault(error, running_, text);
  running_->state = State::done;
  running_->fiber.finish();
}

void Block::set_fault(cudaError_t error, const Thread* thread, const std::string& text) {
  fault_.error = error;
  fault_.text = std::string("kernel ") + launch_->kernel_name + ", block " + triple(index_) +
                (thread != nullptr ? ", " + describe(*thread) : "") + ": " + text;
}

std::string Block::describe(const Thread& thread) const { return "thread " + triple(thread.index); }

std::string Block::describe_waiting(const Thread& thread) const {
  const bool at_collective = thread.state == State::in_collective;
  return std::string(thread.name) + (at_collective ? " with mask " + hexadecimal(thread.mask) : "") + " at " +
         at(thread.where);
}

// No thread can run. Names one that waits, and one that it waits for.
void Block::report_deadlock() {
  const auto of_state = [this](State state) {
    for (int i = 0; i < thread_count_; ++i) {
      if (threads_[i]->state == state) return static_cast<const Thread*>(threads_[i].get());
    }
    return static_cast<const Thread*>(nullptr);
  };
  const Thread* at_barrier = of_state(State::at_barrier);
  const Thread* at_collective = of_state(State::in_collective);
  const Thread* done = of_state(State::done);
  if (at_collective != nullptr) {
    const int first = at_collective->number - at_collective->number % kWarpLanes;
    std::string reason = ": another lane never comes";
    for (int i = 0; i < std::min(kWarpLanes, thread_count_ - first); ++i) {
      const Thread& other = *threads_[first + i];
      if ((at_collective->mask >> i & 1) == 0 || other.state == State::in_collective) continue;
      reason = other.state == State::done ? ", but " + describe(other) + " has exited"
                                          : ", but " + describe(other) + " waits at " + describe_waiting(other);
      break;
    }
    set_fault(cudaErrorLaunchTimeout, at_collective, "deadlock: waits at " + describe_waiting(*at_collective) + reason);
  } else {
    set_fault(
        cudaErrorLaunchTimeout, at_barrier,
        "divergent barrier: waits at " + describe_waiting(*at_barrier) + ", but " + describe(*done) + " has exited");
  }
}

}  // namespace d2l::emulator
