// What a model computes, written as plainly as it can be: no threads, no tiles, no layout of its own. It takes the numbers
// of a file by their names, adds in the order that binding/kernels/kernels.h states, and shares no code with
// binding/run or binding/linear. Fuzzing compares the engine with it, bit by bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "kernels/math.h"
#include "made_model.h"
#include "model/model.h"
#include "reference_delta.h"
#include "reference_sums.h"

namespace reference {

using namespace onebit;
using Floats = std::vector<float>;

// ---- the numbers of a file -------------------------------------------------------------------------------
using Bytes = std::vector<uint8_t>;
using File = std::map<std::string, Bytes>;  // by tensor

inline Floats floats_of(const Bytes& bytes) {
    Floats out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
}

// ---- one row ---------------------------------------------------------------------------------------------
inline float exp_of(float x) {  // as lanes_rows.inl describes it
    if (x < -87.33f) return 0.0f;
    x = 89.0f < x ? 89.0f : x;
    const float shifted = std::fma(x, 0x1.715476p+0f, 12582912.0f), k = shifted - 12582912.0f;
    float r = std::fma(k, -0x1.62e400p-1f, x);
    r = std::fma(k, -0x1.7f7d1cp-20f, r);
    float p = 1.0f / 5040.0f;
    for (const float c : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f, 1.0f, 1.0f}) p = std::fma(p, r, c);
    const int power = static_cast<int>(k), half = power >> 1;
    return p * std::ldexp(1.0f, half) * std::ldexp(1.0f, power - half);
}

inline float times_sigmoid(float x, float z) { return x / (1.0f + exp_of(0.0f - z)); }

inline float activated(float x, Activation activation) {
    const float positive = 0.0f > x ? 0.0f : x;
    switch (activation) {
        case Activation::silu: return times_sigmoid(x, x);
        case Activation::relu: return positive;
        case Activation::relu2: return positive * positive;
        case Activation::gelu: {
            const float size = x > 0.0f - x ? x : 0.0f - x, z = size * 0.70710678f;
            const float t = 1.0f / std::fma(z, 0.3275911f, 1.0f);
            float p = 1.061405429f;
            for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) p = std::fma(p, t, c);
            return positive - size * 0.5f * (p * t * exp_of(0.0f - z * z));
        }
        case Activation::gelu_tanh: return times_sigmoid(x, std::fma(x * x * x, 0.044715f, x) * 1.5957691f);
    }
    return x;
}

inline void layernorm(float* x, int n, float eps) {
    Lanes sum, squares;
    for (int i = 0; i < n; ++i) sum.add(i, x[i]);
    const float mean = sum.total() / static_cast<float>(n);
    for (int i = 0; i < n; ++i) x[i] -= mean;
    for (int i = 0; i < n; ++i) squares.multiply_add(i, x[i], x[i]);
    const float inverse = 1.0f / std::sqrt(squares.total() / static_cast<float>(n) + eps);
    for (int i = 0; i < n; ++i) x[i] *= inverse;
}

inline void rmsnorm(float* x, const float* w, int n, float eps) {
    Lanes squares;
    for (int i = 0; i < n; ++i) squares.multiply_add(i, x[i], x[i]);
    const float inverse = 1.0f / std::sqrt(squares.total() / static_cast<float>(n) + eps);
    for (int i = 0; i < n; ++i) x[i] = x[i] * inverse * w[i];
}

inline float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

// v (n) -> q (n) in -most..most (127 or 7), and what a step is worth.
inline float rounded(const Floats& v, int most, std::vector<int8_t>& q) {
    q.assign(v.size(), 0);
    float largest = 0;
    for (const float x : v) largest = std::max(largest, std::fabs(x));
    if (largest < 0x1p-100f) return 0;
    const float factor = static_cast<float>(most) / largest;
    if (most == 127) {
        for (size_t i = 0; i < v.size(); ++i) q[i] = static_cast<int8_t>(nearest(v[i] * factor));
        return largest / 127.0f;
    }
    float most_so_far = 0, ratio = 0;
    for (const float c : {1.0f, 1.0f / 0.85f, 1.0f / 0.7225f, 1.0f / 0.614125f}) {
        Lanes along, square;
        std::vector<int8_t> tried(v.size());
        for (size_t i = 0; i < v.size(); ++i) {
            const float value = v[i] * factor, r = std::min(std::max(nearest(value * c), -7.0f), 7.0f);
            along.multiply_add(static_cast<int>(i), value, r);
            square.multiply_add(static_cast<int>(i), r, r);
            tried[i] = static_cast<int8_t>(r);
        }
        const float a = along.total(), b = square.total();
        if (a * a / b <= most_so_far) continue;
        most_so_far = a * a / b;
        ratio = a / b;
        q = tried;
    }
    return largest / 7.0f * ratio;
}

