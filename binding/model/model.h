// A Model: weights in the layout the chosen kernels want. Immutable once loaded, shared by its sessions.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "system/arena.h"
#include "model/config.h"
#include "kernels/kernels.h"
#include "system/pool.h"
#include "model/rope.h"
#include "system/status.h"

namespace onebit {

// What sign matrices multiply. Dense int8 rows round to 8 bits in both integer modes.
enum class Activations : uint8_t { int8, f32, int4 };

// One ±1 matrix. int8 and int4 mode: packed blocks of the kernel set; f32 mode: the file's rows, padded to 16 columns.
struct SignMatrix {
    int rows = 0, cols = 0;
    const uint8_t* bits = nullptr;
};

// y = in -> (x * g) sign^T -> * h -> LayerNorm? -> + bias?   and its relatives (see LinearKind)
struct Linear {
    LinearKind kind;
    int rows = 0, cols = 0;
    SignMatrix sign[2];                // sign: one or two stages. grouped: sign[0]
    const float* g = nullptr;          // (cols) sign
    const float* mid = nullptr;        // (rank) sign with mid_scale
    const float* h = nullptr;          // (rows) sign; q8: the rows' scales
    const float* bias = nullptr;       // (rows)
    const uint16_t* scales = nullptr;  // grouped: f16, in the order the kernel of the mode reads
    const void* dense = nullptr;       // dense: (rows, padded(cols, 64))
};

struct Layer {
    const float* attention_norm = nullptr;  // (dim)
    const float* ffn_norm = nullptr;        // (dim)
    const float* q_norm = nullptr;          // (head_dim), qk_norm only
    const float* k_norm = nullptr;          // (head_dim)
    Linear linear[kRoles];

    const Linear& operator[](Role role) const { return linear[static_cast<int>(role)]; }
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
    const float* norm = nullptr;  // (dim)
    std::vector<Layer> layers;
    RopeTable rope;
    Arena arena;

    uint64_t weight_bytes() const { return arena.bytes(); }
};

// Reads, checks (size, CRC-32C of every tensor, finite scales and norms) and repacks. slots are in the table's
// order; their count and sizes must be what config implies. *out is set only on success.
Status load_model(const Config& config, const std::vector<TensorSlot>& slots, const LoadOptions& options, Pool& pool,
                  std::shared_ptr<Model>* out);

}  // namespace onebit
