// A Model: weights in the layout the chosen kernels want. Immutable once loaded, shared by its sessions.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "linear/linear.h"
#include "model/checkpoints.h"
#include "model/config.h"
#include "system/memory.h"
#include "system/pool.h"
#include "system/status.h"

namespace onebit {

// Rotary position embedding: the frequencies of a model, with the scaling its config asks for.
struct RopeTable {
    std::vector<double> frequency;  // (dims / 2) radians per position
    double magnitude = 1;           // YaRN's attention factor: multiplied into cos and sin

    // cos, sin: (dims / 2) of one position.
    void angles(int position, float* cos, float* sin) const;
};

RopeTable make_rope_table(const RopeConfig& config, int dims);

struct NormWeights {
    const float* weight = nullptr;  // null: the model has no such norm
    const float* bias = nullptr;    // null: it has no bias
};

// What a layer has in place of wq, wk and wv where it mixes by the delta rule.
struct DeltaWeights {
    Linear qkv, z, beta, alpha;  // (channels, dim), (inner, dim), (v_heads, dim) twice
    const float* conv = nullptr;       // (delta_conv, padded(channels, 16)), the oldest token first
    const float* decay = nullptr;      // (v_heads) what softplus is multiplied by, usually negative
    const float* time_bias = nullptr;  // (v_heads)
    const float* norm = nullptr;       // (v_dim)
};

struct Layer {
    bool is_delta = false;
    NormWeights attention_norm, attention_inner_norm, ffn_norm, ffn_inner_norm;
    const float* q_norm = nullptr;  // (head_dim), qk_norm only
    const float* k_norm = nullptr;  // (head_dim)
    Linear wq, wk, wv, wo, w1, w2, w3;  // is_delta: wo is w_out, and there is no wq, wk, wv
    DeltaWeights delta;                 // is_delta only
    int like = 0;  // the first layer whose matrices are of the same kinds and sizes: what is planned for one serves both
};

struct LoadOptions {
    std::string path;        // UTF-8
    uint64_t file_bytes = 0;  // the file must have exactly this size
    Activations activations = Activations::int8;
    const KernelSet* kernels = nullptr;
    std::function<void(uint64_t done_bytes)> progress;  // called by computing threads, one at a time; may be empty
    const std::atomic<bool>* cancel = nullptr;          // may be null
};

class Model {
public:
    Config config;
    Activations activations = Activations::int8;
    const KernelSet* kernels = nullptr;
    Linear embedding;  // rows = vocab_size, cols = dim
    Linear head;       // == embedding when tied
    const float* positions = nullptr;  // (context_length + position_offset, padded(dim, 64)); learned positions only
    NormWeights norm;
    std::vector<Layer> layers;
    RopeTable rope;
    Arena arena;
    const std::shared_ptr<Checkpoints> checkpoints = std::make_shared<Checkpoints>();  // of all its sessions

    uint64_t weight_bytes() const { return arena.bytes(); }
};

// Reads, checks (size, CRC-32C of every tensor, finite scales and norms) and repacks. Every tensor that the config implies
// is asked for by name and must have the type and size that follow; none may be left over. *out is set only on success.
// ERR_CONFIG, ERR_TENSOR_TABLE, ERR_FILE_SIZE, ERR_READ, ERR_TRUNCATED, ERR_CHECKSUM, ERR_NOT_FINITE, ERR_OUT_OF_MEMORY,
// ERR_ABORTED.
Status load_model(const Config& config, const Contents& contents, const LoadOptions& options, Pool& pool,
                  std::shared_ptr<Model>* out);

}  // namespace onebit
