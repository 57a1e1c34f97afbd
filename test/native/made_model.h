// Models made from a seed, for tests: the bytes of every tensor of a config, of sizes that keep activations lively but
// finite; a file of them, and the model that the engine loads from it.
#pragma once

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/math.h"
#include "model/bind.h"

namespace made {

using namespace onebit;

// SplitMix64 (Steele, Lea, Flood 2014): integers only, so that every machine makes the same model.
struct Random {
    uint64_t state;
    uint64_t next() {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    int between(int low, int high) { return low + static_cast<int>(next() % static_cast<uint64_t>(high - low + 1)); }
    bool chance(int one_in) { return between(1, one_in) == 1; }
    float uniform(float low, float high) {  // exact: 24 bits
        return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f;
    }
};

// Two layers whose query heads share key-value heads.
inline Config small_config() {
    Config config;
    config.vocab_size = 40;
    config.dim = 128;
    config.hidden_dim = 256;
    config.n_layers = 2;
    config.n_heads = 4;
    config.n_kv_heads = 2;
    config.head_dim = 32;
    config.context_length = 16;
    return config;
}

// Rows and columns of a matrix by its role: "wq", "tok_embeddings".
inline std::pair<int, int> shape_of(const Config& c, const std::string& role) {
    if (role == "wq") return {c.wq_rows(), c.dim};
    if (role == "wk" || role == "wv") return {c.kv_dim(), c.dim};
    if (role == "wo") return {c.dim, c.q_dim()};
    if (role == "w1" || role == "w3") return {c.hidden_dim, c.dim};
    if (role == "w2") return {c.dim, c.hidden_dim};
    if (role == "w_qkv") return {c.delta_channels(), c.dim};
    if (role == "w_z") return {c.delta_inner(), c.dim};
    if (role == "w_beta" || role == "w_alpha") return {c.delta_v_heads, c.dim};
    if (role == "w_out") return {c.dim, c.delta_inner()};
    return {c.vocab_size, c.dim};
}

// The same kind for all linears of every layer, another for the embedding and the head.
inline std::vector<NamedKind> kinds_of(const Config& config, const LinearKind& linear, const LinearKind& table) {
    std::vector<NamedKind> kinds{{"tok_embeddings", table}};
    for (int l = 0; l < config.n_layers; ++l) {
        const std::string layer = "layers." + std::to_string(l) + ".";
        if (config.is_delta(l)) {
            for (const char* role : {"w_qkv", "w_z", "w_beta", "w_alpha", "w_out"}) kinds.push_back({layer + role, linear});
        } else {
            for (const char* role : {"wq", "wk", "wv", "wo"}) kinds.push_back({layer + role, linear});
        }
        for (const char* role : {"w1", "w2", "w3"}) {
            if (config.gated || std::strcmp(role, "w3") != 0) kinds.push_back({layer + role, linear});
        }
    }
    if (!config.tied_head) kinds.push_back({"output", table});
    return kinds;
}

inline LinearKind& kind_of(std::vector<NamedKind>& kinds, const std::string& name) {
    for (NamedKind& named : kinds) {
        if (named.name == name) return named.kind;
    }
    std::abort();
}

// The tensors that a config and kinds imply; empty where they do not fit.
inline std::vector<TensorRead> tensors_of(const Config& config, const std::vector<NamedKind>& kinds) {
    std::vector<TensorRead> reads;
    std::shared_ptr<Model> shape;
    const Status status = new_model(config, kinds, {}, Activations::int8, choose_kernels("scalar", nullptr), &reads, &shape);
    if (!status.ok()) std::printf("%s: %s\n", status.code, status.message.c_str());
    return status.ok() ? reads : std::vector<TensorRead>();
}

// Of four codes in a byte each 3 becomes another.
inline void without_threes(std::vector<uint8_t>& codes) {
    for (size_t i = 0; i < codes.size(); ++i) {
        for (int shift = 0; shift < 8; shift += 2) {
            if ((codes[i] >> shift & 3) == 3) codes[i] = static_cast<uint8_t>(codes[i] ^ (1 + i % 3) << shift);
        }
    }
}

// inputs: columns of the matrix that a scale belongs to.
inline std::vector<uint8_t> bytes_of(const TensorRead& read, int inputs, bool int8_rows, Random& random) {
    std::vector<uint8_t> bytes(read.file_bytes());
    const auto put = [&](size_t i, auto value) { std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value); };
    const size_t count = static_cast<size_t>(read.rows) * static_cast<size_t>(read.cols);
    const float size = 1.0f / std::sqrt(static_cast<float>(inputs > 0 ? inputs : 1));
    const auto even = [&](float most) { return random.uniform(-most, most); };
    if (read.type == FileType::u8 || read.type == FileType::i8) {
        for (size_t i = 0; i < bytes.size(); i += 8) {
            const uint64_t word = random.next();
            std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, bytes.size() - i));
        }
        if (read.holds == TensorRead::Holds::ternary) without_threes(bytes);
    } else if (read.holds == TensorRead::Holds::group_scales) {
        for (size_t i = 0; i < count; ++i) put(i, f16_from_f32(random.uniform(0.5f, 1.5f) * size));
    } else if (read.holds == TensorRead::Holds::dense) {
        for (size_t i = 0; i < count; ++i) {
            const float value = even(1.7f * size);
            if (read.type == FileType::f32) put(i, value);
            if (read.type == FileType::f16) put(i, f16_from_f32(value));
            if (read.type == FileType::bf16) put(i, bf16_from_f32(value));
        }
    } else {
        const bool bias = read.name.ends_with(".bias");
        const bool scale = read.name.ends_with(".h") || read.name.ends_with(".v") || read.name.ends_with(".mid") || read.name.ends_with(".scale");
        const float middle = scale ? size / (int8_rows ? 73.3f : 1.0f) : 1.0f;
        const bool decay = read.name.ends_with(".decay"), even_ones = read.name.ends_with(".conv") || read.name.ends_with(".time_bias") ||
                                                                     read.name.ends_with(".u");
        for (size_t i = 0; i < count; ++i) {
            const float value = bias ? even(0.1f) : even_ones ? even(1) : decay ? random.uniform(-2, 0) : middle * random.uniform(0.5f, 1.5f);
            if (read.type == FileType::f16) put(i, f16_from_f32(value));
            else put(i, value);
        }
    }
    return bytes;
}