// ---- matrices --------------------------------------------------------------------------------------------
// One matrix: every weight as a float (a sign is +-1), and as a byte where it is one.
struct Matrix {
    int rows = 0, cols = 0;
    Floats w = {};
    std::vector<int8_t> bytes = {};
    bool signs = false;  // or ternary: one plane of rounded activations
    int group_cols = 128;
    Floats in_scale = {}, out_scale = {}, group_scale = {};  // empty: none. group_scale: (rows, cols / group_cols)

    // x (cols) -> (rows)
    Floats times(const Floats& x, bool rounds, int most) const {
        Floats scaled = x, out(static_cast<size_t>(rows));
        for (size_t i = 0; i < scaled.size() && !in_scale.empty(); ++i) scaled[i] *= in_scale[i];
        std::vector<int8_t> q, fine;
        float scale = 1, fine_scale = 0;
        const bool planes = rounds && !signs;
        if (rounds) scale = rounded(scaled, planes ? 127 : most, q);
        if (planes) {
            Floats rest = scaled;
            for (size_t i = 0; i < rest.size(); ++i) rest[i] = scaled[i] - static_cast<float>(q[i]) * scale;
            fine_scale = rounded(rest, 127, fine);
        }
        for (int r = 0; r < rows; ++r) {
            float& y = out[static_cast<size_t>(r)];
            if (planes) {
                y = static_cast<float>(int_dot(byte_row(r), q.data(), cols)) * scale +
                    static_cast<float>(int_dot(byte_row(r), fine.data(), cols)) * fine_scale;
            } else if (rounds && !group_scale.empty()) {
                y = 0;
                for (int g = 0, c = 0; c < cols; ++g, c += group_cols) {
                    y = std::fma(group(r, g), static_cast<float>(int_dot(byte_row(r) + c, q.data() + c, group_cols)), y);
                }
                y *= scale;
            } else if (rounds) {
                y = static_cast<float>(int_dot(byte_row(r), q.data(), cols)) * scale;
            } else {
                y = float_row(r, scaled);
            }
            if (!out_scale.empty()) y *= out_scale[static_cast<size_t>(r)];
        }
        return out;
    }

    Floats row(int r) const {  // as an embedding reads it
        Floats out(static_cast<size_t>(cols));
        for (int c = 0; c < cols; ++c) {
            const float value = w.empty() ? static_cast<float>(byte_row(r)[c]) : w[at(r, c)];
            out[static_cast<size_t>(c)] = !group_scale.empty() ? value * group(r, c / group_cols)
                                          : out_scale.empty()  ? value
                                                               : value * out_scale[static_cast<size_t>(r)];
        }
        return out;
    }

private:
    size_t at(int r, int c) const { return static_cast<size_t>(r) * static_cast<size_t>(cols) + static_cast<size_t>(c); }
    const int8_t* byte_row(int r) const { return bytes.data() + at(r, 0); }
    float group(int r, int g) const { return group_scale[static_cast<size_t>(r * (cols / group_cols) + g)]; }

    // A sign is multiplied like any other weight: a product with +-1 or 0 is exact, so that adding it is adding x, -x or 0.
    float float_row(int r, const Floats& x) const {
        Lanes lanes;
        if (!w.empty()) {
            float_dot(w.data() + at(r, 0), x.data(), cols, lanes);
            return lanes.total();
        }
        Floats row(static_cast<size_t>(cols));
        for (int i = 0; i < cols; ++i) row[static_cast<size_t>(i)] = static_cast<float>(byte_row(r)[i]);
        if (group_scale.empty()) {
            float_dot(row.data(), x.data(), cols, lanes);
            return lanes.total();
        }
        for (int g = 0, c = 0; c < cols; ++g, c += group_cols) {
            Lanes part;
            float_dot(row.data() + c, x.data() + c, group_cols, part);
            for (int l = 0; l < 16; ++l) lanes.lane[l] = std::fma(group(r, g), part.lane[l], lanes.lane[l]);
        }
        return lanes.total();
    }
};

