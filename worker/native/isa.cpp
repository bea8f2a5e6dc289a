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
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("fma");
    case Isa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    default: return true;
  }
}

Isa isa_choose(const char* asked) {
  auto open = [](const char* name) { return !name || !*name || !strcmp(name, "auto"); };
  const char* from = "";
  if (open(asked)) {
    asked = getenv("WEFT_ISA");
    from = " (from WEFT_ISA)";
  }
  if (open(asked)) {
    for (Isa isa : every_isa)
      if (isa_runs_here(isa)) return isa;
  }
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
