// Scratch memory of the CPU kernels: one grow-only buffer per thread and purpose, kept between calls because fresh
// pages cost more than the work on them. Aligned to 64 bytes; contents are unspecified.
#pragma once

#include <cstdint>

namespace d2l::cpu {

enum class Workspace {
  call,    // of the thread that launches a kernel, for all its threads, or of each for itself: packed weights, sums
  task,    // owned by the thread that runs a part of it: strips of a map
  map,     // owned by the thread that launches several kernels: a map that one leaves to the next
  sums,    // owned by the thread that rounds them: float32 sums of a 16-bit result
  pixels,  // owned by the thread that multiplies them: a matrix that a product reads or leaves
  parts,   // owned by the thread that multiplies them: packed parts of float32, see float_parts.h
};

// At least `bytes` bytes of this thread, valid until its next call for the same purpose. Throws std::bad_alloc.
void* workspace(Workspace purpose, int64_t bytes);

// Returns this thread's buffer to the system if it grew beyond what is worth keeping.
void trim_workspace(Workspace purpose);

}  // namespace d2l::cpu
