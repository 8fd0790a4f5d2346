// A fiber: a function with a stack of its own, which its owner resumes and which suspends itself.
//
// x86-64 switches in a few instructions; elsewhere, or with -DD2L_EMULATOR_UCONTEXT, ucontext serves; it
// makes system calls and is several times slower.
#pragma once

#include <cstddef>

#if defined(__x86_64__) && !defined(D2L_EMULATOR_UCONTEXT)
#define D2L_FIBER_ASSEMBLY 1
#else
#define D2L_FIBER_ASSEMBLY 0
#include <ucontext.h>
#endif

namespace d2l::emulator {

class Fiber {
 public:
  // The next resume() calls entry(), which must end with finish(). What ran on the fiber before is forgotten.
  void start(char* stack, size_t bytes, void (*entry)());
  // Runs the fiber until it suspends or finishes.
  void resume();

  // To be called on the fiber itself.
  void suspend();
  [[noreturn]] void finish();

 private:
#if D2L_FIBER_ASSEMBLY
  using Context = void*;  // stack pointer; the registers lie on the stack
#else
  using Context = ucontext_t;
#endif

  static void enter();
  void leave(bool for_good);

  Context own_{};
  Context caller_{};
  void (*entry_)() = nullptr;
  char* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  const void* caller_stack_ = nullptr;
  size_t caller_stack_bytes_ = 0;
};

}  // namespace d2l::emulator
