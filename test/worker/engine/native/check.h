// What the C++ tests need: a check that prints what it saw, and the set under test.
#pragma once
#include <cstdio>
#include <cstdlib>

#include "isa.h"

#define CHECK(condition, ...)                                     \
  do {                                                            \
    if (!(condition)) {                                           \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                   \
      std::printf("\n");                                          \
      std::exit(1);                                               \
    }                                                             \
  } while (0)

// The set that WEFT_ISA names, or the end of the test with 77, ctest's "skipped", where the CPU lacks it.
inline weft::Isa isa_under_test() {
  try {
    return weft::isa_choose(nullptr);
  } catch (const std::exception& error) {
    std::printf("skipped: %s\n", error.what());
    std::exit(77);
  }
}
