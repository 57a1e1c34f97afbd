// What a model is, in numbers. TypeScript reads it from the file's header (src/config/architecture.ts has the same
// fields and the table of tensors); check_config re-checks every cap, so a caller that lies cannot make us
// compute a wrong size.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "system/status.h"

namespace onebit {

// Caps: with these every product of dimensions stays below 2^53, and int32 sums of int8 products cannot overflow
// (2^16 * 127 * 128 < 2^31).
constexpr int64_t kMaxDim = 1 << 16;  // any matrix's columns, and rows other than the vocabulary's
constexpr int64_t kMaxVocab = 1 << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxContext = 1 << 22;

struct LinearKind {
    enum class Form : uint8_t { dense, sign, grouped };
    Form form = Form::dense;
    DType dtype = DType::f32;  // dense only
    int32_t rank = 0;          // sign only: 0 = one stage; else two stages through a vector of this length
    bool mid_scale = false;    // sign, rank > 0: a scale on the inner vector
    bool layernorm = false;    // sign only
    bool bias = false;         // never on the embedding or the head
};

struct RopeConfig {
    enum class Scaling : uint8_t { none, linear, llama3, yarn, factors };
    bool interleaved = false;
    double theta = 10000;
    Scaling scaling = Scaling::none;
    double factor = 1;                     // linear, llama3, yarn
    double low_freq_factor = 1;            // llama3
    double high_freq_factor = 4;           // llama3
    double original_context = 0;           // llama3, yarn
    double beta_fast = 32, beta_slow = 1;  // yarn
    double attention_factor = 0;           // yarn; 0: 0.1 ln(factor) + 1
    std::vector<float> factors;            // factors: (head_dim / 2), each frequency is divided by its factor
};

enum class Role : uint8_t { wq, wk, wv, wo, w1, w2, w3 };
constexpr int kRoles = 7;

struct Config {
    int32_t vocab_size = 0;
    int32_t dim = 0;         // width of the residual stream
    int32_t hidden_dim = 0;  // feed-forward width
    int32_t n_layers = 0;
    int32_t n_heads = 0;
    int32_t n_kv_heads = 0;
    int32_t head_dim = 0;
    int32_t context_length = 0;
    float norm_eps = 1e-5f;
    bool qk_norm = false;  // Qwen3: RMSNorm of every q and k head before RoPE
    bool tied_head = true;
    RopeConfig rope;
    LinearKind embedding;
    LinearKind head;                  // equal to embedding when tied
    std::vector<LinearKind> linears;  // (n_layers, kRoles)

    int32_t q_dim() const { return n_heads * head_dim; }
    int32_t kv_dim() const { return n_kv_heads * head_dim; }
    int32_t rows(Role role) const;
    int32_t cols(Role role) const;
};

Status check_config(const Config& config);

// One tensor of the file, in the table's order (src/config/architecture.ts: tensorTable).
struct TensorSlot {
    uint64_t offset = 0;  // from the start of the file
    uint64_t bytes = 0;
    uint32_t crc32c = 0;
};

}  // namespace onebit
