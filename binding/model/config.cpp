#include "model/config.h"

#include <cmath>
#include <string>

namespace onebit {

namespace {

Status bad(const std::string& what) { return error("ERR_CONFIG", "The model's config is not usable: " + what + "."); }

Status check_range(const char* name, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return {};
    return bad(std::string(name) + " is " + std::to_string(value) + ", allowed are " + std::to_string(low) + " to " +
               std::to_string(high));
}

Status check_kind(const std::string& name, const LinearKind& kind, int cols) {
    switch (kind.form) {
        case LinearKind::Form::dense:
            return kind.dtype <= DType::q8 ? Status{} : bad(name + " has an unknown dense type");
        case LinearKind::Form::grouped:
            return cols % 128 == 0 ? Status{} : bad(name + " has " + std::to_string(cols) +
                                                    " columns; groups of signs need a multiple of 128");
        case LinearKind::Form::sign:
            if (cols % 8 != 0) return bad(name + " has " + std::to_string(cols) + " columns; signs need a multiple of 8");
            if (kind.rank < 0 || kind.rank > kMaxDim || kind.rank % 8 != 0) {
                return bad(name + " has rank " + std::to_string(kind.rank) + "; it must be a multiple of 8");
            }
            return {};
    }
    return bad(name + " has an unknown form");
}

Status check_vocabulary_kind(const char* name, const LinearKind& kind, int dim) {
    if (kind.form == LinearKind::Form::sign) return bad(std::string(name) + " cannot be a sign chain");
    if (kind.bias) return bad(std::string(name) + " cannot have a bias");
    return check_kind(name, kind, dim);
}

bool positive(double value) { return std::isfinite(value) && value > 0; }

Status check_rope(const RopeConfig& rope, int head_dim) {
    if (!positive(rope.theta) || rope.theta <= 1) return bad("rope theta must be a finite number above 1");
    switch (rope.scaling) {
        case RopeConfig::Scaling::none:
            return {};
        case RopeConfig::Scaling::linear:
            return positive(rope.factor) ? Status{} : bad("rope factor must be positive");
        case RopeConfig::Scaling::llama3:
            if (!positive(rope.factor) || !positive(rope.original_context) || !positive(rope.low_freq_factor) ||
                !positive(rope.high_freq_factor) || rope.high_freq_factor <= rope.low_freq_factor) {
                return bad("the numbers of llama3 rope scaling must be positive, the high factor above the low one");
            }
            return {};
        case RopeConfig::Scaling::yarn:
            if (!positive(rope.factor) || !positive(rope.original_context) || !positive(rope.beta_fast) ||
                !positive(rope.beta_slow) || !std::isfinite(rope.attention_factor) || rope.attention_factor < 0) {
                return bad("the numbers of yarn rope scaling must be positive");
            }
            return {};
        case RopeConfig::Scaling::factors:
            if (rope.factors.size() != static_cast<size_t>(head_dim / 2)) return bad("rope needs head_dim / 2 factors");
            for (const float factor : rope.factors) {
                if (!positive(static_cast<double>(factor))) return bad("rope factors must be positive");
            }
            return {};
    }
    return bad("unknown rope scaling");
}

}  // namespace

int32_t Config::rows(Role role) const {
    switch (role) {
        case Role::wq: return q_dim();
        case Role::wk:
        case Role::wv: return kv_dim();
        case Role::w1:
        case Role::w3: return hidden_dim;
        case Role::wo:
        case Role::w2: return dim;
    }
    return 0;
}

int32_t Config::cols(Role role) const {
    if (role == Role::wo) return q_dim();
    return role == Role::w2 ? hidden_dim : dim;
}

Status check_config(const Config& config) {
    struct Field {
        const char* name;
        int64_t value, high;
    };
    const Field fields[] = {
        {"vocab_size", config.vocab_size, kMaxVocab}, {"dim", config.dim, kMaxDim},
        {"hidden_dim", config.hidden_dim, kMaxDim},   {"n_layers", config.n_layers, kMaxLayers},
        {"n_heads", config.n_heads, kMaxHeads},       {"n_kv_heads", config.n_kv_heads, kMaxHeads},
        {"head_dim", config.head_dim, kMaxHeadDim},   {"context_length", config.context_length, kMaxContext},
    };
    for (const Field& field : fields) {
        if (Status status = check_range(field.name, field.value, 1, field.high); !status.ok()) return status;
    }
    if (config.head_dim % 2 != 0) return bad("head_dim must be even");
    if (config.n_heads % config.n_kv_heads != 0) return bad("n_heads must be a multiple of n_kv_heads");
    if (int64_t{config.n_heads} * config.head_dim > kMaxDim) return bad("n_heads x head_dim is too large");
    if (!std::isfinite(config.norm_eps) || config.norm_eps < 0) return bad("norm_eps must be finite and not negative");
    if (Status status = check_rope(config.rope, config.head_dim); !status.ok()) return status;
    if (Status status = check_vocabulary_kind("the embedding", config.embedding, config.dim); !status.ok()) return status;
    if (!config.tied_head) {
        if (Status status = check_vocabulary_kind("the head", config.head, config.dim); !status.ok()) return status;
    }
    if (config.linears.size() != static_cast<size_t>(config.n_layers) * kRoles) {
        return bad("it needs a kind for each of the seven linears of every layer");
    }
    static const char* const names[kRoles] = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};
    for (size_t i = 0; i < config.linears.size(); ++i) {
        const auto role = static_cast<Role>(i % kRoles);
        const std::string name = "layers." + std::to_string(i / kRoles) + "." + names[i % kRoles];
        if (Status status = check_kind(name, config.linears[i], config.cols(role)); !status.ok()) return status;
    }
    return {};
}

}  // namespace onebit
