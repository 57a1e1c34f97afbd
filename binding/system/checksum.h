// CRC-32C of bytes that were read in parts, by whoever came first.
#pragma once

#include <cstdint>

namespace onebit {

class JoinedCrc32c {
public:
    // crc: of the next `bytes` bytes by themselves.
    void append(uint32_t crc, uint64_t bytes);
    // Of all bytes so far; 0 of none.
    uint32_t value() const { return crc_; }

private:
    uint32_t crc_ = 0;
    uint64_t bytes_ = 0;  // that shift_ is for: most parts are as long as the one before
    uint32_t shift_ = 0;  // what so many bytes behind a checksum multiply it by
};

}  // namespace onebit
