#include "system/checksum.h"

namespace onebit {

namespace {

// A checksum is a polynomial over GF(2) modulo that of CRC-32C, the highest bit its constant term. Bytes behind those that
// it is of multiply it by x^8 each; what they themselves come to is added. (kernels/crc32c_instruction.inl does so for one length
// with a matrix, which is quicker to apply and slower to make.)
constexpr uint32_t kPolynomial = 0x82f63b78u, kOne = 1u << 31, kByte = kOne >> 8;

uint32_t times_x(uint32_t a) { return (a >> 1) ^ ((a & 1u) ? kPolynomial : 0u); }

uint32_t product(uint32_t a, uint32_t b) {
    uint32_t sum = 0;
    for (; a != 0; a <<= 1, b = times_x(b)) {
        if (a & kOne) sum ^= b;
    }
    return sum;
}

// x^(8 bytes)
uint32_t shift_of(uint64_t bytes) {
    uint32_t result = kOne;
    for (uint32_t power = kByte; bytes != 0; bytes >>= 1, power = product(power, power)) {
        if (bytes & 1u) result = product(result, power);
    }
    return result;
}

}  // namespace

void JoinedCrc32c::append(uint32_t crc, uint64_t bytes) {
    if (crc_ != 0) {  // most tensors are one part, in front of which there is nothing
        if (bytes != bytes_) shift_ = shift_of(bytes);
        bytes_ = bytes;
        crc_ = product(crc_, shift_);
    }
    crc_ ^= crc;
}

}  // namespace onebit