inline Matrix signs_of(const Bytes& bits, int rows, int cols) {
    Matrix m{.rows = rows, .cols = cols};
    m.signs = true;
    m.bytes.resize(static_cast<size_t>(rows) * static_cast<size_t>(cols));
    for (size_t i = 0; i < m.bytes.size(); ++i) m.bytes[i] = (bits[i / 8] >> (i % 8) & 1) != 0 ? -1 : 1;
    return m;
}

inline Matrix ternary_of(const Bytes& codes, int rows, int cols) {
    Matrix m{.rows = rows, .cols = cols};
    m.signs = true;
    m.bytes.resize(static_cast<size_t>(rows) * static_cast<size_t>(cols));
    for (size_t i = 0; i < m.bytes.size(); ++i) m.bytes[i] = static_cast<int8_t>((codes[i / 4] >> (i % 4 * 2) & 3) - 1);
    return m;
}

inline Floats halves_of(const Bytes& bytes) {
    Floats out;
    for (size_t i = 0; i < bytes.size(); i += 2) out.push_back(f32_from_f16(static_cast<uint16_t>(bytes[i] | bytes[i + 1] << 8)));
    return out;
}

// x = H x in blocks, by the stages of kernels.h.
inline void hadamard(Floats& x, int block) {
    for (int h = 1; h < block; h *= 2) {
        for (size_t i = 0; i < x.size(); ++i) {
            if ((i & static_cast<size_t>(h)) != 0) continue;
            const float a = x[i], b = x[i + static_cast<size_t>(h)];
            x[i] = a + b;
            x[i + static_cast<size_t>(h)] = a - b;
        }
    }
    for (float& value : x) value *= 1.0f / std::sqrt(static_cast<float>(block));
}

struct Linear {
    std::vector<Matrix> stages;
    bool ternary = false;  // rounds to 8 bits where signs round to 4
    bool layernorm = false;
    Floats u, v;  // the column beside signs; empty: none
    Floats bias;
    Floats norm_in, rotation_signs;  // empty: none
    float norm_eps = 0;
    int rotation = 0;

    void turn_signs(Floats& x) const {
        for (size_t i = 0; i < rotation_signs.size(); ++i) x[i] *= rotation_signs[i];
    }

    Floats row(int r) const {  // as an embedding reads it
        Floats x = stages[0].row(r);
        if (rotation > 0) hadamard(x, rotation), turn_signs(x);
        return x;
    }

    Floats times(Floats x, Activations activations) const {
        if (!norm_in.empty()) rmsnorm(x.data(), norm_in.data(), static_cast<int>(x.size()), norm_eps);
        if (rotation > 0) turn_signs(x), hadamard(x, rotation);
        const Floats given = x;
        for (const Matrix& stage : stages) {
            const bool rounds = activations != Activations::f32 && stage.w.empty();
            x = stage.times(x, rounds, activations == Activations::int4 && stage.signs && !ternary ? 7 : 127);
        }
        if (!u.empty()) {
            Lanes lanes;
            for (size_t i = 0; i < v.size(); ++i) lanes.multiply_add(static_cast<int>(i), v[i], given[i]);
            const float along = lanes.total();
            for (size_t i = 0; i < u.size(); ++i) x[i] = std::fma(along, u[i], x[i]);
        }
        if (layernorm) reference::layernorm(x.data(), static_cast<int>(x.size()), 1e-5f);
        for (size_t i = 0; i < bias.size(); ++i) x[i] += bias[i];
        return x;
    }
};

