// GGUF's quantised blocks, one decoder each. A block holds scales and packed integers; a value is scale x integer (and
// minus or plus a minimum), in f32 and in this order, so that values equal those of other decoders to the bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onebit {

struct BlockFormat {
    const char* name;
    size_t elements, bytes;
    // block (bytes) -> out (elements). Null: elements are numbers by themselves.
    void (*decode)(const uint8_t* block, float* out);
    // Of ternary blocks: block -> codes (elements), each a weight + 1, times the f16 at scale_at.
    void (*codes)(const uint8_t* block, uint8_t* out) = nullptr;
    size_t scale_at = 0;
};

// By SourceType (convert.h).
extern const BlockFormat kBlockFormats[];
extern const size_t kBlockFormatCount;

// From where nothing is aligned.
uint16_t load_u16(const uint8_t* at);
float load_f16(const uint8_t* at);
float load_bf16(const uint8_t* at);

}  // namespace onebit