// A file of random tensors that goes away with the object.
class ModelFile {
public:
    ModelFile(const Config& of, std::vector<NamedKind> kinds, uint64_t seed) : config(of) {
        contents.kinds = std::move(kinds);
        // Of its own: another checkout may be running the same test.
        const std::string name = "onebit-made-" + std::to_string(std::random_device{}()) + "-" + std::to_string(seed);
        path = (std::filesystem::temp_directory_path() / name).string();
        std::ofstream out(path, std::ios::binary);
        Random random{seed};
        int inputs = 0;
        bool int8_rows = false;
        for (const TensorRead& read : tensors_of(config, contents.kinds)) {
            if (read.holds != TensorRead::Holds::floats && read.holds != TensorRead::Holds::group_scales) {
                inputs = read.cols;
                int8_rows = read.type == FileType::i8;
            }
            std::vector<uint8_t> bytes = bytes_of(read, inputs, int8_rows, random);
            const uint32_t crc = choose_kernels("scalar", nullptr)->crc32c(0, bytes.data(), bytes.size());
            contents.tensors.push_back({read.name, read.type, file_bytes, bytes.size(), crc});
            file_bytes += bytes.size();
            out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
            tensors.emplace(read.name, std::move(bytes));
        }
    }
    ~ModelFile() {
        std::error_code ignored;
        std::filesystem::remove(path, ignored);
    }
    ModelFile(const ModelFile&) = delete;
    ModelFile& operator=(const ModelFile&) = delete;

    Status load(const KernelSet& kernels, Activations activations, Pool& pool, std::shared_ptr<Model>* out) const {
        LoadOptions options;
        options.path = path;
        options.file_bytes = file_bytes;
        options.activations = activations;
        options.kernels = &kernels;
        return load_model(config, contents, options, pool, out);
    }

    Config config;
    Contents contents;
    std::string path;
    uint64_t file_bytes = 0;
    std::map<std::string, std::vector<uint8_t>> tensors;
};

}  // namespace made