inline Linear linear_of(const File& file, const std::string& name, const LinearKind& kind, int rows, int cols, float norm_eps) {
    Linear out;
    const auto part = [&](const char* suffix) -> const Bytes& { return file.at(name + suffix); };
    out.norm_eps = norm_eps;
    if (kind.norm_in) out.norm_in = floats_of(part(".norm_in"));
    out.rotation = kind.rotation;
    if (kind.rotation > 0 && kind.rotation_signs) {
        const Bytes& bits = file.at("rotation_signs." + std::to_string(cols));
        for (int i = 0; i < cols; ++i) out.rotation_signs.push_back((bits[static_cast<size_t>(i / 8)] >> (i % 8) & 1) != 0 ? -1.0f : 1.0f);
    }
    if (kind.form == LinearKind::Form::sign) {
        const bool chain = kind.rank > 0;
        const auto vector = [&](const char* suffix) { return kind.half ? halves_of(part(suffix)) : floats_of(part(suffix)); };
        out.stages.push_back(signs_of(part(chain ? ".sign1" : ".sign"), chain ? kind.rank : rows, cols));
        if (chain) out.stages.push_back(signs_of(part(".sign2"), rows, kind.rank));
        if (chain && kind.mid_scale) out.stages[1].in_scale = vector(".mid");
        out.stages[0].in_scale = vector(".g");
        out.stages.back().out_scale = vector(".h");
        if (kind.column) out.u = vector(".u"), out.v = vector(".v");
    } else if (kind.form == LinearKind::Form::grouped) {
        Matrix m = signs_of(part(".sign"), rows, cols);
        m.group_scale = halves_of(part(".scale"));
        out.stages.push_back(std::move(m));
    } else if (kind.form == LinearKind::Form::ternary) {
        Matrix m = ternary_of(part(".codes"), rows, cols);
        m.group_cols = kind.group;
        if (kind.group > 0) m.group_scale = halves_of(part(".scale"));
        if (kind.group == 0) m.out_scale = floats_of(part(".scale"));
        out.ternary = true;
        out.stages.push_back(std::move(m));
    } else {
        Matrix m{.rows = rows, .cols = cols};
        const Bytes& w = part(".weight");
        const auto half = [&](size_t i) { return static_cast<uint16_t>(w[i] | w[i + 1] << 8); };
        switch (kind.dtype) {
            case DType::f32: m.w = floats_of(w); break;
            case DType::f16: for (size_t i = 0; i < w.size(); i += 2) m.w.push_back(f32_from_f16(half(i))); break;
            case DType::bf16: for (size_t i = 0; i < w.size(); i += 2) m.w.push_back(f32_from_bf16(half(i))); break;
            case DType::q8: m.bytes.assign(w.begin(), w.end()); m.out_scale = floats_of(part(".scale")); break;
        }
        out.stages.push_back(std::move(m));
    }
    out.layernorm = kind.layernorm && kind.form == LinearKind::Form::sign;
    if (kind.bias) out.bias = floats_of(part(".bias"));
    return out;
}

// ---- a model ---------------------------------------------------------------------------------------------
class Model {
public:
    Model(const Config& config, const std::vector<NamedKind>& kinds, const File& file, Activations activations, DType kv)
        : c(config), file_(file), activations_(activations), kv_(kv), rope_(make_rope_table(config.rope, config.rotated())) {
        for (const NamedKind& named : kinds) {
            const auto [rows, cols] = made::shape_of(c, named.name.substr(named.name.rfind('.') + 1));
            linears_.emplace(named.name, linear_of(file, named.name, named.kind, rows, cols, c.norm_eps));
        }
    }

    // The hidden state after the final norm at each token of a sequence, and the logits of one.
    std::vector<Floats> hidden(const std::vector<int32_t>& ids) const;
    Floats logits(const Floats& hidden) const { return multiply(c.tied_head ? "tok_embeddings" : "output", hidden); }

private:
    Floats multiply(const std::string& name, const Floats& x) const { return linears_.at(name).times(x, activations_); }

