// What a model is, in numbers. TypeScript reads it from the file's header (src/config has the same fields and the table
// of tensors); check_config re-checks every cap, so a caller that lies cannot make us compute a wrong size.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "linear/linear.h"
#include "system/status.h"

namespace onebit {

// Caps: with these every product of dimensions stays below 2^53, and int32 sums of int8 products cannot overflow
// (2^16 * 127 * 128 < 2^31: kMaxDim, linear.h).
constexpr int64_t kMaxVocab = 1 << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxContext = 1 << 22;
constexpr int64_t kMaxOffset = 1024;
constexpr int64_t kMaxConv = 16;

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
    double attention_factor = 0;           // yarn; 0: 0.1 ln(factor) + 1, and 1 where that would be less
    std::vector<float> factors;            // factors: (rotated() / 2), each frequency is divided by its factor
};

enum class NormKind : uint8_t { rms, layer };

// A model by its features, not by its name: src/config has the same fields, and says which are left out of a file.
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
    bool tied_head = true;

    NormKind norm = NormKind::rms;
    bool norm_bias = false;
    bool learned_positions = false;  // a table is added to the embedding, row = position + position_offset; no rotation
    int32_t position_offset = 0;
    RopeConfig rope;
    int32_t rope_dims = 0;             // the first elements of every head that are rotated; 0: all
    bool qk_norm = false;              // RMSNorm of every q and k head before rotation
    bool attention_inner_norm = false; // of the mixed heads, before wo
    int32_t window = 0;                // a position sees itself and the window - 1 before it; 0: all
    bool output_gate = false;          // wq has per head its q and a gate, whose sigmoid multiplies the mixed head
    bool gated = true;                 // feed-forward: w2(act(w1 x) * w3 x); otherwise w2(act(w1 x))
    Activation activation = Activation::silu;
    bool ffn_inner_norm = false;       // of the inner vector, before w2
    bool parallel_residual = false;    // attention and feed-forward both read x; otherwise the second reads x + the first

    // Layers that mix by a gated delta rule (Yang, Kautz, Hatamizadeh 2024) in place of attention, ascending. Each value head
    // has a state of delta_k_dim x delta_v_dim numbers, which every token decays, corrects and reads.
    std::vector<int32_t> delta_layers;
    int32_t delta_k_heads = 0, delta_v_heads = 0, delta_k_dim = 0, delta_v_dim = 0;  // 0 without such layers
    int32_t delta_conv = 0;            // tokens that the convolution before it sees, its own among them
    bool delta_tiled = false;          // value head h reads key head h mod delta_k_heads; otherwise h div their ratio

    int32_t q_dim() const { return n_heads * head_dim; }
    int32_t kv_dim() const { return n_kv_heads * head_dim; }
    int32_t rotated() const { return rope_dims > 0 ? rope_dims : head_dim; }
    int32_t wq_rows() const { return output_gate ? 2 * q_dim() : q_dim(); }
    bool is_delta(int layer) const { return std::binary_search(delta_layers.begin(), delta_layers.end(), layer); }
    int32_t delta_inner() const { return delta_v_heads * delta_v_dim; }
    int32_t delta_channels() const { return 2 * delta_k_heads * delta_k_dim + delta_inner(); }  // queries, keys, values
};

// Every number is in its range and fits the others. Kinds are checked when a model is bound to its tensors.
Status check_config(const Config& config);

// What a file says of itself beside the config, or a caller who makes a model: each matrix's kind, each tensor's place.
struct NamedKind {
    std::string name;  // "layers.3.wq", "tok_embeddings", "output"
    LinearKind kind;
};

// Of the elements of a tensor in a file.
enum class FileType : uint8_t { f32, f16, bf16, i8, u8 };

struct TensorSlot {
    std::string name;
    FileType type = FileType::f32;
    uint64_t offset = 0;  // from the start of the file
    uint64_t bytes = 0;
    uint32_t crc32c = 0;
};

struct Contents {
    std::vector<NamedKind> kinds;
    std::vector<TensorSlot> tensors;
};

}  // namespace onebit
