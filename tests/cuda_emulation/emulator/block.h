// One block of threads under execution: its fibers, barriers, warp collectives and shared memory.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <source_location>
#include <string>
#include <vector>

#include "emulator/configuration.h"
#include "emulator/copies.h"
#include "emulator/fiber.h"
#include "emulator/runtime.h"
#include "emulator/shared_memory.h"
#include "emulator/vector_types.h"

namespace d2l::emulator {

constexpr int kWarpLanes = 32;
using Location = std::source_location;

// The arguments and results of one warp collective, by lane; null for lanes that the mask leaves out. They lie on the
// stacks of the lanes' fibers.
struct Lanes {
  uint32_t mask = 0;
  const void* arguments[kWarpLanes] = {};
  void* results[kWarpLanes] = {};
};
using Collective = void (*)(const Lanes& lanes);

struct Launch {
  const char* kernel_name;
  dim3 grid, block;
  size_t shared_bytes;
  Configuration configuration;
  void (*call)(const void* arguments);  // the kernel, as one thread
  const void* arguments;

  size_t block_count() const { return size_t{grid.x} * grid.y * grid.z; }
  int thread_count() const { return static_cast<int>(block.x * block.y * block.z); }
};

struct Fault {
  cudaError_t error = cudaSuccess;
  std::string text;
};

enum class Reduction { none, count, any, all };

class Block {
 public:
  Block();
  ~Block();

  // Runs one block of the launch to its end, or to its first fault.
  Fault run(const Launch& launch, size_t block_number);

  // What follows is for the threads of the block, while they run.

  const uint3& thread_index() const { return running_->index; }
  const uint3& block_index() const { return index_; }
  const dim3& block_size() const { return launch_->block; }
  const dim3& grid_size() const { return launch_->grid; }
  int lane() const { return running_->number % kWarpLanes; }
  SharedMemory& shared() { return shared_; }
  void* shared_variable(const void* key, size_t bytes, size_t alignment);

  // Waits for all threads of the block; returns the reduction of their predicates.
  int barrier(Reduction reduction, int predicate, const Location& where);
  // Waits for the lanes of the mask; the last one to come computes for all.
  void collective(const char* name, uint32_t mask, Collective compute, const void* argument, void* result,
                  const Location& where);

  void copy(void* to, const void* from, size_t bytes, bool predicate);
  void commit_copies() { running_->copies.commit(); }
  void wait_for_copies(size_t allowed) { running_->copies.wait(allowed); }

  // Ends the launch with an error.
  [[noreturn]] void fail(cudaError_t error, const std::string& text);

 private:
  enum class State : uint8_t { ready, at_barrier, in_collective, done };

  struct Thread {
    Fiber fiber;
    int number = 0;
    uint3 index{};
    State state = State::done;
    Copies copies;
    // What it waits for.
    Location where{};
    const char* name = nullptr;
    uint32_t mask = 0;
    Reduction reduction = Reduction::none;
    const void* argument = nullptr;
    void* result = nullptr;
  };

  // Lanes that wait in a collective, and lanes that have exited.
  struct Warp {
    uint32_t waiting = 0;
    uint32_t done = 0;
  };

  static void run_thread();
  void start(const Launch& launch, size_t block_number);
  void reserve(int threads);
  bool run_ready_threads();
  bool run_warp(int warp, bool backwards, bool shuffled);
  void suspend(State state);
  void release_barrier();
  void report_deadlock();
  void set_fault(cudaError_t error, const Thread* thread, const std::string& text);
  void check_mask(const Thread& self);
  void check_same_collective(const Thread& self, int lane);
  std::string describe(const Thread& thread) const;
  std::string describe_waiting(const Thread& thread) const;
  Warp& warp_of(const Thread& thread) { return warps_[thread.number / kWarpLanes]; }
  Thread& lane_of(const Thread& thread, int lane) { return *threads_[thread.number / kWarpLanes * kWarpLanes + lane]; }
  int warp_count() const { return (thread_count_ + kWarpLanes - 1) / kWarpLanes; }

  const Launch* launch_ = nullptr;
  uint3 index_{};
  int thread_count_ = 0;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Warp> warps_;
  char* stacks_ = nullptr;
  size_t stacks_bytes_ = 0;
  SharedMemory shared_;
  Thread* running_ = nullptr;
  const Thread* first_at_barrier_ = nullptr;
  int at_barrier_ = 0;
  int predicates_ = 0;       // true ones at the barrier
  int last_predicates_ = 0;  // the same of the barrier that was released last
  int done_ = 0;
  Fault fault_;
  std::mt19937_64 random_;
};

// The block that this OS thread runs.
extern thread_local Block* current_block;
inline Block& block() { return *current_block; }

}  // namespace d2l::emulator