    Floats normed(Floats x, const std::string& name) const {
        const Floats w = floats_of(file_.at(name));
        if (c.norm == NormKind::rms) {
            rmsnorm(x.data(), w.data(), static_cast<int>(x.size()), c.norm_eps);
        } else {
            layernorm(x.data(), static_cast<int>(x.size()), c.norm_eps);
            for (size_t i = 0; i < x.size(); ++i) x[i] *= w[i];
        }
        if (!c.norm_bias) return x;
        const Floats bias = floats_of(file_.at(name + ".bias"));
        for (size_t i = 0; i < x.size(); ++i) x[i] += bias[i];
        return x;
    }

    void turn(float* head, const std::string& norm, int position) const {
        if (c.qk_norm) rmsnorm(head, floats_of(file_.at(norm)).data(), c.head_dim, c.norm_eps);
        if (c.learned_positions) return;
        const int half = c.rotated() / 2;
        Floats cos(static_cast<size_t>(half)), sin(static_cast<size_t>(half));
        rope_.angles(position, cos.data(), sin.data());
        for (int i = 0; i < half; ++i) {
            float &a = head[c.rope.interleaved ? 2 * i : i], &b = head[c.rope.interleaved ? 2 * i + 1 : half + i];
            const auto at = static_cast<size_t>(i);
            const float turned = a * cos[at] - b * sin[at];
            b = b * cos[at] + a * sin[at];
            a = turned;
        }
    }

    // Keys or values as the cache keeps them: numbers, and a scale with int8.
    struct Kept {
        Floats x;
        float scale = 1;
    };
    Kept kept(const float* head) const {
        Kept out{Floats(head, head + c.head_dim)};
        if (kv_ == DType::f16) for (float& x : out.x) x = f32_from_f16(f16_from_f32(x));
        if (kv_ != DType::q8) return out;
        std::vector<int8_t> q;
        out.scale = rounded(out.x, 127, q);
        for (size_t i = 0; i < q.size(); ++i) out.x[i] = static_cast<float>(q[i]);
        return out;
    }

    // One query head at a position. keys, values: of its KV head, by position.
    void attend(const float* q, int position, const std::vector<Kept>& keys, const std::vector<Kept>& values, float* out) const {
        const int first = c.window > 0 ? std::max(0, position + 1 - c.window) : 0;
        const float scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
        Floats p(static_cast<size_t>(position) + 1);
        float largest = -INFINITY;
        for (int i = first; i <= position; ++i) {
            const Kept& key = keys[static_cast<size_t>(i)];
            const float score = chain(q, key.x.data(), c.head_dim);
            p[static_cast<size_t>(i)] = kv_ == DType::q8 ? score * key.scale * scale : score * scale;
            largest = std::max(largest, p[static_cast<size_t>(i)]);
        }
        Lanes total;
        std::fill_n(out, c.head_dim, 0.0f);
        for (int i = first; i <= position; ++i) {
            float e = exp_of(p[static_cast<size_t>(i)] - largest);
            total.add(i, e);
            const Kept& value = values[static_cast<size_t>(i)];
            if (kv_ == DType::q8) e *= value.scale;
            add_times(e, value.x.data(), out, c.head_dim);
        }
        const float inverse = 1.0f / total.total();
        for (int d = 0; d < c.head_dim; ++d) out[d] *= inverse;
    }

    // What a layer of the delta rule makes of a token; before: all that it was given of the tokens before it.
    Floats recalled(const std::string& layer, const Floats& n, DeltaMemory& before) const {
        const auto part = [&](const char* name) { return floats_of(file_.at(layer + name)); };
        before.tokens.push_back(multiply(layer + "w_qkv", n));
        const Floats z = multiply(layer + "w_z", n), beta = multiply(layer + "w_beta", n), alpha = multiply(layer + "w_alpha", n);
        const Floats u = convolved(before.tokens, part("conv"), c.delta_conv), norm = part("delta_norm");
        const Floats decay = part("decay"), bias = part("time_bias");
        Floats out;
        for (int h = 0; h < c.delta_v_heads; ++h) {
            const auto at = static_cast<size_t>(h);
            const int key = c.delta_tiled ? h % c.delta_k_heads : h / (c.delta_v_heads / c.delta_k_heads);
            const DeltaToken token = token_of(u, c, key, h, decay_of(decay[at], alpha[at] + bias[at]), sigmoid(beta[at]));
            Floats read = delta_step(before.state(h, c), token);
            rmsnorm(read.data(), norm.data(), c.delta_v_dim, c.norm_eps);
            for (const float r : read) out.push_back(times_sigmoid(z[out.size()], z[out.size()]) * r);
        }
        return out;
    }

