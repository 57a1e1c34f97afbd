#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>

namespace onebit {

namespace {

Status bad(const std::string& what) { return error("ERR_CONFIG", "The model's config is not usable: " + what + "."); }

Status check_range(const char* name, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return {};
    return bad(std::string(name) + " is " + std::to_string(value) + ", allowed are " + std::to_string(low) + " to " +
               std::to_string(high));
}

bool positive(double value) { return std::isfinite(value) && value > 0; }

Status check_rope(const RopeConfig& rope, int dims) {
    using Scaling = RopeConfig::Scaling;
    if (rope.scaling > Scaling::factors) return bad("unknown rope scaling");
    if (!positive(rope.theta) || rope.theta <= 1) return bad("rope theta must be a finite number above 1");
    if (rope.scaling == Scaling::none) return {};
    const bool by_context = rope.scaling == Scaling::llama3 || rope.scaling == Scaling::yarn;
    bool good = positive(rope.factor) && positive(rope.low_freq_factor) && positive(rope.high_freq_factor) &&
                positive(rope.beta_fast) && positive(rope.beta_slow) && (!by_context || positive(rope.original_context)) &&
                std::isfinite(rope.attention_factor) && rope.attention_factor >= 0;
    for (const float factor : rope.factors) good = good && positive(static_cast<double>(factor));
    if (!good) return bad("the numbers of rope scaling must be positive");
    if (rope.scaling == Scaling::llama3 && rope.high_freq_factor <= rope.low_freq_factor) {
        return bad("rope's high_freq_factor must be above the low one");
    }
    if (rope.scaling == Scaling::factors && rope.factors.size() != static_cast<size_t>(dims / 2)) {
        return bad("rope needs a factor for each of " + std::to_string(dims / 2) + " pairs");
    }
    return {};
}

// Without such layers every number of theirs is 0.
Status check_delta(const Config& c) {
    const std::vector<int32_t>& layers = c.delta_layers;
    const int64_t some = layers.empty() ? 0 : 1, most = layers.empty() ? 0 : INT64_MAX;
    const auto range = [&](const char* name, int32_t value, int64_t high) { return check_range(name, value, some, std::min(high, most)); };
    for (const auto& [name, value, high] : {std::tuple("delta_k_heads", c.delta_k_heads, kMaxHeads),
                                            {"delta_v_heads", c.delta_v_heads, kMaxHeads},
                                            {"delta_k_dim", c.delta_k_dim, kMaxHeadDim},
                                            {"delta_v_dim", c.delta_v_dim, kMaxHeadDim},
                                            {"delta_conv", c.delta_conv, kMaxConv}}) {
        if (Status status = range(name, value, high); !status.ok()) return status;
    }
    if (layers.empty()) return {};
    for (size_t i = 0; i < layers.size(); ++i) {
        if (layers[i] < 0 || layers[i] >= c.n_layers || (i > 0 && layers[i] <= layers[i - 1])) {
            return bad("delta_layers must be numbers of layers, ascending");
        }
    }
    if (c.delta_v_heads % c.delta_k_heads != 0) return bad("delta_v_heads must be a multiple of delta_k_heads");
    const int64_t channels = 2 * int64_t{c.delta_k_heads} * c.delta_k_dim + int64_t{c.delta_v_heads} * c.delta_v_dim;
    return check_range("the width of delta layers", channels, 1, kMaxDim);
}

}  // namespace

Status check_config(const Config& config) {
    struct Field {
        const char* name;
        int64_t value, low, high;
    };
    const Field fields[] = {
        {"vocab_size", config.vocab_size, 1, kMaxVocab},    {"dim", config.dim, 1, kMaxDim},
        {"hidden_dim", config.hidden_dim, 1, kMaxDim},      {"n_layers", config.n_layers, 1, kMaxLayers},
        {"n_heads", config.n_heads, 1, kMaxHeads},          {"n_kv_heads", config.n_kv_heads, 1, kMaxHeads},
        {"head_dim", config.head_dim, 1, kMaxHeadDim},      {"context_length", config.context_length, 1, kMaxContext},
        {"rope_dims", config.rope_dims, 0, config.head_dim}, {"window", config.window, 0, kMaxContext},
        {"position_offset", config.position_offset, 0, kMaxOffset},
    };
    for (const Field& field : fields) {
        if (Status status = check_range(field.name, field.value, field.low, field.high); !status.ok()) return status;
    }
    if (config.head_dim % 2 != 0 || config.rope_dims % 2 != 0) return bad("head_dim and rope_dims must be even");
    if (config.n_heads % config.n_kv_heads != 0) return bad("n_heads must be a multiple of n_kv_heads");
    if (int64_t{config.wq_rows()} > kMaxDim) return bad("n_heads x head_dim is too large");
    if (!std::isfinite(config.norm_eps) || config.norm_eps < 0) return bad("norm_eps must be finite and not negative");
    if (config.norm > NormKind::layer || config.activation > Activation::gelu_tanh) return bad("an unknown norm or activation");
    if (Status status = check_delta(config); !status.ok()) return status;
    return check_rope(config.rope, config.rotated());
}

}  // namespace onebit
