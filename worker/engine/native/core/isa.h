// Which instruction set this process computes with. One binary holds all sets of its architecture (sources.txt); one is
// chosen at start, by name or by what the CPU has. Sets differ in the last bits of a sum, so a run names its set.
#pragma once
#include <string>

// The names of the sets in this binary, best first: X(name).
#if defined(__x86_64__)
#define WEFT_EACH_ISA(X) X(avx512) X(avx512bf16) X(avx2) X(plain)
#elif defined(__aarch64__)
#define WEFT_EACH_ISA(X) X(neon) X(plain)
#else
#define WEFT_EACH_ISA(X) X(plain)
#endif

namespace weft {

enum class Isa {
#define X(name) name,
  WEFT_EACH_ISA(X)
#undef X
};

constexpr Isa every_isa[] = {
#define X(name) Isa::name,
    WEFT_EACH_ISA(X)
#undef X
};

const char* isa_name(Isa isa);

// Whether this CPU and operating system can run the set.
bool isa_runs_here(Isa isa);

// The set for `asked`: null, "" or "auto" takes $WEFT_ISA, and without it the fastest that runs here, for matrices of
// bf16 or of float32. Throws std::runtime_error naming the sets there are when `asked` is unknown or cannot run here.
Isa isa_choose(const char* asked, bool bf16 = false);

}  // namespace weft
