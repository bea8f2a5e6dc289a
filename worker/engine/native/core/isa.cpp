#include "isa.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace weft {

const char* isa_name(Isa isa) {
  switch (isa) {
#define X(name) \
  case Isa::name: return #name;
    WEFT_EACH_ISA(X)
#undef X
  }
  return "unknown";
}

bool isa_runs_here(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    // These builtins also ask the operating system whether it saves the wide registers.
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
    case Isa::avx512bf16: return isa_runs_here(Isa::avx512) && __builtin_cpu_supports("avx512bf16");
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    default: return true;
  }
}

static Isa fastest(bool bf16) {
#if defined(__x86_64__)
  // Intel's AVX-512 takes as long for a pair of bf16 as for two floats (Emerald Rapids: 83 GFLOP/s a core, 151 in
  // float32), AMD's as long as for one.
  if (bf16 && isa_runs_here(Isa::avx512bf16) && __builtin_cpu_is("amd")) return Isa::avx512bf16;
#endif
  for (Isa isa : every_isa)
    if (isa_runs_here(isa)) return isa;
  return Isa::plain;
}

Isa isa_choose(const char* asked, bool bf16) {
  auto open = [](const char* name) { return !name || !*name || !strcmp(name, "auto"); };
  const char* from = "";
  if (open(asked)) {
    asked = getenv("WEFT_ISA");
    from = " (from WEFT_ISA)";
  }
  if (open(asked)) return fastest(bf16);
  std::string here;
  for (Isa isa : every_isa) {
    if (!isa_runs_here(isa)) continue;
    if (!strcmp(asked, isa_name(isa))) return isa;
    here += here.empty() ? isa_name(isa) : std::string(", ") + isa_name(isa);
  }
  throw std::runtime_error("instruction set \"" + std::string(asked) + "\"" + from +
                           " does not run on this machine; these do: " + here);
}

}  // namespace weft
