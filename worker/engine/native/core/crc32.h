// CRC-32 as zlib, gzip and PNG have it (polynomial 0x04c11db7, reflected), by carry-less multiplication: several times as
// fast as zlib's. Only where the CPU has the instruction.
#pragma once
#include <cstddef>
#include <cstdint>

namespace weft {

bool crc32_runs_here();
uint32_t crc32(const uint8_t* bytes, size_t n);

}  // namespace weft