    // What attention makes of a token.
    Floats attended(const std::string& layer, const Floats& n, int position, std::vector<std::vector<Kept>>& keys,
                    std::vector<std::vector<Kept>>& values) const {
        const int group = c.n_heads / c.n_kv_heads, q_step = c.output_gate ? 2 * c.head_dim : c.head_dim;
        Floats q = multiply(layer + "wq", n), k = multiply(layer + "wk", n), v = multiply(layer + "wv", n);
        for (int h = 0; h < c.n_heads; ++h) turn(&q[static_cast<size_t>(h * q_step)], layer + "q_norm", position);
        for (int h = 0; h < c.n_kv_heads; ++h) {
            float* head = &k[static_cast<size_t>(h * c.head_dim)];
            turn(head, layer + "k_norm", position);
            keys[static_cast<size_t>(h)].push_back(kept(head));
            values[static_cast<size_t>(h)].push_back(kept(&v[static_cast<size_t>(h * c.head_dim)]));
        }
        Floats mixed(static_cast<size_t>(c.q_dim()));
        for (int h = 0; h < c.n_heads; ++h) {
            float* head = &mixed[static_cast<size_t>(h * c.head_dim)];
            const auto kv = static_cast<size_t>(h / group);
            attend(&q[static_cast<size_t>(h * q_step)], position, keys[kv], values[kv], head);
            for (int d = 0; d < c.head_dim && c.output_gate; ++d) {
                head[d] = times_sigmoid(head[d], q[static_cast<size_t>(h * q_step + c.head_dim + d)]);
            }
        }
        return c.attention_inner_norm ? normed(mixed, layer + "attention_inner_norm") : mixed;
    }

    const Config c;
    const File& file_;
    Activations activations_;
    DType kv_;
    RopeTable rope_;
    std::map<std::string, Linear> linears_;
};

inline std::vector<Floats> Model::hidden(const std::vector<int32_t>& ids) const {
    const auto dim = static_cast<size_t>(c.dim);
    std::vector<Floats> x, out;
    const Floats table = c.learned_positions ? floats_of(file_.at("position_embeddings")) : Floats();
    for (size_t t = 0; t < ids.size(); ++t) {
        x.push_back(linears_.at("tok_embeddings").row(ids[t]));
        if (!c.learned_positions) continue;
        for (size_t i = 0; i < dim; ++i) x[t][i] += table[(t + static_cast<size_t>(c.position_offset)) * dim + i];
    }
    for (int l = 0; l < c.n_layers; ++l) {
        const std::string layer = "layers." + std::to_string(l) + ".";
        std::vector<std::vector<Kept>> keys(static_cast<size_t>(c.n_kv_heads)), values = keys;
        DeltaMemory memory;
        for (size_t t = 0; t < ids.size(); ++t) {
            const Floats n = normed(x[t], layer + "attention_norm");
            const Floats mixed = c.is_delta(l) ? recalled(layer, n, memory) : attended(layer, n, static_cast<int>(t), keys, values);
            const Floats o = multiply(layer + (c.is_delta(l) ? "w_out" : "wo"), mixed);
            const Floats before = x[t];
            for (size_t i = 0; i < dim; ++i) x[t][i] += o[i];
            const Floats f = normed(c.parallel_residual ? before : x[t], layer + "ffn_norm");
            Floats inner = multiply(layer + "w1", f);
            const Floats up = c.gated ? multiply(layer + "w3", f) : Floats();
            for (size_t i = 0; i < inner.size(); ++i) inner[i] = activated(inner[i], c.activation) * (c.gated ? up[i] : 1.0f);
            if (c.ffn_inner_norm) inner = normed(inner, layer + "ffn_inner_norm");
            const Floats down = multiply(layer + "w2", inner);
            for (size_t i = 0; i < dim; ++i) x[t][i] += down[i];
        }
    }
    for (const Floats& row : x) out.push_back(normed(row, "norm"));
    return out;
}

}  // namespace reference
